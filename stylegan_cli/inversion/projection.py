"""From image files to a finding: everything that was given is looked at before anything is searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..detectors import load_lpips
from ..detectors.distances import DiscriminatorLoss, Loss, LpipsLoss, PixelLoss
from ..errors import SganError
from ..progress import Progress, silent
from ..sampling.generate import SamplingOptions
from ..sampling.latent_files import collect_latents, filename_part, unique_name
from ..snapshot import Snapshot
from .projector import ProjectionOptions, Start, project
from .results import Projection
from .targets import read_mask, read_targets

LOSSES = ("lpips", "discriminator", "pixel")


@dataclass(frozen=True)
class ProjectionInput:
    """What is to be found."""

    names: list[str]  # [N] of the targets, unlike each other as files
    targets: Tensor  # [N, C, H, W] in [-1, 1]
    mask: Tensor | None = None  # [1, 1, H, W]: 1 counts, 0 does not
    start: Start | None = None


def prepare_input(
    snapshot: Snapshot,
    images: Sequence[str | Path],  # files
    *,
    mask: str | Path | None = None,  # an image: white counts
    crop: str = "center",  # or 'none'
    init: str | Path | None = None,  # a file of latents to begin at
    model: str | None = None,  # fingerprint, where it is known
) -> ProjectionInput:
    """Raises SganError on whatever is wrong with what was given."""
    device = snapshot.G.device
    targets = read_targets(images, snapshot.info, crop).to(device)
    counts = None if mask is None else read_mask(mask, snapshot.info, crop).to(device)
    return ProjectionInput(
        _names(images), targets, counts, None if init is None else _start(snapshot, init, len(targets), model)
    )


def project_images(
    snapshot: Snapshot,
    task: ProjectionInput,
    options: ProjectionOptions,
    loss: Loss,
    progress: Progress = silent,
) -> Projection:
    """Project; after Ctrl-C what was found, which says that it was interrupted."""
    found = project(snapshot.G, task.targets, loss, options, task.mask, task.start, progress)
    n = len(found.ws)
    return Projection(task.names[:n], task.targets[:n], found, task.mask, snapshot.G)


def choose_loss(
    name: str | None,  # see `load_loss`; None: LPIPS where its weights can be had, else the discriminator
    snapshot: Snapshot,
    detector: str | None,  # weights of LPIPS by hand
) -> tuple[Loss, list[str]]:  # and what to warn of, if another than LPIPS is taken
    """Raises SganError, with both ways out, if what is asked for cannot be had."""
    if detector is not None and name not in (None, "lpips"):
        raise SganError(
            f"--detector holds weights of LPIPS, and --loss {name} has none.", hint="Leave one of them out."
        )
    device = snapshot.G.device
    if name is not None or detector is not None:
        return load_loss(name or "lpips", snapshot, device, detector), []
    try:
        return load_loss("lpips", snapshot, device), []
    except SganError as e:
        if snapshot.D is None:
            raise
        warnings = [
            f"LPIPS cannot be had, so the discriminator's features say what is near (--loss discriminator): {e}",
            f"For LPIPS: {e.hint}",
        ]
        return load_loss("discriminator", snapshot, device), warnings


def load_loss(
    name: str,  # of LOSSES
    snapshot: Snapshot,
    device: torch.device,
    file: str | None = None,  # weights of LPIPS by hand
) -> Loss:
    """A loss, ready to use. Raises SganError if the model or the weights that it needs cannot be had."""
    if name == "pixel":
        return PixelLoss()
    if name == "discriminator":
        if snapshot.D is None:
            raise SganError(
                f"{snapshot.path} holds no discriminator, which --loss discriminator compares with.",
                hint="Use --loss lpips, or --loss pixel, which needs nothing.",
            )
        return DiscriminatorLoss(snapshot.D.features)
    try:
        return LpipsLoss(load_lpips("vgg", device, file))
    except SganError as e:
        other = "--loss discriminator" if snapshot.D is not None else "--loss pixel"
        raise SganError(str(e), hint="\n".join(filter(None, [e.hint, f"Or use {other}: no download."]))) from e


def _start(snapshot: Snapshot, init: str | Path, n: int, model: str | None) -> Start:
    latents = collect_latents(snapshot.G, [str(init)], SamplingOptions(), model)
    if len(latents) not in (1, n):
        raise SganError(f"{init} holds {len(latents)} latents for {n} image(s).", hint="Give one, or one for each.")
    if latents.tuned:
        raise SganError(f"{init} belongs to a tuned generator.", hint="Begin at one that was projected without --tune.")
    return Start(latents.ws, latents.noise)


def _names(images: Sequence[str | Path]) -> list[str]:
    """The files' own names, as parts of others'; numbered where two would be one."""
    taken: set[str] = set()
    return [unique_name(filename_part(f"_{Path(image).stem}")[1:] or "image", taken) for image in images]
