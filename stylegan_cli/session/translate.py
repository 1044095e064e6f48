"""Translation: images of the model from damaged, incomplete or other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..data.codec import padding
from ..data.images import labeled_grid, to_rgb, to_uint8
from ..errors import MisuseError, SganError
from ..inversion.task_inputs import TaskInputs, read_inputs
from ..models.encoders.skips import SkipSynthesis
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.degrade import TASKS, Inpaint, Invert, make_task
from ..sampling.encoders import Encoder
from ..sampling.generate import SamplingOptions, generate_images, map_seeds
from ..sampling.latent_files import save_latents, target_names
from ..sampling.mixing import mix_styles, style_indices
from .encode import EncodeRequest, is_collection, latents_of, open_encoder
from .model import ImagesResult, Model, OutputImage

LATENTS, SHEET = "translated.npz", "compare"


@dataclass(frozen=True)
class TranslateRequest(EncodeRequest):
    """The images to translate: files, no folder or zip."""

    task: str | None = None  # superres, inpaint, sketch, restore, mask or pairs; None: that of the encoder
    num: int = 1  # results per image; from the second on, `styles` are those of random latents
    styles: str | Sequence[int] | None = None  # 'coarse', 'middle', 'fine', or indices of w; None: fine
    seed: int = 0  # of the second result; the following ones have the following seeds
    trunc: float = 1.0  # truncation psi of random latents
    mask: str | Path | None = None  # for inpainting: white pixels are given; None: opaque pixels are

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(
            self,
            task=checks.choice(*(name for name in TASKS if name != Invert.name)),
            num=checks.integer(1),
            styles=checks.styles(),
            seed=checks.integer(0, checks.LARGEST_SEED),
            trunc=checks.number(),
            mask=checks.path(),
        )
        if any(is_collection(path) for path in self.images):
            raise MisuseError("A folder or zip cannot be translated.", hint="Name images.")
        if self.num == 1 and self.styles is not None:
            raise MisuseError("The styles have no effect on one result.", hint="Add --num 5.")
        if self.seed + self.num - 2 > checks.LARGEST_SEED:
            raise MisuseError(f"There are not {self.num} seeds from {self.seed} on.", hint="Use a smaller --seed.")


@dataclass(frozen=True, eq=False, kw_only=True)
class TranslateResult(ImagesResult):
    """N x K images, K results for each of N images, and a sheet with all of them."""

    model: Model
    request: TranslateRequest
    encoder: Encoder
    task: Invert
    names: list[str]  # [N] of the images, unique as file names
    ws: Tensor  # [N, K, num_ws, w_dim]
    figures: list[dict[str, list[float]]] = field(default_factory=list)  # [N] each by name, [K]: see `_figures`

    def save(
        self,
        folder: str | Path,
        format: str = "png",
    ) -> list[Path]:  # the sheet last
        """Write the latents, all images and the sheet."""
        path = Path(folder, LATENTS)
        settings = {"encoder": self.encoder.path.name, "targets": [str(image) for image in self.request.images]}
        save_latents(
            path,
            self.ws.flatten(0, 1),
            names=[output.name for output in self.outputs],
            model=self.model.fingerprint,
            settings={**self.model.file_settings, **settings},
        )
        return [path, *super().save(folder, format)]


def output_files(
    request: TranslateRequest,
    folder: str | Path,
) -> list[Path]:
    """The files that `TranslateResult.save` will write."""
    images = [f"{name}-{k + 1}.png" for name in target_names(request.images) for k in range(request.num)]
    return [Path(folder, name) for name in (LATENTS, *images, f"{SHEET}.png")]


def translate_images(
    model: Model,
    request: TranslateRequest,
    progress: Progress = silent,
) -> TranslateResult:
    """Translate images with an encoder for the task. Raises SganError if there is none for the model, or an image does
    not fit the task."""
    encoder = open_encoder(model, request.encoder, request.runs, request.task)
    task, sampling = _task_of(encoder, model), SamplingOptions(trunc=request.trunc, batch=request.batch)
    if request.mask is not None and not isinstance(task, Inpaint):
        raise MisuseError(f"A mask has no effect on the task {task.name}.", hint="Remove --mask.")
    styles = style_indices(model.G.layers, request.styles or "fine") if request.num > 1 else []
    pad = padding(request.crop, request.pad)
    read = read_inputs(task, request.images, model.info, request.crop, pad, request.mask)
    features: list[list[Tensor]] = []  # of the last pass, for each part
    ws = []
    for part in read.inputs.split(sampling.batch_for(model.G)):
        ws.append(latents_of(model, encoder, part.to(model.device), seen := []))
        features += seen[-1:]
    ws = torch.cat(ws)
    seeds = range(request.seed, request.seed + request.num - 1)
    results = ws[:, None]
    if seeds:
        results = torch.cat([results, mix_styles(ws, map_seeds(model.G, seeds, sampling), styles)], 1)
    images = _synthesize(model, encoder, results, features, read, progress)
    names = target_names(request.images)
    metadata = model.metadata(SamplingOptions(), encoder=encoder.path.name, task=task.name)
    varied = {"styles": str(styles), "trunc": f"{request.trunc:g}"}
    outputs = [
        OutputImage(f"{name}-{k + 1}", image, {"target": name, **metadata, **own})
        for name, row in zip(names, images, strict=True)
        for k, image in enumerate(row)
        for own in [{**varied, "styles_seed": str(seeds[k - 1])} if k else {}]
    ]
    figures = _figures(read, images)
    return TranslateResult(
        outputs=outputs,
        sheet=OutputImage(SHEET, _sheet(task, read, images, names), metadata),
        notes=_notes(names, figures),
        model=model,
        request=request,
        encoder=encoder,
        task=task,
        names=names,
        ws=results,
        figures=figures,
    )


def _task_of(encoder: Encoder, model: Model) -> Invert:
    """The task of an encoder. Raises SganError if the options in the file are not valid, or do not fit its network."""
    info, config = encoder.info, model.G.config
    assert info is not None, "encoders of other programs have no task"
    task = make_task(info.task, info.task_options)
    task.check((config.height, config.width))
    if task.inputs(config.channels) != info.encoder.inputs:
        raise SganError(f"{encoder.path} does not fit its own task.", hint="Make one with `sgan translate fit`.")
    return task


def _synthesize(
    model: Model,
    encoder: Encoder,
    ws: Tensor,  # [N, K, num_ws, w_dim]
    features: list[list[Tensor]],  # of parts of the images, for the encoder's skips
    read: TaskInputs,
    progress: Progress,
) -> Tensor:  # uint8 [N, K, C, H, W]
    """Synthesize images, with the pixels that are given."""
    if encoder.skips is not None:
        table = _synthesize_with_skips(encoder.skips, ws, features, progress)
    else:
        flat = ws.flatten(0, 1)
        images = generate_images(model.G, lambda i, j: flat[i:j], [0] * len(flat), SamplingOptions(), progress)
        table = torch.stack(list(images)).unflatten(0, ws.shape[:2])
    return torch.stack([read.keep_given(column) for column in table.unbind(1)], 1)


@torch.no_grad()
def _synthesize_with_skips(
    skips: SkipSynthesis,
    ws: Tensor,  # [N, K, num_ws, w_dim]
    features: list[list[Tensor]],  # of parts of the N images
    progress: Progress,
) -> Tensor:  # uint8 [N, K, C, H, W]
    sizes, done, table = [len(levels[0]) for levels in features], 0, []
    progress("images", 0, ws.shape[0] * ws.shape[1])
    for part, levels in zip(ws.split(sizes), features, strict=True):
        columns = []
        for column in part.unbind(1):
            columns.append(to_uint8(skips(column, levels)).cpu())
            progress("images", done := done + len(part), ws.shape[0] * ws.shape[1])
        table.append(torch.stack(columns, 1))
    return torch.cat(table)


def _figures(read: TaskInputs, images: Tensor) -> list[dict[str, list[float]]]:
    """For super-resolution, `rms` of each result: see `TaskInputs.difference`."""
    columns = [read.difference(column) for column in images.unbind(1)]
    if columns[0] is None:
        return [{} for _ in images]
    return [{"rms": row} for row in torch.stack([x for x in columns if x is not None], 1).tolist()]


def _notes(names: list[str], figures: list[dict[str, list[float]]]) -> list[str]:
    return [
        f"{name}: reduced again, the result differs from the input by {figure['rms'][0]:.3f} (RMS, 1 is white to black)"
        for name, figure in zip(names, figures, strict=True)
        if figure
    ]


def _sheet(task: Invert, read: TaskInputs, images: Tensor, names: list[str]) -> Tensor:  # uint8 [3, H', W']
    """A row for each image: itself, what the encoder sees of it, and the results."""
    columns = [read.images, to_rgb(to_uint8(task.shown(read.inputs))), *map(to_rgb, images.unbind(1))]
    labels = ["input", "encoder's input", *(f"result {k + 1}" for k in range(images.shape[1]))]
    return labeled_grid(torch.stack(columns, 1), None, None, names, labels)
