"""Progressive growing (Karras et al. 2018, section 2 and appendix A): which networks a run trains when.

A run goes through stages, each an ordinary configuration of its own: the lowest level; then, for each higher one, a
stage in which it fades in and one in which it is there. Between two stages the networks are built anew and take over
what they share.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor
from torch.nn import functional as F

from ..config import base_size, levels_of
from ..errors import SganError
from .config import TrainConfig
from .engine import Engine
from .presets import PRESETS
from .recipe import Recipe
from .transfer import load_what_fits, take_over_moments

G = TypeVar("G", bound="GrowingRecipe")


class GrowingRecipe(Recipe):
    """One whose networks can be had at several sizes."""

    def at(self: G, config: TrainConfig) -> G:
        """The same with fresh networks, those of another stage."""
        raise NotImplementedError

    def fade(
        self,
        alpha: float,  # how far the highest level has come
    ) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Stage:
    """From image `start` on, until the next stage starts."""

    config: TrainConfig  # networks, images, batch and learning rate of this stage
    level: int  # 4 * 2^k
    start: int  # images
    length: int  # images; of the last stage none that counts


class Growth:
    """The stages of a run, and where it stands. A hook of the engine."""

    def __init__(self, config: TrainConfig):
        """Raises SganError if the schedule does not fit the images, the batch or the length of the run."""
        self.stages = _stages(config)
        self.index = 0

    @property
    def stage(self) -> Stage:
        return self.stages[self.index]

    @property
    def levels(self) -> list[int]:
        return sorted({stage.level for stage in self.stages})

    @property
    def is_last(self) -> bool:
        return self.index + 1 == len(self.stages)

    def is_due(
        self,
        shown: int,  # images so far
    ) -> bool:
        """Whether the next stage is."""
        return not self.is_last and shown >= self.stages[self.index + 1].start

    def alpha(
        self,
        shown: int,
    ) -> float:
        """How far the highest level has faded in."""
        fades = self.stage.config.generator.fades
        return min(max((shown - self.stage.start) / self.stage.length, 0.0), 1.0) if fades else 1.0

    def before_step(self, engine: Engine[GrowingRecipe]) -> None:
        if self.is_due(engine.shown):
            self._grow(engine)
        self.after_step(engine)

    def after_step(self, engine: Engine[GrowingRecipe]) -> None:
        engine.recipe.fade(self.alpha(engine.shown))

    def before_restore(self, engine: Engine[GrowingRecipe], state: dict[str, Any]) -> None:
        if state != self.state_dict():
            self.load_state_dict(state)
            engine.adopt(engine.recipe.at(self.stage.config))

    def state_dict(self) -> dict[str, Any]:
        return {"stage": self.index}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.index = int(state["stage"])

    def _grow(self, engine: Engine[GrowingRecipe]) -> None:
        """On to the next stage, with everything that both know."""
        old, level = engine.recipe, self.stage.level
        self.index += 1
        new = old.at(self.stage.config)
        for name, network in new.networks.items():
            load_what_fits(network, old.networks[name].state_dict())
        for name, part in new.parts.items():
            part.load_state_dict(old.parts[name].state_dict())
        # Where a level is added the optimizers begin anew: their moments tell of another loss. (The papers' code drops
        # them at the end of a fade too, when nothing has changed.)
        if self.stage.level == level:
            for before, after in zip(old.phases, new.phases, strict=True):
                take_over_moments(before, after)
        engine.adopt(new)


def faded_reals(
    images: Tensor,  # [N, C, H, W]
    alpha: float,
) -> Tensor:  # [N, C, H, W]
    """What the discriminator is to see of real images while a level fades in: they lose what fakes cannot have yet.

    alpha x + (1 - alpha) up(down(x))
    """
    if alpha == 1:
        return images
    return F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="nearest").lerp(images, alpha)


def _stages(config: TrainConfig) -> list[Stage]:
    if not (config.generator.grows and config.discriminator.grows):
        raise SganError(
            f"The networks of {config.cfg} do not grow.",
            hint=f"Choose --cfg {' or '.join(name for name, p in PRESETS.items() if p.grow_from)}, or leave out "
            "--grow-from.",
        )
    if config.freezed:
        raise SganError("A discriminator that grows cannot be frozen.", hint="Leave out --freezed.")
    if (growth := config.growth) is None:
        raise ValueError("a run without growth has no stages")
    h0, w0, _ = base_size(config.data.height, config.data.width, 0)
    levels, stages, start = levels_of(config.data.height, config.data.width, growth.start), [], 0
    stable, fade = max(round(growth.stable_kimg * 1000), 1), round(growth.fade_kimg * 1000)
    for i, level in enumerate(levels):
        batch = growth.batch[i] if growth.batch else config.batch
        lr = growth.lr[i] if growth.lr else config.lr
        for fades, length in ((True, fade), (False, stable)):
            if length and not (fades and i == 0):
                size, length = (h0 * level // 4, w0 * level // 4), -(-length // batch) * batch  # of whole batches
                stages.append(Stage(_at(config, size, level, fades, batch, lr), level, start, length))
                start += length
    if stages[-1].start >= config.kimg * 1000:
        kimg = stages[-1].start / 1000
        raise SganError(
            f"Growing reaches {config.data.height}x{config.data.width} at {kimg:g} kimg, and the run ends at "
            f"{config.kimg:g}.",
            hint="Choose a larger --kimg, a smaller --grow-kimg or --fade-kimg, or a higher --grow-from.",
        )
    return stages


def _at(
    config: TrainConfig,  # of the whole run
    size: tuple[int, int],  # (height, width) of this stage
    level: int,
    fade: bool,
    batch: int,
    lr: float,
) -> TrainConfig:
    """The run's settings at another size. What is accumulated stays as many parts."""
    parts = config.batch // config.batch_gpu
    group = config.discriminator.mbstd_group or 1
    if batch % parts or (config.discriminator.mbstd_channels and batch // parts % min(group, batch // parts)):
        raise SganError(
            f"At level {level} a batch of {batch} does not divide into {parts} part(s) of groups of {group} images, "
            f"as that of {config.batch} does.",
            hint="Choose another --grow-batch for this level.",
        )
    height, width = size
    networks = {
        name: dataclasses.replace(getattr(config, name), height=height, width=width, fade=fade)
        for name in ("generator", "discriminator")
    }
    data = config.data
    as_stored = size == (data.source_height, data.source_width)
    data = dataclasses.replace(data, height=height, width=width, filter="none" if as_stored else "box")
    return dataclasses.replace(config, data=data, batch=batch, batch_gpu=batch // parts, lr=lr, **networks)
