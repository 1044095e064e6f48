"""Projection of image files. All inputs are checked before the search starts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..data.codec import padding
from ..detectors import load_lpips
from ..detectors.distances import Loss, LpipsLoss
from ..detectors.losses import WITH_FILE, load_loss
from ..errors import SganError, plural
from ..progress import Progress, silent
from ..sampling.generate import LatentSpace, SamplingOptions
from ..sampling.latent_files import collect_latents, target_names
from ..sampling.latent_space import check_use
from ..snapshot import Snapshot
from .projector import ProjectionOptions, Start, Watch, project
from .results import Projection
from .targets import read_mask, read_targets


@dataclass(frozen=True)
class ProjectionInput:
    """Targets, and where to start."""

    names: list[str]  # [N] of the targets, unique as file names
    targets: Tensor  # [N, C, H, W] in [-1, 1]
    mask: Tensor | None = None  # [1, 1, H, W]: 1 counts, 0 does not
    start: Start | None = None


def prepare_input(
    snapshot: Snapshot,
    images: Sequence[str | Path],
    *,
    mask: str | Path | None = None,  # image file; white pixels count
    crop: str = "center",  # see `codec.fit`
    pad: str | None = None,  # with crop 'pad'; None: black
    init: str | Path | None = None,  # file of initial latents
    latent_space: LatentSpace | None = None,  # of that file; None: as its names and shapes say
    model: str | None = None,  # fingerprint, if known
) -> ProjectionInput:
    """Read all input files. Raises SganError if any is not valid."""
    device = snapshot.G.device
    targets = read_targets(images, snapshot.info, crop, padding(crop, pad)).to(device)
    mask_pixels = None if mask is None else read_mask(mask, snapshot.info, crop).to(device)
    check_use(latent_space, init)
    options = SamplingOptions(latent_space=latent_space)
    start = None if init is None else _start(snapshot, init, options, len(targets), model)
    return ProjectionInput(target_names(images), targets, mask_pixels, start)


def project_images(
    snapshot: Snapshot,
    inputs: ProjectionInput,
    options: ProjectionOptions,
    loss: Loss,
    progress: Progress = silent,
    watch: Watch | None = None,  # called after each step, before `progress`
) -> Projection:
    """Project images. Ctrl-C stops early and returns the result so far, which is marked as interrupted."""
    latents = project(snapshot.G, inputs.targets, loss, options, inputs.mask, inputs.start, progress, watch)
    n = len(latents.ws)
    return Projection(inputs.names[:n], inputs.targets[:n], latents, inputs.mask, snapshot.G)


def choose_loss(
    name: str | None,  # see `load_loss`; None: LPIPS if its weights are available, else the discriminator
    snapshot: Snapshot,
    detector: str | None,  # file with the weights of the loss
) -> tuple[Loss, list[str]]:  # and warnings, if LPIPS is not available
    """Choose a loss. Raises SganError, with a hint about the alternatives, if it is not available."""
    if detector is not None and name not in (None, *WITH_FILE):
        raise SganError(f"--loss {name} has no weights that --detector could have.", hint="Remove one of them.")
    levels = None if snapshot.D is None else snapshot.D.features
    load = functools.partial(load_loss, levels=levels, model=snapshot.path, device=snapshot.G.device)
    if name is not None or detector is not None or snapshot.D is None:
        return load(name or "lpips", file=detector), []
    try:
        return LpipsLoss(load_lpips("vgg", snapshot.G.device)), []
    except SganError as e:
        first = f"LPIPS is not available; using --loss discriminator instead: {e}"
        return load("discriminator"), [first, *f"To use LPIPS: {e.hint}".split("\n")]


def _start(snapshot: Snapshot, init: str | Path, options: SamplingOptions, n: int, model: str | None) -> Start:
    latents = collect_latents(snapshot.G, [str(init)], options, model)
    if len(latents) not in (1, n):
        raise SganError(
            f"{init} has {len(latents)} latents for {plural(n, 'image')}.", hint="Use one, or one per image."
        )
    if latents.tuned:
        raise SganError(f"{init} belongs to a tuned generator.", hint="Use latents projected without --tune.")
    return Start(latents.ws, latents.noise)
