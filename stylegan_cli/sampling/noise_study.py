"""What noise does to an image: on all layers, none, the fine or the coarse ones alone, and how much each pixel varies
(Karras et al. 2019, section 3.2, figures 4 and 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.images import to_rgb
from ..errors import SganError
from ..models.generator import Generator, LayerInfo
from .generate import SamplingOptions, generate_images
from .latent_files import Latents
from .latents import sample_noise
from .mixing import style_indices

NEGLIGIBLE = 1e-3  # of 255: what rounding alone makes of noise that does nothing stays far below
_PURPOSE = "noise.study"


def fine_layers(
    layers: Sequence[LayerInfo],  # the model's layer table
) -> list[bool]:
    """Of each layer that takes noise: whether it is fine, 64² and up; in small models what `style_indices` calls so, in
    one of a single level its last."""
    last = max(row.w_index for row in layers)
    fine = style_indices(layers, "fine") if last > 1 else [last]
    return [row.w_index in fine for row in layers if row.noise]


def noise_columns(
    found: Latents,  # N of them
) -> dict[str, list[Tensor]]:  # name of the column -> [N, 1, h, w] for each layer that takes noise
    """The images' own noise on all layers, on none, on the fine or the coarse ones; and two draws of it on all."""
    n, fine = len(found), fine_layers(found.G.layers)
    if not fine:
        raise SganError("This model takes no noise.")
    own = found.noise or [maps.expand(n, 1, -1, -1) for maps in found.G.stored_noise()]
    columns = {
        "all": own,
        "none": _only(own, [False] * len(fine)),
        "fine": _only(own, fine),
        "coarse": _only(own, [not is_fine for is_fine in fine]),
    }
    for k in (0, 1):
        drawn = sample_noise(found.G, 0, _PURPOSE, torch.tensor([k], device=found.ws.device))
        columns[f"draw {k}"] = [maps.expand(n, -1, -1, -1) for maps in drawn]
    return columns


def render_columns(
    found: Latents,  # N of them
    options: SamplingOptions,
) -> dict[str, Tensor]:  # name of the column -> uint8 [N, C, H, W]
    """Each latent with each of the columns' noise."""
    options = dataclasses.replace(options, noise_mode="const")
    return {
        name: torch.stack(list(generate_images(found.G, lambda i, j: found.ws[i:j], found.seeds, options, noise=noise)))
        for name, noise in noise_columns(found).items()
    }


@torch.inference_mode()
def noise_std(
    G: Generator,
    ws: Tensor,  # [num_ws, w_dim]
    draws: int,  # the same for every image: number 0 and up
    options: SamplingOptions,
) -> Tensor:  # [H, W] float64, in steps of 1/255
    """The standard deviation of each pixel over draws of noise, the root mean square of its three colors'.

    Of images as they are seen: cut off at black and white, alpha laid on white; but not rounded to bytes, beside
    which the noise of a small model is little.
    """
    first, total, squares = None, *torch.zeros(2, dtype=torch.float64, device=ws.device)
    for index in torch.arange(draws, device=ws.device).split(options.batch_for(G)):
        noise = sample_noise(G, 0, _PURPOSE, index)
        images = G.synthesis(ws.expand(len(index), -1, -1), noise=noise, dtype=options.dtype).double()
        images = to_rgb(images.clamp(-1, 1)) * 127.5
        first = images[:1] if first is None else first
        apart = images - first  # small numbers: their squares lose no digits to a mean that is far from 0
        total, squares = total + apart.sum(0), squares + apart.square().sum(0)
    variance = squares / draws - (total / draws).square()
    return variance.clamp_min(0).mean(0).sqrt().cpu()


def std_map(
    std: Tensor,  # [H, W], in steps of 1/255
    white: float,  # which of them is white
) -> Tensor:  # uint8 [1, H, W]
    """As a gray image."""
    return (std[None] * (255 / max(white, NEGLIGIBLE))).round().clamp(0, 255).to(torch.uint8)


def _only(
    noise: list[Tensor],  # [N, 1, h, w] for each layer that takes noise
    on: list[bool],  # for each of them
) -> list[Tensor]:
    return [maps if is_on else torch.zeros_like(maps) for maps, is_on in zip(noise, on, strict=True)]
