"""The remaining time of a run. The current time is passed in, so that nothing here depends on a clock."""

from __future__ import annotations

import math

_WINDOW = 60.0  # seconds over which the pace is averaged
_STEPS = 16  # minimum number of steps to average: steps with regularizers are several times slower
_MAX_STEP_RATIO = 16  # times the mean; longer steps (kernel compilation, suspended machine) are clipped to it
_FADE = 0.5  # weight of all earlier pauses relative to the last one


class Pace:
    """The recent pace of training steps, and of the pauses that occur every `snap` images."""

    def __init__(
        self,
        total: int,  # images at the end of the run
        snap: int,  # images between pauses
        now: float,  # seconds on a monotonic clock
        shown: int = 0,  # images before the first step, in a resumed run
    ):
        self.total, self.snap = total, max(snap, 1)
        self._last, self._shown, self._paused_at = now, shown, shown
        self._steps = self._batch = 0
        self._seconds = self._images = 0.0  # decaying sums over recent steps
        self._paused, self._pauses = 0.0, 1.0  # decaying sums over pauses
        self._estimated = True  # whether they are a first estimate

    def step(
        self,
        now: float,
        shown: int,  # images, including this step
    ) -> None:
        """Record the end of a training step. If `shown` has not grown, the run was rolled back."""
        seconds, images = max(now - self._last, 0.0), shown - self._shown
        self._last, self._shown = now, shown
        if images <= 0:
            self._paused_at = min(self._paused_at, shown)
            return
        self._steps, self._batch = self._steps + 1, images
        mean = self._batch * self._seconds / max(self._images, 1)
        if self._steps <= 2 or (self._steps <= _STEPS and mean > _MAX_STEP_RATIO * seconds > 0):
            self._seconds = self._images = 0.0  # the steps before were loading, compiling, allocating
        else:
            seconds = min(seconds, max(_MAX_STEP_RATIO * mean, 1.0))
        keep = math.exp(-min(seconds / _WINDOW, 1 / _STEPS))
        self._seconds = keep * self._seconds + seconds
        self._images = keep * self._images + self._batch

    def pause(
        self,
        seconds: float,  # for a snapshot or metrics
    ) -> None:
        """Record a pause since the last step. Before the first step, it is an estimate of later pauses."""
        self._last += seconds
        if self._shown != self._paused_at:
            fade = 0.0 if self._estimated else _FADE
            self._paused, self._pauses = fade * self._paused, fade * self._pauses + 1
            self._paused_at, self._estimated = self._shown, False
        self._paused += seconds

    @property
    def sec_per_kimg(self) -> float | None:
        """Seconds of training per thousand images, without pauses. None before the second step."""
        return 1000 * self._seconds / self._images if self._steps > 1 else None

    def remaining(
        self,
        shown: int,  # images so far
    ) -> float | None:
        """Seconds to the end of the run, including pauses. None before the second step."""
        if self._steps < 2:
            return None
        left = max(self.total - shown, 0)
        return left * self._seconds / self._images + self._pauses_left(shown) * self._paused / self._pauses

    def _pauses_left(self, shown: int) -> int:
        """Number of pauses left: at each multiple of `snap`, at the end of the run, and now if one is due."""
        multiples = -(-self.total // self.snap) - shown // self.snap
        steps = -(-(self.total - shown) // self._batch)
        due = shown // self.snap > self._paused_at // self.snap or shown >= self.total > self._paused_at
        return max(min(multiples, steps), 0) + due
