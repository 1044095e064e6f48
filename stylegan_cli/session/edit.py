"""Directions in the latent space: finding and showing them, and editing images along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import MisuseError, SganError
from ..inversion.attributes import find_from_images, find_from_table
from ..inversion.directions import Directions, load_directions, newest_directions
from ..inversion.editing import apply_edits, pair_edits, render_before_after, render_strip, save_edited
from ..inversion.factorize import find_codes, find_unlabeled
from ..inversion.seed_labels import read_table
from ..models.generator import Generator
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import SamplingOptions
from ..sampling.labels import Choice, label_choice
from ..sampling.latent_files import Latents, filename_part
from ..sampling.mixing import style_indices
from ..sampling.view import input_indices, style_indices_without_input
from ..snapshot import open_training_dataset
from ..training.recipes.classifier import open_classifier
from .model import ImagesResult, Model, OutputImage, tuned_note, upcast

_NUM_SHOWN = 5  # directions, by default


def _directions(name: str, value: Any) -> Any:
    return value if isinstance(value, Directions) else checks.path()(name, value)


@dataclass(frozen=True)
class FindRequest:
    """How to find directions."""

    method: str | None = None  # 'pca' from random latents, 'sefa' from the weights, 'codes' of a model that has some;
    # None: pca, or labels if any are set
    from_labels: bool = False  # use the labels of the training images
    attributes: Sequence[str] | None = None  # attributes to use; None: all
    data: str | None = None  # dataset whose labels to use
    csv: str | None = None  # table of labels of seeds
    count: int | None = None  # number of directions, without labels; None: 10
    num: int = 10_000  # number of random latents to analyze
    layers: str | Sequence[int] | None = None  # that the directions are for, see `style_indices`; None: all styles
    class_index: Choice | None = None  # of the random latents; None: sampled from each seed

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            method=checks.choice("pca", "sefa", "codes"),
            from_labels=checks.flag(),
            data=checks.path(),
            csv=checks.path(),
            attributes=checks.list_of(checks.string(), "['hat', 'backgroundColor']"),
            count=checks.integer(1),
            num=checks.integer(2),
            layers=checks.styles(),
            class_index=label_choice(),
        )
        if self.labeled and self.method:
            raise MisuseError(
                f"--method {self.method} does not use labels.", hint="Remove --method, or the options for labels."
            )
        if self.labeled and self.count:
            raise MisuseError(
                "--count has no effect with labels: each value gives a direction.", hint="Choose --attributes instead."
            )

        if self.method == "codes" and self.count:
            raise MisuseError("--count has no effect with --method codes: each code gives a direction.")
        if self.method == "codes" and self.class_index is not None:
            raise MisuseError("--class has no effect with --method codes.", hint="Remove --class.")

    @property
    def labeled(self) -> bool:
        return bool(self.from_labels or self.attributes or self.data or self.csv)


@dataclass(frozen=True)
class _DirectionsRequest(SamplingOptions):
    """Images, and directions to edit them along."""

    directions: str | Path | Directions | None = None  # or a file; None: the newest in ./out
    seeds: Sequence[int | str] = range(4)  # seeds and names of files of latents
    layers: str | Sequence[int] | None = None  # to edit; None: those in the file

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(self, directions=_directions, seeds=checks.latents(), layers=checks.styles())


@dataclass(frozen=True)
class ShowRequest(_DirectionsRequest):
    """The directions and strengths to show."""

    direction: str | None = None  # '3', '0-4', or names; None: the first five
    strengths: Sequence[float] | None = None  # in standard deviations; None: seven, up to that of the file

    def __post_init__(self) -> None:
        super().__post_init__()
        strengths = checks.list_of(checks.number(), "[-2, 0, 2]")
        checks.check_fields(self, direction=checks.string(), strengths=strengths)


@dataclass(frozen=True)
class EditRequest(_DirectionsRequest):
    """The images to edit, and the directions and strengths."""

    direction: Sequence[str] = ("0",)  # numbers or names
    strength: Sequence[float] = ()  # of each, or one for all, in standard deviations; empty: that of the file

    def __post_init__(self) -> None:
        super().__post_init__()
        direction = checks.list_of(checks.string(), "['0', 'hat=tall']")
        checks.check_fields(self, direction=direction, strength=checks.list_of(checks.number(), "[1.5]", 0))


@dataclass(frozen=True, eq=False, kw_only=True)
class ShowResult(ImagesResult):
    """A strip for each direction."""

    directions: str | None  # file
    strengths: list[float]
    layers: list[int]  # indices of w


@dataclass(frozen=True, eq=False, kw_only=True)
class EditResult(ImagesResult):
    """N edited images."""

    model: Model
    sources: Latents  # of N images, before the edits
    ws: Tensor  # [N, num_ws, w_dim] after the edits
    items: list[int | str]  # the requested seeds and files
    about: dict[str, Any] = field(default_factory=dict)  # file of directions, edits, layers

    def save(self, folder: str | Path, format: str = "png") -> list[Path]:
        """Write the images, edited.npz (their latents, for other requests) and the sheet.

        Raises SganError if edited.npz is one of the sources.
        """
        path = Path(folder) / "edited.npz"
        if any(isinstance(item, str) and Path(item).resolve() == path.resolve() for item in self.items):
            raise SganError(f"{path} would be overwritten by its own edit.", hint="Use another --outdir.")
        files = [output.save(folder, format) for output in self.outputs]
        settings = {**self.model.file_settings, **self.about}
        fingerprint = self.outputs[0].metadata["model"]  # when the images were made
        files.append(save_edited(Path(folder), self.sources, self.ws, self.items, fingerprint, settings))
        return [*files, *([self.sheet.save(folder, format)] if self.sheet else [])]


def find_directions(
    model: Model,
    request: FindRequest,
    progress: Progress = silent,
) -> Directions:
    """Find directions in the latent space, for `show_directions` and `edit`. Raises SganError if none can be found, or
    the labels are not available."""
    layers = _layers(model.G, request.layers or style_indices_without_input(model.G))
    common: dict[str, Any] = {"layers": layers, "num": request.num, "class_index": request.class_index}
    common |= {"settings": model.file_settings, "model": model.fingerprint}
    if request.method == "codes":
        return find_codes(model.G, layers, request.num, model.file_settings, model.fingerprint)
    if not request.labeled:
        return find_unlabeled(model.G, request.method or "pca", request.count or 10, **common)
    names = request.attributes
    if request.csv and request.data:
        raise MisuseError("--csv and --data are two sources of labels.", hint="Use only one of them.")
    if request.csv:
        return find_from_table(model.G, *read_table(request.csv, names), attributes=names, **common)
    dataset = open_training_dataset(model.info, request.data)
    if dataset is None:
        raise SganError("The model file does not name its training images.", hint="Use --data or --csv.")
    classifier = open_classifier(dataset, model.G.config, names, progress=progress)
    return find_from_images(model.G, classifier, attributes=names, progress=progress, **common)


def show_directions(
    model: Model,
    request: ShowRequest,
    progress: Progress = silent,
) -> ShowResult:
    """Render a strip for each direction, with a row per image and a column per strength. Raises SganError if the file
    or a direction does not fit the model."""
    sampling = upcast(SamplingOptions, request)
    path, directions, layers = _open(model, request)
    chosen = directions.choose(request.direction) if request.direction else range(min(_NUM_SHOWN, len(directions)))
    strengths = list(request.strengths or evenly(-directions.strength, directions.strength))
    sources = model.latents(request.seeds, sampling)
    strips = []
    for index in chosen:
        name = directions.names[index]
        metadata = model.metadata(
            sampling,
            tuned=sources.tuned,
            directions=path,
            direction=name,
            strengths=strengths,
            layers=layers,
            seeds=list(request.seeds),
        )
        image = render_strip(sources, directions, index, strengths, layers, sampling, progress)
        strips.append(OutputImage(f"strip{index:02d}-{filename_part(name)}", image, metadata))
    notes = tuned_note(sources.tuned)
    return ShowResult(outputs=strips, sheet=None, notes=notes, directions=path, strengths=strengths, layers=layers)


def edit(
    model: Model,
    request: EditRequest,
    progress: Progress = silent,
) -> EditResult:
    """Edit images along directions. Raises SganError if the file, a direction or its strength does not fit."""
    sampling, items = upcast(SamplingOptions, request), list(request.seeds)
    path, directions, layers = _open(model, request)
    edits = pair_edits(directions, request.direction, request.strength)
    sources = model.latents(items, sampling)
    edited = apply_edits(directions, sources.ws, edits, layers)
    images, sheet = render_before_after(sources, edited, sampling, progress)
    about = {"directions": path, "edits": [[directions.names[index], strength] for index, strength in edits]}
    about["layers"] = layers
    metadata = model.metadata(sampling, tuned=sources.tuned, **about)
    outputs = [
        OutputImage(f"edit{filename_part(name)}", image, {"seed": name, **metadata})
        for image, name in zip(images, sources.names, strict=True)
    ]
    return EditResult(
        outputs=outputs,
        sheet=OutputImage("edit", sheet, {"seeds": str(items), **metadata}),
        notes=tuned_note(sources.tuned),
        model=model,
        sources=sources,
        ws=edited,
        items=items,
        about=about,
    )


def evenly(low: float, high: float) -> list[float]:
    """Seven evenly spaced values from low to high."""
    return [low + (high - low) * i / 6 for i in range(7)]


def _open(model: Model, request: _DirectionsRequest) -> tuple[str | None, Directions, list[int]]:
    """The file of directions, its contents, and the indices of w to edit."""
    if isinstance(request.directions, Directions):
        path, directions = None, request.directions
    else:
        path = str(request.directions or newest_directions("./out"))
        directions = load_directions(path, model.G, model.fingerprint)
    if request.layers is None:
        return path, directions, directions.layers
    return path, directions, _layers(model.G, request.layers)


def _layers(G: Generator, layers: str | Sequence[int]) -> list[int]:
    """The indices of w to edit. A span leaves out those that only move the image."""
    indices = style_indices(G.layers, layers, "--layers")
    moving = set(input_indices(G)) if isinstance(layers, str) else set()
    return [i for i in indices if i not in moving] or indices
