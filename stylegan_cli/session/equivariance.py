"""Videos of the images of a moving input beside the same images with the motion undone, which should stand still."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..data.codec import from_array
from ..data.images import font_for, to_rgb, to_uint8
from ..metrics.equivariance import peak_signal_to_noise
from ..metrics.metric import Motion
from ..metrics.motions import MAX_SHIFT, compare, input_transform, squared_errors
from ..metrics.resampling import rotate, shift_by_fraction
from ..models.generator import Generator
from ..models.registry import require_transform
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import SamplingOptions
from ..sampling.latent_files import Latents
from ..sampling.latents import noise_maps
from .model import Model, tuned_note, upcast
from .video import VideoResult

MOTIONS: dict[str, Motion] = {"translate": "frac", "rotate": "rotate"}
_TITLES = {"translate": "translation", "rotate": "rotation"}
_MIN_SIDE = 128  # pixels; smaller images are enlarged
_MARGIN, _INK, _FAINT = (245, 245, 245), (40, 40, 40), (120, 120, 120)


@dataclass(frozen=True)
class EquivarianceRequest(SamplingOptions):
    """The images to move, and how."""

    seeds: Sequence[int | str] = range(2)  # seeds and names of .npz files
    motion: str = "both"  # 'translate', 'rotate' or 'both'
    frames: int = 96  # number of frames, in which the motion returns to its beginning
    fps: int = 24  # frames per second

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fields(
            self,
            seeds=checks.latents(),
            motion=checks.choice(*MOTIONS, "both"),
            frames=checks.integer(2),
            fps=checks.integer(1, 120),
        )

    @property
    def motions(self) -> list[str]:
        return [*MOTIONS] if self.motion == "both" else [self.motion]


@dataclass(frozen=True, eq=False, kw_only=True)
class EquivarianceResult(VideoResult):
    """A video of moving images beside themselves with the motion undone."""

    names: list[str]  # of the images
    errors: dict[str, dict[int, Tensor]]  # motion -> frame -> [N, 2], see `metrics.motions.squared_errors`

    @property
    def decibels(self) -> dict[str, float]:
        """The signal-to-noise ratio of each motion in all frames, once these are generated."""
        every = {motion: torch.cat([*frames.values()]) for motion, frames in self.errors.items() if frames}
        return {motion: peak_signal_to_noise(errors).value for motion, errors in every.items()}


def equivariance(
    model: Model,
    request: EquivarianceRequest,
    progress: Progress = silent,
) -> EquivarianceResult:
    """Render a video of images whose input moves, beside the same images with the motion undone.

    Raises SganError if the model has no input transform, or a file does not fit it.
    """
    require_transform(model.G.config, "This video")
    sampling = upcast(SamplingOptions, request).for_measuring()
    sources = model.latents(request.seeds, sampling)
    settings = {"motion": request.motion, "frames": request.frames, "fps": request.fps}
    errors: dict[str, dict[int, Tensor]] = {motion: {} for motion in request.motions}
    return EquivarianceResult(
        count=request.frames,
        fps=request.fps,
        loop=True,
        metadata=model.metadata(sampling, tuned=sources.tuned, seeds=sources.names, **settings),
        notes=tuned_note(sources.tuned),
        synthesize=lambda: model.with_kernels(_frames(sources, sampling, request.frames, errors, progress)),
        names=sources.names,
        errors=errors,
    )


def _frames(
    sources: Latents,  # N
    sampling: SamplingOptions,
    count: int,
    errors: dict[str, dict[int, Tensor]],  # motion -> frame -> [N, 2], to be filled
    progress: Progress,
) -> Iterator[Tensor]:  # uint8 [3, H, W]
    layout, still = _Layout(sources.G, sources.names, list(errors)), _synthesize(sources, sampling)
    progress("frames", 0, count)
    for k in range(count):
        panels = {}
        for motion in errors:
            # Never at the start or halfway, where there is nothing to undo.
            amounts = _amounts(motion, (k + 0.25) / count, still)
            images, errors[motion][k] = _move(motion, sources, sampling, still, amounts)
            panels[motion] = (*images, peak_signal_to_noise(errors[motion][k]).value)
        progress("frames", k + 1, count)
        yield layout.render(panels)


@torch.inference_mode()
def _synthesize(
    sources: Latents,  # N
    sampling: SamplingOptions,
    transforms: Tensor | None = None,  # [N, 3, 3]
) -> Tensor:  # [N, C, H, W]
    batch, images, synthesize = sampling.batch_for(sources.G), [], sampling.synthesizer(sources.G)
    for i in range(0, len(sources), batch):
        part = slice(i, i + batch)
        noise = noise_maps(sources.G, sampling.noise_mode, sources.seeds[part], sources.ws.device)
        if sources.noise is not None and sampling.noise_mode == "const":
            noise = [maps[part] for maps in sources.noise]
        transform = None if transforms is None else transforms[part].to(sources.ws)
        images.append(synthesize(sources.ws[part], noise=noise, transform=transform))
    return torch.cat(images)


def _amounts(
    motion: str,
    time: float,  # from 0 to 1, where the motion returns to its beginning
    images: Tensor,  # [N, C, H, W]
) -> Tensor:  # [N, 2] pixels or [N] angles
    """A figure eight that lies on its side, or a whole turn."""
    angle = 2 * math.pi * time
    if motion == "rotate":
        return torch.full([len(images)], angle, dtype=torch.float64)
    height, width = images.shape[2:]
    x, y = MAX_SHIFT * width * math.sin(angle), MAX_SHIFT * height * math.sin(2 * angle) / 2
    return torch.tensor([[x, y]], dtype=torch.float64).expand(len(images), -1)


def _move(
    motion: str,
    sources: Latents,  # N
    sampling: SamplingOptions,
    still: Tensor,  # [N, C, H, W]
    amounts: Tensor,  # [N, 2] pixels or [N] angles
) -> tuple[tuple[Tensor, Tensor], Tensor]:  # moved and undone uint8 [N, 3, H, W], errors [N, 2]
    kind = MOTIONS[motion]
    moved = _synthesize(sources, sampling, input_transform(kind, amounts, (still.shape[3], still.shape[2])))
    undone, mask = rotate(moved, -amounts) if motion == "rotate" else shift_by_fraction(moved, -amounts)
    errors = squared_errors(*compare(kind, still, moved, amounts)).cpu()
    background = torch.tensor(_MARGIN, dtype=torch.uint8)[:, None, None]
    shown = torch.where(mask.cpu() > 0, to_uint8(to_rgb(undone)).cpu(), background)
    return (to_uint8(to_rgb(moved)).cpu(), shown), errors


class _Layout:
    """Places the images of a frame: a row for each image, two columns for each motion."""

    def __init__(self, G: Generator, names: Sequence[str], motions: Sequence[str]):
        times = max(1, -(-_MIN_SIDE // min(G.config.height, G.config.width)))
        self.height, self.width = G.config.height * times, G.config.width * times
        self.font, self.names = font_for(list(names), max(14, min(self.height, self.width) // 10))
        self.small = self.font.font_variant(size=round(self.font.size * 0.85))
        self.gap = max(4, self.width // 32)
        line = sum(self.font.getmetrics())
        self.lines = 1.1 * line, 2.2 * line  # bottoms of both lines of the header
        self.top = round(2.2 * line + self.gap)
        label = max(round(self.small.getlength(name)) for name in self.names) if len(names) > 1 else 0
        self.left = label + 2 * self.gap if label else 2 * self.gap
        self.motions, self.group = list(motions), 2 * self.width + self.gap  # width of a motion's columns
        width = self.left + len(motions) * (self.group + 4 * self.gap) - 2 * self.gap
        height = self.top + len(names) * (self.height + self.gap) + self.gap
        self.base = Image.new("RGB", (width, height), _MARGIN)
        self._write_labels(ImageDraw.Draw(self.base))

    def _write_labels(self, pen: ImageDraw.ImageDraw) -> None:
        for name, y in zip(self.names, self._rows()):
            if len(self.names) > 1:
                pen.text((self.left - self.gap, y + self.height / 2), name, _INK, self.small, anchor="rm")
        for motion, x in zip(self.motions, self._columns()):
            pen.text((x, self.lines[0]), _TITLES[motion], _INK, self.font, anchor="ld")
            for k, text in enumerate(("input moves", "motion undone")):
                middle = x + k * (self.width + self.gap) + self.width / 2
                pen.text((middle, self.lines[1]), text, _FAINT, self.small, anchor="md")

    def _rows(self) -> list[int]:
        return [self.top + i * (self.height + self.gap) for i in range(len(self.names))]

    def _columns(self) -> list[int]:
        return [self.left + i * (self.group + 4 * self.gap) for i in range(len(self.motions))]

    def render(
        self,
        panels: dict[str, tuple[Tensor, Tensor, float]],  # motion -> moved, undone uint8 [N, 3, H, W], dB
    ) -> Tensor:  # uint8 [3, H, W]
        frame = self.base.copy()
        pen = ImageDraw.Draw(frame)
        for x, (moved, undone, decibels) in zip(self._columns(), panels.values()):
            pen.text((x + self.group, self.lines[0]), f"{decibels:.1f} dB", _INK, self.font, anchor="rd")
            for k, images in enumerate((moved, undone)):
                for image, y in zip(images, self._rows()):
                    pillow = from_array(image.numpy()).resize((self.width, self.height), Image.Resampling.NEAREST)
                    frame.paste(pillow, (x + k * (self.width + self.gap), y))
        return torch.from_numpy(np.array(frame).transpose(2, 0, 1).copy())
