"""Generating images from seeds, or from latents in a file."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..data.images import grid_columns, image_grid
from ..errors import SganError
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import SamplingOptions, generate_images, map_seeds
from ..sampling.labels import class_labels, describe_labels, label_metadata
from ..sampling.latent_files import save_latents
from ..sampling.latent_space import check_use
from .model import Model, OutputImage, save_outputs, tuned_note, upcast
from .notebook import MAX_IMAGES, grid_png


@dataclass(frozen=True)
class GenerateRequest(SamplingOptions):
    """The images to generate."""

    seeds: Sequence[int] = range(16)
    from_w: str | Path | None = None  # file of latents, instead of seeds

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(self, seeds=checks.seeds(), from_w=checks.path())


@dataclass(frozen=True, eq=False)
class GenerateResult:
    """N images, generated on demand: `images` and `ws` keep all of them, iteration and `save` one batch at a time."""

    model: Model
    seeds: list[int]  # [N]
    names: list[str]  # [N] of the files, without extension
    metadata: list[dict[str, str]]  # [N]
    common_metadata: dict[str, str]
    from_w: str | Path | None  # file of the latents
    notes: list[str]  # useful information
    synthesize: Callable[[], Iterator[tuple[Tensor, Tensor]]]  # w [num_ws, w_dim] and image uint8 [C, H, W] of each
    warnings: list[str] = field(default_factory=list)  # important information

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[OutputImage]:
        for _, output in self._outputs():
            yield output

    @functools.cached_property
    def _latents_and_images(self) -> list[tuple[Tensor, Tensor]]:
        """Latents and images of all, kept in memory."""
        return list(self.synthesize())

    @property
    def images(self) -> Tensor:  # uint8 [N, C, H, W]
        return torch.stack([image for _, image in self._latents_and_images])

    @property
    def ws(self) -> Tensor:  # [N, num_ws, w_dim], on the CPU
        return torch.stack([w for w, _ in self._latents_and_images]).cpu()

    def save(
        self,
        folder: str | Path,
        format: str = "png",  # or 'jpg', 'webp'
        *,
        latents: bool = False,  # also write w.npz, for `from_w`
        grid: bool = False,  # also write all images in one file
    ) -> list[Path]:
        """Write each image as soon as it is generated. Raises SganError for `latents` if they come from a file."""
        if latents and self.from_w:
            raise SganError(f"The latents are already in {self.from_w}.", hint="Remove latents=True.")
        ws, images = [], []

        def outputs() -> Iterator[OutputImage]:
            for w, output in self._outputs():
                ws.extend([w] if latents else [])
                images.extend([output.image] if grid else [])
                yield output

        files = list(save_outputs(outputs(), folder, format))
        if latents:
            files.append(Path(folder) / "w.npz")
            model, settings = self.common_metadata["model"], self.model.file_settings
            save_latents(files[-1], torch.stack(ws).cpu(), seeds=self.seeds, model=model, settings=settings)
        if grid:
            files.append(self._grid(images).save(folder, format))
        return files

    def _repr_png_(self) -> bytes:
        images = (output.image for output in itertools.islice(self, MAX_IMAGES))
        return grid_png(torch.stack(list(images)))

    def _outputs(self) -> Iterator[tuple[Tensor, OutputImage]]:
        pairs = self._latents_and_images if "_latents_and_images" in self.__dict__ else self.synthesize()
        for (w, image), name, metadata in zip(pairs, self.names, self.metadata, strict=True):
            yield w, OutputImage(name, image, metadata)

    def _grid(self, images: list[Tensor]) -> OutputImage:
        config = self.model.G.config
        columns = grid_columns(len(images), config.height / config.width)
        scale = max(1, 64 // config.width)  # small images are enlarged, as in the grids of training
        sheet = image_grid(torch.stack(images), columns, scale=scale)
        return OutputImage("grid", sheet, {"seeds": str(self.seeds), **self.common_metadata})


def generate(
    model: Model,
    request: GenerateRequest,
    progress: Progress = silent,
) -> GenerateResult:
    """Generate images from seeds, or from latents in a file. Raises SganError if the class or the file does not fit the
    model."""
    sampling = upcast(SamplingOptions, request)
    check_use(sampling.latent_space, request.from_w)
    file = model.latents([str(request.from_w)], sampling, "w") if request.from_w else None
    G, seeds = (file.G, file.seeds) if file else (model.G, list(request.seeds))
    labels = None if file else class_labels(sampling.class_index, seeds, G.label_space)
    kind, numbers = ("w", list(range(len(seeds)))) if file else ("seed", seeds)
    tuned, noise = (file.tuned, file.noise) if file else (None, None)
    common = model.metadata(sampling, tuned=tuned, from_w=request.from_w)
    metadata = [{kind: str(number), **common} for number in numbers]
    notes = tuned_note(tuned)
    if labels is not None:
        metadata = [m | label_metadata(c, G.label_space) for m, c in zip(metadata, labels, strict=True)]
        notes.append(describe_labels(labels, G.label_space))

    def synthesize() -> Iterator[tuple[Tensor, Tensor]]:
        ready: deque[Tensor] = deque()  # ws of the current batch

        def latents(i: int, j: int) -> Tensor:  # [j - i, num_ws, w_dim]
            ws = file.ws[i:j] if file else map_seeds(G, seeds[i:j], sampling)
            ready.extend(ws)  # to copy them here would wait for all images before
            return ws

        for image in generate_images(G, latents, seeds, sampling, progress, noise=noise):
            yield ready.popleft(), image

    names = [f"{kind}{number:04d}" for number in numbers]
    return GenerateResult(
        model, seeds, names, metadata, common, request.from_w, notes, lambda: model.with_kernels(synthesize())
    )
