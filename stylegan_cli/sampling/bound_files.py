"""Files that belong to one model: latents, directions and tuned weights are of no use to another.

The first two are .npz files without pickles. Each names its model by the fingerprint of the generator's weights.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import SganError
from ..files import atomic_path

T = TypeVar("T")

# What a damaged file, or one of another kind, leads to.
_UNREADABLE = (
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
    parse: Callable[[np.lib.npyio.NpzFile], T],  # raises one of Python's own errors if something is amiss
    damaged: str,  # what is said of such a file: 'is no .npz file with latents'
    hint: str | None = None,  # where such a file comes from
) -> T:
    """What `parse` makes of a file. Raises SganError if there is no such file or it cannot be parsed."""
    try:
        with np.load(path, allow_pickle=False) as f:
            return parse(f)
    except FileNotFoundError as e:
        raise SganError(f"There is no file {path}.", hint=hint) from e
    except _UNREADABLE as e:
        raise SganError(f"{path} {damaged}.") from e


def write_npz(
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    words: Mapping[str, str | None],  # None: left out
    settings: dict | None = None,  # as JSON, for the reader
) -> None:
    """Write a file that `read_npz` reads, whole or not at all."""
    words = {**words, "settings": None if settings is None else json.dumps(settings)}
    texts = {name: np.array(word, dtype=np.str_) for name, word in words.items() if word is not None}
    content: dict[str, Any] = {**arrays, **texts}
    with atomic_path(path) as temporary, open(temporary, "wb") as f:
        np.savez(f, **content)


def read_floats(
    f: np.lib.npyio.NpzFile,
    name: str,
) -> Tensor:  # float32
    """What is too large for float32 becomes infinite: to be refused by who reads it."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(f[name].astype(np.float32))


def read_settings(f: np.lib.npyio.NpzFile) -> dict:
    """How the file was made; empty if it does not say. Raises ValueError if it is no dictionary."""
    settings = json.loads(str(f["settings"])) if "settings" in f else {}
    if not isinstance(settings, dict):
        raise ValueError("settings are a dictionary")
    return settings


def check_model(
    path: str | Path,
    bound_to: str | None,  # fingerprint of the model that the file names
    model: str,  # fingerprint of the one at hand
    made_with: str | None = None,  # path of the model that it names
) -> None:
    """Raises SganError if they are not the same."""
    if bound_to != model:
        raise SganError(
            f"{path} belongs to the model with the fingerprint {bound_to}, not to this one, {model}.",
            hint=f"It was made with --model {made_with}" if made_with else "Give the model that it was made with.",
        )
