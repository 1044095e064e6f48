"""The result of requests that render a video."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..data.video import write_video
from .notebook import video_html


@dataclass(frozen=True, eq=False, kw_only=True)
class VideoResult:
    """F frames, generated on demand: `images` keeps all of them, `save` one batch at a time."""

    count: int  # F
    fps: int
    loop: bool
    metadata: dict[str, str]
    notes: list[str]  # useful information
    synthesize: Callable[[], Iterator[Tensor]]  # uint8 [C, H, W], frame by frame
    warnings: list[str] = field(default_factory=list)  # important information

    @functools.cached_property
    def images(self) -> Tensor:  # uint8 [F, C, H, W]
        return torch.stack(list(self.synthesize()))

    def save(
        self,
        path: str | Path,  # .gif, .webp or .mp4
    ) -> Path:
        """Write the video atomically. Raises the errors of `write_video`."""
        frames = self.images if "images" in self.__dict__ else self.synthesize()
        write_video(frames, self.count, path, fps=self.fps, loop=self.loop, metadata=self.metadata)
        return Path(path)

    def _repr_html_(self) -> str:
        return video_html(self.save)
