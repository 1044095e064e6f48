"""Images and latents moved along directions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..data.images import labeled_grid
from ..errors import MisuseError, plural
from ..files import write_atomic
from ..progress import Progress, silent
from ..sampling.generate import SamplingOptions, generate_images
from ..sampling.latent_files import Latents, load_latent_file, save_latents
from .directions import Directions

Edit = tuple[int, float]  # index of the direction, strength in standard deviations


def pair_edits(
    directions: Directions,
    choices: Sequence[str],  # numbers or names of directions, see `Directions.choose`
    strengths: Sequence[float],  # one per direction, one for all, or none: the default of the directions
) -> list[Edit]:
    """Pair directions with strengths. Raises SganError if a direction is unknown or the numbers do not match."""
    chosen = [k for choice in choices for k in directions.choose(choice)]
    if len(strengths) not in (0, 1, len(chosen)):
        raise MisuseError(
            f"There are {plural(len(strengths), 'strength')} for {plural(len(chosen), 'direction')}.",
            hint="Use --strength once for all directions, or once for each.",
        )
    strengths = list(strengths or [directions.strength])
    return list(zip(chosen, strengths * (len(chosen) if len(strengths) == 1 else 1), strict=True))


def apply_edits(
    directions: Directions,
    ws: Tensor,  # [N, num_ws, w_dim]
    edits: Sequence[Edit],
    layers: Sequence[int],  # w indices
) -> Tensor:  # [N, num_ws, w_dim]
    """Apply all edits to all latents."""
    for index, strength in edits:
        ws = directions.move(ws, index, strength, layers)
    return ws


def render_strip(
    latents: Latents,  # N
    directions: Directions,
    index: int,  # of the direction
    strengths: Sequence[float],  # M
    layers: Sequence[int],  # w indices
    options: SamplingOptions,
    progress: Progress = silent,
) -> Tensor:  # uint8 [3, H, W]
    """Render a grid with a row for each image and a column for each strength."""
    versions = [directions.move(latents.ws, index, strength, layers) for strength in strengths]
    labels = [f"{strength:+.3g}" if strength else "0" for strength in strengths]
    return labeled_grid(_generate_versions(latents, versions, options, progress), None, None, latents.names, labels)


def render_before_after(
    latents: Latents,  # N
    edited: Tensor,  # [N, num_ws, w_dim]
    options: SamplingOptions,
    progress: Progress = silent,
) -> tuple[Tensor, Tensor]:  # edited images uint8 [N, C, h, w], sheet uint8 [3, H, W]
    """Generate the edited images, and a sheet with a row for each image before and after."""
    cells = _generate_versions(latents, [latents.ws, edited], options, progress)
    return cells[:, 1], labeled_grid(cells, None, None, latents.names, ["before", "after"])


def save_edited(
    folder: Path,
    latents: Latents,  # before
    edited: Tensor,  # [N, num_ws, w_dim]
    items: Sequence[int | str],  # seeds and files that the latents come from
    model: str,  # fingerprint of the model before tuning
    settings: dict,  # how the latents were made
    name: str = "edited.npz",
) -> Path:
    """Write a file of latents, which includes the noise of the images, and copy the tuned weights that they need."""
    if latents.tuned:
        tuned = next(t for item in items if isinstance(item, str) and (t := load_latent_file(item).tuned))
        if tuned.parent.resolve() != folder.resolve():
            write_atomic(folder / tuned.name, tuned.read_bytes())
    layers = [row.name for row in latents.G.noise_layers]
    path = folder / name
    save_latents(
        path,
        edited,
        seeds=latents.seeds,
        names=latents.names,
        noise=None if latents.noise is None else dict(zip(layers, latents.noise, strict=True)),
        model=model,
        tuned=latents.tuned,
        settings=settings,
    )
    return path


def _generate_versions(
    latents: Latents,  # N
    versions: list[Tensor],  # M of [N, num_ws, w_dim]
    options: SamplingOptions,
    progress: Progress,
) -> Tensor:  # uint8 [N, M, C, h, w]
    """Generate all versions of all images, each with the noise of its image."""
    n, m = len(latents), len(versions)
    ws, index = torch.stack(versions, 1).flatten(0, 1), [i for i in range(n) for _ in range(m)]
    seeds, noise = [latents.seeds[i] for i in index], latents.noise_of(index)
    images = generate_images(latents.G, lambda i, j: ws[i:j], seeds, options, progress, noise=noise)
    return torch.stack(list(images)).unflatten(0, (n, m))
