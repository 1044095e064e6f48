"""Convolution with equalized learning rate and optional resampling, as in the discriminator.

y = clamp(gain act(resample(conv(x, weight / sqrt(fan_in))) + bias))
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..ops import ScaledWeight, equalized_conv2d, fir_filter, scaled_weights_of_layers
from ..ops.bias_act import ACTIVATIONS
from .initial import normal
from .precision import clamp_for


class EqualConv2d(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,  # 1 or 3
        act: str = "linear",  # 'linear', 'relu' or 'lrelu'
        bias: bool = True,
        up: int = 1,  # 1 or 2
        down: int = 1,  # 1 or 2
        fir: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0),  # resampling filter
        clamp: float | None = None,  # bound on the output
    ):
        super().__init__()
        self.act, self.up, self.down, self.clamp = act, up, down, clamp
        self.weight_gain = 1 / math.sqrt(in_channels * kernel**2)
        self.weight = nn.Parameter(normal(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", fir_filter(fir), persistent=False)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
        gain: float = 1.0,  # multiplies the activation's gain and the clamp
        scaled: ScaledWeight | None = None,  # from `scaled_weights` with this gain and the type of x
        before: EqualConv2d | None = None,  # x is its `convolve`; requires down = 2 and a kernel of 3
    ) -> Tensor:  # [N, out_channels, H * up / down, W * up / down]
        clamp = clamp_for(self.clamp, x.dtype)
        return equalized_conv2d(
            x,
            self.weight,
            self.bias,
            self.resample_filter,
            up=self.up,
            down=self.down,
            act=self.act,
            w_gain=self.weight_gain,
            gain=ACTIVATIONS[self.act].gain * gain,
            clamp=None if clamp is None else clamp * gain,
            scaled=scaled,
            before=None if before is None else before.rest(x.dtype),
        )

    def convolve(
        self,
        x: Tensor,  # [N, in_channels, H, W]
        scaled: ScaledWeight | None = None,  # as in `forward`
    ) -> Tensor:  # [N, out_channels, H * up / down, W * up / down]
        """Only the convolution. The next layer adds bias and activation."""
        filter, w_gain = self.resample_filter, self.weight_gain
        return equalized_conv2d(x, self.weight, None, filter, self.up, self.down, w_gain=w_gain, scaled=scaled)

    def rest(self, dtype: torch.dtype) -> tuple[Tensor, str, float, float | None]:
        """What `convolve` leaves out of `forward`: bias, activation, gain and clamp."""
        assert self.bias is not None
        return self.bias, self.act, ACTIVATIONS[self.act].gain, clamp_for(self.clamp, dtype)

    def extra_repr(self) -> str:
        o, i, k, _ = self.weight.shape
        return f"{i}, {o}, {k}x{k}, act={self.act}, up={self.up}, down={self.down}"


def scaled_weights(
    layers: Iterable[tuple[EqualConv2d, torch.dtype, float]],  # on the GPU; the type of the images, and the gain
) -> dict[nn.Module, ScaledWeight]:
    """The weights of several layers for their `forward`, from one launch for each type. Those that are frozen have no
    gradients, which would be computed for nothing."""
    groups = collections.defaultdict(list)
    for layer, dtype, gain in layers:
        folded = layer.weight_gain * (gain * ACTIVATIONS[layer.act].gain if layer.bias is None else 1)
        groups[dtype, layer.weight.requires_grad].append((layer, folded))
    found = {}
    for (dtype, _), group in groups.items():
        scaled = scaled_weights_of_layers([layer.weight for layer, _ in group], [gain for _, gain in group], dtype)
        found |= dict(zip((layer for layer, _ in group), scaled, strict=True))
    return found
