"""Reader of NVIDIA's PyTorch pickles: stylegan2-ada-pytorch, and the StyleGAN2 networks of stylegan3.

A pickle holds {'G', 'D', 'G_ema', 'augment_pipe', 'training_set_kwargs'}; a network is a dictionary with its source
code, which is ignored, and its `__dict__`. The weight names are the same as here. All settings are inferred from the
modules, because the defaults of the two repositories differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..models.config import DiscriminatorConfig
from ..models.stylegan2.config import StyleGAN2Config
from ..pickled import Part, PickleError, read_pickle
from ..tensors import LazyTensor, load_storage, rebuild_tensor, resolve_common_name
from .checkpoint import Checkpoint, FormatError, Loadable, infer_channels
from .nvidia_writer import NetworkCall, read_calls, resolve_writer_name

PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")
_MAX_LAYERS = 64  # of a mapping network, so that a false number cannot keep the reader busy
_LINEAR = ("embed", "affine", "out", "torgb", "skip")  # layers without an activation
_UNSUPPORTED = {  # top-level package that a pickle names -> program
    "R3GAN": "R3GAN",
    "dill": "StyleGAN-XL, or another program that uses dill",
    "pg_modules": "StyleGAN-XL",
}


class Module:
    """The state of a module; its source code is ignored."""

    def __init__(self, meta: Any):
        if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
            raise PickleError("one of its networks does not have NVIDIA's format")
        self.state = meta["state"]

    def __getattr__(self, name: str) -> Any:  # an attribute of the original module, or None
        return self.__dict__["state"].get(name)

    def set_state(self, state: Any) -> None:
        raise PickleError("one of its networks does not have NVIDIA's format")

    @property
    def modules(self) -> dict[str, Module]:
        return self._named("_modules", Module)

    @property
    def tensors(self) -> dict[str, LazyTensor]:  # frozen weights are buffers
        return self._named("_parameters", LazyTensor) | self._named("_buffers", LazyTensor)

    def _named(self, group: str, kind: type) -> dict[str, Any]:
        value = self.state.get(group)
        pairs = value.items() if isinstance(value, dict) else ()
        return {name: value for name, value in pairs if type(name) is str and isinstance(value, kind)}

    def walk(self, prefix: str = "", visited: set[int] | None = None) -> Iterator[tuple[str, Module]]:
        """This module and all its submodules with their names. A submodule must not occur twice, because repeated
        nesting could make the traversal endless."""
        visited = set() if visited is None else visited
        if id(self) in visited:
            raise PickleError("one of its modules is in two places")
        visited.add(id(self))
        yield prefix, self
        for name, module in self.modules.items():
            yield from module.walk(f"{prefix}{name}.", visited)

    def named_tensors(self) -> dict[str, LazyTensor]:
        return {prefix + name: tensor for prefix, module in self.walk() for name, tensor in module.tensors.items()}


def resolve_name(module: str, name: str) -> Any:
    """The replacement for a name in such a pickle. Raises FormatError for names of a known but unsupported format."""
    if (module, name) == PERSISTENT:
        return Module
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
        return rebuild_tensor
    if (module, name) == ("torch.storage", "_load_from_bytes"):
        return load_storage
    if program := _UNSUPPORTED.get(module.partition(".")[0]):
        raise FormatError(f"it is a checkpoint of {program}, which is not supported")
    return resolve_writer_name(module, name) or resolve_common_name(module, name)


def read_nvidia(file: Part) -> Checkpoint:
    """Read a pickle from NVIDIA. Raises PickleError and FormatError."""
    tree = read_pickle(file, resolve_name, lazy_bytes=True)
    if isinstance(tree, dict) and isinstance(tree.get("G_ema"), NetworkCall):
        return read_calls(tree["G_ema"], tree["D"] if isinstance(tree.get("D"), NetworkCall) else None)
    if not isinstance(tree, dict) or not isinstance(tree.get("G_ema"), Module):
        raise PickleError("it has no G_ema in NVIDIA's format")
    G, D, pipe = tree["G_ema"], tree.get("D"), tree.get("augment_pipe")
    generator, tensors = generator_of(G)
    discriminator, d_tensors = discriminator_of(D) if isinstance(D, Module) else (None, {})
    p = pipe.tensors.get("p") if isinstance(pipe, Module) else None
    dataset = tree.get("training_set_kwargs")
    return Checkpoint(
        "NVIDIA PyTorch pickle",
        generator,
        tensors,
        discriminator,
        d_tensors,
        None if p is None or p.size != () else float(p.load()),
        _text(dataset.get("path")) if isinstance(dataset, dict) else "",
        notes=("The weights of G are omitted; its moving average G_ema is used.",),
    )


def generator_of(G: Module) -> tuple[StyleGAN2Config, dict[str, Loadable]]:
    mapping, synthesis = (_part(G, name) for name in ("mapping", "synthesis"))
    if "input" in synthesis.modules:
        raise FormatError("it is a StyleGAN3 network, which is not supported yet")
    blocks = _levels(synthesis)
    top = blocks[max(blocks)]
    conv = _part(top, "conv1")
    layers = [m for name, m in mapping.modules.items() if name.startswith("fc")]
    tensors = G.named_tensors()
    architecture = _word(top, "architecture")
    config = StyleGAN2Config(
        *_size(synthesis),
        channels=_int(synthesis, "img_channels"),
        z_dim=_int(mapping, "z_dim"),
        c_dim=_int(mapping, "c_dim"),
        w_dim=_int(mapping, "w_dim"),
        mapping_layers=_int(mapping, "num_layers", _MAX_LAYERS),
        mapping_lr=_float(layers[0], "bias_gain", 1.0) if layers else 0.01,
        architecture=architecture,
        fir=_fir_of(synthesis),
        half_levels=sum(bool(block.use_fp16) for block in blocks.values()),
        conv_clamp=_clamp(conv),
        w_avg_beta=_float(mapping, "w_avg_beta", 0.995),
        **infer_channels({r: _rows(tensors, f"synthesis.b{r}.conv1.bias") for r in blocks}),
    )
    _check_uniform(G, config.conv_clamp)
    return config, _without_filters(tensors)


def discriminator_of(D: Module) -> tuple[DiscriminatorConfig, dict[str, Loadable]]:
    blocks = _levels(D)
    epilogue = blocks.pop(4)
    top, mbstd = blocks[max(blocks)], epilogue.modules.get("mbstd")
    mapping = D.modules.get("mapping")
    labels = [m for name, m in mapping.modules.items() if name.startswith("fc")] if mapping else []
    tensors = D.named_tensors()
    config = DiscriminatorConfig(
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
    _check_uniform(D, config.conv_clamp)
    return config, _without_filters(tensors)


def _without_filters(tensors: dict[str, LazyTensor]) -> dict[str, Loadable]:
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


def _rows(tensors: dict[str, LazyTensor], name: str) -> int:
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
            filters[_filter(taps)] = name
    if len(filters) > 1:
        names = " and ".join(name[:80] for name in filters.values())
        raise FormatError(f"its layers {names} have different resampling filters")
    return next(iter(filters)) if filters else _filter(None)


def _filter(tensor: LazyTensor | None) -> tuple[float, ...]:
    """The taps of a filter in one dimension, scaled to integers if possible."""
    if tensor is None or len(tensor.size) not in (1, 2) or not all(1 <= side <= 32 for side in tensor.size):
        raise PickleError("it has no resampling filter")
    taps = tensor.load().double()
    taps = taps if taps.ndim == 1 else taps.sum(1)
    taps = taps / taps[taps.abs() > 0].abs().min() if taps.abs().sum() > 0 else taps
    return tuple(round(t, 4) for t in taps.tolist())


def _check_uniform(network: Module, clamp: float | None) -> None:
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
