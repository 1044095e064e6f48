"""Images of seeds, or of latents in a file."""

from __future__ import annotations

import functools
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
from ..sampling.latent_files import save_latents
from ..sampling.latents import class_labels
from .model import Model, OutputImage, part, tuned_note


@dataclass(frozen=True)
class GenerateRequest(SamplingOptions):
    """What to draw."""

    seeds: Sequence[int] = range(16)
    from_w: str | Path | None = None  # a file of latents, in place of seeds

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(self, seeds=checks.seeds(), from_w=checks.path())


@dataclass(frozen=True, eq=False)
class GenerateResult:
    """N images, drawn when they are asked for: `images` and `ws` keep all, iterating and `save` a batch at a time."""

    model: Model
    seeds: list[int]  # [N]
    names: list[str]  # [N] of the files, without their ending
    records: list[dict[str, str]]  # [N] metadata
    record: dict[str, str]  # what they have in common
    from_w: str | Path | None  # the file that they are drawn from
    notes: list[str]  # what is good to know
    draw: Callable[[], Iterator[tuple[Tensor, Tensor]]]  # w [num_ws, w_dim] and image uint8 [C, H, W] of each
    warnings: list[str] = field(default_factory=list)  # what one has to know

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[OutputImage]:
        for _, output in self._outputs():
            yield output

    @functools.cached_property
    def drawn(self) -> list[tuple[Tensor, Tensor]]:
        """All of them, kept."""
        return list(self.draw())

    @property
    def images(self) -> Tensor:  # uint8 [N, C, H, W]
        return torch.stack([image for _, image in self.drawn])

    @property
    def ws(self) -> Tensor:  # [N, num_ws, w_dim], on the CPU
        return torch.stack([w for w, _ in self.drawn])

    def save(
        self,
        folder: str | Path,
        format: str = "png",  # or 'jpg', 'webp'
        *,
        latents: bool = False,  # also w.npz, for `from_w`
        grid: bool = False,  # also all images on one sheet
    ) -> list[Path]:
        """Write each image as soon as it is drawn. Raises SganError if the latents are from a file already."""
        if latents and self.from_w:
            raise SganError(f"The latents are in {self.from_w} already.")
        files, ws, images = [], [], []
        for w, output in self._outputs():
            files.append(output.save(folder, format))
            if latents:
                ws.append(w)
            if grid:
                images.append(output.image)
        if latents:
            files.append(Path(folder) / "w.npz")
            save_latents(files[-1], torch.stack(ws), seeds=self.seeds, model=self.record["model"])
        if grid:
            files.append(self._grid(images).save(folder, format))
        return files

    def _outputs(self) -> Iterator[tuple[Tensor, OutputImage]]:
        drawn = self.drawn if "drawn" in self.__dict__ else self.draw()
        for (w, image), name, record in zip(drawn, self.names, self.records, strict=True):
            yield w, OutputImage(name, image, record)

    def _grid(self, images: list[Tensor]) -> OutputImage:
        config = self.model.G.config
        columns = grid_columns(len(images), config.height / config.width)
        scale = max(1, 64 // config.width)  # small images are enlarged, as in the grids of training
        sheet = image_grid(torch.stack(images), columns, scale=scale)
        return OutputImage("grid", sheet, {"seeds": str(self.seeds), **self.record})


def generate(
    model: Model,
    request: GenerateRequest,
    progress: Progress = silent,
) -> GenerateResult:
    """Images of seeds, or of latents in a file. Raises SganError if the class or the file does not fit the model."""
    sampling = part(SamplingOptions, request)
    file = model.latents([str(request.from_w)], sampling) if request.from_w else None
    G, seeds = (file.G, file.seeds) if file else (model.G, list(request.seeds))
    labels = class_labels(sampling.class_index, seeds, G.config.c_dim)
    kind, numbers = ("w", list(range(len(seeds)))) if file else ("seed", seeds)
    tuned, noise = (file.tuned, file.noise) if file else (None, None)
    record = model.record(sampling, tuned=tuned, from_w=request.from_w)
    records = [{kind: str(number), **record} for number in numbers]
    if labels is not None and not file:
        records = [r | {"class": str(int(c))} for r, c in zip(records, labels.argmax(1), strict=True)]

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        ready: deque[Tensor] = deque()  # ws of the batch that is being drawn

        def latents(i: int, j: int) -> Tensor:  # [j - i, num_ws, w_dim]
            ws = file.ws[i:j] if file else map_seeds(G, seeds[i:j], sampling)
            ready.extend(ws.cpu())
            return ws

        for image in generate_images(G, latents, seeds, sampling, progress, noise=noise):
            yield ready.popleft(), image

    names = [f"{kind}{number:04d}" for number in numbers]
    return GenerateResult(
        model, seeds, names, records, record, request.from_w, tuned_note(tuned), lambda: model.drawing(pairs())
    )
