"""What the discriminator sees instead of images, so that few of them do not get learned by heart.

The transformations of adaptive discriminator augmentation (Karras et al. 2020, "Training Generative Adversarial
Networks with Limited Data", appendix B) and those of DiffAugment (Zhao et al. 2020). Each is differentiable twice in
the images, which the generator's loss and R1 pass through, and reads nothing back to the host: a CUDA graph can
capture it once it has run on that device.
"""

from __future__ import annotations

import difflib

from torch import Tensor

from ..choices import PIPES
from .adaptive import AdaptiveP
from .color import recolor
from .diffaug import diff_augment
from .geometry import move
from .image import add_noise, amplify_bands, cut_out
from .parameters import Parameters


class Augment:
    """The transformations of a pipeline, each with probability p: what an image gets depends on its index alone."""

    def __init__(
        self,
        pipe: str,  # a name of PIPES; 'diffaug' always applies all it has, whatever p is
        seed: int,
    ):
        """Raises ValueError on an unknown name."""
        if pipe not in PIPES:
            near = difflib.get_close_matches(pipe, PIPES, 1)
            raise ValueError(f"no pipeline {pipe!r}" + (f", but {near[0]!r}" if near else f": {', '.join(PIPES)}"))
        self.pipe, self.seed = pipe, seed

    def __call__(
        self,
        images: Tensor,  # [N, C, H, W] about [-1, 1], float32 or float64; C is 1, 3 or 4
        p: Tensor,  # [] probability, on the images' device
        purpose: str,  # names the use; each has random numbers of its own
        index: Tensor,  # [N] int64, global index of each image
    ) -> Tensor:  # [N, C, H, W]
        """Colors leave a fourth channel alone; all else treats the channels alike."""
        groups = PIPES[self.pipe]
        if "diffaug" in groups:
            return diff_augment(images, self.seed, purpose, index)
        draw = Parameters(self.seed, purpose, index, p, images.dtype)
        if "blit" in groups or "geom" in groups:
            images = move(images, draw, blit="blit" in groups, general="geom" in groups)
        for group, transform in _AFTER.items():
            if group in groups:
                images = transform(images, draw)
        return images


_AFTER = {"color": recolor, "filter": amplify_bands, "noise": add_noise, "cutout": cut_out}
