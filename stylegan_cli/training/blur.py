"""Blur of the discriminator's images at the start of training, which keeps it from relying on details that the
generator does not have yet (Karras et al. 2021, appendix G: StyleGAN3-R)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .engine import Engine


def blur_taps(
    sigma: float,  # in pixels
) -> Tensor | None:  # [2 floor(3 sigma) + 1] float32; None: no blur
    """2^-(k / sigma)^2, normalized. The base is 2: the standard deviation is 0.85 sigma."""
    n = math.floor(3 * sigma)
    if n < 1:
        return None
    taps = (-(torch.arange(-n, n + 1) / sigma).square()).exp2()
    return taps / taps.sum()


class BlurSchedule:
    """Blurs less and less: sigma falls linearly to 0. A hook of the engine without memory: the number of images shown
    determines sigma."""

    def __init__(
        self,
        sigma: float,  # at the start, in pixels
        kimg: float,  # thousands of images in which it falls to 0
    ):
        self.sigma, self.images = sigma, kimg * 1000

    def is_due(self, shown: int) -> bool:
        return False

    def before_step(self, engine: Engine[Any]) -> None:
        taps = blur_taps(self.sigma * max(1 - engine.shown / self.images, 0.0) if self.images else 0.0)
        objective = engine.recipe.objective
        if taps is None:
            if objective.blur is not None:
                objective.blur = None
                engine.recapture()
        elif objective.blur is None or objective.blur.shape != taps.shape:
            objective.blur = taps.to(engine.device)
            engine.recapture()
        else:  # the captured graphs read the same tensor
            objective.blur.copy_(taps)

    def after_step(self, engine: Engine[Any]) -> None:
        pass

    def before_restore(self, engine: Engine[Any], state: dict[str, Any]) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
