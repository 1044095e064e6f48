"""The modulated layers of StyleGAN2 synthesis: convolution with noise, and conversion to an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..ops import add_skip, fir_filter, modulated_conv2d
from ..ops.bias_act import ACTIVATIONS
from .linear import EqualLinear
from .precision import clamp_for


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
    ):
        super().__init__()
        self.up, self.clamp = up, clamp
        self.weight_gain = 1 / math.sqrt(in_channels * 9)
        self.affine = EqualLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(height, width))
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", fir_filter(fir), persistent=False)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H / up, W / up]
        w: Tensor,  # [N, w_dim]
        noise: Tensor | None,  # [N or 1, 1, H, W]; None: no noise
        gain: float = 1.0,  # multiplies the activation's gain and the clamp
    ) -> Tensor:  # [N, out_channels, H, W]
        clamp = clamp_for(self.clamp, x.dtype)
        return modulated_conv2d(
            x,
            # Demodulation cancels this gain, but with it eps has the same effect at every width.
            self.weight * self.weight_gain,
            self.affine(w),
            up=self.up,
            f=self.resample_filter,
            noise=noise,
            noise_strength=self.noise_strength,
            b=self.bias,
            act="lrelu",
            gain=ACTIVATIONS["lrelu"].gain * gain,
            clamp=None if clamp is None else clamp * gain,
        )


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
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
        w: Tensor,  # [N, w_dim]
        below: Tensor | None = None,  # [N, out_channels, H / 2, W / 2] image of the level below
        f: Tensor | None = None,  # [K] filter to upsample it
    ) -> Tensor:  # [N, out_channels, H, W] in full precision
        style = self.affine(w) * self.weight_gain
        y = modulated_conv2d(x, self.weight, style, demodulate=False)
        return add_skip(y, self.bias, below, f, clamp_for(self.clamp, x.dtype))
