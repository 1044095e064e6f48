"""Translation with pix2pix: images from images, without a model."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ..data.codec import padding
from ..data.images import to_uint8
from ..data.opening import open_source
from ..errors import MisuseError, quote
from ..inversion.task_inputs import TaskInputs, read_inputs, read_source_inputs
from ..progress import Progress, silent
from ..sampling.degrade import Pairs
from ..sampling.latent_files import target_names
from ..sampling.translators import Translator, load_translator
from ..version import __version__
from .encode import batch_of, is_collection
from .model import OutputImage
from .translate import SHEET, TranslateRequest, TranslateResult, TranslateStream, comparison, translate_batches


def open_translator(
    path: str | Path,  # see `find_translator`
    request: TranslateRequest,
    device: torch.device | str = "cpu",
) -> Translator:
    """Open a translator for a request. Raises SganError if it cannot be read, or an option has no effect on it."""
    if request.task not in (None, Pairs.name):
        raise MisuseError(f"{path} was fitted for the task pairs.", hint="Remove --task.")
    given = {"styles": request.styles is not None, "trunc": request.trunc != 1, "mask": request.mask is not None}
    for name in (name for name, is_given in given.items() if is_given):
        raise MisuseError(f"--{name} has no effect on {path}: pix2pix has no latents.", hint="Remove it.")
    return load_translator(path, device)


def translate_pairs(
    translator: Translator,
    request: TranslateRequest,
    progress: Progress = silent,
    command: Sequence[str] = (),  # command line, for the metadata of images
) -> TranslateResult | TranslateStream:
    """Translate images: the first result without dropout, the others with that of their seeds. Raises SganError if an
    image cannot be read; those of a folder or zip are omitted with a warning."""
    info, task = translator.info, Pairs(translator.info.generator.inputs)
    options = (info, request.crop, padding(request.crop, request.pad), None)
    translate = functools.partial(_translate, translator, request, task, command)
    if not is_collection(request.images[0]):
        read = read_inputs(task, request.images, *options)
        return translate(read, target_names(request.images), progress)
    source, problems = open_source(request.images[0]), {}
    read_batch = functools.partial(read_source_inputs, task, source, options=options)

    def parts() -> Iterator[TranslateResult]:
        step = request.batch or batch_of(info.generator)
        return translate_batches(source.names, step, read_batch, translate, problems, progress)

    return TranslateStream(None, request, translator, task, parts, problems)


def _translate(
    translator: Translator,
    request: TranslateRequest,
    task: Pairs,
    command: Sequence[str],
    read: TaskInputs,
    names: list[str],
    progress: Progress,
    rows: int | None = None,  # of the sheet; None: all, 0: no sheet
) -> TranslateResult:
    seeds = [None, *range(request.seed, request.seed + request.num - 1)]
    device, parts = next(translator.network.parameters()).device, []
    progress("images", 0, len(names))
    for part in read.inputs.split(request.batch or batch_of(translator.info.generator)):
        parts.append(torch.stack([to_uint8(translator.translate(part.to(device), seed)).cpu() for seed in seeds], 1))
        progress("images", sum(map(len, parts)), len(names))
    images = torch.cat(parts)
    metadata = {"translator": translator.path.name, "Software": f"stylegan_cli {__version__}"}
    metadata |= {"command": " ".join(map(quote, command))} if command else {}
    outputs = [
        OutputImage(f"{name}-{k + 1}", image, {"target": name, **metadata, **own})
        for name, row in zip(names, images, strict=True)
        for k, (seed, image) in enumerate(zip(seeds, row, strict=True))
        for own in [{} if seed is None else {"dropout_seed": str(seed)}]
    ]
    sheet = None if rows == 0 else OutputImage(SHEET, comparison(task, read, images, names, rows), metadata)
    return TranslateResult(
        outputs=outputs,
        sheet=sheet,
        model=None,
        request=request,
        encoder=translator,
        task=task,
        names=names,
        ws=None,
        figures=[{} for _ in names],
    )
