"""The effect of noise on an image: noise on all, no, fine or coarse layers, and the standard deviation of each pixel
(Karras et al. 2019, section 3.2, figures 4 and 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.images import to_rgb
from ..errors import SganError
from ..models.generator import Generator, LayerInfo
from ..ops import to_float64
from .generate import SamplingOptions, generate_images
from .latent_files import Latents
from .latents import sample_noise
from .mixing import style_indices

NEGLIGIBLE = 1e-3  # standard deviation of 255 levels; rounding errors are far smaller
_PURPOSE = "noise.study"


def fine_layers(
    layers: Sequence[LayerInfo],  # the model's layer table
) -> list[bool]:
    """Return, for each layer with noise, whether it is fine: 64² and up. In smaller models `style_indices` decides; in
    a model with a single level the last layer is fine."""
    last = max(row.w_index for row in layers)
    fine = style_indices(layers, "fine") if last > 1 else [last]
    return [row.w_index in fine for row in layers if row.noise]


def noise_columns(
    latents: Latents,  # N
) -> dict[str, list[Tensor]]:  # column name -> [N, 1, h, w] for each layer with noise
    """Return the images' own noise on all, no, fine or coarse layers, and two samples of random noise on all."""
    n, fine = len(latents), fine_layers(latents.G.layers)
    if not fine:
        raise SganError("This model has no noise inputs.")
    own = latents.noise or [maps.expand(n, 1, -1, -1) for maps in latents.G.stored_noise()]
    columns = {
        "all": own,
        "none": _only(own, [False] * len(fine)),
        "fine": _only(own, fine),
        "coarse": _only(own, [not is_fine for is_fine in fine]),
    }
    for k in (0, 1):
        sampled = sample_noise(latents.G, 0, _PURPOSE, torch.tensor([k], device=latents.ws.device))
        columns[f"draw {k}"] = [maps.expand(n, -1, -1, -1) for maps in sampled]
    return columns


def generate_columns(
    latents: Latents,  # N
    options: SamplingOptions,
) -> dict[str, Tensor]:  # column name -> uint8 [N, C, H, W]
    """Generate the images of all latents with the noise of each column."""
    options = dataclasses.replace(options, noise_mode="const")
    G, ws, seeds = latents.G, latents.ws, latents.seeds
    return {
        name: torch.stack(list(generate_images(G, lambda i, j: ws[i:j], seeds, options, noise=noise)))
        for name, noise in noise_columns(latents).items()
    }


@torch.inference_mode()
def noise_std(
    G: Generator,
    ws: Tensor,  # [num_ws, w_dim]
    num_samples: int,  # noise samples, the same for every image
    options: SamplingOptions,
) -> Tensor:  # [H, W] float64, in units of 1/255
    """Compute the standard deviation of each pixel over samples of noise: the root mean square of the three colors'.

    Images are clamped and composited on white, but not rounded to bytes, which would hide the weak noise of a small
    model.
    """
    first, total, squares = None, *torch.zeros(2, dtype=torch.float64)
    for index in torch.arange(num_samples, device=ws.device).split(options.batch_for(G)):
        noise = sample_noise(G, 0, _PURPOSE, index)
        with options.arithmetic(G):  # not frozen: images without noise must be rounded alike
            images = G.synthesis(ws.expand(len(index), -1, -1), noise=noise, dtype=options.dtype)
        images = to_float64(images)
        images = to_rgb(images.clamp(-1, 1)) * 127.5
        first = images[:1] if first is None else first
        difference = images - first  # small numbers, so that the variance below does not suffer from cancellation
        total, squares = total + difference.sum(0), squares + difference.square().sum(0)
    variance = squares / num_samples - (total / num_samples).square()
    return variance.clamp_min(0).mean(0).sqrt().cpu()


def std_map(
    std: Tensor,  # [H, W], in units of 1/255
    white: float,  # standard deviation that is shown as white
) -> Tensor:  # uint8 [1, H, W]
    """Render standard deviations as a gray image."""
    return (std[None] * (255 / max(white, NEGLIGIBLE))).round().clamp(0, 255).to(torch.uint8)


def _only(
    noise: list[Tensor],  # [N, 1, h, w] for each layer with noise
    enabled: list[bool],  # for each of them
) -> list[Tensor]:
    return [maps if is_enabled else torch.zeros_like(maps) for maps, is_enabled in zip(noise, enabled, strict=True)]
