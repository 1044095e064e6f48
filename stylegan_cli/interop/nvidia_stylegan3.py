"""StyleGAN3 generators in NVIDIA's pickles and state dictionaries.

The settings of a pickle are the arguments of its synthesis network, those of a state dictionary follow from the layers'
names and shapes. Either way, the schedule that is calculated from them must give the layers and filters of the file.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from ..config import from_json
from ..models.generator import is_similarity
from ..models.stylegan3.checkpoints import fields_of, infer_channels
from ..models.stylegan3.config import StyleGAN3Config
from ..models.stylegan3.schedule import FilterSpec, LayerSpec, layer_specs, signals
from ..ops import lowpass_filter
from ..pickled import PickleError
from .checkpoint import ComputedTensor, FormatError, Loadable, shape_of
from .modules import Module
from .nvidia import check_uniform, generator_fields

_FILTER_ERROR = 1e-6  # largest difference of a tap
_TRANSFORM = "synthesis.input.transform"
_LEFT_OUT = (".up_filter", ".down_filter", ".transform")  # tensors that a configuration gives
_MISSING = "it has no layer {}, which its settings give it"
NOTE = "The file has no settings; what does not follow from its layers is as published."

Generator = tuple[StyleGAN3Config, dict[str, Loadable], tuple[str, ...]]  # and notes on what is omitted or guessed


def generator_of(G: Module) -> Generator:
    """Raises PickleError, FormatError and SganError."""
    fields = generator_fields(G)
    synthesis, tensors = G.modules["synthesis"], G.named_tensors()
    arguments, notes = synthesis._init_kwargs or G._init_kwargs, ()
    if isinstance(arguments, dict) and arguments:
        config = from_json(StyleGAN3Config, fields_of(_plain(arguments)) | fields)
    else:
        config, notes = _infer_settings(tensors, _attributes(synthesis) | fields), (NOTE,)
    _check_layers(synthesis, config)
    check_uniform(G, config.conv_clamp)
    return _with_notes(config, tensors, notes)


def state_generator_of(weights: dict[str, Loadable]) -> Generator:
    """Raises PickleError, FormatError and SganError."""
    weights = {name: t for name, t in weights.items() if name.startswith(("mapping.", "synthesis."))}
    _, inputs = shape_of(weights, "mapping.fc0.weight", 2)
    embedded, c_dim = shape_of(weights, "mapping.embed.weight", 2) if "mapping.embed.weight" in weights else (0, 0)
    w_dim = shape_of(weights, "synthesis.input.affine.weight", 2)[1]
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.bias", name)) for name in weights)
    fields = {"z_dim": inputs - embedded, "c_dim": c_dim, "w_dim": w_dim, "mapping_layers": layers}
    config = _infer_settings(weights, fields)
    if "mapping.w_avg" not in weights and not c_dim:
        weights["mapping.w_avg"] = ComputedTensor((w_dim,))
    return _with_notes(config, weights, (NOTE,))


def _attributes(synthesis: Module) -> dict[str, Any]:
    """The settings that the modules of a network without arguments still have."""
    names = ("num_critical", "margin_size", "output_scale", "num_fp16_res")
    attributes = {name: getattr(synthesis, name) for name in names}
    fields = fields_of(_plain({name: value for name, value in attributes.items() if value is not None}))
    layers = [m for name, m in synthesis.modules.items() if name.startswith("L")]
    return fields | ({"conv_clamp": layers[0].conv_clamp} if layers and "conv_clamp" in layers[0].state else {})


def _plain(arguments: dict) -> dict:
    """The arguments, if all of them are small enough to be printed and used in calculations."""
    for name, value in arguments.items():
        is_number = value is None or (type(value) in (bool, int, float) and abs(value) < 1 << 24)
        if type(name) is not str or not (is_number or name == "mapping_kwargs"):
            raise PickleError("a network's arguments are invalid")
    return {name: value for name, value in arguments.items() if name != "mapping_kwargs"}  # `fields` have them


def _infer_settings(weights: dict[str, Loadable], fields: dict[str, Any]) -> StyleGAN3Config:
    """From the names and shapes of the layers, L<index>_<size>_<feature maps>, and from the shapes of filters."""
    pattern = r"synthesis\.L(\d{1,2})_(\d{1,5})_(\d{1,5})\.weight"
    rows = sorted(tuple(map(int, m.groups())) for name in weights if (m := re.fullmatch(pattern, name[:60])))
    if len(rows) < 2:
        raise PickleError("its synthesis network has no layers")
    first, last = (f"synthesis.L{'_'.join(map(str, row))}" for row in (rows[0], rows[-1]))
    kernel, down_filter = shape_of(weights, f"{first}.weight", 4)[3], weights.get(f"{first}.down_filter")
    settings = {
        "height": rows[-1][1],
        "width": rows[-1][1],
        "channels": shape_of(weights, f"{last}.weight", 4)[0],
        "channel_base": max(width for _, _, width in rows) * rows[-1][1],
        "num_layers": len(rows) - 1,
        "kernel": kernel,
        "radial": kernel == 1 if down_filter is None else len(down_filter.size) == 2,
    }
    config = from_json(StyleGAN3Config, settings | fields)
    return infer_channels(config, [width for _, _, width in rows[:-1]])


def _check_layers(synthesis: Module, config: StyleGAN3Config) -> None:
    """Raise FormatError if a layer does not have the attributes that the schedule gives it."""
    signal, entry = signals(config)[0], synthesis.modules["input"]
    _check_attributes(entry, "input", {"sampling_rate": signal.rate, "bandwidth": signal.cutoff})
    _check_attributes(synthesis, "synthesis network", {"output_scale": config.output_scale})
    specs, names = layer_specs(config), synthesis.layer_names
    if not isinstance(names, list) or len(names) != len(specs):
        raise FormatError(f"its settings give it {len(specs)} layers, not as many as it has")
    for spec, name in zip(specs, names):
        layer = synthesis.modules.get(spec.name)
        if layer is None or name != spec.name:
            raise FormatError(_MISSING.format(spec.name))
        _check_attributes(layer, spec.name, _attributes_of(spec) | {"conv_clamp": config.conv_clamp})


def _attributes_of(spec: LayerSpec) -> dict[str, Any]:
    up, down = spec.up_filter, spec.down_filter
    return {
        "is_torgb": spec.is_torgb,
        "conv_kernel": spec.kernel,
        "up_factor": spec.up,
        "down_factor": spec.down,
        "up_taps": up.taps if up else 1,
        "down_taps": down.taps if down else 1,
        "down_radial": bool(down and down.radial),
        "padding": list(spec.padding),
    }


def _check_attributes(module: Module, name: str, expected: dict[str, Any]) -> None:
    for attribute, value in expected.items():
        if getattr(module, attribute) != value:
            raise FormatError(f"its {_described(name)} has another {attribute} than its settings give")


def _described(name: str) -> str:
    return f"layer {name}" if name.startswith("L") else name


def _with_notes(config: StyleGAN3Config, tensors: dict[str, Loadable], notes: tuple[str, ...]) -> Generator:
    for spec in layer_specs(config):
        if f"synthesis.{spec.name}.weight" not in tensors:
            raise FormatError(_MISSING.format(spec.name))
    _check_filters(config, tensors)
    notes = (*notes, *_transform_notes(tensors))
    return config, {name: t for name, t in tensors.items() if not name.endswith(_LEFT_OUT)}, notes


def _check_filters(config: StyleGAN3Config, tensors: dict[str, Loadable]) -> None:
    """Raise FormatError if a layer has another filter than the schedule gives it. Filters may be missing."""
    for spec in layer_specs(config):
        for part, expected in (("up_filter", spec.up_filter), ("down_filter", spec.down_filter)):
            taps = tensors.get(f"synthesis.{spec.name}.{part}")
            if taps is not None and not _is_filter(taps, expected):
                raise FormatError(f"its layer {spec.name} has another filter ({part}) than its settings give")


def _is_filter(taps: Loadable, spec: FilterSpec | None) -> bool:
    if spec is None or taps.size != (spec.taps,) * (1 + spec.radial):
        return False
    expected = lowpass_filter(spec.taps, spec.cutoff, spec.half_width, spec.rate, spec.radial)
    return bool((taps.load().float() - expected).abs().max() <= _FILTER_ERROR)


def _transform_notes(tensors: dict[str, Loadable]) -> tuple[str, ...]:
    """A note if the input is translated or rotated. Raises FormatError if it is deformed."""
    tensor = tensors.get(_TRANSFORM)
    if tensor is None:
        return ()
    transform = tensor.load() if tensor.size == (3, 3) else torch.zeros(3, 3)
    if not is_similarity(transform):
        raise FormatError("the transform of its input is not a similarity (rotation, scaling and translation)")
    if torch.allclose(transform.double(), torch.eye(3, dtype=torch.float64), atol=1e-6):
        return ()
    return ("The transform of the input is omitted; use --translate and --rotate to generate such images.",)
