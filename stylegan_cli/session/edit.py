"""Directions in the latent space: found, shown, followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import SganError
from ..inversion.attributes import find_from_images, find_from_table
from ..inversion.directions import Directions, load_directions, newest_directions
from ..inversion.editing import apply_edits, pair_edits, render_before_after, render_strip, save_edited
from ..inversion.factorize import find_unlabeled
from ..inversion.seed_labels import read_table
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import SamplingOptions
from ..sampling.latent_files import Latents, filename_part
from ..sampling.mixing import style_indices
from ..snapshot import open_training_set
from ..training.recipes.classifier import open_classifier
from .model import ImagesResult, Model, OutputImage, part, tuned_note

_SHOWN = 5  # directions, where none are asked for


def _directions(name: str, value: Any) -> Any:
    return value if isinstance(value, Directions) else checks.path()(name, value)


@dataclass(frozen=True)
class FindRequest:
    """Where directions come from."""

    method: str | None = None  # 'pca' from samples, 'sefa' from the weights; None: pca, or labels where some are given
    from_labels: bool = False  # of the images that the model was trained on
    attributes: Sequence[str] | None = None  # labels of these alone
    data: str | None = None  # labels of another set of images
    csv: str | None = None  # labels of seeds: a table
    count: int | None = None  # directions, without labels; None: 10
    num: int = 10_000  # seeds to look at: 0 and up
    layers: str | Sequence[int] | None = None  # that they are for, see `style_indices`; None: all
    class_index: int | None = None  # of the seeds; None: drawn by each

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            method=checks.choice("pca", "sefa"),
            from_labels=checks.flag(),
            data=checks.path(),
            csv=checks.path(),
            attributes=checks.list_of(checks.string(), "['hat', 'backgroundColor']"),
            count=checks.integer(1),
            num=checks.integer(2),
            layers=checks.styles(),
            class_index=checks.integer(),
        )
        if self.labeled and self.method:
            raise SganError(
                f"--method {self.method} needs no labels.", hint="Leave out --method, or what is about labels."
            )
        if self.labeled and self.count:
            raise SganError(
                "--count has no effect with labels: each value makes a direction.", hint="Choose --attributes."
            )

    @property
    def labeled(self) -> bool:
        return bool(self.from_labels or self.attributes or self.data or self.csv)


@dataclass(frozen=True)
class _DirectionsRequest(SamplingOptions):
    """Images, and directions to move them along."""

    directions: str | Path | Directions | None = None  # a file; None: the newest in ./out
    seeds: Sequence[int | str] = range(4)  # seeds, and names of .npz files
    layers: str | Sequence[int] | None = None  # that are moved; None: those of the file

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(self, directions=_directions, seeds=checks.latents(), layers=checks.styles())


@dataclass(frozen=True)
class ShowRequest(_DirectionsRequest):
    """Which directions to draw, and on what."""

    direction: str | None = None  # which: '3', '0-4', or names; None: the first five
    strengths: Sequence[float] | None = None  # in standard deviations; None: seven, as they were found for

    def __post_init__(self) -> None:
        super().__post_init__()
        strengths = checks.list_of(checks.number(), "[-2, 0, 2]")
        checks.check_fields(self, direction=checks.string(), strengths=strengths)


@dataclass(frozen=True)
class EditRequest(_DirectionsRequest):
    """Which images to move, and along what."""

    direction: Sequence[str] = ("0",)  # numbers or names
    strength: Sequence[float] = ()  # of each, or one for all, in standard deviations; none: as they were found for

    def __post_init__(self) -> None:
        super().__post_init__()
        direction = checks.list_of(checks.string(), "['0', 'hat=tall']")
        checks.check_fields(self, direction=direction, strength=checks.list_of(checks.number(), "[1.5]", 0))


@dataclass(frozen=True, eq=False, kw_only=True)
class ShowResult(ImagesResult):
    """A strip for each direction."""

    directions: str | None  # the file
    strengths: list[float]
    layers: list[int]  # indices of w


@dataclass(frozen=True, eq=False, kw_only=True)
class EditResult(ImagesResult):
    """N images, moved."""

    model: Model
    sources: Latents  # N, before
    ws: Tensor  # [N, num_ws, w_dim] after
    items: list[int | str]  # what was asked for
    about: dict[str, Any] = field(default_factory=dict)  # the file, the edits and the layers

    def save(self, folder: str | Path, format: str = "png") -> list[Path]:
        """Also edited.npz, for other requests, before the sheet. Raises SganError if it is one of its sources."""
        place = Path(folder) / "edited.npz"
        if any(isinstance(item, str) and Path(item).resolve() == place.resolve() for item in self.items):
            raise SganError(f"{place} would be replaced by what is made of it.", hint="Give --outdir.")
        files = [output.save(folder, format) for output in self.outputs]
        settings = {"model": str(self.model.path), "command": self.model.command, **self.about}
        fingerprint = self.outputs[0].record["model"]  # as it was then
        files.append(save_edited(Path(folder), self.sources, self.ws, self.items, fingerprint, settings))
        return [*files, *([self.sheet.save(folder, format)] if self.sheet else [])]


def find_directions(
    model: Model,
    request: FindRequest,
    progress: Progress = silent,
) -> Directions:
    """Directions in the latent space, for `show_directions` and `edit`. Raises SganError if there is nothing to find,
    or what is asked for cannot be had."""
    layers = style_indices(model.G.layers, request.layers or list(range(model.G.num_ws)), "--layers")
    settings = {"model": str(model.path), "command": model.command}
    common: dict[str, Any] = {"layers": layers, "num": request.num, "class_index": request.class_index}
    common |= {"settings": settings, "model": model.fingerprint}
    if not request.labeled:
        return find_unlabeled(model.G, request.method or "pca", request.count or 10, **common)
    names = request.attributes
    if request.csv and request.data:
        raise SganError("--csv and --data are two sources of labels.", hint="Leave one of them out.")
    if request.csv:
        return find_from_table(model.G, *read_table(request.csv, names), attributes=names, **common)
    dataset = open_training_set(model.info, request.data)
    if dataset is None:
        raise SganError("This model does not say which images it was trained on.", hint="Give --data or --csv.")
    classifier = open_classifier(dataset, model.G.config, names, progress=progress)
    return find_from_images(model.G, classifier, attributes=names, progress=progress, **common)


def show_directions(
    model: Model,
    request: ShowRequest,
    progress: Progress = silent,
) -> ShowResult:
    """A strip for each direction: a row for each image, a column for each strength. Raises SganError if the file or a
    direction does not fit."""
    sampling = part(SamplingOptions, request)
    path, known, layers = _open(model, request)
    chosen = known.choose(request.direction) if request.direction else range(min(_SHOWN, len(known)))
    strengths = list(request.strengths or evenly(-known.strength, known.strength))
    sources = model.latents(request.seeds, sampling)
    strips = []
    for which in chosen:
        name = known.names[which]
        record = model.record(
            sampling,
            tuned=sources.tuned,
            directions=path,
            direction=name,
            strengths=strengths,
            layers=layers,
            seeds=list(request.seeds),
        )
        image = render_strip(sources, known, which, strengths, layers, sampling, progress)
        strips.append(OutputImage(f"strip{which:02d}-{filename_part(name)}", image, record))
    notes = tuned_note(sources.tuned)
    return ShowResult(outputs=strips, sheet=None, notes=notes, directions=path, strengths=strengths, layers=layers)


def edit(
    model: Model,
    request: EditRequest,
    progress: Progress = silent,
) -> EditResult:
    """Images moved along directions. Raises SganError if the file, a direction or its strength does not fit."""
    sampling, items = part(SamplingOptions, request), list(request.seeds)
    path, known, layers = _open(model, request)
    edits = pair_edits(known, request.direction, request.strength)
    sources = model.latents(items, sampling)
    edited = apply_edits(known, sources.ws, edits, layers)
    images, sheet = render_before_after(sources, edited, sampling, progress)
    about = {"directions": path, "edits": [[known.names[which], size] for which, size in edits], "layers": layers}
    record = model.record(sampling, tuned=sources.tuned, **about)
    outputs = [
        OutputImage(f"edit{filename_part(name)}", image, {"seed": name, **record})
        for image, name in zip(images, sources.names, strict=True)
    ]
    return EditResult(
        outputs=outputs,
        sheet=OutputImage("edit", sheet, {"seeds": str(items), **record}),
        notes=tuned_note(sources.tuned),
        model=model,
        sources=sources,
        ws=edited,
        items=items,
        about=about,
    )


def evenly(low: float, high: float) -> list[float]:
    """Seven columns, from low to high."""
    return [low + (high - low) * i / 6 for i in range(7)]


def _open(model: Model, request: _DirectionsRequest) -> tuple[str | None, Directions, list[int]]:
    """The file, what it holds, and the indices of w to move."""
    if isinstance(request.directions, Directions):
        path, known = None, request.directions
    else:
        path = str(request.directions or newest_directions("./out"))
        known = load_directions(path, model.G, model.fingerprint)
    if request.layers is None:
        return path, known, known.layers
    return path, known, style_indices(model.G.layers, request.layers, "--layers")
