"""The API that commands and notebooks share: an open model, and everything that can be done with it.

Nothing here prints. Results hold tensors and metadata; `save` writes them to files. Long work reports its progress
through a callback, see `stylegan_cli.progress`.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..interop.conversion import find_model
from ..metrics.measure import Results, measure
from ..metrics.registry import resolve
from ..progress import Progress
from ..sampling.bound_files import owned_by
from ..snapshot import open_training_dataset
from . import (
    attribute,
    drag,
    edit,
    encode,
    equivariance,
    fit_segmenter,
    generate,
    interpolate,
    mix,
    noise,
    project,
    segment,
    translate,
)
from .attribute import AttributeRequest, AttributeResult, AttributeTask
from .blend import BlendRequest, blend_models
from .drag import Drag, DragRequest, DragResult
from .edit import EditRequest, EditResult, FindRequest, ShowRequest, ShowResult
from .encode import EncodeRequest, EncodeResult
from .equivariance import EquivarianceRequest, EquivarianceResult
from .fit_segmenter import FitSegmenterRequest, FitSegmenterResult
from .generate import GenerateRequest, GenerateResult
from .interpolate import InterpolateRequest, InterpolateResult
from .mix import MixRequest, MixResult
from .model import ImagesResult, Model, OutputImage
from .noise import NoiseRequest, NoiseResult
from .notebook import default_progress
from .project import ProjectRequest, ProjectResult, ProjectTask
from .segment import SegmentRequest, SegmentResult, SegmentSeedsResult
from .translate import TranslateRequest, TranslateResult, TranslateStream

__all__ = [
    "AttributeRequest",
    "AttributeResult",
    "AttributeTask",
    "BlendRequest",
    "Drag",
    "DragRequest",
    "DragResult",
    "EditRequest",
    "EditResult",
    "EncodeRequest",
    "EncodeResult",
    "EquivarianceRequest",
    "EquivarianceResult",
    "FindRequest",
    "FitSegmenterRequest",
    "FitSegmenterResult",
    "GenerateRequest",
    "GenerateResult",
    "ImagesResult",
    "InterpolateRequest",
    "InterpolateResult",
    "MixRequest",
    "MixResult",
    "NoiseRequest",
    "NoiseResult",
    "OutputImage",
    "ProjectRequest",
    "ProjectResult",
    "ProjectTask",
    "SegmentRequest",
    "SegmentResult",
    "SegmentSeedsResult",
    "Session",
    "ShowRequest",
    "ShowResult",
    "TranslateRequest",
    "TranslateResult",
    "TranslateStream",
    "blend_models",
    "find_model",
]


T = TypeVar("T")


def _method(
    kind: type,  # of request
    *tasks: type,  # types of prepared requests, accepted as well
    function: Callable[..., T],  # function(model, request), most with `progress`
) -> Callable[..., T]:
    """Make a method that takes a request, or the fields of a request by name."""
    names, kinds = {field.name for field in dataclasses.fields(kind)}, (kind, *tasks)

    def method(self: Session, request: object = None, *more: Any, **options: Any) -> T:
        fields = {name: options.pop(name) for name in names & options.keys()}
        if request is None:
            request = kind(**fields)
        elif fields or not isinstance(request, kinds):
            names_of_kinds = " or ".join(k.__name__ for k in kinds)
            raise TypeError(f"{function.__name__} takes a {names_of_kinds}, or the fields of a request by name")
        options = _defaults(function, more) | options
        with self.use_kernels(), owned_by(self.owner):
            return function(self, request, *more, **options)

    method.__name__, method.__qualname__ = function.__name__, f"Session.{function.__name__}"
    method.__doc__ = function.__doc__
    return method


def _defaults(function: Callable[..., Any], more: tuple[Any, ...]) -> dict[str, Any]:
    """Progress, for functions that report it."""
    reports = not more and "progress" in inspect.signature(function).parameters
    return {"progress": default_progress()} if reports else {}


class Session(Model):
    """An open model. Every method that takes a request also takes the fields of the request by name."""

    generate = _method(GenerateRequest, function=generate.generate)
    mix = _method(MixRequest, function=mix.mix)
    interpolate = _method(InterpolateRequest, function=interpolate.interpolate)
    equivariance = _method(EquivarianceRequest, function=equivariance.equivariance)
    noise_study = _method(NoiseRequest, function=noise.noise_study)
    find_directions = _method(FindRequest, function=edit.find_directions)
    show_directions = _method(ShowRequest, function=edit.show_directions)
    edit = _method(EditRequest, function=edit.edit)
    prepare_drag = _method(DragRequest, function=drag.prepare_drag)
    drag = _method(DragRequest, drag.Drag, function=drag.drag)
    prepare_projection = _method(ProjectRequest, function=project.prepare_projection)
    project = _method(ProjectRequest, ProjectTask, function=project.project)
    encode = _method(EncodeRequest, function=encode.encode_images)
    translate = _method(TranslateRequest, function=translate.translate_images)
    fit_segmenter = _method(FitSegmenterRequest, function=fit_segmenter.fit_segmenter)
    segment = _method(SegmentRequest, function=segment.segment)
    prepare_attribution = _method(AttributeRequest, function=attribute.prepare_attribution)
    attribute = _method(AttributeRequest, AttributeTask, function=attribute.attribute)

    def tune(
        self,
        result: ProjectResult,
        steps: int,
        progress: Progress | None = None,  # None: a bar in notebooks
    ) -> ProjectResult:
        """Tune the generator around a projection, further if it is tuned already. Ctrl-C keeps the progress so far."""
        with self.use_kernels():
            return project.tune_projection(result, steps, progress or default_progress())

    def calibrate(
        self,
        task: AttributeTask,
        progress: Progress | None = None,  # None: a bar in notebooks
    ) -> AttributeTask:
        """Add the calibration: distances of projected generated and real images, which are cached."""
        with self.use_kernels():
            return attribute.add_calibration(self, task, progress or default_progress())

    def metrics(
        self,
        *names: str,  # fid, kid, ppl ..., see metrics.registry
        data: str | Path | None = None,  # real images; None: those that the model was trained on
        progress: Progress | None = None,  # None: a bar in notebooks
        **options: Any,  # see metrics.registry.resolve
    ) -> Results:
        """Measure metrics of the model."""
        protocol, reals = resolve(names, **options), None
        if self.info.is_labeled or protocol.needs_reals:
            reals = open_training_dataset(self.info, None if data is None else str(data))
        with self.use_kernels():
            return measure(protocol, self.G, reals, self.device, progress or default_progress())
