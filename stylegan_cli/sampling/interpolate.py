"""Ways through the latent space, and the latents of every frame of a video along them.

A path is a function of time, which runs by 1 from one key to the next; a closed one goes from the last key on to the
first and is there again at time K. Frames of a loop are cut so that the one after the last would be the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import SganError
from ..models.generator import Generator
from .generate import SamplingOptions
from .latent_files import Latents, collect_latents
from .latents import class_labels, latents_from_seeds
from .mixing import mix_styles, style_indices

Kind = Literal["spline", "linear", "slerp", "trunc", "mix"]
Path = Callable[[Tensor], Tensor]  # times [M] float64 -> what is there, [M, ...]


def slerp(
    a: Tensor,  # [N, D]
    b: Tensor,  # [N, D]
    t: Tensor,  # [N, 1] float64
) -> Tensor:  # [N, D], of length √D
    """Along the great circle between the directions of a and b (Shoemake 1985)."""
    a, b = (torch.nn.functional.normalize(x.double(), dim=1) for x in (a, b))
    cosine = (a * b).sum(1, keepdim=True)
    across = torch.nn.functional.normalize(b - cosine * a, dim=1)
    angle = t * cosine.clamp(-1, 1).acos()
    return ((a * angle.cos() + across * angle.sin()) * a.shape[1] ** 0.5).float()


def lerp(
    a: Tensor,  # [N, ...]
    b: Tensor,  # [N, ...]
    t: Tensor,  # [N, 1, ...] float64
) -> Tensor:  # [N, ...]
    """Along the line from a to b."""
    return torch.lerp(a.double(), b.double(), t).to(a.dtype)


def frame_times(
    keys: int,
    steps: int,  # frames from one key to the next
    loop: bool,
) -> Tensor:  # [keys * steps] or [(keys - 1) * steps + 1] float64
    """When each frame is. A loop ends one frame before it is back at the first key; otherwise both ends are shown."""
    return torch.arange(keys * steps if loop else (keys - 1) * steps + 1, dtype=torch.float64) / steps


def linear(
    keys: Tensor,  # [K, ...]
) -> Path:
    """Straight from key to key, and from the last to the first."""

    def path(t: Tensor) -> Tensor:
        i, j, part = _between(t, keys)
        return lerp(keys[i], keys[j], part)

    return path


def spline(
    keys: Tensor,  # [K, ...]
    loop: bool,  # closed; otherwise without curvature at both ends
) -> Path:
    """The cubic spline through the keys, twice continuously differentiable (de Boor 1978, chapter 4)."""
    from scipy.interpolate import CubicSpline

    y = (torch.cat([keys, keys[:1]]) if loop else keys).double().cpu().numpy()
    curve = CubicSpline(range(len(y)), y, bc_type="periodic" if loop else "natural")
    return lambda t: torch.from_numpy(curve(t.numpy())).to(keys)


def spherical(
    G: Generator,
    seeds: Sequence[int],  # [K]
    options: SamplingOptions,
) -> Path:
    """Along great circles in Z (White 2016, section 2.1), then through the mapping network; classes fade."""
    device = G.device
    z = latents_from_seeds(seeds, G.config.z_dim).to(device)
    c = class_labels(options.class_index, seeds, G.config.c_dim)
    classes = None if c is None else linear(c.to(device))

    def path(t: Tensor) -> Tensor:
        i, j, part = _between(t, z)
        return G.mapping(slerp(z[i], z[j], part), classes and classes(t), options.trunc, options.trunc_cutoff)

    return path


def truncation_sweep(
    G: Generator,
    w: Tensor,  # [num_ws, w_dim], not truncated
    sweep: tuple[float, float],  # psi at time 0 and at time 1
    cutoff: int | None = None,  # truncate only the first so many ws; None: all
) -> Path:
    """One latent with psi from one value to the other, by the same amount every frame, and back."""
    return linear(torch.cat([G.truncate(w[None], psi, cutoff) for psi in sweep]))


def style_sweep(
    keys: Tensor,  # [K, num_ws, w_dim]
    indices: Sequence[int],  # of the chosen latents
) -> Path:
    """The first key, while its chosen latents fade into those of one key after the other."""
    return linear(mix_styles(keys[:1], keys, indices)[0])


class Frames:
    """What the images of a video are drawn from, made when a slice of it is asked for: frame by frame, in each frame
    cell by cell."""

    def __init__(
        self,
        paths: Sequence[Path],  # one a cell
        times: Tensor,  # [F] float64
    ):
        self.paths, self.times = list(paths), times

    def __len__(self) -> int:
        return len(self.times) * len(self.paths)

    def __getitem__(self, part: slice) -> Tensor:  # [M, ...]
        cells = len(self.paths)  # each alone, so that no batch matters
        places = [divmod(image, cells) for image in range(len(self))[part]]
        return torch.cat([self.paths[cell](self.times[frame : frame + 1]) for frame, cell in places])


@dataclass(frozen=True)
class Video:
    """A video that has not been drawn: what `generate_images` needs for all its images."""

    G: Generator  # the model, tuned where a file says so
    ws: Frames  # of [M, num_ws, w_dim]
    noise: list[Frames] | None  # of [M, 1, h, w] for each layer that takes noise; None: the model's own
    keys: list[list[str]]  # of each cell: the names of its keys
    tuned: str | None = None  # name of the file that G was tuned by

    @property
    def frames(self) -> int:
        return len(self.ws.times)


def plan_video(
    G: Generator,
    items: Sequence[int | str] | None,  # the keys: seeds, and names of .npz files; None: seeds, six for each cell
    options: SamplingOptions,
    kind: Kind,
    *,
    cells: int | None = None,  # that the keys are dealt out to in turn; None: one, for 'trunc' as many as keys
    steps: int = 45,  # frames from key to key
    loop: bool = True,
    styles: str | Sequence[int] = "coarse",  # what fades, for 'mix'
    sweep: tuple[float, float] = (0.0, 1.0),  # of psi, for 'trunc'
    model: str | None = None,  # fingerprint of G, where it is known
) -> Video:
    """A video through keys. Raises SganError if they are too few, do not fit the cells, or cannot be had."""
    each = 1 if kind == "trunc" else 2  # keys that a cell needs
    items = items or range(6 if cells is None else cells if each == 1 else 6 * cells)
    if kind == "slerp" and (files := [item for item in items if isinstance(item, str)]):
        raise SganError(f"{files[0]} holds no z to go along the sphere from.", hint="Use --kind spline or linear.")
    if kind == "trunc" and options.trunc != 1:
        raise SganError(
            "--kind trunc moves the truncation itself.", hint="Leave out --trunc, and give --sweep FROM TO."
        )
    keys = collect_latents(G, items, options, model)
    indices = style_indices(G.layers, styles) if kind == "mix" else []
    hands = _deal(len(keys), cells, each)

    def path(hand: list[int]) -> Path:
        ws = keys.ws[hand]
        if kind == "spline":
            return spline(ws, loop)
        if kind == "slerp":
            return spherical(G, [keys.seeds[i] for i in hand], options)
        if kind == "trunc":
            return truncation_sweep(G, ws[0], sweep, options.trunc_cutoff)
        return style_sweep(ws, indices) if kind == "mix" else linear(ws)

    times = frame_times(2 if kind == "trunc" else len(hands[0]), steps, loop)
    noise = _noise(keys, [hand[:1] if kind in ("mix", "trunc") else hand for hand in hands], times)
    names = [[keys.names[i] for i in hand] for hand in hands]
    return Video(keys.G, Frames([path(hand) for hand in hands], times), noise, names, keys.tuned)


def _deal(
    count: int,  # keys
    cells: int | None,
    each: int,  # the least that a cell needs; 1: and the most
) -> list[list[int]]:
    """Which keys each cell gets: in turn, so that they are seen in the order given."""
    cells = cells or (count if each == 1 else 1)
    if each == 2 and cells == count == 1:
        raise SganError("A video goes from key to key, and there is only one.", hint="Give --seeds 0-5 for example.")
    if count != cells if each == 1 else count % cells or count < 2 * cells:
        needs = "one each" if each == 1 else "two or more each, and all the same number"
        raise SganError(
            f"The grid has {cells} cells, which need {needs}, and there are {count} keys.",
            hint=f"Give --seeds 0-{cells * each - 1} for example.",
        )
    return [list(range(cell, count, cells)) for cell in range(cells)]


def _noise(
    keys: Latents,
    hands: list[list[int]],  # of each cell: the keys whose noise it has, one after the other
    times: Tensor,  # [F] float64
) -> list[Frames] | None:
    if keys.noise is None:
        return None
    return [Frames([linear(maps[hand]) for hand in hands], times) for maps in keys.noise]


def _between(
    t: Tensor,  # [M] float64
    keys: Tensor,  # [K, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """The keys before and after, [M] int64, and how far it is from one to the other, [M, 1, ...] float64 in [0, 1)."""
    before = t.floor()
    i = before.long() % len(keys)
    part = (t - before).to(keys.device).reshape(-1, *[1] * (keys.ndim - 1))
    return i, (i + 1) % len(keys), part
