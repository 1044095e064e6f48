"""What a run writes into its folder and shows on the terminal, on the first rank.

config.json  log.txt  stats.jsonl  metric-<name>.jsonl  snapshot-<kimg>.safetensors  best.safetensors,
and the images that the recipe draws, once (reals.png) and at every snapshot (fakes-<kimg>.png).
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from tqdm import tqdm

from ..config import to_json
from ..data.images import save_image
from ..files import atomic_path, wait_for_space, write_atomic
from ..runs import read_metrics, snapshot_name
from .engine import Engine
from .pace import Pace
from .recipe import Report, RunConfig
from .stats import RunLog

BEST = "best.safetensors"
T = TypeVar("T")


class Recorder:
    """Has a memory of its own: the seconds that the run took so far, the best value of its first metric, and what the
    recipe's report remembers."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        engine: Engine[Any],
        report: Report,
        quiet: bool,
        stop: Callable[[], bool],  # true: wait no longer for room on a full disk
    ):
        self.config, self.folder, self.engine, self.report = config, folder, engine, report
        self.quiet, self._stop = quiet, stop
        self.seconds, self.best = 0.0, None
        settings = json.dumps({"recipe": config.recipe, **to_json(config)}, indent=2) + "\n"
        self._write(lambda: write_atomic(folder / "config.json", settings))
        for name, image in report.stills().items():
            self._save_image(image, f"{name}.png")

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._elapsed(), "best": self.best, **self.report.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds, self.best = state["seconds"], state["best"]
        self.report.load_state_dict(state)

    def begin(self) -> None:
        """The clock runs, from where the engine stands."""
        shown = self.engine.shown
        self.began = self._last = time.monotonic()
        self._last_at = shown
        self.pace = Pace(round(self.config.kimg * 1000), round(self.config.snap * 1000), self.began, shown)
        self.log = self._write(lambda: RunLog(self.folder, shown / 1000, self._write))
        self.bar = tqdm(
            total=self.config.kimg,
            initial=shown / 1000,
            unit="kimg",
            disable=True if self.quiet else None,  # None: off when stderr is no terminal
            bar_format="{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total:g} kimg [{elapsed}{postfix}]",
        )

    def step(self) -> None:
        self.pace.step(time.monotonic(), self.engine.shown)
        self.bar.update(self.engine.shown / 1000 - self.bar.n)

    def paused(
        self,
        seconds: float,  # that were spent on anything but steps
    ) -> None:
        self.pace.pause(seconds)
        self._last += seconds

    def line(self, means: dict[str, float]) -> None:
        """One line of stats.jsonl and of log.txt, and what the bar shows."""
        now, shown = time.monotonic(), self.engine.shown
        sec_per_kimg = (now - self._last) / max(shown - self._last_at, 1) * 1000
        self._last, self._last_at = now, shown
        values = {"kimg": shown / 1000, "seconds": self._elapsed(), "sec_per_kimg": sec_per_kimg, **means}
        values |= self.report.values()
        values["guard/skipped"] = skipped = int(self.engine.guard.skipped)
        self.log.stats(values)
        losses = self.report.summary(values) + (f"   {skipped} steps skipped" if skipped else "")
        seconds = self.pace.remaining(shown)
        left = "?" if seconds is None else _duration(seconds)
        left = f">{left}" if self.report.slows_down else left
        self.bar.set_postfix_str(f"left {left}, {sec_per_kimg:.1f} sec/kimg, {losses}")
        self.say(f"kimg {self._kimg():>8}   sec/kimg {sec_per_kimg:6.1f}   left {left:>8}   loss {losses}", in_bar=True)

    def say(
        self,
        line: str,
        in_bar: bool = False,  # a bar shows the same already
    ) -> None:
        """To the log, and to the terminal unless it is to be quiet."""
        if not (in_bar and not self.bar.disable):
            self._print(line)
        self.log.text(line)

    def draw(self) -> None:
        """What the model draws now."""
        kimg, drawn = self.engine.shown / 1000, self.report.draw()
        for name, image in drawn.images.items():
            file = snapshot_name(kimg).replace("snapshot", name).replace(".safetensors", ".png")
            self._save_image(image, file)
            self.log.image(name, image, kimg)
        self.log.stats({"kimg": kimg, **drawn.values})
        self.bar.set_description_str(drawn.alarm and drawn.alarm + " ")
        if drawn.warning:
            self.say(drawn.warning)

    def end_of_stage(self) -> None:
        """Before the networks change, and at the end of the run."""
        sentence = self._write(lambda: self.report.end_of_stage(self.folder, self._kimg()))
        if sentence:
            self.say(sentence)

    def snapshot(self) -> Path:
        """The model as it is now, and what it draws."""
        kimg = self.engine.shown / 1000
        path = self.folder / snapshot_name(kimg)
        self._write(lambda: self.report.save(path, kimg))
        self.draw()
        return path

    def metrics(
        self,
        values: dict[str, float],  # by name; the first decides which snapshot is the best
        snapshot: Path,
        higher_is_better: bool,  # of the first
    ) -> None:
        kimg = self.engine.shown / 1000
        name, value = next(iter(values.items()))
        before = [v for _, v in read_metrics(self.folder).get(name, [])]
        best = not before or (value > max(before) if higher_is_better else value < min(before))
        for name, value in values.items():
            self.log.metric(name, value, kimg, snapshot.name)
            self.say(f"kimg {kimg:8.1f}   {name} {value:.4g}")
        if best:
            name, value = next(iter(values.items()))
            self.best = {"metric": name, "value": value, "kimg": kimg}
            self._write(lambda: _copy(snapshot, self.folder / BEST))

    def close(self) -> None:
        if hasattr(self, "bar"):
            self.bar.close()
            self.log.close()

    def _write(self, write: Callable[[], T]) -> T:
        """On a full disk training waits until it is not."""
        return wait_for_space(write, f"what is written to {self.folder}", self._print, self._stop)

    def _save_image(self, image: Tensor, file: str) -> None:
        self._write(lambda: save_image(image, self.folder / file))

    def _print(self, line: str) -> None:
        if not self.quiet:
            tqdm.write(line, file=sys.stderr)

    def _kimg(self) -> str:
        return f"{self.engine.shown / 1000:.{1 if self.config.kimg >= 1 else 3}f}"

    def _elapsed(self) -> float:
        return self.seconds + (time.monotonic() - self.began)


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds:02d}s"
