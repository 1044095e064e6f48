"""Images along directions: strips to look at, and edited latents to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..data.images import labeled_grid
from ..errors import SganError
from ..files import write_atomic
from ..progress import Progress, silent
from ..sampling.generate import SamplingOptions, generate_images
from ..sampling.latent_files import Latents, load_latent_file, save_latents
from .directions import Directions

Edit = tuple[int, float]  # which direction, how many standard deviations


def pair_edits(
    directions: Directions,
    which: Sequence[str],  # numbers or names of directions, see `Directions.choose`
    strengths: Sequence[float],  # one for each, one for all, or none: as the directions were found for
) -> list[Edit]:
    """Raises SganError if a direction is unknown, or if there are not as many strengths."""
    chosen = [k for text in which for k in directions.choose(text)]
    if len(strengths) not in (0, 1, len(chosen)):
        raise SganError(
            f"{len(strengths)} strengths for {len(chosen)} directions.", hint="Give one --strength for all, or each."
        )
    strengths = list(strengths or [directions.strength])
    return list(zip(chosen, strengths * (len(chosen) if len(strengths) == 1 else 1), strict=True))


def apply_edits(
    directions: Directions,
    ws: Tensor,  # [N, num_ws, w_dim]
    edits: Sequence[Edit],
    layers: Sequence[int],  # indices of w
) -> Tensor:  # [N, num_ws, w_dim]
    """One edit after the other."""
    for which, strength in edits:
        ws = directions.move(ws, which, strength, layers)
    return ws


def render_strip(
    found: Latents,  # N of them
    directions: Directions,
    which: int,
    strengths: Sequence[float],  # M of them
    layers: Sequence[int],  # indices of w
    options: SamplingOptions,
    progress: Progress = silent,
) -> Tensor:  # uint8 [3, H, W]
    """A row for each image, a column for each strength."""
    versions = [directions.move(found.ws, which, strength, layers) for strength in strengths]
    labels = [f"{strength:+.3g}" if strength else "0" for strength in strengths]
    return labeled_grid(_table(found, versions, options, progress), None, None, found.names, labels)


def render_before_after(
    found: Latents,  # N of them
    edited: Tensor,  # [N, num_ws, w_dim]
    options: SamplingOptions,
    progress: Progress = silent,
) -> tuple[Tensor, Tensor]:  # the edited images, uint8 [N, C, h, w]; the sheet of all, uint8 [3, H, W]
    """A row for each image."""
    cells = _table(found, [found.ws, edited], options, progress)
    return cells[:, 1], labeled_grid(cells, None, None, found.names, ["before", "after"])


def save_edited(
    folder: Path,
    found: Latents,  # before
    edited: Tensor,  # [N, num_ws, w_dim]
    items: Sequence[int | str],  # what was asked for: seeds and files
    model: str,  # fingerprint of the model before it was tuned
    settings: dict,  # how they were made
) -> Path:
    """Write edited.npz, with the noise of the images and, beside it, the tuned weights that they need."""
    if found.tuned:
        tuned = next(t for item in items if isinstance(item, str) and (t := load_latent_file(item).tuned))
        if tuned.parent.resolve() != folder.resolve():
            write_atomic(folder / tuned.name, tuned.read_bytes())
    rows = [row.name for row in found.G.noise_layers]
    path = folder / "edited.npz"
    save_latents(
        path,
        edited,
        seeds=found.seeds,
        names=found.names,
        noise=None if found.noise is None else dict(zip(rows, found.noise, strict=True)),
        model=model,
        tuned=found.tuned,
        settings=settings,
    )
    return path


def _table(
    found: Latents,  # N of them
    versions: list[Tensor],  # M times [N, num_ws, w_dim]
    options: SamplingOptions,
    progress: Progress,
) -> Tensor:  # uint8 [N, M, C, h, w]
    """Every version of every image, with the image's own noise."""
    n, m = len(found), len(versions)
    ws, index = torch.stack(versions, 1).flatten(0, 1), [i for i in range(n) for _ in range(m)]
    seeds, noise = [found.seeds[i] for i in index], found.noise_of(index)
    images = generate_images(found.G, lambda i, j: ws[i:j], seeds, options, progress, noise=noise)
    return torch.stack(list(images)).unflatten(0, (n, m))
