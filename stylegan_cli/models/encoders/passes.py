"""From images to latents with any encoder: in one call, or in passes that look at the image of the latents so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..frozen import frozen_synthesis
from ..generator import Generator
from .skips import SkipSynthesis


@torch.no_grad()
def encode(
    E: Any,  # an encoder, see the docstring of the package
    G: Generator,  # the generator it belongs to, on the same device
    images: Tensor,  # float [N, C, *input_size] in [-1, 1]; what it looks at besides the image of the latents so far
    passes: int | None = None,  # of an iterative encoder; None: `E.passes`
    skips: SkipSynthesis | None = None,  # takes the place of G's synthesis, if the encoder was fitted with skips
    features: list[list[Tensor]] | None = None,  # receives those for `skips`, after each pass
) -> Tensor:  # ws [N, num_ws, w_dim]
    """Encode images. Raises ValueError if there are no passes, or the shape of the images is wrong."""
    calls = E.passes if passes is None else passes
    if calls < 1 or (calls > 1 and not E.iterative):
        raise ValueError(f"the encoder takes {'1 pass or more' if E.iterative else 'one pass'}, not {calls}")
    channels = E.input_channels - (G.config.channels if E.iterative else 0)
    if images.shape[1:] != (channels, *E.input_size):
        expected = ", ".join(map(str, (channels, *E.input_size)))
        raise ValueError(f"images must have shape [N, {expected}], not {list(images.shape)}")
    if skips is None:
        return encode_in_passes(E, images, frozen_synthesis(G), calls)[-1]
    found = [] if features is None else features
    return encode_in_passes(E, images, lambda ws: skips(ws, found[-1] if found else ()), calls, found)[-1]


def encode_in_passes(
    E: Any,
    images: Tensor,  # as above
    synthesize: Callable[[Tensor], Tensor],  # ws [N, num_ws, w_dim] -> images [N, channels, height, width]
    passes: int,
    features: list[list[Tensor]] | None = None,  # receives those of a PyramidEncoder, after each pass
) -> list[Tensor]:  # ws [N, num_ws, w_dim] after each pass
    """An iterative encoder starts at the mean latent and adds an offset in each pass (ReStyle, Alaluf et al. 2021,
    section 3.2). No gradient flows from one pass to the one before."""
    ws, results = E.latent_avg.expand(len(images), -1, -1), []
    for _ in range(passes):
        x = images
        if E.iterative:
            with torch.no_grad():  # the first image is the same for all
                present = synthesize(ws.detach() if results else ws[:1])
            present = adaptive_avg_pool2d(present, E.input_size).expand(len(images), -1, -1, -1)
            x = torch.cat([images, present], 1)
        if features is None:
            ws = ws.detach() + E(x)
        else:
            features.append([])
            ws = ws.detach() + E(x, features[-1])
        results.append(ws)
    return results
