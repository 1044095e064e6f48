"""The Inception network of December 2015 that FID, KID and IS are defined with (Szegedy et al. 2015, v3).

It is the graph `inception-2015-12-05` of TensorFlow's models, not torchvision's network: it has 1008 classes, averages
without the padding, and a maximum where the last block should average. Module names are those of torchvision and the
two PyTorch ports (`Mixed_5b.branch1x1.conv.weight`); NVIDIA's TorchScript file uses the names of the graph.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .frozen import FoldedConv, expected_shapes
from .resize import resize_like_tensorflow

SIZE = 299
CLASSES = 1008


class Inception(nn.Module):
    """Maps images to the 2048 features before the last layer, and to that layer's logits."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b = BlockA(192, pool=32)
        self.Mixed_5c = BlockA(256, pool=64)
        self.Mixed_5d = BlockA(288, pool=64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(768, inner=128)
        self.Mixed_6c = BlockC(768, inner=160)
        self.Mixed_6d = BlockC(768, inner=160)
        self.Mixed_6e = BlockC(768, inner=192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b = BlockE(1280, average=True)
        self.Mixed_7c = BlockE(2048, average=False)
        self.fc = nn.Linear(2048, CLASSES)

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W] uint8
    ) -> dict[str, Tensor]:
        """Return {'pool': [N, 2048], 'logits': [N, 1008]}; logits without the bias, as the Inception score needs."""
        x = (resize_like_tensorflow(images, SIZE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # [N, 64, 147, 147]
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))  # [N, 192, 71, 71]
        x = F.max_pool2d(x, 3, 2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # [N, 288, 35, 35]
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))  # [N, 768, 17, 17]
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # [N, 2048, 8, 8]
        pool = x.mean((2, 3))
        return {"pool": pool, "logits": F.linear(pool, self.fc.weight)}


class Conv(FoldedConv):
    """A convolution with batch norm and ReLU."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu_(super().forward(input))


class Heads(FoldedConv):
    """The 1x1 convolutions on a block's input, computed as one.

    The last may belong to the averaging branch: an average and a 1x1 convolution commute, and after the convolution
    there are fewer channels to average.
    """

    def __init__(self, cin: int, **parts: int):  # name -> channels
        super().__init__(cin, parts, 1)

    def branches(self, x: Tensor) -> list[Tensor]:
        parts = list(self(x).split(list(self.parts.values()), 1))
        if "branch_pool" in self.parts:
            parts[-1] = F.avg_pool2d(parts[-1], 3, 1, 1, count_include_pad=False)
        return [F.relu_(part) for part in parts]


class BlockA(nn.Module):
    """35 x 35: branches of 1x1, 5x5, two 3x3, and an average."""

    def __init__(self, cin: int, pool: int):
        super().__init__()
        self.heads = Heads(cin, branch1x1=64, branch5x5_1=48, branch3x3dbl_1=64, branch_pool=pool)
        self.branch5x5_2 = Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, pool = self.heads.branches(x)
        return torch.cat([a, self.branch5x5_2(b), self.branch3x3dbl_3(self.branch3x3dbl_2(c)), pool], 1)


class BlockB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, cin: int):
        super().__init__()
        self.branch3x3 = Conv(cin, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(cin, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        b = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), b, F.max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """17 x 17: 7x7 convolutions as rows (1x7) and columns (7x1)."""

    def __init__(self, cin: int, inner: int):
        super().__init__()
        self.heads = Heads(cin, branch1x1=192, branch7x7_1=inner, branch7x7dbl_1=inner, branch_pool=192)
        self.branch7x7_2 = row(inner, inner)
        self.branch7x7_3 = column(inner, 192)
        self.branch7x7dbl_2 = column(inner, inner)
        self.branch7x7dbl_3 = row(inner, inner)
        self.branch7x7dbl_4 = column(inner, inner)
        self.branch7x7dbl_5 = row(inner, 192)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, pool = self.heads.branches(x)
        b = self.branch7x7_3(self.branch7x7_2(b))
        c = self.branch7x7dbl_3(self.branch7x7dbl_2(c))
        return torch.cat([a, b, self.branch7x7dbl_5(self.branch7x7dbl_4(c)), pool], 1)


class BlockD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, cin: int):
        super().__init__()
        self.heads = Heads(cin, branch3x3_1=192, branch7x7x3_1=192)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2)
        self.branch7x7x3_2 = row(192, 192)
        self.branch7x7x3_3 = column(192, 192)
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.heads.branches(x)
        b = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(b)))
        return torch.cat([self.branch3x3_2(a), b, F.max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """8 x 8: 3x3 convolutions that end in a row and a column side by side."""

    def __init__(self, cin: int, average: bool):
        super().__init__()
        pool = {"branch_pool": 192} if average else {}
        self.heads = Heads(cin, branch1x1=320, branch3x3_1=384, branch3x3dbl_1=448, **pool)
        if not average:  # a mistake in the graph: a maximum, which does not commute with a convolution
            self.branch_pool = Conv(cin, 192, 1)
        self.branch3x3_2a, self.branch3x3_2b = row(384, 384, 3), column(384, 384, 3)
        self.branch3x3dbl_2 = Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = row(384, 384, 3), column(384, 384, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, *pool = self.heads.branches(x)
        c = self.branch3x3dbl_2(c)
        pool = pool or [self.branch_pool(F.max_pool2d(x, 3, 1, 1))]
        b, c = [self.branch3x3_2a(b), self.branch3x3_2b(b)], [self.branch3x3dbl_3a(c), self.branch3x3dbl_3b(c)]
        return torch.cat([a, *b, *c, *pool], 1)


def row(cin: int, cout: int, length: int = 7) -> Conv:
    return Conv(cin, cout, (1, length), padding=(0, length // 2))


def column(cin: int, cout: int, length: int = 7) -> Conv:
    return Conv(cin, cout, (length, 1), padding=(length // 2, 0))


# NVIDIA's file, as known from printouts of its code: `layers` contains conv, conv_1 ... conv_4, mixed, mixed_1 ...
# mixed_10, with branches `conv`, `tower`, `tower_1` and `tower_2`; a convolution X is X.weight, X.beta, X.mean and
# X.var (its batch norm has no scale); the last layer is `output`.

_STEM = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
_MIXED = ["5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"]
_BRANCHES = {  # by block: our names of 'conv', 'tower', 'tower_1' and 'tower_2'
    "5": ["branch1x1", "branch5x5", "branch3x3dbl", "branch_pool"],
    "6a": ["branch3x3", "branch3x3dbl"],
    "6": ["branch1x1", "branch7x7", "branch7x7dbl", "branch_pool"],
    "7a": ["", "branch3x3", "branch7x7x3"],
    "7": ["branch1x1", "branch3x3", "branch3x3dbl", "branch_pool"],
}
_FIELDS = {"conv.weight": "weight", "bn.bias": "beta", "bn.running_mean": "mean", "bn.running_var": "var"}


def from_nvidia(
    tensors: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Rename the tensors of NVIDIA's file; return those of other files unchanged."""
    if "layers.conv.weight" not in tensors:
        return tensors
    with torch.device("meta"):
        expected = expected_shapes(Inception())
    named = {name: torch.ones(shape) for name, shape in expected.items() if name.endswith(".bn.weight")}
    sources = {"fc.weight": "output.weight", "fc.bias": "output.bias"}  # our name -> name in the file
    for conv in (name.removesuffix(".conv.weight") for name in expected if name.endswith(".conv.weight")):
        sources |= {f"{conv}.{part}": f"layers.{_nvidia_name(conv)}.{field}" for part, field in _FIELDS.items()}
    return named | {name: tensors[source] for name, source in sources.items() if source in tensors}


def _nvidia_name(conv: str) -> str:
    """Convert a name, such as 'Mixed_6b.branch7x7dbl_3' to 'mixed_4.tower_1.conv_2'."""
    if conv in _STEM:
        return _numbered("conv", _STEM.index(conv))
    block, branch = conv.removeprefix("Mixed_").split(".")
    match = re.fullmatch(r"(branch\w+?)(?:_(\d)([ab]?))?", branch)
    assert match is not None  # our own modules have such names
    branch, place, suffix = match.groups()
    tower = (_BRANCHES.get(block) or _BRANCHES[block[0]]).index(branch)
    path = _numbered("tower", tower - 1) + ("_" if block in ("7b", "7c") else ".") if tower else ""
    last = _numbered("mixed_conv", "ab".index(suffix)) if suffix else _numbered("conv", int(place or 1) - 1)
    return f"{_numbered('mixed', _MIXED.index(block))}.{path}{last}"


def _numbered(word: str, index: int) -> str:
    return f"{word}_{index}" if index else word
