"""The bodies of the page's calls, checked."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import MisuseError, suggest
from ..sampling import checks
from ..sampling.generate import SamplingOptions

MAX_IMAGES, MAX_SIDE, MAX_STEPS, MAX_FRAMES, MAX_KEYS, MAX_POINTS, MAX_EDITS = 64, 8, 2000, 600, 24, 32, 64
MAX_FAVORITES = 10_000
Item = int | str  # a seed, or the name of a file of latents in the output folder
T = TypeVar("T")
_FIELDS = {"class": "class_index", "noise": "noise_mode"}  # the page's names


def parse(
    kind: type[T],  # a dataclass below
    body: Any,  # JSON, or an instance
) -> T:
    """Raises MisuseError if the body is not an object, or a field is unknown, missing or invalid."""
    if isinstance(body, kind):
        return body
    if not isinstance(body, dict):
        raise MisuseError("The body of a call must be a JSON object.")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    named: dict[str, Any] = {_FIELDS.get(name, str(name)): value for name, value in body.items()}
    for name in named:
        if name not in fields:
            raise MisuseError(f"There is no field {name[:40]!r}.", hint=suggest(name[:40], fields) or None)
    required = [f.name for f in fields.values() if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in required if name not in named]:
        raise MisuseError(f"The field {missing[0]!r} is missing.")
    return kind(**named)


def _item(name: str, value: Any) -> Any:
    if isinstance(value, str) and len(value) <= 200:
        return value
    return checks.integer(0, checks.LARGEST_SEED)(name, value)


def _items(most: int) -> checks.Check:
    return checks.list_of(_item, "[0, 1, 'edit-0001.npz']", 1, most)


_LAYERS = checks.list_of(checks.integer(0, 1000), "[0, 1, 2]", 1, 200)
_NAME = checks.string()


def _job(name: str, value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[A-Za-z0-9-]{1,40}", value):
        return value
    raise MisuseError(f"{name} must be a short word of letters, digits and dashes.")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How images are made, and the size that they are shown at."""

    trunc: float = 1.0  # of seeds; what files contain is shown as it is
    trunc_cutoff: int | None = None
    class_index: int | None = None
    noise_mode: str = "const"
    translate: tuple[float, float] | None = None
    rotate: float | None = None
    size: int | None = None  # longest side in pixels; larger images are reduced, to no less
    snapshot: str | None = None  # of the run

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            trunc=checks.number(-4, 4),
            trunc_cutoff=checks.integer(0, 1000),
            class_index=checks.integer(0, 2**31),
            noise_mode=checks.choice("const", "random", "none"),
            translate=checks.list_of(checks.number(-4, 4), "[0.1, 0]", 2, 2),
            rotate=checks.number(-3600, 3600),
            size=checks.integer(1, 8192),
            snapshot=_NAME,
        )

    @property
    def sampling(self) -> SamplingOptions:
        return SamplingOptions(
            self.trunc,
            self.trunc_cutoff,
            self.class_index,
            self.noise_mode,  # pyright: ignore[reportArgumentType]
            translate=self.translate and (self.translate[0], self.translate[1]),
            rotate=self.rotate,
        )


@dataclass(frozen=True, kw_only=True)
class ImagesCall(Shown):
    items: list[Item]

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(self, items=_items(MAX_IMAGES))


@dataclass(frozen=True)
class Donor:
    """An image whose latents some layers take."""

    item: Item
    layers: list[int]  # indices of w

    def __post_init__(self) -> None:
        checks.check_fields(self, item=_item, layers=_LAYERS)


@dataclass(frozen=True, kw_only=True)
class MixCall(Shown):
    base: Item
    donors: list[Donor] = dataclasses.field(default_factory=list)
    blend: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        donors = checks.list_of(lambda name, value: parse(Donor, value), "[{'item': 1, 'layers': [0]}]", 0, MAX_KEYS)
        checks.check_fields(self, base=_item, donors=donors, blend=checks.number(0, 1))


@dataclass(frozen=True, kw_only=True)
class GridCall(Shown):
    rows: list[Item]
    cols: list[Item]
    layers: list[int]
    blend: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = _items(MAX_SIDE)
        checks.check_fields(self, rows=sides, cols=sides, layers=_LAYERS, blend=checks.number(0, 1))


@dataclass(frozen=True)
class Move:
    """A step along a direction."""

    file: str  # of directions
    index: int
    strength: float  # in standard deviations

    def __post_init__(self) -> None:
        checks.check_fields(self, file=_NAME, index=checks.integer(0, 10_000), strength=checks.number(-100, 100))


@dataclass(frozen=True, kw_only=True)
class EditCall(Shown):
    item: Item
    edits: list[Move] = dataclasses.field(default_factory=list)
    layers: list[int] | None = None  # None: those of the file

    def __post_init__(self) -> None:
        super().__post_init__()
        example = "[{'file': 'directions-pca.npz', 'index': 0, 'strength': 1}]"
        edits = checks.list_of(lambda name, value: parse(Move, value), example, 0, MAX_EDITS)
        checks.check_fields(self, item=_item, edits=edits, layers=_LAYERS)


@dataclass(frozen=True, kw_only=True)
class WalkCall(Shown):
    keys: list[Item]
    kind: str = "spline"
    frames: int = 45  # from one key image to the next
    loop: bool = True
    index: int = 0  # of the frame

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(
            self,
            keys=_items(MAX_KEYS),
            kind=checks.choice("spline", "linear", "slerp"),
            frames=checks.integer(1, MAX_FRAMES),
            loop=checks.flag(),
            index=checks.integer(0, MAX_KEYS * MAX_FRAMES),
        )

    @property
    def sampling(self) -> SamplingOptions:
        """In a video, a view is a motion, and noise does not change."""
        return dataclasses.replace(super().sampling, noise_mode="const", translate=None, rotate=None)


@dataclass(frozen=True, kw_only=True)
class ExportCall(WalkCall):
    job: str
    fps: int = 30
    format: str = "webp"

    def __post_init__(self) -> None:
        super().__post_init__()
        formats = checks.choice("webp", "gif", "mp4")
        checks.check_fields(self, job=_job, fps=checks.integer(1, 60), format=formats)


@dataclass(frozen=True, kw_only=True)
class FindCall:
    job: str
    method: str = "pca"
    count: int | None = None  # None: 10, or as many as there are labels or codes

    def __post_init__(self) -> None:
        method = checks.choice("pca", "sefa", "codes", "labels")
        checks.check_fields(self, job=_job, method=method, count=checks.integer(1, 40))


@dataclass(frozen=True, kw_only=True)
class PhotoCall:
    photo: str

    def __post_init__(self) -> None:
        checks.check_fields(self, photo=_NAME)


@dataclass(frozen=True, kw_only=True)
class ProjectCall(PhotoCall):
    job: str
    steps: int = 400
    space: str = "w+"
    init: str | None = None  # 'encoder'

    def __post_init__(self) -> None:
        super().__post_init__()
        space, init = checks.choice("w", "w+"), checks.choice("encoder")
        checks.check_fields(self, job=_job, steps=checks.integer(1, MAX_STEPS), space=space, init=init)


@dataclass(frozen=True, kw_only=True)
class DragCall(Shown):
    job: str
    item: Item
    points: list[list[float]]  # x, y, and where to, in pixels
    mask: str | None = None  # base64 of H x W bytes: 1 may move, 0 stays
    steps: int = 300

    def __post_init__(self) -> None:
        super().__post_init__()
        point = checks.list_of(checks.number(-1e5, 1e5), "[4, 4, 8, 4]", 4, 4)
        points = checks.list_of(point, "[[4, 4, 8, 4]]", 1, MAX_POINTS)
        checks.check_fields(self, job=_job, item=_item, points=points, mask=_NAME, steps=checks.integer(1, MAX_STEPS))


@dataclass(frozen=True, kw_only=True)
class FavoritesCall:
    items: list[Item]

    def __post_init__(self) -> None:
        checks.check_fields(self, items=checks.list_of(_item, "[0, 1]", 0, MAX_FAVORITES))


@dataclass(frozen=True, kw_only=True)
class StopCall:
    job: str

    def __post_init__(self) -> None:
        checks.check_fields(self, job=_job)
