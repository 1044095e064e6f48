"""The one place that lists the families of generators, and where a configuration becomes a network."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping

from ..config import from_json
from ..errors import SganError
from . import progan, stylegan, stylegan2
from .config import DiscriminatorConfig, GeneratorConfig, field_names
from .family import Family
from .presets import Preset

if typing.TYPE_CHECKING:
    from .discriminator import Discriminator
    from .generator import Generator

FAMILIES: dict[str, Family] = {f.name: f for f in (stylegan2.FAMILY, stylegan.FAMILY, progan.FAMILY)}

# Before families had configurations of their own, one flat configuration had the fields of all of them. Those that a
# family lacks meant nothing, or had to be empty.
_MEANT_NOTHING = {"w_dim", "mapping_layers", "mapping_lr", "labels", "architecture", "conv_clamp"}
_HAD_TO_BE_EMPTY = {"truncated", "blur", "fade"}
_OLD_FAMILY = "stylegan2"  # where a file names none


def presets() -> dict[str, tuple[Family, Preset]]:
    """All presets by name, in the order that they are listed in."""
    return {name: (family, preset) for family in FAMILIES.values() for name, preset in family.presets.items()}


def build_generator(
    config: GeneratorConfig,
) -> Generator:
    """A generator with fresh weights, laid out as the convolutions like them best."""
    from ..layers import to_memory_format

    return to_memory_format(FAMILIES[config.family].build(config))


def build_discriminator(
    config: DiscriminatorConfig,
) -> Discriminator:
    """A discriminator with fresh weights, laid out as the convolutions like them best."""
    from ..layers import to_memory_format
    from .discriminator import Discriminator

    return to_memory_format(Discriminator(config))


def read_generator(
    values: typing.Any,  # what `to_json` made of a configuration, today's or an old one
) -> GeneratorConfig:
    """Raises SganError on a family that is not known, and as `from_json` does."""
    if not isinstance(values, Mapping):
        raise SganError(f"GeneratorConfig: expected fields, found {type(values).__name__}.")
    name = values.get("family", _OLD_FAMILY)
    if not isinstance(name, str) or name not in FAMILIES:
        raise SganError(
            f"The generator is of the family {name!r}, which is none of {', '.join(FAMILIES)}; "
            "was the file written by a newer version?"
        )
    kind = FAMILIES[name].config
    unused = {field for field, value in values.items() if field in _HAD_TO_BE_EMPTY and not value} | _MEANT_NOTHING
    unused = unused - field_names(kind) | {"family"}
    return from_json(kind, {field: value for field, value in values.items() if field not in unused})


READERS: dict[type, Callable[[typing.Any], typing.Any]] = {GeneratorConfig: read_generator}  # for `from_json`
