"""The mapping network f: Z -> W (Karras et al. 2019, section 2).

w = fc(... fc([normalise(z), normalise(embed(c))]))
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..layers import EqualLinear, normalize_2nd_moment


class MappingNetwork(nn.Module):
    def __init__(
        self,
        z_dim: int,  # 0: from the label alone, as the discriminator does
        c_dim: int,  # classes, 0 = none
        w_dim: int,
        num_layers: int,
        num_ws: int | None,  # how often w is repeated; None: [N, w_dim] comes out, and no mean is kept
        labels: str = "embed",  # 'embed': each normalised, then concatenated; 'concat': the other way round
        lr_multiplier: float = 0.01,
        w_avg_beta: float = 0.995,  # decay of the running mean of w
        truncated: int | None = None,  # how many ws truncation changes, where it is not said; None: all
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.labels, self.w_avg_beta = num_layers, labels, w_avg_beta
        self.truncated = truncated
        self.collecting = False  # whether forward passes add to the sum of w
        self._w_sum: Tensor | None = None  # [w_dim]; stays where it is once it is there: CUDA graphs know its address
        embed_dim = w_dim if labels == "embed" else z_dim
        if c_dim > 0:
            self.embed = EqualLinear(c_dim, embed_dim, bias=labels == "embed")
        features = [z_dim + (embed_dim if c_dim > 0 else 0)] + [w_dim] * num_layers
        for i in range(num_layers):
            layer = EqualLinear(features[i], features[i + 1], act="lrelu", lr_multiplier=lr_multiplier)
            self.add_module(f"fc{i}", layer)
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,  # [N, z_dim]
        c: Tensor | None = None,  # [N, c_dim] one-hot; None for an unconditional network
        truncation_psi: float = 1.0,  # 1: none, 0: always the mean
        truncation_cutoff: int | None = None,  # truncate only the first so many ws; None: as the network has it, or all
    ) -> Tensor:  # [N, num_ws, w_dim], or [N, w_dim] if num_ws is None
        x = self._input(z, c)
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        if self.num_ws is None:
            return x
        if self.collecting:
            total = x.detach().sum(0)
            self._w_sum = torch.zeros_like(total) if self._w_sum is None else self._w_sum
            self._w_sum.add_(total)
        ws = x[:, None].repeat(1, self.num_ws, 1)
        return self.truncate(ws, truncation_psi, truncation_cutoff)

    def truncate(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        psi: float,
        cutoff: int | None = None,
    ) -> Tensor:  # [N, num_ws, w_dim]
        """The truncation trick: w_avg + psi (w - w_avg) for the first `cutoff` ws (Karras et al. 2019, appendix B)."""
        if psi == 1:
            return ws
        cutoff = self.truncated if cutoff is None else cutoff
        head = torch.lerp(self.w_avg.to(ws.dtype), ws[:, :cutoff], psi)
        return head if cutoff is None else torch.cat([head, ws[:, cutoff:]], dim=1)

    @torch.no_grad()
    def track_w_avg(
        self,
        w_mean: Tensor,  # [w_dim] mean of a batch's w
    ) -> None:
        """Move the running mean of w towards a batch's."""
        self.w_avg.lerp_(w_mean.to(self.w_avg.dtype), 1 - self.w_avg_beta)

    @torch.no_grad()
    def commit(
        self,
        count: int,  # images over all ranks
        reduce: Callable[[Tensor], Tensor],  # sums over ranks, in place
    ) -> None:
        """Move the running mean of w by what was collected, unless that is not finite."""
        if self._w_sum is not None:
            w_mean = (reduce(self._w_sum) / count).to(self.w_avg.dtype)
            self.track_w_avg(torch.where(w_mean.isfinite().all(), w_mean, self.w_avg))
        self.discard()

    def discard(self) -> None:
        if self._w_sum is not None:
            self._w_sum.zero_()

    def _input(self, z: Tensor | None, c: Tensor | None) -> Tensor:
        if self.c_dim == 0:
            return normalize_2nd_moment(z)
        if c is None:
            raise ValueError(f"this network is conditional: it needs c of shape [N, {self.c_dim}]")
        y = self.embed(c)
        if self.labels == "concat":
            return normalize_2nd_moment(torch.cat([z, y], dim=1))
        y = normalize_2nd_moment(y)
        return y if self.z_dim == 0 else torch.cat([normalize_2nd_moment(z), y], dim=1)
