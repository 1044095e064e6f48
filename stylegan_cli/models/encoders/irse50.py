"""The encoders of pSp (Richardson et al. 2021), e4e (Tov et al. 2021) and ReStyle (Alaluf et al. 2021), for inference.

A residual network (IR-SE50 of ArcFace: Deng et al. 2019; or ResNet34: He et al. 2016) halves images of 256 pixels to
maps of 64, 32 and 16 pixels. One head per latent reduces a map to a vector: coarse latents that of 16 pixels, middle
and fine ones those of 32 and 64 pixels of a feature pyramid, which ReStyle does without. Modules have the names
that they have in the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, interpolate

from ...layers import EqualLinear

_LETTERBOX = slice(32, 224)  # rows of a 4:3 image in a square of 256 pixels
_COARSE, _MIDDLE = 3, 7  # latents below these indices belong to the maps of 16 and 32 pixels
_FLAT = 7  # side of the pooled map that 'flat' heads flatten
_SQUEEZE = 16  # channels of squeeze-and-excitation per hidden one


@dataclass(frozen=True)
class IRSEConfig:
    """The architecture of an encoder of pSp, e4e or ReStyle."""

    num_ws: int  # latents per image
    w_dim: int = 512
    input_channels: int = 3  # 6: target and present image
    backbone: str = "ir_se"  # 'ir': the same without squeeze-and-excitation; 'resnet'
    blocks: tuple[int, ...] = (3, 4, 14, 3)  # residual blocks in each of the four stages, which end at 128 to 16 pixels
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels of each stage
    heads: str = "pyramid"  # 'map': all from 16 pixels; 'mean': one latent for all layers; 'flat': one matrix for all
    progressive: bool = False  # the offsets of all latents but the first are from the first (e4e)
    iterative: bool = False  # it looks at target and present image, and its offsets are from the present latents
    passes: int = 1  # default number of calls per image
    letterbox: bool = False  # it looks at the rows of a 4:3 image only (e4e's and ReStyle's cars)


class IRSEEncoder(nn.Module):
    """Maps images to offsets of latents from `latent_avg`, or from the present latents if it is iterative."""

    input_size = (256, 256)  # pixels
    latent_avg: Tensor  # [num_ws, w_dim]; 0 if the network answers with latents rather than offsets

    def __init__(self, config: IRSEConfig):
        super().__init__()
        self.config = config
        self.num_ws, self.w_dim, self.input_channels = config.num_ws, config.w_dim, config.input_channels
        self.iterative, self.passes = config.iterative, config.passes
        self.register_buffer("latent_avg", torch.zeros(config.num_ws, config.w_dim))
        resnet, first, last = config.backbone == "resnet", config.widths[0], config.widths[-1]
        stem = nn.Conv2d(config.input_channels, first, *((7, 2, 3) if resnet else (3, 1, 1)), bias=False)
        self.input_layer = nn.Sequential(stem, _Norm(first), nn.PReLU(first))
        self.body = nn.Sequential(*_blocks(config))
        if config.heads == "mean":
            self.linear = EqualLinear(last, config.w_dim)
        elif config.heads == "flat":
            reduction = nn.Linear(last * _FLAT**2, config.w_dim)
            self.output_layer_2 = nn.Sequential(_Norm(last), nn.AdaptiveAvgPool2d(_FLAT), nn.Flatten(), reduction)
            self.linear = EqualLinear(config.w_dim, config.w_dim * config.num_ws)
        else:
            levels = [_level(i, config.heads) for i in range(config.num_ws)]
            self.styles = nn.ModuleList(_StyleHead(last, config.w_dim, 4 + level) for level in levels)
        if config.heads == "pyramid":
            self.latlayer1, self.latlayer2 = nn.Conv2d(config.widths[2], last, 1), nn.Conv2d(config.widths[1], last, 1)

    def forward(
        self,
        images: Tensor,  # float [N, input_channels, 256, 256] in [-1, 1]; the present images after the targets
    ) -> Tensor:  # offsets [N, num_ws, w_dim]
        """Raises ValueError if the images have another shape."""
        if images.shape[1:] != (self.input_channels, *self.input_size):
            expected = f"[N, {self.input_channels}, {self.input_size[0]}, {self.input_size[1]}]"
            raise ValueError(f"images must have shape {expected}, not {list(images.shape)}")
        return self._offsets(self._maps(images[:, :, _LETTERBOX] if self.config.letterbox else images))

    def _maps(self, x: Tensor) -> list[Tensor]:  # [N, width, size, size] of sizes 16, 32 and 64
        x, maps, blocks = self.input_layer(x), [], iter(self.body)
        for count in self.config.blocks:
            for block in islice(blocks, count):
                x = block(x)
            maps.append(x)
        return maps[:0:-1]

    def _offsets(self, maps: list[Tensor]) -> Tensor:
        heads = self.config.heads
        if heads == "mean":
            return self.linear(maps[0].mean([2, 3]))[:, None].repeat(1, self.num_ws, 1)
        if heads == "flat":
            return self.linear(self.output_layer_2(maps[0])).unflatten(1, (self.num_ws, self.w_dim))
        if heads == "pyramid":
            middle = _enlarge_and_add(maps[0], self.latlayer1(maps[1]))
            maps = [maps[0], middle, _enlarge_and_add(middle, self.latlayer2(maps[2]))]
        offsets = [head(maps[_level(i, heads)]) for i, head in enumerate(self.styles)]
        if self.config.progressive:
            offsets[1:] = [offset + offsets[0] for offset in offsets[1:]]
        return torch.stack(offsets, 1)


class ArcFace(nn.Module):
    """The network whose residual blocks are IR-SE50 (Deng et al. 2019): a vector of 512 numbers for a face, close for
    one person. Modules have the names that they have in pSp's file model_ir_se50.pth."""

    def __init__(self, config: IRSEConfig | None = None):
        super().__init__()
        config = config or IRSEConfig(1)
        first, last = config.widths[0], config.widths[-1]
        self.input_layer = nn.Sequential(nn.Conv2d(3, first, 3, 1, 1, bias=False), _Norm(first), nn.PReLU(first))
        self.body = nn.Sequential(*_blocks(config))
        vector = nn.Linear(last * _FLAT**2, config.w_dim)
        self.output_layer = nn.Sequential(_Norm(last), nn.Identity(), nn.Flatten(), vector, _Norm(config.w_dim))

    def forward(
        self,
        images: Tensor,  # float [N, 3, 112, 112] in [-1, 1]
    ) -> Tensor:  # [N, 512]
        return self.output_layer(self.body(self.input_layer(images)))


class _Norm(nn.Module):
    """Batch norm with the statistics of training."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:  # [N, channels, H, W]
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


class _Excitation(nn.Module):
    """Squeeze and excitation (Hu et al. 2018): scales each channel by a function of all channels' means."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // _SQUEEZE, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [N, channels, H, W]
        return x * self.fc2(self.fc1(x.mean([2, 3], keepdim=True)).relu()).sigmoid()


class _IRBlock(nn.Module):
    """The improved residual block of ArcFace: norm, convolution, PReLU, convolution with the stride, norm."""

    def __init__(self, before: int, after: int, stride: int, excitation: bool):
        super().__init__()
        self.stride = stride
        self.shortcut_layer = _shortcut(before, after, stride) if before != after else None
        self.res_layer = nn.Sequential(
            _Norm(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            _Norm(after),
            *([_Excitation(after)] if excitation else []),
        )

    def forward(self, x: Tensor) -> Tensor:  # [N, before, H, W] -> [N, after, H / stride, W / stride]
        shortcut = self.shortcut_layer(x) if self.shortcut_layer else x[:, :, :: self.stride, :: self.stride]
        return self.res_layer(x) + shortcut


class _BasicBlock(nn.Module):
    """The residual block of ResNet34."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), _Norm(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), _Norm(after)
        self.downsample = _shortcut(before, after, stride) if (before, stride) != (after, 1) else None

    def forward(self, x: Tensor) -> Tensor:  # [N, before, H, W] -> [N, after, H / stride, W / stride]
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (self.downsample(x) if self.downsample else x)).relu()


class _StyleHead(nn.Module):
    """Reduces a map to a vector by convolutions with stride 2."""

    def __init__(
        self,
        channels: int,
        w_dim: int,
        halvings: int,
    ):
        super().__init__()
        widths = pairwise([channels] + [w_dim] * halvings)
        layers = [(nn.Conv2d(before, after, 3, 2, 1), nn.LeakyReLU()) for before, after in widths]
        self.convs = nn.Sequential(*(module for layer in layers for module in layer))
        self.linear = EqualLinear(w_dim, w_dim)

    def forward(self, x: Tensor) -> Tensor:  # [N, channels, 2^halvings, 2^halvings] -> [N, w_dim]
        return self.linear(self.convs(x).flatten(1))


def _blocks(config: IRSEConfig) -> Iterator[nn.Module]:
    """The residual blocks of all stages. The first of each halves; that of ResNet's first stage does not, as its stem
    does."""
    before = config.widths[0]
    for stage, (count, width) in enumerate(zip(config.blocks, config.widths, strict=True)):
        for i in range(count):
            if config.backbone == "resnet":
                yield _BasicBlock(before, width, 2 if i == 0 and stage else 1)
            else:
                yield _IRBlock(before, width, 2 if i == 0 else 1, config.backbone == "ir_se")
            before = width


def _shortcut(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), _Norm(after))


def _level(index: int, heads: str) -> int:  # 0 to 2: maps of 16, 32 and 64 pixels
    """Which map a latent comes from."""
    return 0 if heads == "map" else (index >= _COARSE) + (index >= _MIDDLE)


def _enlarge_and_add(x: Tensor, y: Tensor) -> Tensor:  # [N, C, h, w], [N, C, H, W] -> [N, C, H, W]
    return interpolate(x, y.shape[2:], mode="bilinear", align_corners=True) + y
