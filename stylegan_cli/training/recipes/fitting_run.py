"""What runs share that fit a network to images: resumed from their settings, and described."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from ...config import to_json
from ...data.dataset import DataSpec
from ...data.pairs import PairedDataset, open_pairs
from ...errors import SganError, quote
from ...runs import latest_snapshot
from ...runs.commands import train_command, use_command
from ...runs.history import changed_settings
from ...runs.records import ENCODER
from ...sampling.encoders import ENCODER_FILE
from ...sampling.translators import TRANSLATOR_FILE
from ..encoder_config import EncoderRunConfig
from ..folders import read_newest_about, refuse_other_recipe
from ..pix2pix_config import Pix2PixRunConfig
from ..state_files import list_states

CHANGED = "The images in {} have changed since this run was started."
START_AGAIN = "Start a new run."

C = TypeVar("C", EncoderRunConfig, Pix2PixRunConfig)


def read_settings(
    folder: Path,  # of the run
    read: Callable[[dict[str, Any]], C],  # contents of config.json -> settings
    recipe: str,
    movable: Iterable[str] = (),  # settings that may have been edited: places of files
) -> C:
    """Read the settings of a run that is to be resumed from its last state. Raises SganError if that is not possible,
    or if config.json differs from the settings of that state."""
    path = folder / "config.json"
    refuse_other_recipe(folder, recipe)
    try:
        config = read(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as e:
        raise SganError(f"{folder} is not a run folder: it has no config.json.") from e
    except (OSError, ValueError, RecursionError) as e:
        raise SganError(f"Cannot read {path}: {e}.") from e
    if not list_states(folder):
        raise SganError(f"{folder} has no training state to resume from.", hint=f"Start a new run: {_command(config)}")
    edits = changed_settings(read_newest_about(folder).get("config", {}), to_json(config))
    if names := sorted(edits.keys() - set(movable)):
        before, now = edits[names[0]]
        raise SganError(
            f"{path} differs from the settings of the last state: {names[0]}: {before} then, {now} now.",
            hint=f"Undo the change, or start a new run: {_command(config)}",
        )
    return config


def with_changes(
    config: C,  # of a run to resume
    folder: Path,
    kimg: float | None,  # its new length; None: unchanged
    gpus: int | None,
    batch_gpu: int | None,
    **changes: Any,  # of other settings
) -> C:
    """Raises SganError if the run is complete."""
    gpus = gpus or config.gpus
    share = math.gcd(max(config.batch // gpus, 1), config.batch_gpu)
    changes |= {"gpus": gpus, "batch_gpu": batch_gpu or share, "kimg": kimg or config.kimg}
    config = dataclasses.replace(config, **changes)
    if (done := read_newest_about(folder).get("kimg", 0)) >= config.kimg:
        raise SganError(f"The run in {folder} is complete at {done:g} kimg.", hint="Set a larger --kimg to continue.")
    return config


def reopen_pairs(
    data: DataSpec,
    source: DataSpec,
    class_maps: bool = False,  # see `open_pairs`
    classes: Any = None,
) -> PairedDataset:
    """Open the pairs of a run. Raises SganError if they are missing or have changed."""
    dataset = data.open(changed_message=CHANGED.format(data.path), hint=START_AGAIN)
    pairs, _ = open_pairs(dataset, source.path, class_maps, classes)
    if pairs.other.spec.content_hash != source.content_hash:
        raise SganError(CHANGED.format(source.path), hint=START_AGAIN)
    return pairs


def describe_next(
    config: EncoderRunConfig | Pix2PixRunConfig,
    folder: Path,
) -> str:
    """Where the images are, and commands to continue with."""
    resume, snapshot = f"{_command(config)} --resume {quote(folder)}", latest_snapshot(folder)
    if snapshot is None:
        return f"There is no snapshot yet. Resume: {resume}"
    image = folder / snapshot.name.replace("snapshot", "reconstructions").replace(".safetensors", ".png")
    lines = [f"Images:    {image}", f"Use it:    {use_command(folder, _named(config))}"]
    kind = ENCODER_FILE if config.recipe == ENCODER else TRANSLATOR_FILE
    is_done = kind.read_info(snapshot).kimg >= config.kimg
    lines.append(f"Continue:  {resume} --kimg {2 * config.kimg:g}" if is_done else f"Resume:    {resume}")
    return "\n".join(lines)


def _named(config: EncoderRunConfig | Pix2PixRunConfig) -> dict[str, Any]:
    return {"recipe": config.recipe, "task": config.task, "model": getattr(config, "model", None)}


def _command(config: EncoderRunConfig | Pix2PixRunConfig) -> str:
    return train_command(_named(config))
