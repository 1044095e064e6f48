"""Annotated images: a folder with NAME.png and its mask NAME.mask.png, one color for each class.

Transparent pixels of a mask are not annotated.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.codec import fit
from ..data.formats import SUFFIXES
from ..data.images import read_metadata
from ..data.pairs import MAX_CLASSES, class_index, color_codes, color_name, refuse_jpeg
from ..errors import SganError
from ..files import existing_path
from ..models.label_space import LabelSpace
from ..sampling.checks import LARGEST_SEED
from ..sampling.generate import SamplingOptions
from ..snapshot import SnapshotInfo
from .segmentation import UNKNOWN
from .targets import TargetReader, read_image

MASK = ".mask"  # before the extension of a mask's name
_LAYOUT = "Put NAME.png and NAME.mask.png, one color for each class, in one folder."
_FEW = 5  # pixels: a class with fewer is probably an accident


@dataclass(frozen=True, eq=False)
class Annotations:
    """N annotated images."""

    paths: list[Path]  # [N]
    images: Tensor  # [N, C, H, W] in [-1, 1], at the size of the model
    labels: Tensor  # int64 [N, H, W]; UNKNOWN: not annotated
    classes: tuple[str, ...]  # their colors, sorted
    warnings: list[str]


def read_annotations(
    folder: str | Path,
    info: SnapshotInfo,  # of the model
    crop: str = "center",  # see `codec.fit`
    pad: str = "black",
) -> Annotations:
    """Raises SganError if a file cannot be read, an image has no mask or a mask no image, or there is only one
    class, or more than MAX_CLASSES."""
    pairs = _find_pairs(existing_path(folder))
    images = [read_image(image) for image, _ in pairs]
    masks = [_read_mask(mask, image.size) for image, (_, mask) in zip(images, pairs, strict=True)]
    classes = _find_classes(masks, str(folder))
    size = info.generator.height, info.generator.width
    maps = [reduce_map(mask, size, crop, classes, str(path)) for mask, (_, path) in zip(masks, pairs, strict=True)]
    labels = torch.from_numpy(np.stack(maps))
    counts = torch.bincount(labels[labels >= 0], minlength=len(classes)).tolist()
    few = [f"{color} ({n})" for color, n in zip(classes, counts, strict=True) if n < _FEW and len(classes) > 2]
    advice = f"Few pixels have the colors {', '.join(few)}; if they are smoothed edges, save the masks without them."
    paths = [image for image, _ in pairs]
    targets = TargetReader(info, crop, pad).convert(images, paths)
    return Annotations(paths, targets, labels, classes, [advice] if few and labels.ge(0).float().mean() > 0.5 else [])


def _find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """The image and the mask of each example."""
    if not folder.is_dir():
        raise SganError(f"{folder} is not a folder.", hint=_LAYOUT)
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    except OSError as e:
        raise SganError(f"Cannot read {folder}: {e.strerror or e}.") from e
    masks = {p.stem[: -len(MASK)]: p for p in files if p.stem.endswith(MASK)}
    images = {p.stem: p for p in files if not p.stem.endswith(MASK)}
    if not masks and not images:
        raise SganError(f"{folder} has no annotated image.", hint=_LAYOUT)
    for here, there, what in ((images, masks, "mask"), (masks, images, "image")):
        for stem, path in here.items():
            if stem not in there:
                name = f"{stem}{MASK if what == 'mask' else ''}.png"
                raise SganError(f"{path} has no {what}: {folder / name} does not exist.", hint=_LAYOUT)
    return [(images[stem], masks[stem]) for stem in sorted(masks)]


def _read_mask(path: Path, size: tuple[int, int]) -> Image.Image:  # mode RGBA
    refuse_jpeg(path.read_bytes()[:3], str(path))
    mask = read_image(path)
    if mask.size != size:
        raise SganError(
            f"{path} has {mask.height}x{mask.width} pixels (height x width), but its image has {size[1]}x{size[0]}."
        )
    return mask.convert("RGBA")


def _find_classes(masks: Sequence[Image.Image], where: str) -> tuple[str, ...]:
    """The colors of all annotated pixels."""
    found: set[int] = set()
    for mask in masks:
        found.update(np.unique(color_codes(mask.convert("RGB"))[_opaque(mask)]).tolist())
    if not found:
        raise SganError(f"The masks in {where} have no annotated pixel: all are transparent.")
    if len(found) > MAX_CLASSES:
        raise SganError(
            f"The masks in {where} have {len(found)} colors, but there can be at most {MAX_CLASSES} classes.",
            hint="Save masks as PNG, with one color for each class and without smoothed edges.",
        )
    if len(found) == 1:
        raise SganError(f"All masks in {where} have only the color {color_name(found.pop())}.")
    return tuple(map(color_name, sorted(found)))


def reduce_map(
    mask: Image.Image,  # mode RGBA
    size: tuple[int, int],  # of the model
    crop: str,
    classes: tuple[str, ...],
    name: str,  # for messages
) -> np.ndarray:  # int64 [height, width]
    """Fit a mask to the model: a pixel gets the class of most of the annotated pixels within it, even if it is one."""
    height, width = size
    times = max(-(-mask.height // height), -(-mask.width // width))
    large = fit(mask, (height * times, width * times), crop, "nearest", "#00000000")
    known = _opaque(large)
    if not known.any():
        raise SganError(f"{name} has no annotated pixel: all are transparent.")
    codes = np.where(known, color_codes(large.convert("RGB")), int(classes[0][1:], 16))
    index = class_index(codes, classes, name)
    votes = [(known & (index == k)).reshape(height, times, width, times).sum((1, 3)) for k in range(len(classes))]
    return np.where(np.sum(votes, 0) > 0, np.argmax(votes, 0), UNKNOWN)


def _opaque(mask: Image.Image) -> np.ndarray:  # [H, W] bool
    return np.asarray(mask.getchannel("A")) == 255


def recorded_options(
    path: str | os.PathLike,  # of an image
    model: str,  # fingerprint
    space: LabelSpace,  # of the model
) -> tuple[int, SamplingOptions] | None:
    """The seed and the options that the metadata of an image names; None: it names no seed. Raises SganError if they
    are of another model, or not valid."""
    metadata = read_metadata(path)
    seed = metadata.get("seed", "")
    if not (seed.isascii() and seed.isdecimal()):
        return None
    if metadata.get("model") != model:
        raise SganError("It is of another model.")
    choice, read = metadata.get("class"), metadata.get
    try:
        if int(seed) > LARGEST_SEED:
            raise ValueError(seed)
        return int(seed), SamplingOptions(
            trunc=float(read("trunc", "1")),
            trunc_cutoff=int(metadata["trunc_cutoff"]) if "trunc_cutoff" in metadata else None,
            class_index=None if choice is None else _numbers(choice) if space.vectors else int(choice),
            noise_mode=read("noise_mode", "const"),  # pyright: ignore[reportArgumentType] (checked)
            precision=read("precision", "fp32"),
            translate=_numbers(metadata["translate"]) if "translate" in metadata else None,  # pyright: ignore
            rotate=float(metadata["rotate"]) if "rotate" in metadata else None,
        )
    except (ValueError, SganError):
        raise SganError("It or the settings beside it are not valid.") from None


def is_recorded(
    image: Tensor,  # uint8 [C, H, W]
    again: Tensor,  # uint8 [C, H, W], generated as its metadata says
) -> bool:
    """Whether both are the same, whatever the precision: within 2 levels in 99.9 % of the values."""
    return ((again.int() - image.int()).abs() <= 2).float().mean().item() >= 0.999


def _numbers(text: str) -> tuple[float, ...]:  # 1,2 or (1.0, 2.0)
    return tuple(float(x) for x in text.strip("()").split(","))
