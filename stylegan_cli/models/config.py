"""Base classes of network configurations. A family adds its own fields in models/<family>/config.py."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..config import base_size, check_choice, check_range
from ..errors import MisuseError, SganError, plural

C = TypeVar("C", bound="ImageConfig")


@dataclass(frozen=True)
class ImageConfig:
    """The images that a network generates or classifies."""

    height: int  # of the image, h0 * 2^n
    width: int  # of the image, w0 * 2^n
    channels: int = 3  # of the image: 1 gray, 3 RGB, 4 RGBA

    def __post_init__(self) -> None:
        check_choice("channels", self.channels, (1, 3, 4))

    @property
    def grows(self) -> bool:
        """Whether the network can grow from low to high levels during training; it then has a field `fade`."""
        return False

    @property
    def fades(self) -> bool:
        """Whether its highest level is fading in."""
        return False

    def _details(self) -> list[str]:
        """Further parts of the description for users."""
        return []

    def _check(self, is_valid: bool, fields: str) -> None:
        if not is_valid:
            raise SganError(f"{type(self).__name__}: {fields} is out of range.")


@dataclass(frozen=True)
class GeneratorConfig(ImageConfig):
    """The base class of the families' configurations."""

    family: ClassVar[str]  # name in files and in the registry
    title: ClassVar[str]  # name for users
    has_mapping: ClassVar[bool] = True  # whether a mapping network makes w of z and the label
    has_styles: ClassVar[bool] = True  # whether several latents w control an image, which can be mixed
    half_type: ClassVar[str] = "fp16"  # the precision of mixed training on a GPU, a name of training.choices.PRECISIONS
    is_chain: ClassVar[bool] = False  # whether it is a chain of generators, see models/chain
    learns_in_turn: ClassVar[bool] = False  # whether each of them is trained after the one before, on its images
    uses_batch: ClassVar[bool] = False  # whether images of a batch depend on each other during training

    z_dim: int = 512  # dimension of the input latent
    c_dim: int = 0  # classes, or values of a label; 0 = unconditional

    if TYPE_CHECKING:
        # Dimension of a latent w: a field in most families, otherwise derived from other fields.
        @property
        def w_dim(self) -> int: ...

    @property
    def takes_transform(self) -> bool:
        """Whether the input of the synthesis can be translated and rotated."""
        return False

    def describe(
        self,
        unit: str = "class",  # what c_dim counts
    ) -> str:
        """One line for users: family, image size, latents, and details that depend on the family."""
        color = {1: "gray", 3: "RGB", 4: "RGBA"}[self.channels]
        labels = f", {plural(self.c_dim, unit)}" if self.c_dim else ""
        image = f"{self.height}x{self.width} (height x width) {color}{labels}"
        return ", ".join([self._name(), image, f"z {self.z_dim}, w {self.w_dim}", *self._details()])

    def _name(self) -> str:
        return self.title

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(min(self.z_dim, self.w_dim, self.c_dim + 1) >= 1, "a dimension")


@dataclass(frozen=True)
class StyledConfig(GeneratorConfig):
    """Generators whose layers take styles from a mapped latent w."""

    w_dim: int = 512  # dimension of w  # pyright: ignore[reportIncompatibleMethodOverride] (frozen, so read-only too)
    mapping_layers: int = 8  # fully connected layers of the mapping network
    mapping_lr: float = 0.01  # learning-rate multiplier of the mapping network
    labels: str = "embed"  # 'embed': normalized, after the normalized z; 'concat': z and label normalized together
    w_avg_beta: float = 0.995  # decay of the running mean of w, per batch

    def _details(self) -> list[str]:
        return [f"{self.mapping_layers} mapping layers", *super()._details()]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "mapping_layers", 1, 64)
        self._check(self.mapping_lr > 0, "mapping_lr")
        self._check(0 <= self.w_avg_beta <= 1, f"w_avg_beta {self.w_avg_beta}")
        check_choice("generator labels", self.labels, ("embed", "concat"))


@dataclass(frozen=True)
class DirectConfig(GeneratorConfig):
    """Generators without a mapping network: w is z, with the label."""

    has_mapping: ClassVar[bool] = False
    has_styles: ClassVar[bool] = False

    w_avg_beta: float = 0.995  # decay of the running mean of w, per batch

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(0 <= self.w_avg_beta <= 1, f"w_avg_beta {self.w_avg_beta}")


@dataclass(frozen=True)
class Level:
    """One resolution of a network that doubles or halves the size of its features from level to level."""

    name: int  # nominal resolution 4 * 2^k, whatever the aspect ratio
    height: int  # of its features
    width: int
    channels: int  # of its features
    half: bool  # whether it runs in half precision when the caller selects half precision


@dataclass(frozen=True)
class LevelsConfig(ImageConfig):
    """Networks of levels, named by their nominal resolution 4 * 2^k."""

    channel_base: int = 32768  # feature maps: min(channel_base / level, channel_max)
    channel_max: int = 512
    fir: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)  # resampling filter
    half_levels: int = 4  # number of highest levels that run in half precision when the caller selects half precision

    def levels(self) -> tuple[Level, ...]:
        """All levels, from the lowest, which never runs in half precision, to that of the image."""
        h0, w0, n = base_size(self.height, self.width, 0)
        return tuple(
            Level(
                4 << k,
                h0 << k,
                w0 << k,
                min(self.channel_base // (4 << k), self.channel_max),
                k > 0 and n - k < self.half_levels,
            )
            for k in range(n + 1)
        )

    def size_with(
        self,
        level: int,  # 4 * 2^k
    ) -> str:  # as --size takes it
        """The size of images of this aspect ratio whose highest level is the given one."""
        h0, w0, _ = base_size(self.height, self.width, 0)
        height, width = h0 * level // 4, w0 * level // 4
        return f"{height}" if height == width else f"{height}x{width}"

    def _details(self) -> list[str]:
        return [*super()._details(), f"channel base {self.channel_base}"]

    def __post_init__(self) -> None:
        super().__post_init__()
        *_, n = base_size(self.height, self.width, 0 if self.grows and not self.fades else 1)
        self._check(0 <= self.half_levels <= 20, "half_levels")
        self._check(1 <= len(self.fir) <= 12 and is_filter(self.fir), "the filter fir")
        check_range(self, "channel_max", 1)
        if self.channel_base < 4 << n:
            raise MisuseError(
                f"A channel base of {self.channel_base} leaves no channels at level {4 << n}.",
                hint=f"Use --cbase {4 << n} or more.",
            )


@dataclass(frozen=True)
class GrowingConfig(LevelsConfig):
    """Networks that can grow from low to high levels during training (Karras et al. 2018, section 2)."""

    fade: bool = False  # whether the highest level is fading in: its image is blended with that of the level below

    @property
    def grows(self) -> bool:
        return True

    @property
    def fades(self) -> bool:
        return self.fade


@dataclass(frozen=True)
class DiscriminatorConfig(ImageConfig):
    """The base class of the families' configurations of discriminators."""

    family: ClassVar[str]  # name in files and in the registry
    uses_batch: ClassVar[bool] = False  # whether the whole batch is normalized together

    c_dim: int = 0  # classes, or values of a label; 0 = unconditional
    labels: str = "projection"  # how it takes labels; 'classifier': it predicts the class instead
    codes: int = 0  # numbers of z, from the first, that it also predicts

    @property
    def batch_group(self) -> int | None:
        """Number of images whose outputs depend on each other; None: the whole batch."""
        return None if self.uses_batch else 1

    def describe(self) -> str:
        """A few words for users."""
        return ", ".join(self._details())

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(min(self.c_dim, self.codes) >= 0, "a dimension")


@dataclass(frozen=True)
class LevelsDiscriminatorConfig(LevelsConfig, DiscriminatorConfig):
    """The discriminator of StyleGAN2 and, with architecture 'orig' and other filters, of the growing networks. Labels:
    'projection', 'dot' (one logit per class) or 'classifier'."""

    family: ClassVar[str] = "levels"

    mapping_layers: int = 8  # of the label mapping ('projection' only)
    mapping_lr: float = 0.01
    architecture: str = "resnet"  # 'resnet'; 'skip': image pyramid; 'orig': plain
    conv_clamp: float | None = 256.0
    mbstd_group: int | None = 4  # images per group of the minibatch standard deviation; None: the whole batch
    mbstd_channels: int = 1  # its feature maps, 0 = off
    blur: tuple[float, ...] = ()  # filter before downsampling ('orig'), in addition to `fir`
    fade: bool = False  # whether the highest level is fading in: its output is blended with that of the level below

    @property
    def grows(self) -> bool:
        return self.architecture == "orig"

    @property
    def fades(self) -> bool:
        return self.fade

    @property
    def batch_group(self) -> int | None:
        return self.mbstd_group if self.mbstd_channels else 1

    def _details(self) -> list[str]:
        return [self.architecture, *super()._details()]

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.fade or self.blur) and not self.grows:
            raise SganError(
                f"{type(self).__name__}: fade and blur require the architecture 'orig', not {self.architecture!r}."
            )
        check_range(self, "mapping_layers", 0, 64)
        self._check(self.mapping_lr > 0, "mapping_lr")
        self._check(not self.blur or (len(self.blur) == 3 and is_filter(self.blur)), "the filter blur")
        self._check(min(self.mbstd_channels, (self.mbstd_group or 1) - 1) >= 0, "a dimension")
        lowest = self.levels()[0].channels
        if self.mbstd_channels and lowest % self.mbstd_channels:
            raise MisuseError(
                f"The {lowest} channels of the lowest level cannot be divided into {self.mbstd_channels} groups for "
                "the minibatch standard deviation.",
                hint=f"Use a multiple of {self.mbstd_channels} for --cmax.",
            )
        check_choice("discriminator labels", self.labels, ("projection", "dot", "classifier"))
        check_choice("discriminator architecture", self.architecture, ("resnet", "skip", "orig"))


def judges_pairs(
    generator: GeneratorConfig,
    discriminator: DiscriminatorConfig,
) -> bool:
    """Whether the condition of a discriminator is not a class but the z of the image (Donahue et al. 2017, BiGAN)."""
    return discriminator.c_dim > 0 and generator.c_dim == 0


def is_filter(taps: tuple[float, ...]) -> bool:
    """Whether the taps can be normalized to a sum of 1."""
    return math.isfinite(sum(taps)) and sum(taps) > 0


def field_names(config: type[ImageConfig] | ImageConfig) -> set[str]:
    return {field.name for field in dataclasses.fields(config)}


def replace_known_fields(
    config: C,
    **changes: Any,
) -> C:
    """Replace fields of a configuration, ignoring those that its family does not have."""
    names = field_names(config)
    return dataclasses.replace(config, **{name: value for name, value in changes.items() if name in names})
