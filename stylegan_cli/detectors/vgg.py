"""VGG16 (Simonyan and Zisserman 2015): a hidden layer for precision and recall, the convolutions for LPIPS."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from .resize import resize_like_tensorflow

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for [0, 1]
_CHANNELS = [(64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)]  # each group ends in max pooling
TAPS = (3, 8, 15, 22, 29)  # indices in `convolutions` of the last ReLU of each group


class Vgg16(nn.Module):
    """Maps images to the 4096 features of the second fully connected layer, after ReLU (Kynkäänniemi et al. 2019).

    Names are torchvision's: `features.0.weight` ... `features.28.bias`, `classifier.0.weight` ... `classifier.3.bias`.

    Published precision and recall use the weights in NVIDIA's vgg16.pt. Its preprocessing (TensorFlow's resize to 224,
    torchvision's mean and deviation) is known from a port. Whether torchvision's weights are the same is not known, so
    names of metrics measured with torchvision's file include its fingerprint.
    """

    def __init__(self):
        super().__init__()
        self.features = convolutions()
        hidden = [nn.Linear(512 * 7 * 7, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
        self.classifier = nn.Sequential(*hidden)

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W] uint8
    ) -> dict[str, Tensor]:
        """Return {'fc2': [N, 4096]}."""
        x = resize_like_tensorflow(images, SIZE) / 255
        mean, std = (torch.tensor(values, device=x.device)[:, None, None] for values in (MEAN, STD))
        return {"fc2": self.classifier(self.features((x - mean) / std).flatten(1))}


def convolutions() -> nn.Sequential:
    """Build the convolutions: [N, 3, H, W] to [N, 512, H/32, W/32]."""
    layers, cin = [], 3
    for group in _CHANNELS:
        for cout in group:
            layers += [nn.Conv2d(cin, cout, 3, padding=1), nn.ReLU(inplace=True)]
            cin = cout
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def from_nvidia(
    tensors: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Rename the tensors of NVIDIA's vgg16.pt to torchvision's names; return those of other files unchanged.

    That file has layers.conv1 ... conv13, layers.fc1 ... fc3, and the LPIPS weights lpips0 ... lpips4 [C, 1, 1] of the
    five groups.
    """
    if "layers.conv1.weight" not in tensors:
        return tensors
    convs = [i for i, layer in enumerate(convolutions()) if isinstance(layer, nn.Conv2d)]
    targets = {f"layers.conv{n + 1}": f"features.{i}" for n, i in enumerate(convs)}
    targets |= {"layers.fc1": "classifier.0", "layers.fc2": "classifier.3"}
    named = {}
    for name, tensor in tensors.items():
        layer, _, field = name.rpartition(".")
        if layer in targets:
            named[f"{targets[layer]}.{field}"] = tensor
        elif match := re.fullmatch(r"lpips([0-4])", name):
            named[f"lin{match[1]}"] = tensor.flatten()
    return named
