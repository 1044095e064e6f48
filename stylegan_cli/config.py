"""Every setting of a model, as frozen dataclasses that are saved as JSON beside what they describe."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import SganError

T = TypeVar("T")


# ---------------------------------------------------------------------------------------------- sizes


def base_size(
    height: int,
    width: int,
    least: int = 1,  # how often a size must be halved at least
) -> tuple[int, int, int]:
    """Split a picture size into (h0, w0, n) with height = h0 * 2^n and width = w0 * 2^n.

    n is the largest that leaves the smaller base side at 3 or more; the larger one must then be at most 16.
    256 x 256 is 4 x 4 * 2^6, 384 x 512 is 3 x 4 * 2^7, 24 x 48 is 3 x 6 * 2^3.
    Raises SganError with the nearest sizes that work.
    """
    n = _split(height, width)
    if n is None or n < least:
        near = ", ".join(f"{h}x{w}" for h, w in nearest_sizes(height, width))
        raise SganError(
            f"A size of {height}x{width} (height x width) cannot be halved down to a base of 3 to 16 pixels a side.",
            hint=f"The nearest sizes that work: {near}.",
        )
    return height >> n, width >> n, n


def level_of(
    height: int,
    width: int,
) -> int:
    """The nominal level of a size, 4 * 2^k. Raises SganError as `base_size` does."""
    return 4 << base_size(height, width, 0)[2]


def levels_of(
    height: int,
    width: int,
    start: int,  # the lowest, 4 * 2^k
) -> list[int]:
    """The levels of a network that grows to a size. Raises SganError if it cannot start there."""
    levels = [4 << k for k in range(base_size(height, width)[2] + 1)]
    if start not in levels:
        raise SganError(
            f"Growing cannot start at level {start}: pictures of {height}x{width} have the levels "
            f"{', '.join(map(str, levels))}.",
            hint=f"Choose --grow-from {levels[0]}, or another of these.",
        )
    return levels[levels.index(start) :]


def nearest_sizes(
    height: int,
    width: int,
    count: int = 3,  # how many to give
) -> list[tuple[int, int]]:
    """The sizes (height, width) nearest to the given one that `base_size` accepts, best first."""
    found = set()
    for h0 in range(3, 17):
        for w0 in range(3, 17):
            for n in range(1, 12):
                h, w = h0 << n, w0 << n
                if _split(h, w) == n and h <= 2 * max(height, 8) and w <= 2 * max(width, 8):
                    found.add((h, w))
    return sorted(found, key=lambda s: (abs(s[0] - height) + abs(s[1] - width), s))[:count]


def _split(height: int, width: int) -> int | None:
    if height < 3 or width < 3:
        return None
    n = 0
    while height % (2 << n) == 0 and width % (2 << n) == 0 and min(height, width) >> (n + 1) >= 3:
        n += 1
    return n if max(height, width) >> n <= 16 else None


# --------------------------------------------------------------------------------------------- models


FAMILIES = {"stylegan2": "StyleGAN2", "stylegan": "StyleGAN (2018)", "progan": "ProGAN"}  # of generators, with titles
_NO_DEPTH = "Leave out --map-depth."


@dataclass(frozen=True)
class GeneratorConfig:
    """A generator of any family. Levels are named by their nominal resolution 4 * 2^k, whatever the rectangle."""

    height: int  # of the picture, h0 * 2^n
    width: int  # of the picture, w0 * 2^n
    channels: int = 3  # of the picture: 1 grey, 3 RGB, 4 RGBA
    z_dim: int = 512  # input latent
    c_dim: int = 0  # classes, 0 = unconditional
    w_dim: int = 512  # intermediate latent
    mapping_layers: int = 8  # fully connected layers of the mapping network
    mapping_lr: float = 0.01  # learning-rate multiplier of the mapping network
    labels: str = "embed"  # 'embed': normalised, after the normalised z; 'concat': z and label normalised together
    architecture: str = "skip"  # 'skip': toRGB summed over levels; 'resnet'; 'orig': one toRGB at the end
    channel_base: int = 32768  # feature maps: min(channel_base / level, channel_max)
    channel_max: int = 512
    fir: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)  # resampling filter
    half_levels: int = 4  # how many of the highest levels run in half precision when half precision is asked for
    conv_clamp: float | None = 256.0  # bound on convolution outputs, so that half precision cannot overflow
    w_avg_beta: float = 0.995  # decay of the running mean of w, per batch
    truncated: int | None = None  # how many of the ws truncation changes, unless it is told; None: all
    family: str = "stylegan2"  # or 'stylegan': AdaIN and noise, 2018; 'progan': no styles, 2017
    blur: tuple[float, ...] = ()  # filter after upsampling ('stylegan'), on top of `fir`
    fade: bool = False  # the picture is blended with that of the level below, as in a network that grows

    @property
    def can_grow(self) -> bool:
        return self.family != "stylegan2"

    def __post_init__(self) -> None:
        _check_network(self, self.z_dim, self.w_dim)
        _choice("generator family", self.family, tuple(FAMILIES))
        if self.family != "stylegan2":
            _choice(f"architecture of {self.family}", self.architecture, ("orig",))
        if self.family == "progan" and (
            self.w_dim != latent_size(self.family, self.w_dim, self.z_dim, self.c_dim) or self.mapping_layers
        ):
            raise SganError("progan has no mapping network: its w is z, and a label's embedding.", hint=_NO_DEPTH)
        if not 0 <= self.w_avg_beta <= 1:
            raise SganError(f"GeneratorConfig: w_avg_beta {self.w_avg_beta} is not from 0 to 1.")
        _choice("generator labels", self.labels, ("embed", "concat"))
        _choice("generator architecture", self.architecture, ("skip", "resnet", "orig"))
        _choice("channels", self.channels, (1, 3, 4))


def latent_size(
    family: str,  # of FAMILIES
    w_dim: int,  # that is wanted
    z_dim: int,
    c_dim: int,
) -> int:
    """w_dim as it must be: without a mapping network z goes in as it is, the label's embedding beside it."""
    return w_dim if family != "progan" else z_dim * (2 if c_dim else 1)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminator; that of ProGAN and StyleGAN is 'orig' with another filter."""

    height: int
    width: int
    channels: int = 3
    c_dim: int = 0  # classes, 0 = unconditional
    labels: str = "projection"  # or 'dot': a logit for each class; 'classifier': it names the class besides
    mapping_layers: int = 8  # of the label's mapping ('projection' only)
    mapping_lr: float = 0.01
    architecture: str = "resnet"  # 'resnet', 'skip': picture pyramid; 'orig': plain
    channel_base: int = 32768
    channel_max: int = 512
    fir: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)
    half_levels: int = 4
    conv_clamp: float | None = 256.0
    mbstd_group: int | None = 4  # pictures per group of the minibatch standard deviation; None: the whole batch
    mbstd_channels: int = 1  # its feature maps, 0 = off
    blur: tuple[float, ...] = ()  # filter before downsampling ('orig'), on top of `fir`
    fade: bool = False  # what it sees is blended with the level below, as in a network that grows

    @property
    def can_grow(self) -> bool:
        return self.architecture == "orig"

    def __post_init__(self) -> None:
        _check_network(self, self.mbstd_channels + 1, self.mbstd_group or 1)
        lowest = min(self.channel_base // 4, self.channel_max)
        if self.mbstd_channels and lowest % self.mbstd_channels:
            raise SganError(
                f"{lowest} channels at the lowest level do not divide into {self.mbstd_channels} deviation maps.",
                hint=f"Choose --cmax as a multiple of {self.mbstd_channels}.",
            )
        _choice("discriminator labels", self.labels, ("projection", "dot", "classifier"))
        _choice("discriminator architecture", self.architecture, ("resnet", "skip", "orig"))
        _choice("channels", self.channels, (1, 3, 4))


# ----------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class DataSpec:
    """Exactly which pictures a model saw: recorded in every snapshot, so that metrics measure against the same."""

    path: str  # zip or folder as given, or packaged:critters64
    content_hash: str  # SHA-256 over names, checksums and lengths of the pictures, and over the labels
    num: int  # pictures
    height: int  # as read
    width: int
    channels: int  # 1 grey, 3 RGB, 4 RGBA
    source_height: int  # as stored
    source_width: int
    filter: str = "none"  # how stored became read: 'none' or 'box'
    mirror: bool = False  # x-flips during training
    label: str | None = None  # which labels: None = unused, 'labels' = those of dataset.json, else an attribute's name
    classes: tuple[str, ...] = ()  # class names by index; empty without labels
    pack_filter: str | None = None  # filter recorded when the set was packed, if it says so

    @property
    def c_dim(self) -> int:
        return len(self.classes)


# ----------------------------------------------------------------------------------------------- JSON


def to_json(
    config: Any,  # one of the dataclasses above
) -> dict[str, Any]:
    """A dataclass as plain JSON values."""
    return dataclasses.asdict(config)


def from_json(
    kind: type[T],  # the dataclass to make
    values: dict[str, Any],
) -> T:
    """The inverse of `to_json`. Raises SganError on a field that is unknown, missing or of the wrong kind."""
    if not isinstance(values, dict):
        raise SganError(f"{kind.__name__}: expected fields, found {type(values).__name__}.")
    hints = _hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - set(fields)):
        raise SganError(f"{kind.__name__}: unknown field(s) {', '.join(unknown)}; was it written by a newer version?")
    try:
        return kind(**{name: _value(hints[name], value, f"{kind.__name__}.{name}") for name, value in values.items()})
    except TypeError as e:
        raise SganError(f"{kind.__name__}: {e}.") from e


_hints = functools.cache(typing.get_type_hints)  # evaluates the annotations, anew at every call


def _value(hint: Any, value: Any, name: str) -> Any:
    if isinstance(hint, types.UnionType):  # T | None
        return None if value is None else _value(typing.get_args(hint)[0], value, name)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise SganError(f"{name}: expected a list, found {value!r}.")
        return tuple(_value(typing.get_args(hint)[0], v, name) for v in value)
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise SganError(f"{name}: expected {hint.__name__}, found {value!r}.")
    return value


def _check_network(config: GeneratorConfig | DiscriminatorConfig, *positive: int) -> None:
    is_generator = isinstance(config, GeneratorConfig)
    _, _, n = base_size(config.height, config.width, 0 if config.can_grow and not config.fade else 1)
    if (config.fade or config.blur) and not config.can_grow:
        raise SganError(f"{type(config).__name__}: fade and blur are of networks that grow, and this one does not.")
    # A discriminator's labels may go in as they are embedded, and progan's latents as they are.
    fewest = is_generator and config.family != "progan"
    sane = fewest <= config.mapping_layers <= 64 and 0 <= config.half_levels <= 20 and 1 <= len(config.fir) <= 12
    filters = all(math.isfinite(sum(f)) and sum(f) > 0 for f in (config.fir, config.blur) if f)
    if not (sane and filters and len(config.blur) in (0, 3) and config.mapping_lr > 0):
        raise SganError(f"{type(config).__name__}: mapping_layers, mapping_lr, half_levels or filter is out of range.")
    if min(config.channel_max, config.c_dim + 1, *positive) < 1:
        raise SganError(f"{type(config).__name__}: a dimension is below 1.")
    if config.channel_base < 4 << n:
        raise SganError(
            f"A channel base of {config.channel_base} leaves no channel at level {4 << n}.",
            hint=f"Choose --cbase of {4 << n} or more.",
        )


def _choice(name: str, value: Any, allowed: tuple) -> None:
    if value not in allowed:
        raise SganError(f"{name} {value!r} is none of {', '.join(map(str, allowed))}.")
