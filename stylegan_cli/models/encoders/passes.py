"""From images to latents with any encoder: in one call, or in passes that look at the image of the latents so far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..frozen import frozen_synthesis
from ..generator import Generator


@torch.no_grad()
def encode(
    E: Any,  # an encoder, see the docstring of the package
    G: Generator,  # the generator it belongs to, on the same device
    images: Tensor,  # float [N, C, input_size, input_size] in [-1, 1]; C is half of input_channels if E is iterative
    passes: int | None = None,  # of an iterative encoder; None: `E.passes`
) -> Tensor:  # ws [N, num_ws, w_dim]
    """Encode images. An iterative encoder starts at the mean latent and adds an offset in each pass (ReStyle, Alaluf et
    al. 2021, section 3.2). Raises ValueError if there are no passes, or the shape of the images is wrong."""
    calls = E.passes if passes is None else passes
    if calls < 1 or (calls > 1 and not E.iterative):
        raise ValueError(f"the encoder takes {'1 pass or more' if E.iterative else 'one pass'}, not {calls}")
    if not E.iterative:
        return E.latent_avg + E(images)
    if images.shape[1:] != (E.input_channels // 2, E.input_size, E.input_size):
        expected = [E.input_channels // 2, E.input_size, E.input_size]
        raise ValueError(f"images must have shape [N, {', '.join(map(str, expected))}], not {list(images.shape)}")
    synthesize = frozen_synthesis(G)
    ws = E.latent_avg[None]  # the same image for all
    for _ in range(calls):
        present = adaptive_avg_pool2d(synthesize(ws), E.input_size)
        ws = ws + E(torch.cat([images, present.expand_as(images)], 1))
    return ws
