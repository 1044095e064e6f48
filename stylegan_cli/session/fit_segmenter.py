"""Fitting a segmenter to a few annotated images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..data.codec import CROPS, padding
from ..data.images import labeled_grid, save_image, to_rgb, to_uint8
from ..detectors.losses import load_loss
from ..errors import MisuseError, SganError
from ..inversion.annotations import Annotations, is_recorded, read_annotations, recorded_options
from ..inversion.projector import ProjectionOptions, Start, project
from ..inversion.segmentation import METHODS, Example, fit, hold_out, read_samples
from ..inversion.targets import TargetReader
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import SamplingOptions, generate_images, map_seeds
from ..sampling.latent_files import target_names
from ..sampling.latents import noise_maps
from ..sampling.segmenter import Linear, class_maps
from ..sampling.segmenter_files import Segmenter, SegmenterInfo, colored, save_segmenter
from .encode import latents_of, open_encoder_if_any
from .model import Model

_STEPS, _STEPS_ALONE = 100, 400  # of a search from the latents of an encoder, and without one
_SHOWN = 16  # examples on the sheet
_PIXELS = 2**16  # of the images that a CPU searches at a time: one of 256x256
_THRESHOLD = 0.5


@dataclass(frozen=True)
class SearchOptions:
    """How the latents of images are found: predicted by an encoder, if there is one, and then searched from there."""

    encoder: str | Path | None = None  # file or run folder; None: see `sampling.encoders.find_encoder`
    runs: str | Path = "./runs"  # where the newest encoder is looked for
    steps: int | None = None  # of the search; 0: only encode; None: 100 from an encoder's latents, else 400
    crop: str = "center"  # to the model's aspect ratio; 'pad': keep the whole image; or 'none'
    pad: str | None = None  # with 'pad': a color, or 'blur'; None: black

    def check_search(self) -> None:
        """Check the fields, see `checks.check_fields`."""
        checks.check_fields(
            self,
            encoder=checks.path(),
            runs=checks.path(),
            steps=checks.integer(0),
            crop=checks.choice(*CROPS),
            pad=checks.string(),
        )
        padding(self.crop, self.pad)


@dataclass(frozen=True)
class FitSegmenterRequest(SearchOptions):
    """The annotated images, and how to learn from them."""

    annotated: str | Path = ""  # folder with NAME.png and NAME.mask.png
    labels: str = "linear"  # 'linear': a linear classifier; 'nearest': class means
    threshold: float | None = None  # cosine above which pixels get the class of a similar one, of sparse masks by
    # 'nearest'; None: 0.5

    def __post_init__(self) -> None:
        self.check_search()
        checks.check_fields(
            self,
            annotated=checks.path(),
            labels=checks.choice(*METHODS),
            threshold=checks.number(-1, 1),
        )
        if not str(self.annotated):
            raise MisuseError("No annotated images.", hint="Name their folder: --annotated DIR")
        if self.threshold is not None and self.labels != "nearest":
            raise MisuseError("--threshold has an effect on --labels nearest only.", hint="Remove it.")


@dataclass(frozen=True, eq=False)
class FitSegmenterResult:
    """A segmenter, and how well it does."""

    model: Model
    request: FitSegmenterRequest
    segmenter: Segmenter
    names: list[str]  # [N] of the annotated images
    latents: list[str]  # [N] where they come from: 'seed', 'encoder' or 'projection'
    annotated: Annotations
    found: Tensor  # uint8 [N, C, H, W] images of the latents
    maps: Tensor  # uint8 [N, H, W] predicted classes
    warnings: list[str] = field(default_factory=list)

    @property
    def sheet(self) -> Tensor:  # uint8 [3, H', W']
        """A row for each of the first examples: the image, the image of its latents, its mask, and the prediction."""
        part, classes = slice(_SHOWN), self.segmenter.info.classes
        columns = [to_rgb(to_uint8(self.annotated.images[part])), to_rgb(self.found[part])]
        columns += [colored(self.annotated.labels[part], classes), colored(self.maps[part], classes)]
        titles = ["image", "reconstruction", "mask", "prediction"]
        return labeled_grid(torch.stack([c.cpu() for c in columns], 1), None, None, self.names[part], titles)

    def save(
        self,
        path: str | Path,
    ) -> list[Path]:  # the segmenter, the sheet
        """Write the segmenter, and a sheet of the same name beside it."""
        path = Path(path)
        save_segmenter(path, self.segmenter.linear, self.segmenter.info)
        sheet = path.with_suffix(".png")
        save_image(self.sheet, sheet, metadata=self.model.metadata(SamplingOptions(), segmenter=path.name))
        return [path, sheet]


def fit_segmenter(
    model: Model,
    request: FitSegmenterRequest,
    progress: Progress = silent,
) -> FitSegmenterResult:
    """Fit a segmenter to annotated images. Raises SganError if one cannot be read, or has no mask."""
    annotated = read_annotations(request.annotated, model.info, request.crop, padding(request.crop, request.pad))
    examples, sources, warnings = _examples(model, request, annotated, progress)
    samples, count = read_samples(model.G, examples), len(annotated.classes)
    threshold = _THRESHOLD if request.threshold is None else request.threshold
    linear = fit(model.G, samples, count, request.labels, threshold)
    iou: dict[str, float | None] = {}
    if len(examples) > 1:
        overlap = hold_out(model.G, examples, samples, count, request.labels, threshold, progress)
        iou = {"mean": overlap.mean, **dict(zip(annotated.classes, overlap.values, strict=True))}
    found, maps = zip(*(_predict(model, linear, example) for example in examples), strict=True)
    info = SegmenterInfo(
        classes=annotated.classes,
        model=model.fingerprint,
        method=request.labels,
        examples=len(examples),
        iou=iou,
        owner=model.owner.settings(model.path),
    )
    return FitSegmenterResult(
        model,
        request,
        Segmenter(linear, info, Path()),
        target_names(annotated.paths),
        sources,
        annotated,
        torch.cat(found),
        torch.cat(maps),
        [*annotated.warnings, *warnings],
    )


@torch.no_grad()
def _predict(model: Model, linear: Linear, example: Example) -> tuple[Tensor, Tensor]:
    """The image [1, C, H, W] and the class map [1, H, W] of an example, uint8: logits of many images need memory."""
    images, logits = linear.read(model.G.synthesis, example.ws, **example.options)
    return to_uint8(images).cpu(), class_maps(logits).cpu()


def _examples(
    model: Model, request: FitSegmenterRequest, annotated: Annotations, progress: Progress
) -> tuple[list[Example], list[str], list[str]]:
    """The examples with their latents, where these come from, and why those in metadata are not used."""
    known, warnings = [], []
    for path, image in zip(annotated.paths, annotated.images, strict=True):
        try:
            known.append(_recorded(model, path, image))
        except SganError as e:
            known.append(None)
            warnings.append(f"The latents of {path} are searched, although its metadata names a seed. {e}")
    unknown = [i for i, example in enumerate(known) if example is None]
    found, source = {}, ""
    if unknown:
        ws, source = search_latents(model, request, annotated.images[unknown], progress)
        found = dict(zip(unknown, ws.split(1), strict=True))
    examples = [
        Example(found[i], labels) if example is None else Example(example[0], labels, example[1])
        for i, (example, labels) in enumerate(zip(known, annotated.labels, strict=True))
    ]
    return examples, [source if example is None else "seed" for example in known], warnings


def _recorded(model: Model, path: Path, image: Tensor) -> tuple[Tensor, dict] | None:
    """The latents of an image and the options of its synthesis by its metadata; None if this names no seed. Raises
    SganError if another image is generated from them."""
    recorded = recorded_options(path, model.fingerprint, model.G.label_space)
    if recorded is None:
        return None
    (seed, sampling), G = recorded, model.G
    ws = map_seeds(G, [seed], sampling)
    (again,) = generate_images(G, lambda i, j: ws, [seed], sampling)
    if not is_recorded(to_uint8(image), again):
        raise SganError("This model generates another image from it.")
    noise = noise_maps(G, sampling.noise_mode, [seed], ws.device)
    return ws.clone(), {"noise": noise, "transform": sampling.view(G)}


def read_images(
    model: Model,
    request: SearchOptions,
    paths: Sequence[str | Path],
) -> Tensor:  # [N, C, H, W] in [-1, 1]
    return TargetReader(model.info, request.crop, padding(request.crop, request.pad)).read(paths)


def search_latents(
    model: Model,
    request: SearchOptions,
    images: Tensor,  # [N, C, H, W] in [-1, 1]
    progress: Progress = silent,
) -> tuple[Tensor, str]:  # [N, num_ws, w_dim], 'encoder' or 'projection'
    """Find the latents of images in W+, with the model's own noise, by the distance of the discriminator's features, or
    of pixels if the model has none. Raises SganError if there are no steps and no encoder."""
    targets, start = images.to(model.device), None
    encoder = open_encoder_if_any(model, request.encoder, request.runs)
    if encoder is not None:
        start = torch.cat([latents_of(model, encoder, part) for part in targets.split(32)])
    steps = request.steps if request.steps is not None else _STEPS if encoder else _STEPS_ALONE
    if steps == 0:
        if start is None:
            raise MisuseError("Without an encoder, latents have to be searched.", hint="Use more --steps than 0.")
        return start, "encoder"
    D = model.D
    levels = None if D is None else D.features
    loss = load_loss("pixel" if D is None else "discriminator", levels, model.path, model.device)
    height, width = targets.shape[2:]
    batch = min(max(_PIXELS // (height * width), 1), 8) if targets.device.type == "cpu" else None
    space = "w+" if model.G.config.has_mapping else None
    options = ProjectionOptions(space=space, steps=steps, noise="const", batch=batch)
    result = project(model.G, targets, loss, options, start=None if start is None else Start(start), progress=progress)
    if result.interrupted:
        raise KeyboardInterrupt
    return result.ws.detach(), "projection"
