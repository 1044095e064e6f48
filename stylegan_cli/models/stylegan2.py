"""StyleGAN2 generator (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", figures 2, 7)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..config import GeneratorConfig, base_size
from ..layers import EqualConv2d, ModulatedConv2d, ToRGB
from ..ops import fir_filter, upsample2d
from .generator import MappedGenerator, Synthesis
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


class SynthesisNetwork(Synthesis):
    def __init__(self, config: GeneratorConfig):
        super().__init__(config)
        h0, w0, n = base_size(config.height, config.width)
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
        latents, maps = iter(self.latents(ws)), iter(self.noise_maps(noise, ws))
        x = image = None
        for level in self.levels:
            kind = dtype if dtype is not None and level in self.half else ws.dtype
            x, image = self.get_submodule(f"b{level}")(x, image, latents, maps, kind)
        return image


class StyleGAN2(MappedGenerator):
    def __init__(self, config: GeneratorConfig):
        super().__init__(config, SynthesisNetwork(config))
