"""The definition of a family of generators. Neither this file nor a family's `__init__` imports PyTorch, which presets
and configurations do not need."""

from __future__ import annotations

import importlib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .config import GeneratorConfig
from .presets import Preset

if typing.TYPE_CHECKING:
    from .generator import Generator


def lazy_build(
    package: str,  # name of the family's package
) -> Callable[[typing.Any], Generator]:
    """The function `build` of the package's network.py, which is imported at the first call: it needs PyTorch."""
    return lambda config: importlib.import_module(".network", package).build(config)


@dataclass(frozen=True)
class Family:
    config: type[GeneratorConfig]
    build: Callable[[typing.Any], Generator]  # builds a generator with fresh weights from a configuration
    presets: Mapping[str, Preset]  # by name; the first one is the family's default

    @property
    def name(self) -> str:
        return self.config.family

    @property
    def title(self) -> str:
        return self.config.title
