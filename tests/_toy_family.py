"""A family of generators outside the package: `python _toy_family.py ARGUMENTS` runs `sgan ARGUMENTS` with it.

Its generator multiplies features by styles and upsamples them by nearest neighbors. As in alias-free generators, its
layers divide by the running magnitude of their input and have a bandwidth, and its input can be transformed. The whole
family is in this file: a configuration, a layer table, a network, a preset, and one line that registers it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from stylegan_cli.layers import EqualConv2d, EqualLinear
from stylegan_cli.layers.statistics import RunningMean
from stylegan_cli.models.config import LevelsConfig, StyledConfig
from stylegan_cli.models.family import Family
from stylegan_cli.models.generator import Generator, LayerInfo, Synthesis
from stylegan_cli.models.mapping import MappingNetwork
from stylegan_cli.models.presets import Preset
from stylegan_cli.models.registry import FAMILIES


@dataclass(frozen=True)
class ToyConfig(LevelsConfig, StyledConfig):
    family: ClassVar[str] = "toy"
    title: ClassVar[str] = "Toy"

    slope: float = 0.1  # of the activation; a field that no other family has

    @property
    def takes_transform(self) -> bool:
        return True


class ToyLayer(RunningMean):
    def __init__(self, config: ToyConfig, in_channels: int, row: LayerInfo):
        super().__init__()
        self.register_buffer("magnitude", torch.ones([]))
        self.slope = config.slope
        self.conv = EqualConv2d(in_channels, row.channels, 3)
        self.affine = EqualLinear(config.w_dim, row.channels, bias_init=1)
        self.strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(row.height, row.width))

    def forward(self, x, w, noise):  # [N, I, H, W], [N, w_dim], [N or 1, 1, H, W] or None -> [N, O, H, W]
        self.collect(x.detach().float().square().mean([1, 2, 3]))
        x = self.conv(x * self.magnitude.rsqrt().to(x.dtype)) * self.affine(w).to(x.dtype)[:, :, None, None]
        if noise is not None:
            x = x + (noise * self.strength).to(x.dtype)
        return F.leaky_relu(x, self.slope)

    def _update(self, mean, count):
        self.magnitude.lerp_(torch.where(mean.isfinite(), mean, self.magnitude), 0.1)


class ToySynthesis(Synthesis):
    def __init__(self, config: ToyConfig):
        rows = [
            LayerInfo(f"synthesis.l{k}", "conv", k, k, at.height, at.width, at.channels, True, at.half, at.width / 2)
            for k, at in enumerate(config.levels())
        ]
        super().__init__(rows, config.w_dim)
        lowest = config.levels()[0]
        self.const = nn.Parameter(torch.randn(lowest.channels, lowest.height, lowest.width))
        channels = lowest.channels
        for row in self.layers:
            self.add_module(row.path, ToyLayer(config, channels, row))
            channels = row.channels
        self.out = EqualConv2d(channels, config.channels, 1)

    def synthesize(self, ws, noise, dtype, transform):
        x = self.const.expand(len(ws), -1, -1, -1)
        if transform is not None:
            x = F.grid_sample(x, F.affine_grid(transform[:2].expand(len(ws), 2, 3), x.shape), align_corners=False)
        for k, row in enumerate(self.layers):
            x = x.to(dtype if dtype is not None and row.half else ws.dtype)
            x = F.interpolate(x, scale_factor=2) if k else x
            x = self.get_submodule(row.path)(x, ws[:, row.w_index], noise[row.name])
        return self.out(x.to(torch.promote_types(x.dtype, torch.float32)))


def build(config: ToyConfig) -> Generator:
    synthesis = ToySynthesis(config)
    return Generator(config, synthesis, MappingNetwork.of(config, synthesis.num_ws))


SIZES = {"batch": 8, "channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8, "kimg": 0.032, "snap": 0.016}
PRESET = Preset("a toy", **SIZES, generator={"slope": 0.3})
FAMILIES["toy"] = Family(ToyConfig, build, {"toy": PRESET})

if __name__ == "__main__":
    from stylegan_cli.cli import main

    sys.exit(main())
