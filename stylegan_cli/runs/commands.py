"""The commands that continue a run and use what it made, by its recipe."""

from __future__ import annotations

import os
from typing import Any

from ..errors import quote
from .records import ENCODER, recipe_of

_TRAIN = {ENCODER: "sgan encoder fit"}  # that starts and resumes runs of a recipe


def train_command(
    recipe: str | None,
) -> str:
    """The command that starts and resumes runs of a recipe."""
    return _TRAIN.get(recipe or "", "sgan train")


def use_command(
    folder: str | os.PathLike,  # of the run, or one of its models
    config: dict[str, Any],  # contents of config.json
) -> str:
    """The command that uses the model or encoder of a run."""
    if recipe_of(config) != ENCODER:
        return f"sgan generate --model {quote(folder)} --seeds 0-99"
    return f"sgan {'encode' if config.get('task') == 'invert' else 'translate'} IMAGE --encoder {quote(folder)}"
