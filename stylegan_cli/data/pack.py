"""Pack images of any kind into a set: one size, one form, PNGs in a zip, with labels and a record of how."""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import base_size
from ..errors import SganError
from ..progress import Progress, silent
from ..version import __version__
from .arrays import ArraySource, open_any
from .codec import MAX_PIXELS, Header, ImageError, fit, png_bytes, to_channels
from .labels import Record, classes_by_value, classes_of, read_record
from .parallel import ordered_map
from .sources import FolderSource, ZipSource, first_three
from .writer import writing

Source = FolderSource | ZipSource | ArraySource


@dataclass(frozen=True)
class PackReport:
    """What `pack` wrote and what it left out."""

    path: str
    num: int  # images written
    height: int
    width: int
    channels: int
    classes: tuple[str, ...]  # names; empty without labels
    enlarged: int  # images that were smaller than the size
    skipped: tuple[tuple[str, str], ...]  # (name, why) of files that could not be read
    warning: str | None  # where models cannot take the size


@dataclass(frozen=True)
class _Form:
    """What every image is brought to."""

    size: tuple[int, int]  # (height, width)
    crop: str
    filter: str
    channels: int
    max_pixels: int


def pack(
    src: str | os.PathLike,  # a folder (searched to the bottom), a zip, an .npz or .npy
    dest: str | os.PathLike,  # the zip to write
    *,
    size: tuple[int, int] | None = None,  # (height, width); None: all images must share one
    crop: str = "center",  # with a size: 'center' cuts the largest centered part of its shape, 'none' stretches
    filter: str = "lanczos",  # of resizing: 'lanczos' or 'box'
    labels: str | os.PathLike | None = None,  # 'folders', 'none', a JSON file; None: the source's own, if it has any
    channels: int | None = None,  # 1, 3, 4; None: 1 if all are gray, 4 if all have alpha, else 3
    workers: int | None = None,  # processes; None: one per core
    strict: bool = False,  # fail on the first file that cannot be read, instead of leaving such files out
    max_pixels: int = MAX_PIXELS,  # larger images count as unreadable
    progress: Progress = silent,
) -> PackReport:
    """Write the set; it appears whole or not at all, and is the same whatever the number of workers.

    Where alpha is dropped the image is laid on white; EXIF orientation is applied; 16 bits become 8; of an animation
    the first frame is taken. `labels` as a file is {"labels": [[name, class], ...]}, bare pairs, or {name: class}, with
    names relative to the source and classes as numbers or words.
    Raises SganError, with one sentence, for what the source, the labels or the destination do not allow.
    """
    if Path(src).resolve() == Path(dest).resolve():
        raise SganError(f"{dest} is the source itself.", hint="Choose another name for the new set.")
    source = open_any(src)
    headers, skipped = _scan(source, max_pixels, progress)
    _refuse_skipped(skipped, strict, src)
    if not headers:
        raise _nothing_left(skipped, src)
    form = _form(headers, size, crop, filter, channels, max_pixels, src)
    record, numbers, classes = _labels(source, labels, src)
    kept: list[str] = []
    work = ordered_map(functools.partial(_image, source, form), list(headers), workers)
    with writing(dest) as out, contextlib.closing(work):
        for i, (name, png) in enumerate(zip(headers, work, strict=True), 1):
            if isinstance(png, bytes):
                out.add(png)
                kept.append(name)
            else:
                skipped[name] = png
                _refuse_skipped({name: png}, strict, src)
            progress("packing", i, len(headers))
        if not kept:
            raise _nothing_left(skipped, src)
        out.finish(
            None if numbers is None else [numbers[name] for name in kept],
            _kept_attributes(record, source.names, kept),
            _made(src, form, record, skipped, classes),
        )
    return PackReport(
        str(dest),
        len(kept),
        *form.size,
        form.channels,
        classes,
        sum(_is_smaller(headers[n], form) for n in kept),
        tuple(sorted(skipped.items())),
        _warning(form.size),
    )


def _scan(source: Source, max_pixels: int, progress: Progress) -> tuple[dict[str, Header], dict[str, str]]:
    """The header of every image that has one, and why the others have none."""
    headers: dict[str, Header] = {}
    skipped: dict[str, str] = {}
    for i, name in enumerate(source.names, 1):
        try:
            headers[name] = source.header(name, max_pixels)
        except ImageError as e:
            skipped[name] = str(e)
        progress("looking", i, len(source.names))
    return headers, skipped


def _refuse_skipped(skipped: dict[str, str], strict: bool, src: Any) -> None:
    if strict and skipped:
        offenders = [f"{name} ({why})" for name, why in sorted(skipped.items())]
        raise SganError(
            f"{len(skipped)} file(s) of {src} cannot be read: {first_three(offenders)}.",
            hint="Without --strict they are left out.",
        )


def _nothing_left(skipped: dict[str, str], src: Any) -> SganError:
    offenders = [f"{name} ({why})" for name, why in sorted(skipped.items())]
    return SganError(f"None of the images of {src} can be read: {first_three(offenders)}.")


def _form(
    headers: dict[str, Header],
    size: tuple[int, int] | None,
    crop: str,
    filter: str,
    channels: int | None,
    max_pixels: int,
    src: Any,
) -> _Form:
    """Work out the size and the channels where they are not given."""
    sizes = Counter((h.height, h.width) for h in headers.values())
    if size is None:
        size = sizes.most_common(1)[0][0]
        if odd := [f"{n} ({h.width} x {h.height})" for n, h in headers.items() if (h.height, h.width) != size]:
            raise SganError(
                f"The images of {src} differ in size: most have {size[1]} x {size[0]}, but not {first_three(odd)}.",
                hint="Give the size that all shall have, such as --size 256.",
            )
    if size[0] * size[1] > max_pixels:
        raise SganError(f"A size of {size[0]}x{size[1]} is above the {max_pixels / 1e6:.3g} million pixels allowed.")
    if set(sizes) == {size}:
        crop = filter = "none"
    if channels is None:
        kinds = {h.channels for h in headers.values()}
        channels = kinds.pop() if len(kinds) == 1 else 3
    return _Form(size, crop, filter, channels, max_pixels)


def _labels(
    source: Source, labels: str | os.PathLike | None, src: Any
) -> tuple[Record, dict[str, int] | None, tuple[str, ...]]:
    """The source's record, the class number of every name, and the class names."""
    record = read_record(source.record(), str(src), len(source.names))
    if labels == "folders":
        if loose := [n for n in source.names if "/" not in n]:
            raise SganError(f"{len(loose)} image(s) of {src} lie in no sub-folder: {first_three(loose)}.")
        numbers, classes = classes_by_value([n.split("/")[0] for n in source.names])
    elif labels is None and record.labels is not None:
        hint = "--labels none drops the labels."
        numbers, classes = classes_of(record.labels, source.names, str(src), record.made.get("classes"), hint)
    elif labels is None or labels == "none":
        return record, None, ()
    else:
        given, known = _label_file(Path(labels))
        numbers, classes = classes_of(given, source.names, str(labels), known)
    return record, dict(zip(source.names, numbers.tolist(), strict=True)), classes


def _label_file(path: Path) -> tuple[dict[str, Any], list[str] | None]:
    """The label of every name, and the names of the classes where the file knows them."""
    try:
        text = path.read_bytes()
    except OSError as e:
        raise SganError(
            f"Cannot read the labels {path}: {e.strerror or e}.", hint="--labels takes folders, none, or a JSON file."
        ) from e
    record = read_record(text, str(path))
    if record.labels is None:
        raise SganError(f"{path} holds no labels.", hint='Expected {"labels": [["a.png", 0], ...]}.')
    return record.labels, record.made.get("classes")


def _image(source: Source, form: _Form, name: str) -> bytes | str:
    """The image as it goes into the set, a PNG; or why it cannot be read."""
    try:
        image = to_channels(source.image(name, form.max_pixels), form.channels)
    except ImageError as e:
        return str(e)
    if form.filter == "none":
        return png_bytes(image) if image.size == form.size[::-1] else "its size is not what its header says"
    return png_bytes(fit(image, form.size, form.crop, form.filter))


def _kept_attributes(record: Record, names: list[str], kept: list[str]) -> dict[str, list[str]]:
    """The source's attributes without those of skipped images."""
    place = {name: i for i, name in enumerate(names)}
    return {key: [values[place[name]] for name in kept] for key, values in record.attributes.items()}


def _made(src: Any, form: _Form, record: Record, skipped: dict[str, str], classes: tuple[str, ...]) -> dict[str, Any]:
    """The record of how the set was made."""
    made = {
        "source": Path(src).resolve().name,
        "version": __version__,
        "size": list(form.size),
        "crop": form.crop,
        "filter": form.filter,
        "channels": form.channels,
        "skipped": sorted(skipped),
        "classes": list(classes),
    }
    return {**made, "from": record.made} if record.made else made


def _is_smaller(header: Header, form: _Form) -> bool:
    return header.height < form.size[0] or header.width < form.size[1]


def _warning(size: tuple[int, int]) -> str | None:
    try:
        base_size(*size)
    except SganError as e:
        return f"{e} Models cannot learn from this set as it is. {e.hint}"
    return None
