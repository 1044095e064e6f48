"""Plans how a GAN's run continues: from its last state, with the same settings or with changed ones."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from ...config import to_json
from ...data.dataset import Dataset, open_dataset
from ...errors import MisuseError, SganError, quote
from ...models.presets import Schedule
from ...progress import Progress, silent
from ...runs import latest_snapshot, lock_run
from ...runs.history import changed_settings, read_history
from ..config import TrainConfig, read_config
from ..folders import find_kept, read_newest_about, refuse_other_recipe
from ..guides import check_files
from ..losses import LOSSES
from ..presets import refuse_unused_mixing
from ..state_files import list_states
from .gan_plan import Plan, named_options, option_name, refuse_idle_interval, refuse_unused_options

_EXECUTION = ("kimg", "snap", "gpus", "batch_gpu")  # do not change what is learned
_TRAINING = ("batch", "lr", "d_lr", "gamma", "r2_gamma", "gp_weight", "drift", "r1_interval", "pl_weight")
_TRAINING += ("mixing_prob", "ema_kimg", "aug", "augpipe", "aug_p", "ada_target", "schedule_kimg")


def plan_resumed_run(
    folder: Path,  # of the run
    options: dict[str, Any],  # that the user set, by field; None or False: not set
    data: str | None = None,  # another dataset, or the new path of the same one
    progress: Progress = silent,
) -> Plan:
    """Plan to resume a run from its last state. Raises SganError if that is not possible, before the run is touched."""
    config = _read_settings(folder)
    changes = _changes(config, {name: x for name, x in options.items() if x is not None and x is not False})
    if not list_states(folder):
        snapshot = latest_snapshot(folder)
        command = (
            f"sgan train --resume {quote(snapshot)} --data {quote(config.data.path)}" if snapshot else "sgan train"
        )
        raise SganError(f"{folder} has no training state to resume from.", hint=f"Start a new run: {command}")
    with lock_run(folder):  # fails if the run is in use
        pass
    about = read_newest_about(folder)
    _refuse_edited_settings(config, about, folder)
    places = [find_kept(folder, guide.path, guide.content_hash) for guide in config.guides]
    guides = tuple(dataclasses.replace(g, path=path) for g, path in zip(config.guides, places, strict=True))
    check_files(guides)
    config = dataclasses.replace(config, guides=guides)
    mirror = changes.pop("mirror", False)
    config = _redistributed(config, changes)
    refuse_idle_interval(config, options)
    if mirror:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, mirror=True))
    dataset = _open_data(config, data, progress) if data else None
    if dataset is not None:
        moved = dataset.spec.content_hash == config.data.content_hash
        spec = dataclasses.replace(config.data, path=dataset.spec.path) if moved else dataset.spec
        config = dataclasses.replace(config, data=spec)
    kimg = about.get("kimg", 0)
    if (length := changes.get("schedule_kimg")) and length <= kimg:
        message = f"--schedule-kimg is {length:g}, but the run is at {kimg:g} kimg already."
        raise MisuseError(message, hint=f"Set a larger one, such as {max(config.kimg, 2 * kimg):g}.")
    if kimg >= config.kimg:
        text = f"is complete at {kimg:g} kimg" if "kimg" not in changes else f"is at {kimg:g} kimg already"
        raise SganError(f"The run in {folder} {text}.", hint="Set a larger --kimg to continue.")
    return Plan(config, Path(config.resume) if config.resume else None, folder, dataset)


def _read_settings(folder: Path) -> TrainConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise SganError(f"{folder} is not a run folder: it has no config.json.")
    refuse_other_recipe(folder, TrainConfig.recipe)
    try:
        return read_config(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as e:
        raise SganError(f"Cannot read {path}: {e}.") from e


def _changes(config: TrainConfig, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that differ from the run's settings. Raises SganError if one of them cannot be changed."""
    data, discriminator = config.data, config.discriminator
    current = {**vars(config.generator), **vars(config), "size": (data.height, data.width), "cond": data.label}
    current |= {"mirror": data.mirror, "mbstd_group": getattr(discriminator, "mbstd_group", None)}
    current |= {"schedule_kimg": config.schedule.kimg if config.schedule else 0}
    current |= {"aux_classifier": discriminator.labels == "classifier"}
    changes = {name: x for name, x in options.items() if name not in current or current[name] != x}
    for name, leader in (("d_lr", "lr"), ("r2_gamma", "gamma")):  # one that is named does not follow the other
        if leader in changes and name in options:
            changes[name] = options[name]
    if "schedule_kimg" in changes and not (config.schedule and changes["schedule_kimg"]):
        what = "removed from" if config.schedule else "added to"
        raise MisuseError(f"A schedule cannot be {what} a run that is resumed.", hint="Remove --schedule-kimg.")
    if fixed := sorted(changes.keys() - {*_EXECUTION, *_TRAINING, "mirror"}):
        names = ", ".join(map(option_name, fixed))
        hint = f"Remove {names}, or start a new run from a snapshot: sgan train --resume SNAPSHOT"
        raise MisuseError(f"{names} cannot be changed when a run is resumed.", hint=hint)
    if config.growth and (by_level := [name for name in ("batch", "lr") if name in changes]):
        name = option_name(by_level[0])
        message = f"{name} cannot be changed in a run that grows: it has one for each level."
        raise MisuseError(message, hint=f"Remove {name}.")
    aug = changes.get("aug", config.aug)
    if aug == "ada" and "aug_p" in changes:
        raise MisuseError("--p cannot be changed with --aug ada, which adapts it.", hint="Remove --p.")
    fixed_p = {"aug_p": changes.get("aug_p", config.aug_p)} if aug == "fixed" else {}
    refuse_unused_options(config.cfg, {"loss": config.loss, "aug": aug, "cond": data.label, **changes, **fixed_p})
    refuse_unused_mixing(config.generator, changes)
    return changes


def _refuse_edited_settings(config: TrainConfig, about: dict[str, Any], folder: Path) -> None:
    """Check config.json. Raises SganError if it differs from the settings of the last state, unless its history says
    why: a run can be killed between a change and its next state."""
    stored = about.get("config", {})
    edits = changed_settings(to_json(read_config(stored)), to_json(config)) if stored else {}
    recorded = [entry["changes"] for entry in read_history(folder) if entry["kimg"] >= about.get("kimg", 0)]
    if names := [name for name in edits if not any(name in changes for changes in recorded)]:
        text = "; ".join(f"{n}: {edits[n][0]} then, {edits[n][1]} now" for n in names[:4])
        raise SganError(
            f"{folder / 'config.json'} differs from the settings of the last state: "
            f"{text}{' ...' if len(names) > 4 else ''}.",
            hint="Undo the change, and use options: sgan train --resume FOLDER --gamma 2",
        )


def _redistributed(config: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """Apply changes, with a number of images at a time that fits the batch and the number of ranks. Raises SganError if
    D's minibatch-deviation groups would change, or how many images are normalized together."""
    gpus, batch = changes.get("gpus", config.gpus), changes.get("batch", config.batch)
    together = config.batch_gpu * config.gpus if config.generator.uses_batch else None
    if "batch_gpu" not in changes and together:
        if batch % together:
            raise MisuseError(
                f"Batch normalization sees {together} images at a time in this run: --batch {batch} is not a multiple.",
                hint=f"Use a multiple of {together} for --batch.",
            )
        changes = changes | {"batch_gpu": max(together // gpus, 1)}
    elif "batch_gpu" not in changes and batch % (config.batch_gpu * gpus):
        changes = changes | {"batch_gpu": math.gcd(max(batch // gpus, 1), config.batch_gpu)}
    if LOSSES[config.loss].paired and config.r2_gamma == config.gamma:
        changes = {"r2_gamma": changes.get("gamma", config.gamma)} | changes
    if "lr" in changes:  # which is that of both networks, as in a new run
        changes = {"d_lr": None} | changes
    if config.schedule:
        changes = {**changes, "schedule": _rescheduled(config, config.schedule, changes)}
        changes |= {"ema_kimg": config.ema_kimg} if config.schedule.ema_kimg is not None else {}
        changes.pop("schedule_kimg", None)
    with named_options():
        new, group = dataclasses.replace(config, **changes), config.discriminator.batch_group
    if together:
        if (found := new.batch_gpu * new.gpus) != together:
            raise SganError(
                f"Batch normalization has seen {together} images at a time in this run; with --gpus {new.gpus} and "
                f"--batch-gpu {new.batch_gpu} it would see {found}.",
                hint=f"Choose --gpus and --batch-gpu whose product is {together}.",
            )
    elif min(group or config.batch_gpu, config.batch_gpu) > new.batch_gpu:
        raise SganError(
            f"--batch-gpu {new.batch_gpu} is smaller than a minibatch-deviation group of {group or 'all'}.",
            hint=f"Choose fewer --gpus, a larger --batch-gpu, or a --batch that is a multiple of {group}.",
        )
    return new


def _rescheduled(config: TrainConfig, schedule: Schedule, changes: dict[str, Any]) -> Schedule:
    """The schedule of a run with changed settings: the moving average gets its new length at the end, and a probability
    that the user sets is constant. With another length, it goes on from where it would be now."""
    ends: dict[str, Any] = {"kimg": changes.get("schedule_kimg", schedule.kimg)}
    if "ema_kimg" in changes and schedule.ema_kimg is not None:
        ends["ema_kimg"] = changes["ema_kimg"]
    if "aug_p" in changes or changes.get("aug", config.aug) != config.aug:
        ends["aug_p"] = None
    return dataclasses.replace(schedule, **ends)


def _open_data(config: TrainConfig, path: str, progress: Progress) -> Dataset:
    """Open the dataset to continue with. Raises SganError if the networks do not fit its images or classes."""
    spec = config.data
    dataset = open_dataset(
        os.path.abspath(path),
        size=(spec.height, spec.width),
        stored_size=(spec.source_height, spec.source_width),
        mirror=spec.mirror,
        label=spec.label,
        progress=progress,
    )
    for what, before, now in (
        ("channels", spec.channels, dataset.spec.channels),
        ("label values" if spec.vectors else "classes", list(spec.classes), list(dataset.spec.classes)),
    ):
        if before != now:
            hint = f"Start a new run: sgan train --resume SNAPSHOT --data {quote(path)}"
            raise SganError(f"The run cannot continue with {path}: its {what} are {now}, not {before}.", hint=hint)
    return dataset
