"""Transfer of weights and optimizer moments between networks that partly match."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..models.generator import LayerInfo
from .recipe import Phase


def load_matching_tensors(
    network: nn.Module,
    state: dict[str, Tensor],  # state_dict of another network
) -> list[str]:
    """Load all tensors whose names and shapes match. Return the names of the others, which keep their values."""
    own = network.state_dict()
    matching = {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
    network.load_state_dict(matching, strict=False)
    return [name for name in own if name not in matching]


def rename_layers(
    state: dict[str, Tensor],  # state_dict of a generator
    old: Sequence[LayerInfo],  # its layer table
    new: Sequence[LayerInfo],  # that of a generator of the same family
) -> dict[str, Tensor]:
    """Rename the tensors of each layer to the layer in its place in a table of the same length: names may contain sizes
    and channels."""
    if len(old) != len(new):
        return state
    names = {f"{a.name}.": f"{b.name}." for a, b in zip(old, new)}
    prefixes = {name: next((layer for layer in names if name.startswith(layer)), "") for name in state}
    return {names.get(layer, "") + name.removeprefix(layer): state[name] for name, layer in prefixes.items()}


def transfer_moments(old: Phase, new: Phase) -> None:
    """Copy the optimizer moments of the parameters that both networks have."""
    old_parameters = dict(old.network.named_parameters())
    for name, parameter in new.network.named_parameters():
        if name in old_parameters and old_parameters[name] in old.optimizer.state:
            new.optimizer.state[parameter] = old.optimizer.state[old_parameters[name]]
