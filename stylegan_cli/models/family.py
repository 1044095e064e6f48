"""The definition of a family of generators. Neither this file nor a family's `__init__` imports PyTorch, which presets
and configurations do not need."""

from __future__ import annotations

import importlib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .classic.config import ResidualDiscriminatorConfig
from .config import DiscriminatorConfig, GeneratorConfig, LevelsDiscriminatorConfig
from .presets import Preset

if typing.TYPE_CHECKING:
    from .discriminator import Discriminator
    from .generator import Generator


def lazy_build(
    package: str,  # name of the family's package
    module: str = "network",  # in the package
) -> Callable[[typing.Any], typing.Any]:
    """The function `build` of a module of a package, which is imported at the first call: it needs PyTorch."""
    return lambda config: importlib.import_module(f".{module}", package).build(config)


@dataclass(frozen=True)
class DiscriminatorFamily:
    config: type[DiscriminatorConfig]
    build: Callable[[typing.Any], Discriminator]  # builds a discriminator with fresh weights from a configuration

    @property
    def name(self) -> str:
        return self.config.family


_HERE = __package__ or ""
LEVELS = DiscriminatorFamily(LevelsDiscriminatorConfig, lazy_build(_HERE, "levels_discriminator"))
RESIDUAL = DiscriminatorFamily(ResidualDiscriminatorConfig, lazy_build(_HERE, "classic.residual"))


@dataclass(frozen=True)
class Family:
    config: type[GeneratorConfig]
    build: Callable[[typing.Any], Generator]  # builds a generator with fresh weights from a configuration
    presets: Mapping[str, Preset]  # by name; the first one is the family's default
    discriminator: DiscriminatorFamily = LEVELS  # that its presets train

    @property
    def name(self) -> str:
        return self.config.family

    @property
    def title(self) -> str:
        return self.config.title
