"""Weight names of StyleGAN2 in other programs. NVIDIA's PyTorch networks have the same names as this one."""

from __future__ import annotations

from torch import Tensor

from ..checkpoints import (
    Conversion,
    Names,
    convolution,
    dense,
    flip_kernel,
    mapping_names,
    permute_kernel,
    squeeze_first,
    squeeze_noise,
    transpose,
)
from ..config import LevelsDiscriminatorConfig
from .config import StyleGAN2Config

# TensorFlow: StyleGAN2 and StyleGAN2-ADA


def tensorflow_generator(config: StyleGAN2Config, levels: list[int], to_rgb: str) -> Names:
    names = mapping_names(config) | {"synthesis.b4.const": ("synthesis/4x4/Const/const", squeeze_first)}
    names |= _tf_styled("b4.conv1", "4x4/Conv", 0)
    for k, level in enumerate(levels):
        names |= _tf_styled(f"b{level}.conv0", f"{level}x{level}/Conv0_up", 2 * k + 1, flip_kernel)
        names |= _tf_styled(f"b{level}.conv1", f"{level}x{level}/Conv1", 2 * k + 2)
        if config.architecture == "resnet":
            names[f"synthesis.b{level}.skip.weight"] = (f"synthesis/{level}x{level}/Skip/weight", permute_kernel)
    for level in (4, *levels) if config.architecture == "skip" else ():
        names |= _tf_modulated(f"b{level}.torgb", f"{level}x{level}/ToRGB")
    return names | _tf_modulated(f"b{max(levels)}.torgb", to_rgb)


def tensorflow_discriminator(config: LevelsDiscriminatorConfig, levels: list[int], from_rgb: str) -> Names:
    names: Names = dense("b4.fc", "4x4/Dense0") | dense("b4.out", "Output") | convolution("b4.conv", "4x4/Conv")
    for level in (4, *levels) if config.architecture == "skip" else ():
        names |= convolution(f"b{level}.fromrgb", f"{level}x{level}/FromRGB")
    names |= convolution(f"b{max(levels)}.fromrgb", from_rgb)
    for level in levels:
        names |= convolution(f"b{level}.conv0", f"{level}x{level}/Conv0")
        names |= convolution(f"b{level}.conv1", f"{level}x{level}/Conv1_down")
        if config.architecture == "resnet":
            names[f"b{level}.skip.weight"] = (f"{level}x{level}/Skip/weight", permute_kernel)
    if config.c_dim and config.labels == "projection":
        names |= dense("mapping.embed", "LabelEmbed")
        for i in range(config.mapping_layers):
            names |= dense(f"mapping.fc{i}", f"Mapping{i}")
    return names


def _tf_styled(name: str, source: str, noise: int, kernel: Conversion | None = None) -> Names:
    return _tf_modulated(name, source, kernel) | {
        f"synthesis.{name}.noise_strength": (f"synthesis/{source}/noise_strength", None),
        f"synthesis.{name}.noise_const": (f"synthesis/noise{noise}", squeeze_noise),
    }


def _tf_modulated(name: str, source: str, kernel: Conversion | None = None) -> Names:
    return {
        f"synthesis.{name}.weight": (f"synthesis/{source}/weight", kernel or permute_kernel),
        f"synthesis.{name}.bias": (f"synthesis/{source}/bias", None),
        f"synthesis.{name}.affine.weight": (f"synthesis/{source}/mod_weight", transpose),
        f"synthesis.{name}.affine.bias": (f"synthesis/{source}/mod_bias", lambda bias: bias + 1),
    }


# rosinality's stylegan2-pytorch


def rosinality_generator(
    mapping_layers: int,
    levels: int,  # number of levels above the lowest
) -> Names:
    pairs = [(i, tensor) for i in range(mapping_layers) for tensor in ("weight", "bias")]
    names: Names = {f"mapping.fc{i}.{t}": (f"style.{i + 1}.{t}", None) for i, t in pairs}  # style.0 normalizes
    names["synthesis.b4.const"] = ("input.input", first_row)
    names |= _styled("b4.conv1", "conv1", 0) | _to_rgb("b4.torgb", "to_rgb1")
    for j in range(levels):
        level = 8 << j
        names |= _styled(f"b{level}.conv0", f"convs.{2 * j}", 2 * j + 1)
        names |= _styled(f"b{level}.conv1", f"convs.{2 * j + 1}", 2 * j + 2)
        names |= _to_rgb(f"b{level}.torgb", f"to_rgbs.{j}")
    return names


def _styled(name: str, source: str, noise: int) -> Names:
    return _modulated(name, source) | {
        f"synthesis.{name}.bias": (f"{source}.activate.bias", None),
        f"synthesis.{name}.noise_strength": (f"{source}.noise.weight", lambda strength: strength.reshape([])),
        f"synthesis.{name}.noise_const": (f"noises.noise_{noise}", squeeze_noise),
    }


def _to_rgb(name: str, source: str) -> Names:
    return _modulated(name, source) | {f"synthesis.{name}.bias": (f"{source}.bias", lambda bias: bias[0, :, 0, 0])}


def _modulated(name: str, source: str) -> Names:
    affine = ("weight", "bias")
    names: Names = {f"synthesis.{name}.affine.{t}": (f"{source}.conv.modulation.{t}", None) for t in affine}
    return names | {f"synthesis.{name}.weight": (f"{source}.conv.weight", first_row)}


def rosinality_discriminator(
    levels: int,  # number of levels above the lowest
) -> Names:
    names = _convolution(f"b{4 << levels}.fromrgb", "convs.0", 0) | _convolution("b4.conv", "final_conv", 0)
    for i in range(1, levels + 1):
        level = 8 << (levels - i)
        names |= _convolution(f"b{level}.conv0", f"convs.{i}.conv1", 0)
        names |= _convolution(f"b{level}.conv1", f"convs.{i}.conv2", 1)
        names[f"b{level}.skip.weight"] = (f"convs.{i}.skip.1.weight", None)
    for name, index in (("fc", 0), ("out", 1)):
        names |= {f"b4.{name}.{t}": (f"final_linear.{index}.{t}", None) for t in ("weight", "bias")}
    return names


def _convolution(
    name: str,
    source: str,
    index: int,  # of the convolution in its nn.Sequential; the next module is the activation, with the bias
) -> Names:
    return {f"{name}.weight": (f"{source}.{index}.weight", None), f"{name}.bias": (f"{source}.{index + 1}.bias", None)}


def first_row(tensor: Tensor) -> Tensor:  # [copies, N] or [1, ...]; [N] is returned as it is
    return tensor if tensor.ndim == 1 else tensor[0]
