"""The networks in TensorFlow pickles of all StyleGAN versions: dictionaries with source code, which is ignored,
arguments, components and variables. Dense weights are [in, out], convolution weights [k, k, in, out].
"""

from __future__ import annotations

import re
from typing import Any

import torch

from ..pickled import PickleError
from ..tensors import Array, resolve_common_name
from .checkpoint import ComputedTensor, FormatError, Loadable, shape_of

_MAX_LEVELS = 10  # above the lowest


class Network:
    """The state of a network; its source code is ignored."""

    def __init__(self, *_: Any):
        self.state: dict = {"variables": []}

    def set_state(self, state: Any) -> None:
        if not isinstance(state, dict) or not isinstance(state.get("variables"), list):
            raise PickleError("one of its networks does not have the format of the TensorFlow programs")
        self.state = state

    @property
    def version(self) -> int:
        version = self.state.get("version")
        return version if type(version) is int else 0

    @property
    def arguments(self) -> dict[str, Any]:
        arguments = self.state.get("static_kwargs")
        return arguments if isinstance(arguments, dict) else {}

    def variables(self, *component_names: str) -> dict[str, Loadable]:
        """The variables by name, including those of components."""
        pairs = [pair for pair in self.state["variables"] if type(pair) in (tuple, list) and len(pair) == 2]
        variables = {name: _loadable(value) for name, value in pairs if type(name) is str}
        components = self.state.get("components")
        components = components if isinstance(components, dict) else {}
        for component_name in component_names:
            if isinstance(component := components.get(component_name), Network):
                variables |= {f"{component_name}/{name}": value for name, value in component.variables().items()}
        return {name: value for name, value in variables.items() if value is not None}


def resolve_name(module: str, name: str) -> Any:
    """The replacement for a name in such a pickle. Raises FormatError for names of a known but unsupported format."""
    if (module, name) == ("dnnlib.tflib.network", "Network"):
        return Network
    if (module, name) == ("tfutil", "Network"):
        raise FormatError("it is a progressive GAN of 2017, which is not supported")
    return resolve_common_name(module, name)


class Arguments:
    """The arguments of a network, for settings that cannot be inferred from its variables.

    `default` replaces a missing argument, `if_none` replaces None.
    """

    def __init__(self, network: Network):
        self.values = network.arguments

    def require(self, **required: Any) -> None:
        """Raise FormatError if an argument has a different value."""
        for name, value in required.items():
            actual = self.values.get(name, value)
            if type(actual) is not type(value) or actual != value:
                shown = actual[:40] if type(actual) is str else "a different value"
                raise FormatError(f"its {name} is {shown}, which is not supported")

    def get_float(self, name: str, default: float | None, if_none: float | None = None) -> float | None:
        value = self.values.get(name, default)
        value = if_none if value is None else value
        if value is not None and (type(value) not in (int, float) or not 0 <= value < 1e6):
            raise PickleError(f"its {name} is not a valid number")
        return None if value is None else float(value)

    def get_int(self, name: str, default: int | None) -> int | None:
        value = self.get_float(name, default)
        return None if value is None else int(value)

    def get_taps(self, name: str, default: list[float], if_none: tuple[float, ...]) -> tuple[float, ...]:
        taps = self.values.get(name, default)
        if taps is None:
            return if_none
        if type(taps) not in (list, tuple) or not all(type(t) in (int, float) for t in taps):
            raise PickleError(f"its {name} is not a valid filter")
        return tuple(float(t) for t in taps)


def mapping_settings(weights: dict[str, Loadable], arguments: Arguments) -> dict[str, Any]:
    """The settings of the mapping network, w and labels. Raises PickleError and FormatError."""
    arguments.require(mapping_nonlinearity="lrelu", normalize_latents=True)
    label = next((n for n in ("LabelEmbed", "LabelConcat") if f"mapping/{n}/weight" in weights), None)
    c_dim, embedded = shape_of(weights, f"mapping/{label}/weight", 2) if label else (0, 0)
    w_dim, layers = shape_of(weights, "dlatent_avg", 1)[0], count_of(weights, r"mapping/Dense\d+/bias")
    widths = {shape_of(weights, f"mapping/Dense{i}/bias", 1)[0] for i in range(layers)}
    if widths != {w_dim} or (label == "LabelEmbed" and embedded != w_dim):
        raise FormatError("its mapping network has layers of different widths, which is not supported")
    return {
        "z_dim": shape_of(weights, "mapping/Dense0/weight", 2)[0] - embedded,
        "c_dim": c_dim,
        "w_dim": w_dim,
        "mapping_layers": layers,
        "mapping_lr": arguments.get_float("mapping_lrmul", 0.01),
        "labels": "concat" if label == "LabelConcat" else "embed",
        "w_avg_beta": arguments.get_float("dlatent_avg_beta", 0.995, if_none=1.0),
    }


def levels_of(weights: dict[str, Loadable], pattern: str) -> list[int]:
    """The levels 8, 16 ... up to that of the image."""
    levels = sorted(int(m[1]) for name in weights if (m := re.fullmatch(pattern, name)) and len(m[1]) < 6)
    levels = [level for level in levels if level > 4]
    if not levels or len(levels) > _MAX_LEVELS or levels != [8 << k for k in range(len(levels))]:
        raise PickleError("its networks have no levels 8x8, 16x16 ...")
    return levels


def count_of(weights: dict[str, Loadable], pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, name)) for name in weights)


def _loadable(value: Any) -> Loadable | None:
    if type(value) in (int, float):
        return ComputedTensor((), lambda size: torch.full(size, float(value)))
    return value if isinstance(value, Array) else None
