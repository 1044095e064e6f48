"""From picture files to a finding: read, project, tune."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..errors import SganError
from ..sampling.draw import Sampling
from ..sampling.latent_files import find_latents
from ..snapshot import Snapshot
from .perceptual import Loss, load_loss
from .projector import Projection, project
from .results import Finding
from .targets import read_mask, read_targets
from .tuning import tune


def find(
    snapshot: Snapshot,
    images: Sequence[str],  # files
    how: Projection,
    loss: Loss,
    *,
    mask: str | None = None,  # a picture: white counts
    crop: str = "center",  # or 'none'
    init: str | None = None,  # a file of latents to begin at
    tune_steps: int = 0,  # of the generator, afterwards
    quiet: bool = False,  # no bars
) -> Finding:
    """Everything about these pictures. Nothing is searched before all that was given is known to be good.

    Raises SganError on bad input. After Ctrl-C the finding has fewer steps than were asked for, and fewer pictures if
    some were not begun.
    """
    G, device = snapshot.G, next(snapshot.G.parameters()).device
    targets = read_targets(images, snapshot.info, crop).to(device)
    counts = None if mask is None else read_mask(mask, snapshot.info, crop).to(device)
    start = None if init is None else _start(snapshot, init, len(targets))
    found = project(G, targets, loss, how, counts, start, quiet)
    n = len(found.ws)
    finding = Finding(_names(images)[:n], targets[:n], found, counts, G)
    if not tune_steps or found.steps < how.steps:
        return finding
    tuned, distance = tune(G, finding.targets, found, loss, tune_steps, counts, quiet=quiet)
    return replace(finding, tuned=tuned, tuned_distance=distance)


def choose_loss(
    name: str | None,  # of perceptual.LOSSES; None: LPIPS where its weights can be had, else the discriminator
    snapshot: Snapshot,
    detector: str | None,  # weights of LPIPS by hand
    say: Callable[[str], object],  # told if another than LPIPS is taken
) -> Loss:
    """Raises SganError, with both ways out, if what is asked for cannot be had."""
    device = next(snapshot.G.parameters()).device
    if name is not None or detector is not None:
        return load_loss(name or "lpips", snapshot, device, detector)
    try:
        return load_loss("lpips", snapshot, device)
    except SganError as e:
        if snapshot.D is None:
            raise
        say(f"LPIPS cannot be had, so the discriminator's features say what is near (--loss discriminator): {e}")
        say(f"For LPIPS: {e.hint}")
        return load_loss("discriminator", snapshot, device)


def _start(snapshot: Snapshot, init: str, n: int) -> Tensor:  # [1 or N, num_ws, w_dim]
    latents = find_latents(snapshot.G, [init], Sampling())
    if len(latents) not in (1, n):
        raise SganError(f"{init} holds {len(latents)} latents for {n} picture(s).", hint="Give one, or one for each.")
    return latents.ws


def _names(images: Sequence[str]) -> list[str]:
    """The files' own names, numbered where two share one."""
    seen: Counter[str] = Counter()
    names = []
    for image in images:
        stem = Path(image).stem
        seen[stem] += 1
        names.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    return names
