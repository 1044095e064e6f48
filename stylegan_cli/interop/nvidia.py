"""StyleGAN2 of NVIDIA's PyTorch programs stylegan2-ada-pytorch and stylegan3, saved as whole modules.

A pickle holds {'G', 'D', 'G_ema', 'augment_pipe', 'training_set_kwargs'}; a network is a dictionary with its source
code, which is ignored, and its `__dict__`. The weight names are the same as here. All settings are inferred from the
modules, because the defaults of the two repositories differ.
"""

from __future__ import annotations

from typing import Any

from ..models.config import LevelsDiscriminatorConfig
from ..models.stylegan2.config import StyleGAN2Config
from ..pickled import PickleError
from .checkpoint import FormatError, Loadable, infer_channels
from .modules import Module

_MAX_LAYERS = 64  # of a mapping network, so that a false number cannot keep the reader busy
_LINEAR = ("embed", "affine", "out", "torgb", "skip")  # layers without an activation


def generator_of(G: Module) -> tuple[StyleGAN2Config, dict[str, Loadable]]:
    fields, synthesis = generator_fields(G), _part(G, "synthesis")
    blocks = _levels(synthesis)
    top = blocks[max(blocks)]
    conv = _part(top, "conv1")
    tensors = G.named_tensors()
    architecture = _word(top, "architecture")
    config = StyleGAN2Config(
        **fields,
        architecture=architecture,
        fir=_fir_of(synthesis),
        half_levels=sum(bool(block.use_fp16) for block in blocks.values()),
        conv_clamp=_clamp(conv),
        **infer_channels({r: _rows(tensors, f"synthesis.b{r}.conv1.bias") for r in blocks}),
    )
    check_uniform(G, config.conv_clamp)
    return config, _without_filters(tensors)


def generator_fields(G: Module) -> dict[str, Any]:
    """The fields of a configuration that generators of all families have."""
    mapping, synthesis = (_part(G, name) for name in ("mapping", "synthesis"))
    height, width = _size(synthesis)
    layers = [m for name, m in mapping.modules.items() if name.startswith("fc")]
    return {
        "height": height,
        "width": width,
        "channels": _int(synthesis, "img_channels"),
        "z_dim": _int(mapping, "z_dim"),
        "c_dim": _int(mapping, "c_dim"),
        "w_dim": _int(mapping, "w_dim"),
        "mapping_layers": _int(mapping, "num_layers", _MAX_LAYERS),
        "mapping_lr": _float(layers[0], "bias_gain", 1.0) if layers else 0.01,
        "w_avg_beta": _float(mapping, "w_avg_beta", 0.995),
    }


def discriminator_of(D: Module) -> tuple[LevelsDiscriminatorConfig, dict[str, Loadable]]:
    blocks = _levels(D)
    epilogue = blocks.pop(4)
    top, mbstd = blocks[max(blocks)], epilogue.modules.get("mbstd")
    mapping = D.modules.get("mapping")
    labels = [m for name, m in mapping.modules.items() if name.startswith("fc")] if mapping else []
    tensors = D.named_tensors()
    config = LevelsDiscriminatorConfig(
        *_size(D),
        channels=_int(D, "img_channels"),
        c_dim=_int(D, "c_dim"),
        mapping_layers=_int(mapping, "num_layers", _MAX_LAYERS) if mapping else 8,
        mapping_lr=_float(labels[0], "bias_gain", 1.0) if labels else 0.01,
        architecture=_word(top, "architecture"),
        fir=_fir_of(D),
        half_levels=sum(bool(block.use_fp16) for block in blocks.values()),
        conv_clamp=_clamp(_part(top, "conv0")),
        mbstd_group=_int(mbstd, "group_size") if mbstd and mbstd.group_size is not None else None if mbstd else 4,
        mbstd_channels=_int(mbstd, "num_channels") if mbstd else 0,
        **infer_channels({r: _rows(tensors, f"b{r}.conv0.bias") for r in blocks} | {4: _rows(tensors, "b4.conv.bias")}),
    )
    check_uniform(D, config.conv_clamp)
    return config, _without_filters(tensors)


def _without_filters(tensors: dict[str, Loadable]) -> dict[str, Loadable]:
    """The tensors without resampling filters, which follow from the configuration."""
    return {name: t for name, t in tensors.items() if not name.endswith("resample_filter")}


def _levels(network: Module) -> dict[int, Module]:
    levels = {int(n[1:]): m for n, m in network.modules.items() if n[:1] == "b" and n[1:].isdecimal() and len(n) < 7}
    if 4 not in levels or len(levels) < 2:
        raise PickleError("its networks have no levels b4, b8 ...")
    return levels


def _size(network: Module) -> tuple[int, int]:
    side = _int(network, "img_resolution")
    return side, side


def _rows(tensors: dict[str, Loadable], name: str) -> int:
    if name not in tensors or len(tensors[name].size) != 1:
        raise PickleError(f"it has no {name}")
    return tensors[name].size[0]


def _fir_of(network: Module) -> tuple[float, ...]:
    """The filter of all layers that resample. The others keep one that they do not use: NVIDIA's default."""
    filters = {}
    for prefix, module in network.walk():
        name = prefix.rstrip(".")
        is_image = module.architecture == "skip" and name != "b4"  # a level's own filter is for the image
        is_layer = any(factor not in (None, 1) for factor in (module.up, module.down))
        if (is_image or is_layer) and (taps := module.tensors.get("resample_filter")) is not None:
            filters[name] = taps
    return one_filter(filters)


def one_filter(
    filters: dict[str, Loadable],  # of layers that resample, by the layers' names
) -> tuple[float, ...]:
    """The taps that all filters share. Raises FormatError if they differ, PickleError if there are none."""
    names = {_filter(taps): name for name, taps in filters.items()}
    if len(names) > 1:
        raise FormatError(
            f"its layers {' and '.join(name[:80] for name in names.values())} have different resampling filters"
        )
    return next(iter(names)) if names else _filter(None)


def _filter(tensor: Loadable | None) -> tuple[float, ...]:
    """The taps of a filter in one dimension, scaled to integers if possible."""
    if tensor is None or len(tensor.size) not in (1, 2) or not all(1 <= side <= 32 for side in tensor.size):
        raise PickleError("it has no resampling filter")
    taps = tensor.load().double()
    taps = taps if taps.ndim == 1 else taps.sum(1)
    taps = taps / taps[taps.abs() > 0].abs().min() if taps.abs().sum() > 0 else taps
    return tuple(round(t, 4) for t in taps.tolist())


def check_uniform(network: Module, clamp: float | None) -> None:
    """Raise FormatError if the layers have different settings, where our configuration has one for all of them."""
    for prefix, module in network.walk():
        name = prefix.rstrip(".")
        act = "linear" if name.rpartition(".")[2] in _LINEAR else "lrelu"
        if module.activation not in (None, act):
            raise FormatError(f"its layer {name[:80]} has the activation {_text(module.activation)}, not {act}")
        is_unclamped = name.endswith(".skip") or name == "b4.fromrgb"
        if "conv_clamp" in module.state and not is_unclamped and _clamp(module) != clamp:
            raise FormatError(f"its layer {name[:80]} has a different clamp from the highest level")
        architecture = module.architecture
        if architecture is not None and architecture != _word(_highest_level(network), "architecture"):
            raise FormatError(f"its level {name[:80]} has a different architecture from the highest level")


def _highest_level(network: Module) -> Module:
    blocks = _levels(network.modules.get("synthesis", network))
    return blocks[max(blocks)]


def _text(value: Any) -> str:
    """At most 200 characters of a string; printing other objects could take forever."""
    return value[:200] if type(value) is str else ""


def _part(module: Module, name: str) -> Module:
    part = module.modules.get(name)
    if part is None:
        raise PickleError(f"one of its networks lacks {name}")
    return part


def _int(module: Module, name: str, max_value: int = 1 << 20) -> int:
    value = getattr(module, name)
    if type(value) is not int or not 0 <= value <= max_value:
        raise PickleError(f"its {name} is not a valid number")
    return value


def _float(module: Module, name: str, default: float) -> float:
    value = getattr(module, name)
    if value is None:
        return default
    if type(value) not in (int, float) or not abs(value) < 1e6:
        raise PickleError(f"its {name} is not a valid number")
    return float(value)


def _clamp(layer: Module) -> float | None:
    return None if layer.conv_clamp is None else _float(layer, "conv_clamp", 256.0)


def _word(module: Module, name: str) -> str:
    value = getattr(module, name)
    if type(value) is not str or len(value) > 40:
        raise PickleError(f"its {name} is not a valid string")
    return value
