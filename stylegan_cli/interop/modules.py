"""The content of a pickle or of a torch.save file as data: objects of any class, and the tensors in them by their path.

Classes are not imported. An object is its class name and its `__dict__`, so a network that was saved as a whole is a
tree of dictionaries, like its state dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..pickled import Part, PickleError, read_pickle
from ..tensors import is_legacy, load_storage, read_legacy, read_zip, rebuild_tensor
from .checkpoint import FormatError, Loadable, is_tensor
from .nvidia_writer import resolve_writer_name
from .safetensors_file import is_safetensors, read_safetensors
from .tensorflow_network import resolve_name as resolve_tensorflow_name

PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")
_UNSUPPORTED = {  # top-level package that a pickle names -> program
    "dill": "StyleGAN-XL, or another program that uses dill",
    "pg_modules": "StyleGAN-XL or Projected GAN",
}
_SETTINGS = ("argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath", "torch.device")
_MAX_ENTRIES = 1 << 16  # containers and tensors of a file: shared ones could make the traversal endless
_MAX_LENGTH = 1 << 23  # characters of their paths in total
_MAX_KEY = 400  # characters; longer ones are not searched
_MAX_SEQUENCE = 16  # items of a list that are searched for networks


class Module:
    """An object of a class that is not imported, with its `__dict__`."""

    def __init__(self, class_name: str, state: dict | None = None):
        self.class_name, self.state = class_name, {} if state is None else state

    def __getattr__(self, name: str) -> Any:  # an attribute of the original module, or None
        return self.__dict__["state"].get(name)

    def set_state(self, state: Any) -> None:
        if type(state) is tuple and len(state) == 2 and isinstance(state[0], dict):  # (__dict__, __slots__)
            state = state[0]
        if self.state or not isinstance(state, dict):
            raise PickleError("one of its objects has an invalid state")
        self.state = state

    @property
    def modules(self) -> dict[str, Module]:
        return self._named("_modules", lambda value: isinstance(value, Module))

    @property
    def tensors(self) -> dict[str, Loadable]:  # frozen weights are buffers
        return self._named("_parameters", is_tensor) | self._named("_buffers", is_tensor)

    def _named(self, group: str, is_wanted: Any) -> dict[str, Any]:
        value = self.state.get(group)
        pairs = value.items() if isinstance(value, dict) else ()
        return {name: value for name, value in pairs if type(name) is str and is_wanted(value)}

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

    def named_tensors(self) -> dict[str, Loadable]:
        return {prefix + name: tensor for prefix, module in self.walk() for name, tensor in module.tensors.items()}


class Settings:
    """Replaces argparse.Namespace and other objects with the settings of a program."""

    def __init__(self, *_: Any):
        self.values: dict = {}

    def set_state(self, state: Any) -> None:
        self.values = state if isinstance(state, dict) else {}


class _NetworkClass(str):
    """The name of a class for files that call it; in those that hold its objects, it makes them."""

    def __call__(self) -> Module:
        return Module(self)


class _AnyClass:
    """Replaces a class of a torch.save file: its objects are data. Functions are refused: they have arguments."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *arguments: Any) -> Module:
        if arguments:
            raise PickleError(f"it uses {self.name}, which no file of weights needs")
        return Module(self.name[:200])


def _reconstruct_persistent(meta: Any) -> Module:
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise PickleError("one of its networks does not have NVIDIA's format")
    name = meta.get("class_name")
    return Module(name[:200] if type(name) is str else "", meta["state"])


def resolve_name(module: str, name: str) -> Any:
    """The replacement for a name in such a file; None for unknown names. Raises FormatError for names of a known but
    unsupported format."""
    if meaning := _MEANINGS.get((module, name)):
        return meaning
    if program := _UNSUPPORTED.get(module.partition(".")[0]):
        raise FormatError(f"it is a checkpoint of {program}, which is not supported")
    if f"{module}.{name}" in _SETTINGS:
        return Settings
    module, name = _SAME.get(f"{module}.{name}", (_renamed(module), name))
    found = resolve_writer_name(module, name)
    if found or module.startswith(_PLAIN_MODULES):
        return _NetworkClass(found) if type(found) is str else found or _AnyClass(f"{module}.{name}")
    return name if module == "torch" and name in _TYPES else resolve_tensorflow_name(module, name)


def _renamed(module: str) -> str:
    """Today's name of a module of R3GAN; its published models were saved under an earlier one."""
    if module == "training.networks_baseline":
        return "training.networks"
    return f"R3GAN.{module[12:]}" if module.startswith("BaselineGAN.") else module


_PLAIN_MODULES = ("torch.nn.modules.", "R3GAN.")  # whose objects, saved by reference to their class, are data
_TYPES = ("float32", "float16", "bfloat16", "float64")
_MEANINGS = {
    PERSISTENT: _reconstruct_persistent,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda tensor, *_: tensor,
    ("torch.storage", "_load_from_bytes"): load_storage,
    ("torch", "Size"): lambda size=(): size,
}
_SAME = {  # names of the same meaning: those of Python 2, which torch.save writes, and dictionaries
    "__builtin__.set": ("builtins", "set"),
    "__builtin__.dict": ("builtins", "dict"),
    "collections.defaultdict": ("builtins", "dict"),
    "easydict.EasyDict": ("builtins", "dict"),
}


def resolve_any_class(module: str, name: str) -> Any:
    return resolve_name(module, name) or _AnyClass(f"{module}.{name}")


def read_tree(
    file: Part,
) -> Any:
    """The object that was saved, with tensors that are read on demand. Raises PickleError and FormatError."""
    head = Part(file.file).read(9)
    if is_safetensors(head):
        return read_safetensors(Part(file.file))
    if head.startswith(b"PK\3\4"):
        return read_zip(Part(file.file), resolve_any_class)
    if is_legacy(Part(file.file)):
        return read_legacy(Part(file.file), resolve_any_class)
    return read_pickle(Part(file.file), resolve_name, lazy_bytes=True)


@dataclass
class Contents:
    """Everything in a file that may belong to a network, by its path: G_ema.synthesis.b4.const."""

    tensors: dict[str, Loadable] = field(default_factory=dict)
    modules: dict[str, Module] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)  # of everything in the file
    length: int = 0  # of all paths, in characters

    def add(self, value: Any, path: str = "") -> None:
        """Raises PickleError if there is more than any network has."""
        self.paths.append(path)
        self.length += len(path)
        if len(self.paths) > _MAX_ENTRIES or self.length > _MAX_LENGTH:
            raise PickleError("it contains more objects than any network")
        children: Any = ()
        if isinstance(value, Module):
            self.modules[path] = value
            children = (value.tensors | value.modules).items()
        elif isinstance(value, dict):
            children = [(key, child) for key, child in value.items() if type(key) is str]
        elif type(value) in (list, tuple) and len(value) <= _MAX_SEQUENCE:
            children = [(str(i), child) for i, child in enumerate(value)]
        elif is_tensor(value):
            self.tensors[path] = value
        for key, child in children:
            if len(key) <= _MAX_KEY:
                self.add(child, f"{path}.{key}" if path else key)

    def under(self, prefix: str) -> dict[str, Loadable]:
        """The tensors whose paths start with a prefix, without it."""
        return {path.removeprefix(prefix): t for path, t in self.tensors.items() if path.startswith(prefix)}
