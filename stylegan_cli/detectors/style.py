"""Content and style of images by VGG16 (Gatys et al. 2016, "Image Style Transfer Using Convolutional Neural Networks").

The paper uses VGG19; these are the layers of the same names, each the first of a group or, for the content, the second
of the fourth. Pooling averages, as in the paper (section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .frozen import full_precision
from .vgg import MEAN, STD

STYLE_LAYERS = (1, 6, 11, 18, 25)  # conv1_1, conv2_1, conv3_1, conv4_1, conv5_1, after ReLU: indices in `convolutions`
CONTENT_LAYER = 20  # conv4_2
MIN_SIDE = 32  # pixels: 2 x 2 features of the fifth group


@dataclass(frozen=True, eq=False)
class StyleNetwork:
    """VGG16's convolutions. Differentiable with respect to the images."""

    convolutions: nn.Sequential
    fingerprint: str  # 8 hexadecimal digits of the SHA-256 of their file

    def __call__(
        self,
        images: Tensor,  # [N, 3, H, W] in [-1, 1]
    ) -> tuple[Tensor, list[Tensor]]:  # content [N, 512, H / 8, W / 8]; Gram matrices [N, C, C] of each style layer
        mean, std = (images.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        x, content, grams = ((images + 1) / 2 - mean) / std, images, []
        with full_precision():
            for i, layer in enumerate(list(self.convolutions)[: STYLE_LAYERS[-1] + 1]):
                x = F.avg_pool2d(x, 2) if isinstance(layer, nn.MaxPool2d) else layer(x)
                if i in STYLE_LAYERS:
                    grams.append(gram_matrix(x))
                if i == CONTENT_LAYER:
                    content = x
        return content, grams


def gram_matrix(
    features: Tensor,  # [N, C, H, W]
) -> Tensor:  # [N, C, C]
    """Mean products of two channels: equation 3, divided by the number of positions, since the two images may differ in
    size."""
    x = features.flatten(2)
    return x @ x.transpose(1, 2) / x.shape[2]


def style_distance(
    a: list[Tensor],  # Gram matrices [N, C, C] of each layer
    b: list[Tensor],  # those of the style
) -> Tensor:  # [N]
    """The mean over layers of |A - B|^2 / |B|^2: equations 4 and 5 with weights of 1/5. Dividing by that of the style
    takes the place of the paper's rescaled network, in which all layers have the same mean activation."""
    parts = [(x - y).square().sum((1, 2)) / y.square().sum((1, 2)) for x, y in zip(a, b, strict=True)]
    return torch.stack(parts).mean(0)


def content_distance(
    a: Tensor,  # [N, C, h, w]
    b: Tensor,  # that of the content
) -> Tensor:  # [N]
    """|A - B|^2 / |B|^2: equation 1, likewise."""
    return (a - b).square().sum((1, 2, 3)) / b.square().sum((1, 2, 3))
