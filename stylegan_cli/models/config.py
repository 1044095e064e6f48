"""What the configurations of networks have in common. A family adds its own fields in models/<family>/config.py."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..config import base_size, check_choice
from ..errors import SganError

C = TypeVar("C", bound="ImageConfig")


@dataclass(frozen=True)
class ImageConfig:
    """The images that a network makes or judges."""

    height: int  # of the image, h0 * 2^n
    width: int  # of the image, w0 * 2^n
    channels: int = 3  # of the image: 1 gray, 3 RGB, 4 RGBA

    def __post_init__(self) -> None:
        check_choice("channels", self.channels, (1, 3, 4))

    @property
    def grows(self) -> bool:
        """Whether the network can be trained from low to high levels: it then has a field `fade`."""
        return False

    @property
    def fades(self) -> bool:
        """Whether its highest level is being blended in."""
        return False

    def _details(self) -> list[str]:
        """What else there is to tell people about the network."""
        return []

    def _check(self, sane: bool, fields: str) -> None:
        if not sane:
            raise SganError(f"{type(self).__name__}: {fields} is out of range.")


@dataclass(frozen=True)
class GeneratorConfig(ImageConfig):
    """The base class of the families' configurations."""

    family: ClassVar[str]  # its name in files and in the registry
    title: ClassVar[str]  # its name for people

    z_dim: int = 512  # input latent
    c_dim: int = 0  # classes, 0 = unconditional

    if TYPE_CHECKING:
        # Numbers of a latent w: a field in most families, elsewhere it follows from the others.
        @property
        def w_dim(self) -> int: ...

    def describe(self) -> str:
        """One line for people: family, image, latents, and what the family says of itself."""
        kind = {1: "gray", 3: "RGB", 4: "RGBA"}[self.channels]
        classes = f", {self.c_dim} classes" if self.c_dim else ""
        image = f"{self.height}x{self.width} (height x width) {kind}{classes}"
        return ", ".join([self._kind(), image, f"z {self.z_dim}, w {self.w_dim}", *self._details()])

    def _kind(self) -> str:
        return self.title

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(min(self.z_dim, self.w_dim, self.c_dim + 1) >= 1, "a dimension")


@dataclass(frozen=True)
class StyledConfig(GeneratorConfig):
    """Generators whose layers take styles from a mapped latent w."""

    w_dim: int = 512  # intermediate latent  # pyright: ignore[reportIncompatibleMethodOverride] (frozen: as good)
    mapping_layers: int = 8  # fully connected layers of the mapping network
    mapping_lr: float = 0.01  # learning-rate multiplier of the mapping network
    labels: str = "embed"  # 'embed': normalized, after the normalized z; 'concat': z and label normalized together
    w_avg_beta: float = 0.995  # decay of the running mean of w, per batch

    def _details(self) -> list[str]:
        return [f"{self.mapping_layers} mapping layers", *super()._details()]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(1 <= self.mapping_layers <= 64 and self.mapping_lr > 0, "mapping_layers or mapping_lr")
        self._check(0 <= self.w_avg_beta <= 1, f"w_avg_beta {self.w_avg_beta}")
        check_choice("generator labels", self.labels, ("embed", "concat"))


@dataclass(frozen=True)
class Level:
    """One resolution of a network that doubles or halves its features from level to level."""

    name: int  # nominal resolution 4 * 2^k, whatever the rectangle
    height: int  # of its features
    width: int
    channels: int  # of its features
    half: bool  # runs in half precision when half precision is asked for


@dataclass(frozen=True)
class LevelsConfig(ImageConfig):
    """Networks of levels, named by their nominal resolution 4 * 2^k."""

    channel_base: int = 32768  # feature maps: min(channel_base / level, channel_max)
    channel_max: int = 512
    fir: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)  # resampling filter
    half_levels: int = 4  # how many of the highest levels run in half precision when half precision is asked for

    def levels(self) -> tuple[Level, ...]:
        """From the lowest to the image's. The lowest never runs in half precision."""
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

    def _details(self) -> list[str]:
        return [*super()._details(), f"channel base {self.channel_base}"]

    def __post_init__(self) -> None:
        super().__post_init__()
        *_, n = base_size(self.height, self.width, 0 if self.grows and not self.fades else 1)
        self._check(0 <= self.half_levels <= 20, "half_levels")
        self._check(1 <= len(self.fir) <= 12 and is_filter(self.fir), "the filter fir")
        self._check(self.channel_max >= 1, "channel_max")
        if self.channel_base < 4 << n:
            raise SganError(
                f"A channel base of {self.channel_base} leaves no channel at level {4 << n}.",
                hint=f"Choose --cbase of {4 << n} or more.",
            )


@dataclass(frozen=True)
class GrowingConfig(LevelsConfig):
    """Networks that can be trained from low to high levels (Karras et al. 2018, section 2)."""

    fade: bool = False  # the image is blended with that of the level below, as while a level is added

    @property
    def grows(self) -> bool:
        return True

    @property
    def fades(self) -> bool:
        return self.fade


@dataclass(frozen=True)
class DiscriminatorConfig(LevelsConfig):
    """The discriminator of StyleGAN2 and, as 'orig' with other filters, of the networks that grow."""

    c_dim: int = 0  # classes, 0 = unconditional
    labels: str = "projection"  # or 'dot': a logit for each class; 'classifier': it names the class besides
    mapping_layers: int = 8  # of the label's mapping ('projection' only)
    mapping_lr: float = 0.01
    architecture: str = "resnet"  # 'resnet', 'skip': image pyramid; 'orig': plain
    conv_clamp: float | None = 256.0
    mbstd_group: int | None = 4  # images per group of the minibatch standard deviation; None: the whole batch
    mbstd_channels: int = 1  # its feature maps, 0 = off
    blur: tuple[float, ...] = ()  # filter before downsampling ('orig'), on top of `fir`
    fade: bool = False  # what it sees is blended with the level below, as while a level is added

    @property
    def grows(self) -> bool:
        return self.architecture == "orig"

    @property
    def fades(self) -> bool:
        return self.fade

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.fade or self.blur) and not self.grows:
            raise SganError(f"{type(self).__name__}: fade and blur are of networks that grow, and this one does not.")
        self._check(0 <= self.mapping_layers <= 64 and self.mapping_lr > 0, "mapping_layers or mapping_lr")
        self._check(not self.blur or (len(self.blur) == 3 and is_filter(self.blur)), "the filter blur")
        self._check(min(self.c_dim, self.mbstd_channels, (self.mbstd_group or 1) - 1) >= 0, "a dimension")
        lowest = self.levels()[0].channels
        if self.mbstd_channels and lowest % self.mbstd_channels:
            raise SganError(
                f"{lowest} channels at the lowest level do not divide into {self.mbstd_channels} deviation maps.",
                hint=f"Choose --cmax as a multiple of {self.mbstd_channels}.",
            )
        check_choice("discriminator labels", self.labels, ("projection", "dot", "classifier"))
        check_choice("discriminator architecture", self.architecture, ("resnet", "skip", "orig"))


def is_filter(taps: tuple[float, ...]) -> bool:
    """Whether the taps can be brought to a sum of 1."""
    return math.isfinite(sum(taps)) and sum(taps) > 0


def field_names(config: type[ImageConfig] | ImageConfig) -> set[str]:
    return {field.name for field in dataclasses.fields(config)}


def with_known(
    config: C,
    **changes: Any,
) -> C:
    """The configuration with those of the changes that its family has a field for."""
    names = field_names(config)
    return dataclasses.replace(config, **{name: value for name, value in changes.items() if name in names})
