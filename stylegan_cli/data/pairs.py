"""Pairs of images: a dataset, and a second source with images of another kind, or class maps, of the same names."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..errors import SganError, plural
from ..progress import Progress, silent
from .checks import check_each
from .codec import MAX_PIXELS, Header, fit, to_channels
from .dataset import Dataset, open_dataset
from .listing import first_three
from .sources import Source

if TYPE_CHECKING:
    from torch import Tensor

MAX_CLASSES = 64  # of a class map
_JPEG = b"\xff\xd8\xff"
_LOSSLESS = "Save class maps as PNG, with one color for each class and without smoothed edges."


class PairedDataset:
    """A dataset whose images have further channels: those of the other image of the same name."""

    def __init__(
        self,
        dataset: Dataset,
        other: Dataset,  # with the same names, except for folders and extensions, and the same size
    ):
        """Raises SganError if the names do not match."""
        self.dataset, self.other, self.spec = dataset, other, dataset.spec
        names, other_names = (_by_stem(d) for d in (dataset, other))
        for here, there, d, e in ((names, other_names, dataset, other), (other_names, names, other, dataset)):
            if alone := [d.names[here[stem]] for stem in here if stem not in there]:
                raise SganError(
                    f"{e.spec.path} has no image of the same name for {plural(len(alone), 'image')} of "
                    f"{d.spec.path}: {first_three(alone)}.",
                    hint="Give both images of a pair the same name. `sgan data pack` numbers images: use it for both "
                    "folders or for none.",
                )
        self._index = np.array([other_names[stem] for stem in names], np.int64)

    def __len__(self) -> int:
        return len(self.dataset)

    def images(
        self,
        indices: Sequence[int] | np.ndarray | Tensor,  # [N]
    ) -> Tensor:
        """Return both images of each pair, uint8 [N, C + other C, H, W]."""
        import torch

        index = np.asarray(indices, np.int64).reshape(-1)
        return torch.cat([self.dataset.images(index), self.other.images(self._index[index])], 1)

    def labels(
        self,
        indices: Sequence[int] | np.ndarray | Tensor,  # [N]
    ) -> Tensor:
        return self.dataset.labels(indices)


class ClassMaps(Source):
    """Class maps as gray images, whose level is the index of the class. Each class is a color."""

    def __init__(
        self,
        source: Source,
        size: tuple[int, int],  # (height, width) to read at: pixels are chosen, not averaged
        classes: Sequence[str] | None = None,  # colors of the classes, sorted; None: those that occur
        progress: Progress = silent,
    ):
        """Raises SganError if there is only one class, or more than MAX_CLASSES."""
        self.path, self.listing, self.source, self.size = source.path, source.listing, source, size
        self.classes = tuple(classes or self._find_classes(progress))
        # Everything that is not about pixels is that of the files.
        self.read, self.head, self.tail, self.checksum = source.read, source.head, source.tail, source.checksum

    def header(self, name: str, max_pixels: int) -> Header:
        header = self.source.header(name, max_pixels)
        if header.height * self.size[1] != header.width * self.size[0]:
            size = f"{self.size[0]}x{self.size[1]}"
            raise SganError(
                f"{name} in {self.path} is {header.size_text} (height x width), which is not the aspect ratio of "
                f"{size}.",
                hint="Crop class maps like their images, and do not average their colors.",
            )
        return Header(*self.size, 1)

    def image(self, name: str, max_pixels: int) -> Image.Image:
        codes = self._codes(name, max_pixels)
        return Image.fromarray(class_index(codes, self.classes, f"{name} in {self.path}"))

    def _codes(self, name: str, max_pixels: int) -> np.ndarray:
        refuse_jpeg(self.source.head(name), f"{name} in {self.path}")
        return color_codes(fit(self.source.image(name, max_pixels), self.size, "none", "nearest"))

    def _find_classes(self, progress: Progress) -> Iterable[str]:
        found: set[int] = set()

        def look(name: str) -> None:
            found.update(np.unique(self._codes(name, MAX_PIXELS)).tolist())

        check_each(self.names, look, str(self.path), progress)
        if len(found) > MAX_CLASSES:
            raise SganError(
                f"The class maps in {self.path} have {len(found)} colors, but there can be at most {MAX_CLASSES} "
                f"classes.",
                hint=_LOSSLESS,
            )
        if len(found) == 1:
            raise SganError(f"All class maps in {self.path} have only the color {color_name(found.pop())}.")
        return map(color_name, sorted(found))


def open_pairs(
    dataset: Dataset,
    path: str,  # of the second source
    class_maps: bool = False,  # whether it contains class maps rather than images
    classes: Sequence[str] | None = None,  # of class maps, see `ClassMaps`
    progress: Progress = silent,
) -> tuple[PairedDataset, tuple[str, ...]]:  # and the classes; empty without class maps
    """Open a second source at the size of a dataset. Raises SganError if it cannot be read at that size, or names do
    not match."""
    size, found = (dataset.spec.height, dataset.spec.width), []

    def convert(source: Source) -> Source:
        maps = ClassMaps(source, size, classes, progress)
        found.extend(maps.classes)
        return maps

    other = open_dataset(path, size=size, convert=convert if class_maps else None, progress=progress)
    return PairedDataset(dataset, other), tuple(found)


def refuse_jpeg(
    head: bytes,  # the first bytes of a class map
    name: str,  # for the message
) -> None:
    """Raise SganError if a class map is a JPEG."""
    if head.startswith(_JPEG):
        raise SganError(f"{name} is a JPEG, whose edges have other colors than its classes.", hint=_LOSSLESS)


def color_codes(
    image: Image.Image,  # mode L, RGB or RGBA
) -> np.ndarray:  # int32 [H, W], 0xrrggbb
    rgb = np.asarray(to_channels(image, 3)).astype(np.int32)
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def color_name(
    code: int,  # 0xrrggbb
) -> str:  # #rrggbb
    return f"#{code:06x}"


def class_index(
    codes: np.ndarray,  # int32 [H, W], see `color_codes`
    classes: Sequence[str],  # their colors, sorted
    name: str,  # of the image, for the message
) -> np.ndarray:  # uint8 [H, W]
    """The index of the class of each pixel. Raises SganError if a color is not a class."""
    known = _codes_of(tuple(classes))
    index = np.searchsorted(known, codes).clip(max=len(known) - 1)
    if (unknown := codes[known[index] != codes]).size:
        raise SganError(
            f"{name} has the color {color_name(int(unknown[0]))}, which is not the color of a class.",
            hint=f"The classes are {', '.join(classes)}.",
        )
    return index.astype(np.uint8)


@functools.lru_cache(8)
def _codes_of(classes: tuple[str, ...]) -> np.ndarray:
    return np.array([int(color[1:], 16) for color in classes], np.int32)


def _by_stem(dataset: Dataset) -> dict[str, int]:
    """The index of each image by its name without folders and extension, or by its path if names repeat."""
    paths = [posixpath.splitext(name)[0] for name in dataset.names]
    names = [posixpath.basename(path) for path in paths]
    unique = names if len(set(names)) == len(names) else paths
    return {name: i for i, name in enumerate(unique)}
