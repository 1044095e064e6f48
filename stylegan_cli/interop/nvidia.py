"""NVIDIA's PyTorch pickles: stylegan2-ada-pytorch, and stylegan3 as far as its networks are StyleGAN2's.

A pickle of {'G', 'D', 'G_ema', 'augment_pipe', 'training_set_kwargs'}; a network is a dictionary with its source, which
stays unread, and its `__dict__`. Names are ours; all settings are read off the modules, because defaults differ between
the two repositories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..config import DiscriminatorConfig, GeneratorConfig
from ..pickled import Part, PickleError, read_pickle
from .foreign import Foreign, FormatError, Loadable, channel_widths
from .nvidia_writer import Built, known_by_name, read_built
from .tensors import LazyTensor, plain_name, rebuild_tensor, storage_from_bytes

PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")
_MOST_LAYERS = 64  # of a mapping network: a million would take a while to be found missing
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
        self.class_name = str(meta.get("class_name"))[:80]
        self.state = meta["state"]

    def __getattr__(self, name: str) -> Any:  # an attribute as the module had it; None where it had none
        return self.__dict__["state"].get(name)

    def set_state(self, state: Any) -> None:
        raise PickleError("a network of it has another form than NVIDIA's")

    @property
    def modules(self) -> dict[str, Module]:
        found = self.state.get("_modules")
        return {k: v for k, v in found.items() if isinstance(v, Module)} if isinstance(found, dict) else {}

    @property
    def tensors(self) -> dict[str, LazyTensor]:  # frozen weights are buffers
        groups = (self.state.get("_parameters"), self.state.get("_buffers"))
        pairs = [pair for group in groups if isinstance(group, dict) for pair in group.items()]
        return {name: t for name, t in pairs if isinstance(t, LazyTensor)}

    def named_tensors(self, prefix: str = "") -> Iterator[tuple[str, LazyTensor]]:
        for name, tensor in self.tensors.items():
            yield prefix + name, tensor
        for name, module in self.modules.items():
            yield from module.named_tensors(f"{prefix}{name}.")


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
        str(told.get("path", ""))[:200] if isinstance(told, dict) else "",
        notes=("The weights of G itself, which its moving average G_ema was made of, are left out.",),
    )


def generator_of(G: Module) -> tuple[GeneratorConfig, dict[str, Loadable]]:
    mapping, synthesis = (_part(G, name) for name in ("mapping", "synthesis"))
    if "input" in synthesis.modules:
        raise FormatError("it is a StyleGAN3 network, which there is no model for yet")
    blocks = _levels(synthesis)
    top = blocks[max(blocks)]
    conv = _part(top, "conv1")
    layers = [m for name, m in mapping.modules.items() if name.startswith("fc")]
    tensors = dict(G.named_tensors())
    architecture = _word(top, "architecture")
    config = GeneratorConfig(
        *_size(synthesis),
        channels=_whole(synthesis, "img_channels"),
        z_dim=_whole(mapping, "z_dim"),
        c_dim=_whole(mapping, "c_dim"),
        w_dim=_whole(mapping, "w_dim"),
        mapping_layers=_whole(mapping, "num_layers", _MOST_LAYERS),
        mapping_lr=_number(layers[0], "bias_gain", 1.0) if layers else 0.01,
        architecture=architecture,
        fir=_filter(tensors.get(f"synthesis.b{max(blocks)}.resample_filter")),
        half_levels=sum(bool(block.use_fp16) for block in blocks.values()),
        conv_clamp=_clamp(conv),
        w_avg_beta=_number(mapping, "w_avg_beta", 0.995),
        **channel_widths({r: _rows(tensors, f"synthesis.b{r}.conv1.bias") for r in blocks}),
    )
    _only_lrelu([*layers, conv])
    return config, _ours(tensors)


def discriminator_of(D: Module) -> tuple[DiscriminatorConfig, dict[str, Loadable]]:
    blocks = _levels(D)
    epilogue = blocks.pop(4)
    top, mbstd = blocks[max(blocks)], epilogue.modules.get("mbstd")
    mapping = D.modules.get("mapping")
    labels = [m for name, m in mapping.modules.items() if name.startswith("fc")] if mapping else []
    tensors = dict(D.named_tensors())
    config = DiscriminatorConfig(
        *_size(D),
        channels=_whole(D, "img_channels"),
        c_dim=_whole(D, "c_dim"),
        mapping_layers=_whole(mapping, "num_layers", _MOST_LAYERS) if mapping else 8,
        mapping_lr=_number(labels[0], "bias_gain", 1.0) if labels else 0.01,
        architecture=_word(top, "architecture"),
        fir=_filter(tensors.get(f"b{max(blocks)}.resample_filter")),
        half_levels=sum(bool(block.use_fp16) for block in blocks.values()),
        conv_clamp=_clamp(_part(top, "conv0")),
        mbstd_group=mbstd.group_size if mbstd else 4,
        mbstd_channels=_whole(mbstd, "num_channels") if mbstd else 0,
        **channel_widths({r: _rows(tensors, f"b{r}.conv0.bias") for r in blocks} | {4: _rows(tensors, "b4.conv.bias")}),
    )
    _only_lrelu([_part(top, "conv0")])
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


def _filter(tensor: LazyTensor | None) -> tuple[float, ...]:
    """The taps of one direction, as whole numbers where they are some."""
    if tensor is None or len(tensor.size) not in (1, 2) or not 1 <= tensor.size[0] <= 32:
        raise PickleError("it holds no resampling filter")
    taps = tensor.load().double()
    taps = taps if taps.ndim == 1 else taps.sum(1)
    taps = taps / taps[taps.abs() > 0].abs().min() if taps.abs().sum() > 0 else taps
    return tuple(round(t, 4) for t in taps.tolist())


def _only_lrelu(layers: list[Module]) -> None:
    acts = Counter(str(layer.activation)[:20] for layer in layers)
    if set(acts) - {"lrelu"}:
        raise FormatError(f"its layers have the activation {next(iter(set(acts) - {'lrelu'}))}, which ours have not")


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
