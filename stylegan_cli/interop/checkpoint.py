"""The result of every checkpoint reader, and functions that the readers share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from ..errors import SganError
from ..models.checkpoints import Conversion, Names
from ..models.config import DiscriminatorConfig, GeneratorConfig, LevelsDiscriminatorConfig, judges_pairs
from ..models.discriminator import Discriminator
from ..models.levels_discriminator import LevelsDiscriminator
from ..pickled import PickleError
from ..sampling import counter

_MAX_NUMEL = 1 << 22  # of a computed tensor: the noise of 2048 x 2048
_MAX_SIDE = 1 << 14  # of a tensor


class Loadable(Protocol):
    """A tensor that is read from the file on demand."""

    @property
    def size(self) -> tuple[int, ...]: ...

    def load(self) -> Tensor: ...


@dataclass(frozen=True)
class Checkpoint:
    """A model of another program, with our names."""

    format: str  # program and format, for the user
    generator: GeneratorConfig
    G: Mapping[str, Loadable]  # by the names in our generator's state_dict
    discriminator: DiscriminatorConfig | None = None
    D: Mapping[str, Loadable] = field(default_factory=dict)
    aug_p: float | None = None  # probability of adaptive augmentation
    data: str = ""  # path of the training images, if the file has it
    kimg: float = 0.0
    notes: tuple[str, ...] = ()  # what was omitted or guessed
    measure_w_avg: bool = False  # the file has no mean of w: the one in G is zero and must be measured


class FormatError(ValueError):
    """Why a file of a known format cannot be used: one sentence without a full stop."""


class OtherContentError(PickleError):
    """A file does not have the content that a reader looks for: another reader may know it."""


class ConvertedTensor:
    """A tensor that another program stores in a different layout."""

    def __init__(
        self,
        tensor: Loadable,
        conversion: Conversion,
    ):
        self.tensor, self.conversion = tensor, conversion
        self.size = tuple(self._convert(lambda: torch.empty(tensor.size, device="meta")).shape)

    def load(self) -> Tensor:
        return self._convert(self.tensor.load)

    def _convert(self, load: Callable[[], Tensor]) -> Tensor:
        try:
            return self.conversion(load())
        except (RuntimeError, IndexError, TypeError) as e:
            raise PickleError(f"a tensor has the invalid shape {list(self.tensor.size)}") from e


class ComputedTensor:
    """A tensor that is calculated instead of read."""

    def __init__(
        self,
        size: tuple[int, ...],
        compute: Callable[[tuple[int, ...]], Tensor] = torch.zeros,
    ):
        if math.prod(size) > _MAX_NUMEL:
            raise PickleError("it lacks tensors that would be larger than those of any network")
        self.size, self.compute = size, compute

    def load(self) -> Tensor:
        return self.compute(self.size)


def random_noise(
    purpose: str,  # decides the values
    size: tuple[int, ...],  # [..., h, w]
) -> ComputedTensor:
    """Constant noise for a network whose file has none."""
    return ComputedTensor(size, lambda size: counter.normal(0, purpose, torch.tensor([0]), size[-2:]).reshape(size))


def infer_channels(
    widths: dict[int, int],  # level -> feature maps
) -> dict[str, Any]:  # channel_base and channel_max
    """Find base and max for widths of min(base / level, max). Raises FormatError if the widths are different."""
    channel_max = max(widths.values())
    narrow = [level for level, width in widths.items() if width < channel_max]
    base = widths[min(narrow)] * min(narrow) if narrow else channel_max * max(widths)
    if any(width != min(base // level, channel_max) for level, width in widths.items()):
        listed = ", ".join(f"{widths[level]} at {level}" for level in sorted(widths))
        raise FormatError(f"its feature maps ({listed}) are not a base divided by the level, up to a maximum")
    return {"channel_base": base, "channel_max": channel_max}


def shape_of(
    weights: dict[str, Any],
    name: str,
    ndim: int,
) -> tuple[int, ...]:
    """The shape of a tensor. Raises PickleError if it is missing, has another dimension or an impossible size."""
    shape = weights[name].size if is_tensor(weights.get(name)) else ()
    if len(shape) != ndim or not all(0 < side <= _MAX_SIDE for side in shape):
        raise PickleError(f"it has no {name} with {ndim} dimensions")
    return shape


def map_names(
    names: Names,
    weights: dict[str, Any],  # by the other program's names
    is_ignored: Callable[[str], bool],  # whether a name is not needed
) -> dict[str, Loadable]:  # by our names
    """Raises PickleError if a weight is missing, FormatError if there are unknown ones, as in other architectures."""
    if missing := [source for source, _ in names.values() if not is_tensor(weights.get(source))]:
        raise PickleError(f"it has no {missing[0]}")
    others = {source for source in weights if type(source) is str} - {source for source, _ in names.values()}
    if unknown := sorted(source for source in others if not is_ignored(source)):
        raise FormatError(f"its network has {unknown[0][:80]}, which is not supported")
    return {
        name: weights[source] if conversion is None else ConvertedTensor(weights[source], conversion)
        for name, (source, conversion) in names.items()
    }


def is_tensor(value: Any) -> bool:
    return hasattr(type(value), "load") and hasattr(value, "size")  # objects in pickles have any attribute


def require_levels(
    D: Discriminator | None,
    generator: GeneratorConfig,
) -> LevelsDiscriminator | None:
    """Raise SganError if other programs do not have such a discriminator."""
    if D is not None and judges_pairs(generator, D.config):
        raise SganError(
            "Other programs do not have the discriminator of this model, which judges pairs of an image and its z.",
            hint="Remove it with --drop-discriminator.",
        )
    if D is not None and not isinstance(D.config, LevelsDiscriminatorConfig):
        raise SganError(
            f"Other programs do not have the discriminator of this model, {D.config.family!r}.",
            hint="Remove it with --drop-discriminator.",
        )
    return cast(LevelsDiscriminator | None, D)
