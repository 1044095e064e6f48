"""Labels of generated images: chosen by the user, or sampled from seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SganError, plural, printable, suggest
from ..models.label_space import LabelSpace
from . import counter
from .checks import Check

Choice = int | str | Sequence[float]  # index of a class; name, or what `parse_label` reads; label vector
_MAX_NAMED = 12  # classes that are named in a sentence


def label_choice() -> Check:
    """Require a class index, a class name or a label vector; whether the model has it is not checked."""

    def check(name: str, value: Any) -> Any:
        value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        if isinstance(value, (list, tuple)) and value and all(map(_is_finite, value)):
            return tuple(value)
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise SganError(f"{name} cannot be {value!r}.", hint="Use an integer, a class name or a list of numbers.")
        return value

    return check


def class_labels(
    choice: Choice | None,
    seeds: Sequence[int],
    space: LabelSpace,
) -> Tensor | None:  # [N, c_dim] float32, one-hot for classes; None for an unconditional model
    """Return one label per seed: the given one, or one sampled from the seed.

    Raises SganError if the model has no such class.
    """
    if space.c_dim == 0 and choice is not None:
        raise SganError("This model has no classes.", hint="Remove --class.")
    if choice is None:
        return sample_labels(space, 0, "class", torch.tensor(list(seeds), dtype=torch.int64))
    return torch.tensor([_label(choice, space)]).expand(len(seeds), -1)


def sample_labels(
    space: LabelSpace,
    seed: int,
    purpose: str,
    index: Tensor,  # [N] int64
) -> Tensor | None:  # [N, c_dim] float32; None for an unconditional model
    """Sample classes uniformly, or labels of training images, see `counter`."""
    if space.c_dim == 0:
        return None
    if space.vectors:
        vectors = torch.tensor(space.vectors, device=index.device)
        return vectors[counter.integers(seed, purpose, index, len(vectors))]
    return torch.nn.functional.one_hot(counter.integers(seed, purpose, index, space.c_dim), space.c_dim).float()


def label_metadata(
    label: Tensor | None,  # [c_dim]
    space: LabelSpace,
) -> dict[str, str]:
    """Return the metadata of a label: what --class takes, and the name of the class if it has one."""
    if label is None:
        return {}
    if space.vectors:
        return {"class": ",".join(f"{x:.7g}" for x in label.tolist())}
    index = int(label.argmax())
    name = space.name(index)
    return {"class": str(index)} | ({"class_name": name} if name != str(index) else {})


def describe_labels(
    labels: Tensor,  # [N, c_dim]
    space: LabelSpace,
) -> str:
    """Return a sentence about the classes of images."""
    if space.vectors:
        dots = " ..." if space.c_dim > _MAX_NAMED else ""
        return f"Labels of {space.c_dim} numbers: {', '.join(space.names[:_MAX_NAMED])}{dots}."
    counts = Counter(sorted(labels.argmax(1).tolist()))
    names = [f"{space.name(k)} ({count})" for k, count in counts.items()]
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"Classes: {', '.join(names[:_MAX_NAMED])}{more}."


def _label(choice: Choice, space: LabelSpace) -> list[float]:  # [c_dim]
    """Return the label of a choice. Names go before numbers: a class may be called '10' and be the second one."""
    if isinstance(choice, int):
        return _one_hot([choice], space)
    if not isinstance(choice, str):
        return _vector(choice, space)
    choice = printable(choice)  # as datasets record the undecodable bytes of a folder's name
    if choice in space.names:
        return _one_hot([space.names.index(choice)], space)
    parts = [part.strip() for part in choice.split(",")]
    if space.vectors and all(part in space.names for part in parts):
        return _one_hot([space.names.index(part) for part in parts], space)
    if space.vectors and all(map(_is_number, parts)):
        return _vector([float(part) for part in parts], space)
    if choice.strip().lstrip("-").isdecimal():
        return _one_hot([int(choice)], space)
    hint = suggest(choice, space.names) or f"Choose --class from {_known(space)}."
    raise SganError(f"This model has no class {choice!r}.", hint=hint)


def _one_hot(indices: Sequence[int], space: LabelSpace) -> list[float]:
    for index in indices:
        if not 0 <= index < space.c_dim:
            raise SganError(f"This model has no class {index}.", hint=f"Choose --class from {_known(space)}.")
    return [float(k in indices) for k in range(space.c_dim)]


def _vector(numbers: Sequence[float], space: LabelSpace) -> list[float]:
    if not space.vectors:
        raise SganError("This model has classes, not label vectors.", hint=f"Choose --class from {_known(space)}.")
    if len(numbers) != space.c_dim:
        raise SganError(
            f"A label of this model has {plural(space.c_dim, 'number')}, not {len(numbers)}.",
            hint=f"They are {', '.join(map(space.name, range(space.c_dim)))}.",
        )
    return [float(x) for x in numbers]


def _known(space: LabelSpace) -> str:
    """List the choices for a hint."""
    last = space.c_dim - 1
    if not space.names or space.names == tuple(map(str, range(space.c_dim))):
        return f"0 to {last}"
    named = ", ".join(space.names[:_MAX_NAMED]) + (" ..." if space.c_dim > _MAX_NAMED else "")
    return f"{named}, or 0 to {last}"


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
