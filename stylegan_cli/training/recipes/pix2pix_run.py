"""A run of pix2pix: planned from the user's options, started or resumed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.dataset import open_dataset
from ...data.pairs import PairedDataset, open_pairs
from ...errors import FieldError, MisuseError
from ...models.translators.pix2pix import TranslatorConfig
from ...ops import tensor_cores
from ...progress import Progress, silent
from ..engine import Engine
from ..pix2pix_config import Pix2PixRunConfig, read_pix2pix_config
from ..run import RunOptions, prepare_rank, run_training
from .encoder_run import HELD_OUT, SMALL, folder_name
from .fitting_run import read_settings, reopen_pairs, with_changes
from .pix2pix import Pix2PixRecipe
from .pix2pix_report import Pix2PixReport

_FULL = 256  # pixels of the shorter side from which the batch is 1, as in the paper
_MOST = 16  # pairs in the batch of small images
_EPOCHS = 200  # of the data, unless the run ends before (section 6.2: of datasets with a few hundred pairs)
_BASE = 32  # feature maps of the first layer for small images; else 64


@dataclass(frozen=True)
class Pix2PixPlan:
    config: Pix2PixRunConfig
    dataset: PairedDataset
    folder: Path | None  # of the run to resume; None: a new run


def plan_new_pix2pix(
    data: str,  # dataset of the images
    source: str,  # the images to translate from, with the names of the data's
    *,
    held_out: int | None = None,
    kimg: float | None = None,
    snap: float | None = None,
    batch: int | None = None,
    batch_gpu: int | None = None,
    gpus: int | None = None,
    progress: Progress = silent,
    **options: Any,  # other fields of Pix2PixRunConfig; None: the defaults
) -> Pix2PixPlan:
    """Plan a new run at the size of the images. Raises SganError if they are no pairs, or cannot be halved often
    enough, or an option does not fit them."""
    data, source, gpus = os.path.abspath(data), os.path.abspath(source), gpus or 1  # see `--resume`
    images = open_dataset(data, progress=progress)
    pairs, _ = open_pairs(images, source, progress=progress)
    spec, inputs = images.spec, pairs.other.spec.channels
    is_small = max(spec.height, spec.width) <= SMALL
    base = {"base": _BASE} if is_small else {}
    generator = TranslatorConfig(spec.height, spec.width, spec.channels, inputs, **base)
    kimg = kimg or min(_EPOCHS * spec.num / 1000, 60.0 if is_small else 1000.0)
    batch = batch or max(min((_FULL // min(spec.height, spec.width)) ** 2, _MOST), gpus)
    try:
        config = Pix2PixRunConfig(
            data=spec,
            source=pairs.other.spec,
            generator=generator,
            batch=batch,
            batch_gpu=batch_gpu or max(batch // gpus, 1),
            gpus=gpus,
            kimg=kimg,
            snap=snap or kimg / (6 if is_small else 20),
            held_out=min(HELD_OUT, spec.num // 10) if held_out is None else held_out,
            **{name: value for name, value in options.items() if value is not None},
        )
    except FieldError as e:
        raise MisuseError(f"--{e.field.replace('_', '-')} is {e.value}.", hint=e.hint) from e
    return Pix2PixPlan(config, pairs, None)


def plan_resumed_pix2pix(
    folder: Path,  # of the run
    kimg: float | None = None,  # its new length; None: unchanged
    gpus: int | None = None,
    batch_gpu: int | None = None,
) -> Pix2PixPlan:
    """Plan to resume a run from its last state. Raises SganError if that is not possible."""
    config = read_settings(folder, read_pix2pix_config, Pix2PixRunConfig.recipe)
    config = with_changes(config, folder, kimg, gpus, batch_gpu)
    return Pix2PixPlan(config, reopen_pairs(config.data, config.source), folder)


def fit_pix2pix(
    config: Pix2PixRunConfig,
    folder: Path | None,  # of the run; resumed if it contains a state. None: a new one
    device: str,  # 'cpu' or 'cuda'; each rank uses its own GPU
    options: RunOptions | None = None,  # None: the defaults
    dataset: PairedDataset | None = None,  # of the run; None: opened here
) -> Path:  # the folder
    """Fit until kimg is reached or the user interrupts. Called on every rank; the first rank writes."""
    options = options or RunOptions()
    torch_device, folder = prepare_rank(device, folder, options.runs, folder_name(config))

    def build(resuming: bool) -> Engine[Pix2PixRecipe]:
        pairs = dataset or reopen_pairs(config.data, config.source)
        return Engine(Pix2PixRecipe(config, pairs, torch_device))

    with tensor_cores(config.precision == "tf32", products=config.precision == "tf32"):
        run_training(config, folder, torch_device, build, Pix2PixReport, options)
    return folder


def describe_fit(
    config: Pix2PixRunConfig,
    folder: Path | None,
) -> str:
    """Describe the run that is about to start."""
    data, patch = config.data, config.generator.patch
    lines = [
        f"Fitting pix2pix to {data.num - config.held_out} pairs of {data.height}x{data.width} (height x width) from "
        f"{config.source.path} to {data.path}; {config.held_out} more are held out",
        f"{config.kimg:g} kimg, batch {config.batch}, patches of {patch}x{patch} pixels",
    ]
    return "\n".join([*lines, *([f"Folder {folder} (reconstructions-*.png: images beside them)"] if folder else [])])
