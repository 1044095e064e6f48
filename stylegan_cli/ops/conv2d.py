"""Convolution with twofold resampling, the building block of modulated convolution and the discriminator."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor

from .activated_blur import Before, activated_blur
from .bias_act import ACTIVATIONS, bias_act, epilogue
from .composite import convolve, plain_convolution
from .dispatch import choose
from .modulation import scaled_weights
from .scaled_weights import ScaledWeight
from .upfirdn2d import downsample2d, upfirdn2d_composite, upfirdn2d_cuda, upfirdn2d_reference, upsample2d


def conv2d_resample(
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k], k = 1 or 3
    f: Tensor | None = None,  # [K] resampling filter, required if up or down is 2
    up: int = 1,  # 1 or 2
    down: int = 1,  # 1 or 2
    padding: int | None = None,  # zeros on each side; None: k // 2. Requires up = down = 1
) -> Tensor:  # [N, O, H * up / down, W * up / down]
    """A 'same' convolution followed by upsampling (true convolution) or preceded by downsampling (correlation), or one
    with other padding.

    The zeros of the upsampled image are never multiplied: up = 2 is a transposed convolution followed by the filter.
    Differentiable any number of times in x and w; f is a constant. Raises ValueError for other factors, or if the
    filter is missing.
    """
    return _IMPLEMENTATIONS[choose(x.device.type)](x, w, f, up, down, padding)


def equalized_conv2d(
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k], k = 1 or 3
    b: Tensor | None,  # [O]
    f: Tensor | None = None,  # [K] resampling filter, required if up or down is 2
    up: int = 1,  # 1 or 2
    down: int = 1,  # 1 or 2
    act: str = "linear",  # 'linear', 'relu' or 'lrelu'
    w_gain: float = 1.0,  # factor on w
    gain: float = 1.0,  # factor after the activation
    clamp: float | None = None,  # upper bound of the absolute result; None: no bound
    scaled: ScaledWeight | None = None,  # kernels read these instead of w, see `scaled_weights_of_layers`; up is 1
    before: Before | None = None,  # bias and activation of x, which the filter adds if down is 2 and k is 3
) -> Tensor:  # [N, O, H * up / down, W * up / down]
    """A layer: clamp(gain act(conv2d_resample(x, w_gain w) + b)). w and b can have higher precision than x; the result
    has the type of x. Differentiable twice in x, w and b. `scaled` is w_gain w, without bias w_gain gain w."""
    implementation = choose(x.device.type)
    if before is not None and (down, w.shape[-1]) != (2, 3):
        raise ValueError(
            f"what precedes a layer is added by the filter of down = 2 and k = 3, not {down} and {w.shape[-1]}"
        )
    if before is not None and implementation != "cuda":
        x, before = bias_act(x, before[0].to(x.dtype), before[1], before[2], clamp=before[3]), None
    if implementation == "cuda":
        # These activations are positively homogeneous: without a bias, the gain is part of the weights.
        total, gain = (w_gain, gain) if b is not None else (w_gain * gain, 1.0)
        once, again = (scaled_weights(w, total, x.dtype)[0], None) if scaled is None else scaled
        convolution = functools.partial(convolve, again=again)
        resample = upfirdn2d_cuda if before is None else functools.partial(activated_blur, before)
        x = _conv2d_resample(convolution, resample, x, once, f, up, down)
        return epilogue(x, None, None, b, act, gain, ACTIVATIONS[act].alpha, clamp)
    w, b = (w * (w_gain * gain)).to(x.dtype), None if b is None else (b * gain).to(x.dtype)
    return bias_act(_IMPLEMENTATIONS[implementation](x, w, f, up, down), b, act=act, gain=1, clamp=clamp)


def _conv2d_resample(
    convolution: Callable[..., Tensor],  # (x, w, stride=, padding=, transposed=)
    resample: Callable[..., Tensor],  # (x, f, up, down, padding, flip, gain)
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k]
    f: Tensor | None,  # [K]
    up: int = 1,
    down: int = 1,
    padding: int | None = None,
) -> Tensor:  # [N, O, H * up / down, W * up / down]
    """The op built from the given convolution and resampling functions."""
    k = w.shape[-1]
    if (up, down) == (1, 1):
        return convolution(x, w, padding=k // 2 if padding is None else padding)
    if padding is not None:
        raise ValueError(f"padding {padding} requires up = down = 1, not {up} and {down}")
    if (up, down) not in ((2, 1), (1, 2)):
        raise ValueError(f"up {up} and down {down} are not supported: one of them can be 2, otherwise they are 1")
    if f is None:
        raise ValueError("resampling needs a filter f")
    if up == 2 and k == 1:
        return upsample2d(convolution(x, w), f, resample)
    if up == 2:
        x = convolution(x, w.transpose(0, 1), stride=2, transposed=True)  # [N, O, 2H + k - 2, 2W + k - 2]
        p = f.shape[0] - k + 1
        return resample(x, f, 1, 1, ((p + 1) // 2, p // 2) * 2, False, 4.0)
    if k == 1:
        return convolution(downsample2d(x, f, resample), w)
    p = f.shape[0] + k - 3
    return convolution(resample(x, f, 1, 1, ((p + 1) // 2, p // 2) * 2, False, 1.0), w, stride=2)


conv2d_resample_reference = functools.partial(_conv2d_resample, plain_convolution, upfirdn2d_reference)
conv2d_resample_composite = functools.partial(_conv2d_resample, convolve, upfirdn2d_composite)
conv2d_resample_cuda = functools.partial(_conv2d_resample, convolve, upfirdn2d_cuda)


def conv2d_resample_with(
    convolution: Callable[..., Tensor],  # (x, w, stride=, padding=, transposed=)
) -> Callable[..., Tensor]:
    """The composite with another convolution."""
    return functools.partial(_conv2d_resample, convolution, upfirdn2d_composite)


_IMPLEMENTATIONS = {
    "cuda": conv2d_resample_cuda,
    "composite": conv2d_resample_composite,
    "reference": conv2d_resample_reference,
}
