"""How the numbers of a network lie in memory."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


def laid_out(
    network: N,
) -> N:
    """The same network, its weights [O, I, k, k] as convolutions like them best on most devices: channels last."""
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (PyTorch declares no such argument)
