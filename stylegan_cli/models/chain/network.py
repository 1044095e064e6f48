"""Networks of chains of generators.

x_0 = G_0(w_0),   x_k = G_k(w_k, x_{k-1}),   w_k = [part k of z, label]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...ops import downsample2d, fir_filter
from ..config import Level
from ..discriminator import Discriminator
from ..generator import Generator, LayerInfo, Synthesis
from ..mapping import PartsMapping
from .config import ChainConfig, ChainDiscriminatorConfig


class Stage(nn.Module):
    """One generator of a chain."""

    def forward(
        self,
        w: Tensor,  # [N, w_dim]
        below: Tensor | None,  # [N, C, h, w] image of the stage before; None: it is the first
    ) -> Tensor:  # [N, C, H, W]
        raise NotImplementedError

    def style_weight(self) -> Tensor:  # [features, w_dim]
        """The derivative of the first features that depend on w."""
        raise NotImplementedError

    def posterior(
        self,
        c: Tensor,  # [N, c_dim]
    ) -> tuple[Tensor, Tensor] | None:  # [N, D] mean, log variance
        """The distribution of the condition that the stage makes of a label; None: it takes the label as it is."""
        return None


class ChainSynthesis(Synthesis):
    """The output of a row of the layer table is the image of a stage."""

    can_freeze = False

    def __init__(
        self,
        config: ChainConfig,
        make_stage: Callable[[int, Level], Stage],  # from its number and the level of its image
    ):
        self.stages = config.stages
        rows = [
            LayerInfo(f"synthesis.stage{k}", "conv", k, k, at.height, at.width, config.channels, False, False)
            for k, at in enumerate(self.stages)
        ]
        super().__init__(rows, config.w_dim)
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", fir_filter(config.fir), persistent=False)
        for k, level in enumerate(self.stages):
            self.add_module(f"stage{k}", make_stage(k, level))
        self.learns_in_turn = config.learns_in_turn
        if self.learns_in_turn:
            self.alpha: Tensor
            self.register_buffer("alpha", torch.ones([]))  # 0: the last stage has not been trained yet

    def synthesize(
        self,
        ws: Tensor,  # [N, stages, w_dim]
        noise: dict[str, Tensor | None],  # empty
        dtype: torch.dtype | None,
        transform: Tensor | None,
    ) -> Tensor:  # [N, channels, height, width]
        below = self.image(ws, len(self.stages) - 2)
        x = self.stage(len(self.stages) - 1)(ws[:, -1], below)
        if not self.learns_in_turn:
            return x
        return torch.lerp(F.interpolate(below, x.shape[2:], mode="nearest"), x, self.alpha.to(x.dtype))

    def image(
        self,
        ws: Tensor,  # [N, stages, w_dim]
        k: int,
    ) -> Tensor:  # [N, channels, H, W]
        """The image of a stage."""
        x = None
        for i in range(k + 1):
            x = self.stage(i)(ws[:, i], x)
        assert x is not None
        return x

    def stage(self, k: int) -> Stage:
        stage = self.get_submodule(f"stage{k}")
        assert isinstance(stage, Stage)
        return stage

    def shrink(
        self,
        image: Tensor,  # [N, channels, height, width]
        k: int,
    ) -> Tensor:  # [N, channels, H, W]
        """A real image at the size of a stage: blurred and decimated, an octave at a time."""
        while image.shape[2] > self.stages[k].height:
            image = downsample2d(image, self.resample_filter)
        return image

    def style_weight(
        self,
        row: LayerInfo,
    ) -> Tensor:  # [features, w_dim]
        return self.stage(row.w_index).style_weight()


class Chain(Generator):
    synthesis: ChainSynthesis

    def __init__(
        self,
        config: ChainConfig,
        make_stage: Callable[[int, Level], Stage],  # from its number and the level of its image
        uniform: bool = False,  # whether z is uniform, see `DirectMapping`
    ):
        embed = nn.Identity() if config.c_dim else None
        mapping = PartsMapping(config, embed, len(config.stages), uniform)
        super().__init__(config, ChainSynthesis(config, make_stage), mapping)


class StageDiscriminator(Discriminator):
    """The discriminator of one stage. A family implements `hidden` and creates `out`, from features to a logit."""

    out: nn.Module

    def __init__(
        self,
        config: ChainDiscriminatorConfig,
        level: Level,  # of the images
    ):
        super().__init__(config)
        self.level = level

    def hidden(
        self,
        image: Tensor,  # [N, channels, H, W] in [-1, 1]
        c: Tensor | None,  # [N, c_dim]
    ) -> list[Tensor]:  # [N, C, h, w] after each layer
        raise NotImplementedError

    def forward_with_classes(
        self,
        image: Tensor,  # [N, channels, H, W] in [-1, 1]
        c: Tensor | None = None,  # [N, c_dim]
        dtype: torch.dtype | None = None,  # has no effect
    ) -> tuple[Tensor, Tensor | None]:  # [N, 1] logits; None
        self.check_image(image)
        return self.out(self.hidden(image, self.require_labels(c) if self.config.c_dim else None)[-1].flatten(1)), None

    def features(
        self,
        image: Tensor,  # [N, channels, H, W] in [-1, 1]
    ) -> list[Tensor]:  # [N, C, h, w] each, without a label
        self.check_image(image)
        c = image.new_zeros(len(image), self.config.c_dim) if self.config.c_dim else None
        return self.hidden(image, c)

    def check_image(self, image: Tensor) -> None:
        """Raise ValueError if images have another size than those of the stage."""
        channels, height, width = self.config.channels, self.level.height, self.level.width
        if image.shape[1:] != (channels, height, width):
            raise ValueError(f"images must be [N, {channels}, {height}, {width}]")


class ChainDiscriminator(Discriminator):
    """A discriminator for the images of each stage. As a whole it is that of the last one."""

    def __init__(
        self,
        config: ChainDiscriminatorConfig,
        make_stage: Callable[[int, Level], StageDiscriminator],  # from its number and the level of its images
    ):
        super().__init__(config)
        for k, level in enumerate(config.stages):
            self.add_module(f"stage{k}", make_stage(k, level))
        self.last = len(config.stages) - 1
        self.layers = tuple(f"stage{self.last}.{name}" for name in self.stage(self.last).layers)

    def stage(self, k: int) -> StageDiscriminator:
        stage = self.get_submodule(f"stage{k}")
        assert isinstance(stage, StageDiscriminator)
        return stage

    def forward_with_classes(
        self,
        image: Tensor,  # [N, channels, height, width] in [-1, 1]
        c: Tensor | None = None,  # [N, c_dim]
        dtype: torch.dtype | None = None,  # has no effect
    ) -> tuple[Tensor, Tensor | None]:  # [N, 1] logits; None
        return self.stage(self.last).forward_with_classes(image, c)

    def features(
        self,
        image: Tensor,  # [N, channels, height, width] in [-1, 1]
    ) -> list[Tensor]:  # [N, C, h, w] each
        return self.stage(self.last).features(image)
