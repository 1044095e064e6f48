"""From what the user asked for to a run that can begin: its configuration, its folder, the weights it starts from."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import PRESETS, TrainConfig, base_size, from_json, make_train_config
from ..data.dataset import open_dataset
from ..errors import SganError
from ..models import build_discriminator, build_generator
from ..models.summary import summarize
from ..runs import latest_snapshot, next_run_dir
from ..snapshot import SnapshotInfo, read_info

# Options that say what the networks are, by field.
_OF_NETWORKS = {"channel_base": "--cbase", "channel_max": "--cmax", "mapping_layers": "--map-depth"}


@dataclass(frozen=True)
class Plan:
    """What `training.run.train` needs."""

    config: TrainConfig
    start: Path | None = None  # snapshot with the weights to begin with
    shown: int = 0  # pictures shown before
    folder: Path | None = None  # of a run that goes on


def fresh(
    data: str | None,  # zip or folder; None: the packaged set
    cfg: str | None,  # preset; None: auto, or demo on the packaged set
    resume: str | None = None,  # snapshot to take the networks and their weights from
    *,
    size: tuple[int, int] | None = None,  # (height, width) to read the pictures at
    mirror: bool = False,
    cond: str | None = None,  # labels to learn
    gpus: int | None = None,
    **overrides: Any,  # see `make_train_config`
) -> Plan:
    """A run of its own. Raises SganError if data, settings and snapshot do not go together."""
    cfg = cfg or ("auto" if data else "demo")
    data = data and os.path.abspath(data)  # so that the run can go on from any folder
    info = read_info(resume) if resume else None
    if info and (fixed := [name for name in _OF_NETWORKS if overrides.get(name) is not None]):
        names = ", ".join(_OF_NETWORKS[name] for name in fixed)
        raise SganError(f"{resume} brings its own networks; {names} cannot be changed.", hint="Leave it out.")
    if size is not None:
        base_size(*size)
    if info and size is None:
        size = (info.generator.height, info.generator.width)
    if size is None and PRESETS[cfg].size:
        spec = open_dataset(data).spec
        size = _fitted(spec.height, spec.width, PRESETS[cfg].size)
    dataset = open_dataset(data, size=size, mirror=mirror, label=cond)
    base_size(dataset.spec.height, dataset.spec.width)  # refuse a size before anything else is asked of it
    config = make_train_config(cfg, dataset.spec, gpus=gpus or 1, **overrides)
    if info is None:
        return Plan(config)
    return Plan(_with_networks_of(info, config, resume), start=Path(resume))


def continued(
    folder: Path,  # of the run
    changes: dict[str, Any],  # what may change on the way: kimg, snap; None: as it was
    given: list[str],  # the options that the user set
) -> Plan:
    """A run that goes on from its newest snapshot."""
    if set(given) - set(changes):
        names = ", ".join("--" + name.replace("_", "-") for name in sorted(set(given) - set(changes)))
        raise SganError(f"A run goes on with its own settings; {names} cannot be changed.", hint="Leave it out.")
    path = folder / "config.json"
    if not path.is_file():
        raise SganError(f"{folder} is no run folder: it has no config.json.")
    try:
        config = from_json(TrainConfig, json.loads(path.read_text(encoding="utf-8")))
    except ValueError as e:
        raise SganError(f"{path} cannot be read ({e}).") from e
    config = dataclasses.replace(config, **{k: v for k, v in changes.items() if v is not None})
    snapshot = latest_snapshot(folder)
    if snapshot is None:
        raise SganError(f"{folder} has no snapshot to go on from.", hint="Start the run anew: sgan train")
    info = read_info(snapshot)
    if (info.generator, info.discriminator) != (config.generator, config.discriminator):
        raise SganError(f"{path} describes other networks than {snapshot.name} holds; was it edited?")
    shown = round(info.kimg * 1000)
    if shown >= config.kimg * 1000:
        raise SganError(
            f"The run in {folder} is complete at {config.kimg:g} kimg.", hint="To go on, give a larger --kimg."
        )
    return Plan(config, snapshot, shown, folder)


def new_folder(
    runs: str | os.PathLike,
    config: TrainConfig,
) -> Path:
    """The next run folder, `00000-<data>-<preset>`."""
    name = Path(config.data.path.split(":")[-1]).stem
    return next_run_dir(runs, f"{name}-{config.cfg}")


def discard_unused(
    folder: Path,  # of a new run
) -> None:
    """Remove the folder of a run that failed before it logged anything."""
    log = folder / "stats.jsonl"
    if not (log.is_file() and log.stat().st_size) and latest_snapshot(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)


def networks(
    config: TrainConfig,
) -> str:
    """Both networks' layers, output sizes and parameter counts."""
    g, d = config.generator, config.discriminator
    label = torch.zeros(1, g.c_dim) if g.c_dim else None
    picture = torch.zeros(1, d.channels, d.height, d.width)
    tables = [
        summarize("Generator", build_generator(g), torch.zeros(1, g.z_dim), label),
        summarize("Discriminator", build_discriminator(d), picture, label),
    ]
    return "\n\n".join(tables)


def announcement(
    config: TrainConfig,
    folder: Path,
) -> str:
    data = config.data
    classes = f", {data.c_dim} classes" if data.c_dim else ""
    return (
        f"Training on {data.num} pictures of {data.height}x{data.width}{classes} from {data.path}\n"
        f"Preset {config.cfg}: {config.kimg:g} kimg, batch {config.batch}, gamma {config.gamma:g}\n"
        f"Folder {folder} (reals.png shows the pictures, fakes-*.png what has been learnt)"
    )


def farewell(
    config: TrainConfig,
    folder: Path,  # of the run
) -> str:
    """Where the pictures are and what to type next."""
    snapshot = latest_snapshot(folder)
    kimg = read_info(snapshot).kimg
    option = "" if folder.parent.resolve() == Path("runs").resolve() else f" --runs {shlex.quote(str(folder.parent))}"
    lines = [
        f"Pictures: {folder / snapshot.name.replace('snapshot', 'fakes').replace('.safetensors', '.png')}",
        f"Draw more:  sgan generate --seeds 0-99{option}",
    ]
    resume = f"sgan train --resume {shlex.quote(str(folder))}"
    lines.append(f"Go on:      {resume}" if kimg < config.kimg else f"Train on:   {resume} --kimg {2 * config.kimg:g}")
    return "\n".join(lines)


def _fitted(height: int, width: int, longest: int) -> tuple[int, int] | None:
    """The size with the given longest side, None if the pictures are no larger."""
    scale = longest / max(height, width)
    return (max(round(height * scale), 1), max(round(width * scale), 1)) if scale < 1 else None


def _with_networks_of(info: SnapshotInfo, config: TrainConfig, resume: str) -> TrainConfig:
    """The snapshot's architecture with the run's settings; the pictures must fit it."""
    theirs = info.generator
    ours = (config.data.height, config.data.width, config.data.channels, config.data.c_dim)
    want = (theirs.height, theirs.width, theirs.channels, theirs.c_dim)
    if ours != want:
        form = "{0}x{1} with {2} channel(s) and {3} class(es)"
        raise SganError(f"{resume} draws {form.format(*want)}, but the pictures are {form.format(*ours)}.")
    discriminator = config.discriminator
    if info.discriminator:
        group = config.discriminator.mbstd_group
        discriminator = dataclasses.replace(info.discriminator, mbstd_group=group)
    return dataclasses.replace(config, generator=theirs, discriminator=discriminator, resume=resume)
