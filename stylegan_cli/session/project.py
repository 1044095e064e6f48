"""Projection: the latents whose images are closest to given ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..data.codec import CROPS, padding
from ..data.images import encode_image, grid_columns
from ..data.video import frame_grids, write_video
from ..detectors.distances import Loss
from ..detectors.losses import LOSSES
from ..errors import MisuseError
from ..inversion.projection import ProjectionInput, choose_loss, prepare_input, project_images
from ..inversion.projector import ProjectionOptions, Start, Watch, batch_size
from ..inversion.results import (
    SHEET,
    Projection,
    comparison_sheet,
    output_paths,
    path_frames,
    psnr,
    save_projection,
)
from ..inversion.tuning import tune
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import LatentSpace, SamplingOptions
from .encode import latents_of, open_encoder, z_of
from .model import Model, upcast

ENCODER = "encoder"  # as `init`
VIDEO_RATE = 20  # frames per second of the video of the search


@dataclass(frozen=True)
class ProjectRequest(ProjectionOptions):
    """The images to project, and how."""

    images: Sequence[str | Path] = ()  # files
    loss: str | None = None  # 'lpips', 'discriminator' or 'pixel'; None: lpips if its weights are available
    detector: str | None = None  # file with weights for LPIPS
    mask: str | Path | None = None  # image: only pixels where it is white count
    crop: str = "center"  # to the model's aspect ratio; 'pad': keep the whole image; or 'none'
    pad: str | None = None  # with 'pad': a color, or 'blur'; None: black
    init: str | Path | None = None  # file of latents to start from; or 'encoder': those that an encoder predicts
    encoder: str | Path | None = None  # file or run folder; None: see `sampling.encoders.find_encoder`
    runs: str | Path = "./runs"  # where the newest encoder is looked for
    latent_space: LatentSpace | None = None  # of that file; None: as its names and shapes say

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(
            self,
            images=checks.list_of(checks.path(), "['face.png']"),
            loss=checks.choice(*LOSSES),
            detector=checks.path(),
            mask=checks.path(),
            init=checks.path(),
            encoder=checks.path(),
            runs=checks.path(),
            latent_space=checks.choice("z", "w", "w+"),
            crop=checks.choice(*CROPS),
            pad=checks.string(),
        )
        padding(self.crop, self.pad)
        if self.encoder is not None and self.init != ENCODER:
            raise MisuseError("--encoder has no effect without --init encoder.", hint="Add it, or remove --encoder.")


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
        """The files that `ProjectResult.save` will write, except tuned weights."""
        pairs = output_paths(Path(folder), self.task.names)
        return [*(path for pair in pairs for path in pair), Path(folder, SHEET)]


@dataclass(frozen=True, eq=False)
class ProjectResult:
    """The projections of N images, fewer than requested if interrupted."""

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
        """The names of images that were not projected."""
        return self.task.task.names[len(self.names) :]

    @property
    def ws(self) -> Tensor:  # [N, num_ws, w_dim]
        return self.finding.latents.ws

    @property
    def images(self) -> Tensor:  # uint8 [N, C, H, W]
        with self.model.use_kernels():
            return self.finding.images

    @property
    def distance(self) -> list[float]:
        """The distance of each image from its target, by the loss."""
        return self.finding.distance.tolist()

    @property
    def psnr(self) -> list[float]:
        """The PSNR of each image, in dB."""
        with self.model.use_kernels():
            return psnr(self.finding).tolist()

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of all files."""
        request, loss = self.task.request, self.task.loss.name
        more = {
            "noise_mode": request.noise,
            "view": None if request.view == "optimize" else request.view,
            "space": request.space,
            "steps": request.steps,
            "seed": request.seed,
            "crop": request.crop,
            "pad": request.pad,
        }
        return self.model.metadata(SamplingOptions(class_index=request.class_index), loss=loss, **more)

    def _repr_png_(self) -> bytes:
        with self.model.use_kernels():
            return encode_image(comparison_sheet(self.finding), "png")

    def save(
        self,
        folder: str | Path,
    ) -> list[Path]:
        """Write latents, images and compare.png; return their paths in this order."""
        request, loss = self.task.request, self.task.loss.name
        targets = [str(path) for path in request.images]
        settings = {"loss": loss, "targets": targets, "command": self.model.command}
        with self.model.use_kernels():
            return save_projection(
                Path(folder),
                self.task.task.names,
                self.finding,
                upcast(ProjectionOptions, request),
                self.model.fingerprint,
                self.model.owner.settings(self.model.path),
                settings,
                self.metadata,
            )

    def save_video(
        self,
        path: str | Path,  # .gif, .webp or .mp4
        progress: Progress = silent,
    ) -> Path:
        """Write a video of the search, with each target beside its projection."""
        count = len(self.names)
        frames = frame_grids(path_frames(self.finding, progress), 2 * count, 2 * grid_columns(count))
        frames = self.model.with_kernels(frames)
        write_video(frames, len(self.finding.latents.path), path, fps=VIDEO_RATE, metadata=self.metadata)
        return Path(path)


def prepare_projection(
    model: Model,
    request: ProjectRequest,
) -> ProjectTask:
    """Read and check the files of a request before `project`, which takes minutes.

    Raises SganError if anything is wrong with them.
    """
    request = request.for_model(model.G.config)
    task = prepare_input(
        model.snapshot,
        request.images,
        mask=request.mask,
        crop=request.crop,
        pad=request.pad,
        init=None if request.init == ENCODER else request.init,
        latent_space=request.latent_space,
        model=model.fingerprint if request.init else None,
    )
    if request.init == ENCODER:
        task = dataclasses.replace(task, start=_encoded_start(model, request, task.targets))
    loss, warnings = choose_loss(request.loss, model.snapshot, request.detector)
    return ProjectTask(request, task, loss, warnings)


def _encoded_start(model: Model, request: ProjectRequest, targets: Tensor) -> Start:
    encoder = open_encoder(model, request.encoder, request.runs)
    parts = targets.split(request.batch or batch_size(targets))
    ws = torch.cat([latents_of(model, encoder, part) for part in parts])
    if request.space != "z":
        return Start(ws if request.space == "w+" else ws.mean(1, keepdim=True).expand_as(ws))
    if encoder.predicts_z:
        return Start(ws, z=torch.cat([z_of(encoder, part) for part in parts]))
    if model.G.config.has_mapping:
        message = f"{encoder.path} predicts latents in W, which --space z cannot start from."
        raise MisuseError(message, hint="Use --space w or w+.")
    return Start(ws)


def project(
    model: Model,
    request: ProjectRequest | ProjectTask,
    progress: Progress = silent,
    watch: Watch | None = None,  # takes the best latents so far [N, num_ws, w_dim] after each step
) -> ProjectResult:
    """Search the latents whose images are closest to the targets. Ctrl-C keeps the best results so far; raises
    KeyboardInterrupt if there are none."""
    task = request if isinstance(request, ProjectTask) else prepare_projection(model, request)
    options = upcast(ProjectionOptions, task.request)
    finding = project_images(model.snapshot, task.task, options, task.loss, progress, watch)
    return ProjectResult(model, task, finding, finding.latents.interrupted)


def tune_projection(
    result: ProjectResult,
    steps: int,
    progress: Progress,
) -> ProjectResult:
    """Tune the generator around the latents, further if it is tuned already. Ctrl-C keeps the progress so far."""
    checks.integer(1)("steps", steps)
    task, finding = result.task, result.finding
    targets, batch = finding.targets, task.request.batch
    G = finding.G if finding.tuned is None else finding.tuned
    G, distance, done = tune(G, targets, finding.latents, task.loss, steps, task.task.mask, batch, progress)
    total = finding.tuned_steps + done
    finding = dataclasses.replace(finding, tuned=G, tuned_distance=distance, tuned_steps=total)
    return dataclasses.replace(result, finding=finding, interrupted=done < steps)
