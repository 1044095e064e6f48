"""Writes the files of a run folder and prints progress, on the first rank.

config.json  log.txt  stats.jsonl  metric-<name>.jsonl  snapshot-<kimg>.safetensors  best.safetensors,
and the images of the recipe's report: once (reals.png) and at every snapshot (fakes-<kimg>.png).
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
from ..errors import printable
from ..files import atomic_path, wait_for_space, write_atomic
from ..runs import read_metrics, snapshot_name, unit_of
from ..runs.history import HISTORY, Changes, changed_settings, extend_history, read_history
from .engine import Engine
from .pace import Pace
from .recipe import Report, RunConfig
from .stats import RunLog

BEST = "best.safetensors"
T = TypeVar("T")


class Recorder:
    """Logs and saves a run. Its state: the seconds that the run has taken so far, the best value of the first metric,
    and the state of the recipe's report."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        engine: Engine[Any],
        report: Report,
        quiet: bool,
        stop: Callable[[], bool],  # true: stop waiting for disk space
    ):
        self.config, self.folder, self.engine, self.report = config, folder, engine, report
        self.quiet, self._stop = quiet, stop
        self.seconds, self.best = 0.0, None

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._elapsed(), "best": self.best, **self.report.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds, self.best = state["seconds"], state["best"]
        self.report.load_state_dict(state)

    def record_settings(
        self,
        about: dict[str, Any] | None,  # of the state that the run continues from; None: a new run
    ) -> Changes:  # since that state
        """Write config.json, with the changes of the settings, and the images that do not depend on the model."""
        for name in ("log.txt", "stats.jsonl"):  # a run that cannot be logged is refused before anything changes
            self._write(lambda name=name: open(self.folder / name, "ab").close())
        now = to_json(self.config)
        changes = changed_settings(about["config"], now) if about else {}
        history = extend_history(read_history(self.folder), about["kimg"], changes) if about else []
        settings = {"recipe": self.config.recipe, **now, **({HISTORY: history} if history else {})}
        self._write(lambda: write_atomic(self.folder / "config.json", json.dumps(settings, indent=2) + "\n"))
        for name, image in self.report.fixed_images().items():
            self._save_image(image, f"{name}.png")
        return changes

    def start(self) -> None:
        """Open the logs and start timing from the engine's current position."""
        shown = self.engine.shown
        self.started = self._last_time = time.monotonic()
        self._last_shown = shown
        self.pace = Pace(round(self.config.kimg * 1000), round(self.config.snap * 1000), self.started, shown)
        self.log = self._write(lambda: RunLog(self.folder, shown / 1000, self._write))
        self.bar = tqdm(
            total=self.config.kimg,
            initial=shown / 1000,
            unit="kimg",
            disable=True if self.quiet else None,  # None: off unless stderr is a terminal
            bar_format="{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total:g} kimg [{elapsed}{postfix}]",
        )

    def step(self) -> None:
        self.pace.step(time.monotonic(), self.engine.shown)
        self.bar.update(self.engine.shown / 1000 - self.bar.n)

    def add_pause(
        self,
        seconds: float,  # spent on anything but steps
    ) -> None:
        self.pace.pause(seconds)
        self._last_time += seconds

    def log_progress(self, means: dict[str, float]) -> None:
        """Write a line to stats.jsonl and log.txt, and update the progress bar."""
        now, shown = time.monotonic(), self.engine.shown
        sec_per_kimg = (now - self._last_time) / max(shown - self._last_shown, 1) * 1000
        self._last_time, self._last_shown = now, shown
        values = {"kimg": shown / 1000, "seconds": self._elapsed(), "sec_per_kimg": sec_per_kimg, **means}
        values |= self.report.values()
        values["guard/skipped"] = skipped = int(self.engine.guard.skipped)
        self.log.stats(values)
        losses = self.report.summary(values) + (f"   {skipped} steps skipped" if skipped else "")
        seconds = self.pace.remaining(shown)
        left = "?" if seconds is None else _duration(seconds)
        left = f">{left}" if self.report.slows_down else left
        self.bar.set_postfix_str(f"left {left}, {sec_per_kimg:.1f} sec/kimg, {losses}")
        line = f"kimg {self._kimg():>8}   sec/kimg {sec_per_kimg:6.1f}   left {left:>8}   loss {losses}"
        self.log_message(line, in_bar=True)

    def log_message(
        self,
        line: str,
        in_bar: bool = False,  # whether the progress bar shows the same
    ) -> None:
        """Write a line to the log, and print it unless the run is quiet."""
        line = printable(line)
        if not (in_bar and not self.bar.disable):
            self._print(line)
        self.log.text(line)

    def save_samples(self) -> None:
        """Save and log images that the model generates now."""
        kimg, samples = self.engine.shown / 1000, self.report.make_samples()
        for name, image in samples.images.items():
            file = snapshot_name(kimg).replace("snapshot", name).replace(".safetensors", ".png")
            self._save_image(image, file)
            self.log.image(name, image, kimg)
        self.log.stats({"kimg": kimg, **samples.values})
        self.bar.set_description_str(samples.short_warning and samples.short_warning + " ")
        if samples.warning:
            self.log_message(samples.warning)

    def end_stage(self) -> None:
        """Call before the recipe is replaced, and at the end of the run."""
        sentence = self._write(lambda: self.report.end_stage(self.folder, self._kimg()))
        if sentence:
            self.log_message(sentence)

    def save_snapshot(self) -> Path:
        """Save the model and samples."""
        kimg = self.engine.shown / 1000
        path = self.folder / snapshot_name(kimg)
        self._write(lambda: self.report.save(path, kimg))
        self.save_samples()
        return path

    def log_metrics(
        self,
        values: dict[str, float],  # name -> value; the first determines the best snapshot
        snapshot: Path,
        higher_is_better: bool | None,  # for the first metric; None: no snapshot is best
    ) -> None:
        kimg = self.engine.shown / 1000
        name, value = next(iter(values.items()))
        previous = [v for _, v in read_metrics(self.folder).get(name, [])]
        is_best = higher_is_better is not None and (
            not previous or (value > max(previous) if higher_is_better else value < min(previous))
        )
        for name, value in values.items():
            self.log.metric(name, value, kimg, snapshot.name)
            self.log_message(f"kimg {kimg:8.1f}   {name} {value:.4g}{unit_of(name)}")
        if is_best:
            name, value = next(iter(values.items()))
            self.best = {"metric": name, "value": value, "kimg": kimg}
            self._write(lambda: _copy(snapshot, self.folder / BEST))

    def close(self) -> None:
        if hasattr(self, "bar"):
            self.bar.close()
            self.log.close()

    def _write(self, write: Callable[[], T]) -> T:
        """Write; while the disk is full, wait."""
        return wait_for_space(write, f"the files in {self.folder}", self._print, self._stop)

    def _save_image(self, image: Tensor, file: str) -> None:
        self._write(lambda: save_image(image, self.folder / file))

    def _print(self, line: str) -> None:
        if not self.quiet:
            tqdm.write(line, file=sys.stderr)

    def _kimg(self) -> str:
        return f"{self.engine.shown / 1000:.{1 if self.config.kimg >= 1 else 3}f}"

    def _elapsed(self) -> float:
        return self.seconds + (time.monotonic() - self.started)


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds:02d}s"
