"""Images in a NumPy file, .npz or .npy, named by index. Pickled objects are never loaded."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import SganError
from .codec import Header, check_pixels
from .listing import Listing, first_three
from .sources import Source

_IMAGES, _LABELS = ("images", "x", "x_train", "arr_0"), ("labels", "label", "y", "y_train", "arr_1")


class ArraySource(Source):
    """The images of one array, with the labels stored beside it in an .npz."""

    def __init__(self, path: Path):
        self.path = path
        arrays = load_arrays(path)
        images = {k: a for k, a in arrays.items() if a.ndim in (3, 4)}
        key = next((k for k in (*_IMAGES, *images) if k in images and (k in _IMAGES or len(images) == 1)), None)
        if key is None:
            available = ", ".join(f"{k} {list(a.shape)}" for k, a in arrays.items()) or "nothing"
            raise SganError(
                f"{path} has no image array; it has {available}.",
                hint="Name the array one of " + ", ".join(_IMAGES) + ".",
            )
        self._pixels = _last_channels(images[key], f"{path}: {key}")
        label_key = next((k for k in _LABELS if k in arrays and k != key), None)
        self._labels = None if label_key is None else arrays[label_key]
        others = {
            f"{k} {list(a.shape)}": f"another array; the images are {key}"
            + (f", the labels {label_key}" * bool(label_key))
            for k, a in arrays.items()
            if k not in (key, label_key)
        }
        self.listing = Listing([f"{i:08d}" for i in range(len(self._pixels))], others, None, [])

    def header(self, name: str, max_pixels: int) -> Header:
        header = Header(*self._pixels.shape[1:])
        check_pixels(header.height, header.width, max_pixels)
        return header

    def image(self, name: str, max_pixels: int) -> Image.Image:
        pixels = np.ascontiguousarray(self._pixels[int(name)])
        return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)

    def read(self, name: str) -> bytes:
        return self._pixels[int(name)].tobytes()

    def check_end(self, name: str) -> None:
        """Do nothing: an array is complete."""

    def dataset_json(self) -> bytes | None:
        if self._labels is None:
            return None
        labels = plain_labels(self._labels, self.path, len(self._pixels))
        return json.dumps({"labels": list(zip(self.names, labels, strict=True))}).encode()


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read an .npz or .npy file, whatever its name; the array of an .npy is called images. Raises SganError."""
    try:
        content = np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"images": content}
        with content:
            arrays = {key: content[key] for key in content.files}
        if wrong := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:  # bytes of other files
            raise ValueError(f"its {first_three(wrong)} is not a NumPy array")
        return arrays
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as e:
        reason = (getattr(e, "strerror", None) or str(e)).rstrip(".")
        if "allow_pickle" in reason or "Python objects" in reason:
            reason = "it contains pickled objects, which could run arbitrary code"
        raise SganError(f"{path} cannot be read: {reason}.", hint="Save plain uint8 arrays with numpy.savez.") from e


def plain_labels(
    labels: np.ndarray,  # [N], [N, 1] or [N, K]: numbers or words
    path: Path,  # for messages
    count: int,  # of images: N
) -> list:
    """Convert labels to numbers, lists of numbers or words for dataset.json. Raises SganError if that is impossible."""
    if labels.ndim not in (1, 2) or len(labels) != count:
        raise SganError(
            f"{path} has labels of shape {list(labels.shape)} for {count} images.",
            hint="Store one class number, or one vector of numbers, for each image.",
        )
    if labels.dtype.kind not in "biufUS":
        raise SganError(f"{path} has labels of type {labels.dtype}.", hint="Store numbers or words.")
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "backslashreplace")
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    is_column = labels.ndim == 2 and labels.shape[1] == 1  # class numbers, or a single real number
    return (labels[:, 0] if is_column else labels).tolist()


def _last_channels(pixels: np.ndarray, where: str) -> np.ndarray:
    """Convert uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] to [N, H, W, C]."""
    if pixels.dtype != np.uint8:
        known = {
            "f4": ("1", "(x * 255).round()"),
            "f8": ("1", "(x * 255).round()"),
            "f2": ("1", "(x * 255).round()"),
            "b1": ("1", "(x * 255)"),
            "u2": ("65535", "(x / 257).round()"),
        }
        limit, scaled = known.get(pixels.dtype.str[1:], ("255", "x"))
        raise SganError(
            f"{where} has {pixels.dtype} pixels; expected uint8, 0 to 255.",
            hint=f"For pixels from 0 to {limit}, convert with {scaled}.astype(numpy.uint8).",
        )
    if not pixels.size:
        raise SganError(f"{where} is empty.")
    if pixels.ndim == 3:
        return pixels[..., None]
    if pixels.shape[3] in (1, 3, 4):
        return pixels
    if pixels.shape[1] in (1, 3, 4):
        return pixels.transpose(0, 2, 3, 1)
    raise SganError(f"{where} has shape {list(pixels.shape)}; expected [N, H, W], [N, H, W, C] or [N, C, H, W].")
