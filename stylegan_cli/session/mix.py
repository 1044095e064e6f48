"""Style mixing in a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..data.images import labeled_grid
from ..errors import SganError, quote
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import SamplingOptions, generate_images
from ..sampling.latent_files import Latents, filename_part, save_latents
from ..sampling.mixing import mix_styles, mixed_styles
from .model import ImagesResult, Model, OutputImage, tuned_note, upcast


@dataclass(frozen=True)
class MixRequest(SamplingOptions):
    """The images to mix. Rows and columns are seeds and names of files of latents."""

    rows: Sequence[int | str] = range(4)
    cols: Sequence[int | str] = range(4, 10)  # images that the chosen styles come from
    styles: str | Sequence[int] | None = None  # 'coarse', 'middle', 'fine', or indices of w; None: see `mixed_styles`
    blend: float = 1.0  # from the row (0) to the column (1)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(
            self,
            rows=checks.latents(),
            cols=checks.latents(),
            styles=checks.styles(),
            blend=checks.number(0, 1),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class MixResult(ImagesResult):
    """R x K images, row by row, and a sheet with all of them."""

    styles: list[int]  # indices of w that come from the column
    row_images: Tensor  # uint8 [R, C, H, W]
    col_images: Tensor  # uint8 [K, C, H, W]
    model: Model
    sources: Latents  # of rows and columns
    ws: Tensor  # [R * K, num_ws, w_dim] of the mixed images

    def save(
        self,
        folder: str | Path,
        format: str = "png",
        *,
        latents: bool = False,  # also write w.npz, the latents of the mixed images for other requests
    ) -> list[Path]:  # the sheet last
        """Write all images and the sheet. Raises SganError for `latents` if they belong to a tuned generator."""
        if latents and self.sources.tuned:
            raise SganError(
                f"The latents belong to the tuned generator in {self.sources.tuned}.", hint="Remove latents=True."
            )
        files = super().save(folder, format)
        if latents:
            files.insert(0, Path(folder) / "w.npz")
            rows = [r for r in range(len(self.row_images)) for _ in range(len(self.col_images))]
            maps, layers = self.sources.noise_of(rows), [row.name for row in self.sources.G.noise_layers]
            save_latents(
                files[0],
                self.ws,
                seeds=[self.sources.seeds[r] for r in rows],
                names=[output.name for output in self.outputs],
                noise=None if maps is None else dict(zip(layers, maps, strict=True)),
                model=self.outputs[0].metadata["model"],
                settings=self.model.file_settings,
            )
        return files


def mix(
    model: Model,
    request: MixRequest,
    progress: Progress = silent,
) -> MixResult:
    """Mix the styles of rows and columns in a grid of images. Raises SganError if a file or the styles do not fit the
    model."""
    sampling = upcast(SamplingOptions, request)
    instead = f"Interpolate instead: sgan interpolate --seeds 1,2 --model {quote(model.path)}"
    indices = mixed_styles(model.G.layers, request.styles, instead)
    sources = model.latents([*request.rows, *request.cols], sampling)
    R = sum(item < len(request.rows) for item in sources.items)
    K = len(sources) - R
    mixed = mix_styles(sources.ws[:R], sources.ws[R:], indices, request.blend)  # [R, K, num_ws, w_dim]
    pairs = [(r, R + k) for r in range(R) for k in range(K)]
    noise_from = [*range(R + K), *(r for r, _ in pairs)]  # mixed images have the noise of their row
    latents = torch.cat([sources.ws, mixed.flatten(0, 1)])
    noise_seeds = [sources.seeds[i] for i in noise_from]
    noise = sources.noise_of(noise_from)
    images = generate_images(sources.G, lambda i, j: latents[i:j], noise_seeds, sampling, progress, noise=noise)
    row_images, col_images, cells = torch.stack(list(images)).split([R, K, len(pairs)])
    blend = request.blend if request.blend != 1 else None
    metadata = model.metadata(sampling, tuned=sources.tuned, styles=indices, blend=blend)
    outputs = []
    for image, pair in zip(cells, pairs, strict=True):
        row, col = (sources.names[i] for i in pair)
        name = f"mix{filename_part(row)}-{filename_part(col)}"
        outputs.append(OutputImage(name, image, {"row": row, "col": col, **metadata}))
    table = cells.unflatten(0, (R, K))
    sheet = labeled_grid(table, row_images, col_images, sources.names[:R], sources.names[R:])
    about = {"rows": str(list(request.rows)), "cols": str(list(request.cols)), **metadata}
    return MixResult(
        outputs=outputs,
        sheet=OutputImage("mix", sheet, about),
        notes=tuned_note(sources.tuned),
        styles=indices,
        row_images=row_images,
        col_images=col_images,
        model=model,
        sources=sources,
        ws=mixed.flatten(0, 1),
    )
