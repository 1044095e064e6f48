"""How TensorFlow's StyleGAN of 2018 names its weights.

Its gain of sqrt(2) is in front of the bias and the activation. Ours is there in synthesis; elsewhere it comes after
both, and the bias is theirs divided by it.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..checkpoints import Change, Names, convolution, kernel_of, noise_map, transposed


def tensorflow_level(
    r: int,
    enlarging: Change | None,  # what makes ours of the kernel that doubles the size; None at the lowest level
) -> Names:
    """Of a level of the synthesis network, without its toRGB."""
    first = 2 * (r.bit_length() - 3)  # how many layers are below
    lower, upper = tensorflow_layers(r)
    names: Names = {f"synthesis.b{r}.conv1.weight": (f"synthesis/{upper}/weight", kernel_of)}
    for i, (our, their) in enumerate(((f"synthesis.b{r}.conv0", lower), (f"synthesis.b{r}.conv1", upper)), first):
        names |= {
            f"{our}.bias": (f"synthesis/{their}/bias", None),
            f"{our}.noise_strength": (f"synthesis/{their}/Noise/weight", None),
            f"{our}.noise_const": (f"synthesis/noise{i}", noise_map),
            f"{our}.affine.weight": (f"synthesis/{their}/StyleMod/weight", transposed),
            f"{our}.affine.bias": (f"synthesis/{their}/StyleMod/bias", None),
        }
    if r > 4:
        names[f"synthesis.b{r}.conv0.weight"] = (f"synthesis/{lower}/weight", enlarging)
    return names


def tensorflow_layers(r: int) -> tuple[str, str]:
    return ("4x4/Const", "4x4/Conv") if r == 4 else (f"{r}x{r}/Conv0_up", f"{r}x{r}/Conv1")


def tensorflow_judging_level(r: int) -> Names:
    names: Names = {}
    for our, their in zip(("conv",) if r == 4 else ("conv0", "conv1"), tensorflow_judging(r)):
        names |= convolution(f"b{r}.{our}", their, before_gain)
    return names


def tensorflow_judging(r: int) -> tuple[str, ...]:
    return ("4x4/Conv",) if r == 4 else (f"{r}x{r}/Conv0", f"{r}x{r}/Conv1_down")


def before_gain(bias: Tensor) -> Tensor:  # [out]
    return bias / math.sqrt(2)
