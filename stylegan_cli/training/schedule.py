"""Settings that change during a run: the learning rate falls, the gradient penalties get weaker, the moving average
longer, and the augmentation stronger (Huang et al. 2024, "The GAN is dead; long live the GAN!", table 6).

value = end + (start - end) (1 + cos(pi t)) / 2,   t from 0 to 1
"""

from __future__ import annotations

import math
from typing import Any

from .config import TrainConfig
from .engine import Engine

# The settings move at intervals: CUDA graphs contain them, and are captured again.
INTERVAL = 64  # training steps between two moves, or more
MOVES = (16, 256)  # of a schedule, at least and at most


def at(
    start: float,
    end: float,
    t: float,  # 0 to 1
) -> float:
    """The value of a setting."""
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2


class CosineSchedule:
    """A hook of the engine without memory: the number of images shown determines the settings."""

    def __init__(self, config: TrainConfig):
        assert config.schedule is not None
        self.config, self.schedule = config, config.schedule
        steps = config.schedule.kimg * 1000 / config.batch
        self.moves = min(max(math.floor(steps / INTERVAL), MOVES[0]), MOVES[1])
        self._applied: tuple[Any, float] | None = None  # recipe, and t

    def is_due(self, shown: int) -> bool:
        return False

    def before_step(self, engine: Engine[Any]) -> None:
        """Apply the settings of this step, if they have changed."""
        passed = engine.shown / max(self.schedule.kimg * 1000, 1)
        t = math.floor(min(passed, 1.0) * self.moves) / self.moves
        if (engine.recipe, t) != self._applied:  # growing replaces the recipe
            self._apply(engine.recipe, t)
            engine.recapture()
            self._applied = engine.recipe, t

    def _apply(self, recipe: Any, t: float) -> None:
        config, end = self.config, self.schedule
        if end.lr is not None:
            recipe.lr_scale = at(1.0, end.lr, t)
        if end.beta2 is not None:
            recipe.beta2 = at(config.betas[1], end.beta2, t)
        if end.gamma is not None:
            recipe.objective.gamma_scale = at(1.0, end.gamma, t)
        if end.ema_kimg is not None:
            for ema in recipe.averages:
                ema.half_life = at(config.ema_kimg, end.ema_kimg, t) * 1000
        if end.aug_p is not None:
            recipe.objective.p.p.fill_(at(config.aug_p, end.aug_p, t))
        recipe.set_optimizers()

    def after_step(self, engine: Engine[Any]) -> None:
        pass

    def before_restore(self, engine: Engine[Any], state: dict[str, Any]) -> None:
        self._applied = None  # the restored optimizers have the settings of their state

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
