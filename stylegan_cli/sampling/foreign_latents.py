"""Latents of other programs: .npy, .npz, torch.save, pickles. Nothing in a file is executed.

A file has one array, a list of them, or a dictionary of them by the names of images, as e4e and ReStyle write. In
place of an array there can be a dictionary with its latent and noise, as rosinality's projector writes.
"""

from __future__ import annotations

import dataclasses
import io
import math
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SganError
from ..pickled import Part, PickleError, read_pickle
from ..tensors import (
    Array,
    DType,
    LazyTensor,
    is_legacy,
    load_storage,
    read_legacy,
    read_zip,
    rebuild_tensor,
    resolve_common_name,
)
from .bound_files import UNREADABLE
from .latent_space import LatentFile

# Names of arrays and keys, the first of which is used. `latents` is z in TensorFlow's programs and w in others.
_SPACES: dict[str, str | None] = {
    **dict.fromkeys(("w", "ws", "w_plus", "wp", "dlatents", "dlatent", "latent", "latent_code", "latent_codes"), "w"),
    **dict.fromkeys(("latents", "arr_0")),
    **dict.fromkeys(("z", "zs"), "z"),
}
_IMAGE_SUFFIX = re.compile(r"\.(png|jpe?g|webp|bmp|tiff?)$", re.IGNORECASE)
_WEIGHTS = ("g_ema", "G_ema", "state_dict", "generator", "GAN")  # keys of checkpoints
_HINT = "Files of latents are .npz, .npy or .pt."


@dataclass(frozen=True)
class _Images:
    """The latents under one name."""

    name: str
    values: Tensor  # [N, layers, dim]
    space: str | None
    noise: tuple[Tensor, ...] = ()  # [N, 1, h, w] of each layer

    @property
    def kind(self) -> str:
        return f"{self.space or 'latents'} of the shape {list(self.values.shape[1:])}{' with noise' * bool(self.noise)}"


def read_foreign(
    path: Path,
) -> LatentFile:
    """Read a file of another program. Raises SganError if it cannot be read or has no latents."""
    try:
        with open(path, "rb") as f:
            return _Reader(path).read(_read_tree(f))
    except FileNotFoundError as e:
        raise SganError(f"{path} does not exist.") from e
    except PickleError as e:
        raise SganError(f"{path} cannot be read as latents: {e}.") from e
    except SganError:
        raise
    except (*UNREADABLE, RuntimeError, MemoryError) as e:
        raise SganError(f"{path} is not a file of latents, or it is damaged.", hint=_HINT) from e


def _read_tree(f: io.BufferedReader) -> Any:
    """Read the arrays in a file: LazyTensor, Array or np.ndarray, in lists and dictionaries."""
    file = Part(f)
    head = Part(file.file).read(6)
    if head == b"\x93NUMPY":
        return _read_npy(f)
    if head[:4] == b"PK\3\4":
        with zipfile.ZipFile(f) as z:
            is_torch = any(name.rpartition("/")[2] == "data.pkl" for name in z.namelist())
        if is_torch:
            return read_zip(file, _resolve)
        f.seek(0)
        with np.load(f, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in [n for n in _SPACES if n in arrays][:1] or arrays.files}
    if head[:1] != b"\x80":
        raise ValueError("it is not a pickle")
    return read_legacy(file, _resolve) if is_legacy(file) else read_pickle(Part(f), _resolve, lazy_bytes=True)


def _read_npy(f: io.BufferedReader) -> Any:
    """Read one array. An array of objects holds a pickle: np.save made it from a dictionary or a list."""
    f.seek(0)
    version = np.lib.format.read_magic(f)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    *_, dtype = read_header(f)
    if dtype.hasobject:
        return read_pickle(Part(f, f.tell()), _resolve, lazy_bytes=True)
    f.seek(0)
    return np.load(f, allow_pickle=False)


class _ObjectType(DType):
    """Replaces a numpy dtype, including that of objects."""

    def __init__(self, code: Any, *_: Any):
        if code != "O8":
            super().__init__(code)


class _Objects(Array):
    """Replaces a numpy array, including one of objects."""

    items: Any = None

    def set_state(self, state: Any) -> None:
        if type(state) is tuple and len(state) == 5 and type(state[4]) is list:
            self.items = state[4][0] if state[1] == () and state[4] else state[4]
        else:
            super().set_state(state)


def _resolve(module: str, name: str) -> Any:
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
        return rebuild_tensor
    if (module, name) == ("torch.storage", "_load_from_bytes"):
        return load_storage
    meaning = resolve_common_name(module, name)
    return {Array: _Objects, DType: _ObjectType}.get(meaning, meaning) if isinstance(meaning, type) else meaning


class _Reader:
    """Finds the latents in what a file contains."""

    def __init__(self, path: Path):
        self.path = path
        self.budget = path.stat().st_size  # numbers that may still be loaded: each takes at least one byte

    def read(self, tree: Any) -> LatentFile:
        tree = _unwrap(tree)
        if isinstance(tree, dict) and (weights := [key for key in _WEIGHTS if key in tree]):
            raise self.error(f"it is a checkpoint with the weights {weights[0]}")
        key = _latent_key(tree)
        values, space = (tree, None) if key is None else (tree[key], _SPACES[key])
        noise = () if key is None else self.noise(tree)
        if _is_array(values) and not noise:  # whether rows are images or layers depends on the model
            return LatentFile(self.path, self.load(values), space, [], [])
        images = list(self.images(self.path.stem, tree, None))
        kinds = {image.kind: image for image in images}
        if len(kinds) != 1:
            listed = " and ".join(list(kinds)[:2]) or "none"
            raise self.error(f"it needs latents of one kind, but has {listed}")
        return LatentFile(
            self.path,
            torch.cat([image.values for image in images]),
            images[0].space,
            [name for image in images for name in _numbered(image.name, len(image.values))],
            [],
            ordered_noise=tuple(torch.cat(maps) for maps in zip(*[image.noise for image in images], strict=True)),
        )

    def images(self, name: str, value: Any, space: str | None) -> Iterator[_Images]:
        """Yield the latents of an array, or of all items of a list or a dictionary."""
        value = _unwrap(value)
        if _is_array(value):
            array = torch.atleast_2d(self.load(value))  # two dimensions are the layers of one image
            yield _Images(name, array.reshape(-1, *array.shape[-2:]), space)
        elif (key := _latent_key(value)) is not None:
            noise = self.noise(value)
            for found in self.images(name, value[key], _SPACES[key]):
                if any(len(maps) != len(found.values) for maps in noise):
                    raise self.error(f"{found.name[:80]} does not have one noise per latent")
                yield dataclasses.replace(found, noise=noise)
        elif isinstance(value, dict):
            for label, item in value.items():
                yield from self.images(_IMAGE_SUFFIX.sub("", re.split(r"[\\/]", str(label))[-1]), item, space)
        elif isinstance(value, (list, tuple)):
            for label, item in zip(_numbered(name, len(value)), value, strict=True):
                yield from self.images(label, item, space)
        else:
            raise self.error(f"the entry {name[:80]} is not an array of numbers")

    def noise(self, tree: dict) -> tuple[Tensor, ...]:  # [N, 1, h, w] of each layer
        """The noise beside a latent, as in files of rosinality's projector."""
        maps = tree.get("noise")
        if not isinstance(maps, (list, tuple)) or not all(map(_is_array, maps)):
            return ()
        return tuple(self.load(layer, dims=(4,)) for layer in maps)

    def load(self, array: Any, dims: tuple[int, ...] = (1, 2, 3)) -> Tensor:  # float32
        size = tuple(array.shape if isinstance(array, np.ndarray) else array.size)
        if len(size) not in dims or not math.prod(size):
            raise self.error(f"an array has the shape {list(size)}")
        if isinstance(array, np.ndarray):
            if array.dtype.kind not in "fiu":
                raise self.error("an array does not have real numbers")
            with np.errstate(over="ignore"):  # infinite numbers are refused later
                return torch.from_numpy(array.astype(np.float32))
        self.budget -= math.prod(size)
        if self.budget < 0:
            raise self.error("its arrays are larger than the file")
        return array.load().float()

    def error(self, reason: str) -> SganError:
        return SganError(f"{self.path} cannot be read as latents: {reason}.", hint=_HINT)


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}-{i}" for i in range(count)]


def _latent_key(value: Any) -> str | None:
    """The key of the latents in a dictionary; None if its keys are the names of images."""
    keys = [key for key in _SPACES if key in value] if isinstance(value, dict) else []
    return next((key for key in keys if isinstance(value[key], (list, tuple)) or _is_array(value[key])), None)


def _unwrap(value: Any) -> Any:
    return value.items if isinstance(value, _Objects) and value.items is not None else value


def _is_array(value: Any) -> bool:
    return isinstance(value, (LazyTensor, Array, np.ndarray)) and _unwrap(value) is value
