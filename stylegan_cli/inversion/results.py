"""What a projection leaves behind: latents for other commands, images for the eye."""

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

_AMPLIFIED = 4  # differences are shown so many times as large


@dataclass(frozen=True)
class Projection:
    """Everything about N projected images."""

    names: Sequence[str]  # [N] of the targets
    targets: Tensor  # [N, C, H, W] in [-1, 1]
    latents: ProjectedLatents
    mask: Tensor | None  # [1, 1, H, W]: 1 counted, 0 did not
    G: Generator  # that it was projected into
    tuned: Generator | None = None  # and tuned
    tuned_distance: Tensor | None = None  # [N]
    tuned_steps: int = 0

    @property
    def distance(self) -> Tensor:  # [N] of the loss, for what is written
        return self.latents.distance if self.tuned_distance is None else self.tuned_distance

    @functools.cached_property
    def projected_images(self) -> Tensor:  # uint8 [N, C, H, W]
        return synthesize_latents(self.G, self.latents)

    @functools.cached_property
    def tuned_images(self) -> Tensor | None:  # uint8 [N, C, H, W]; None: the generator was not tuned
        return None if self.tuned is None else synthesize_latents(self.tuned, self.latents)

    @property
    def images(self) -> Tensor:  # uint8 [N, C, H, W], by the tuned generator where there is one
        return self.projected_images if self.tuned_images is None else self.tuned_images


def output_paths(
    folder: Path,
    names: Sequence[str],  # of the targets
) -> list[tuple[Path, Path]]:
    """Where each target's latents and its image will be: with its name in front where there are several."""
    fronts = [f"{name}-" if len(names) > 1 else "" for name in names]
    return [(folder / f"{front}projected.npz", folder / f"{front}proj.png") for front in fronts]


def save_projection(
    folder: Path,
    names: Sequence[str],  # of all targets, those that were not begun included
    projection: Projection,
    options: ProjectionOptions,
    model: str,  # fingerprint
    settings: dict,  # for the reader of a file
    record: dict[str, str],  # metadata of the images
) -> list[Path]:  # what was written, the sheet last
    """Latents first, then images, then `compare.png` of all; `tuned-<hash>.safetensors` where G was tuned."""
    files = [] if projection.tuned is None else [save_tuned(folder, projection.G, projection.tuned, model)]
    places = output_paths(folder, names)[: len(projection.names)]
    rows = [row.name for row in projection.G.noise_layers]
    made = {
        "projection": asdict(options),
        "steps_made": projection.latents.steps,
        "tuning_steps": projection.tuned_steps,
    }
    for i, (name, (path, _)) in enumerate(zip(projection.names, places, strict=True)):
        maps = [m[i : i + 1] for m in projection.latents.noise or []]
        save_latents(
            path,
            projection.latents.ws[i : i + 1],
            names=[name],
            noise=dict(zip(rows, maps, strict=True)) if maps else None,
            model=model,
            tuned=files[0].name if projection.tuned is not None else None,
            settings={**settings, **made},
            distance=projection.distance[i : i + 1].cpu().numpy(),
        )
    for i, (name, (_, path)) in enumerate(zip(projection.names, places, strict=True)):
        about = {"target": name, "distance": f"{projection.distance[i]:.6g}", **record}
        save_image(projection.images[i], path, metadata=about)
    sheet = folder / "compare.png"
    save_image(comparison_sheet(projection), sheet, metadata=record)
    return [*files, *(path for pair in places for path in pair), sheet]


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
    """A row for each target: itself, its projection, that of the tuned generator, and where the last one differs."""
    targets = to_uint8(projection.targets).cpu()
    before, after = projection.projected_images, projection.tuned_images
    difference = (to_rgb(projection.images).int() - to_rgb(targets).int()).abs().float().mean(1, keepdim=True)
    if projection.mask is not None:
        difference = difference * projection.mask.cpu()
    shown = (difference * _AMPLIFIED).clamp(0, 255).to(torch.uint8)
    columns = [to_rgb(x) for x in (targets, before, after, shown) if x is not None]
    labels = ["target", "projection", *(["tuned"] if after is not None else []), f"difference x {_AMPLIFIED}"]
    return labeled_grid(torch.stack(columns, dim=1), None, None, list(projection.names), labels)


def psnr(
    projection: Projection,
) -> Tensor:  # [N]
    """Peak signal to noise ratio in dB, over the pixels that count."""
    targets = to_uint8(projection.targets).cpu().float()
    square = (projection.images.float() - targets).square().mean(1, keepdim=True)  # [N, 1, H, W]
    counts = torch.ones_like(square) if projection.mask is None else projection.mask.cpu().expand_as(square)
    mean = (square * counts).sum((1, 2, 3)) / counts.sum((1, 2, 3))
    return 20 * math.log10(255) - 10 * mean.clamp_min(1e-4).log10()


def path_frames(
    projection: Projection,
    progress: Progress = silent,
) -> Iterator[Tensor]:  # uint8 [3, H, W]: of each place on the way, each target and, after it, where its projection was
    """The search as it went. The noise is that of the end."""
    targets = to_rgb(to_uint8(projection.targets).cpu())
    for ws in track(projection.latents.path, "frames", progress):
        now = to_rgb(synthesize_latents(projection.G, replace(projection.latents, ws=ws)))
        yield from (image for pair in zip(targets, now, strict=True) for image in pair)
