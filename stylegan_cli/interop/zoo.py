"""Public models by name: the table of their addresses and licenses, and the places of their copies in the cache.

The table, zoo.json, names for each model the page that its address is from. It has a hash only where the model's
publisher shows one, or where independent public records of the file agree.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .. import cache
from ..errors import SganError
from ..files import suggest_path

_LIST = "`sgan model list` lists all."
_MIN_PART = 3  # letters of a part of a name that is suggested


@dataclass(frozen=True)
class PublicModel:
    """A model that its authors offer for download."""

    name: str
    shows: str  # what its images show, and the dataset
    resolution: int  # pixels of a side
    family: str
    license: str
    commercial: bool | None  # whether the license allows commercial use; None: not known
    url: str  # of the file, or of a page that offers it
    source: str  # the page that names the address and the license
    sha256: str = ""  # empty: not published

    @property
    def file(self) -> str:
        """The name of the download in the cache."""
        suffix = Path(urlsplit(self.url).path).suffix
        return self.name + (suffix if suffix in (".pkl", ".pt", ".pth", ".safetensors") else ".pkl")

    @property
    def text(self) -> str:
        """Everything that a search looks at, in lower case."""
        return " ".join(str(value) for value in dataclasses.astuple(self)[:5]).lower()


@functools.cache
def public_models() -> dict[str, PublicModel]:
    """All public models of the table by their names."""
    table = json.loads(Path(__file__).with_name("zoo.json").read_text(encoding="utf-8"))
    terms = {key: {"license": t["name"], "commercial": t["commercial"]} for key, t in table["licenses"].items()}
    return {row["name"]: PublicModel(**{**row, **terms[row["license"]]}) for row in table["models"]}


def search_public(
    words: tuple[str, ...],  # parts of names, families, contents, licenses, or resolutions such as 1024
) -> list[PublicModel]:
    """The public models that all words fit. Raises SganError if there are none."""
    found = [m for m in public_models().values() if all(word.lower() in m.text for word in words)]
    if not found:
        raise SganError(f"No public model fits {' '.join(words)!r}.", hint=f"{_near(' '.join(words))}{_LIST}")
    return found


def find_public(
    name: str,
) -> PublicModel:
    """Raises SganError with the nearest names if there is no such model."""
    if model := public_models().get(name):
        return model
    raise SganError(f"There is no public model {name!r}.", hint=f"{_near(name)}{_LIST}")


def converted(
    model: PublicModel,
) -> Path | None:
    """The snapshot in the cache that it was converted to."""
    return next((path for path in snapshot_places(model) if path.is_file()), None)


def snapshot_places(model: PublicModel) -> list[Path]:
    """Where its snapshot may be; the last one is where it is written."""
    return [place / f"{model.name}.safetensors" for place in cache.places("models")]


def locate_public(
    name: str,  # not the path of a file or folder
) -> Path | None:
    """The snapshot of a public model in the cache; None if this is not a name but a path.

    Raises SganError if the model is not in the cache, or if the name is not known and similar to a known one.
    """
    if model := public_models().get(name):
        if path := converted(model):
            return path
        raise SganError(f"The public model {name} is not in the cache.", hint=f"Get it: sgan model get {name}")
    if re.fullmatch(r"[\w-]+", name) and not suggest_path(Path(name)) and (near := _near(name)):
        raise SganError(f"{name} is neither a file nor a public model.", hint=f"{near}{_LIST}")
    return None


def _near(name: str) -> str:
    """Suggests up to three names that contain this one, or resemble it."""
    name, known = name.lower(), public_models()
    parts = [other for other in known if len(name) >= _MIN_PART and name in other]
    names = list(dict.fromkeys([*parts, *difflib.get_close_matches(name, known, 3)]))[:3]
    return f"Did you mean {' or '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}? " if names else ""
