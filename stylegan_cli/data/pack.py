"""Pack images of any kind into a dataset: PNGs of one size in a zip, with labels and provenance."""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import base_size
from ..errors import MisuseError, SganError, plural, printable
from ..progress import Progress, silent
from ..version import __version__
from .checks import OPAQUE, is_opaque, read_dataset_json, usable_attributes
from .codec import MAX_PIXELS, Header, ImageError, fit, padding, png_bytes, to_channels
from .labels import DatasetJson, classes_by_value, labels_of, parse_dataset_json
from .listing import first_three, unexpected, with_reasons
from .opening import open_source
from .parallel import ordered_map
from .sources import Source
from .writer import DatasetWriter, dataset_writer


@dataclass(frozen=True)
class PackReport:
    """What `pack` wrote and what it skipped."""

    path: str
    num: int  # number of images written
    height: int
    width: int
    channels: int
    classes: tuple[str, ...]  # names, also of label values; empty without labels
    enlarged: int  # number of images that were smaller than the size
    skipped: tuple[tuple[str, str], ...]  # (name, reason) of all files that were not taken
    warning: str | None  # set if no model can be trained at this size
    notes: tuple[str, ...] = ()  # what else the user should know
    label_unit: str = "class"  # or "label value"


@dataclass(frozen=True)
class _Form:
    """The form that every image is converted to."""

    size: tuple[int, int]  # (height, width)
    crop: str
    pad: str
    filter: str
    channels: int
    max_pixels: int


def pack(
    src: str | os.PathLike,  # folder (searched recursively), zip or another source, see `open_source`
    dest: str | os.PathLike,  # path of the zip
    *,
    size: tuple[int, int] | None = None,  # (height, width); None: the size that all images share
    crop: str = "center",  # with a size: 'center' (largest centered crop of that aspect ratio), 'pad', 'none' (stretch)
    pad: str | None = None,  # with 'pad': a color, or 'blur' for a blurred enlargement of the image; None: black
    filter: str = "lanczos",  # resizing filter: 'lanczos' or 'box'
    labels: str | os.PathLike | None = None,  # 'folders', 'none', or a JSON file; None: those of the source, if any
    channels: int | None = None,  # 1, 3 or 4; None: 1 if all are gray, 4 if all have alpha, else 3
    workers: int | None = None,  # number of processes; None: one per core
    strict: bool = False,  # fail if a file that is not hidden is not taken, instead of skipping it
    max_pixels: int = MAX_PIXELS,  # larger images count as unreadable
    progress: Progress = silent,
) -> PackReport:
    """Write a dataset atomically. Its bytes do not depend on the number of workers.

    Colors become sRGB; dropping alpha composites the image onto white; EXIF orientation is applied; 16 bits become 8;
    an animation gives its first frame. Only pixels are written, no metadata. A `labels` file is
    {"labels": [[name, class], ...]}, bare pairs, or {name: class}, with names relative to the source and classes as
    numbers or words, or as lists of numbers or words: see `labels_of`. Every file is either packed or listed in the
    report, except for the labels that were used.
    Raises SganError if the source, the labels or the destination cannot be used.
    """
    if Path(src).resolve() == Path(dest).resolve():
        raise MisuseError(f"{dest} is the source itself.", hint="Choose another name for the new dataset.")
    pad = padding(crop, pad)
    source = open_source(src, size)
    dataset_json, notes = _dataset_json(source, labels, src)
    headers, skipped = _scan(source, max_pixels, progress)
    skipped |= source.listing.ignored
    if strict:
        _reject_skipped(skipped, src)
    if not headers:
        raise _nothing_readable(skipped, src)
    form = _form(headers, size, crop, pad, filter, channels, max_pixels, src)
    label_of, classes, unused = _labels(source, form, headers, skipped, dataset_json, labels, src)
    with dataset_writer(dest) as out:
        opaque = _pack_images(source, form, headers, skipped, out, workers, src if strict else None, progress)
        if not headers:
            raise _nothing_readable(skipped, src)
        values = None if label_of is None else [label_of[name] for name in headers]
        out.finish(
            values,
            _packed_attributes(dataset_json, source.names, headers),
            _provenance(src, form, dataset_json, skipped, classes),
        )
    return PackReport(
        str(dest),
        len(headers),
        *form.size,
        form.channels,
        classes,
        sum(_is_smaller(header, form) for header in headers.values()),
        tuple((printable(name), reason) for name, reason in sorted(skipped.items())),
        _warning(form.size),
        (*notes, *unused, *_notes(source, dataset_json, opaque and channels is None and form.channels == 4)),
        "label value" if values and isinstance(values[0], list) else "class",
    )


def _dataset_json(source: Source, labels: Any, src: Any) -> tuple[DatasetJson, list[str]]:
    """Return dataset.json; an empty one and a note if it is unusable and `labels` replaces it."""
    if labels is None:
        source.listing.check_labels(str(src))
    dataset_json, problem = read_dataset_json(source, str(src))
    if problem and labels is None:
        raise SganError(str(problem), hint="--labels none drops the labels.")
    return dataset_json, [str(problem)] if problem else []


def _pack_images(
    source: Source,
    form: _Form,
    headers: dict[str, Header],  # of the images; those that cannot be decoded are removed
    skipped: dict[str, str],  # where they are added
    out: DatasetWriter,
    workers: int | None,
    strict_src: Any,  # source to name in the error if an image cannot be decoded; None: it is skipped
    progress: Progress,
) -> bool:
    """Write all images, and return whether all are opaque."""
    names, opaque = list(headers), True
    with contextlib.closing(ordered_map(functools.partial(_image, source, form), names, workers)) as work:
        for i, (name, (png, is_opaque)) in enumerate(zip(names, work, strict=True), 1):
            if isinstance(png, bytes):
                out.add(png)
                opaque &= is_opaque
            else:
                skipped[name] = png
                del headers[name]
                if strict_src is not None:
                    _reject_skipped({name: png}, strict_src)
            progress("packing", i, len(names))
    return opaque


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
    if files := with_reasons(skipped):
        raise SganError(
            f"{src} has {plural(len(files), 'file')} that cannot be read as images: {first_three(files)}.",
            hint="Without --strict they are skipped.",
        )


def _nothing_readable(skipped: dict[str, str], src: Any) -> SganError:
    return SganError(f"None of the images of {src} can be read: {first_three(with_reasons(skipped))}.")


def _form(
    headers: dict[str, Header],
    size: tuple[int, int] | None,
    crop: str,
    pad: str,
    filter: str,
    channels: int | None,
    max_pixels: int,
    src: Any,
) -> _Form:
    """Settle the size and the channels if they are None."""
    sizes = Counter((h.height, h.width) for h in headers.values())
    if size is None:
        size = sizes.most_common(1)[0][0]
        if others := [f"{n} ({h.size_text})" for n, h in headers.items() if (h.height, h.width) != size]:
            raise SganError(
                f"The images of {src} differ in size: most have {size[0]}x{size[1]} (height x width), but not "
                f"{first_three(others)}.",
                hint="Resize all to one size, such as --size 256.",
            )
    if size[0] * size[1] > MAX_PIXELS:
        raise SganError(
            f"{size[0]}x{size[1]} pixels (height x width) exceed the limit of {MAX_PIXELS / 1e6:.3g} million.",
            hint="Choose a smaller --size.",
        )
    if set(sizes) == {size}:
        crop = filter = "none"
    if channels is None:
        distinct = {h.channels for h in headers.values()}
        channels = distinct.pop() if len(distinct) == 1 else 3
    return _Form(size, crop, pad, filter, channels, max_pixels)


def _labels(
    source: Source,
    form: _Form,
    headers: dict[str, Header],  # of the images to pack; those that cannot be decoded and have no label are removed
    skipped: dict[str, str],  # where they are added
    dataset_json: DatasetJson,
    labels: str | os.PathLike | None,
    src: Any,
) -> tuple[dict[str, Any] | None, tuple[str, ...], list[str]]:
    """Return the label of every image, the names of the classes or of the numbers of a label, and notes."""
    notes = []

    def drop_unreadable(names: list[str]) -> list[str]:
        """Remove those of the images that cannot be decoded, and return the others."""
        results = {name: _image(source, form, name)[0] for name in names}
        for name, reason in results.items():
            if isinstance(reason, str):
                skipped[name] = reason
                del headers[name]
        return [name for name in names if name in headers]

    if labels == "folders":
        if loose := drop_unreadable([n for n in headers if "/" not in n]):
            raise SganError(
                f"{src} has {plural(len(loose), 'image')} outside its subfolders: {first_three(loose)}.",
                hint="--labels folders needs one subfolder per class.",
            )
        result = classes_by_value(_class_folders(list(headers)))
    elif labels == "none" or labels is None and dataset_json.labels is None:
        return None, (), notes
    else:
        content = dataset_json if labels is None else _read_label_file(Path(labels), source.names)
        where = src if labels is None else labels
        known, hint = content.labels or {}, "--labels none drops the labels." if labels is None else None
        drop_unreadable([n for n in headers if known.get(n) is None])
        result = labels_of(content, list(headers), str(where), hint)
        if extra := list(known.keys() - set(source.names)):
            notes = [f"{where} has labels for {plural(len(extra), 'missing file')}: {first_three(sorted(extra))}."]
    return dict(zip(headers, result.values.tolist(), strict=True)), result.names, notes


def _class_folders(names: list[str]) -> list[str]:
    """Return the top folder of every image, or the one below it if all share the top one and have another."""
    parts = [n.split("/") for n in names]
    below = len({p[0] for p in parts}) == 1 and all(len(p) > 2 for p in parts)
    return [p[1 if below else 0] for p in parts]


def _read_label_file(path: Path, names: list[str]) -> DatasetJson:
    """Read labels from a JSON file."""
    try:
        text = path.read_bytes()
    except OSError as e:
        raise SganError(
            f"Cannot read the labels {path}: {e.strerror or e}.", hint="--labels takes folders, none, or a JSON file."
        ) from e
    dataset_json = parse_dataset_json(text, str(path), names=names)
    if dataset_json.labels is None:
        raise SganError(f"{path} has no labels.", hint='Expected {"labels": [["a.png", 0], ...]}.')
    return dataset_json


def _image(source: Source, form: _Form, name: str) -> tuple[bytes | str, bool]:
    """Convert one image to a PNG; return the reason as text if it cannot be read. Also return whether it is opaque."""
    try:
        image = to_channels(source.image(name, form.max_pixels), form.channels)
    except ImageError as e:
        return str(e), False
    if form.filter != "none":
        image = fit(image, form.size, form.crop, form.filter, form.pad)
    elif image.size != form.size[::-1]:
        return "its size does not match its header", False
    return png_bytes(image), is_opaque(image)


def _notes(source: Source, dataset_json: DatasetJson, opaque: bool) -> Iterator[str]:
    """Say what is unusual about the dataset."""
    if opaque:
        yield OPAQUE
    usable = usable_attributes(dataset_json, len(source.names))
    if lost := [name for name in dataset_json.attributes if name not in usable]:
        yield f"Attributes without exactly one value for each image are omitted: {first_three(lost)}."


def _packed_attributes(dataset_json: DatasetJson, names: list[str], packed: Iterable[str]) -> dict[str, list[str]]:
    """Return the source's attributes without those of skipped images."""
    index = {name: i for i, name in enumerate(names)}
    usable = usable_attributes(dataset_json, len(names))
    return {key: [values[index[name]] for name in packed] for key, values in usable.items()}


def _provenance(
    src: Any, form: _Form, dataset_json: DatasetJson, skipped: dict[str, str], classes: tuple[str, ...]
) -> dict[str, Any]:
    """Describe how the dataset was made."""
    provenance = {
        "source": printable(Path(src).resolve().name),
        "version": __version__,
        "size": list(form.size),
        "crop": form.crop,
        "filter": form.filter,
        **({"pad": form.pad} if form.crop == "pad" else {}),
        "channels": form.channels,
        "skipped": list(map(printable, unexpected(skipped))),
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
