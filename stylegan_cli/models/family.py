"""What makes a family of generators. Nothing here or in a family's `__init__` imports PyTorch: presets and
configurations are looked at without it."""

from __future__ import annotations

import importlib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .config import GeneratorConfig
from .presets import Preset

if typing.TYPE_CHECKING:
    from .generator import Generator


def lazily(
    package: str,  # of a family
) -> Callable[[typing.Any], Generator]:
    """`build` of the package's network.py, which imports PyTorch, when it is called."""
    return lambda config: importlib.import_module(".network", package).build(config)


@dataclass(frozen=True)
class Family:
    config: type[GeneratorConfig]
    build: Callable[[typing.Any], Generator]  # from its configuration to a network with fresh weights
    presets: Mapping[str, Preset]  # by name; the first one is the family's usual one

    @property
    def name(self) -> str:
        return self.config.family

    @property
    def title(self) -> str:
        return self.config.title
