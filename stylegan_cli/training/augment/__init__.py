"""Augmentation of the discriminator's images, so that it does not memorize a small dataset.

The transformations of adaptive discriminator augmentation (Karras et al. 2020, "Training Generative Adversarial
Networks with Limited Data", appendix B) and those of DiffAugment (Zhao et al. 2020). Each is twice differentiable
with respect to the images, as the generator's loss and R1 require, and does not synchronize with the host, so that a
CUDA graph can capture it after a first run on the device.
"""

from __future__ import annotations

import difflib

from torch import Tensor

from ..choices import PIPES
from ..config import TrainConfig
from .adaptive import AdaptiveP
from .color import recolor
from .diffaug import diff_augment
from .geometry import transform
from .image import add_noise, amplify_bands, cut_out
from .parameters import Parameters


class Augment:
    """The transformations of a pipeline, each with probability p, depending only on the index of the image."""

    def __init__(
        self,
        pipe: str,  # a name of PIPES; 'diffaug' ignores p and always applies all transformations
        seed: int,
    ):
        """Raises ValueError if the name is unknown."""
        if pipe not in PIPES:
            near = difflib.get_close_matches(pipe, PIPES, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Choose from {', '.join(PIPES)}."
            raise ValueError(f"There is no augmentation pipeline {pipe!r}. {hint}")
        self.pipe, self.seed = pipe, seed

    def __call__(
        self,
        images: Tensor,  # [N, C, H, W] about [-1, 1], float32 or float64; C is 1, 3 or 4
        p: Tensor,  # [] probability, on the images' device
        purpose: str,  # name of the use; each gets its own random numbers
        index: Tensor,  # [N] int64, global index of each image
    ) -> Tensor:  # [N, C, H, W]
        """Augment images. Color transformations leave a fourth channel unchanged."""
        groups = PIPES[self.pipe]
        if "diffaug" in groups:
            return diff_augment(images, self.seed, purpose, index)
        params = Parameters(self.seed, purpose, index, p, images.dtype, "rare color" in groups)
        if "blit" in groups or "geom" in groups:
            images = transform(images, params, blit="blit" in groups, general="geom" in groups)
        for group, function in _PIXEL_TRANSFORMS.items():
            if group in groups:
                images = function(images, params)
        return images


_PIXEL_TRANSFORMS = {
    "color": recolor,
    "rare color": recolor,
    "filter": amplify_bands,
    "noise": add_noise,
    "cutout": cut_out,
}


def make_augment(
    config: TrainConfig,
) -> Augment | None:
    """Build the augmentation of D's images; None if there is none."""
    if config.aug == "noaug":
        return None
    return Augment("diffaug" if config.aug == "diffaug" else config.augpipe, config.seed)
