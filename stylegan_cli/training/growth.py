"""Progressive growing (Karras et al. 2018, section 2 and appendix A): which networks a run trains when.

A run goes through stages, each with a complete configuration: one for the lowest level; then, for each higher level,
one in which it fades in and one in which it is stable. Between stages the networks are rebuilt, and matching weights
are copied.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor
from torch.nn import functional as F

from ..config import base_size, levels_of
from ..errors import MisuseError, plural
from .config import TrainConfig
from .engine import Engine
from .presets import PRESETS
from .recipe import Recipe
from .transfer import load_matching_tensors, transfer_moments

G = TypeVar("G", bound="GrowingRecipe")


class GrowingRecipe(Recipe):
    """A recipe whose networks can be built at several sizes."""

    def rebuild(self: G, config: TrainConfig) -> G:
        """Return the recipe with new networks, for another stage."""
        raise NotImplementedError

    def fade(
        self,
        alpha: float,  # weight of the highest level, 0 to 1
    ) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Stage:
    """A stage lasts from image `start` until the next stage starts."""

    config: TrainConfig  # networks, images, batch and learning rate of this stage
    level: int  # 4 * 2^k
    start: int  # images
    length: int  # images; the last stage lasts until the end of the run


class Growth:
    """The stages of a run, and the current one. A hook of the engine."""

    def __init__(self, config: TrainConfig):
        """Check the schedule. Raises SganError if it does not fit the images, the batch or the length of the run."""
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
        """Whether the next stage should start."""
        return not self.is_last and shown >= self.stages[self.index + 1].start

    def alpha(
        self,
        shown: int,  # images so far
    ) -> float:
        """Weight of the highest level while it fades in, 0 to 1."""
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
            engine.replace_recipe(engine.recipe.rebuild(self.stage.config))

    def state_dict(self) -> dict[str, Any]:
        return {"stage": self.index}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.index = int(state["stage"])

    def _grow(self, engine: Engine[GrowingRecipe]) -> None:
        """Start the next stage with the matching weights of the previous one."""
        old, level = engine.recipe, self.stage.level
        self.index += 1
        new = old.rebuild(self.stage.config)
        for name, network in new.networks.items():
            load_matching_tensors(network, old.networks[name].state_dict())
        for name, part in new.parts.items():
            part.load_state_dict(old.parts[name].state_dict())
        # When a level is added, the optimizers start over, because their moments belong to another loss. (The papers'
        # code also drops them at the end of a fade, when nothing has changed.)
        if self.stage.level == level:
            for old_phase, new_phase in zip(old.phases, new.phases, strict=True):
                transfer_moments(old_phase, new_phase)
        engine.replace_recipe(new)


def fade_reals(
    images: Tensor,  # [N, C, H, W]
    alpha: float,
) -> Tensor:  # [N, C, H, W]
    """Blend real images with their lower resolution while a level fades in, because fakes lack the detail too.

    alpha x + (1 - alpha) up(down(x))
    """
    if alpha == 1:
        return images
    return F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="nearest").lerp(images, alpha)


def _stages(config: TrainConfig) -> list[Stage]:
    if not (config.generator.grows and config.discriminator.grows):
        raise MisuseError(
            f"The networks of --cfg {config.cfg} do not support growing.",
            hint=f"Choose --cfg {' or '.join(name for name, p in PRESETS.items() if p.grow_from)}, or remove "
            "--grow-from.",
        )
    if config.freezed:
        raise MisuseError("--freezed cannot be combined with a growing discriminator.", hint="Remove --freezed.")
    if (growth := config.growth) is None:
        raise ValueError("the config has no growth schedule")
    h0, w0, _ = base_size(config.data.height, config.data.width, 0)
    levels, stages, start = levels_of(config.data.height, config.data.width, growth.start), [], 0
    stable, fade = max(round(growth.stable_kimg * 1000), 1), round(growth.fade_kimg * 1000)
    for i, level in enumerate(levels):
        batch = growth.batch[i] if growth.batch else config.batch
        lr = growth.lr[i] if growth.lr else config.lr
        for fades, length in ((True, fade), (False, stable)):
            if length and not (fades and i == 0):
                size, length = (h0 * level // 4, w0 * level // 4), -(-length // batch) * batch  # in whole batches
                stages.append(Stage(_resized(config, size, level, fades, batch, lr), level, start, length))
                start += length
    if stages[-1].start >= config.kimg * 1000:
        kimg = stages[-1].start / 1000
        raise MisuseError(
            f"Growing reaches {config.data.height}x{config.data.width} at {kimg:g} kimg, but the run ends at "
            f"{config.kimg:g} kimg.",
            hint="Choose a larger --kimg, a smaller --grow-kimg or --fade-kimg, or a higher --grow-from.",
        )
    return stages


def _resized(
    config: TrainConfig,  # of the whole run
    size: tuple[int, int],  # (height, width) of this stage
    level: int,
    fade: bool,
    batch: int,
    lr: float,
) -> TrainConfig:
    """Return the run's settings at another size. Batches are accumulated in the same number of parts."""
    parts = config.batch // config.batch_gpu
    group = config.discriminator.batch_group or 1
    if batch % parts or batch // parts % min(group, batch // parts):
        raise MisuseError(
            f"The batch of {batch} at level {level} cannot be divided into {plural(parts, 'part')} "
            f"with minibatch-deviation groups of {group}.",
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
