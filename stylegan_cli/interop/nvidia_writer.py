"""A model as a `.pkl` for one of NVIDIA's repositories, and back.

Their own pickles carry the source of the networks. These name the repository's classes instead, what to call them
with, and the weights as numpy arrays: `pickle.load` in a checkout of the repository builds the networks anew.
"""

from __future__ import annotations

import pickletools
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from ..config import base_size, from_json, to_json
from ..errors import SganError
from ..files import atomic_path
from ..models.config import DiscriminatorConfig, GeneratorConfig
from ..models.discriminator import Discriminator
from ..models.generator import Generator
from ..models.stylegan2.config import StyleGAN2Config
from ..ops import fir_filter
from ..pickled import Name, PickleError
from .foreign import Foreign
from .tensors import Array

REPOSITORIES = {"ada": "training.networks", "sg3": "training.networks_stylegan2"}  # where each has its networks
# Of our names, those that they call otherwise
_THEIRS = {
    "channels": "img_channels",
    "mapping_layers": "num_layers",
    "mapping_lr": "lr_multiplier",
    "half_levels": "num_fp16_res",
    "fir": "resample_filter",
    "mbstd_group": "mbstd_group_size",
    "mbstd_channels": "mbstd_num_channels",
}
_OURS = {theirs: ours for ours, theirs in _THEIRS.items()}
# What they have no argument for: how their networks are in any case, see _refuse_what_they_lack
_FIXED = ("height", "width", "labels", "family", "blur", "fade")
# Which of their arguments they take in a dictionary of its own
_SYNTHESIS = ("channel_base", "channel_max", "num_fp16_res", "conv_clamp", "architecture", "resample_filter")
_NESTED = {
    ("ada", StyleGAN2Config): {
        "mapping_kwargs": ("num_layers", "lr_multiplier", "w_avg_beta"),
        "synthesis_kwargs": _SYNTHESIS,
    },
    ("sg3", StyleGAN2Config): {"mapping_kwargs": ("num_layers", "lr_multiplier", "w_avg_beta")},
    **dict.fromkeys(
        [("ada", DiscriminatorConfig), ("sg3", DiscriminatorConfig)],
        {
            "mapping_kwargs": ("num_layers", "lr_multiplier"),
            "block_kwargs": ("resample_filter",),
            "epilogue_kwargs": ("mbstd_group_size", "mbstd_num_channels"),
        },
    ),
}


def write_nvidia(
    path: str | Path,  # .pkl
    G: Generator,  # moving average; the file has no other one
    D: Discriminator | None,
    repository: str,  # of REPOSITORIES: 'ada' is stylegan2-ada-pytorch, 'sg3' is stylegan3
) -> None:
    """Write a model that the repository's programs open, in full precision. Without a discriminator a layer that does
    nothing stands in its place.

    Raises SganError if its networks cannot be such a model, or if the file cannot be written.
    """
    if repository not in REPOSITORIES:
        raise ValueError(f"repository must be one of {', '.join(REPOSITORIES)}, not {repository!r}")
    _refuse_what_they_lack(G.config, None if D is None else D.config)
    generator = _network(G, "Generator", repository)
    tree = {
        "G": generator,
        "D": _NOTHING if D is None else _network(D, "Discriminator", repository),
        "G_ema": generator.made,
        "augment_pipe": None,
        "training_set_kwargs": None,
    }
    with atomic_path(path) as temporary, open(temporary, "wb") as f:
        _Writer(f).write(tree)


def _refuse_what_they_lack(generator: GeneratorConfig, discriminator: DiscriminatorConfig | None) -> None:
    if not isinstance(generator, StyleGAN2Config):
        raise SganError(f"NVIDIA's networks are StyleGAN2s: this generator is of the family {generator.family!r}.")
    if discriminator and (discriminator.blur or discriminator.fade):
        raise SganError("NVIDIA's discriminator neither grows nor blurs beside its filter: this one does.")
    for config in (generator, discriminator or generator):
        if base_size(config.height, config.width)[:2] != (4, 4):
            size = f"{config.height}x{config.width}"
            raise SganError(f"NVIDIA's networks draw squares of 8, 16, 32 and so on pixels: {size} they cannot.")
    if generator.c_dim and generator.labels != "embed":
        raise SganError("NVIDIA's generator normalizes labels by themselves: one that takes them with z it has not.")
    if discriminator and discriminator.c_dim and discriminator.labels != "projection":
        raise SganError("NVIDIA's discriminator maps labels: one with a logit for each class they have not.")


def arguments_of(
    config: StyleGAN2Config | DiscriminatorConfig,
    repository: str,  # of REPOSITORIES
) -> dict[str, Any]:
    """What their class is called with to build such a network. All of it is said: defaults differ between the two."""
    ours = to_json(config) | {"fir": list(config.fir)}
    flat = {_THEIRS.get(name, name): v for name, v in ours.items() if name not in _FIXED}
    nested = _NESTED[repository, type(config)]
    inner = {nest: {name: flat.pop(name) for name in names} for nest, names in nested.items()}
    return {"img_resolution": config.height} | flat | inner


def _weights(network: Generator | Discriminator) -> dict[str, Tensor]:
    """By their names, which are ours; they keep filters too, in two dimensions if they are short."""
    tensors: dict[str, Tensor] = dict(network.named_parameters())
    for name, tensor in network.named_buffers():
        if name.endswith("blur_filter"):  # of one tap
            continue
        tensors[name] = tensor
        if name.endswith("resample_filter"):
            layer = network.get_submodule(name.rpartition(".")[0])
            # Where nothing is resampled theirs is the usual one, of four taps
            idle = getattr(layer, "up", 2) == getattr(layer, "down", 1) == 1
            taps = fir_filter((1, 3, 3, 1)) if idle else tensor
            tensors[name] = taps if len(taps) >= 8 else taps.outer(taps)
    return tensors


# What the file makes


@dataclass(frozen=True, eq=False)
class _Global:
    module: str
    name: str


@dataclass(frozen=True, eq=False)
class _Call:
    function: _Global
    arguments: tuple = ()
    state: Any = None  # what the object is given after that
    again: bool = False  # whether it is used again: the same object, then


@dataclass(frozen=True, eq=False)
class _Prepared:
    """An object, and calls whose results are thrown away."""

    made: _Call
    calls: tuple[_Call, ...]


_PARTIAL, _CALL = _Global("functools", "partial"), _Global("functools", "partial.__call__")
_MODULE = "torch.nn.modules.module"
_NOTHING = _Call(_Global("torch.nn.modules.linear", "Identity"))
_FLOAT32 = _Call(_Global("numpy", "dtype"), ("f4", False, True), (3, "<", None, None, None, -1, -1, 0), again=True)


def _network(network: Generator | Discriminator, name: str, repository: str) -> _Prepared:
    config = network.config
    assert isinstance(config, (StyleGAN2Config, DiscriminatorConfig))  # others were refused
    # A pickle calls with arguments by position only; a partial holds the others.
    kind = _Global(REPOSITORIES[repository], name)
    call = _Call(_PARTIAL, (kind,), (kind, (), arguments_of(config, repository), None))
    made = _Call(_CALL, (call,), again=True)
    return _Prepared(
        made,
        (
            _Call(_Global(_MODULE, "Module.load_state_dict"), (made, _weights(network))),
            _Call(_Global(_MODULE, "Module.eval"), (made,)),
            _Call(_Global(_MODULE, "Module.requires_grad_"), (made, False)),
        ),
    )


class _Writer:
    """Writes the instructions of a pickle, protocol 4."""

    codes = {opcode.name: opcode.code.encode("latin-1") for opcode in pickletools.opcodes}

    def __init__(self, file: BinaryIO):
        self.file = file
        self.kept: dict[_Call, int] = {}

    def write(self, tree: Any) -> None:
        self.do("PROTO", b"\4")
        self.put(tree)
        self.do("STOP")

    def do(self, name: str, *arguments: bytes | memoryview) -> None:
        self.file.write(self.codes[name])
        for argument in arguments:
            self.file.write(argument)

    def put(self, value: Any) -> None:
        """The instructions that leave the value on the stack."""
        match value:
            case None:
                self.do("NONE")
            case bool():
                self.do("NEWTRUE" if value else "NEWFALSE")
            case int():
                self.do("BININT", struct.pack("<i", value))
            case float():
                self.do("BINFLOAT", struct.pack(">d", value))
            case str():
                self.do("BINUNICODE", struct.pack("<I", len(value.encode())), value.encode())
            case bytes() | memoryview():
                self.do("BINBYTES", struct.pack("<I", len(value)), value)
            case tuple():
                self.put_all("TUPLE", value)
            case list():
                self.put_all("LIST", value)
            case dict():
                self.put_all("DICT", [x for pair in value.items() for x in pair])
            case Tensor():
                self.put(_array(value))
            case _Global():
                self.do("GLOBAL", f"{value.module}\n{value.name}\n".encode())
            case _Call():
                self.put_call(value)
            case _Prepared():
                self.put(value.made)
                for call in value.calls:
                    self.put(call)
                    self.do("POP")

    def put_all(self, name: str, values: tuple | list) -> None:
        self.do("MARK")
        for value in values:
            self.put(value)
        self.do(name)

    def put_call(self, call: _Call) -> None:
        if call in self.kept:
            self.do("BINGET", bytes([self.kept[call]]))
            return
        self.put(call.function)
        self.put(call.arguments)
        self.do("REDUCE")
        if call.state is not None:
            self.put(call.state)
            self.do("BUILD")
        if call.again:
            self.kept[call] = len(self.kept)
            self.do("BINPUT", bytes([self.kept[call]]))


def _array(tensor: Tensor) -> _Call:
    numbers = tensor.detach().float().cpu().contiguous().numpy()
    empty = (_Global("numpy", "ndarray"), (0,), b"b")
    state = (1, numbers.shape, _FLOAT32, False, numbers.reshape(-1).view("u1").data)
    array = _Call(_Global("numpy.core.multiarray", "_reconstruct"), empty, state)
    return _Call(_Global("torch", "from_numpy"), (array,))


# And back


class Built:
    """A network as such a file tells how to build it: nothing is built here."""

    def __init__(self, recipe: Any):
        if not isinstance(recipe, _Recipe):
            raise PickleError("it calls something else than a network")
        self.kind, self.arguments = recipe.kind, recipe.arguments
        self.tensors: dict[str, Array] = {}


class _Recipe:
    def __init__(self, kind: Any):
        self.kind, self.arguments = kind.meaning if isinstance(kind, Name) else None, {}

    def set_state(self, state: Any) -> None:
        if self.kind not in _KINDS or type(state) is not tuple or len(state) != 4 or type(state[2]) is not dict:
            raise PickleError("a network of it has another form than NVIDIA's")
        self.arguments = state[2]


_KINDS = {"Generator": StyleGAN2Config, "Discriminator": DiscriminatorConfig}


def known_by_name(module: str, name: str) -> Any:
    """What the names in such a file mean; None for others, numpy's among them."""
    if module in REPOSITORIES.values() and name in _KINDS:
        return name
    meanings = {
        (_PARTIAL.module, _PARTIAL.name): _Recipe,
        (_CALL.module, _CALL.name): Built,
        (_MODULE, "Module.load_state_dict"): _load,
        (_MODULE, "Module.eval"): lambda network: network,
        (_MODULE, "Module.requires_grad_"): lambda network, on: network,
        (_NOTHING.function.module, _NOTHING.function.name): lambda: None,
        ("torch", "from_numpy"): lambda array: array,
    }
    return meanings.get((module, name))


def _load(network: Any, tensors: Any) -> None:
    if not isinstance(network, Built) or type(tensors) is not dict:
        raise PickleError("it loads weights into something else than a network")
    if not all(type(name) is str and isinstance(tensor, Array) for name, tensor in tensors.items()):
        raise PickleError("it holds weights that are no arrays")
    network.tensors = {name: t for name, t in tensors.items() if not name.endswith("resample_filter")}


def read_built(
    G: Built,
    D: Built | None,
) -> Foreign:
    """Raises PickleError."""
    generator, discriminator = config_of(G, "Generator"), None if D is None else config_of(D, "Discriminator")
    return Foreign("NVIDIA PyTorch pickle", generator, G.tensors, discriminator, {} if D is None else D.tensors)


def config_of(
    network: Built,
    kind: str,  # of _KINDS
) -> Any:
    """Raises PickleError if its arguments are not those of such a network."""
    if network.kind != kind:
        raise PickleError(f"it has a {network.kind} where a {kind} should be")
    flat: dict[str, Any] = {}
    for name, value in network.arguments.items():
        flat |= value if type(value) is dict else {name: value}
    if not all(_is_plain(x) for x in (*flat, *flat.values())):
        raise PickleError("a network's arguments make no sense")
    side = flat.pop("img_resolution", 0)
    try:
        return from_json(_KINDS[kind], {_OURS.get(k, k): v for k, v in flat.items()} | {"height": side, "width": side})
    except SganError as e:
        raise PickleError(str(e).rstrip(".")) from e


def _is_plain(value: Any) -> bool:
    """Whether it can be printed and calculated with at once."""
    if type(value) is list:
        return len(value) < 40 and all(type(x) is float and abs(x) < 1e6 for x in value)
    if type(value) is str:
        return len(value) < 40
    return value is None or (type(value) in (int, float) and abs(value) < 1 << 20)
