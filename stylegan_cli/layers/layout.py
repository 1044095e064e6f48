"""The memory format of networks."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


def to_memory_format(
    network: N,
    memory_format: torch.memory_format = torch.channels_last,  # the fastest for convolutions on most devices
) -> N:
    """Convert the weights [O, I, k, k] of a network to a memory format."""
    return network.to(memory_format=memory_format)  # pyright: ignore[reportCallIssue] (missing in PyTorch's stubs)
