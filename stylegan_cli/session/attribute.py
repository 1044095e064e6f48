"""Whether images were made by a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..detectors.distances import Loss
from ..errors import SganError
from ..inversion.attribution import Calibration, calibrate, calibration_key, load_calibration
from ..inversion.histogram import histogram
from ..inversion.projection import LOSSES, ProjectionInput, choose_loss, prepare_input, project_images
from ..inversion.projector import ProjectionOptions
from ..inversion.results import comparison_sheet
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import SamplingOptions
from ..snapshot import open_training_set
from .model import ImagesResult, Model, OutputImage, part


@dataclass(frozen=True)
class AttributeRequest(ProjectionOptions):
    """What to judge, and what to compare it with."""

    steps: int = 200  # of each projection
    images: Sequence[str | Path] = ()  # files; none: measure alone
    calibrate: bool = False  # measure the model's images and real ones anew
    num: int = 50  # images of each kind to measure
    data: str | None = None  # real images; None: those that the model was trained on
    loss: str | None = None  # 'lpips', 'discriminator' or 'pixel'; None: lpips where its weights can be had
    detector: str | None = None  # a file with weights of LPIPS
    crop: str = "center"  # to the model's shape; or 'none'

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(
            self,
            images=checks.list_of(checks.path(), "['face.png']", 0),
            calibrate=checks.flag(),
            num=checks.integer(1),
            data=checks.path(),
            loss=checks.choice(*LOSSES),
            detector=checks.path(),
            crop=checks.choice("center", "none"),
        )


@dataclass(frozen=True, eq=False)
class AttributeTask:
    """A request whose files have been read."""

    request: AttributeRequest
    task: ProjectionInput | None  # None: nothing is to be judged
    loss: Loss
    num: int  # images of each kind
    key: str  # what distances are kept under
    known: Calibration | None  # None: to be measured
    warnings: list[str]


@dataclass(frozen=True)
class Judgment:
    """Of one image."""

    name: str
    distance: float  # of its projection
    log_ratio: float  # how many times likelier it was drawn by the model than not, natural logarithm


@dataclass(frozen=True, eq=False, kw_only=True)
class AttributeResult(ImagesResult):
    """Images beside their projections, and as the sheet how they lie among those of both kinds."""

    calibration: Calibration
    judged: list[Judgment] = field(default_factory=list)


def prepare_attribution(
    model: Model,
    request: AttributeRequest,
) -> AttributeTask:
    """The files of a request, for `calibrate` and `attribute`, which take minutes: all that is given is looked at
    before anything is measured. Raises SganError on whatever is wrong with it."""
    task = prepare_input(model.snapshot, request.images, crop=request.crop) if request.images else None
    others = open_training_set(model.info, request.data) if request.data is not None else None
    spec = model.info.data if others is None else others.spec
    if spec is None:
        raise SganError("This model does not say which images it was trained on.", hint="Give --data.")
    loss, warnings = choose_loss(request.loss, model.snapshot, request.detector)
    num = min(request.num, spec.num)
    key = calibration_key(model.fingerprint, spec, loss, part(ProjectionOptions, request), num)
    known = None if request.calibrate else load_calibration(key, num)
    return AttributeTask(request, task, loss, num, key, known, warnings)


def measure_both_kinds(
    model: Model,
    task: AttributeTask,
    progress: Progress,
) -> AttributeTask:  # with what is known then
    """Project images of the model and real ones; they are kept. Raises KeyboardInterrupt before its end, SganError if
    the real ones are not there or not of the model's size."""
    dataset, projection = open_training_set(model.info, task.request.data), part(ProjectionOptions, task.request)
    assert dataset is not None  # the task has its specification
    anew = task.request.calibrate
    known = calibrate(model.G, dataset, task.loss, projection, task.num, task.key, anew, progress)
    return dataclasses.replace(task, known=known)


def attribute(
    model: Model,
    request: AttributeRequest | AttributeTask,
    progress: Progress = silent,
) -> AttributeResult:
    """Whether images were made by this model. Raises KeyboardInterrupt if it is interrupted: a part of the search would
    mislead."""
    task = request if isinstance(request, AttributeTask) else prepare_attribution(model, request)
    if task.known is None:
        task = measure_both_kinds(model, task, progress)
    request, loss, known, outputs, judged = task.request, task.loss, task.known, [], []
    assert known is not None
    record = model.record(SamplingOptions(), loss=loss.name, space=request.space, steps=request.steps)
    if task.task:
        finding = project_images(model.snapshot, task.task, part(ProjectionOptions, request), loss, progress)
        if finding.latents.interrupted:
            raise KeyboardInterrupt
        rows = zip(finding.names, finding.distance.tolist(), strict=True)
        judged = [Judgment(name, distance, known.log_ratio(distance)) for name, distance in rows]
        outputs.append(OutputImage("attribute-compare", comparison_sheet(finding), record))
    sides, marks = (
        {"drawn by this model": known.generated, "real": known.real},
        {one.name: one.distance for one in judged},
    )
    sheet = histogram(sides, marks, f"distance after projection ({loss.name})")
    return AttributeResult(
        outputs=outputs,
        sheet=OutputImage("attribute", sheet, record),
        warnings=[*task.warnings, *known.warnings],
        calibration=known,
        judged=judged,
    )
