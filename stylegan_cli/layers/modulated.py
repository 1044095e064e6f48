"""The modulated layers of StyleGAN2 synthesis: convolution with noise, and conversion to an image."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..ops import add_skip, conv2d_resample, fir_filter, modulated_conv2d, scaled_linear
from ..ops.bias_act import ACTIVATIONS
from ..ops.composite import PackedConvolution
from ..ops.dispatch import current_implementation
from ..ops.frozen import IMAGE_CHANNELS, Image, layer_end, modulated_conv2d_image, takes_image
from ..ops.modulated_conv2d import HALF, Prepared, pack_weights, prepare_weight
from .initial import normal
from .linear import EqualLinear
from .precision import clamp_for


def batched_styles(
    affines: Sequence[EqualLinear],  # of all layers
    ws: Sequence[Tensor],  # [N, w_dim] each
) -> list[Tensor]:  # [N, features] each
    """The styles of all layers, with one batched product for all that have as many features: a GPU spends more time on
    launching small products than on computing them."""
    styles: list[Tensor | None] = [None] * len(affines)
    for features in dict.fromkeys(len(affine.weight) for affine in affines):
        chosen = [i for i, affine in enumerate(affines) if len(affine.weight) == features]
        first, parts = affines[chosen[0]], [affines[i] for i in chosen]
        weights = torch.stack([affine.weight for affine in parts])  # [L, features, w_dim]
        biases = torch.stack([affine.bias for affine in parts])  # pyright: ignore[reportCallIssue, reportArgumentType]
        w = torch.stack([ws[i] for i in chosen])  # [L, N, w_dim]
        results = scaled_linear(w, weights, biases, first.weight_gain, first.lr_multiplier)
        for i, style in zip(chosen, results.unbind(), strict=True):
            styles[i] = style
    return [style for style in styles if style is not None]


class ModulatedConv2d(nn.Module):
    """style = A w + 1;  y = lrelu(demod(conv(style * x)) + strength * noise + bias)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        height: int,  # of the output
        width: int,
        up: int = 1,  # 1 or 2; 2: the input has half the size of the output
        fir: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0),  # resampling filter
        clamp: float | None = None,  # bound on the output
        noise: bool = True,  # whether it can add noise
    ):
        super().__init__()
        self.up, self.clamp = up, clamp
        self.weight_gain = 1 / math.sqrt(in_channels * 9)
        self.affine = EqualLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(normal(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([])) if noise else None
        if noise:
            self.register_buffer("noise_const", normal(height, width))
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", fir_filter(fir), persistent=False)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H / up, W / up]
        w: Tensor,  # [N, w_dim]
        noise: Tensor | None,  # [N or 1, 1, H, W]; None: no noise
        gain: float = 1.0,  # multiplies the activation's gain and the clamp
        style: Tensor | None = None,  # [N, in_channels] that belongs to w, from `batched_styles`
    ) -> Tensor:  # [N, out_channels, H, W]
        clamp = clamp_for(self.clamp, x.dtype)
        return modulated_conv2d(
            x,
            self.weight,
            self.affine(w) if style is None else style,
            w_gain=self.weight_gain,  # demodulation cancels it, but with it eps has the same effect at every width
            up=self.up,
            f=self.resample_filter,
            noise=noise,
            noise_strength=self.noise_strength,
            b=self.bias,
            act="lrelu",
            gain=ACTIVATIONS["lrelu"].gain * gain,
            clamp=None if clamp is None else clamp * gain,
        )

    def frozen(self, dtype: torch.dtype) -> FrozenConv2d:
        """This layer with its current weights, for inputs of this type."""
        return FrozenConv2d(self, dtype)


@dataclass
class ImagePart:
    """What the toRGB of a level takes on the kernels, and also the convolution before it, which can compute the image
    along with its features."""

    torgb: FrozenToRGB
    w: Tensor  # [N, channels, I] times the style
    below: ImagePart | None  # of the level below
    is_last: bool  # nothing but the toRGB reads the features
    image: Tensor | None = None  # [N, channels, H, W], once it is computed

    def operands(self, f: Tensor) -> Image:
        """For the convolution's kernel."""
        below = self.below and self.below.image
        return Image(self.w, self.torgb.bias, self.torgb.clamp, below, f, self.is_last)


@dataclass
class KernelInputs:
    """What a convolution takes on the kernels. Each multiplies its result by the style of the next one, where only that
    reads it: `following`."""

    style: Tensor | None  # [N, in_channels]; None: x has been multiplied by it
    d: Tensor  # [N, out_channels]
    following: Tensor | None  # [N, out_channels]
    dtype: torch.dtype  # of the result: that of the next convolution, if it alone reads it
    part: ImagePart | None  # the image to be computed with the features, for a toRGB that does not read them


class FrozenConv2d(nn.Module):
    """A `ModulatedConv2d` whose weight will not change: prepared once, with the strength in the noise."""

    style_gain = 1.0  # factor on what the affine map returns

    def __init__(
        self,
        layer: ModulatedConv2d,
        dtype: torch.dtype,  # of the inputs
    ):
        super().__init__()
        self.up, self.clamp, self.dtype = layer.up, clamp_for(layer.clamp, dtype), dtype
        weight, self.squares = prepare_weight(layer.weight.detach() * layer.weight_gain, dtype)
        # The layout of the convolution, which is transposed if the layer upsamples.
        weight = weight.to(dtype).transpose(0, 1) if self.up == 2 else weight.to(dtype)
        weight = weight.contiguous(memory_format=torch.channels_last)
        self.weight = weight.transpose(0, 1) if self.up == 2 else weight
        self.bias, self.noise_strength = layer.bias.detach(), None
        if layer.noise_strength is not None:
            self.noise_strength = layer.noise_strength.detach()
            self.register_buffer("noise_const", layer.get_buffer("noise_const") * self.noise_strength)
        self.resample_filter = layer.resample_filter
        self.convolution = PackedConvolution()

    @functools.cached_property
    def packed(self) -> Tensor:
        """The weight of the fused kernel."""
        return pack_weights(self.weight)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H / up, W / up]
        factors: tuple[Tensor, Tensor] | KernelInputs,  # prepared style [N, in_channels], d [N, out_channels]
        noise: Tensor | None,  # [N or 1, 1, H, W] times the strength; None: no noise
        gain: float = 1.0,  # multiplies the activation's gain and the clamp
    ) -> Tensor:  # [N, out_channels, H, W]
        if isinstance(factors, KernelInputs):
            if factors.part or not self.is_fused:
                return self._on_kernels(x, factors, noise)
            assert factors.style is not None
            factors = factors.style, factors.d
        style, d = factors
        packed = self.packed if current_implementation() == "fused" and self.dtype in HALF else None
        return modulated_conv2d(
            x,
            self.weight,
            style,
            up=self.up,
            f=self.resample_filter,
            noise=noise,
            b=self.bias,
            act="lrelu",
            gain=ACTIVATIONS["lrelu"].gain * gain,
            clamp=None if self.clamp is None else self.clamp * gain,
            prepared=Prepared(d, packed, self.convolution),
        )

    @property
    def is_fused(self) -> bool:
        """Whether the convolution and all that surrounds it are one kernel."""
        return (
            current_implementation() == "fused"
            and self.dtype in HALF
            and (self.up == 1 or self.resample_filter.shape == (4,))
        )

    def computes_image(self, torgb: FrozenToRGB) -> bool:
        """Whether its kernels compute the image too."""
        fits = len(torgb.bias) <= IMAGE_CHANNELS and self.resample_filter.shape == (4,)
        return fits and (takes_image(self.weight) or not self.is_fused)

    def _on_kernels(
        self,
        x: Tensor,  # [N, in_channels, H / up, W / up]
        inputs: KernelInputs,
        noise: Tensor | None,  # [N or 1, 1, H, W]
    ) -> Tensor:  # [N, out_channels, H, W] times the style of the next layer; without channels if there is none
        image, lrelu = inputs.part and inputs.part.operands(self.resample_filter), ACTIVATIONS["lrelu"]
        activation = lrelu.alpha, lrelu.gain, self.clamp
        if self.is_fused:
            assert image is not None and inputs.style is not None
            rest = noise, self.bias, *activation, image
            y, rgb = modulated_conv2d_image(x, self.packed, inputs.style, inputs.d, *rest)
        else:
            x = x if inputs.style is None else x * inputs.style[:, :, None, None].to(x.dtype)
            x = conv2d_resample(x, self.weight, self.resample_filter, self.up)
            y, rgb = layer_end(x, inputs.d, noise, self.bias, *activation, inputs.following, inputs.dtype, image)
        if inputs.part:
            inputs.part.image = rgb
        return y


class ToRGB(nn.Module):
    """A modulated 1x1 convolution to image channels, without demodulation, noise or activation, and the sum with the
    image of the level below."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,  # of the image
        w_dim: int,
        clamp: float | None = None,
    ):
        super().__init__()
        self.clamp = clamp
        self.weight_gain = 1 / math.sqrt(in_channels)
        self.affine = EqualLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(normal(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
        w: Tensor,  # [N, w_dim]
        below: Tensor | None = None,  # [N, out_channels, H / 2, W / 2] image of the level below
        f: Tensor | None = None,  # [K] filter to upsample it
        style: Tensor | None = None,  # [N, in_channels] that belongs to w, from `batched_styles`
    ) -> Tensor:  # [N, out_channels, H, W] in full precision
        styles = self.affine(w) if style is None else style
        y = modulated_conv2d(x, self.weight, styles, w_gain=self.weight_gain, demodulate=False)
        return add_skip(y, self.bias, below, f, clamp_for(self.clamp, x.dtype))

    def frozen(self, dtype: torch.dtype) -> FrozenToRGB:
        """This layer with its current weights, for inputs of this type."""
        return FrozenToRGB(self, dtype)


class FrozenToRGB(nn.Module):
    """A `ToRGB` whose weight will not change."""

    def __init__(
        self,
        layer: ToRGB,
        dtype: torch.dtype,  # of the inputs
    ):
        super().__init__()
        self.style_gain, self.clamp, self.dtype = layer.weight_gain, clamp_for(layer.clamp, dtype), dtype
        self.weight, self.squares = layer.weight.detach().to(dtype), None
        self.matrix = layer.weight.detach().flatten(1)  # [O, I]
        self.bias = layer.bias.detach()

    @functools.cached_property
    def packed(self) -> Tensor:
        """The weight of the fused kernel."""
        return pack_weights(self.weight)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
        style: Tensor | ImagePart,  # [N, in_channels] with the gain of the layer
        below: Tensor | None = None,  # [N, out_channels, H / 2, W / 2] image of the level below
        f: Tensor | None = None,  # [K] filter to upsample it
    ) -> Tensor:  # [N, out_channels, H, W] in full precision
        if isinstance(style, ImagePart):
            if style.image is None:
                y = x.permute(0, 2, 3, 1).flatten(1, 2) @ style.w.to(x.dtype).mT  # [N, H * W, O]
                y = y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
                style.image = add_skip(y, self.bias, below, f, self.clamp)
            return style.image
        packed = self.packed if current_implementation() == "fused" and self.dtype in HALF else None
        y = modulated_conv2d(x, self.weight, style, demodulate=False, prepared=Prepared(None, packed))
        return add_skip(y, self.bias, below, f, self.clamp)
