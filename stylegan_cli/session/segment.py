"""Segmentation: the class of each pixel, of images of seeds as a dataset, or of image files."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from ..data.images import encode_image, labeled_grid, save_image, to_rgb, to_uint8
from ..data.writer import dataset_writer
from ..errors import MisuseError
from ..inversion.refine import refine
from ..models.label_space import LabelSpace
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import SamplingOptions, generate_images, map_seeds
from ..sampling.labels import class_labels, describe_labels, label_metadata
from ..sampling.latent_files import target_names
from ..sampling.latents import noise_maps
from ..sampling.segmenter import class_maps
from ..sampling.segmenter_files import Segmenter, colored, find_segmenter, load_segmenter
from .fit_segmenter import SearchOptions, read_images, search_latents
from .model import ImagesResult, Model, OutputImage, upcast

IMAGES, MASKS, SHEET, COMPARISON = "images.zip", "masks.zip", "segmented.png", "compare"
_SHOWN = 8  # images on the sheet of a dataset


# Options that have an effect on one of both only.
_OF_FILES = {"encoder": "--encoder", "steps": "--steps", "crop": "--crop", "pad": "--pad", "refine": "--no-refine"}
_OF_SEEDS = {"trunc": "--trunc", "class_index": "--class", "precision": "--precision"}


@dataclass(frozen=True)
class SegmentRequest(SamplingOptions, SearchOptions):
    """What to segment: images of seeds, or image files."""

    seeds: Sequence[int] = ()
    images: Sequence[str | Path] = ()  # files
    segmenter: str | Path | Segmenter | None = None  # None: out/segmenter.safetensors
    refine: bool = True  # move the masks of images to their edges, see `inversion.refine`

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_search()
        checks.check_fields(
            self,
            seeds=checks.list_of(checks.integer(0, checks.LARGEST_SEED), "[0, 1, 2]", 0),
            images=checks.list_of(checks.path(), "['face.png']", 0),
            refine=checks.flag(),
            segmenter=lambda name, value: value if isinstance(value, Segmenter) else checks.path()(name, value),
        )
        if bool(self.images) == bool(len(self.seeds)):
            what = "Both seeds and images are named." if self.images else "There is nothing to segment."
            raise MisuseError(what, hint="Name seeds, --seeds 0-99, or images: sgan segment face.png")
        kind, others = ("images of seeds", _OF_FILES) if len(self.seeds) else ("image files", _OF_SEEDS)
        defaults = {field.name: field.default for field in fields(self)}
        for name, option in others.items():
            if getattr(self, name) != defaults[name]:
                raise MisuseError(f"{option} has no effect on {kind}.", hint=f"Remove {option}.")


@dataclass(frozen=True, eq=False, kw_only=True)
class SegmentResult(ImagesResult):
    """N masks, and a sheet that shows them beside the images."""

    segmenter: Segmenter
    ws: Tensor  # [N, num_ws, w_dim]
    latents: str  # where they come from: 'encoder' or 'projection'
    maps: Tensor  # uint8 [N, H, W] indices of classes
    names: list[str]  # [N]


@dataclass(frozen=True, eq=False)
class SegmentSeedsResult:
    """N images as `generate` makes them, and their masks, computed on demand."""

    model: Model
    request: SegmentRequest
    segmenter: Segmenter
    labels: Tensor | None  # [N, c_dim] of the images; None: the model has no classes
    progress: Progress = silent
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.request.seeds)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each image uint8 [C, H, W], and the class of each pixel uint8 [H, W]."""
        return self.model.with_kernels(self._pairs())

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        G, seeds, sampling = self.model.G, list(self.request.seeds), upcast(SamplingOptions, self.request)
        view, ready = sampling.view(G), deque[Tensor]()  # class maps of the current batch

        def latents(i: int, j: int) -> Tensor:  # [j - i, num_ws, w_dim]
            """The network that is faster for images has other features, and its images differ in the last bit."""
            ws = map_seeds(G, seeds[i:j], sampling)
            options = {"noise": noise_maps(G, sampling.noise_mode, seeds[i:j], ws.device), "transform": view}
            with sampling.arithmetic(G):
                _, logits = self.segmenter.linear.read(G.synthesis, ws, dtype=sampling.dtype, **options)
            ready.extend(class_maps(logits).cpu())
            return ws

        for image in generate_images(G, latents, seeds, sampling, self.progress):
            yield image, ready.popleft()

    def save(
        self,
        folder: str | Path,
    ) -> list[Path]:  # images, masks, sheet
        """Write images.zip and masks.zip, in which an image and its mask have the same name, and a sheet of the first
        ones."""
        paths, classes = [Path(folder, name) for name in (IMAGES, MASKS, SHEET)], self.segmenter.info.classes
        common = self.model.metadata(upcast(SamplingOptions, self.request), segmenter=self.segmenter.path.name)
        made = {"source": "sgan segment", "model": self.model.fingerprint, "segmenter": self.segmenter.path.name}
        values, names = _stored_labels(self.labels, self.model.G.label_space)
        given = [None] * len(self) if self.labels is None else self.labels
        shown: list[tuple[Tensor, Tensor]] = []
        with dataset_writer(paths[0]) as images, dataset_writer(paths[1]) as masks:
            for seed, label, (image, classes_of_pixels) in zip(self.request.seeds, given, self, strict=True):
                metadata = {"seed": str(seed), **common, **label_metadata(label, self.model.G.label_space)}
                images.add(encode_image(image, "png", metadata))
                mask = colored(classes_of_pixels[None], classes)[0]
                masks.add(encode_image(mask, "png"))
                shown += [(image, classes_of_pixels)] if len(shown) < _SHOWN else []
            images.finish(values, {}, {**made, "colors": list(classes), **names})
            masks.finish(None, {}, {**made, "colors": list(classes)})
        first, maps = (torch.stack(parts) for parts in zip(*shown, strict=True))
        save_image(_sheet([first], maps, classes, [str(s) for s in self.request.seeds[:_SHOWN]]), paths[2])
        return paths


def _stored_labels(
    labels: Tensor | None,  # [N, c_dim]
    space: LabelSpace,
) -> tuple[list[int] | list[list[float]] | None, dict[str, list[str]]]:
    """What dataset.json says about the labels of images, and about their names."""
    if labels is None:
        return None, {}
    values = labels.tolist() if space.vectors else labels.argmax(1).tolist()
    return values, {"classes": list(space.names)} if space.names else {}


def output_files(
    request: SegmentRequest,
    folder: str | Path,
) -> list[Path]:
    """The files that saving the result will write."""
    if request.images:
        names = [f"{name}.mask.png" for name in target_names(request.images)] + [f"{COMPARISON}.png"]
    else:
        names = [IMAGES, MASKS, SHEET]
    return [Path(folder, name) for name in names]


def segment(
    model: Model,
    request: SegmentRequest,
    progress: Progress = silent,
) -> SegmentResult | SegmentSeedsResult:
    """Segment generated images, or image files, whose latents are found first. Raises SganError if there is no
    segmenter for the model, or an image cannot be read."""
    segmenter = open_segmenter(model, request.segmenter)
    if not request.images:
        upcast(SamplingOptions, request).view(model.G)  # which it may not have
        labels = class_labels(request.class_index, request.seeds, model.G.label_space)
        notes = [] if labels is None else [describe_labels(labels, model.G.label_space)]
        return SegmentSeedsResult(model, request, segmenter, labels, progress, notes)
    targets = read_images(model, request, request.images)
    ws, source = search_latents(model, request, targets, progress)
    found, maps, batch = [], [], upcast(SamplingOptions, request).batch_for(model.G)
    with torch.no_grad():
        for part, target in zip(ws.split(batch), targets.to(model.device).split(batch), strict=True):
            images, logits = segmenter.linear.read(model.G.synthesis, part)
            found.append(to_uint8(images).cpu())
            maps.append(class_maps(refine(logits, target) if request.refine else logits).cpu())
    names, maps = target_names(request.images), torch.cat(maps)
    metadata = model.metadata(SamplingOptions(), segmenter=segmenter.path.name)
    masks = zip(names, colored(maps, segmenter.info.classes), strict=True)
    sheet = _sheet([to_uint8(targets).cpu(), torch.cat(found)], maps, segmenter.info.classes, names)
    return SegmentResult(
        outputs=[OutputImage(f"{name}.mask", mask, {"target": name, **metadata}) for name, mask in masks],
        sheet=OutputImage(COMPARISON, sheet, metadata),
        segmenter=segmenter,
        ws=ws,
        latents=source,
        maps=maps,
        names=names,
    )


def open_segmenter(
    model: Model,
    segmenter: str | Path | Segmenter | None,
) -> Segmenter:
    """Open a segmenter of the model, see `find_segmenter`."""
    if isinstance(segmenter, Segmenter):
        return segmenter
    return load_segmenter(find_segmenter(segmenter, model.path), model.G, model.fingerprint)


def _sheet(
    images: list[Tensor],  # uint8 [N, C, H, W] each: the images, or images and their reconstructions
    maps: Tensor,  # [N, H, W]
    classes: tuple[str, ...],
    names: list[str],
) -> Tensor:  # uint8 [3, H', W']
    """A row for each image: itself, its reconstruction if it was searched, its mask, and both together."""
    masks, rgb = colored(maps, classes), [to_rgb(x) for x in images]
    both = ((rgb[0].int() + masks.int()) // 2).to(torch.uint8)
    titles = [*["image", "reconstruction"][: len(rgb)], "mask", "both"]
    return labeled_grid(torch.stack([*rgb, masks, both], 1), None, None, names, titles)
