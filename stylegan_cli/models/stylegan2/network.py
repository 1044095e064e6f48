"""StyleGAN2 generator (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", figures 2, 7)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ...layers import EqualConv2d, EqualLinear, FourierInput, ModulatedConv2d, ToRGB, batched_styles
from ...layers.initial import normal
from ...ops import fir_filter, has_kernels
from ..config import Level
from ..generator import Generator, LayerInfo, Synthesis
from ..mapping import MappingNetwork
from .config import StyleGAN2Config


def layer_table(
    config: StyleGAN2Config,
) -> tuple[LayerInfo, ...]:
    """Two convolutions per level, one at the lowest level, and the toRGBs of the architecture."""
    rows: list[LayerInfo] = []
    levels, w_index = config.levels(), 0
    for k, level in enumerate(levels):
        at, size = f"synthesis.b{level.name}", (level.height, level.width)
        last = level is levels[-1]
        for name in ("conv0", "conv1") if k else ("conv1",):
            rows.append(LayerInfo(f"{at}.{name}", "conv", w_index, k, *size, level.channels, config.noise, level.half))
            w_index += 1
        if last or config.architecture == "skip":  # shares its latent with the next level's first convolution
            group = k if last else k + 1
            rows.append(LayerInfo(f"{at}.torgb", "torgb", w_index, group, *size, config.channels, False, level.half))
    return tuple(rows)


class Block(nn.Module):
    """The modules of one level: at the lowest level the input, else conv0; conv1; and depending on the architecture
    a toRGB and a shortcut."""

    def __init__(
        self,
        config: StyleGAN2Config,
        level: Level,
        below: Level | None,  # None at the lowest
        has_torgb: bool,
    ):
        super().__init__()
        convolution = functools.partial(
            ModulatedConv2d,
            out_channels=level.channels,
            w_dim=config.w_dim,
            height=level.height,
            width=level.width,
            fir=config.fir,
            clamp=config.conv_clamp,
            noise=config.noise,
        )
        size = level.channels, level.height, level.width
        if below is not None:
            self.conv0 = convolution(below.channels, up=2)
        elif config.input == "const":
            self.const = nn.Parameter(normal(*size))
        else:  # up to 2 cycles, all that 4 samples can have (Karras et al. 2021, section 3.1)
            self.input = FourierInput(*size, rate=4, cutoff=2.0, sides=(level.width / 4, level.height / 4))
        self.conv1 = convolution(level.channels)
        if has_torgb:
            self.torgb = ToRGB(level.channels, config.channels, config.w_dim, clamp=config.conv_clamp)
        if below is not None and config.architecture == "resnet":
            self.skip = EqualConv2d(below.channels, level.channels, 1, bias=False, up=2, fir=config.fir)
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", fir_filter(config.fir), persistent=False)

    def forward(
        self,
        ws: Tensor,  # [N, num_ws, w_dim], of which the number is read
        transform: Tensor | None,  # [3, 3] or [N, 3, 3]
    ) -> Tensor:  # [N, channels, height, width]
        """The input of the lowest level."""
        if hasattr(self, "input"):
            return self.input(ws, transform)
        return self.const.expand(ws.shape[0], -1, -1, -1)


class SynthesisNetwork(Synthesis):
    def __init__(self, config: StyleGAN2Config):
        super().__init__(layer_table(config), config.w_dim)
        self.is_residual = config.architecture == "resnet"
        self.is_chain = not self.is_residual
        with_torgb = {row.name for row in self.layers if row.kind == "torgb"}
        below = None
        for level in config.levels():
            name = f"b{level.name}"
            self.add_module(name, Block(config, level, below, f"synthesis.{name}.torgb" in with_torgb))
            below = level

    def synthesize(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: dict[str, Tensor | None],  # [N or 1, 1, h, w] by the name of each layer that takes noise
        dtype: torch.dtype | None,
        transform: Tensor | None,
    ) -> Tensor:  # [N, channels, height, width]
        each_w = ws.unbind(1)  # its gradient is a single operation
        x, image = self.get_submodule("b4")(ws, transform), None
        styles = self._styles(each_w) if isinstance(ws, Tensor) and has_kernels(ws.device) else {}
        shortcut = None  # 'resnet': from the level below, added after conv1
        for row in self.layers:
            place, _, name = row.path.rpartition(".")
            block, layer, w = self.get_submodule(place), self.get_submodule(row.path), each_w[row.w_index]
            assert isinstance(block, Block)
            if row.name in styles:
                layer = functools.partial(layer, style=styles[row.name])
            if row.kind == "torgb":
                image = layer(x, w, below=image, f=block.resample_filter)
                continue
            x = x.to(dtype if dtype is not None and row.half else ws.dtype)
            if name == "conv0" and self.is_residual:
                shortcut = block.skip(x, gain=math.sqrt(0.5))
            if shortcut is None or name == "conv0":
                x = layer(x, w, noise.get(row.name))
            else:
                x = shortcut + layer(x, w, noise.get(row.name), gain=math.sqrt(0.5))
        assert image is not None  # the highest level has a toRGB
        return image

    def _styles(self, ws: Sequence[Tensor]) -> dict[str, Tensor]:  # by name of the layer
        affines = [self.get_submodule(f"{row.path}.affine") for row in self.layers]
        styles = batched_styles(cast(list[EqualLinear], affines), [ws[row.w_index] for row in self.layers])
        return dict(zip((row.name for row in self.layers), styles, strict=True))


class StyleGAN2(Generator):
    def __init__(self, config: StyleGAN2Config):
        synthesis = SynthesisNetwork(config)
        super().__init__(config, synthesis, MappingNetwork.of(config, synthesis.num_ws))


build = StyleGAN2  # for `family.lazy_build`
