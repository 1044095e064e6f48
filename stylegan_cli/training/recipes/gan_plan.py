"""From what the user asked for to a GAN's run that can begin: its configuration, the weights it starts from."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...config import base_size, level_of, to_json
from ...data.dataset import Dataset, DataSpec, open_dataset
from ...errors import SganError
from ...models.config import with_known
from ...models.registry import build_discriminator, build_generator, presets
from ...models.summary import summarize
from ...progress import Progress, silent
from ...runs import latest_snapshot, lock_run
from ...snapshot import SnapshotInfo, read_info
from ..config import TrainConfig, read_config
from ..folders import newest_about, refuse_other_recipe
from ..growth import Growth
from ..presets import NETWORK_OPTIONS, PRESETS, for_objective, make_train_config
from ..state_files import list_states

_MAY_CHANGE = ("kimg", "snap", "gpus", "batch_gpu", "data.path")  # from one start of a run to the next
_AUGMENTATIONS = {
    "ada": "adaptive augmentation ({})",
    "fixed": "augmentation ({})",
    "diffaug": "DiffAugment",
    "noaug": "no augmentation",
}

# Those whose names are not their fields'.
_NAMES = {"aug_p": "--p", "ada_target": "--target", "r2_gamma": "--r2", "gp_weight": "--gp"}
_NAMES |= {"r1_interval": "--penalty-interval", **NETWORK_OPTIONS}


@dataclass(frozen=True)
class Plan:
    """What `recipes.gan.train` needs."""

    config: TrainConfig
    start: Path | None = None  # snapshot with the weights to begin with
    folder: Path | None = None  # of a run that goes on
    dataset: Dataset | None = None  # where it has been opened


def fresh(
    data: str | None,  # zip or folder; None: the packaged set
    cfg: str | None,  # preset; None: auto, or demo on the packaged set
    resume: str | None = None,  # snapshot to take the networks and their weights from
    *,
    size: tuple[int, int] | None = None,  # (height, width) to read the images at
    mirror: bool = False,
    cond: str | None = None,  # labels to learn
    gpus: int | None = None,
    progress: Progress = silent,
    **overrides: Any,  # see `make_train_config`
) -> Plan:
    """A run of its own. Raises SganError if data, settings and snapshot do not go together."""
    cfg = cfg or ("auto" if data else "demo")
    data = data and os.path.abspath(data)  # so that the run can go on from any folder
    if resume and Path(resume).name.startswith("state-"):
        hint = f"Go on with its run: sgan train --resume {shlex.quote(str(Path(resume).parent))}"
        raise SganError(f"{resume} is a training state, which belongs to its run.", hint=hint)
    _refuse_vain_options(cfg, overrides | {"cond": cond})
    info = read_info(resume) if resume else None
    if info and (fixed := [name for name in NETWORK_OPTIONS if overrides.get(name) is not None]):
        names = ", ".join(NETWORK_OPTIONS[name] for name in fixed)
        raise SganError(f"{resume} brings its own networks; {names} cannot be changed.", hint="Leave it out.")
    if size is not None:
        base_size(*size)
    dataset = open_dataset(data, size=size, mirror=mirror, label=cond, progress=progress)
    if size is None and (size := _size(dataset.spec, cfg, None if PRESETS[cfg].grow_from else info)):
        dataset = dataset.resized(*size)
    base_size(dataset.spec.height, dataset.spec.width)  # refuse a size before anything else is asked of it
    if resume and info:
        # A discriminator that knows images overfits sooner.
        overrides = {"ada_kimg": 100.0} | {k: v for k, v in overrides.items() if v is not None}
        if PRESETS[cfg].grow_from:
            overrides = {"grow_from": _level_to_grow_from(info, cfg, resume)} | overrides
    config = make_train_config(cfg, dataset.spec, gpus=gpus or 1, **overrides)
    if resume and info:
        config = _with_networks_of(info, config, os.path.abspath(resume))
    if config.growth is not None:
        Growth(config)  # refuses a schedule that fits nothing before anything starts
    return Plan(config, start=Path(os.path.abspath(resume)) if resume else None, dataset=dataset)


def continued(
    folder: Path,  # of the run
    changes: dict[str, Any],  # what may change on the way: kimg, snap, gpus, batch_gpu; None: as it was
    given: list[str],  # the options that the user set
    data: str | None = None,  # where the same images are now
) -> Plan:
    """A run that goes on from its last state."""
    if set(given) - set(changes):
        names = ", ".join(map(_option, sorted(set(given) - set(changes))))
        raise SganError(f"A run goes on with its own settings; {names} cannot be changed.", hint="Leave it out.")
    path = folder / "config.json"
    if not path.is_file():
        raise SganError(f"{folder} is no run folder: it has no config.json.")
    refuse_other_recipe(folder, TrainConfig.recipe)
    try:
        config = read_config(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as e:
        raise SganError(f"{path} cannot be read ({e}).") from e
    if not list_states(folder):
        snapshot = latest_snapshot(folder)
        again = (
            f"sgan train --resume {shlex.quote(str(snapshot))} --data {config.data.path}" if snapshot else "sgan train"
        )
        raise SganError(f"{folder} has no training state to go on from.", hint=f"Start a new run: {again}")
    with lock_run(folder):  # refuses a run in use
        pass
    about = newest_about(folder)
    _refuse_other_settings(config, about.get("config", {}), path)
    config = _dealt(config, {k: v for k, v in changes.items() if v is not None})
    if data:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=os.path.abspath(data)))
    if about.get("kimg", 0) >= config.kimg:
        raise SganError(
            f"The run in {folder} is complete at {config.kimg:g} kimg.", hint="To go on, give a larger --kimg."
        )
    return Plan(config, Path(config.resume) if config.resume else None, folder)


def folder_name(
    config: TrainConfig,
) -> str:
    """What its run folder is called after the number, `<data>-<preset>`."""
    return f"{Path(config.data.path.split(':')[-1]).stem}-{config.cfg}"


def networks(
    config: TrainConfig,
) -> str:
    """Both networks' layers, output sizes and parameter counts."""
    g, d = config.generator, config.discriminator
    label = torch.zeros(1, g.c_dim) if g.c_dim else None
    image = torch.zeros(1, d.channels, d.height, d.width)
    tables = [
        summarize("Generator", build_generator(g), torch.zeros(1, g.z_dim), label),
        summarize("Discriminator", build_discriminator(d), image, label),
    ]
    return "\n\n".join(tables)


def announcement(
    config: TrainConfig,
    folder: Path | None,  # of the run, as far as it is known
) -> str:
    data = config.data
    classes = f", {data.c_dim} classes" if data.c_dim else ""
    return (
        f"Training on {data.num} images of {data.height}x{data.width}{classes} from {data.path}\n"
        f"Preset {config.cfg}: {config.kimg:g} kimg, batch {config.batch}, {_objective(config)}, {config.precision}, "
        f"{_AUGMENTATIONS[config.aug].format(config.augpipe)}"
        + (f"\nFolder {folder} (reals.png shows the images, fakes-*.png what has been learnt)" if folder else "")
    )


def _objective(config: TrainConfig) -> str:
    """hinge, gamma 1, R2 0.5, classes"""
    weights = {"gamma": config.gamma, "R2": config.r2_gamma, "gradient penalty": config.gp_weight}
    classes = ["classes"] if config.discriminator.labels == "classifier" else []
    return ", ".join([config.loss, *(f"{name} {x:g}" for name, x in weights.items() if x > 0), *classes])


def farewell(
    config: TrainConfig,
    folder: Path,  # of the run
) -> str:
    """Where the images are and what to type next."""
    snapshot = latest_snapshot(folder)
    if snapshot is None:
        return f"There is no snapshot yet. Go on: sgan train --resume {shlex.quote(str(folder))}"
    kimg = read_info(snapshot).kimg
    option = "" if folder.parent.resolve() == Path("runs").resolve() else f" --runs {shlex.quote(str(folder.parent))}"
    lines = [
        f"Images: {folder / snapshot.name.replace('snapshot', 'fakes').replace('.safetensors', '.png')}",
        f"Draw more:  sgan generate --seeds 0-99{option}",
    ]
    resume = f"sgan train --resume {shlex.quote(str(folder))}"
    lines.append(f"Go on:      {resume}" if kimg < config.kimg else f"Train on:   {resume} --kimg {2 * config.kimg:g}")
    return "\n".join(lines)


def _size(spec: DataSpec, cfg: str, info: SnapshotInfo | None) -> tuple[int, int] | None:
    """What to read the images at: as the model to start from drew them, if they are large enough and of its shape; as
    the preset says; None: as they are stored."""
    if info is None:
        longest = PRESETS[cfg].size
        return _fitted(spec.height, spec.width, longest) if longest else None
    theirs = info.generator.height, info.generator.width
    fits = theirs[0] <= spec.height and theirs[0] * spec.width == theirs[1] * spec.height
    return theirs if fits else None


def _fitted(height: int, width: int, longest: int) -> tuple[int, int] | None:
    """The size with the given longest side, None if the images are no larger."""
    scale = longest / max(height, width)
    return (max(round(height * scale), 1), max(round(width * scale), 1)) if scale < 1 else None


def _level_to_grow_from(info: SnapshotInfo, cfg: str, resume: str) -> int:
    """The model's own, as it has those below; while that fades in, the one below. Raises SganError if it is a model of
    another kind than the preset's."""
    theirs, ours = info.generator, presets()[cfg][0]
    if theirs.family != ours.name:
        raise SganError(
            f"{resume} is a {theirs.title} model, and --cfg {cfg} trains a {ours.title}.", hint="Leave out --cfg."
        )
    return level_of(theirs.height, theirs.width) // (2 if theirs.fades else 1)


def _with_networks_of(info: SnapshotInfo, config: TrainConfig, resume: str) -> TrainConfig:
    """The snapshot's architecture, for the run's images and with its settings. Its average needs no ramp."""
    data, group = config.data, config.discriminator.mbstd_group
    ours = {"height": data.height, "width": data.width, "channels": data.channels, "c_dim": data.c_dim}
    ours |= {"conv_clamp": config.discriminator.conv_clamp, "fade": False}
    generator = with_known(info.generator, **ours)
    discriminator = config.discriminator
    if info.discriminator:
        asked = not data.c_dim or discriminator.labels == "classifier"
        labels = discriminator.labels if asked else info.discriminator.labels
        discriminator = with_known(info.discriminator, **ours, mbstd_group=group, labels=labels)
    networks = {"generator": generator, "discriminator": discriminator}
    return dataclasses.replace(config, **networks, ema_rampup=None, resume=resume)


def _refuse_other_settings(config: TrainConfig, stored: dict[str, Any], path: Path) -> None:
    """The state is of the same configuration but for what may change on the way."""
    ours, theirs = _flat(to_json(config)), _flat(to_json(read_config(stored)) if stored else {})
    names = [n for n in theirs if n not in _MAY_CHANGE and ours.get(n) != theirs[n]]
    if names:
        shown = "; ".join(f"{n}: {theirs[n]} then, {ours.get(n)} now" for n in names[:4])
        raise SganError(
            f"{path} differs from what the run was trained with: {shown}{' ...' if len(names) > 4 else ''}.",
            hint="Undo the change, or start a new run from a snapshot: sgan train --resume SNAPSHOT",
        )


def _flat(values: Any, name: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    if not isinstance(values, dict):
        return {name: list(values) if isinstance(values, tuple) else values}
    return {k: v for key, part in values.items() for k, v in _flat(part, f"{name}.{key}".strip(".")).items()}


def _dealt(config: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """The same batch on another number of ranks. Raises SganError if the deviation groups of D cannot stay the same."""
    gpus = changes.get("gpus", config.gpus)
    if "batch_gpu" not in changes and config.batch % (config.batch_gpu * gpus):
        changes = changes | {"batch_gpu": max(config.batch // gpus, 1)}
    new, group = dataclasses.replace(config, **changes), config.discriminator.mbstd_group
    if config.discriminator.mbstd_channels and min(group or config.batch_gpu, config.batch_gpu) > new.batch_gpu:
        raise SganError(
            f"With {new.batch_gpu} image(s) at a time the minibatch-deviation groups of {group} would be broken up.",
            hint="Choose fewer --gpus or a larger --batch-gpu.",
        )
    return new


def _option(field: str) -> str:
    return _NAMES.get(field, "--" + field.replace("_", "-"))


def _refuse_vain_options(cfg: str, options: dict[str, Any]) -> None:
    """What would have no effect is a mistake that the user wants to know of."""
    loss = options.get("loss") or PRESETS[cfg].loss
    _refuse_of_other_objectives(loss, options)
    if options.get("aux_classifier") and not options.get("cond"):
        raise SganError("--aux-classifier needs labels to learn.", hint="Give --cond.")
    aug = options.get("aug") or for_objective(loss, PRESETS[cfg].aug).get("aug", PRESETS[cfg].aug)
    unused = {"noaug": ("augpipe", "aug_p", "ada_target"), "diffaug": ("augpipe", "aug_p", "ada_target")}
    for name in unused.get(aug, ("ada_target",) if aug == "fixed" else ()):
        if options.get(name) is not None:
            hint = "Leave it out, or choose --aug ada."
            raise SganError(f"{_option(name)} has no effect with --aug {aug}.", hint=hint)
    if aug == "fixed" and not options.get("aug_p"):
        raise SganError("--aug fixed needs a probability.", hint="Give --p 0.2, for example.")


def _refuse_of_other_objectives(loss: str, options: dict[str, Any]) -> None:
    for name in ("gamma", "r2_gamma") if loss == "wgan" else ("gp_weight", "drift"):
        if options.get(name) is not None:
            hint = "Leave it out, or choose " + ("another --loss." if loss == "wgan" else "--loss wgan.")
            raise SganError(f"{_option(name)} has no effect with --loss {loss}.", hint=hint)
