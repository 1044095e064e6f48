"""Videos of a walk through the latent space."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from ..data.images import grid_columns
from ..data.video import frame_grids, write_video
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import SamplingOptions, generate_images
from ..sampling.interpolate import Kind, plan_video
from .model import Model, part, tuned_note


@dataclass(frozen=True)
class InterpolateRequest(SamplingOptions):
    """Where to go, and how fast."""

    seeds: Sequence[int | str] | None = None  # keys: seeds, and names of .npz files; None: six a cell, of 'trunc' one
    kind: Kind = "spline"
    frames: int = 45  # from one key to the next
    fps: int = 30  # frames a second
    loop: bool = True  # back to the first key
    grid: tuple[int, int] | None = None  # rows and columns of cells, each with keys of its own
    styles: str | Sequence[int] | None = None  # of kind 'mix'; None: 'coarse'
    sweep: tuple[float, float] | None = None  # of kind 'trunc', of psi; None: 0 to 1

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
        )


@dataclass(frozen=True, eq=False)
class InterpolateResult:
    """F frames, drawn when they are asked for: `images` keeps all, `save` only what is being drawn."""

    count: int  # F
    fps: int
    loop: bool
    keys: list[list[str]]  # of each cell: the names of its keys
    record: dict[str, str]  # metadata
    notes: list[str]  # what is good to know
    draw: Callable[[], Iterator[Tensor]]  # uint8 [C, H, W], frame by frame
    warnings: list[str] = field(default_factory=list)  # what one has to know

    @functools.cached_property
    def images(self) -> Tensor:  # uint8 [F, C, H, W]
        return torch.stack(list(self.draw()))

    def save(
        self,
        path: str | Path,  # its ending says what: .gif, .webp or .mp4
    ) -> Path:
        """Write the video, whole or not at all. Raises what `write_video` does."""
        frames = self.images if "images" in self.__dict__ else self.draw()
        write_video(frames, self.count, path, fps=self.fps, loop=self.loop, metadata=self.record)
        return Path(path)


def interpolate(
    model: Model,
    request: InterpolateRequest,
    progress: Progress = silent,
) -> InterpolateResult:
    """A video of a walk through the latent space. Raises SganError if the keys are too few, do not fit the cells, or
    cannot be had."""
    sampling, grid, config = part(SamplingOptions, request), request.grid, model.G.config
    video = plan_video(
        model.G,
        request.seeds,
        sampling,
        request.kind,
        cells=grid and grid[0] * grid[1],
        steps=request.frames,
        loop=request.loop,
        styles=request.styles or "coarse",
        sweep=request.sweep or (0.0, 1.0),
        model=model.fingerprint,
    )
    columns = grid[1] if grid else grid_columns(len(video.keyframes), config.height / config.width)
    record = model.record(
        sampling,
        tuned=video.tuned,
        kind=request.kind,
        keys=video.keyframes,
        styles=request.styles,
        sweep=request.sweep,
        frames=request.frames,
        fps=request.fps,
        loop=request.loop,
    )

    def frames() -> Iterator[Tensor]:
        cells = generate_images(
            video.G, lambda i, j: video.ws[i:j], range(len(video.ws)), sampling, progress, noise=video.noise
        )
        return model.drawing(frame_grids(cells, len(video.keyframes), columns))

    return InterpolateResult(
        video.frames, request.fps, request.loop, video.keyframes, record, tuned_note(video.tuned), frames
    )
