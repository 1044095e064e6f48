"""A run that fits an encoder: planned from the user's options, started or resumed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...data.dataset import Dataset
from ...data.pairs import PairedDataset, open_pairs
from ...detectors.distances import Loss
from ...detectors.losses import WITH_FILE, load_loss
from ...errors import FieldError, MisuseError, SganError, quote
from ...models.config import GeneratorConfig, judges_pairs
from ...models.discriminator import Discriminator
from ...models.encoders.identity import FACE, MIN_SIDE, load_identity
from ...models.encoders.pyramid import encoder_config
from ...ops import tensor_cores
from ...progress import Progress, silent
from ...runs.records import ENCODER
from ...sampling.degrade import TASKS, Invert, Mask, make_task
from ...sampling.encoders import has_styles, how_to_make
from ...snapshot import Snapshot, load_snapshot, open_training_dataset
from ..encoder_config import EncoderRunConfig, read_encoder_config
from ..engine import Engine
from ..folders import find_kept
from ..generated_pairs import GeneratedPairs
from ..pix2pix_config import Pix2PixRunConfig
from ..run import RunOptions, prepare_rank, run_training
from .encoder import EncoderRecipe
from .encoder_report import EncoderReport
from .fitting_run import CHANGED, START_AGAIN, read_settings, reopen_pairs, with_changes

SMALL = 64  # pixels of the longer side: up to here, a run takes minutes on a CPU
HELD_OUT = 256  # images at most, and a tenth of the dataset
_LOSS_DEFAULTS = {"lpips": {"loss_weight": 0.8}}  # pSp (Richardson et al. 2021, section 3)
_GAMMA = 2e-4  # of R1 with --skips, per pixel and image of a batch (Karras et al. 2020, ADA, appendix C)
_CRITIC_WEIGHT = 0.1  # of --editable (Tov et al. 2021, section 4.2)
_NETWORK = ("space", "passes", "channel_base", "channel_max", "pyramid_channels", "reduced_channels")


@dataclass(frozen=True)
class EncoderPlan:
    config: EncoderRunConfig
    dataset: Dataset | PairedDataset | GeneratedPairs
    folder: Path | None  # of the run to resume; None: a new run


def plan_new_encoder(
    snapshot: Snapshot,  # the model
    data: str | None = None,  # dataset; None: the one that the model was trained on
    *,
    editable: bool = False,
    task: str = "invert",
    task_options: dict[str, Any] | None = None,
    segmenter: str | None = None,  # for the task mask: generated images and their class maps, instead of data
    source: str | None = None,  # images or class maps with the names of the data's, for the tasks pairs and mask
    held_out: int | None = None,
    loss: str | None = None,  # None: the model's discriminator if it has one, else pixels alone
    detector: str | None = None,  # file with the weights of the loss
    identity: str | None = None,  # network that compares faces: 'face', or a file
    batch: int | None = None,
    batch_gpu: int | None = None,
    gpus: int | None = None,
    progress: Progress = silent,
    **options: Any,  # other fields of EncoderConfig and EncoderRunConfig; None: the defaults
) -> EncoderPlan:
    """Plan a new run. Raises SganError if the model has no styles, or the dataset or an option does not fit it."""
    G, info = snapshot.G, snapshot.info
    _check_options(snapshot, task, loss, detector, identity, options)
    data, source, segmenter = (path and os.path.abspath(path) for path in (data, source, segmenter))  # see `--resume`
    if segmenter is not None:
        _check_segmenter(task, data, source, options)
    dataset, found = _open_images(snapshot, task, data, source, segmenter, options.get("seed") or 0, progress)
    options = {name: value for name, value in options.items() if value is not None}
    defaults = _schedule(G.config, options.get("kimg"), batch)
    network = _trunk_like(snapshot.D) | {name: options.pop(name) for name in _NETWORK if name in options}
    task_options = {**(task_options or {}), **found}
    kind = make_task(task, task_options)
    kind.check((G.config.height, G.config.width))
    network["inputs"] = kind.inputs(G.config.channels)
    try:
        config = EncoderRunConfig(
            model=os.path.abspath(snapshot.path),
            fingerprint=snapshot.fingerprint,
            data=dataset.spec,
            encoder=encoder_config(G.config, G.layers, **network),
            batch_gpu=batch_gpu or max(defaults["batch"] // (gpus or 1), 1),
            gpus=gpus or 1,
            held_out=min(HELD_OUT, len(dataset) // 10) if held_out is None else held_out,
            loss=loss or ("pixel" if snapshot.D is None else "discriminator"),
            detector=detector and os.path.abspath(detector),
            identity=identity if identity in (None, FACE) else os.path.abspath(identity),
            critic_weight=_CRITIC_WEIGHT if editable else 0.0,
            task=task,
            task_options=task_options,
            segmenter=segmenter,
            source=dataset.other.spec if isinstance(dataset, PairedDataset) else None,
            run=info.run,
            origins=info.origins,
            **{**defaults, **_LOSS_DEFAULTS.get(str(loss), {}), **options},
        )
    except FieldError as e:
        raise MisuseError(f"--{e.field.replace('_', '-')} is {e.value}.", hint=e.hint) from e
    _load_losses(config, snapshot)  # report what is missing before the run has a folder
    return EncoderPlan(config, dataset, None)


def plan_resumed_encoder(
    folder: Path,  # of the run
    kimg: float | None = None,  # its new length; None: unchanged
    gpus: int | None = None,
    batch_gpu: int | None = None,
) -> EncoderPlan:
    """Plan to resume a run from its last state. Raises SganError if that is not possible."""
    config = read_settings(folder, read_encoder_config, EncoderRunConfig.recipe, ("model", "checkpoint"))
    kept = config.segmenter and find_kept(folder, config.segmenter, config.data.content_hash)
    config = with_changes(config, folder, kimg, gpus, batch_gpu, segmenter=kept)
    return EncoderPlan(config, open_data_of(config), folder)


def fit_encoder(
    config: EncoderRunConfig,
    folder: Path | None,  # of the run; resumed if it contains a state. None: a new one
    device: str,  # 'cpu' or 'cuda'; each rank uses its own GPU
    options: RunOptions | None = None,  # None: the defaults
    dataset: Dataset | PairedDataset | GeneratedPairs | None = None,  # of the run; None: opened here
) -> Path:  # the folder
    """Fit until kimg is reached or the user interrupts. Called on every rank; the first rank writes."""
    options = options or RunOptions()
    torch_device, folder = prepare_rank(device, folder, options.runs, folder_name(config))

    def build(resuming: bool) -> Engine[EncoderRecipe]:
        snapshot = open_model_of(config, torch_device)
        images = open_data_of(config, snapshot) if config.segmenter else dataset or open_data_of(config)
        loss, identity = _load_losses(config, snapshot)
        return Engine(EncoderRecipe(config, images, snapshot.G, snapshot.D, loss, torch_device, identity))

    with tensor_cores(config.precision == "tf32", products=config.precision == "tf32"):
        run_training(config, folder, torch_device, build, EncoderReport, options)
    return folder


def open_model_of(
    config: EncoderRunConfig,
    device: torch.device,
) -> Snapshot:
    """Open the generator of a run. Raises SganError if its file is missing or has changed."""
    snapshot = load_snapshot(config.model, device)
    if snapshot.fingerprint != config.fingerprint:
        message = f"The model in {config.model} has changed since this run was started, or is another one."
        raise SganError(message, hint="Name that of the run: --model FILE")
    return snapshot


def open_data_of(
    config: EncoderRunConfig,
    snapshot: Snapshot | None = None,  # the model; None: opened here, if it is needed
) -> Dataset | PairedDataset | GeneratedPairs:
    """Open the dataset of a run. Raises SganError if it is missing or has changed."""
    if config.segmenter is not None:
        G = (snapshot or open_model_of(config, torch.device("cpu"))).G
        generated = GeneratedPairs(config.segmenter, G, config.fingerprint, config.seed)
        if generated.spec.content_hash != config.data.content_hash:
            raise SganError(f"{config.segmenter} has changed since this run was started.", hint=START_AGAIN)
        return generated
    if config.source is not None:
        is_mask = config.task == Mask.name
        return reopen_pairs(config.data, config.source, is_mask, config.task_options.get("classes"))
    return config.data.open(changed_message=CHANGED.format(config.data.path), hint=START_AGAIN)


def folder_name(
    config: EncoderRunConfig | Pix2PixRunConfig,
) -> str:
    """The name of the run folder without its number, `<data>-encoder`, `<data>-<task>` or `<data>-pix2pix`."""
    kind = config.task if config.recipe == ENCODER and config.task != Invert.name else config.recipe
    return f"{Path(config.data.path.split(':')[-1]).stem}-{kind}"


def describe_fit(
    config: EncoderRunConfig,
    folder: Path | None,
) -> str:
    """Describe the run that is about to start."""
    data, encoder = config.data, config.encoder
    identity = " + identity" if config.identity else ""
    what = "an encoder" if config.task == "invert" else f"an encoder for the task {config.task}"
    kind = "generated images" if config.segmenter else "images"
    lines = [
        f"Fitting {what} on {data.num - config.held_out} {kind} of {data.height}x{data.width} (height x width) from "
        f"{data.path}; {config.held_out} more are held out",
        f"{config.kimg:g} kimg, batch {config.batch}, loss {config.loss}{identity}, space {encoder.space}, "
        f"{encoder.passes} {'pass' if encoder.passes == 1 else 'passes'}{', skips' if config.skips else ''}",
    ]
    if classes := config.task_options.get("classes"):
        lines.append(f"{len(classes)} classes: {', '.join(classes)}")
    return "\n".join([*lines, *([f"Folder {folder} (reconstructions-*.png: images beside them)"] if folder else [])])


def _open_data(snapshot: Snapshot, data: str | None) -> Dataset:
    """Open the dataset at the size of the model's images."""
    dataset = open_training_dataset(snapshot.info, data)
    if dataset is None:
        raise SganError(f"{snapshot.path} does not record which dataset it was trained on.", hint="Use --data.")
    config, spec = snapshot.info.generator, dataset.spec
    if (spec.height, spec.width) != (config.height, config.width):
        raise SganError(
            f"The images in {spec.path} are {spec.height}x{spec.width} (height x width), which cannot be reduced to "
            f"the model's {config.height}x{config.width}.",
            hint=f"Pack them: sgan data pack {quote(spec.path)} --size {config.height}x{config.width}",
        )
    if spec.channels != config.channels:
        raise SganError(
            f"The images in {spec.path} have {spec.channels} channels, but the model's have {config.channels}.",
            hint="Use --data with images of that kind.",
        )
    return dataset


def _open_images(
    snapshot: Snapshot,
    task: str,
    data: str | None,
    source: str | None,
    segmenter: str | None,
    seed: int,
    progress: Progress,
) -> tuple[Dataset | PairedDataset | GeneratedPairs, dict[str, Any]]:
    """The images to train on, with the second source of the task, and what the task has to know of it."""
    if segmenter is not None:
        generated = GeneratedPairs(segmenter, snapshot.G, snapshot.fingerprint, seed)
        return generated, {"classes": list(generated.classes)}
    dataset = _open_data(snapshot, data)
    needed = task in TASKS and TASKS[task].needs_source
    if source is None and needed:
        either = ", or --segmenter FILE" if task == Mask.name else ""
        raise MisuseError(f"The task {task} needs a second source of images.", hint=f"Name it: --source PATH{either}")
    if source is None:
        return dataset, {}
    if not needed:
        raise MisuseError(f"--source has no effect on the task {task}.", hint="Remove it.")
    pairs, classes = open_pairs(dataset, source, task == Mask.name, progress=progress)
    return pairs, {"classes": list(classes)} if classes else {"channels": pairs.other.spec.channels}


def _check_options(
    snapshot: Snapshot, task: str, loss: str | None, detector: str | None, identity: str | None, options: dict
) -> None:
    """Raise SganError if the model has no styles, or options have no effect."""
    _require_styles(snapshot, task)
    _check_losses(snapshot.G.config, loss, detector, identity)
    _check_skips(snapshot, task, options)


def _check_segmenter(task: str, data: str | None, source: str | None, options: dict[str, Any]) -> None:
    """Raise MisuseError if other options do not go with a segmenter."""
    if task != Mask.name:
        raise MisuseError(f"--segmenter has no effect on the task {task}.", hint="Remove it.")
    if name := "--data" if data is not None else "--source" if source is not None else None:
        raise MisuseError(f"{name} has no effect with --segmenter: images are generated.", hint="Remove one of them.")
    if options.get("skips"):
        message = "--segmenter reads the features of the model itself, which --skips changes."
        raise MisuseError(message, hint="Remove one of them.")


def _schedule(model: GeneratorConfig, kimg: float | None, batch: int | None) -> dict[str, Any]:
    """Settings that depend on the size of the images."""
    small = max(model.height, model.width) <= SMALL
    values = {"lr": 1e-2, "kimg": 60.0, "batch": 24} if small else {"lr": 5e-3, "kimg": 1000.0, "batch": 16}
    values |= {"batch": batch or values["batch"], "snap": (kimg or values["kimg"]) / (6 if small else 20)}
    return values | {"gamma": _GAMMA * model.height * model.width / values["batch"]}


def _require_styles(snapshot: Snapshot, task: str) -> None:
    if not has_styles(snapshot.G):
        message = f"{snapshot.path} has no styles for an encoder to predict, only one latent for all layers."
        raise SganError(message, hint=how_to_make(snapshot.G, snapshot.path, task))


def _check_losses(model: GeneratorConfig, loss: str | None, detector: str | None, identity: str | None) -> None:
    if detector is not None and loss not in WITH_FILE:
        hint = "Add --loss lpips or --loss efficientnet, or remove --detector."
        raise MisuseError("--detector has the weights of the loss.", hint=hint)
    if identity is not None and min(model.height, model.width) < MIN_SIDE:
        size = f"{model.height}x{model.width} (height x width)"
        message = f"--identity compares faces, which have no identity below {MIN_SIDE} pixels: the model's are {size}."
        raise MisuseError(message, hint="Remove --identity.")


def _check_skips(snapshot: Snapshot, task: str, options: dict[str, Any]) -> None:
    if options.get("skips") and task == Invert.name:
        raise MisuseError("--skips has an effect on translation only.", hint="Name a task, such as superres.")
    if not options.get("adversarial_weight"):
        return
    if snapshot.D is None:
        raise MisuseError(f"{snapshot.path} has no discriminator, which --adversarial needs.", hint="Remove it.")
    if judges_pairs(snapshot.G.config, snapshot.D.config):
        message = (
            f"The discriminator of {snapshot.path} judges pairs of an image and its z, and --adversarial has none."
        )
        raise MisuseError(message, hint="Remove it.")


def _load_losses(config: EncoderRunConfig, snapshot: Snapshot) -> tuple[Loss, Loss | None]:  # and that of faces
    levels, device = None if snapshot.D is None else snapshot.D.features, snapshot.G.device
    loss = load_loss(config.loss, levels, snapshot.path, device, config.detector)
    return loss, None if config.identity is None else load_identity(config.identity, device)


def _trunk_like(D: Discriminator | None) -> dict[str, Any]:
    """The channels of the discriminator, whose weights the encoder can start from."""
    return {name: getattr(D.config, name) for name in ("channel_base", "channel_max") if D and hasattr(D.config, name)}
