"""Results of a projection: files of latents, images, and a comparison with the targets."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..data.images import labeled_grid, save_image, to_rgb, to_uint8
from ..models.generator import Generator
from ..progress import Progress, silent, track
from ..sampling.generate import SamplingOptions, generate_images
from ..sampling.latent_files import save_latents
from ..sampling.tuned import save_tuned
from .projector import ProjectedLatents, ProjectionOptions

SHEET = "compare.png"  # file name of the comparison of all targets

_DIFFERENCE_SCALE = 4  # amplification of differences in the comparison


@dataclass(frozen=True)
class Projection:
    """N projected images."""

    names: Sequence[str]  # [N] of the targets
    targets: Tensor  # [N, C, H, W] in [-1, 1]
    latents: ProjectedLatents
    mask: Tensor | None  # [1, 1, H, W]: 1 counts, 0 does not
    G: Generator
    tuned: Generator | None = None  # G after tuning
    tuned_distance: Tensor | None = None  # [N]
    tuned_steps: int = 0
    method: str = "projection"  # how the latents were found: 'projection' or 'encoding'

    @property
    def distance(self) -> Tensor:  # [N] according to the loss, after tuning if G was tuned
        return self.latents.distance if self.tuned_distance is None else self.tuned_distance

    @functools.cached_property
    def projected_images(self) -> Tensor:  # uint8 [N, C, H, W]
        return synthesize_latents(self.G, self.latents)

    @functools.cached_property
    def tuned_images(self) -> Tensor | None:  # uint8 [N, C, H, W]; None: G was not tuned
        return None if self.tuned is None else synthesize_latents(self.tuned, self.latents)

    @property
    def images(self) -> Tensor:  # uint8 [N, C, H, W], after tuning if G was tuned
        return self.projected_images if self.tuned_images is None else self.tuned_images


def output_paths(
    folder: Path,
    names: Sequence[str],  # of the targets
    method: str = "projection",  # see `Projection`
) -> list[tuple[Path, Path]]:
    """Return the paths of the latents and the image of each target; if there are several, they start with its name."""
    prefixes = [f"{name}-" if len(names) > 1 else "" for name in names]
    latents, image = {"projection": ("projected.npz", "proj.png"), "encoding": ("encoded.npz", "enc.png")}[method]
    return [(folder / f"{prefix}{latents}", folder / f"{prefix}{image}") for prefix in prefixes]


def save_projection(
    folder: Path,
    names: Sequence[str],  # of all targets, including those missing from an interrupted projection
    projection: Projection,
    options: ProjectionOptions | None,  # saved with the latents; None: they were not searched
    model: str,  # fingerprint
    owner: dict,  # saved with the latents and the tuned weights, see `Owner.settings`
    settings: dict,  # saved with the latents
    metadata: dict[str, str],  # of the images
) -> list[Path]:  # the files, the sheet last
    """Write `tuned-<hash>.safetensors` if G was tuned, the latents, the images, and the sheet `compare.png`."""
    files = [] if projection.tuned is None else [save_tuned(folder, projection.G, projection.tuned, model, owner)]
    paths = output_paths(folder, names, projection.method)[: len(projection.names)]
    layers = [row.name for row in projection.G.noise_layers]
    steps = {"steps_made": projection.latents.steps, "tuning_steps": projection.tuned_steps}
    more = {"projection": asdict(options), **steps} if options else {}
    for i, (name, (path, _)) in enumerate(zip(projection.names, paths, strict=True)):
        maps = [m[i : i + 1] for m in projection.latents.noise or []]
        save_latents(
            path,
            projection.latents.ws[i : i + 1],
            names=[name],
            noise=dict(zip(layers, maps, strict=True)) if maps else None,
            model=model,
            tuned=files[0].name if projection.tuned is not None else None,
            settings={**owner, **settings, **more},
            distance=projection.distance[i : i + 1].cpu().numpy(),
        )
    for i, (name, (_, path)) in enumerate(zip(projection.names, paths, strict=True)):
        details = {"target": name, "distance": f"{projection.distance[i]:.6g}", **metadata}
        save_image(projection.images[i], path, metadata=details)
    sheet = folder / SHEET
    save_image(comparison_sheet(projection), sheet, metadata=metadata)
    return [*files, *(path for pair in paths for path in pair), sheet]


def synthesize_latents(
    G: Generator,
    latents: ProjectedLatents,
) -> Tensor:  # uint8 [N, C, H, W]
    """Synthesize the images of the latents, with their noise."""
    ws = latents.ws
    images = generate_images(G, lambda i, j: ws[i:j], range(len(ws)), SamplingOptions(), noise=latents.noise)
    return torch.stack(list(images))


def comparison_sheet(
    projection: Projection,
) -> Tensor:  # uint8 [3, H', W']
    """Render a sheet with a row for each target: itself, its projection before and after tuning, and the difference."""
    targets = to_uint8(projection.targets).cpu()
    before, after = projection.projected_images, projection.tuned_images
    difference = (to_rgb(projection.images).int() - to_rgb(targets).int()).abs().float().mean(1, keepdim=True)
    if projection.mask is not None:
        difference = difference * projection.mask.cpu()
    amplified = (difference * _DIFFERENCE_SCALE).clamp(0, 255).to(torch.uint8)
    columns = [to_rgb(x) for x in (targets, before, after, amplified) if x is not None]
    labels = [
        "target",
        projection.method,
        *(["tuned"] if after is not None else []),
        f"difference x {_DIFFERENCE_SCALE}",
    ]
    return labeled_grid(torch.stack(columns, dim=1), None, None, list(projection.names), labels)


def psnr(
    projection: Projection,
) -> Tensor:  # [N]
    """Compute the peak signal-to-noise ratio in dB of the pixels that count."""
    targets = to_uint8(projection.targets).cpu().float()
    squared_error = (projection.images.float() - targets).square().mean(1, keepdim=True)  # [N, 1, H, W]
    mask = torch.ones(1) if projection.mask is None else projection.mask.cpu()
    counts = mask.expand_as(squared_error)
    mean = (squared_error * counts).sum((1, 2, 3)) / counts.sum((1, 2, 3))
    return 20 * math.log10(255) - 10 * mean.clamp_min(1e-4).log10()


def path_frames(
    projection: Projection,
    progress: Progress = silent,
) -> Iterator[Tensor]:  # uint8 [3, H, W]: for each step of the path, each target followed by its projection
    """Generate the frames of a video of the search, all with the final noise."""
    targets = to_rgb(to_uint8(projection.targets).cpu())
    for ws in track(projection.latents.path, "frames", progress):
        current = to_rgb(synthesize_latents(projection.G, replace(projection.latents, ws=ws)))
        yield from (image for pair in zip(targets, current, strict=True) for image in pair)
