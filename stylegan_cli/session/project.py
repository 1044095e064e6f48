"""The latents whose images are nearest given ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..data.images import grid_columns
from ..data.video import frame_grids, write_video
from ..detectors.distances import Loss
from ..inversion.projection import LOSSES, ProjectionInput, choose_loss, prepare_input, project_images
from ..inversion.projector import ProjectionOptions
from ..inversion.results import Projection, output_paths, path_frames, psnr, save_projection
from ..inversion.tuning import tune
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import SamplingOptions
from .model import Model, part

VIDEO_RATE = 20  # frames a second of the way


@dataclass(frozen=True)
class ProjectRequest(ProjectionOptions):
    """What to project, and how."""

    images: Sequence[str | Path] = ()  # files
    loss: str | None = None  # 'lpips', 'discriminator' or 'pixel'; None: lpips where its weights can be had
    detector: str | None = None  # a file with weights of LPIPS
    mask: str | Path | None = None  # an image: where it is white pixels count
    crop: str = "center"  # to the model's shape; or 'none'
    init: str | Path | None = None  # a file of latents to begin at

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(
            self,
            images=checks.list_of(checks.path(), "['face.png']"),
            loss=checks.choice(*LOSSES),
            detector=checks.path(),
            mask=checks.path(),
            init=checks.path(),
            crop=checks.choice("center", "none"),
        )


@dataclass(frozen=True, eq=False)
class ProjectTask:
    """A request whose files have been read."""

    request: ProjectRequest
    task: ProjectionInput
    loss: Loss
    warnings: list[str]

    def files(
        self,
        folder: str | Path,
    ) -> list[Path]:
        """What `ProjectResult.save` will write there for each image."""
        return [path for pair in output_paths(Path(folder), self.task.names) for path in pair]


@dataclass(frozen=True, eq=False)
class ProjectResult:
    """What was found for N images: fewer than were asked for if it was interrupted."""

    model: Model
    task: ProjectTask
    finding: Projection
    interrupted: bool
    notes: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        return self.task.warnings

    @property
    def names(self) -> list[str]:  # [N]
        return list(self.finding.names)

    @property
    def missing(self) -> list[str]:
        """The images that were not begun."""
        return self.task.task.names[len(self.names) :]

    @property
    def ws(self) -> Tensor:  # [N, num_ws, w_dim]
        return self.finding.latents.ws

    @property
    def images(self) -> Tensor:  # uint8 [N, C, H, W]
        with self.model.chosen_kernels():
            return self.finding.images

    @property
    def distance(self) -> list[float]:
        """Of each image from its target, by the loss."""
        return self.finding.distance.tolist()

    @property
    def psnr(self) -> list[float]:
        """Of each image, in dB."""
        with self.model.chosen_kernels():
            return psnr(self.finding).tolist()

    @property
    def record(self) -> dict[str, str]:
        """Metadata of all that is written."""
        request, loss = self.task.request, self.task.loss.name
        more = {
            "noise_mode": request.noise,
            "space": request.space,
            "steps": request.steps,
            "seed": request.seed,
            "crop": request.crop,
        }
        return self.model.record(SamplingOptions(class_index=request.class_index), loss=loss, **more)

    def save(
        self,
        folder: str | Path,
    ) -> list[Path]:
        """Latents first, then images, compare.png last."""
        request, loss = self.task.request, self.task.loss.name
        targets = [str(path) for path in request.images]
        settings = {"model": str(self.model.path), "loss": loss, "targets": targets, "command": self.model.command}
        with self.model.chosen_kernels():
            return save_projection(
                Path(folder),
                self.task.task.names,
                self.finding,
                part(ProjectionOptions, request),
                self.model.fingerprint,
                settings,
                self.record,
            )

    def save_video(
        self,
        path: str | Path,  # its ending says what: .gif, .webp or .mp4
        progress: Progress = silent,
    ) -> Path:
        """Write the way there: beside each target its projection."""
        count = len(self.names)
        frames = frame_grids(path_frames(self.finding, progress), 2 * count, 2 * grid_columns(count))
        frames = self.model.drawing(frames)
        write_video(frames, len(self.finding.latents.path), path, fps=VIDEO_RATE, metadata=self.record)
        return Path(path)


def prepare_projection(
    model: Model,
    request: ProjectRequest,
) -> ProjectTask:
    """The files of a request, for `project`, which takes minutes: all that is given is looked at before anything is
    searched. Raises SganError on whatever is wrong with it."""
    fingerprint = model.fingerprint if request.init else None
    task = prepare_input(
        model.snapshot, request.images, mask=request.mask, crop=request.crop, init=request.init, model=fingerprint
    )
    loss, warnings = choose_loss(request.loss, model.snapshot, request.detector)
    return ProjectTask(request, task, loss, warnings)


def project(
    model: Model,
    request: ProjectRequest | ProjectTask,
    progress: Progress = silent,
) -> ProjectResult:
    """The latents whose images are nearest given ones. Ctrl-C ends the search with what was found; raises
    KeyboardInterrupt if that is nothing."""
    task = request if isinstance(request, ProjectTask) else prepare_projection(model, request)
    finding = project_images(model.snapshot, task.task, part(ProjectionOptions, task.request), task.loss, progress)
    return ProjectResult(model, task, finding, finding.latents.interrupted)


def tune_projection(
    result: ProjectResult,
    steps: int,
    progress: Progress,
) -> ProjectResult:
    """The same with the generator tuned around the latents, further where it has been. Ctrl-C ends it with what was
    reached."""
    checks.integer(1)("steps", steps)
    task, finding = result.task, result.finding
    targets, batch = finding.targets, task.request.batch
    G = finding.G if finding.tuned is None else finding.tuned
    G, distance, done = tune(G, targets, finding.latents, task.loss, steps, task.task.mask, batch, progress)
    made = finding.tuned_steps + done
    finding = dataclasses.replace(finding, tuned=G, tuned_distance=distance, tuned_steps=made)
    return dataclasses.replace(result, finding=finding, interrupted=done < steps)
