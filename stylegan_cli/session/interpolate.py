"""Videos that move through the latent space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from ..data.images import grid_columns
from ..data.video import frame_grids
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import SamplingOptions, generate_images
from ..sampling.interpolate import Kind, plan_video
from .model import Model, tuned_note, upcast
from .video import VideoResult


@dataclass(frozen=True)
class InterpolateRequest(SamplingOptions):
    """The keyframes, and how to interpolate between them."""

    seeds: Sequence[int | str] | None = None  # keyframes: seeds, .npz files; None: six per cell, one for kind 'trunc'
    kind: Kind = "spline"
    frames: int = 45  # number of frames from each keyframe to the next
    fps: int = 30  # frames per second
    loop: bool = True  # return to the first keyframe
    grid: tuple[int, int] | None = None  # rows and columns of cells, each with its own keyframes
    styles: str | Sequence[int] | None = None  # that kind 'mix' fades; None: see `mixed_styles`
    sweep: tuple[float, float] | None = None  # range of psi for kind 'trunc'; None: 0 to 1
    lock_view: bool = False  # keep the first keyframe's latent of the input, which translates and rotates the image

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(
            self,
            seeds=checks.latents(),
            kind=checks.choice(*get_args(Kind)),
            frames=checks.integer(1),
            fps=checks.integer(1, 120),
            loop=checks.flag(),
            grid=checks.list_of(checks.integer(1), "(2, 3)", 2, 2),
            styles=checks.styles(),
            sweep=checks.list_of(checks.number(), "(0.0, 1.0)", 2, 2),
            lock_view=checks.flag(),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class InterpolateResult(VideoResult):
    """A video through keyframes."""

    keys: list[list[str]]  # names of the keyframes of each cell


def interpolate(
    model: Model,
    request: InterpolateRequest,
    progress: Progress = silent,
) -> InterpolateResult:
    """Render a video that moves through the latent space. Raises SganError if the keyframes are too few, do not fit the
    cells, or cannot be read."""
    sampling, grid, config = upcast(SamplingOptions, request), request.grid, model.G.config
    video = plan_video(
        model.G,
        request.seeds,
        sampling,
        request.kind,
        cells=grid and grid[0] * grid[1],
        steps=request.frames,
        loop=request.loop,
        styles=request.styles,
        sweep=request.sweep or (0.0, 1.0),
        lock_view=request.lock_view,
        model=model.fingerprint,
    )
    columns = grid[1] if grid else grid_columns(len(video.keyframes), config.height / config.width)
    metadata = model.metadata(
        sampling,
        tuned=video.tuned,
        kind=request.kind,
        keys=video.keyframes,
        styles=request.styles,
        sweep=request.sweep,
        frames=request.frames,
        fps=request.fps,
        loop=request.loop,
        lock_view=request.lock_view or None,
    )

    def frames() -> Iterator[Tensor]:
        seeds = range(len(video.ws))
        cells = generate_images(
            video.G,
            lambda i, j: video.ws[i:j],
            seeds,
            sampling,
            progress,
            noise=video.noise,
            transforms=video.transforms,
        )
        return model.with_kernels(frame_grids(cells, len(video.keyframes), columns))

    return InterpolateResult(
        count=video.frames,
        fps=request.fps,
        loop=request.loop,
        metadata=metadata,
        notes=tuned_note(video.tuned),
        synthesize=frames,
        keys=video.keyframes,
    )
