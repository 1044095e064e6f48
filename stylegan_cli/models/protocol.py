"""What every generator offers, whichever family it is of. Code outside models/ relies on this and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..config import GeneratorConfig

Noise = Literal["const", "random", "none"] | Sequence[Tensor]


@dataclass(frozen=True)
class LayerInfo:
    """One row of the layer table, in the order of computation."""

    name: str  # of the module inside the generator, as in its state_dict
    kind: Literal["conv", "torgb"]
    w_index: int  # which of the num_ws latents controls it
    level: int  # nominal resolution 4 * 2^k of its block
    height: int  # of its output
    width: int
    channels: int  # of its output
    noise: bool  # takes a noise map [N or 1, 1, height, width]


class Generator(Protocol):
    """A network from latents to pictures in [-1, 1]."""

    config: GeneratorConfig
    num_ws: int
    layers: tuple[LayerInfo, ...]

    def mapping(
        self,
        z: Tensor,  # [N, z_dim]
        c: Tensor | None = None,  # [N, c_dim] one-hot
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,  # truncate only the first so many ws; None: all
    ) -> Tensor: ...  # [N, num_ws, w_dim]

    def synthesis(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: Noise = "const",  # or one [N or 1, 1, h, w] for each row of the table that takes noise, in order
        dtype: torch.dtype | None = None,  # half precision for the highest levels; None: none
    ) -> Tensor: ...  # [N, channels, height, width]
