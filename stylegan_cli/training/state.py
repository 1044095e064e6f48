"""The state protocol: stateful parts have state_dict and load_state_dict, and the engine keeps a list of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


def gather(
    parts: Mapping[str, Stateful],  # name -> part
) -> dict[str, dict[str, Any]]:
    """Return the state of each part. The tensors are not copied: copy them before the next step."""
    return {name: part.state_dict() for name, part in parts.items()}


def restore(
    parts: Mapping[str, Stateful],
    state: dict[str, dict[str, Any]],  # from `gather`; optimizers may keep its tensors, so use it once
) -> None:
    """Load the state of each part. Raises KeyError, before loading anything, if a part's state is missing: a run that
    lost its optimizer is not a resumed run. Other entries are ignored, because older states have more of them."""
    if missing := sorted(parts.keys() - state.keys()):
        raise KeyError(f"the state has no entry for {', '.join(missing)}")
    for name, part in parts.items():
        part.load_state_dict(state[name])
