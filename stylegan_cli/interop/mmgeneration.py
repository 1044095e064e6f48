"""Reader of StyleGAN2 in files of MMGeneration and MMagic.

torch.save wrote {'state_dict', 'meta', 'optimizer' ...}, with the weights generator_ema.*, generator.* and
discriminator.*. The networks are rosinality's with other names; those of MMagic may have labels.

Both programs train on BGR images. Their converted official weights, which have no record of a training, are RGB.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ..models.config import LevelsDiscriminatorConfig
from ..models.stylegan2.config import StyleGAN2Config
from ..pickled import Part, PickleError
from ..tensors import is_legacy, read_legacy, read_zip
from . import rosinality
from .checkpoint import Checkpoint, ConvertedTensor, FormatError, Loadable, OtherContentError, is_tensor, shape_of
from .modules import resolve_any_class
from .nvidia import one_filter

_PROGRAMS = {"mmengine_version": "MMagic", "mmagic_version": "MMagic", "mmgen_version": "MMGeneration"}
_G_KEY, _D_KEY = "constant_input.input", "convs.0.0.conv.weight_orig"  # weights by which the networks are found
_AVERAGE_NOTE = "The moving average generator_ema is used; the weights of generator and optimizers are omitted."
_EMA, _G, _D = ("generator_ema.module.", "generator_ema."), ("generator.", ""), ("discriminator.", "")
# To rosinality's names; the number in style_mapping counts a normalization, which conditional networks do not have
_G_NAMES = (
    (r"^constant_input\.", "input."),
    (r"^injected_noise_(\d+)$", r"noises.noise_\1"),
    (r"^style_mapping\.", "style."),
    (r"\.noise_injector\.", ".noise."),
    (r"\.style_modulation\.", ".modulation."),
    (r"(\.linear)?\.weight_orig$", ".weight"),
)
_D_NAMES = ((r"(\.\d+)\.(conv|linear)\.weight_orig$", r"\1.weight"),)
_EMBED = {"mapping.embed.weight": "embed.linear.weight_orig", "mapping.embed.bias": "embed.bias"}


class _Record:
    """Replaces a record of the training, which is not needed."""

    def __init__(self, *_: Any):
        pass

    def set_state(self, state: Any) -> None:
        pass


def resolve_name(module: str, name: str) -> Any:
    """The replacement for a name in such a file."""
    is_record = module.partition(".")[0] in ("mmcv", "mmengine", "mmgen", "mmagic", "datetime")
    if is_record or (module, name) in (("builtins", "getattr"), ("__builtin__", "getattr")):
        return _Record
    return resolve_any_class(module, name)


def read_mmgeneration(file: Part) -> Checkpoint:
    """Raises PickleError and FormatError, and OtherContentError if there is no generator."""
    tree = (read_legacy if is_legacy(file) else read_zip)(Part(file.file), resolve_name)
    state = tree.get("state_dict", tree) if isinstance(tree, dict) else None
    if not isinstance(state, dict):
        raise OtherContentError("it has no state_dict")
    meta = tree["meta"] if isinstance(tree.get("meta"), dict) else {}
    program = next((program for key, program in _PROGRAMS.items() if key in meta), "MMGeneration")
    average = _part(state, _G_KEY, _EMA)
    weights = average or _part(state, _G_KEY, _G)
    if weights is None:
        _refuse_other_networks(state, meta, program)
        raise OtherContentError("it has no generator of MMGeneration")
    measures = "w_avg" not in weights
    generator, tensors, notes = _generator_of(weights)
    notes.append(_AVERAGE_NOTE if average else "The file has no moving average of the generator.")
    if measures:
        notes.append("The file has no mean of w; it was measured with 10,000 latents.")
    discriminator, d_tensors = None, {}
    try:
        if (d_weights := _part(state, _D_KEY, _D)) is not None:
            discriminator, d_tensors = _discriminator_of(d_weights, generator)
    except FormatError as e:  # the generator is useful without it
        notes.append(f"The discriminator is omitted: {e}.")
    if is_bgr := generator.channels == 3 and _trains_on_bgr(meta):
        tensors, d_tensors = _swap_colors(tensors), _swap_colors(d_tensors)
    notes.append(f"Its colors are {'BGR, and were swapped' if is_bgr else 'read as RGB'}.")
    p: Loadable | None = state.get("discriminator.ada_aug.aug_pipeline.p")
    return Checkpoint(
        f"{program} file",
        generator,
        tensors,
        discriminator,
        d_tensors,
        None if p is None or p.size != () else float(p.load()),
        notes=tuple(notes),
        measure_w_avg=measures,
    )


def _part(state: dict, key: str, prefixes: tuple[str, ...]) -> dict[str, Any] | None:
    """The weights after the first prefix with which the state has a key."""
    state = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
    prefix = next((prefix for prefix in prefixes if prefix + key in state), None)
    return None if prefix is None else {n[len(prefix) :]: t for n, t in state.items() if n.startswith(prefix)}


def _renamed(weights: dict[str, Any], names: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    renamed = {}
    for name, tensor in weights.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def _generator_of(weights: dict[str, Any]) -> tuple[StyleGAN2Config, dict[str, Loadable], list[str]]:
    fir = _fir_of(weights)
    embed = {name: weights[source] for name, source in _EMBED.items() if source in weights}
    w_avg = weights.get("w_avg")
    renamed = _renamed({n: t for n, t in weights.items() if n != "w_avg" and not n.startswith("embed.")}, _G_NAMES)
    if embed:
        renamed = {re.sub(r"^style\.(\d+)", lambda m: f"style.{int(m[1]) + 1}", n): t for n, t in renamed.items()}
    config, tensors, notes = rosinality.generator_of(renamed, w_avg)
    config = dataclasses.replace(config, fir=fir)
    if embed:
        if not is_tensor(w_avg):
            raise PickleError("it has no mean of w")
        dims = shape_of(embed, "mapping.embed.weight", 2)
        config = dataclasses.replace(config, z_dim=config.z_dim - dims[0], c_dim=dims[1])
    return config, tensors | embed, list(notes)


def _discriminator_of(
    weights: dict[str, Any], generator: StyleGAN2Config
) -> tuple[LevelsDiscriminatorConfig, dict[str, Loadable]]:
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("ada_aug.")}
    config, tensors = rosinality.discriminator_of(_renamed(weights, _D_NAMES), generator)
    return dataclasses.replace(config, fir=_fir_of(weights)), tensors


def _fir_of(weights: dict[str, Any]) -> tuple[float, ...]:
    """The filter of all layers. MMGeneration's networks that generate at several sizes have none in some layers."""
    filters = {name: weights[name] for name in weights if name.endswith(".kernel") and is_tensor(weights[name])}
    if not filters:
        raise FormatError("its layers have no resampling filters, as in MSPIE, which is not supported")
    return one_filter(filters)


def _trains_on_bgr(meta: dict) -> bool:
    """Whether the images of the training were BGR: OpenCV's order, which the programs keep by default."""
    text = next((meta[key] for key in ("config", "cfg") if type(meta.get(key)) is str), "")
    order = re.search(r"to_rgb\s*=\s*(True|False)|channel_order\s*=\s*'(rgb|bgr)'", text)
    if order:
        return order[1] == "False" or order[2] == "bgr"
    return bool(meta.keys() & {"iter", "epoch", "config", "cfg"})


def _swap_colors(tensors: dict[str, Loadable]) -> dict[str, Loadable]:
    """Reverse the order of channels that toRGB layers generate and the fromRGB layer reads."""
    swapped = dict(tensors)
    for name in tensors:
        if name.endswith((".torgb.weight", ".torgb.bias")):
            swapped[name] = ConvertedTensor(tensors[name], lambda t: t.flip(0))
        if name.endswith(".fromrgb.weight"):
            swapped[name] = ConvertedTensor(tensors[name], lambda t: t.flip(1))
    return swapped


def _refuse_other_networks(state: dict, meta: dict, program: str) -> None:
    """Raise FormatError if the file is of these programs, but not StyleGAN2."""
    names = [str(name) for name in state]
    if _part(state, _D_KEY, _D) is not None:
        raise FormatError(f"it is a discriminator of {program} without a generator")
    if {"b4.fc.weight", "linear1.weight"} <= state.keys():
        raise FormatError("it is a discriminator of StudioGAN, which keeps the generator in model=G_ema-*.pth")
    equalized = [n for n in names if n.startswith(("generator.", "generator_ema.")) and n.endswith(".weight_orig")]
    if meta.keys() & _PROGRAMS.keys() or equalized:
        first = (equalized or names or ["no weights"])[0]
        raise FormatError(f"it is a file of {program}, but not of its StyleGAN2 (it has {first[:80]})")
