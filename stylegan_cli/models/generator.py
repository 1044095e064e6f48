"""What the generators of all families share: a mapping and a synthesis network, and noise by the layer table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..config import GeneratorConfig
from .mapping import MappingNetwork
from .protocol import LayerInfo, Noise


class Synthesis(nn.Module):
    """From latents to a picture. A family says how in `forward`, and fills the layer table."""

    layers: tuple[LayerInfo, ...]
    num_ws: int

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config

    def stored_noise(
        self,
    ) -> list[Tensor]:  # [h, w] for each row of the table that takes noise, in order
        """The maps that noise 'const' means."""
        rows = [row for row in self.layers if row.noise]
        return [self.get_submodule(row.name.removeprefix("synthesis.")).noise_const for row in rows]

    def latents(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
    ) -> list[Tensor]:  # [N, w_dim] for each row of the table
        """Raises ValueError if ws do not fit the table."""
        if ws.shape[1:] != (self.num_ws, self.config.w_dim):
            raise ValueError(f"ws must have shape [N, {self.num_ws}, {self.config.w_dim}], not {list(ws.shape)}")
        return [ws[:, row.w_index] for row in self.layers]

    def noise_maps(
        self,
        noise: Noise,
        ws: Tensor,  # [N, num_ws, w_dim] that the picture is made of
    ) -> list[Tensor | None]:  # [N or 1, 1, h, w] for each row of the table that takes noise
        """Raises ValueError if the noise does not fit the table."""
        rows = [row for row in self.layers if row.noise]
        if noise == "none":
            return [None] * len(rows)
        if noise == "random":
            return [ws.new_empty(ws.shape[0], 1, row.height, row.width).normal_() for row in rows]
        if noise == "const":
            return [own[None, None] for own in self.stored_noise()]
        if isinstance(noise, str) or len(noise) != len(rows):
            raise ValueError(f"noise must be 'const', 'random', 'none' or {len(rows)} tensors")
        return list(noise)


class MappedGenerator(nn.Module):
    """Mapping and synthesis: G(z, c) is a picture in about [-1, 1]. Offers the generator protocol."""

    def __init__(
        self,
        config: GeneratorConfig,
        synthesis: Synthesis,
    ):
        super().__init__()
        self.config, self.synthesis = config, synthesis
        self.layers, self.num_ws = synthesis.layers, synthesis.num_ws
        self.mapping = MappingNetwork(
            config.z_dim,
            config.c_dim,
            config.w_dim,
            config.mapping_layers,
            self.num_ws,
            labels=config.labels,
            lr_multiplier=config.mapping_lr,
            w_avg_beta=config.w_avg_beta,
            truncated=config.truncated,
        )

    def forward(
        self,
        z: Tensor,  # [N, z_dim]
        c: Tensor | None = None,  # [N, c_dim] one-hot
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise: Noise = "const",
        dtype: torch.dtype | None = None,
    ) -> Tensor:  # [N, channels, height, width]
        return self.synthesis(self.mapping(z, c, truncation_psi, truncation_cutoff), noise=noise, dtype=dtype)

    def stored_noise(
        self,
    ) -> list[Tensor]:  # [h, w] for each row of the table that takes noise, in order
        """The maps that noise 'const' means."""
        return self.synthesis.stored_noise()

    def style_weight(
        self,
        row: LayerInfo,  # of the table
    ) -> Tensor:  # [styles, w_dim]
        """The affine map from w to the layer's styles, as it acts: style = style_weight w + bias."""
        affine = self.get_submodule(row.name).affine
        return affine.weight * affine.weight_gain

    @contextlib.contextmanager
    def collect_statistics(self) -> Iterator[None]:
        """Within it, forward passes add to the sums that `commit_statistics` moves the running means by."""
        self.mapping.collecting = True
        try:
            yield
        finally:
            self.mapping.collecting = False

    def commit_statistics(
        self,
        count: int,  # images over all ranks
        reduce: Callable[[Tensor], Tensor],  # sums over ranks, in place
    ) -> None:
        """A batch is over: move the running means."""
        self.mapping.commit(count, reduce)

    def discard_statistics(self) -> None:
        """Drop what a batch that will not be finished has added."""
        self.mapping.discard()
