"""Writer of `.pkl` files for NVIDIA's repositories, and a reader of these files.

NVIDIA's own pickles contain the source code of the networks. These contain the names of the repository's classes
instead, their arguments, and the weights as numpy arrays: `pickle.load` in a checkout of the repository builds the
networks.
"""

from __future__ import annotations

import pickletools
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..config import base_size, from_json, to_json
from ..errors import SganError
from ..files import atomic_path
from ..models.config import GeneratorConfig, LevelsDiscriminatorConfig
from ..models.discriminator import Discriminator
from ..models.generator import Generator
from ..models.levels_discriminator import LevelsDiscriminator
from ..models.stylegan2.config import StyleGAN2Config
from ..models.stylegan3 import checkpoints as stylegan3
from ..models.stylegan3.config import StyleGAN3Config
from ..ops import fir_filter
from ..pickled import Name, PickleError
from ..tensors import Array
from .checkpoint import Checkpoint, require_levels

_OTHER_FORMATS = "Use .onnx or .pt2, which support every model."
REPOSITORIES = {"ada": "training.networks", "sg3": "training.networks_stylegan2"}  # the module with StyleGAN2
_STYLEGAN3 = "training.networks_stylegan3"
# Our field name -> NVIDIA's argument name, if they differ
_NVIDIA_NAMES = {
    "channels": "img_channels",
    "mapping_layers": "num_layers",
    "mapping_lr": "lr_multiplier",
    "half_levels": "num_fp16_res",
    "fir": "resample_filter",
    "mbstd_group": "mbstd_group_size",
    "mbstd_channels": "mbstd_num_channels",
}
_FIELD_NAMES = {argument: field for field, argument in _NVIDIA_NAMES.items()}
# Fields without an argument: NVIDIA's networks have one fixed value, see _check_supported
_FIXED = ("height", "width", "labels", "family", "blur", "fade", "input", "noise")
# Arguments that NVIDIA's classes take in nested dictionaries
_SYNTHESIS = ("channel_base", "channel_max", "num_fp16_res", "conv_clamp", "architecture", "resample_filter")
_NESTED = {
    ("ada", StyleGAN2Config): {
        "mapping_kwargs": ("num_layers", "lr_multiplier", "w_avg_beta"),
        "synthesis_kwargs": _SYNTHESIS,
    },
    ("sg3", StyleGAN2Config): {"mapping_kwargs": ("num_layers", "lr_multiplier", "w_avg_beta")},
    **dict.fromkeys(
        [("ada", LevelsDiscriminatorConfig), ("sg3", LevelsDiscriminatorConfig)],
        {
            "mapping_kwargs": ("num_layers", "lr_multiplier"),
            "block_kwargs": ("resample_filter",),
            "epilogue_kwargs": ("mbstd_group_size", "mbstd_num_channels"),
        },
    ),
}


def write_nvidia(
    path: str | Path,  # .pkl
    G: Generator,  # moving average, written as G and G_ema
    D: Discriminator | None,
    repository: str,  # one of REPOSITORIES: 'ada' is stylegan2-ada-pytorch, 'sg3' is stylegan3
) -> None:
    """Write a model for the programs of a repository, in full precision. A missing discriminator is replaced with an
    identity layer.

    Raises SganError if the repository does not support such networks, or if the file cannot be written.
    """
    if repository not in REPOSITORIES:
        raise ValueError(f"repository must be one of {', '.join(REPOSITORIES)}, not {repository!r}")
    _check_generator(G.config, repository)
    D = require_levels(D, G.config)
    _check_supported(G.config, None if D is None else D.config)
    generator = _network(G, "Generator", repository)
    tree = {
        "G": generator,
        "D": _IDENTITY if D is None else _network(D, "Discriminator", repository),
        "G_ema": generator.result,
        "augment_pipe": None,
        "training_set_kwargs": None,
    }
    with atomic_path(path) as temporary, open(temporary, "wb") as f:
        _Writer(f).write(tree)


def _check_generator(generator: GeneratorConfig, repository: str) -> None:
    if isinstance(generator, StyleGAN3Config) and repository != "sg3":
        raise SganError("Only NVIDIA's repository stylegan3 supports StyleGAN3.", hint="Use --for sg3.")
    if not isinstance(generator, (StyleGAN2Config, StyleGAN3Config)):
        raise SganError(
            f"NVIDIA's repositories support only StyleGAN2 and StyleGAN3, not the family {generator.family!r}.",
            hint=_OTHER_FORMATS,
        )
    if generator.c_dim and generator.labels != "embed":
        raise SganError(
            f"NVIDIA's generator supports only the labels 'embed', not {generator.labels!r}.", hint=_OTHER_FORMATS
        )


def _check_supported(generator: GeneratorConfig, discriminator: LevelsDiscriminatorConfig | None) -> None:
    if discriminator and (discriminator.blur or discriminator.fade):
        raise SganError(
            "NVIDIA's discriminator does not support growing or an additional blur filter.",
            hint="Use --drop-discriminator.",
        )
    if isinstance(generator, StyleGAN2Config) and generator.input != "const":
        message = f"NVIDIA's StyleGAN2 supports only a constant input, not {generator.input!r}."
        raise SganError(message, hint=_OTHER_FORMATS)
    if isinstance(generator, StyleGAN2Config) and not generator.noise:
        raise SganError("NVIDIA's StyleGAN2 supports only layers with noise.", hint=_OTHER_FORMATS)
    for config in (generator, discriminator or generator):
        if base_size(config.height, config.width)[:2] != (4, 4):
            size = f"{config.height}x{config.width}"
            raise SganError(
                f"NVIDIA's networks support only squares of 8, 16, 32 ... pixels, not {size}.", hint=_OTHER_FORMATS
            )
    if discriminator and discriminator.c_dim and discriminator.labels != "projection":
        raise SganError(
            f"NVIDIA's discriminator supports only the labels 'projection', not {discriminator.labels!r}.",
            hint="Use --drop-discriminator.",
        )
    if discriminator and discriminator.codes:
        raise SganError("NVIDIA's discriminator does not support codes.", hint="Use --drop-discriminator.")


def arguments_of(
    config: StyleGAN2Config | StyleGAN3Config | LevelsDiscriminatorConfig,
    repository: str,  # one of REPOSITORIES
) -> dict[str, Any]:
    """The arguments of NVIDIA's class for such a network. All are explicit, since the defaults differ."""
    if isinstance(config, StyleGAN3Config):
        return stylegan3.arguments_of(config)
    fields = to_json(config) | {"fir": list(config.fir)}
    flat = {_NVIDIA_NAMES.get(name, name): v for name, v in fields.items() if name not in _FIXED}
    groups = {
        group: {name: flat.pop(name) for name in names} for group, names in _NESTED[repository, type(config)].items()
    }
    return {"img_resolution": config.height} | flat | groups


def _weights(network: Generator | LevelsDiscriminator) -> dict[str, Tensor]:
    """The state_dict of NVIDIA's network. It also contains the filters, which are two-dimensional if they are short."""
    tensors: dict[str, Tensor] = dict(network.named_parameters())
    if isinstance(network.config, StyleGAN3Config):
        tensors["synthesis.input.transform"] = torch.eye(3)
    for name, tensor in network.named_buffers():
        if name.endswith("blur_filter"):  # a single tap
            continue
        tensors[name] = tensor
        if name.endswith("resample_filter"):
            layer = network.get_submodule(name.rpartition(".")[0])
            # NVIDIA's layers that do not resample have the default filter of four taps
            is_unused = getattr(layer, "up", 2) == getattr(layer, "down", 1) == 1
            taps = fir_filter((1, 3, 3, 1)) if is_unused else tensor
            tensors[name] = taps if len(taps) >= 8 else taps.outer(taps)
    return tensors


# The objects in the file, and the writer


@dataclass(frozen=True, eq=False)
class _Global:
    module: str
    name: str


@dataclass(frozen=True, eq=False)
class _Call:
    function: _Global
    arguments: tuple = ()
    state: Any = None  # for the __setstate__ of the result
    is_shared: bool = False  # whether the result is used more than once


@dataclass(frozen=True, eq=False)
class _Prepared:
    """An object, and calls to prepare it whose results are discarded."""

    result: _Call
    calls: tuple[_Call, ...]


_PARTIAL, _CALL = _Global("functools", "partial"), _Global("functools", "partial.__call__")
_MODULE = "torch.nn.modules.module"
_IDENTITY = _Call(_Global("torch.nn.modules.linear", "Identity"))
_FLOAT32 = _Call(_Global("numpy", "dtype"), ("f4", False, True), (3, "<", None, None, None, -1, -1, 0), is_shared=True)


def _network(network: Generator | LevelsDiscriminator, name: str, repository: str) -> _Prepared:
    config = network.config
    assert isinstance(
        config, (StyleGAN2Config, StyleGAN3Config, LevelsDiscriminatorConfig)
    )  # checked by _check_supported
    # Calls in a pickle have positional arguments only; a partial provides the keyword arguments.
    module = _STYLEGAN3 if isinstance(config, StyleGAN3Config) else REPOSITORIES[repository]
    network_class = _Global(module, name)
    call = _Call(_PARTIAL, (network_class,), (network_class, (), arguments_of(config, repository), None))
    result = _Call(_CALL, (call,), is_shared=True)
    return _Prepared(
        result,
        (
            _Call(_Global(_MODULE, "Module.load_state_dict"), (result, _weights(network))),
            _Call(_Global(_MODULE, "Module.eval"), (result,)),
            _Call(_Global(_MODULE, "Module.requires_grad_"), (result, False)),
        ),
    )


class _Writer:
    """Writes a pickle of protocol 4."""

    codes = {opcode.name: opcode.code.encode("latin-1") for opcode in pickletools.opcodes}

    def __init__(self, file: BinaryIO):
        self.file = file
        self.memo: dict[_Call, int] = {}

    def write(self, tree: Any) -> None:
        self.emit("PROTO", b"\4")
        self.push(tree)
        self.emit("STOP")

    def emit(self, name: str, *arguments: bytes | memoryview) -> None:
        self.file.write(self.codes[name])
        for argument in arguments:
            self.file.write(argument)

    def push(self, value: Any) -> None:
        """Write the instructions that push a value on the stack."""
        match value:
            case None:
                self.emit("NONE")
            case bool():
                self.emit("NEWTRUE" if value else "NEWFALSE")
            case int():
                self.emit("BININT", struct.pack("<i", value))
            case float():
                self.emit("BINFLOAT", struct.pack(">d", value))
            case str():
                self.emit("BINUNICODE", struct.pack("<I", len(value.encode())), value.encode())
            case bytes() | memoryview():
                self.emit("BINBYTES", struct.pack("<I", len(value)), value)
            case tuple():
                self.push_all("TUPLE", value)
            case list():
                self.push_all("LIST", value)
            case dict():
                self.push_all("DICT", [x for pair in value.items() for x in pair])
            case Tensor():
                self.push(_array(value))
            case _Global():
                self.emit("GLOBAL", f"{value.module}\n{value.name}\n".encode())
            case _Call():
                self.push_call(value)
            case _Prepared():
                self.push(value.result)
                for call in value.calls:
                    self.push(call)
                    self.emit("POP")

    def push_all(self, name: str, values: tuple | list) -> None:
        self.emit("MARK")
        for value in values:
            self.push(value)
        self.emit(name)

    def push_call(self, call: _Call) -> None:
        if call in self.memo:
            self.emit("BINGET", bytes([self.memo[call]]))
            return
        self.push(call.function)
        self.push(call.arguments)
        self.emit("REDUCE")
        if call.state is not None:
            self.push(call.state)
            self.emit("BUILD")
        if call.is_shared:
            self.memo[call] = len(self.memo)
            self.emit("BINPUT", bytes([self.memo[call]]))


def _array(tensor: Tensor) -> _Call:
    numbers = tensor.detach().float().cpu().contiguous().numpy()
    empty = (_Global("numpy", "ndarray"), (0,), b"b")
    state = (1, numbers.shape, _FLOAT32, False, numbers.reshape(-1).view("u1").data)
    array = _Call(_Global("numpy.core.multiarray", "_reconstruct"), empty, state)
    return _Call(_Global("torch", "from_numpy"), (array,))


# The reader of these files


class NetworkCall:
    """The call that builds a network in such a file, as data."""

    def __init__(self, partial: Any):
        if not isinstance(partial, _Partial):
            raise PickleError("it calls something other than a network")
        self.class_name, self.arguments = partial.class_name, partial.arguments
        self.tensors: dict[str, Array] = {}


class _Partial:
    def __init__(self, function: Any):
        self.class_name, self.arguments = function.meaning if isinstance(function, Name) else None, {}

    def set_state(self, state: Any) -> None:
        if self.class_name not in _CONFIGS or type(state) is not tuple or len(state) != 4 or type(state[2]) is not dict:
            raise PickleError("one of its networks does not have NVIDIA's format")
        self.arguments = state[2]


_CONFIGS = {
    "Generator": StyleGAN2Config,
    "StyleGAN3 Generator": StyleGAN3Config,
    "Discriminator": LevelsDiscriminatorConfig,
}
# Tensors that follow from the configuration
_LEFT_OUT = ("resample_filter", ".up_filter", ".down_filter", "synthesis.input.transform")


def resolve_writer_name(module: str, name: str) -> Any:
    """The replacement for a name in such a file; None for other names, including numpy's."""
    if module in REPOSITORIES.values() and name in ("Generator", "Discriminator"):
        return name
    if (module, name) == (_STYLEGAN3, "Generator"):
        return "StyleGAN3 Generator"
    meanings = {
        (_PARTIAL.module, _PARTIAL.name): _Partial,
        (_CALL.module, _CALL.name): NetworkCall,
        (_MODULE, "Module.load_state_dict"): _load,
        (_MODULE, "Module.eval"): lambda network: network,
        (_MODULE, "Module.requires_grad_"): lambda network, on: network,
        (_IDENTITY.function.module, _IDENTITY.function.name): lambda: None,
        ("torch", "from_numpy"): lambda array: array,
    }
    return meanings.get((module, name))


def _load(network: Any, tensors: Any) -> None:
    if not isinstance(network, NetworkCall) or type(tensors) is not dict:
        raise PickleError("it loads weights into something other than a network")
    if not all(type(name) is str and isinstance(tensor, Array) for name, tensor in tensors.items()):
        raise PickleError("it has weights that are not arrays")
    network.tensors = {name: t for name, t in tensors.items() if not name.endswith(_LEFT_OUT)}


def read_calls(
    G: NetworkCall,
    D: NetworkCall | None,
) -> Checkpoint:
    """Raises PickleError if the arguments of a network are invalid."""
    generator, discriminator = config_of(G, "Generator"), None if D is None else config_of(D, "Discriminator")
    return Checkpoint("NVIDIA PyTorch pickle", generator, G.tensors, discriminator, {} if D is None else D.tensors)


def config_of(
    network: NetworkCall,
    class_name: str,  # 'Generator' or 'Discriminator'
) -> Any:
    """The configuration of a network. Raises PickleError if its arguments are invalid."""
    name = network.class_name
    if name is None or not name.endswith(class_name):
        raise PickleError(f"it has a {name} instead of a {class_name}")
    flat: dict[str, Any] = {}
    plain = [*network.arguments]
    for argument, value in network.arguments.items():
        flat |= value if type(value) is dict else {argument: value}
        plain += [*value, *value.values()] if type(value) is dict else [value]
    if not all(_is_plain(x) for x in plain):
        raise PickleError("a network's arguments are invalid")
    side = flat.pop("img_resolution", 0)
    fields = {_FIELD_NAMES.get(k, k): v for k, v in flat.items()} | {"height": side, "width": side}
    try:
        if _CONFIGS[name] is StyleGAN3Config:
            fields = stylegan3.fields_of(network.arguments)
        return from_json(_CONFIGS[name], fields)
    except SganError as e:
        raise PickleError(str(e).rstrip(".")) from e


def _is_plain(value: Any) -> bool:
    """Whether a value is small enough to be printed and used in calculations."""
    if type(value) is list:
        return len(value) < 40 and all(type(x) is float and abs(x) < 1e6 for x in value)
    if type(value) is str:
        return len(value) < 40
    return value is None or (type(value) in (bool, int, float) and abs(value) < 1 << 20)
