"""Files that belong to one model: latents, directions and tuned weights.

The first two are .npz files without pickles. Each names its model by the fingerprint of the generator's weights.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import SganError
from ..files import atomic_path

T = TypeVar("T")

_accepted: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("accepted", default=None)

# What NumPy and the parsers raise on a damaged file or a file of another type.
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    EOFError,
    RecursionError,
    OverflowError,
)


def read_npz(
    path: Path,
    parse: Callable[[np.lib.npyio.NpzFile], T],  # raises one of Python's own errors if something is wrong
    invalid: str,  # predicate of the message about such a file: 'is not a valid .npz file of latents'
    hint: str | None = None,  # where such a file comes from
) -> T:
    """Read a file with `parse`. Raises SganError if it does not exist or cannot be parsed."""
    try:
        with np.load(path, allow_pickle=False) as f:
            return parse(f)
    except FileNotFoundError as e:
        raise SganError(f"{path} does not exist.", hint=hint) from e
    except UNREADABLE as e:
        raise SganError(f"{path} {invalid}.") from e


def write_npz(
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    strings: Mapping[str, str | None],  # None: omitted
    settings: dict | None = None,  # saved as JSON, for information only
) -> None:
    """Atomically write a file that `read_npz` reads."""
    strings = {**strings, "settings": None if settings is None else json.dumps(settings)}
    string_arrays = {name: np.array(value, dtype=np.str_) for name, value in strings.items() if value is not None}
    content: dict[str, Any] = {**arrays, **string_arrays}
    with atomic_path(path) as temporary, open(temporary, "wb") as f:
        np.savez(f, **content)


def read_floats(
    f: np.lib.npyio.NpzFile,
    name: str,
) -> Tensor:  # float32
    """Read an array. Values too large for float32 become infinite; the caller has to reject them."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(f[name].astype(np.float32))


def read_settings(f: np.lib.npyio.NpzFile) -> dict:
    """Read how the file was made; empty if it does not say. Raises ValueError if it is not a dictionary."""
    settings = json.loads(str(f["settings"])) if "settings" in f else {}
    if not isinstance(settings, dict):
        raise ValueError("settings must be a dictionary")
    return settings


def check_model(
    path: str | Path,
    expected: str | None,  # fingerprint of the model that the file belongs to
    model: str,  # fingerprint of the current model
    source_model: str | None = None,  # path of the model that the file belongs to
) -> None:
    """Raise SganError if a file belongs to another model, except within `accept_any_model`."""
    if expected == model:
        return
    if (others := _accepted.get()) is not None:
        others[str(path)] = str(expected)
        return
    advice = f"It was made with --model {source_model}" if source_model else "Use the model that it was made with"
    raise SganError(
        f"{path} belongs to the model with fingerprint {expected}, not to this one, {model}.",
        hint=f"{advice}; or add --any-model, for a later snapshot or a fine-tuned model.",
    )


@contextlib.contextmanager
def accept_any_model(
    others: dict[str, str] | None,  # receives path -> fingerprint of the files of other models; None: refuse them
) -> Iterator[None]:
    """Accept files of other models within the block: of an earlier snapshot, or of the model that this one was
    fine-tuned from, whose latents still mean something. Their shapes have to match."""
    token = _accepted.set(others)
    try:
        yield
    finally:
        _accepted.reset(token)
