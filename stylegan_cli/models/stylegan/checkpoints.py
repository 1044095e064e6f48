"""Weight names of the TensorFlow StyleGAN of 2018.

It applies the gain of sqrt(2) before the bias and the activation. We do so only in synthesis; elsewhere we apply it
after both, so our bias is the original one divided by sqrt(2).
"""

from __future__ import annotations

import math

from torch import Tensor

from ..checkpoints import Conversion, Names, convolution, permute_kernel, squeeze_noise, transpose


def tensorflow_level(
    r: int,
    upsampling_kernel: Conversion | None,  # converts the kernel of the layer that upsamples; None at the lowest level
) -> Names:
    """The names in one level of the synthesis network, without its toRGB."""
    first = 2 * (r.bit_length() - 3)  # number of layers in lower levels
    lower, upper = tensorflow_layers(r)
    names: Names = {f"synthesis.b{r}.conv1.weight": (f"synthesis/{upper}/weight", permute_kernel)}
    for i, (name, source) in enumerate(((f"synthesis.b{r}.conv0", lower), (f"synthesis.b{r}.conv1", upper)), first):
        names |= {
            f"{name}.bias": (f"synthesis/{source}/bias", None),
            f"{name}.noise_strength": (f"synthesis/{source}/Noise/weight", None),
            f"{name}.noise_const": (f"synthesis/noise{i}", squeeze_noise),
            f"{name}.affine.weight": (f"synthesis/{source}/StyleMod/weight", transpose),
            f"{name}.affine.bias": (f"synthesis/{source}/StyleMod/bias", None),
        }
    if r > 4:
        names[f"synthesis.b{r}.conv0.weight"] = (f"synthesis/{lower}/weight", upsampling_kernel)
    return names


def tensorflow_layers(r: int) -> tuple[str, str]:
    """The names of the two layers of a level of the synthesis network."""
    return ("4x4/Const", "4x4/Conv") if r == 4 else (f"{r}x{r}/Conv0_up", f"{r}x{r}/Conv1")


def tensorflow_d_level(r: int) -> Names:
    """The names in one level of the discriminator, without its fromRGB."""
    names: Names = {}
    for name, source in zip(("conv",) if r == 4 else ("conv0", "conv1"), tensorflow_d_layers(r)):
        names |= convolution(f"b{r}.{name}", source, divide_by_gain)
    return names


def tensorflow_d_layers(r: int) -> tuple[str, ...]:
    """The names of the convolutions of a level of the discriminator."""
    return ("4x4/Conv",) if r == 4 else (f"{r}x{r}/Conv0", f"{r}x{r}/Conv1_down")


def divide_by_gain(bias: Tensor) -> Tensor:  # [out]
    return bias / math.sqrt(2)
