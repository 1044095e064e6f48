"""What one network, and its optimizer, take over from another that is partly of the same shape."""

from __future__ import annotations

from torch import Tensor, nn

from .recipe import Phase


def load_what_fits(
    network: nn.Module,
    state: dict[str, Tensor],  # of another
) -> list[str]:
    """Take over all tensors of the same name and shape; the names of the others, which stay as they are."""
    own = network.state_dict()
    fitting = {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
    network.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def take_over_moments(old: Phase, new: Phase) -> None:
    """What an optimizer knows of the parameters that both networks have."""
    known = dict(old.network.named_parameters())
    for name, parameter in new.network.named_parameters():
        if name in known and known[name] in old.optimizer.state:
            new.optimizer.state[parameter] = old.optimizer.state[known[name]]
