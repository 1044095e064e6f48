"""Reader of files of rosinality's stylegan2-pytorch and programs based on it: pSp, e4e, ReStyle.

The files are written by torch.save and contain {'g_ema', 'd', 'args' ...}, or {'state_dict': {'decoder. ...'},
'latent_avg' ...}. The networks are 'skip' generators and 'resnet' discriminators without labels; unlike TensorFlow's,
their convolution kernels are not flipped.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from ..models.config import DiscriminatorConfig, GeneratorConfig
from ..models.stylegan2.checkpoints import first_row, rosinality_discriminator, rosinality_generator
from ..models.stylegan2.config import StyleGAN2Config
from ..pickled import Part, PickleError
from ..sampling import counter
from ..tensors import LazyTensor, is_legacy, read_legacy, read_zip, resolve_common_name
from .checkpoint import (
    Checkpoint,
    ComputedTensor,
    ConvertedTensor,
    FormatError,
    Loadable,
    infer_channels,
    map_names,
    shape_of,
)

_MAX_MODULES = 16  # number of levels above the lowest, and of mapping layers


class Settings:
    """Replaces argparse.Namespace and other objects with the settings of a program."""

    def __init__(self, *_: Any):
        self.values: dict = {}

    def set_state(self, state: Any) -> None:
        self.values = state if isinstance(state, dict) else {}


def resolve_name(module: str, name: str) -> Any:
    """The replacement for a name in such a file."""
    if f"{module}.{name}" in ("argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath", "torch.device"):
        return Settings
    return resolve_common_name(module, name)


def read_rosinality(file: Part) -> Checkpoint:
    """Raises PickleError and FormatError."""
    tree = (read_legacy if is_legacy(file) else read_zip)(Part(file.file), resolve_name)
    if not isinstance(tree, dict):
        raise PickleError("it does not contain a dictionary")
    weights, is_encoder = _weights_of(tree)
    generator, tensors, notes = generator_of(weights, tree.get("latent_avg"))
    discriminator, d_tensors = None, {}
    try:
        if isinstance(tree.get("d"), dict):
            discriminator, d_tensors = discriminator_of(tree["d"], generator)
    except FormatError as e:  # the generator is useful without it
        notes += (f"The discriminator is omitted: {e}.",)
    args = tree["args"].values if isinstance(tree.get("args"), Settings) else {}
    p = tree.get("ada_aug_p")
    omitted = "encoder is" if is_encoder else "weights of g and the states of the optimizers are"
    return Checkpoint(
        "pSp, e4e or ReStyle file" if is_encoder else "rosinality file",
        generator,
        tensors,
        discriminator,
        d_tensors,
        float(p) if (type(p) is int or type(p) is float) and 0 <= p <= 1 else None,
        args["path"][:200] if type(args.get("path")) is str else "",
        notes=(f"The {omitted} omitted.", *notes),
        measure_w_avg=not isinstance(tree.get("latent_avg"), LazyTensor),
    )


def _weights_of(tree: dict) -> tuple[dict[str, Any], bool]:  # the moving average; whether the file is an encoder
    if "GAN" in tree:
        raise FormatError("it is a network of lucidrains' stylegan2_pytorch, whose architecture is not supported")
    state = tree.get("state_dict")
    if isinstance(state, dict):
        decoder = {n[8:]: t for n, t in state.items() if str(n).startswith("decoder.")}
        if "input.input" in decoder:
            return decoder, True
    weights = tree.get("g_ema", tree)
    if not isinstance(weights, dict) or "input.input" not in weights:
        raise PickleError("it has neither rosinality's g_ema nor such a decoder")
    if any(".iwt." in str(name) or ".dwt." in str(name) for name in weights):
        raise FormatError("it is a SWAGAN, which generates wavelets and is not supported")
    return weights, False


def generator_of(
    weights: dict[str, Any],
    w_avg: Any,  # LazyTensor [w_dim] or [copies, w_dim]; anything else is ignored
) -> tuple[StyleGAN2Config, dict[str, Loadable], tuple[str, ...]]:  # and notes on what was guessed
    levels = _count(weights, "to_rgbs", "bias")
    _, rows, h0, w0 = shape_of(weights, "input.input", 4)
    widths = {4: rows} | {8 << j: shape_of(weights, f"convs.{2 * j}.activate.bias", 1)[0] for j in range(levels)}
    w_dim = shape_of(weights, "conv1.conv.modulation.weight", 2)[1]
    mapping = _count(weights, "style", "weight")
    config = StyleGAN2Config(
        h0 << levels,
        w0 << levels,
        channels=shape_of(weights, "to_rgb1.bias", 4)[1],
        z_dim=shape_of(weights, "style.1.weight", 2)[1],
        w_dim=w_dim,
        mapping_layers=mapping,
        architecture="skip",
        half_levels=0,
        conv_clamp=None,
        **infer_channels(widths),
    )
    names = rosinality_generator(mapping, levels)
    notes = []
    if "noises.noise_0" not in weights:  # the first versions did not save it
        noises = [name for name in names if name.endswith(".noise_const")]
        weights = weights | {names[n][0]: _random_noise(n, (1, 1, *_noise_size(n, h0, w0))) for n in noises}
        notes.append("The file has no noise; the constant noise was sampled.")
    tensors = map_names(names, weights, lambda name: name.endswith(".kernel"))
    if isinstance(w_avg, LazyTensor):  # pSp repeats it for each layer
        return config, tensors | {"mapping.w_avg": ConvertedTensor(w_avg, first_row)}, tuple(notes)
    notes.append("The file has no mean of w; it was measured with 10,000 latents.")
    return config, tensors | {"mapping.w_avg": ComputedTensor((w_dim,))}, tuple(notes)


def discriminator_of(
    weights: dict[str, Any],
    generator: GeneratorConfig,  # of the same file
) -> tuple[DiscriminatorConfig, dict[str, Loadable]]:
    blocks = _count(weights, "convs", "conv1.0.weight")
    inputs = {4 << (blocks + 1 - i): shape_of(weights, f"convs.{i}.conv1.1.bias", 1)[0] for i in range(1, blocks + 1)}
    config = DiscriminatorConfig(
        generator.height,
        generator.width,
        channels=shape_of(weights, "convs.0.0.weight", 4)[1],
        architecture="resnet",
        half_levels=0,
        conv_clamp=None,
        **infer_channels(inputs | {4: shape_of(weights, "final_conv.1.bias", 1)[0]}),
    )
    names = rosinality_discriminator(blocks)
    return config, map_names(names, weights, lambda name: name.endswith(".kernel"))


def _count(weights: dict[str, Any], start: str, end: str) -> int:
    """The number of modules in a list. It counts names, because the indices in them may be wrong."""
    count = sum(bool(re.fullmatch(rf"{start}\.\d+\.{end}", str(name))) for name in weights)
    if not 1 <= count <= _MAX_MODULES:
        raise PickleError(f"it has {count} modules {start}")
    return count


def _noise_size(name: str, h0: int, w0: int) -> tuple[int, int]:
    scale = int(name.split(".")[1][1:]) // 4
    return h0 * scale, w0 * scale


def _random_noise(purpose: str, size: tuple[int, ...]) -> ComputedTensor:
    return ComputedTensor(size, lambda size: counter.normal(0, purpose, torch.tensor([0]), size[1:]))
