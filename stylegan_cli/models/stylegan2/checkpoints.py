"""How other programs name the weights of a StyleGAN2. NVIDIA's PyTorch networks have our names."""

from __future__ import annotations

from torch import Tensor

from ..checkpoints import (
    Change,
    Names,
    convolution,
    dense,
    flipped,
    kernel_of,
    mapping_names,
    noise_map,
    only,
    transposed,
)
from ..config import DiscriminatorConfig
from .config import StyleGAN2Config

# TensorFlow: StyleGAN2 and StyleGAN2-ADA


def tensorflow_generator(config: StyleGAN2Config, levels: list[int], to_rgb: str) -> Names:
    names = mapping_names(config) | {"synthesis.b4.const": ("synthesis/4x4/Const/const", only)}
    names |= _tf_styled("b4.conv1", "4x4/Conv", 0)
    for k, level in enumerate(levels):
        names |= _tf_styled(f"b{level}.conv0", f"{level}x{level}/Conv0_up", 2 * k + 1, flipped)
        names |= _tf_styled(f"b{level}.conv1", f"{level}x{level}/Conv1", 2 * k + 2)
        if config.architecture == "resnet":
            names[f"synthesis.b{level}.skip.weight"] = (f"synthesis/{level}x{level}/Skip/weight", kernel_of)
    for level in (4, *levels) if config.architecture == "skip" else ():
        names |= _tf_modulated(f"b{level}.torgb", f"{level}x{level}/ToRGB")
    return names | _tf_modulated(f"b{max(levels)}.torgb", to_rgb)


def tensorflow_discriminator(config: DiscriminatorConfig, levels: list[int], from_rgb: str) -> Names:
    names: Names = dense("b4.fc", "4x4/Dense0") | dense("b4.out", "Output") | convolution("b4.conv", "4x4/Conv")
    for level in (4, *levels) if config.architecture == "skip" else ():
        names |= convolution(f"b{level}.fromrgb", f"{level}x{level}/FromRGB")
    names |= convolution(f"b{max(levels)}.fromrgb", from_rgb)
    for level in levels:
        names |= convolution(f"b{level}.conv0", f"{level}x{level}/Conv0")
        names |= convolution(f"b{level}.conv1", f"{level}x{level}/Conv1_down")
        if config.architecture == "resnet":
            names[f"b{level}.skip.weight"] = (f"{level}x{level}/Skip/weight", kernel_of)
    if config.c_dim and config.labels == "projection":
        names |= dense("mapping.embed", "LabelEmbed")
        for i in range(config.mapping_layers):
            names |= dense(f"mapping.fc{i}", f"Mapping{i}")
    return names


def _tf_styled(our: str, their: str, noise: int, kernel: Change | None = None) -> Names:
    return _tf_modulated(our, their, kernel) | {
        f"synthesis.{our}.noise_strength": (f"synthesis/{their}/noise_strength", None),
        f"synthesis.{our}.noise_const": (f"synthesis/noise{noise}", noise_map),
    }


def _tf_modulated(our: str, their: str, kernel: Change | None = None) -> Names:
    return {
        f"synthesis.{our}.weight": (f"synthesis/{their}/weight", kernel or kernel_of),
        f"synthesis.{our}.bias": (f"synthesis/{their}/bias", None),
        f"synthesis.{our}.affine.weight": (f"synthesis/{their}/mod_weight", transposed),
        f"synthesis.{our}.affine.bias": (f"synthesis/{their}/mod_bias", lambda bias: bias + 1),
    }


# rosinality's stylegan2-pytorch


def rosinality_generator(
    mapping_layers: int,
    levels: int,  # above the lowest
) -> Names:
    pairs = [(i, what) for i in range(mapping_layers) for what in ("weight", "bias")]
    names: Names = {f"mapping.fc{i}.{what}": (f"style.{i + 1}.{what}", None) for i, what in pairs}  # style.0 normalizes
    names["synthesis.b4.const"] = ("input.input", first_row)
    names |= _styled("b4.conv1", "conv1", 0) | _to_rgb("b4.torgb", "to_rgb1")
    for j in range(levels):
        level = 8 << j
        names |= _styled(f"b{level}.conv0", f"convs.{2 * j}", 2 * j + 1)
        names |= _styled(f"b{level}.conv1", f"convs.{2 * j + 1}", 2 * j + 2)
        names |= _to_rgb(f"b{level}.torgb", f"to_rgbs.{j}")
    return names


def _styled(our: str, their: str, noise: int) -> Names:
    return _modulated(our, their) | {
        f"synthesis.{our}.bias": (f"{their}.activate.bias", None),
        f"synthesis.{our}.noise_strength": (f"{their}.noise.weight", lambda strength: strength.reshape([])),
        f"synthesis.{our}.noise_const": (f"noises.noise_{noise}", lambda noise: noise[0, 0]),
    }


def _to_rgb(our: str, their: str) -> Names:
    return _modulated(our, their) | {f"synthesis.{our}.bias": (f"{their}.bias", lambda bias: bias[0, :, 0, 0])}


def _modulated(our: str, their: str) -> Names:
    names: Names = {f"synthesis.{our}.affine.{w}": (f"{their}.conv.modulation.{w}", None) for w in ("weight", "bias")}
    return names | {f"synthesis.{our}.weight": (f"{their}.conv.weight", first_row)}


def rosinality_discriminator(
    levels: int,  # above the lowest
) -> Names:
    names = _convolution(f"b{4 << levels}.fromrgb", "convs.0", 0) | _convolution("b4.conv", "final_conv", 0)
    for i in range(1, levels + 1):
        level = 8 << (levels - i)
        names |= _convolution(f"b{level}.conv0", f"convs.{i}.conv1", 0)
        names |= _convolution(f"b{level}.conv1", f"convs.{i}.conv2", 1)
        names[f"b{level}.skip.weight"] = (f"convs.{i}.skip.1.weight", None)
    for our, index in (("fc", 0), ("out", 1)):
        names |= {f"b4.{our}.{what}": (f"final_linear.{index}.{what}", None) for what in ("weight", "bias")}
    return names


def _convolution(
    our: str,
    their: str,
    index: int,  # of the convolution in its row of modules; the activation with the bias comes after it
) -> Names:
    return {f"{our}.weight": (f"{their}.{index}.weight", None), f"{our}.bias": (f"{their}.{index + 1}.bias", None)}


def first_row(tensor: Tensor) -> Tensor:  # [copies, N] or [1, ...]; [N] stays
    return tensor if tensor.ndim == 1 else tensor[0]
