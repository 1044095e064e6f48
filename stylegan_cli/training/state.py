"""The state protocol: whatever has memory offers state_dict and load_state_dict, and the engine keeps a list of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


def gather(
    parts: Mapping[str, Stateful],  # name -> what has memory
) -> dict[str, dict[str, Any]]:
    """The state of everything, by name: the tensors themselves, so copy them before the next step."""
    return {name: part.state_dict() for name, part in parts.items()}


def restore(
    parts: Mapping[str, Stateful],
    state: dict[str, dict[str, Any]],  # what `gather` gave; optimizers may keep its tensors, so use it once
) -> None:
    """Raises KeyError if a part's state is missing, before anything is loaded: a run that forgets its optimizer is not
    a resumed run. What no part asks for is left alone: older states hold more."""
    if missing := sorted(parts.keys() - state.keys()):
        raise KeyError(f"no state for {', '.join(missing)}")
    for name, part in parts.items():
        part.load_state_dict(state[name])
