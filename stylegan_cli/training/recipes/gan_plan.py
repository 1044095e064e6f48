"""Plans a GAN's run from the user's options: its configuration and initial weights."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...config import base_size, check_size, level_of
from ...data.dataset import BUNDLED, Dataset, DataSpec, open_dataset
from ...errors import FieldError, MisuseError, SganError, plural, printable, quote
from ...models.config import replace_known_fields
from ...models.discriminator import Discriminator
from ...models.registry import build_discriminator, build_generator, presets
from ...models.summary import summarize
from ...progress import Progress, silent
from ...runs import latest_snapshot
from ...snapshot import SnapshotInfo, open_training_dataset, read_info
from ..config import TrainConfig
from ..growth import Growth
from ..guides import plan_guides
from ..presets import (
    NETWORK_OPTIONS,
    PRESETS,
    fastest_precision,
    make_train_config,
    objective_defaults,
    refuse_unused_mixing,
)

_AUGMENTATIONS = {
    "ada": "adaptive augmentation ({})",
    "fixed": "augmentation ({})",
    "diffaug": "DiffAugment",
    "noaug": "no augmentation",
}

# Options with other names than their fields.
_NAMES = {"aug_p": "--p", "ada_target": "--target", "r2_gamma": "--r2", "gp_weight": "--gp"}
_NAMES |= {
    "mode_weight": "--mode-regularize",
    "encoder": "--recipe",
    "r1_interval": "--penalty-interval",
    "d_lr": "--dlr",
    **NETWORK_OPTIONS,
}


@dataclass(frozen=True)
class Plan:
    """The arguments of `recipes.gan.train`."""

    config: TrainConfig
    start: Path | None = None  # snapshot with the initial weights
    folder: Path | None = None  # of a resumed run
    dataset: Dataset | None = None  # if it is open already


def plan_new_run(
    data: str | None,  # zip or folder; None: the bundled dataset
    cfg: str | None,  # preset; None: auto, or demo for the bundled dataset; with `resume`, its family's
    resume: str | None = None,  # snapshot with the networks and weights to start from
    *,
    size: tuple[int, int] | None = None,  # (height, width) to resize the images to
    mirror: bool = False,
    cond: str | None = None,  # name of the labels to condition on
    guide: Sequence[str] = (),  # attribute critics, see `plan_guides`
    guide_weight: Sequence[float] = (),
    guide_discriminator: Sequence[float] = (),
    gpus: int | None = None,
    device: str = "cpu",
    progress: Progress = silent,
    **options: Any,  # see `make_train_config`
) -> Plan:
    """Plan a new run. Raises SganError if dataset, options and snapshot are incompatible."""
    if resume and Path(resume).name.startswith("state-"):
        hint = f"Resume its run: sgan train --resume {quote(Path(resume).parent)}"
        raise SganError(f"{resume} is a training state, not a snapshot.", hint=hint)
    info = read_info(resume) if resume else None
    if info and data is None:
        data, mirror, cond = _recorded_data(info, mirror, cond)
    if cfg and info:
        _refuse_other_family(info, cfg, str(resume))
        refuse_unused_mixing(info.generator, options)  # `auto` can be of another family
    cfg = cfg or _default_preset(data, info)
    data = data and os.path.abspath(data)  # so that the run can be resumed from any folder
    if info and not cond:  # go on with the model's codes
        codes = {"info": info.codes.values or None, "info_continuous": info.codes.numbers or None}
        options = {name: codes.get(name) if x is None else x for name, x in (codes | options).items()}
    refuse_unused_options(cfg, options | {"cond": cond})
    if info and (fixed := [name for name in NETWORK_OPTIONS if options.get(name) is not None]):
        names = ", ".join(NETWORK_OPTIONS[name] for name in fixed)
        raise MisuseError(
            f"{names} cannot be changed, because the networks come from {resume}.", hint=f"Remove {names}."
        )
    if size is not None:
        check_size(*size)
    dataset = open_dataset(data, size=size, mirror=mirror, label=cond, progress=progress)
    if size is None and (size := _size(dataset.spec, cfg, None if PRESETS[cfg].grow_from else info)):
        dataset = dataset.resized(*size)
    base_size(dataset.spec.height, dataset.spec.width)  # report an unsupported size first
    if info:
        options = _with_those_of_model(options, info, cfg, device, dataset.spec)
    loss = options.get("loss") or PRESETS[cfg].loss
    guides = plan_guides(guide, guide_weight, guide_discriminator, loss, dataset.spec)
    with named_options():
        config = make_train_config(cfg, dataset.spec, gpus=gpus or 1, device=device, guides=guides, **options)
    refuse_idle_interval(config, options)
    if resume and info:
        config = _with_networks_from(info, config, os.path.abspath(resume))
    if config.growth is not None:
        Growth(config)  # report an invalid schedule before training starts
    with torch.device("meta"):
        check_freezed(build_discriminator(config.discriminator), config.freezed)
    return Plan(config, start=Path(os.path.abspath(resume)) if resume else None, dataset=dataset)


def refuse_idle_interval(
    config: TrainConfig,
    options: Mapping[str, Any],  # that the user set
) -> None:
    """Raise MisuseError if the user set an interval of penalties, and there are none."""
    if options.get("r1_interval") and not max(config.gamma, config.r2_gamma, config.gp_weight):
        raise MisuseError("--penalty-interval has no effect without a penalty.", hint="Set --gamma, or remove it.")


def check_freezed(
    D: Discriminator,
    freezed: int,  # number of layers
) -> None:
    """Raise MisuseError if Freeze-D would leave no layer to train."""
    if freezed >= len(D.layers):
        raise MisuseError(
            f"--freezed is {freezed}, but the discriminator has {len(D.layers)} layers.",
            hint=f"Choose --freezed from 0 to {len(D.layers) - 1}.",
        )


def folder_name(
    config: TrainConfig,
) -> str:
    """Return the name of the run folder without its number, `<data>-<preset>`."""
    return f"{Path(config.data.path.split(':')[-1]).stem}-{config.cfg}"


def summarize_networks(
    config: TrainConfig,
) -> str:
    """Return tables of both networks' layers, output sizes and parameter counts."""
    g, d = config.generator, config.discriminator
    networks = [_of_zeros(build) for build in (lambda: build_generator(g), lambda: build_discriminator(d))]
    label = torch.zeros(1, g.c_dim) if g.c_dim else None
    image, condition = torch.zeros(1, d.channels, d.height, d.width), torch.zeros(1, d.c_dim) if d.c_dim else None
    tables = [
        summarize("Generator", networks[0], torch.zeros(1, g.z_dim), label),
        summarize("Discriminator", networks[1], image, condition),
    ]
    return "\n\n".join(tables)


def _of_zeros(build: Callable[[], nn.Module]) -> nn.Module:
    """A network without initial weights, which take long for large ones."""
    with torch.device("meta"):
        network = build()
    zeros = {name: torch.zeros_like(tensor, device="cpu") for name, tensor in network.state_dict().items()}
    network.load_state_dict(zeros, assign=True)
    return network


def describe_run(
    config: TrainConfig,
    folder: Path | None,  # of the run, if it is known
) -> str:
    """Describe the run that is about to start."""
    data = config.data
    classes = f", {data.describe_labels()}" if data.c_dim else ""
    lines = [
        f"Training on {plural(data.num, 'image')} of {data.height}x{data.width} (height x width){classes} "
        f"from {data.path}",
        f"Preset {config.cfg}: {config.kimg:g} kimg, batch {config.batch}, {_objective(config)}, {config.precision}, "
        f"{_AUGMENTATIONS[config.aug].format(config.augpipe)}",
    ]
    if config.schedule and not config.schedule.kimg / 10 <= config.kimg < 2 * config.schedule.kimg:
        fault = "hardly begins in" if config.kimg < config.schedule.kimg else "ends long before"
        lines.append(
            f"Its schedule of {config.schedule.kimg:g} kimg {fault} {config.kimg:g} kimg. To fit it to the run: "
            f"--schedule-kimg {config.kimg:g}"
        )
    if folder:
        lines.append(f"Folder {folder} (reals.png: real images, fakes-*.png: generated images)")
    return "\n".join(map(printable, lines))


def _objective(config: TrainConfig) -> str:
    """Summarize the objective, for example 'hinge, gamma 1, R2 0.5, classes'."""
    weights = {"gamma": config.gamma, "R2": config.r2_gamma, "gradient penalty": config.gp_weight}
    classes = ["classes"] if config.discriminator.labels == "classifier" and not config.info else []
    others = [f"a code of {config.info} values"] if config.info else []
    others += [f"codes of {plural(config.info_continuous, 'number')}"] if config.info_continuous else []
    others += [config.encoder] if config.encoder else []
    others += [f"mode regularization {config.mode_weight:g}"] if config.mode_weight else []
    for guide in config.guides:
        second = f" (discriminator {guide.discriminator_weight:g})" if guide.discriminator_weight else ""
        others.append(f"guide {guide.name} {guide.weight:g}{second}")
    return ", ".join([config.loss, *(f"{name} {x:g}" for name, x in weights.items() if x > 0), *classes, *others])


def describe_next_steps(
    config: TrainConfig,
    folder: Path,  # of the run
) -> str:
    """Return where the images are, and commands to continue with."""
    snapshot = latest_snapshot(folder)
    if snapshot is None:
        return f"There is no snapshot yet. Resume: sgan train --resume {quote(folder)}"
    kimg = read_info(snapshot).kimg
    option = "" if folder.parent.resolve() == Path("runs").resolve() else f" --runs {quote(folder.parent)}"
    lines = [
        f"Images:    {folder / snapshot.name.replace('snapshot', 'fakes').replace('.safetensors', '.png')}",
        f"Generate:  sgan generate --seeds 0-99{option}",
    ]
    if config.mode_weight or config.encoder:
        lines.append(f"Encode:    sgan encode IMAGE{option}")
    resume = f"sgan train --resume {quote(folder)}"
    longer = f"--kimg {2 * config.kimg:g}"
    if config.schedule and config.schedule.kimg == config.kimg:  # else it goes on with the settings of its end
        longer += f" --schedule-kimg {2 * config.kimg:g}"
    lines.append(f"Resume:    {resume}" if kimg < config.kimg else f"Continue:  {resume} {longer}")
    return "\n".join(map(printable, lines))


def _default_preset(data: str | None, info: SnapshotInfo | None) -> str:
    """Return `auto`, or `demo` for the bundled dataset. A model of another family has presets of its own: those without
    a size are for any dataset, those with one for the bundled one if there are any, and the one with the most settings
    of the model fits best."""
    default = "auto" if data else "demo"
    model = info.generator if info else None
    fits = {
        name: ((preset.size is None) == (PRESETS[default].size is None), len(preset.generator))
        for name, (family, preset) in presets().items()
        if model
        and family.name == model.family
        and preset.grow_from is None
        and all(getattr(model, k) == value for k, value in preset.generator.items() if k not in NETWORK_OPTIONS)
    }
    return max(fits, key=fits.__getitem__, default=default)


def _recorded_data(info: SnapshotInfo, mirror: bool, cond: str | None) -> tuple[str | None, bool, str | None]:
    """Return path (None: bundled), mirror and labels of the dataset that a model was trained on. Raises SganError if
    the model names none, or if it is gone or has changed."""
    if info.data is None or open_training_dataset(info) is None:
        raise SganError("The model file does not record which dataset it was trained on.", hint="Use --data.")
    path = None if info.data.path == BUNDLED else info.data.path
    return path, mirror or info.data.mirror, cond or (info.data.label if info.generator.c_dim else None)


def _size(spec: DataSpec, cfg: str, info: SnapshotInfo | None) -> tuple[int, int] | None:
    """Return the size to resize the images to: the initial model's, if they are large enough and of the same aspect
    ratio, or the preset's; None: as they are stored."""
    if info is None:
        longest = PRESETS[cfg].size
        return _fit(spec.height, spec.width, longest) if longest else None
    height, width = info.generator.height, info.generator.width
    return (height, width) if height <= spec.height and height * spec.width == width * spec.height else None


def _with_those_of_model(
    options: dict[str, Any], info: SnapshotInfo, cfg: str, device: str, data: DataSpec
) -> dict[str, Any]:
    """Add the options of a run that starts from a model."""
    # A pretrained discriminator overfits sooner.
    options = {"ada_kimg": 100.0, "blur_sigma": 0.0} | {k: v for k, v in options.items() if v is not None}
    if options.get("precision") == "auto":  # the preset can be of another family
        options["precision"] = fastest_precision(info.generator, device, data)
    if PRESETS[cfg].grow_from:
        level = level_of(info.generator.height, info.generator.width)  # half of it while it fades in
        options = {"grow_from": level // (2 if info.generator.fades else 1)} | options
    return options


def _fit(height: int, width: int, longest: int) -> tuple[int, int] | None:
    """Return the size with the given longest side, or None if the images are not larger."""
    scale = longest / max(height, width)
    return (max(round(height * scale), 1), max(round(width * scale), 1)) if scale < 1 else None


def _refuse_other_family(info: SnapshotInfo, cfg: str, resume: str) -> None:
    """Raise MisuseError if the model and the preset are of different families. `auto` is for all but chains."""
    model, family = info.generator, presets()[cfg][0]
    if model.family != family.name and (cfg != "auto" or model.is_chain):
        raise MisuseError(
            f"{resume} has the networks of {model.title}, but --cfg {cfg} trains those of {family.title}.",
            hint="Remove --cfg.",
        )


def _with_networks_from(info: SnapshotInfo, config: TrainConfig, resume: str) -> TrainConfig:
    """Replace the networks by the snapshot's, adapted to the run's images and settings, without an EMA ramp-up."""
    data, group = config.data, getattr(config.discriminator, "mbstd_group", None)
    values = {"height": data.height, "width": data.width, "channels": data.channels, "c_dim": config.generator.c_dim}
    values |= {"conv_clamp": getattr(config.discriminator, "conv_clamp", None), "fade": False}
    generator = replace_known_fields(info.generator, **values)
    discriminator = config.discriminator
    if info.discriminator:
        values["codes"] = discriminator.codes
        use_own = not data.c_dim or discriminator.labels == "classifier"
        labels = discriminator.labels if use_own else info.discriminator.labels
        values["c_dim"] = generator.z_dim if config.encoder == "bigan" else generator.c_dim
        discriminator = replace_known_fields(info.discriminator, **values, mbstd_group=group, labels=labels)
    networks = {"generator": generator, "discriminator": discriminator}
    mixing = config.mixing_prob if generator.has_styles else 0.0
    return dataclasses.replace(config, **networks, mixing_prob=mixing, ema_rampup=None, resume=resume)


def option_name(
    field: str,
) -> str:
    """Return how the command line spells a setting."""
    return _NAMES.get(field, "--" + field.replace("_", "-"))


@contextlib.contextmanager
def named_options() -> Iterator[None]:
    """Name the option in errors of fields that the user set."""
    try:
        yield
    except FieldError as e:
        raise MisuseError(f"{option_name(e.field)} is {e.value}.", hint=e.hint) from e


def refuse_unused_options(
    cfg: str,  # preset
    options: dict[str, Any],
) -> None:
    """Check that every option is used. Raises SganError if an option has no effect, as that is probably a mistake."""
    loss = options.get("loss") or PRESETS[cfg].loss
    _refuse_options_of_other_objectives(loss, options)
    if options.get("encoder") and options.get("aux_classifier"):
        message = f"--recipe {options['encoder']} cannot be combined with --aux-classifier."
        raise MisuseError(message, hint="Remove one of them.")
    if options.get("aux_classifier") and not options.get("cond"):
        raise MisuseError("--aux-classifier needs labels.", hint="Add --cond.")
    if options.get("info_weight") is not None and not (options.get("info") or options.get("info_continuous")):
        raise MisuseError("--info-weight has no effect without codes.", hint="Add --info 10, or remove --info-weight.")
    aug = options.get("aug") or objective_defaults(loss, PRESETS[cfg]).get("aug", PRESETS[cfg].aug)
    unused = {"noaug": ("augpipe", "aug_p", "ada_target"), "diffaug": ("augpipe", "aug_p", "ada_target")}
    for name in unused.get(aug, ("ada_target",) if aug == "fixed" else ()):
        if options.get(name) is not None:
            hint = f"Remove {option_name(name)}, or choose --aug ada."
            raise MisuseError(f"{option_name(name)} has no effect with --aug {aug}.", hint=hint)
    if aug == "fixed" and not options.get("aug_p") and PRESETS[cfg].aug != "fixed":  # whose schedule has one
        raise MisuseError("--aug fixed needs a probability.", hint="Set one, for example --p 0.2.")


def _refuse_options_of_other_objectives(loss: str, options: dict[str, Any]) -> None:
    for name in ("gamma", "r2_gamma") if loss == "wgan" else ("gp_weight", "drift"):
        if options.get(name) is not None:
            hint = f"Remove {option_name(name)}, or choose " + ("another --loss." if loss == "wgan" else "--loss wgan.")
            raise MisuseError(f"{option_name(name)} has no effect with --loss {loss}.", hint=hint)
