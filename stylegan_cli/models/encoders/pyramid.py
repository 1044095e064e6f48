"""A residual pyramid from an image to the latents of any generator with styles.

Features are computed from the image down to the lowest level, and passed up again to the level of each latent (Lin et
al. 2017, "Feature Pyramid Networks"; Richardson et al. 2021, pSp, section 3). There they are reduced to the lowest
size once per level; one linear layer per latent follows.

    w_i = mean of W + deviation of W * (common(x) + head_i(x))
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import base_size, check_choice
from ...layers import EqualConv2d, EqualLinear
from ..config import DiscriminatorConfig, GeneratorConfig, ImageConfig, LevelsDiscriminatorConfig, field_names
from ..generator import LayerInfo
from ..levels_discriminator import DiscriminatorBlock

_LONGEST = 256  # pixels of the longer side that an encoder sees; larger images are averaged to it
_HIGHEST = 4  # number of halvings from the level of the finest latents to the lowest level
_FIR = (1.0, 1.0)  # averages pixels
_WIDTHS = ("channel_base", "channel_max")


@dataclass(frozen=True)
class EncoderConfig(ImageConfig):
    """An encoder of the images of one generator."""

    w_dim: int = 512  # dimension of a latent w
    levels: tuple[int, ...] = ()  # for each latent, the level that it is computed from: 0 is the lowest
    inputs: int = 3  # channels that the encoder sees: those of the image, or of what a task makes of it
    space: str = "w+"  # 'w+': a latent for each style; 'w': the same for all; 'z': one for the mapping network
    passes: int = 1  # number of passes; from the second on, the encoder also sees the image of its latents so far
    channel_base: int = 16384  # feature maps on the way down, as in the discriminator: min(base / level, max)
    channel_max: int = 512
    pyramid_channels: int = 64  # feature maps on the way up
    reduced_channels: int = 32  # feature maps that the linear layers see

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("space", self.space, ("w", "w+", "z"))
        sizes = (self.w_dim, self.channel_max, self.pyramid_channels, self.reduced_channels)
        self._check(1 <= min(sizes) <= max(sizes) <= 65536, "a number of channels")
        self._check(1 <= self.inputs <= 1024, "inputs")
        self._check(1 <= self.passes <= 100, "passes")
        self._check(self.space != "z" or (len(self.levels), self.passes) == (1, 1), "the space z")
        highest = base_size(self.height, self.width, 0)[2]
        self._check(1 <= len(self.levels) <= 256, "the number of levels")
        self._check(0 <= min(self.levels) <= max(self.levels) <= highest, "levels")
        self.trunk()  # reports a channel base that is too small

    def trunk(self) -> LevelsDiscriminatorConfig:
        """The network on the way down: that of a discriminator of the size that the encoder sees."""
        shrink = 2**self.halvings
        return LevelsDiscriminatorConfig(
            height=self.height // shrink,
            width=self.width // shrink,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
            mbstd_channels=0,
        )

    @property
    def feature_channels(self) -> list[int]:
        """Of the features of `PyramidEncoder.forward`."""
        levels, up = self.trunk().levels(), max(self.levels) + 1
        return [self.pyramid_channels] * up + [level.channels for level in levels[up:]]

    @property
    def halvings(self) -> int:
        """How often an image is halved before the first layer."""
        return max(math.ceil(math.log2(max(self.height, self.width) / _LONGEST)), 0)


def encoder_config(
    generator: GeneratorConfig,
    layers: Sequence[LayerInfo],  # of the generator
    **options: int | str,  # other fields of EncoderConfig
) -> EncoderConfig:
    """An encoder for a generator. Each latent is computed from features as large as those of the layer that it
    controls, up to half the size of the image and 16 times the size of the lowest level."""
    lowest, _, highest = base_size(generator.height, generator.width, 0)
    size = {"height": generator.height, "width": generator.width, "channels": generator.channels}
    options = {**size, "w_dim": generator.w_dim, "inputs": generator.channels, **options}
    config = EncoderConfig(levels=(0,), **options)  # pyright: ignore[reportArgumentType]
    limit = max(min(highest - config.halvings - 1, _HIGHEST), 0)
    rows = {row.w_index: row for row in reversed(layers)}  # the first layer of each latent
    levels = [min(max(round(math.log2(rows[i].height / lowest)), 0), limit) for i in sorted(rows)]
    return dataclasses.replace(config, levels=tuple(levels))


def z_encoder_config(
    generator: GeneratorConfig,
    discriminator: DiscriminatorConfig,  # whose channels it has
    outputs: int = 1,  # numbers that it predicts for each of z
) -> EncoderConfig:
    """An encoder to z."""
    return EncoderConfig(
        height=generator.height,
        width=generator.width,
        channels=generator.channels,
        w_dim=generator.z_dim * outputs,
        levels=(0,),
        inputs=generator.channels,
        space="z",
        **{name: getattr(discriminator, name) for name in _WIDTHS if name in field_names(discriminator)},
    )


class PyramidEncoder(nn.Module):
    """The modules on the way down have the names of a discriminator's, so that they can start from its weights."""

    def __init__(
        self,
        config: EncoderConfig,
    ):
        super().__init__()
        self.config, trunk = config, config.trunk()
        lowest, *above = trunk.levels()
        self.down = [f"b{level.name}" for level in reversed(above)]  # from the image to the lowest level
        for level, below in zip(above, [lowest, *above[:-1]], strict=True):
            self.add_module(f"b{level.name}", DiscriminatorBlock(trunk, level, below, has_fromrgb=False))
        inputs = config.inputs + (config.channels if config.passes > 1 else 0)
        self.fromrgb = EqualConv2d(inputs, trunk.levels()[-1].channels, 1, act="lrelu")
        width, reduced = config.pyramid_channels, config.reduced_channels
        channels = [level.channels for level in trunk.levels()]
        self.lateral = nn.ModuleList(EqualConv2d(c, width, 1) for c in channels[: max(config.levels) + 1])
        self.reduce = nn.ModuleDict({str(k): _reduction(k, width, reduced) for k in sorted({0, *config.levels})})
        features = reduced * lowest.height * lowest.width
        self.common = EqualLinear(features, config.w_dim)
        heads = [EqualLinear(features, config.w_dim) for _ in (config.levels if config.space == "w+" else ())]
        for head in heads:
            nn.init.zeros_(head.weight)  # all latents start alike
        self.heads = nn.ModuleList(heads)
        self.input_size, self.input_channels = (config.height, config.width), inputs
        self.passes, self.iterative = config.passes, config.passes > 1
        self.latent_avg: Tensor
        self.deviation: Tensor  # of W
        self.register_buffer("latent_avg", torch.zeros(len(config.levels), config.w_dim))
        self.register_buffer("deviation", torch.ones(config.w_dim))

    def start_from(
        self,
        D: nn.Module,  # the model's discriminator
    ) -> None:
        """Load the discriminator's weights where their names and shapes match."""
        own, state = self.state_dict(), D.state_dict()
        names = {name: name for name in own} | {
            f"fromrgb.{x}": f"{self.down[0]}.fromrgb.{x}" for x in ("weight", "bias")
        }
        for name, source in names.items():
            if source in state and state[source].shape == own[name].shape:
                own[name].copy_(state[source])

    def forward(
        self,
        x: Tensor,  # [N, inputs, height, width], with several passes [N, inputs + channels, height, width]; in [-1, 1]
        seen: list[Tensor] | None = None,  # receives the features of each level, the lowest first: on the way up if the
        # level is on it, else on the way down
    ) -> Tensor:  # [N, num_ws, w_dim] difference of the latents from those so far
        if self.config.halvings:
            x = F.avg_pool2d(x, 2**self.config.halvings)
        x = self.fromrgb(x)
        features = [x]  # from the highest level
        for name in self.down:
            features.append(self.get_submodule(name)(features[-1], None, x.dtype, {})[0])
        reduced, up = {}, None
        for k, lateral in enumerate(self.lateral):
            y = lateral(features[-1 - k])
            up = y if up is None else y + F.interpolate(up, scale_factor=2, mode="bilinear")
            if seen is not None:
                seen.append(up)
            if str(k) in self.reduce:
                reduced[k] = self.reduce[str(k)](up).flatten(1)
        if seen is not None:
            seen += features[::-1][len(seen) :]
        common = self.common(reduced[0])
        if not len(self.heads):
            return (common * self.deviation)[:, None].expand(-1, len(self.config.levels), -1)
        own = [common + head(reduced[k]) for head, k in zip(self.heads, self.config.levels, strict=True)]
        return torch.stack(own, 1) * self.deviation


def first_outputs(
    E: PyramidEncoder,  # of the space z
    count: int,
) -> PyramidEncoder:
    """An encoder that predicts the first numbers only: z, without its variance."""
    if count == E.config.w_dim:
        return E
    result = PyramidEncoder(dataclasses.replace(E.config, w_dim=count))
    rows = ("common.weight", "common.bias", "deviation")
    state = {name: x[:count] if name in rows else x for name, x in E.state_dict().items()}
    result.load_state_dict(state | {"latent_avg": E.latent_avg[:, :count]})
    return result


class MappedEncoder(nn.Module):
    """An encoder to z and the generator's mapping network: together an encoder to W."""

    latent_avg: Tensor

    def __init__(
        self,
        E: PyramidEncoder,  # of the space z
        mapping: nn.Module,
        num_ws: int,
        w_dim: int,
    ):
        super().__init__()
        self.E, self.mapping = E, mapping
        self.input_size, self.input_channels, self.passes, self.iterative = E.input_size, E.input_channels, 1, False
        self.register_buffer("latent_avg", torch.zeros(num_ws, w_dim))

    def forward(
        self,
        x: Tensor,  # [N, channels, height, width] in [-1, 1]
    ) -> Tensor:  # [N, num_ws, w_dim]
        return self.mapping(self.E(x)[:, 0])


def _reduction(
    halvings: int,
    channels: int,
    reduced: int,  # channels of the result
) -> nn.Sequential:
    """From the features of a level to the lowest size."""
    down = (EqualConv2d(reduced, reduced, 3, act="lrelu", down=2, fir=_FIR) for _ in range(halvings))
    return nn.Sequential(EqualConv2d(channels, reduced, 3, act="lrelu"), *down)
