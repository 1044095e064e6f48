"""The effect of noise on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.images import labeled_grid, to_rgb
from ..progress import Progress, silent, track
from ..sampling import checks
from ..sampling.generate import SamplingOptions
from ..sampling.latent_files import filename_part
from ..sampling.noise_study import NEGLIGIBLE, generate_columns, noise_std, std_map
from .model import ImagesResult, Model, OutputImage, tuned_note, upcast


@dataclass(frozen=True)
class NoiseRequest(SamplingOptions):
    """The images to study."""

    seeds: Sequence[int | str] = range(3)  # seeds and names of files of latents
    draws: int = 100  # number of noise samples for the standard deviation

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(self, seeds=checks.latents(), draws=checks.integer(2))


@dataclass(frozen=True, eq=False, kw_only=True)
class NoiseResult(ImagesResult):
    """N images with noise on all layers, on some and on none, and maps of the standard deviation of each pixel."""

    names: list[str]  # [N] of the images
    std: Tensor  # [N, H, W] standard deviation of each pixel, in units of 1/255
    white: float  # largest standard deviation, white in the maps

    @property
    def means(self) -> dict[str, float]:
        """The mean standard deviation of each image."""
        return {name: std.mean().item() for name, std in zip(self.names, self.std, strict=True)}


def noise_study(
    model: Model,
    request: NoiseRequest,
    progress: Progress = silent,
) -> NoiseResult:
    """Study the effect of noise on images. Raises SganError if the model has no noise, or a file does not fit it."""
    sampling = upcast(SamplingOptions, request).for_measuring()
    sources = model.latents(request.seeds, sampling)
    columns = generate_columns(sources, sampling)
    each = track(sources.ws.unbind(), "images", progress)
    std = torch.stack([noise_std(sources.G, ws, request.draws, sampling) for ws in each])
    white = std.max().item()
    maps = torch.stack([std_map(one, white) for one in std])
    metadata = model.metadata(sampling, tuned=sources.tuned, draws=request.draws, white=f"{white:.3g}")
    outputs = [
        OutputImage(
            f"noise{filename_part(source)}-{name.replace(' ', '')}", image, {"seed": source, "noise": name, **metadata}
        )
        for name, images in {**columns, "std": maps}.items()
        for image, source in zip(images, sources.names, strict=True)
    ]
    cells = torch.stack([to_rgb(images) for images in (*columns.values(), maps)], 1)
    sheet = labeled_grid(cells, None, None, sources.names, [*columns, f"std 0-{white:.2g}"])
    notes, warnings = tuned_note(sources.tuned), []
    if white < NEGLIGIBLE:
        warnings.append("Noise has no effect in this model: its strengths are 0, and the maps are black.")
    elif white < 1:
        notes.append("The standard deviation is below 1/255 everywhere: only the maps show the effect of noise.")
    return NoiseResult(
        outputs=outputs,
        sheet=OutputImage("noise", sheet, {"seeds": str(list(request.seeds)), **metadata}),
        notes=notes,
        warnings=warnings,
        names=sources.names,
        std=std,
        white=white,
    )
