"""Pack images of any kind into a dataset: PNGs of one size in a zip, with labels and provenance."""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import base_size
from ..errors import SganError, plural
from ..progress import Progress, silent
from ..version import __version__
from .arrays import ArraySource, open_any
from .codec import MAX_PIXELS, Header, ImageError, fit, png_bytes, to_channels
from .labels import DatasetJson, classes_by_value, classes_of, parse_dataset_json
from .parallel import ordered_map
from .sources import FolderSource, ZipSource, first_three
from .writer import dataset_writer

Source = FolderSource | ZipSource | ArraySource


@dataclass(frozen=True)
class PackReport:
    """What `pack` wrote and what it skipped."""

    path: str
    num: int  # number of images written
    height: int
    width: int
    channels: int
    classes: tuple[str, ...]  # names; empty without labels
    enlarged: int  # number of images that were smaller than the size
    skipped: tuple[tuple[str, str], ...]  # (name, reason) of unreadable files
    warning: str | None  # set if no model can be trained at this size


@dataclass(frozen=True)
class _Form:
    """The form that every image is converted to."""

    size: tuple[int, int]  # (height, width)
    crop: str
    filter: str
    channels: int
    max_pixels: int


def pack(
    src: str | os.PathLike,  # folder (searched recursively), zip, .npz or .npy
    dest: str | os.PathLike,  # path of the zip
    *,
    size: tuple[int, int] | None = None,  # (height, width); None: the size that all images share
    crop: str = "center",  # with a size: 'center' takes the largest centered crop of its aspect ratio, 'none' stretches
    filter: str = "lanczos",  # resizing filter: 'lanczos' or 'box'
    labels: str | os.PathLike | None = None,  # 'folders', 'none', or a JSON file; None: those of the source, if any
    channels: int | None = None,  # 1, 3 or 4; None: 1 if all are gray, 4 if all have alpha, else 3
    workers: int | None = None,  # number of processes; None: one per core
    strict: bool = False,  # fail on unreadable files instead of skipping them
    max_pixels: int = MAX_PIXELS,  # larger images count as unreadable
    progress: Progress = silent,
) -> PackReport:
    """Write a dataset atomically. Its bytes do not depend on the number of workers.

    Dropping alpha composites the image onto white; EXIF orientation is applied; 16 bits become 8; an animation gives
    its first frame. A `labels` file is {"labels": [[name, class], ...]}, bare pairs, or {name: class}, with names
    relative to the source and classes as numbers or words.
    Raises SganError if the source, the labels or the destination cannot be used.
    """
    if Path(src).resolve() == Path(dest).resolve():
        raise SganError(f"{dest} is the source itself.", hint="Choose another name for the new dataset.")
    source = open_any(src)
    headers, skipped = _scan(source, max_pixels, progress)
    if strict:
        _reject_skipped(skipped, src)
    if not headers:
        raise _nothing_readable(skipped, src)
    form = _form(headers, size, crop, filter, channels, max_pixels, src)
    dataset_json, numbers, classes = _labels(source, labels, src)
    packed: list[str] = []
    work = ordered_map(functools.partial(_image, source, form), list(headers), workers)
    with dataset_writer(dest) as out, contextlib.closing(work):
        for i, (name, png) in enumerate(zip(headers, work, strict=True), 1):
            if isinstance(png, bytes):
                out.add(png)
                packed.append(name)
            else:
                skipped[name] = png
                if strict:
                    _reject_skipped({name: png}, src)
            progress("packing", i, len(headers))
        if not packed:
            raise _nothing_readable(skipped, src)
        out.finish(
            None if numbers is None else [numbers[name] for name in packed],
            _packed_attributes(dataset_json, source.names, packed),
            _provenance(src, form, dataset_json, skipped, classes),
        )
    return PackReport(
        str(dest),
        len(packed),
        *form.size,
        form.channels,
        classes,
        sum(_is_smaller(headers[n], form) for n in packed),
        tuple(sorted(skipped.items())),
        _warning(form.size),
    )


def _scan(source: Source, max_pixels: int, progress: Progress) -> tuple[dict[str, Header], dict[str, str]]:
    """Return the headers of the readable images, and the reasons why the others are not."""
    headers: dict[str, Header] = {}
    skipped: dict[str, str] = {}
    for i, name in enumerate(source.names, 1):
        try:
            headers[name] = source.header(name, max_pixels)
        except ImageError as e:
            skipped[name] = str(e)
        progress("scanning", i, len(source.names))
    return headers, skipped


def _reject_skipped(skipped: dict[str, str], src: Any) -> None:
    if skipped:
        files = [f"{name} ({reason})" for name, reason in sorted(skipped.items())]
        raise SganError(
            f"{src} has {plural(len(skipped), 'unreadable file')}: {first_three(files)}.",
            hint="Without --strict they are skipped.",
        )


def _nothing_readable(skipped: dict[str, str], src: Any) -> SganError:
    files = [f"{name} ({reason})" for name, reason in sorted(skipped.items())]
    return SganError(f"None of the images of {src} can be read: {first_three(files)}.")


def _form(
    headers: dict[str, Header],
    size: tuple[int, int] | None,
    crop: str,
    filter: str,
    channels: int | None,
    max_pixels: int,
    src: Any,
) -> _Form:
    """Settle the size and the channels if they are None."""
    sizes = Counter((h.height, h.width) for h in headers.values())
    if size is None:
        size = sizes.most_common(1)[0][0]
        if others := [f"{n} ({h.width} x {h.height})" for n, h in headers.items() if (h.height, h.width) != size]:
            raise SganError(
                f"The images of {src} differ in size: most have {size[1]} x {size[0]}, but not {first_three(others)}.",
                hint="Resize all to one size, such as --size 256.",
            )
    if size[0] * size[1] > max_pixels:
        raise SganError(f"The size {size[0]}x{size[1]} exceeds the limit of {max_pixels / 1e6:.3g} million pixels.")
    if set(sizes) == {size}:
        crop = filter = "none"
    if channels is None:
        distinct = {h.channels for h in headers.values()}
        channels = distinct.pop() if len(distinct) == 1 else 3
    return _Form(size, crop, filter, channels, max_pixels)


def _labels(
    source: Source, labels: str | os.PathLike | None, src: Any
) -> tuple[DatasetJson, dict[str, int] | None, tuple[str, ...]]:
    """Return the source's dataset.json, the class number of every image, and the class names."""
    dataset_json = parse_dataset_json(source.dataset_json(), str(src), len(source.names))
    if labels == "folders":
        if loose := [n for n in source.names if "/" not in n]:
            raise SganError(
                f"{src} has {plural(len(loose), 'image')} outside its subfolders: {first_three(loose)}.",
                hint="--labels folders needs one subfolder per class.",
            )
        numbers, classes = classes_by_value([n.split("/")[0] for n in source.names])
    elif labels is None and dataset_json.labels is not None:
        hint = "--labels none drops the labels."
        numbers, classes = classes_of(
            dataset_json.labels, source.names, str(src), dataset_json.provenance.get("classes"), hint
        )
    elif labels is None or labels == "none":
        return dataset_json, None, ()
    else:
        file_labels, class_names = _read_label_file(Path(labels))
        numbers, classes = classes_of(file_labels, source.names, str(labels), class_names)
    return dataset_json, dict(zip(source.names, numbers.tolist(), strict=True)), classes


def _read_label_file(path: Path) -> tuple[dict[str, Any], list[str] | None]:
    """Return the label of every name, and the class names if the file has them."""
    try:
        text = path.read_bytes()
    except OSError as e:
        raise SganError(
            f"Cannot read the labels {path}: {e.strerror or e}.", hint="--labels takes folders, none, or a JSON file."
        ) from e
    dataset_json = parse_dataset_json(text, str(path))
    if dataset_json.labels is None:
        raise SganError(f"{path} has no labels.", hint='Expected {"labels": [["a.png", 0], ...]}.')
    return dataset_json.labels, dataset_json.provenance.get("classes")


def _image(source: Source, form: _Form, name: str) -> bytes | str:
    """Convert one image to a PNG; return the reason as text if it cannot be read."""
    try:
        image = to_channels(source.image(name, form.max_pixels), form.channels)
    except ImageError as e:
        return str(e)
    if form.filter == "none":
        return png_bytes(image) if image.size == form.size[::-1] else "its size does not match its header"
    return png_bytes(fit(image, form.size, form.crop, form.filter))


def _packed_attributes(dataset_json: DatasetJson, names: list[str], packed: list[str]) -> dict[str, list[str]]:
    """Return the source's attributes without those of skipped images."""
    index = {name: i for i, name in enumerate(names)}
    return {key: [values[index[name]] for name in packed] for key, values in dataset_json.attributes.items()}


def _provenance(
    src: Any, form: _Form, dataset_json: DatasetJson, skipped: dict[str, str], classes: tuple[str, ...]
) -> dict[str, Any]:
    """Describe how the dataset was made."""
    provenance = {
        "source": Path(src).resolve().name,
        "version": __version__,
        "size": list(form.size),
        "crop": form.crop,
        "filter": form.filter,
        "channels": form.channels,
        "skipped": sorted(skipped),
        "classes": list(classes),
    }
    return {**provenance, "from": dataset_json.provenance} if dataset_json.provenance else provenance


def _is_smaller(header: Header, form: _Form) -> bool:
    return header.height < form.size[0] or header.width < form.size[1]


def _warning(size: tuple[int, int]) -> str | None:
    try:
        base_size(*size)
    except SganError as e:
        return f"{e} No model can be trained on this dataset at its stored size. {e.hint}"
    return None
