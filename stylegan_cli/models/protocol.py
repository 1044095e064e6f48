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


class Mapping(Protocol):
    """The network from z to w, with the mean that truncation pulls towards."""

    w_avg: Tensor  # [w_dim]

    def __call__(
        self,
        z: Tensor,  # [N, z_dim]
        c: Tensor | None = None,  # [N, c_dim] one-hot
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,  # only the first so many ws; None: as the network has it, mostly all
    ) -> Tensor: ...  # [N, num_ws, w_dim]

    def truncate(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        psi: float,
        cutoff: int | None = None,
    ) -> Tensor: ...  # [N, num_ws, w_dim]

    def track_w_avg(
        self,
        w_mean: Tensor,  # [w_dim] mean of a batch's w
    ) -> None: ...


class Generator(Protocol):
    """A network from latents to pictures in [-1, 1]."""

    config: GeneratorConfig
    num_ws: int
    layers: tuple[LayerInfo, ...]
    mapping: Mapping

    def synthesis(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: Noise = "const",  # or one [N or 1, 1, h, w] for each row of the table that takes noise, in order
        dtype: torch.dtype | None = None,  # half precision for the highest levels; None: none
    ) -> Tensor: ...  # [N, channels, height, width]

    def stored_noise(
        self,
    ) -> list[Tensor]: ...  # [h, w] for each row of the table that takes noise, in order: what 'const' means

    def style_weight(
        self,
        row: LayerInfo,  # of the table
    ) -> Tensor: ...  # [styles, w_dim] of the affine map from w to what modulates this layer
