"""The StyleGAN2 discriminator (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", figure 7).
With architecture 'orig' and other filters it is the growing one of ProGAN and StyleGAN (Karras et al. 2018, figure 2
and table 2)."""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..layers import EqualConv2d, EqualLinear, scaled_weights
from ..ops import ScaledWeight, append_minibatch_std, blur2d, downsample2d, fir_filter, has_kernels
from .config import Level, LevelsDiscriminatorConfig
from .discriminator import Discriminator
from .mapping import MappingNetwork

RESNET_GAIN = math.sqrt(0.5)  # of both summands, whose sum then has the variance of each
ScaledWeights = Mapping[nn.Module, ScaledWeight]  # of layers whose weights were prepared together


class DiscriminatorBlock(nn.Module):
    """One level: an optional fromRGB, conv0, conv1 with downsampling, and a skip connection in 'resnet'."""

    def __init__(
        self,
        config: LevelsDiscriminatorConfig,
        level: Level,
        below: Level,  # the next lower level
        has_fromrgb: bool,
    ):
        super().__init__()
        self.architecture, self.has_fromrgb = config.architecture, has_fromrgb
        in_channels, out_channels = level.channels, below.channels
        convolution = functools.partial(EqualConv2d, fir=config.fir, clamp=config.conv_clamp, act="lrelu")
        if has_fromrgb:
            self.fromrgb = convolution(config.channels, in_channels, 1)
        self.conv0 = convolution(in_channels, in_channels, 3)
        self.conv1 = convolution(in_channels, out_channels, 3, down=2)
        if self.architecture == "resnet":
            self.skip = EqualConv2d(in_channels, out_channels, 1, bias=False, down=2, fir=config.fir)
        self.resample_filter: Tensor
        self.blur_filter: Tensor
        self.register_buffer("resample_filter", fir_filter(config.fir), persistent=False)
        self.register_buffer("blur_filter", fir_filter(config.blur or [1.0]), persistent=False)

    def forward(
        self,
        x: Tensor | None,  # [N, in_channels, H, W]
        image: Tensor | None,  # [N, channels, H, W] if this or a lower level has a fromRGB
        dtype: torch.dtype,
        scaled: ScaledWeights,
    ) -> tuple[Tensor, Tensor | None]:  # [N, out_channels, H/2, W/2], [N, channels, H/2, W/2]
        if self.has_fromrgb and image is not None:
            layout = torch.channels_last if has_kernels(image.device) else torch.preserve_format  # of all that follows
            y = self.fromrgb(image.to(dtype, memory_format=layout), scaled=scaled.get(self.fromrgb))
            x = y if x is None else x.to(dtype) + y
            image = downsample2d(image, self.resample_filter) if self.architecture == "skip" else None
        assert x is not None  # the highest level has a fromRGB
        x, w0, w1 = x.to(dtype), scaled.get(self.conv0), scaled.get(self.conv1)
        if self.architecture == "resnet":
            y = self.skip(x, gain=RESNET_GAIN, scaled=scaled.get(self.skip))
            if has_kernels(x.device):  # conv0's bias and activation are part of conv1's filter
                return y + self.conv1(self.conv0.convolve(x, w0), RESNET_GAIN, w1, before=self.conv0), image
            return y + self.conv1(self.conv0(x), gain=RESNET_GAIN), image
        return self.conv1(blur2d(self.conv0(x, scaled=w0), self.blur_filter), scaled=w1), image


class DiscriminatorEpilogue(nn.Module):
    """Minibatch standard deviation, a convolution and two fully connected layers, always in full precision."""

    def __init__(
        self,
        config: LevelsDiscriminatorConfig,
        level: Level,  # the lowest
        out_features: int,
        has_fromrgb: bool,
    ):
        super().__init__()
        channels = level.channels
        self.group, self.std_channels = config.mbstd_group, config.mbstd_channels
        if has_fromrgb:
            self.fromrgb = EqualConv2d(config.channels, channels, 1, act="lrelu")
        self.conv = EqualConv2d(channels + config.mbstd_channels, channels, 3, act="lrelu", clamp=config.conv_clamp)
        self.fc = EqualLinear(channels * level.height * level.width, channels, act="lrelu")
        self.out = EqualLinear(channels, out_features)

    def forward(
        self,
        x: Tensor | None,  # [N, channels, h0, w0]
        image: Tensor | None,  # [N, image channels, h0, w0] if there is a fromRGB
        scaled: ScaledWeights,
    ) -> Tensor:  # [N, out_features]
        if image is not None:
            y = self.fromrgb(image)
            x = y if x is None else x.to(y.dtype) + y
        assert x is not None
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.std_channels:
            x = append_minibatch_std(x, self.group, self.std_channels)
        return self.out(self.fc(self.conv(x, scaled=scaled.get(self.conv)).flatten(1)))


class LevelsDiscriminator(Discriminator):
    def __init__(self, config: LevelsDiscriminatorConfig):
        super().__init__(config)
        self.config: LevelsDiscriminatorConfig = config
        lowest, *above = config.levels()
        self.levels = above[::-1]  # from that of the image down to the last one that downsamples
        with_fromrgb = (
            config.levels() if config.architecture == "skip" else config.levels()[-2 if config.fade else -1 :]
        )
        for level, below in zip(self.levels, [*self.levels[1:], lowest]):
            block = DiscriminatorBlock(config, level, below, has_fromrgb=level in with_fromrgb)
            self.add_module(f"b{level.name}", block)
        outputs = {"projection": lowest.channels, "dot": config.c_dim, "classifier": 1 + config.c_dim}
        features = outputs[config.labels] if config.c_dim else 1
        self.b4 = DiscriminatorEpilogue(config, lowest, features + config.codes, has_fromrgb=lowest in with_fromrgb)
        if config.fade:
            self.alpha: Tensor
            self.resample_filter: Tensor
            self.register_buffer("alpha", torch.ones([]))
            self.register_buffer("resample_filter", fir_filter(config.fir), persistent=False)
        if config.c_dim and config.labels == "projection":
            self.mapping = MappingNetwork(
                0, config.c_dim, features, config.mapping_layers, None, lr_multiplier=config.mapping_lr
            )
        levels = (f"b{level.name}." for level in (*self.levels, lowest))
        self.layers = tuple(
            prefix + name for prefix in levels for name, _ in self.get_submodule(prefix[:-1]).named_children()
        )

    def forward_with_classes(
        self,
        image: Tensor,  # [N, channels, height, width] in [-1, 1]
        c: Tensor | None = None,  # [N, c_dim] one-hot; not needed with labels 'classifier'
        dtype: torch.dtype | None = None,  # half precision type for the highest levels; None: full precision
    ) -> tuple[Tensor, Tensor | None]:  # [N, 1] logits; [N, c_dim + codes] predictions, None if there are none
        config = self.config
        scaled = self._scaled_weights(image, dtype)
        last = collections.deque(self._blocks(image, dtype, scaled), maxlen=1)  # frees the features of each level early
        x, rest = last[0] if last else (None, image)
        x = self.b4(x, rest, scaled)
        if config.c_dim == 0 or config.labels == "classifier":
            return x[:, :1], x[:, 1:] if x.shape[1] > 1 else None
        x, predictions = x[:, : x.shape[1] - config.codes], x[:, x.shape[1] - config.codes :] if config.codes else None
        c = self.require_labels(c)
        if config.labels == "dot":
            return (x * c).sum(1, keepdim=True), predictions
        # Projection discriminator (Miyato and Koyama 2018), scaled to unit variance.
        return (x * self.mapping(None, c)).sum(1, keepdim=True) / math.sqrt(x.shape[1]), predictions

    def features(
        self,
        image: Tensor,  # [N, channels, height, width] in [-1, 1]
    ) -> list[Tensor]:  # [N, C, H/2, W/2], [N, C', H/4, W/4] ...
        """The output of each level, before the minibatch statistics; with a single level, that of its fromRGB."""
        return [x for x, _ in self._blocks(image, None, {})] or [self.b4.fromrgb(image)]

    def judge_separately(self) -> None:
        self.b4.group = 1

    def _scaled_weights(self, image: Tensor, dtype: torch.dtype | None) -> ScaledWeights:
        """The weights of all convolutions from a launch for each type. Without kernels, layers prepare their own."""
        if not has_kernels(image.device) or torch.compiler.is_compiling():
            return {}
        blocks = [(self.get_submodule(f"b{level.name}"), self._type_of(level, image, dtype)) for level in self.levels]
        layers = [
            (layer, block_dtype, RESNET_GAIN if name == "skip" else 1.0)
            for block, block_dtype in blocks
            for name, layer in block.named_children()
            if isinstance(layer, EqualConv2d)
        ]
        return scaled_weights([*layers, (self.b4.conv, torch.promote_types(image.dtype, torch.float32), 1.0)])

    @staticmethod
    def _type_of(level: Level, image: Tensor, dtype: torch.dtype | None) -> torch.dtype:
        """The type of a level's features; `dtype` is that of the highest ones."""
        return dtype if dtype is not None and level.half else image.dtype

    def _blocks(
        self, image: Tensor, dtype: torch.dtype | None, scaled: ScaledWeights
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        self.check_image(image)
        x, rest = None, image
        for level in self.levels:
            x, rest = self.get_submodule(f"b{level.name}")(x, rest, self._type_of(level, image, dtype), scaled)
            if self.config.fade and level is self.levels[0]:
                x = self._fade_in(x, image)
            yield x, rest

    def _fade_in(
        self,
        x: Tensor,  # [N, C, H/2, W/2] output of the highest level
        image: Tensor,  # [N, channels, H, W]
    ) -> Tensor:  # [N, C, H/2, W/2]
        """Blend the output of the highest level with the fromRGB of the level below on the downsampled image."""
        fromrgb = self.get_submodule(f"b{self.levels[0].name // 2}.fromrgb")
        below = fromrgb(downsample2d(image, self.resample_filter).to(x.dtype))
        return torch.lerp(below, x, self.alpha.to(x.dtype))


build = LevelsDiscriminator  # for `family.lazy_build`
