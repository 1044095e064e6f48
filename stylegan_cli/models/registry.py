"""The list of all generator families, and the functions that build networks from configurations."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping

from ..config import from_json
from ..errors import SganError
from . import biggan, dcgan, lapgan, progan, r3gan, sagan, sngan, stackgan, style_r3gan, stylegan, stylegan2, stylegan3
from .config import DiscriminatorConfig, GeneratorConfig, field_names
from .family import DiscriminatorFamily, Family
from .presets import Preset

if typing.TYPE_CHECKING:
    from .discriminator import Discriminator
    from .generator import Generator

FAMILIES: dict[str, Family] = {
    package.FAMILY.name: package.FAMILY
    for package in (
        *(stylegan2, stylegan3, stylegan, progan, r3gan, style_r3gan),
        *(dcgan, sngan, sagan, biggan, lapgan, stackgan),
    )
}
DISCRIMINATORS: dict[str, DiscriminatorFamily] = {f.discriminator.name: f.discriminator for f in FAMILIES.values()}

# Old files have one flat configuration with the fields of all families. The fields that a family lacks were ignored, or
# had to be empty.
_IGNORED_FIELDS = {"w_dim", "mapping_layers", "mapping_lr", "labels", "architecture", "conv_clamp"}
_EMPTY_FIELDS = {"truncated", "blur", "fade"}
_DEFAULT_FAMILY, _DEFAULT_DISCRIMINATOR = "stylegan2", "levels"  # of files that name no family


def presets() -> dict[str, tuple[Family, Preset]]:
    """All presets by name, in the order in which they are listed."""
    return {name: (family, preset) for family in FAMILIES.values() for name, preset in family.presets.items()}


def build_generator(
    config: GeneratorConfig,
) -> Generator:
    """Build a generator with fresh weights, in the fastest memory format for convolutions."""
    from ..layers import to_memory_format

    return to_memory_format(FAMILIES[config.family].build(config))


def build_discriminator(
    config: DiscriminatorConfig,
) -> Discriminator:
    """Build a discriminator with fresh weights, in the fastest memory format for convolutions."""
    from ..layers import to_memory_format

    return to_memory_format(DISCRIMINATORS[config.family].build(config))


def require_transform(
    config: GeneratorConfig,
    what: str,  # needs a generator whose input can be moved
) -> None:
    """Raise SganError if the input of a generator cannot be moved."""
    if not config.takes_transform:
        raise SganError(f"{what} needs a model with an input transform, which this {config.title} model does not have.")


def read_generator(
    values: typing.Any,  # a configuration from `to_json`, of this or an older version
) -> GeneratorConfig:
    """Read a configuration of any family. Raises SganError if the family is unknown, and as `from_json` does."""
    name = _family_of(values, "generator", FAMILIES, _DEFAULT_FAMILY)
    config_class = FAMILIES[name].config
    unused = {field for field, value in values.items() if field in _EMPTY_FIELDS and not value} | _IGNORED_FIELDS
    unused = unused - field_names(config_class) | {"family"}
    return from_json(config_class, {field: value for field, value in values.items() if field not in unused})


def read_discriminator(
    values: typing.Any,  # a configuration from `to_json`, of this or an older version
) -> DiscriminatorConfig:
    """Read a configuration of any family. Raises SganError if the family is unknown, and as `from_json` does."""
    name = _family_of(values, "discriminator", DISCRIMINATORS, _DEFAULT_DISCRIMINATOR)
    return from_json(DISCRIMINATORS[name].config, {field: x for field, x in values.items() if field != "family"})


def _family_of(values: typing.Any, network: str, known: Mapping[str, object], default: str) -> str:
    """The family that a configuration names. Raises SganError if it is unknown."""
    if not isinstance(values, Mapping):
        raise SganError(f"{network.title()}Config: expected fields, found {type(values).__name__}.")
    name = values.get("family", default)
    if not isinstance(name, str) or name not in known:
        raise SganError(
            f"The {network} has the family {name!r}, but this version only has {', '.join(known)}; "
            "was the file written by a newer version?"
        )
    return name


READERS: dict[type, Callable[[typing.Any], typing.Any]] = {  # for `from_json`
    GeneratorConfig: read_generator,
    DiscriminatorConfig: read_discriminator,
}
