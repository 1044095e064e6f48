"""The commands that continue a run and use what it made, by its recipe."""

from __future__ import annotations

import os
from typing import Any

from ..errors import quote
from .records import ENCODER, PIX2PIX, recipe_of


def train_command(
    config: dict[str, Any],  # contents of config.json, or its `recipe` and `task`
) -> str:
    """The command that starts and resumes such runs."""
    if recipe_of(config) not in (ENCODER, PIX2PIX):
        return "sgan train"
    return "sgan encoder fit" if _inverts(config) else "sgan translate fit"


def use_command(
    folder: str | os.PathLike,  # of the run, or one of its models
    config: dict[str, Any],  # as above, with `model` if the run has one
) -> str:
    """The command that uses the model or encoder of a run."""
    if recipe_of(config) not in (ENCODER, PIX2PIX):
        return f"sgan generate --model {quote(folder)} --seeds 0-99"
    model = f" --model {quote(config['model'])}" if config.get("model") else ""
    return f"sgan {'encode' if _inverts(config) else 'translate'} IMAGE --encoder {quote(folder)}{model}"


def _inverts(config: dict[str, Any]) -> bool:
    return recipe_of(config) == ENCODER and config.get("task", "invert") == "invert"
