"""Files of rosinality's stylegan2-pytorch, and of what is built on it: pSp, e4e, ReStyle.

torch.save's form, old or new, of {'g_ema', 'd', 'args' ...}, or of {'state_dict': {'decoder. ...'}, 'latent_avg' ...}.
The networks are 'skip' generators and 'resnet' discriminators without labels; convolutions are as ours, not flipped.
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
from .foreign import Changed, Foreign, FormatError, Loadable, Made, channel_widths, ours, shape_of
from .tensors import LazyTensor, is_legacy, plain_name, read_legacy, read_zip

_MODULES = 16  # in a row, at most: levels above the lowest, layers of the mapping network


class Settings:
    """argparse.Namespace, and other objects that only say how a program was started."""

    def __init__(self, *_: Any):
        self.values: dict = {}

    def set_state(self, state: Any) -> None:
        self.values = state if isinstance(state, dict) else {}


def known(module: str, name: str) -> Any:
    """What a name in such a file means."""
    if f"{module}.{name}" in ("argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath", "torch.device"):
        return Settings
    return plain_name(module, name)


def read_rosinality(file: Part) -> Foreign:
    """Raises PickleError and FormatError."""
    tree = (read_legacy if is_legacy(file) else read_zip)(Part(file.file), known)
    if not isinstance(tree, dict):
        raise PickleError("it holds no dictionary")
    weights, wrapped = _weights_of(tree)
    generator, tensors, guessed = generator_of(weights, tree.get("latent_avg"))
    discriminator, d_tensors = None, {}
    try:
        if isinstance(tree.get("d"), dict):
            discriminator, d_tensors = discriminator_of(tree["d"], generator)
    except FormatError as e:  # the generator is worth having without
        guessed += (f"The discriminator is left out: {e}.",)
    told = tree["args"].values if isinstance(tree.get("args"), Settings) else {}
    p = tree.get("ada_aug_p")
    lost = "encoder" if wrapped else "weights of g, which g_ema is the moving average of, and the states of optimizers"
    return Foreign(
        "pSp, e4e or ReStyle file" if wrapped else "rosinality file",
        generator,
        tensors,
        discriminator,
        d_tensors,
        float(p) if (type(p) is int or type(p) is float) and 0 <= p <= 1 else None,
        told["path"][:200] if type(told.get("path")) is str else "",
        notes=(f"What is left out: the {lost}.", *guessed),
        measure_w_avg=not isinstance(tree.get("latent_avg"), LazyTensor),
    )


def _weights_of(tree: dict) -> tuple[dict[str, Any], bool]:  # the moving average, whether it is a part of pSp
    if "GAN" in tree:
        raise FormatError("it is of lucidrains' stylegan2_pytorch, which is another network (bilinear, with attention)")
    whole = tree.get("state_dict")
    if isinstance(whole, dict):
        inner = {n[8:]: t for n, t in whole.items() if str(n).startswith("decoder.")}
        if "input.input" in inner:
            return inner, True
    weights = tree.get("g_ema", tree)
    if not isinstance(weights, dict) or "input.input" not in weights:
        raise PickleError("it holds neither rosinality's g_ema nor a decoder of its kind")
    if any(".iwt." in str(name) or ".dwt." in str(name) for name in weights):
        raise FormatError("it is a SWAGAN, which draws wavelets, and which there is no model for")
    return weights, False


def generator_of(
    weights: dict[str, Any],
    w_avg: Any,  # LazyTensor [w_dim] or [copies, w_dim]; else there is none
) -> tuple[StyleGAN2Config, dict[str, Loadable], tuple[str, ...]]:  # and what was guessed
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
        **channel_widths(widths),
    )
    names = rosinality_generator(mapping, levels)
    guessed = []
    if "noises.noise_0" not in weights:  # the first versions kept none
        noises = [name for name in names if name.endswith(".noise_const")]
        weights = weights | {names[n][0]: _drawn(n, (1, 1, *_noise_size(n, h0, w0))) for n in noises}
        guessed.append("The file holds no noise: that of noise mode 'const' was drawn.")
    tensors = ours(names, weights, lambda name: name.endswith(".kernel"))
    if isinstance(w_avg, LazyTensor):  # pSp repeats it for each layer
        return config, tensors | {"mapping.w_avg": Changed(w_avg, first_row)}, tuple(guessed)
    guessed.append("The file holds no mean of w: it was measured, from 10,000 latents.")
    return config, tensors | {"mapping.w_avg": Made((w_dim,))}, tuple(guessed)


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
        **channel_widths(inputs | {4: shape_of(weights, "final_conv.1.bias", 1)[0]}),
    )
    names = rosinality_discriminator(blocks)
    return config, ours(names, weights, lambda name: name.endswith(".kernel"))


def _count(weights: dict[str, Any], start: str, end: str) -> int:
    """How many modules of a row there are. The number in a name may be anything: only the names are counted."""
    found = sum(bool(re.fullmatch(rf"{start}\.\d+\.{end}", str(name))) for name in weights)
    if not 1 <= found <= _MODULES:
        raise PickleError(f"it holds {found} modules {start}")
    return found


def _noise_size(name: str, h0: int, w0: int) -> tuple[int, int]:
    scale = int(name.split(".")[1][1:]) // 4
    return h0 * scale, w0 * scale


def _drawn(purpose: str, size: tuple[int, ...]) -> Made:
    return Made(size, lambda size: counter.normal(0, purpose, torch.tensor([0]), size[1:]))
