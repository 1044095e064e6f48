"""How the numbers of a network lie in memory."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


def to_memory_format(
    network: N,
    layout: torch.memory_format = torch.channels_last,  # what convolutions like best on most devices
) -> N:
    """The same network, its weights [O, I, k, k] in that order."""
    return network.to(memory_format=layout)  # pyright: ignore[reportCallIssue] (PyTorch declares no such argument)
