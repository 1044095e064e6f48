"""Networks as TensorFlow's pickles hold them, whichever StyleGAN it is: dictionaries with their source, which stays
unread, their arguments, their parts and their variables. Dense weights are [in, out], those of convolutions
[k, k, in, out].
"""

from __future__ import annotations

import re
from typing import Any

import torch

from ..pickled import PickleError
from .foreign import FormatError, Loadable, Made, shape_of
from .tensors import Array, plain_name

_LEVELS = 10  # above the lowest, at most


class Network:
    """A network as its state; its source is not looked at."""

    def __init__(self, *_: Any):
        self.state: dict = {"variables": []}

    def set_state(self, state: Any) -> None:
        if not isinstance(state, dict) or not isinstance(state.get("variables"), list):
            raise PickleError("a network of it has another form than TensorFlow's StyleGANs")
        self.state = state

    @property
    def version(self) -> int:
        found = self.state.get("version")
        return found if type(found) is int else 0

    @property
    def arguments(self) -> dict[str, Any]:
        found = self.state.get("static_kwargs")
        return found if isinstance(found, dict) else {}

    def variables(self, *parts: str) -> dict[str, Loadable]:
        """By their names, those of its parts too."""
        pairs = [pair for pair in self.state["variables"] if type(pair) in (tuple, list) and len(pair) == 2]
        found = {name: _loadable(value) for name, value in pairs if type(name) is str}
        components = self.state.get("components")
        components = components if isinstance(components, dict) else {}
        for part in parts:
            if isinstance(component := components.get(part), Network):
                found |= {f"{part}/{name}": value for name, value in component.variables().items()}
        return {name: value for name, value in found.items() if value is not None}


def known(module: str, name: str) -> Any:
    """What a name in such a pickle means. Raises FormatError for those of a format that is known and not read."""
    if (module, name) == ("dnnlib.tflib.network", "Network"):
        return Network
    if (module, name) == ("tfutil", "Network"):
        raise FormatError("it is a progressive GAN of 2017, which is not read here")
    return plain_name(module, name)


class Arguments:
    """What a network was built with, where its variables don't tell."""

    def __init__(self, network: Network):
        self.values = network.arguments

    def must(self, **wanted: Any) -> None:
        for name, value in wanted.items():
            found = self.values.get(name, value)
            if type(found) is not type(value) or found != value:
                said = found[:40] if type(found) is str else "another"
                raise FormatError(f"its {name} is {said}, which ours has not")

    def number(self, name: str, otherwise: float | None, none: float | None = None) -> float | None:
        """`none` is what None means."""
        value = self.values.get(name, otherwise)
        value = none if value is None else value
        if value is not None and (type(value) not in (int, float) or not 0 <= value < 1e6):
            raise PickleError(f"its {name} is no number that makes sense")
        return None if value is None else float(value)

    def whole(self, name: str, otherwise: int | None) -> int | None:
        value = self.number(name, otherwise)
        return None if value is None else int(value)

    def taps(self, name: str, otherwise: list[float], none: tuple[float, ...]) -> tuple[float, ...]:
        """`none` is what None means."""
        taps = self.values.get(name, otherwise)
        if taps is None:
            return none
        if type(taps) not in (list, tuple) or not all(type(t) in (int, float) for t in taps):
            raise PickleError(f"its {name} is no filter that makes sense")
        return tuple(float(t) for t in taps)


def mapping_of(weights: dict[str, Loadable], told: Arguments) -> dict[str, Any]:
    """What the configuration says about the mapping network, w and labels. Raises PickleError and FormatError."""
    told.must(mapping_nonlinearity="lrelu", normalize_latents=True)
    label = next((n for n in ("LabelEmbed", "LabelConcat") if f"mapping/{n}/weight" in weights), None)
    c_dim, embedded = shape_of(weights, f"mapping/{label}/weight", 2) if label else (0, 0)
    w_dim, layers = shape_of(weights, "dlatent_avg", 1)[0], count_of(weights, r"mapping/Dense\d+/bias")
    widths = {shape_of(weights, f"mapping/Dense{i}/bias", 1)[0] for i in range(layers)}
    if widths != {w_dim} or (label == "LabelEmbed" and embedded != w_dim):
        raise FormatError("its mapping network has layers of several widths, which ours has not")
    return {
        "z_dim": shape_of(weights, "mapping/Dense0/weight", 2)[0] - embedded,
        "c_dim": c_dim,
        "w_dim": w_dim,
        "mapping_layers": layers,
        "mapping_lr": told.number("mapping_lrmul", 0.01),
        "labels": "concat" if label == "LabelConcat" else "embed",
        "w_avg_beta": told.number("dlatent_avg_beta", 0.995, none=1.0),
    }


def levels_of(weights: dict[str, Loadable], pattern: str) -> list[int]:
    """8, 16 ... up to the image's."""
    found = sorted(int(m[1]) for name in weights if (m := re.fullmatch(pattern, name)) and len(m[1]) < 6)
    found = [level for level in found if level > 4]
    if not found or len(found) > _LEVELS or found != [8 << k for k in range(len(found))]:
        raise PickleError("its networks have no levels 8x8, 16x16 ...")
    return found


def count_of(weights: dict[str, Loadable], pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, name)) for name in weights)


def _loadable(value: Any) -> Loadable | None:
    if type(value) in (int, float):
        return Made((), lambda size: torch.full(size, float(value)))
    return value if isinstance(value, Array) else None
