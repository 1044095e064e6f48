"""Style transfer: the pixels of an image with the content of one and the style of another (Gatys et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..detectors.style import StyleNetwork, content_distance, style_distance
from ..optimizers import LBFGS
from ..progress import Progress, silent

_PART = 10  # steps between reports
_EVALUATIONS = 2  # per step, at most on average: most steps need one
_SCALE = 1e3  # of the loss, so that L-BFGS does not take its gradients for zeros


def stylize(
    network: StyleNetwork,
    content: Tensor,  # [1, 3, H, W] in [-1, 1]
    style: Tensor,  # [1, 3, h, w]
    *,
    weight: float,  # of the style, relative to the content
    steps: int,  # of L-BFGS
    progress: Progress = silent,
) -> tuple[Tensor, bool]:  # [1, 3, H, W] in [-1, 1]; whether it was interrupted
    """Search from the content image, which makes the result the same every time. Ctrl-C keeps the image so far; raises
    KeyboardInterrupt if there is none."""
    with torch.no_grad():
        target, grams = network(content)[0], network(style)[1]
    image = content.clone(memory_format=torch.contiguous_format).requires_grad_(True)
    found: Tensor | None = None

    def loss() -> Tensor:
        features, own = network(image)
        total = content_distance(features, target) + weight * style_distance(own, grams)
        total = _SCALE * total.sum()
        image.grad = torch.autograd.grad(total, image)[0].contiguous()
        return total

    optimizer = LBFGS(
        [image], max_iter=_PART, max_eval=_PART * _EVALUATIONS, line_search_fn="strong_wolfe", tolerance_change=0
    )
    progress("steps", 0, steps)
    try:
        for done in range(0, steps, _PART):
            optimizer.param_groups[0]["max_iter"] = min(_PART, steps - done)
            optimizer.step(loss)
            found = image.detach().clamp(-1, 1)
            progress("steps", min(done + _PART, steps), steps)
    except KeyboardInterrupt:
        if found is None:
            raise
        return found, True
    assert found is not None
    return found, False
