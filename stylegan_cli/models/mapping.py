"""The mapping network f: Z -> W (Karras et al. 2019, section 2).

w = fc(... fc([normalize(z), normalize(embed(c))]))
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers import EqualLinear, normalize_2nd_moment
from ..layers.statistics import RunningMean
from .config import DirectConfig, StyledConfig

_LARGEST = 1 - 1e-6  # uniform number that has a normal one in float32


class MappingNetwork(RunningMean):
    """Maps z and a label to w. As part of a generator, with `num_ws`, it also keeps the running mean of w."""

    w_avg: Tensor  # [w_dim], with num_ws

    def __init__(
        self,
        z_dim: int,  # 0: the label is the only input, as in the discriminator
        c_dim: int,  # classes, 0 = unconditional
        w_dim: int,
        num_layers: int,
        num_ws: int | None,  # how often w is repeated; None: the output is [N, w_dim], and no mean is kept
        labels: str = "embed",  # 'embed': z and label are normalized, then concatenated; 'concat': the reverse
        lr_multiplier: float = 0.01,
        w_avg_beta: float = 0.995,  # decay of the running mean of w
        truncated: int | None = None,  # default truncation cutoff; None: all ws are truncated
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.labels, self.w_avg_beta = num_layers, labels, w_avg_beta
        self.truncated = truncated
        embed_dim = w_dim if labels == "embed" else z_dim
        if c_dim > 0:
            self.embed = EqualLinear(c_dim, embed_dim, bias=labels == "embed")
        features = [z_dim + (embed_dim if c_dim > 0 else 0)] + [w_dim] * num_layers
        for i in range(num_layers):
            layer = EqualLinear(features[i], features[i + 1], act="lrelu", lr_multiplier=lr_multiplier)
            self.add_module(f"fc{i}", layer)
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    @classmethod
    def of(
        cls,
        config: StyledConfig,
        num_ws: int,
        truncated: int | None = None,  # see __init__
    ) -> MappingNetwork:
        """The mapping network of a generator with styles."""
        return cls(
            config.z_dim,
            config.c_dim,
            config.w_dim,
            config.mapping_layers,
            num_ws,
            labels=config.labels,
            lr_multiplier=config.mapping_lr,
            w_avg_beta=config.w_avg_beta,
            truncated=truncated,
        )

    def forward(
        self,
        z: Tensor | None,  # [N, z_dim]
        c: Tensor | None = None,  # [N, c_dim] one-hot; None for an unconditional network
        truncation_psi: float | Tensor = 1.0,  # 1: no truncation, 0: the mean of w
        truncation_cutoff: int | None = None,  # number of ws to truncate; None: the network's default, or all
    ) -> Tensor:  # [N, num_ws, w_dim], or [N, w_dim] if num_ws is None
        x = self._input(z, c)
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        if self.num_ws is None:
            return x
        self.collect(x)
        ws = x[:, None].repeat(1, self.num_ws, 1)
        return self.truncate(ws, truncation_psi, truncation_cutoff)

    def invert(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        labels: Tensor | None,  # [L, c_dim] to choose from; None: unconditional
    ) -> tuple[Tensor, Tensor | None]:  # z [N, z_dim] and labels [N, c_dim]
        """Return what is mapped to latents by a network without layers: z, at the length that the normalization of
        both together gave it, and the label whose embedding is closest."""
        assert self.num_layers == 0
        z, label = ws[:, 0].split([self.z_dim, ws.shape[2] - self.z_dim], 1)
        if labels is None:
            return z, None
        embedded = self.embed(labels)
        chosen = (normalize_2nd_moment(label) @ normalize_2nd_moment(embedded).t()).argmax(1)
        return z * (embedded[chosen].norm(dim=1) / label.norm(dim=1))[:, None], labels[chosen]

    def truncate(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        psi: float | Tensor,  # in an exported graph a tensor [], whose value is unknown: no shortcut for 1
        cutoff: int | None = None,
    ) -> Tensor:  # [N, num_ws, w_dim]
        """Truncate the first `cutoff` ws to w_avg + psi (w - w_avg) (Karras et al. 2019, appendix B)."""
        if not isinstance(psi, Tensor) and psi == 1:
            return ws
        cutoff = self.truncated if cutoff is None else cutoff
        head = torch.lerp(self.w_avg.to(ws.dtype), ws[:, :cutoff], psi)
        return head if cutoff is None or cutoff >= ws.shape[1] else torch.cat([head, ws[:, cutoff:]], dim=1)

    def _update(
        self,
        mean: Tensor,  # [w_dim] mean of w over a batch
        count: int,
    ) -> None:
        mean = mean.to(self.w_avg.dtype)
        self.w_avg.lerp_(torch.where((mean - mean == 0).all(), mean, self.w_avg), 1 - self.w_avg_beta)

    def _input(self, z: Tensor | None, c: Tensor | None) -> Tensor:
        if self.c_dim > 0 and c is None:
            raise ValueError(f"this network is conditional: it needs c of shape [N, {self.c_dim}]")
        y = self.embed(c) if self.c_dim > 0 else None
        if z is None or y is None:
            x = z if y is None else y
            assert x is not None
            return normalize_2nd_moment(x)
        if self.labels == "concat":
            return normalize_2nd_moment(torch.cat([z, y], dim=1))
        return torch.cat([normalize_2nd_moment(z), normalize_2nd_moment(y)], dim=1)


class DirectMapping(MappingNetwork):
    """Without layers: w is z, followed by the embedded label, which truncation leaves alone."""

    def __init__(
        self,
        config: DirectConfig,
        embed: nn.Module | None,  # from a label [N, c_dim] to [N, labels]; None: unconditional
        num_ws: int,
        uniform: bool = False,  # whether z is uniform in [-1, 1]: 2 Phi(z) - 1 of normal numbers
    ):
        super().__init__(config.z_dim, 0, config.w_dim, 0, num_ws, w_avg_beta=config.w_avg_beta)
        self.c_dim, self.uniform, self.part = config.c_dim, uniform, config.z_dim
        if embed is not None:
            self.embed = embed

    def _input(self, z: Tensor | None, c: Tensor | None) -> Tensor:
        assert z is not None
        z = torch.erf(z / math.sqrt(2)) if self.uniform else z
        if not self.c_dim:
            return z
        if c is None:
            raise ValueError(f"this network is conditional: it needs c of shape [N, {self.c_dim}]")
        return torch.cat([z, self.embed(c)], 1)

    def invert(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        labels: Tensor | None,  # [L, c_dim] to choose from; None: unconditional
    ) -> tuple[Tensor, Tensor | None]:  # z [N, z_dim], 0 where it has no effect, and labels [N, c_dim]
        z = ws[..., : self.part].flatten(1)
        z = F.pad(z, (0, self.z_dim - z.shape[1]))
        if self.uniform:
            z = math.sqrt(2) * torch.erfinv(z.clamp(-_LARGEST, _LARGEST))
        if labels is None:
            return z, None
        return z, labels[torch.cdist(ws[:, 0, self.part :], self.embed(labels)).argmin(1)]

    def truncate(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        psi: float | Tensor,
        cutoff: int | None = None,
    ) -> Tensor:  # [N, num_ws, w_dim]
        truncated = super().truncate(ws, psi, cutoff)
        return torch.cat([truncated[..., : self.part], ws[..., self.part :]], 2) if self.c_dim else truncated


class PartsMapping(DirectMapping):
    """w_k is part k of z, followed by the embedded label. What z has beyond equal parts has no effect."""

    def __init__(
        self,
        config: DirectConfig,
        embed: nn.Module | None,
        num_ws: int,
        uniform: bool = False,
    ):
        super().__init__(config, embed, num_ws, uniform)
        self.part = config.z_dim // num_ws

    def forward(
        self,
        z: Tensor | None,  # [N, z_dim]
        c: Tensor | None = None,  # [N, c_dim] one-hot; None for an unconditional network
        truncation_psi: float | Tensor = 1.0,  # 1: no truncation, 0: the mean of w
        truncation_cutoff: int | None = None,  # number of ws to truncate; None: all
    ) -> Tensor:  # [N, num_ws, w_dim]
        assert self.num_ws is not None
        x = self._input(z, c)
        parts = x[:, : self.num_ws * self.part].unflatten(1, (self.num_ws, self.part))
        label = x[:, None, self.z_dim :].expand(-1, self.num_ws, -1)
        ws = torch.cat([parts, label], 2)
        self.collect(ws[:, 0])
        return self.truncate(ws, truncation_psi, truncation_cutoff)
