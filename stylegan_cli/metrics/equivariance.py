"""Equivariance: how well an image follows a motion of the generator's input (Karras et al. 2021, "Alias-Free Generative
Adversarial Networks", section 2.1, equation 3; appendix E), as a peak signal-to-noise ratio in dB:

EQ = 10 log10( 2² / MSE ),   MSE = Σ m (reference - moved)² / Σ m   over all images, channels and pixels

`moved` is generated from the moved input; `reference` is the image of the input at rest, moved by resampling
(motions.py); the mask m is 1 where no pixel from outside the image enters. Images have values of [-1, 1], a range of 2;
they are not rounded to bytes.

int: a translation by whole pixels, up to 1/8 of the image; frac: by any distance up to that; rotate: a rotation by any
angle. NVIDIA samples one motion per batch, we sample one per image, so that the batch size does not matter. The
standard error is that of a ratio of means (Cochran 1977, "Sampling Techniques", equation 2.46).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .metric import ERRORS, Metric, Motion, Output, Settings, Value

if TYPE_CHECKING:
    from torch import Tensor

    from .statistics import Tensors

_ROUNDING = 4e-16  # smallest mean squared error that float32 can show: 160 dB


def peak_signal_to_noise(
    errors: Tensor,  # [N, 2] float64: sum of squared errors and number of values of each image
) -> Value:  # in dB
    """Compute EQ of the equations above with its standard error; at most 160."""
    squares, counts = errors.unbind(1)
    mse = max(float(squares.sum() / counts.sum()), _ROUNDING)
    value, n = 10 * math.log10(4 / mse), len(errors)
    if n < 2:
        return Value(value)
    variance = (squares - mse * counts).square().sum() * n / (n - 1)
    return Value(value, 10 / math.log(10) * math.sqrt(float(variance)) / (float(counts.sum()) * mse))


def _compute(reals: Tensors, fakes: Tensors, settings: Settings) -> list[Value]:
    return [peak_signal_to_noise(fakes["features"])]


def _metric(template: str, description: str, motion: Motion, min_side: int, alias: str = "") -> Metric:
    outputs = (Output(higher_is_better=True),)
    return Metric(template, description, ERRORS, "features", _compute, outputs, alias, min_side=min_side, motion=motion)


METRICS = (
    _metric("eqt{num}_int", "equivariance to translation by whole pixels, in dB", "int", 8, alias="eqt"),
    _metric("eqt{num}_frac", "... by fractions of pixels", "frac", 8),
    _metric("eqr{num}", "equivariance to rotation, in dB", "rotate", 16, alias="eqr"),
)
