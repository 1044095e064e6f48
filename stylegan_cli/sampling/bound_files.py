"""Files that belong to one model: latents, directions and tuned weights.

The first two are .npz files without pickles. Each names its model by the fingerprint of the generator's weights.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import SganError
from ..files import atomic_path

T = TypeVar("T")


@dataclass
class Owner:
    """The model whose files are read: its relatives, and what is accepted."""

    run: str = ""  # id of its training run; empty: unknown
    origins: tuple[str, ...] = ()  # ids of runs and fingerprints of models that it was fine-tuned from
    any_model: bool = False  # accept the files of all models, not only of its own run
    notes: dict[str, str] = field(default_factory=dict)  # accepted file of another model -> a sentence about it

    def settings(
        self,
        path: Path,  # of the model
    ) -> dict[str, Any]:
        """Settings of a file, from which `check_model` knows its model's relatives."""
        return {"model": str(path), "run": self.run, "origins": list(self.origins)}


_owner: contextvars.ContextVar[Owner | None] = contextvars.ContextVar("owner", default=None)

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
    settings: Mapping[str, Any],  # of the file
) -> None:
    """Raise SganError if a file belongs to another model, which the block of `owned_by` does not accept."""
    if expected == model:
        return
    owner = _owner.get() or Owner()
    same_run = bool(owner.run) and settings.get("run") == owner.run
    relation = "" if same_run else _relation(settings, expected, owner, model)
    if same_run or owner.any_model:
        other = "another snapshot of this run" if same_run else "another model"
        owner.notes[str(path)] = f"{path} belongs to {other}, {expected}{relation}."
        return
    made_with = settings.get("model")
    advice = f"It was made with --model {made_with}" if made_with else "Use the model that it was made with"
    raise SganError(
        f"{path} belongs to the model with fingerprint {expected}, not to this one, {model}{relation}.",
        hint=f"{advice}; or add --any-model, for a fine-tuned model or another run.",
    )


def _relation(settings: Mapping[str, Any], expected: str | None, owner: Owner, model: str) -> str:
    """How the models of a file and of a session are related, as far as both record it; else empty."""
    recorded = settings.get("origins")
    origins = {str(origin) for origin in recorded} if isinstance(recorded, list) else set()
    if expected in owner.origins or settings.get("run") in owner.origins:
        return "; this model was fine-tuned from that one or from its run"
    if owner.run in origins or model in origins:
        return "; that model was fine-tuned from this one or from its run"
    return "; both were fine-tuned from one model" if origins & {*owner.origins} else ""


@contextlib.contextmanager
def owned_by(
    owner: Owner,
) -> Iterator[None]:
    """Accept files of the same run within the block, and with `any_model` those of all models: latents and directions
    of an earlier snapshot, or of the model that this one was fine-tuned from, still mean something. Their shapes have
    to match."""
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)
