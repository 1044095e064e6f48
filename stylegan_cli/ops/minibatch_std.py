"""Minibatch standard deviation (Karras et al. 2018, section 3): shows the discriminator how varied its batch is.

m = mean x,   s = sqrt(mean (x - m)^2 + 1e-8) over a group,   y = [x, mean s]
dx = dy[x] + r (x - m) / s,   r = sum dy[map] / (group numbers)
"""

from __future__ import annotations

import torch
from torch import Tensor

from .dispatch import choose, layout_of
from .requested import no_third_derivative


def append_minibatch_std(
    x: Tensor,  # [N, C, H, W]
    group: int | None,  # images per group; None: the whole batch
    channels: int = 1,  # feature maps to append; the features are split into this many sets
) -> Tensor:  # [N, C + channels, H, W]
    """Append the standard deviation over each group, averaged over features and pixels.

    With M = N / group groups, image n is in group n mod M, so distributing images to ranks by index modulo the number
    of ranks does not change the groups. Differentiable twice. Raises ValueError if the batch size or the features are
    not divisible.
    """
    n, c = x.shape[:2]
    group = max(min(group or n, n), 1)  # of no images too
    if n % group or c % channels:
        raise ValueError(f"a batch of {n} does not divide into groups of {group}, or {c} features into {channels} sets")
    if choose(x.device.type) == "cuda":
        return torch.ops.sgan.minibatch_std(x.contiguous(memory_format=layout_of(x)), group, channels)
    return append_minibatch_std_reference(x, group, channels)


def append_minibatch_std_reference(
    x: Tensor,  # [N, C, H, W]
    group: int,  # divides N
    channels: int,  # divides C
) -> Tensor:  # [N, C + channels, H, W]
    n, c, h, w = x.shape
    y = x.reshape(group, n // group, channels, c // channels, h, w)
    y = y.float() if x.dtype in (torch.float16, torch.bfloat16) else y
    y = (y - y.mean(0)).square().mean(0)  # [M, F, C/F, H, W] variance over the group
    y = (y + 1e-8).sqrt().mean([2, 3, 4])  # [M, F]
    y = y.to(x.dtype).reshape(-1, channels, 1, 1).repeat(group, 1, h, w)  # [N, F, H, W]
    return torch.cat([x, y], dim=1)


# The kernel: csrc/minibatch_std.cu, bound by csrc/library_training.cpp. All tensors have one memory format.

_PARAMS = "int group, int channels"
torch.library.define("sgan::minibatch_std", f"(Tensor x, {_PARAMS}) -> Tensor")
torch.library.define("sgan::minibatch_std_backward", f"(Tensor dy, Tensor x, {_PARAMS}) -> Tensor")
torch.library.define(
    "sgan::minibatch_std_double_backward", f"(Tensor u, Tensor dy, Tensor x, {_PARAMS}) -> (Tensor cdy, Tensor cx)"
)


@torch.library.register_fake("sgan::minibatch_std")
def _(x, group, channels):
    n, c, h, w = x.shape
    return torch.empty(n, c + channels, h, w, dtype=x.dtype, device=x.device, memory_format=layout_of(x))


@torch.library.register_fake("sgan::minibatch_std_backward")
def _(dy, x, group, channels):
    return torch.empty_like(x)


@torch.library.register_fake("sgan::minibatch_std_double_backward")
def _(u, dy, x, group, channels):
    return torch.empty_like(dy), torch.empty_like(x)


def _setup_forward(ctx, inputs, output):
    x, *ctx.params = inputs
    ctx.save_for_backward(x)


def _gradient(ctx, dy):
    (x,) = ctx.saved_tensors
    dy = dy.contiguous(memory_format=layout_of(x))
    return torch.ops.sgan.minibatch_std_backward(dy, x, *ctx.params), None, None


def _setup_backward(ctx, inputs, output):
    dy, x, *ctx.params = inputs
    ctx.save_for_backward(dy, x)


def _second(ctx, u):
    dy, x = ctx.saved_tensors
    u = u.contiguous(memory_format=layout_of(x))
    return *torch.ops.sgan.minibatch_std_double_backward(u, dy, x, *ctx.params), None, None


torch.library.register_autograd("sgan::minibatch_std", _gradient, setup_context=_setup_forward)
torch.library.register_autograd("sgan::minibatch_std_backward", _second, setup_context=_setup_backward)
torch.library.register_autograd("sgan::minibatch_std_double_backward", no_third_derivative)
