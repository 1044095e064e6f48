"""Translation: images of the model from damaged, incomplete or other images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..data.codec import padding
from ..data.images import labeled_grid, to_rgb, to_uint8
from ..data.opening import open_source
from ..errors import MisuseError, SganError
from ..inversion.task_inputs import TaskInputs, read_inputs, read_source_inputs
from ..models.encoders.skips import SkipSynthesis
from ..models.frozen import frozen_synthesis
from ..models.generator import Generator
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.degrade import TASKS, Inpaint, Invert, Task, make_task, with_hole
from ..sampling.encoders import Encoder
from ..sampling.generate import SamplingOptions, generate_images, map_seeds
from ..sampling.latent_files import save_latents, target_names
from ..sampling.mixing import mix_styles, style_indices
from ..sampling.translators import Translator
from .encode import EncodeRequest, batch_of, is_collection, latents_of, open_encoder
from .model import ImagesResult, Model, OutputImage, save_outputs

LATENTS, SHEET = "translated.npz", "compare"
_ROWS = 16  # images of a folder or zip in the sheet


@dataclass(frozen=True)
class TranslateRequest(EncodeRequest):
    """The images to translate."""

    task: str | None = None  # superres, inpaint, sketch, restore, mask or pairs; None: that of the encoder
    num: int = 1  # results per image; from the second on, `styles` are those of random latents
    styles: str | Sequence[int] | None = None  # 'coarse', 'middle', 'fine', or indices of w; None: the upper half
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
        if self.num == 1 and self.styles is not None:
            raise MisuseError("The styles have no effect on one result.", hint="Add --num 5.")
        if self.seed + self.num - 2 > checks.LARGEST_SEED:
            raise MisuseError(f"There are not {self.num} seeds from {self.seed} on.", hint="Use a smaller --seed.")


@dataclass(frozen=True, eq=False, kw_only=True)
class TranslateResult(ImagesResult):
    """N x K images, K results for each of N images, and a sheet with all of them."""

    model: Model | None  # None: of a translator, which needs none
    request: TranslateRequest
    encoder: Encoder | Translator
    task: Task
    names: list[str]  # [N] of the images, unique as file names
    ws: Tensor | None  # [N, K, num_ws, w_dim]; None without a model
    figures: list[dict[str, list[float]]] = field(default_factory=list)  # [N] each by name, [K]: see `_figures`

    def save(
        self,
        folder: str | Path,
        format: str = "png",
    ) -> list[Path]:  # the sheet last
        """Write the latents, all images and the sheet."""
        names = [output.name for output in self.outputs]
        latents = _save_latents(folder, self.model, self.encoder, self.request, self.ws, names)
        return [*latents, *super().save(folder, format)]


@dataclass(eq=False)
class TranslateStream:
    """The results of a folder or zip, made while they are written. Only latents are kept."""

    model: Model | None  # as in `TranslateResult`
    request: TranslateRequest
    encoder: Encoder | Translator
    task: Task
    parts: Callable[[], Iterator[TranslateResult]]  # in batches; of these, only the first has a sheet
    problems: dict[str, str]  # name of an image in the source -> why it is omitted; complete after `save`
    names: list[str] = field(default_factory=list)  # of the images, as in `TranslateResult`; filled by `save`
    figures: list[dict[str, list[float]]] = field(default_factory=list)  # likewise

    @property
    def images(self) -> Tensor:
        raise SganError("The images of a folder or zip are not kept.", hint="Save them, or translate named images.")

    @property
    def warnings(self) -> list[str]:
        named = (why if why.startswith(name) else f"{name}: {why}" for name, why in self.problems.items())
        return [f"Not translated: {why.rstrip('.')}." for why in named]

    @property
    def notes(self) -> list[str]:
        values = [figure["rms"][0] for figure in self.figures if figure]
        return _notes(["On average"], [{"rms": [sum(values) / len(values)]}]) if values else []

    def save(
        self,
        folder: str | Path,
        format: str = "png",
    ) -> list[Path]:  # the sheet last
        """Make and write all images, then the latents, and a sheet of the first ones. Raises SganError if there is no
        image that can be translated."""
        ws: list[Tensor] = []
        sheets: list[OutputImage] = []
        outputs: list[str] = []

        def results() -> Iterator[OutputImage]:
            for part in self.parts():
                ws.extend([] if part.ws is None else [part.ws.cpu()])
                sheets.extend([part.sheet] if part.sheet else [])
                self.names += part.names
                self.figures += part.figures
                outputs.extend(output.name for output in part.outputs)
                yield from part.outputs

        files: list[Path] = []
        try:
            files += save_outputs(results(), folder, format)
            if not outputs:
                raise SganError(f"No image in {self.request.images[0]} can be translated.", hint=self.warnings[0])
        finally:  # what is done is kept when the rest is not
            if outputs:
                latents = torch.cat(ws) if ws else None
                files[:0] = _save_latents(folder, self.model, self.encoder, self.request, latents, outputs)
                files.append(sheets[0].save(folder, format))
        return files


def _save_latents(
    folder: str | Path,
    model: Model | None,
    encoder: Encoder | Translator,
    request: TranslateRequest,
    ws: Tensor | None,  # [N, K, num_ws, w_dim]
    names: list[str],  # [N * K]
) -> list[Path]:  # one, or without a model none
    if model is None or ws is None:
        return []
    path = Path(folder, LATENTS)
    settings = {"encoder": encoder.path.name, "targets": [str(image) for image in request.images]}
    settings = {**model.file_settings, **settings}
    save_latents(path, ws.flatten(0, 1), names=names, model=model.fingerprint, settings=settings)
    return [path]


def input_and_output_files(
    request: TranslateRequest,
    folder: str | Path,
) -> tuple[list[Path], list[Path]]:
    """The files that are read, and those that `save` will write."""
    inputs = [Path(path) for path in request.images]
    names = target_names(inputs)
    if is_collection(inputs[0]):
        stored = open_source(inputs[0]).names
        names = target_names(stored)
        inputs += [inputs[0] / name for name in stored if inputs[0].is_dir()]
    results = [f"{name}-{k + 1}.png" for name in names for k in range(request.num)]
    return inputs, [Path(folder, name) for name in (LATENTS, *results, f"{SHEET}.png")]


def translate_images(
    model: Model,
    request: TranslateRequest,
    progress: Progress = silent,
) -> TranslateResult | TranslateStream:
    """Translate images with an encoder for the task. Raises SganError if there is none for the model, or an image does
    not fit the task; those of a folder or zip are omitted with a warning."""
    encoder = open_encoder(model, request.encoder, request.runs, request.task)
    task = _task_of(encoder, model)
    if request.mask is not None and not isinstance(task, Inpaint):
        raise MisuseError(f"A mask has no effect on the task {task.name}.", hint="Remove --mask.")
    chosen = style_indices(model.G.layers, request.styles) if request.styles else default_styles(task, model.G)
    styles = chosen if request.num > 1 else []
    options = (model.info, request.crop, padding(request.crop, request.pad), request.mask)
    if not is_collection(request.images[0]):
        read = read_inputs(task, request.images, *options)
        return _translate(model, request, encoder, task, styles, read, target_names(request.images), progress)
    source, problems = open_source(request.images[0]), {}
    translate = functools.partial(_translate, model, request, encoder, task, styles)
    read_batch = functools.partial(read_source_inputs, task, source, options=options)

    def parts() -> Iterator[TranslateResult]:
        step = request.batch or batch_of(model.G.config)
        return model.with_kernels(translate_batches(source.names, step, read_batch, translate, problems, progress))

    return TranslateStream(model, request, encoder, task, parts, problems)


def translate_batches(
    stored: list[str],  # names in the source
    step: int,  # images at a time
    read: Callable[[list[str]], tuple[TaskInputs | None, dict[str, str]]],  # see `read_source_inputs`
    translate: Callable[..., TranslateResult],  # `_translate` from its inputs on
    problems: dict[str, str],  # receives those of `read`
    progress: Progress,
) -> Iterator[TranslateResult]:
    names, rows = dict(zip(stored, target_names(stored), strict=True)), _ROWS
    progress("images", 0, len(names))
    for i in range(0, len(names), step):
        batch = stored[i : i + step]
        inputs, unreadable = read(batch)
        problems.update(unreadable)
        if inputs is not None:
            yield translate(inputs, [names[name] for name in batch if name not in unreadable], silent, rows)
            rows = 0
        progress("images", min(i + step, len(names)), len(names))


def default_styles(
    task: Task,
    G: Generator,
) -> list[int]:
    """The styles that vary: the upper half, nearly those of pSp (Richardson et al. 2021, section 5), 8 to 17 of 18; all
    of them where `vary` fits the results to given pixels."""
    return list(range(0 if task.gives_pixels else G.num_ws // 2, G.num_ws))


def vary(
    model: Model,
    encoder: Encoder,
    task: Task,
    inputs: Tensor,  # [N, inputs, H, W]
    ws: Tensor,  # [N, num_ws, w_dim] of these inputs
    latents: Tensor,  # [K, num_ws, w_dim] that styles are taken from
    styles: list[int],
    synthesize: Callable[[Tensor], Tensor],  # ws [N, num_ws, w_dim] -> images [N, C, H, W], for these inputs
) -> Tensor:  # [N, 1 + K, num_ws, w_dim], the first as they are
    """Latents with other styles. Where pixels are given, the image that they complete is encoded once more, without a
    hole, so that what was in it fits."""
    others = mix_styles(ws, latents, styles)
    if task.gives_pixels:
        with torch.no_grad():
            images = [task.completed(synthesize(x).clamp(-1, 1), inputs) for x in others.unbind(1)]
        given = inputs.new_ones(1, 1, *inputs.shape[2:])
        others = torch.stack([latents_of(model, encoder, with_hole(x, given)) for x in images], 1)
    return torch.cat([ws[:, None], others], 1)


def _translate(
    model: Model,
    request: TranslateRequest,
    encoder: Encoder,
    task: Task,
    styles: list[int],  # that vary
    read: TaskInputs,
    names: list[str],
    progress: Progress,
    rows: int | None = None,  # of the sheet; None: all, 0: no sheet
) -> TranslateResult:
    sampling = SamplingOptions(trunc=request.trunc, batch=request.batch)
    features: list[list[Tensor]] = []  # of the last pass, for each part
    results: list[Tensor] = []  # of each part
    seeds = range(request.seed, request.seed + request.num - 1)
    latents = map_seeds(model.G, seeds, sampling) if seeds else None
    for part in read.inputs.split(sampling.batch_for(model.G)):
        part = part.to(model.device)
        ws = latents_of(model, encoder, part, seen := [])
        features += seen[-1:]
        if latents is None:
            results.append(ws[:, None])
            continue
        skips = encoder.skips and functools.partial(encoder.skips, features=seen[-1])
        synthesize = skips or frozen_synthesis(model.G)
        results.append(vary(model, encoder, task, part, ws, latents, styles, synthesize))
    ws = torch.cat(results)
    images = _synthesize(model, encoder, ws, features, read, progress)
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
        sheet=None if rows == 0 else OutputImage(SHEET, comparison(task, read, images, names, rows), metadata),
        notes=_notes(names, figures),
        model=model,
        request=request,
        encoder=encoder,
        task=task,
        names=names,
        ws=ws,
        figures=figures,
    )


def _task_of(encoder: Encoder, model: Model) -> Task:
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


def comparison(
    task: Task,
    read: TaskInputs,
    images: Tensor,  # uint8 [N, K, C, H, W]
    names: list[str],
    rows: int | None,
) -> Tensor:  # uint8 [3, H', W']
    """A row for each image: itself, what the encoder sees of it, and the results."""
    columns = [read.images, to_rgb(to_uint8(task.shown(read.inputs))), *map(to_rgb, images.unbind(1))]
    columns, names = [column[:rows] for column in columns], names[:rows]
    labels = ["input", "encoder's input", *(f"result {k + 1}" for k in range(images.shape[1]))]
    return labeled_grid(torch.stack(columns, 1), None, None, names, labels)
