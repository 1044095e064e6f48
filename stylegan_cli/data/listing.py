"""What the files of a folder or a zip are: images, the labels, or not taken, with the reason."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import SganError, printable
from .formats import CONTAINER_SNIFF, NOT_AN_IMAGE, SUFFIXES, container_of, format_of, kind_of

DATASET_JSON = "dataset.json"
HIDDEN = "hidden file"
SAME_IMAGES = "another size of the same images"
EXPECTED = (HIDDEN, SAME_IMAGES)  # reasons not to take a file that are no fault
MISPLACED = "labels that do not belong to all images"

_SYSTEM = ("__macosx", "thumbs.db", "desktop.ini")  # of macOS and Windows, hidden there; in lower case


@dataclass(frozen=True)
class Listing:
    """The files of a source, each in one place. Names are relative to it, with '/'."""

    images: list[str]  # sorted
    ignored: dict[str, str]  # name -> why the file is not taken
    labels: str | None  # the dataset.json that is used: at the top, or in the only top folder
    misplaced: list[str]  # files of that name elsewhere; also ignored

    @property
    def top(self) -> str:
        """What the names in dataset.json are relative to: '' or 'folder/'."""
        return "" if self.labels is None else self.labels[: -len(DATASET_JSON)]

    def check_labels(self, where: str) -> None:
        """Raise SganError if a dataset.json stands where it does not apply to all images."""
        if self.misplaced:
            raise SganError(
                f"{where} has a {DATASET_JSON} that does not belong to all images: {first_three(self.misplaced)}.",
                hint=f"Use the folder of that file, or move or rename it; {DATASET_JSON} belongs at the top.",
            )


def list_files(
    names: Iterable[str],  # of all files
    head: Callable[[str], bytes],  # reads the first bytes of a file; raises OSError
    ignored: dict[str, str],  # entries that cannot be read at all, with the reason
) -> Listing:
    """Sort out files by name and content."""
    images, found, ignored = [], [], dict(ignored)
    for name in sorted(names):
        parts = name.split("/")
        if any(part.startswith(".") and part != ".." or part.lower() in _SYSTEM for part in parts):
            ignored[name] = HIDDEN
        elif parts[-1] == DATASET_JSON:
            found.append(name)
        elif name.lower().endswith(SUFFIXES):
            images.append(name)
        elif reason := _why_no_image(name, head):
            ignored[name] = reason
        else:
            images.append(name)
    tops = {name.split("/")[0] if "/" in name else "" for name in images}
    allowed = [DATASET_JSON, *(f"{top}/{DATASET_JSON}" for top in tops if top and len(tops) == 1)]
    labels = next((name for name in allowed if name in found), None)
    misplaced = [name for name in found if name != labels]
    return Listing(images, ignored | dict.fromkeys(misplaced, MISPLACED), labels, misplaced)


def walk(
    root: Path,
) -> tuple[list[str], dict[str, str]]:
    """List all files below a folder, and why other entries are not files. Follows links, but never in a circle."""
    names: list[str] = []
    others: dict[str, str] = {}
    folders = [("", frozenset({_identity(root)}))]  # with the folders above, to notice circles
    while folders:
        prefix, above = folders.pop()
        try:
            entries = list(os.scandir(root / prefix))
        except OSError as e:
            if not prefix:
                raise SganError(f"Cannot read {root}: {e.strerror or e}.") from e
            others[prefix] = f"the folder cannot be read ({e.strerror or e})"
            continue
        for entry in entries:
            name = prefix + entry.name
            try:
                if entry.is_dir():
                    identity = _identity(entry.path)
                    if identity in above:
                        others[name] = "a link to a folder that it is in"
                    else:
                        folders.append((f"{name}/", above | {identity}))
                elif entry.is_file():
                    names.append(name)
                else:
                    others[name] = "not a regular file" if os.path.exists(entry.path) else "a link to nothing"
            except OSError as e:  # links that lead to each other, or a folder without permission
                others[name] = e.strerror or str(e)
    return names, others


def unexpected(
    skipped: dict[str, str],  # name -> reason
) -> dict[str, str]:
    """The files, sorted by name, whose reason is a fault."""
    return {name: reason for name, reason in sorted(skipped.items()) if reason not in EXPECTED}


def with_reasons(
    skipped: dict[str, str],  # name -> reason
) -> list[str]:
    """Format `unexpected` files as 'name (reason)'."""
    return [f"{name} ({reason})" for name, reason in unexpected(skipped).items()]


def first_three(
    names: list[str],
) -> str:
    """Format names as 'a, b, c and 5 more'."""
    return ", ".join(map(printable, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def normalized(
    name: str,
) -> str:
    """Write the name of a file in a zip or in dataset.json as 'folder/file'. It may begin with '../'."""
    return posixpath.normpath(name.replace("\\", "/")).lstrip("/")


def duplicates(
    names: Iterable[str],
) -> list[str]:
    """Return the names that occur more than once."""
    seen: set[str] = set()
    return list(dict.fromkeys(n for n in names if n in seen or seen.add(n)))


def _why_no_image(name: str, head: Callable[[str], bytes]) -> str | None:
    try:
        start = head(name)[:CONTAINER_SNIFF]
    except OSError as e:
        return e.strerror or str(e)
    if not start:
        return "the file is empty"
    if format_of(start):
        return None
    kind, is_archive = kind_of(start) or ("", False)
    return container_of(name, start) or (f"{kind}, which is not unpacked" if is_archive else NOT_AN_IMAGE)


def _identity(folder: str | Path) -> tuple[int, int]:
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino
