"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation): a detector whose weights come with a package.

Fréchet and kernel distances of its features are not FID and KID, and the names of those metrics say so.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .frozen import FoldedConv

SIZE = 224
MIN_SIDE, MAX_SIDE = 64, 256  # pixels of the shorter side, of images for `levels`
# repeats, kernel, stride of the first block, expansion, output channels
_STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
_TAPS = (0, 2, 4, 10, 15)  # the last block of each size


class EfficientNetLite0(nn.Module):
    """Maps images to the 1280 features before the classifier."""

    def __init__(self):
        super().__init__()
        self.stem = SameConv(3, 32, 3, 2)
        blocks, cin = [], 32
        for repeats, kernel, stride, expansion, cout in _STAGES:
            for i in range(repeats):
                blocks.append(Block(cin, cout, kernel, 1 if i else stride, expansion))
                cin = cout
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConv(320, 1280, 1)

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W] uint8
    ) -> dict[str, Tensor]:
        """Return {'pool': [N, 1280]}. Resizes images of other sizes with an antialiased bicubic filter."""
        x = images.float()
        if images.shape[2:] != (SIZE, SIZE):
            x = F.interpolate(x, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 255)
        x = (x - 127) / 128
        return {"pool": _relu6(self.head(self.blocks(_relu6(self.stem(x))))).mean((2, 3))}

    def levels(
        self,
        images: Tensor,  # [N, 3, H, W] float, -1 black to 1 white, of any size
    ) -> list[Tensor]:  # [N, C, h, w] of each size, and [N, 1280, 1, 1]
        """Features of an image at its own size, through which gradients flow."""
        x, maps = _relu6(self.stem((images * 127.5 + 0.5) / 128)), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in _TAPS:
                maps.append(x)
        return [*maps, _relu6(self.head(x)).mean((2, 3), keepdim=True)]


class SameConv(FoldedConv):
    """A convolution with TensorFlow's 'SAME' padding: an odd number of pixels is padded more at the end."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(cin, cout, kernel, stride, 0, groups)

    def forward(self, input: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max(0, (-(-n // stride) - 1) * stride + kernel - n) for n in input.shape[2:])
        if height % 2 or width % 2:  # only this needs a copy: the convolution itself pads both ends equally
            input = F.pad(input, (0, width % 2, 0, height % 2))
        return F.conv2d(input, self.weight, self.bias, stride, (height // 2, width // 2), groups=self.groups)


class Block(nn.Module):
    """An inverted bottleneck: expand, depthwise, project; with a shortcut if the shape stays the same."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = cin * expansion
        self.expand = SameConv(cin, wide, 1) if expansion > 1 else None
        self.depthwise = SameConv(wide, wide, kernel, stride, groups=wide)
        self.project = SameConv(wide, cout, 1)
        self.shortcut = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = _relu6(self.expand(x)) if self.expand else x
        y = self.project(_relu6(self.depthwise(y)))
        return y.add_(x) if self.shortcut else y


def _relu6(x: Tensor) -> Tensor:
    """ReLU6 in place: on a CPU, touching new memory costs more than the function."""
    return F.relu6(x, inplace=True)


# Names of layers in the package's file -> our names: within a block (`_blocks.3._expand_conv`), and around the blocks
_IN_BLOCK = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.bn",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.bn",
    "_project_conv": "project.conv",
    "_bn2": "project.bn",
}
_STEM_AND_HEAD = {"_conv_stem": "stem.conv", "_bn0": "stem.bn", "_conv_head": "head.conv", "_bn1": "head.bn"}


def from_package(
    tensors: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Rename the tensors of the package's file; drop those that the network does not have."""
    named = {}
    for name, tensor in tensors.items():
        layer, _, field = name.rpartition(".")
        block, _, part = layer.removeprefix("_blocks.").rpartition(".")
        if target := _IN_BLOCK.get(part) if block else _STEM_AND_HEAD.get(part):
            named[f"blocks.{block}.{target}.{field}" if block else f"{target}.{field}"] = tensor
    return named
