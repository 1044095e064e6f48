"""Paths through the latent space, and the latents of each video frame along them.

A path is a function of time, which advances by 1 from one keyframe to the next. A closed path with K keyframes returns
to the first one at time K; a loop shows the first frame once, so that it continues seamlessly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import MisuseError, SganError
from ..models.generator import Generator
from ..models.registry import require_transform
from ..ops import to_float64
from .generate import SamplingOptions
from .labels import class_labels
from .latent_files import Latents, collect_latents
from .latents import latents_from_seeds
from .mixing import mix_styles, mixed_styles
from .view import input_indices, view_path

Kind = Literal["spline", "linear", "slerp", "trunc", "mix"]
Path = Callable[[Tensor], Tensor]  # times [M] float64 -> points [M, ...]


def slerp(
    a: Tensor,  # [N, D]
    b: Tensor,  # [N, D]
    t: Tensor,  # [N, 1] float64
) -> Tensor:  # [N, D], of length √D
    """Interpolate along the great circle between the directions of a and b (Shoemake 1985)."""
    device, (a, b) = a.device, (torch.nn.functional.normalize(to_float64(x), dim=1) for x in (a, b))
    cosine = (a * b).sum(1, keepdim=True)
    across = torch.nn.functional.normalize(b - cosine * a, dim=1)
    angle = t.to(a.device) * cosine.clamp(-1, 1).acos()
    return ((a * angle.cos() + across * angle.sin()) * a.shape[1] ** 0.5).float().to(device)


def lerp(
    a: Tensor,  # [N, ...]
    b: Tensor,  # [N, ...]
    t: Tensor,  # [N, 1, ...] float64
) -> Tensor:  # [N, ...]
    """Interpolate linearly from a to b."""
    start, end = to_float64(a), to_float64(b)
    return torch.lerp(start, end, t.to(start.device)).to(a.dtype).to(a.device)


def frame_times(
    num_keyframes: int,
    steps: int,  # frames from one keyframe to the next
    loop: bool,
) -> Tensor:  # [K * steps] or [(K - 1) * steps + 1] float64
    """Return the time of each frame. A loop ends one frame before the first keyframe recurs; otherwise both ends are
    included."""
    num_frames = num_keyframes * steps if loop else (num_keyframes - 1) * steps + 1
    return torch.arange(num_frames, dtype=torch.float64) / steps


def linear(
    keyframes: Tensor,  # [K, ...]
) -> Path:
    """A closed path of straight lines between the keyframes."""

    def path(t: Tensor) -> Tensor:
        i, j, fraction = _locate(t, keyframes)
        return lerp(keyframes[i], keyframes[j], fraction)

    return path


def spline(
    keyframes: Tensor,  # [K, ...]
    loop: bool,  # closed (periodic); otherwise a natural spline: no curvature at both ends
) -> Path:
    """The cubic spline through the keyframes, twice continuously differentiable (de Boor 1978, chapter 4)."""
    from scipy.interpolate import CubicSpline

    y = (torch.cat([keyframes, keyframes[:1]]) if loop else keyframes).cpu().double().numpy()
    curve = CubicSpline(range(len(y)), y, bc_type="periodic" if loop else "natural")
    return lambda t: torch.from_numpy(curve(t.numpy())).to(keyframes)


def spherical(
    G: Generator,
    seeds: Sequence[int],  # [K]
    options: SamplingOptions,
) -> Path:
    """A closed path along great circles in Z (White 2016, section 2.1), mapped to W. The lengths of z, which count
    where no mapping network normalizes it, and class labels are interpolated linearly."""
    device = G.device
    z = latents_from_seeds(seeds, G.config.z_dim).to(device)
    lengths = linear(z.norm(dim=1, keepdim=True) / z.shape[1] ** 0.5)
    c = class_labels(options.class_index, seeds, G.label_space)
    classes = None if c is None else linear(c.to(device))

    def path(t: Tensor) -> Tensor:
        i, j, fraction = _locate(t, z)
        points = slerp(z[i], z[j], fraction) * lengths(t)
        return G.mapping(points, classes and classes(t), options.trunc, options.trunc_cutoff)

    return path


def truncation_sweep(
    G: Generator,
    w: Tensor,  # [num_ws, w_dim], not truncated
    sweep: tuple[float, float],  # psi at time 0 and at time 1
    cutoff: int | None = None,  # number of leading ws to truncate; None: all
) -> Path:
    """A path of one latent with psi changing linearly from one value to the other, and back."""
    return linear(torch.cat([G.truncate(w[None], psi, cutoff) for psi in sweep]))


def style_sweep(
    keyframes: Tensor,  # [K, num_ws, w_dim]
    indices: Sequence[int],  # w indices of the styles to change
) -> Path:
    """A closed path of the first keyframe with the chosen styles interpolated between all keyframes."""
    return linear(mix_styles(keyframes[:1], keyframes, indices)[0])


class Frames:
    """The latents or noise of a video, computed when sliced: frame by frame, and cell by cell within a frame."""

    def __init__(
        self,
        paths: Sequence[Path],  # one per cell
        times: Tensor,  # [F] float64
    ):
        self.paths, self.times = list(paths), times

    def __len__(self) -> int:
        return len(self.times) * len(self.paths)

    def __getitem__(self, part: slice) -> Tensor:  # [M, ...]
        cells = len(self.paths)
        positions = [divmod(image, cells) for image in range(len(self))[part]]
        # One at a time: the result must not depend on the batch.
        return torch.cat([self.paths[cell](self.times[frame : frame + 1]) for frame, cell in positions])


@dataclass(frozen=True)
class Video:
    """The inputs of `generate_images` for all images of a video."""

    G: Generator  # the model, tuned if a file of latents requires it
    ws: Frames  # of [M, num_ws, w_dim]
    noise: list[Frames] | None  # of [M, 1, h, w] for each layer with noise; None: the model's own noise
    transforms: Frames | None  # of [M, 3, 3] of the input; None: the image does not move
    keyframes: list[list[str]]  # names of the keyframes of each cell
    tuned: str | None = None  # name of the file of tuned weights

    @property
    def frames(self) -> int:
        return len(self.ws.times)


def plan_video(
    G: Generator,
    items: Sequence[int | str] | None,  # keyframes: seeds and names of files of latents; None: six seeds per cell
    options: SamplingOptions,
    kind: Kind,
    *,
    cells: int | None = None,  # number of cells, which get keyframes in turn; None: 1; for 'trunc', one per keyframe
    steps: int = 45,  # frames from one keyframe to the next
    loop: bool = True,
    styles: str | Sequence[int] | None = None,  # styles to interpolate, for 'mix'; None: see `mixed_styles`
    sweep: tuple[float, float] = (0.0, 1.0),  # range of psi, for 'trunc'
    lock_view: bool = False,  # keep the latent that moves the image, that of each cell's first keyframe
    model: str | None = None,  # fingerprint of G, if known
) -> Video:
    """Plan a video through keyframes, in which the image moves by the options' view. Raises SganError if they are too
    few, do not fit the cells, or cannot be read."""
    min_keyframes = 1 if kind == "trunc" else 2  # per cell
    items = items or range(6 if cells is None else cells if min_keyframes == 1 else 6 * cells)
    _check_kind(kind, items, options)
    if lock_view:
        require_transform(G.config, "--lock-view")
        if not input_indices(G):
            raise SganError("--lock-view needs a model whose latents move the image; those of this model do not.")
    if options.view(G) is not None and len(items) == (cells or 1) < min_keyframes * (cells or 1):
        items = [*items, *items]  # images that only move
    latents = collect_latents(G, items, options, model)
    instead = "Use --kind spline" + (", and remove --styles." if styles else ".")
    indices = mixed_styles(G.layers, styles, instead) if kind == "mix" else []
    assignment = _assign_keyframes(len(latents), cells, min_keyframes)

    def path(keyframes: list[int]) -> Path:
        ws = latents.ws[keyframes]
        if kind == "spline":
            return spline(ws, loop)
        if kind == "slerp":
            return spherical(G, [latents.seeds[i] for i in keyframes], options)
        if kind == "trunc":
            return truncation_sweep(G, ws[0], sweep, options.trunc_cutoff)
        return style_sweep(ws, indices) if kind == "mix" else linear(ws)

    def locked(path: Path) -> Path:
        if not lock_view:
            return path
        indices = input_indices(G)
        first = path(torch.zeros(1, dtype=torch.float64))[:, indices]
        return lambda t: path(t).index_copy(1, torch.tensor(indices, device=first.device), first.expand(len(t), -1, -1))

    count = 2 if kind == "trunc" else len(assignment[0])
    times = frame_times(count, steps, loop)
    noise = _noise_frames(latents, [cell[:1] if kind in ("mix", "trunc") else cell for cell in assignment], times)
    names = [[latents.names[i] for i in cell] for cell in assignment]
    ws = Frames([locked(path(cell)) for cell in assignment], times)
    transforms = None
    if options.view(G) is not None:
        sides = G.config.width, G.config.height
        motion = view_path(options.translate, options.rotate, count if loop else count - 1, loop, sides)
        transforms = Frames([motion] * len(assignment), times)
    return Video(latents.G, ws, noise, transforms, names, latents.tuned)


def _check_kind(kind: Kind, items: Sequence[int | str], options: SamplingOptions) -> None:
    if kind == "slerp" and (files := [item for item in items if isinstance(item, str)]):
        raise MisuseError(
            f"--kind slerp needs seeds, not files of latents: {', '.join(files)}.",
            hint="Use --kind spline or linear.",
        )
    if kind == "trunc" and options.trunc != 1:
        raise MisuseError("--kind trunc varies the truncation itself.", hint="Replace --trunc by --sweep FROM TO.")


def _assign_keyframes(
    count: int,  # number of keyframes
    cells: int | None,
    min_keyframes: int,  # per cell; 1: exactly one
) -> list[list[int]]:  # indices of the keyframes of each cell
    """Assign keyframes to cells in turn, so that they appear in the given order."""
    cells = cells or (count if min_keyframes == 1 else 1)
    if min_keyframes == 2 and cells == count == 1:
        raise MisuseError("One keyframe is not enough for a video.", hint="Use two or more, such as --seeds 0-5.")
    if count != cells if min_keyframes == 1 else count % cells or count < 2 * cells:
        requirement = "one keyframe each" if min_keyframes == 1 else "two or more keyframes each, all the same number"
        raise MisuseError(
            f"{count} keyframes do not fit the {cells} cells of the grid, which need {requirement}.",
            hint=f"Use --seeds 0-{cells * min_keyframes - 1}, for example.",
        )
    return [list(range(cell, count, cells)) for cell in range(cells)]


def _noise_frames(
    latents: Latents,
    assignment: list[list[int]],  # for each cell: indices of the latents whose noise is interpolated
    times: Tensor,  # [F] float64
) -> list[Frames] | None:
    if latents.noise is None:
        return None
    return [Frames([linear(maps[cell]) for cell in assignment], times) for maps in latents.noise]


def _locate(
    t: Tensor,  # [M] float64
    keyframes: Tensor,  # [K, ...]
) -> tuple[Tensor, Tensor, Tensor]:  # indices [M] int64 of the keyframes before and after, fraction [M, 1, ...] float64
    """Find the keyframes around each time, and the fraction of the way from one to the next, in [0, 1)."""
    before = t.floor()
    i = before.long() % len(keyframes)
    fraction = (t - before).reshape(-1, *[1] * (keyframes.ndim - 1))
    return i, (i + 1) % len(keyframes), fraction
