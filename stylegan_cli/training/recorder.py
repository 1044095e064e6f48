"""What a run writes into its folder and shows on the terminal, on the first rank.

config.json  log.txt  stats.jsonl  metric-<name>.jsonl  reals.png  fakes-<kimg>.png
snapshot-<kimg>.safetensors  best.safetensors  phases.png
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..config import to_json
from ..data.codec import to_array
from ..data.images import image_grid, save_image, to_uint8
from ..files import atomic_path, patiently, write_atomic
from ..runs import read_metrics, snapshot_name
from ..sampling import counter
from ..sampling.latents import latents_from_seeds
from ..snapshot import SnapshotInfo, save_snapshot
from ..training.config import TrainConfig
from .collapse import CollapseAlarm
from .loop import Trainer
from .pace import Pace
from .stats import RunLog

BEST = "best.safetensors"
PHASES = "phases.png"  # of a run that grows: a row for each level
T = TypeVar("T")


class Recorder:
    """Has a memory of its own: the seconds that the run took so far, the best value of its first metric, the alarm."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        trainer: Trainer,
        quiet: bool,
        stop: Callable[[], bool],  # true: wait no longer for room on a full disk
    ):
        self.config, self.folder, self.trainer, self.quiet, self._stop = config, folder, trainer, quiet, stop
        self.seconds, self.best = 0.0, None
        self._write(lambda: write_atomic(folder / "config.json", json.dumps(to_json(config), indent=2) + "\n"))
        count, self.columns = _grid_shape(config.data.height, config.data.width)
        index = counter.integers(config.seed, "reals", torch.arange(count), len(trainer.whole))
        labels = trainer.whole.labels(index)
        self.labels = labels.to(trainer.device) if config.data.c_dim else None
        self.z = latents_from_seeds(range(count), config.generator.z_dim).to(trainer.device)
        self.grid_scale = max(1, 64 // config.data.width)
        reals = trainer.whole.images(index)
        self.alarm = CollapseAlarm(reals)
        grid = image_grid(reals, self.columns, scale=self.grid_scale)
        self._write(lambda: save_image(grid, folder / "reals.png"))

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._elapsed(), "best": self.best, "alarm": self.alarm.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds, self.best = state["seconds"], state["best"]
        self.alarm.load_state_dict(state["alarm"])

    def begin(self) -> None:
        """The clock runs, from where the trainer stands."""
        shown = self.trainer.shown
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
        self.pace.step(time.monotonic(), self.trainer.shown)
        self.bar.update(self.trainer.shown / 1000 - self.bar.n)

    def paused(
        self,
        seconds: float,  # that were spent on anything but steps
    ) -> None:
        self.pace.pause(seconds)
        self._last += seconds

    def line(self, means: dict[str, float]) -> None:
        """One line of stats.jsonl and of log.txt, and what the bar shows."""
        now, trainer = time.monotonic(), self.trainer
        shown = trainer.shown
        sec_per_kimg = (now - self._last) / max(shown - self._last_at, 1) * 1000
        self._last, self._last_at = now, shown
        values = {"kimg": shown / 1000, "seconds": self._elapsed(), "sec_per_kimg": sec_per_kimg, **means}
        if self.config.aug in ("ada", "fixed"):
            values |= {"augment/p": float(trainer.objective.p.p), "augment/r_t": float(trainer.objective.p.r_t)}
        values["guard/skipped"] = int(trainer.guard.skipped)
        self.log.stats(values)
        losses = f"G {means.get('loss/G', 0):.2f} D {means.get('loss/D', 0):.2f}"
        for name in ("R1", "R2", "GP"):
            losses += f" {name} {means[key]:.3f}" if (key := f"{name.lower()}/penalty") in means else ""
        losses += f"   p {values['augment/p']:.3f}" if self.config.aug == "ada" else ""
        losses += f"   {values['guard/skipped']} steps skipped" if values["guard/skipped"] else ""
        seconds = self.pace.remaining(shown)
        left = "?" if seconds is None else _duration(seconds)
        left = f">{left}" if trainer.growth and not trainer.growth.is_last else left  # higher levels take longer
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

    def pictures(self) -> None:
        """The moving average's drawings of the same latents every time, and how much they differ."""
        kimg = self.trainer.shown / 1000
        fakes = self._draw()
        grid = image_grid(fakes, self.columns, scale=self.grid_scale)
        name = snapshot_name(kimg).replace("snapshot", "fakes").replace(".safetensors", ".png")
        self._write(lambda: save_image(grid, self.folder / name))
        self.log.pictures(grid, kimg)
        diversity, warning = self.alarm.look(fakes)
        self.log.stats({"kimg": kimg, "diversity": diversity})
        self.bar.set_description_str("COLLAPSING? " if warning else "")
        if warning:
            self.say(warning)

    def stage(self) -> None:
        """The end of a stage of a run that grows: what its level has learnt is a row of phases.png."""
        trainer, growth = self.trainer, self.trainer.growth
        if not trainer.config.generator.fades:
            row = image_grid(self._draw(self.columns), self.columns, scale=self.grid_scale, pad=4)
            self._write(lambda: self._add_row(growth.levels.index(growth.stage.level), row))
        if growth.is_last:
            return
        after = growth.stages[growth.index + 1].config
        how = "fades in" if after.generator.fades else "is there"
        self.say(
            f"kimg {self._kimg():>8}   {after.data.height}x{after.data.width} {how}, "
            f"batch {after.batch}, learning rate {after.lr:g}"
        )

    def snapshot(self) -> Path:
        """The model as it is now, and its pictures."""
        kimg = self.trainer.shown / 1000
        path = self.folder / snapshot_name(kimg)
        self._write(lambda: save_snapshot(path, self.trainer.ema.network, self.trainer.D, self._info(kimg)))
        self.pictures()
        return path

    def metrics(
        self,
        values: dict[str, float],  # by name; the first decides which snapshot is the best
        snapshot: Path,
        higher_is_better: bool,  # of the first
    ) -> None:
        kimg = self.trainer.shown / 1000
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
        return patiently(write, f"what is written to {self.folder}", self._print, self._stop)

    def _print(self, line: str) -> None:
        if not self.quiet:
            tqdm.write(line, file=sys.stderr)

    def _kimg(self) -> str:
        return f"{self.trainer.shown / 1000:.{1 if self.config.kimg >= 1 else 3}f}"

    def _elapsed(self) -> float:
        return self.seconds + (time.monotonic() - self.began)

    def _add_row(
        self,
        place: int,  # rows before it, which the file has; what it has beyond, from a state gone back from, goes
        row: Tensor,  # uint8 [C, h, W], as large as every other
    ) -> None:
        path, rows = self.folder / PHASES, [row]
        if place and path.is_file():
            with Image.open(path) as image:
                rows.insert(0, torch.tensor(to_array(image))[:, : place * row.shape[1]])
        save_image(torch.cat(rows, 1), path)

    def _draw(
        self,
        count: int | None = None,  # of the grid's pictures; None: all
    ) -> Tensor:  # [N, C, H, W] uint8
        """At the size of the whole run, also while the network draws smaller ones."""
        step = max(1, 2**20 // (self.config.data.height * self.config.data.width))  # about a megapixel at a time
        z = self.z[:count]
        labels = [None] * len(z) if self.labels is None else self.labels[:count].split(step)
        with torch.no_grad():
            parts = [to_uint8(self.trainer.ema.network(z, c)).cpu() for z, c in zip(z.split(step), labels)]
        fakes = torch.cat(parts)
        enlarge = self.config.data.height // fakes.shape[2]
        return fakes.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3)

    def _info(self, kimg: float) -> SnapshotInfo:
        config = self.trainer.config
        return SnapshotInfo(
            generator=config.generator,
            discriminator=config.discriminator,
            data=config.data,
            kimg=kimg,
            origin=f"sgan train --cfg {config.cfg}",
        )


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _grid_shape(height: int, width: int) -> tuple[int, int]:
    """How many pictures a grid shows, and in how many columns: about 2 megapixels, 4 to 8 columns."""
    columns = min(max(2048 // width, 4), 8)
    rows = min(max(1536 // height, 3), 8)
    return columns * rows, columns


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds:02d}s"
