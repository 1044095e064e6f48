"""StyleGAN2 generator (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", figures 2, 7)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..config import GeneratorConfig, base_size
from ..layers import EqualConv2d, ModulatedConv2d, ToRGB
from ..ops import fir_filter, upsample2d
from .mapping import MappingNetwork
from .protocol import LayerInfo, Noise


class SynthesisBlock(nn.Module):
    """One level: (up) conv0, conv1, and toRGB where the architecture has it; level 4 starts from the constant."""

    def __init__(
        self,
        config: GeneratorConfig,
        level: int,  # nominal resolution 4 * 2^k
        in_channels: int,  # 0 at level 4
        out_channels: int,
        height: int,  # of this level
        width: int,
        last: bool,  # the level of the picture
    ):
        super().__init__()
        self.architecture = config.architecture
        convolution = {"w_dim": config.w_dim, "height": height, "width": width}
        convolution |= {"fir": config.fir, "clamp": config.conv_clamp}
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, height, width))
        else:
            self.conv0 = ModulatedConv2d(in_channels, out_channels, up=2, **convolution)
        self.conv1 = ModulatedConv2d(out_channels, out_channels, **convolution)
        if last or self.architecture == "skip":
            self.torgb = ToRGB(out_channels, config.channels, config.w_dim, clamp=config.conv_clamp)
        if in_channels != 0 and self.architecture == "resnet":
            self.skip = EqualConv2d(in_channels, out_channels, 1, bias=False, up=2, fir=config.fir)
        self.register_buffer("resample_filter", fir_filter(config.fir), persistent=False)

    def forward(
        self,
        x: Tensor | None,  # [N, in_channels, H/2, W/2] features of the level before
        image: Tensor | None,  # [N, channels, H/2, W/2] picture so far
        ws: Iterator[Tensor],  # the latent [N, w_dim] of each layer here, in order
        noise: Iterator[Tensor | None],  # the noise [N or 1, 1, H, W] of each convolution here, in order
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:  # features [N, out_channels, H, W], picture [N, channels, H, W]
        if x is None:
            w = next(ws)
            x = self.const.to(dtype).expand(w.shape[0], -1, -1, -1)
            x = self.conv1(x, w, next(noise))
        elif self.architecture == "resnet":
            x = x.to(dtype)
            y = self.skip(x, gain=math.sqrt(0.5))
            x = self.conv0(x, next(ws), next(noise))
            x = y + self.conv1(x, next(ws), next(noise), gain=math.sqrt(0.5))
        else:
            x = self.conv0(x.to(dtype), next(ws), next(noise))
            x = self.conv1(x, next(ws), next(noise))
        if image is not None:
            image = upsample2d(image, self.resample_filter)
        if hasattr(self, "torgb"):
            rgb = self.torgb(x, next(ws)).to(torch.promote_types(dtype, torch.float32))  # the sum stays precise
            image = rgb if image is None else image + rgb
        return x, image


class SynthesisNetwork(nn.Module):
    def __init__(self, config: GeneratorConfig):
        super().__init__()
        h0, w0, n = base_size(config.height, config.width)
        self.config = config
        self.levels = [4 << k for k in range(n + 1)]
        self.half = set(self.levels[1:][::-1][: config.half_levels])  # never the lowest
        width_at = {level: min(config.channel_base // level, config.channel_max) for level in self.levels}
        rows: list[LayerInfo] = []
        w_index = 0
        for k, level in enumerate(self.levels):
            size = (h0 << k, w0 << k)
            block = SynthesisBlock(
                config, level, width_at[level // 2] if k else 0, width_at[level], *size, last=level == self.levels[-1]
            )
            self.add_module(f"b{level}", block)
            for name in ("conv0", "conv1"):
                if hasattr(block, name):
                    rows.append(
                        LayerInfo(f"synthesis.b{level}.{name}", "conv", w_index, level, *size, width_at[level], True)
                    )
                    w_index += 1
            if hasattr(block, "torgb"):  # shares its latent with the next level's first convolution
                rows.append(
                    LayerInfo(f"synthesis.b{level}.torgb", "torgb", w_index, level, *size, config.channels, False)
                )
        self.layers = tuple(rows)
        self.num_ws = w_index + 1

    def forward(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: Noise = "const",  # or one [N or 1, 1, h, w] for each row of the table that takes noise, in order
        dtype: torch.dtype | None = None,  # half precision for the highest levels; None: none
    ) -> Tensor:  # [N, channels, height, width]
        """Raises ValueError if ws or noise do not fit the layer table."""
        if ws.shape[1:] != (self.num_ws, self.config.w_dim):
            raise ValueError(f"ws must have shape [N, {self.num_ws}, {self.config.w_dim}], not {list(ws.shape)}")
        latents = iter([ws[:, row.w_index] for row in self.layers])
        maps = iter(self._noise(noise, ws))
        x = image = None
        for level in self.levels:
            kind = dtype if dtype is not None and level in self.half else ws.dtype
            x, image = self.get_submodule(f"b{level}")(x, image, latents, maps, kind)
        return image

    def stored_noise(
        self,
    ) -> list[Tensor]:  # [h, w] for each row of the table that takes noise, in order
        """The maps that noise 'const' means."""
        rows = [row for row in self.layers if row.noise]
        return [self.get_submodule(row.name.removeprefix("synthesis.")).noise_const for row in rows]

    def _noise(self, noise: Noise, ws: Tensor) -> list[Tensor | None]:
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


class StyleGAN2(nn.Module):
    """Mapping and synthesis: G(z, c) is a picture in about [-1, 1]. Offers the generator protocol."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        self.synthesis = SynthesisNetwork(config)
        self.layers, self.num_ws = self.synthesis.layers, self.synthesis.num_ws
        self.mapping = MappingNetwork(
            config.z_dim,
            config.c_dim,
            config.w_dim,
            config.mapping_layers,
            self.num_ws,
            labels=config.labels,
            lr_multiplier=config.mapping_lr,
            w_avg_beta=config.w_avg_beta,
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
    ) -> Tensor:  # [in_channels, w_dim]
        """The affine map from w to the layer's styles, as it acts: style = style_weight w + bias."""
        affine = self.get_submodule(row.name).affine
        return affine.weight * affine.weight_gain
