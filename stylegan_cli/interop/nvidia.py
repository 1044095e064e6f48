"""NVIDIA's PyTorch pickles: stylegan2-ada-pytorch, and stylegan3 as far as its networks are StyleGAN2's.

A pickle of {'G', 'D', 'G_ema', 'augment_pipe', 'training_set_kwargs'}; a network is a dictionary with its source, which
stays unread, and its `__dict__`. Names are ours; all settings are read off the modules, because defaults differ between
the two repositories.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..models.config import DiscriminatorConfig
from ..models.stylegan2.config import StyleGAN2Config
from ..pickled import Part, PickleError, read_pickle
from .foreign import Foreign, FormatError, Loadable, channel_widths
from .nvidia_writer import Built, known_by_name, read_built
from .tensors import LazyTensor, plain_name, rebuild_tensor, storage_from_bytes

PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")
_MOST_LAYERS = 64  # of a mapping network: a million would take a while to be found missing
_LINEAR = ("embed", "affine", "out", "torgb", "skip")  # layers without an activation
_OTHERS = {  # first part of a name that their pickles hold -> whose they are
    "R3GAN": "R3GAN's",
    "dill": "StyleGAN-XL's, or of another program that writes with dill",
    "pg_modules": "StyleGAN-XL's",
}


class Module:
    """A module as its parts; its source is not looked at."""

    def __init__(self, meta: Any):
        if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
            raise PickleError("a network of it has another form than NVIDIA's")
        self.state = meta["state"]

    def __getattr__(self, name: str) -> Any:  # an attribute as the module had it; None where it had none
        return self.__dict__["state"].get(name)

    def set_state(self, state: Any) -> None:
        raise PickleError("a network of it has another form than NVIDIA's")

    @property
    def modules(self) -> dict[str, Module]:
        return self._named("_modules", Module)

    @property
    def tensors(self) -> dict[str, LazyTensor]:  # frozen weights are buffers
        return self._named("_parameters", LazyTensor) | self._named("_buffers", LazyTensor)

    def _named(self, group: str, kind: type) -> dict[str, Any]:
        found = self.state.get(group)
        pairs = found.items() if isinstance(found, dict) else ()
        return {name: value for name, value in pairs if type(name) is str and isinstance(value, kind)}

    def walk(self, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Module]]:
        """Itself and all modules in it, by their names. One that is there twice would be there any number of times."""
        seen = set() if seen is None else seen
        if id(self) in seen:
            raise PickleError("a module of it is in two places")
        seen.add(id(self))
        yield prefix, self
        for name, module in self.modules.items():
            yield from module.walk(f"{prefix}{name}.", seen)

    def named_tensors(self) -> dict[str, LazyTensor]:
        return {prefix + name: tensor for prefix, module in self.walk() for name, tensor in module.tensors.items()}


def known(module: str, name: str) -> Any:
    """What a name in such a pickle means. Raises FormatError for those of a format that is known and not read."""
    if (module, name) == PERSISTENT:
        return Module
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
        return rebuild_tensor
    if (module, name) == ("torch.storage", "_load_from_bytes"):
        return storage_from_bytes
    if whose := _OTHERS.get(module.partition(".")[0]):
        raise FormatError(f"it is {whose}, whose networks are not built here")
    return known_by_name(module, name) or plain_name(module, name)


def read_nvidia(file: Part) -> Foreign:
    """Raises PickleError and FormatError."""
    tree = read_pickle(file, known, parts=True)
    if isinstance(tree, dict) and isinstance(tree.get("G_ema"), Built):
        return read_built(tree["G_ema"], tree["D"] if isinstance(tree.get("D"), Built) else None)
    if not isinstance(tree, dict) or not isinstance(tree.get("G_ema"), Module):
        raise PickleError("it holds no G_ema of NVIDIA's")
    G, D, pipe = tree["G_ema"], tree.get("D"), tree.get("augment_pipe")
    generator, tensors = generator_of(G)
    discriminator, d_tensors = discriminator_of(D) if isinstance(D, Module) else (None, {})
    p = pipe.tensors.get("p") if isinstance(pipe, Module) else None
    told = tree.get("training_set_kwargs")
    return Foreign(
        "NVIDIA PyTorch pickle",
        generator,
        tensors,
        discriminator,
        d_tensors,
        None if p is None or p.size != () else float(p.load()),
        _text(told.get("path")) if isinstance(told, dict) else "",
        notes=("The weights of G itself, which its moving average G_ema was made of, are left out.",),
    )


def generator_of(G: Module) -> tuple[StyleGAN2Config, dict[str, Loadable]]:
    mapping, synthesis = (_part(G, name) for name in ("mapping", "synthesis"))
    if "input" in synthesis.modules:
        raise FormatError("it is a StyleGAN3 network, which there is no model for yet")
    blocks = _levels(synthesis)
    top = blocks[max(blocks)]
    conv = _part(top, "conv1")
    layers = [m for name, m in mapping.modules.items() if name.startswith("fc")]
    tensors = G.named_tensors()
    architecture = _word(top, "architecture")
    config = StyleGAN2Config(
        *_size(synthesis),
        channels=_whole(synthesis, "img_channels"),
        z_dim=_whole(mapping, "z_dim"),
        c_dim=_whole(mapping, "c_dim"),
        w_dim=_whole(mapping, "w_dim"),
        mapping_layers=_whole(mapping, "num_layers", _MOST_LAYERS),
        mapping_lr=_number(layers[0], "bias_gain", 1.0) if layers else 0.01,
        architecture=architecture,
        fir=_fir_of(synthesis),
        half_levels=sum(bool(block.use_fp16) for block in blocks.values()),
        conv_clamp=_clamp(conv),
        w_avg_beta=_number(mapping, "w_avg_beta", 0.995),
        **channel_widths({r: _rows(tensors, f"synthesis.b{r}.conv1.bias") for r in blocks}),
    )
    _check_alike(G, config.conv_clamp)
    return config, _ours(tensors)


def discriminator_of(D: Module) -> tuple[DiscriminatorConfig, dict[str, Loadable]]:
    blocks = _levels(D)
    epilogue = blocks.pop(4)
    top, mbstd = blocks[max(blocks)], epilogue.modules.get("mbstd")
    mapping = D.modules.get("mapping")
    labels = [m for name, m in mapping.modules.items() if name.startswith("fc")] if mapping else []
    tensors = D.named_tensors()
    config = DiscriminatorConfig(
        *_size(D),
        channels=_whole(D, "img_channels"),
        c_dim=_whole(D, "c_dim"),
        mapping_layers=_whole(mapping, "num_layers", _MOST_LAYERS) if mapping else 8,
        mapping_lr=_number(labels[0], "bias_gain", 1.0) if labels else 0.01,
        architecture=_word(top, "architecture"),
        fir=_fir_of(D),
        half_levels=sum(bool(block.use_fp16) for block in blocks.values()),
        conv_clamp=_clamp(_part(top, "conv0")),
        mbstd_group=_whole(mbstd, "group_size") if mbstd and mbstd.group_size is not None else None if mbstd else 4,
        mbstd_channels=_whole(mbstd, "num_channels") if mbstd else 0,
        **channel_widths({r: _rows(tensors, f"b{r}.conv0.bias") for r in blocks} | {4: _rows(tensors, "b4.conv.bias")}),
    )
    _check_alike(D, config.conv_clamp)
    return config, _ours(tensors)


def _ours(tensors: dict[str, LazyTensor]) -> dict[str, Loadable]:
    """Filters follow from the configuration, and are not kept."""
    return {name: t for name, t in tensors.items() if not name.endswith("resample_filter")}


def _levels(network: Module) -> dict[int, Module]:
    found = {int(n[1:]): m for n, m in network.modules.items() if n[:1] == "b" and n[1:].isdecimal() and len(n) < 7}
    if not found or 4 not in found or len(found) < 2:
        raise PickleError("its networks have no levels b4, b8 ...")
    return found


def _size(network: Module) -> tuple[int, int]:
    side = _whole(network, "img_resolution")
    return side, side


def _rows(tensors: dict[str, LazyTensor], name: str) -> int:
    if name not in tensors or len(tensors[name].size) != 1:
        raise PickleError(f"it holds no {name}")
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
    """The taps of one direction, as whole numbers where they are some."""
    if tensor is None or len(tensor.size) not in (1, 2) or not all(1 <= side <= 32 for side in tensor.size):
        raise PickleError("it holds no resampling filter")
    taps = tensor.load().double()
    taps = taps if taps.ndim == 1 else taps.sum(1)
    taps = taps / taps[taps.abs() > 0].abs().min() if taps.abs().sum() > 0 else taps
    return tuple(round(t, 4) for t in taps.tolist())


def _check_alike(network: Module, clamp: float | None) -> None:
    """Raises FormatError if a layer has a setting of its own, which one for all of them does not tell."""
    for prefix, module in network.walk():
        name = prefix.rstrip(".")
        act = "linear" if name.rpartition(".")[2] in _LINEAR else "lrelu"
        if module.activation not in (None, act):
            raise FormatError(f"its layer {name[:80]} has the activation {_text(module.activation)}, ours {act}")
        unclamped = name.endswith(".skip") or name == "b4.fromrgb"
        if "conv_clamp" in module.state and not unclamped and _clamp(module) != clamp:
            raise FormatError(f"its layer {name[:80]} has another clamp than the highest")
        if (kind := module.architecture) is not None and kind != _word(network_top(network), "architecture"):
            raise FormatError(f"its level {name[:80]} has another architecture than the highest")


def network_top(network: Module) -> Module:
    """The highest level of a generator or a discriminator."""
    blocks = _levels(network.modules.get("synthesis", network))
    return blocks[max(blocks)]


def _text(value: Any) -> str:
    """At most 200 characters, of a text alone: others may take forever to print."""
    return value[:200] if type(value) is str else ""


def _part(module: Module, name: str) -> Module:
    found = module.modules.get(name)
    if found is None:
        raise PickleError(f"a network of it lacks {name}")
    return found


def _whole(module: Module, name: str, most: int = 1 << 20) -> int:
    value = getattr(module, name)
    if type(value) is not int or not 0 <= value <= most:
        raise PickleError(f"its {name} is no number that makes sense")
    return value


def _number(module: Module, name: str, otherwise: float) -> float:
    value = getattr(module, name)
    if value is None:
        return otherwise
    if type(value) not in (int, float) or not abs(value) < 1e6:
        raise PickleError(f"its {name} is no number that makes sense")
    return float(value)


def _clamp(layer: Module) -> float | None:
    return None if layer.conv_clamp is None else _number(layer, "conv_clamp", 256.0)


def _word(module: Module, name: str) -> str:
    value = getattr(module, name)
    if type(value) is not str or len(value) > 40:
        raise PickleError(f"its {name} is no word")
    return value
