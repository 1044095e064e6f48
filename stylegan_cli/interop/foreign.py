"""What every reader makes of a file, and the model that comes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..models.checkpoints import Names
from ..models.config import DiscriminatorConfig, GeneratorConfig
from ..pickled import PickleError

_MOST = 1 << 22  # numbers of a tensor that is made here: the noise of 2048 x 2048
_WIDEST = 1 << 14  # side of a tensor


class Loadable(Protocol):
    """A tensor that is read when it is wanted."""

    @property
    def size(self) -> tuple[int, ...]: ...

    def load(self) -> Tensor: ...


@dataclass(frozen=True)
class Foreign:
    """A model of another program, in our names."""

    format: str  # what wrote it, for the reader
    generator: GeneratorConfig
    G: Mapping[str, Loadable]  # by the names of our generator's state_dict
    discriminator: DiscriminatorConfig | None = None
    D: Mapping[str, Loadable] = field(default_factory=dict)
    aug_p: float | None = None  # of adaptive augmentation
    data: str = ""  # what it says about its images
    kimg: float = 0.0
    notes: tuple[str, ...] = ()  # what of the file is lost or was guessed
    measure_w_avg: bool = False  # the file holds no mean of w: the one in G is zero, and is to be measured


class FormatError(ValueError):
    """A file of a known format that cannot be read here: one sentence without a full stop."""


class Changed:
    """A tensor that another program keeps in another form."""

    def __init__(
        self,
        tensor: Loadable,
        change: Callable[[Tensor], Tensor],  # from its form to ours
    ):
        self.tensor, self.change = tensor, change
        self.size = tuple(self._changed(lambda: torch.empty(tensor.size, device="meta")).shape)

    def load(self) -> Tensor:
        return self._changed(self.tensor.load)

    def _changed(self, load: Callable[[], Tensor]) -> Tensor:
        try:
            return self.change(load())
        except (RuntimeError, IndexError, TypeError) as e:
            raise PickleError(f"a tensor of it has the shape {list(self.tensor.size)}, which makes no sense") from e


class Made:
    """A tensor that is in no file."""

    def __init__(
        self,
        size: tuple[int, ...],
        make: Callable[[tuple[int, ...]], Tensor] = torch.zeros,
    ):
        if math.prod(size) > _MOST:
            raise PickleError("it lacks tensors that would be larger than any network has")
        self.size, self.make = size, make

    def load(self) -> Tensor:
        return self.make(self.size)


def channel_widths(
    widths: dict[int, int],  # level -> feature maps
) -> dict[str, Any]:  # of the configuration
    """channel_base and channel_max of min(base / level, max). Raises FormatError if the widths are no such row."""
    most = max(widths.values())
    narrow = [level for level, width in widths.items() if width < most]
    base = widths[min(narrow)] * min(narrow) if narrow else most * max(widths)
    if any(width != min(base // level, most) for level, width in widths.items()):
        found = ", ".join(f"{widths[level]} at {level}" for level in sorted(widths))
        raise FormatError(f"its numbers of feature maps ({found}) are not a base divided by the level, up to a maximum")
    return {"channel_base": base, "channel_max": most}


def shape_of(
    weights: dict[str, Any],
    name: str,
    sides: int,  # how many it must have
) -> tuple[int, ...]:
    """Raises PickleError if there is no such tensor, or a side of it is not that of a network."""
    found = weights[name].size if _is_tensor(weights.get(name)) else ()
    if len(found) != sides or not all(0 < side <= _WIDEST for side in found):
        raise PickleError(f"it holds no {name} of {sides} sides")
    return found


def ours(
    names: Names,
    theirs: dict[str, Any],
    spare: Callable[[str], bool],  # which of their names are not needed
) -> dict[str, Loadable]:
    """Raises PickleError if one is missing, FormatError if others are there: a network of another kind."""
    if missing := [name for name, _ in names.values() if not _is_tensor(theirs.get(name))]:
        raise PickleError(f"it holds no {missing[0]}")
    others = {name for name in theirs if type(name) is str} - {name for name, _ in names.values()}
    if strange := sorted(name for name in others if not spare(name)):
        raise FormatError(f"its network has {strange[0][:80]}, which ours has not")
    return {
        our: theirs[name] if change is None else Changed(theirs[name], change) for our, (name, change) in names.items()
    }


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "load") and hasattr(value, "size")
