"""One training run in its folder: what it writes, when, and how it is stopped.

config.json  log.txt  stats.jsonl  reals.png  fakes-<kimg>.png  snapshot-<kimg>.safetensors
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import torch
from tqdm import tqdm

from .. import distributed
from ..config import TrainConfig, to_json
from ..data.dataset import Dataset, open_dataset
from ..data.images import image_grid, save_image, to_uint8
from ..errors import SganError
from ..files import write_atomic
from ..runs import snapshot_name
from ..sampling import counter
from ..sampling.latents import latents_from_seeds
from ..snapshot import SnapshotInfo, load_snapshot, save_snapshot
from .loop import Trainer
from .stats import RunLog


def open_run_data(
    config: TrainConfig,
) -> Dataset:
    """The pictures that a run was configured for. Raises SganError if they are gone or have changed since."""
    spec = config.data
    dataset = open_dataset(spec.path, size=(spec.height, spec.width), mirror=spec.mirror, label=spec.label)
    if dataset.spec.content_hash != spec.content_hash:
        raise SganError(
            f"The pictures in {spec.path} are not those that this run was started with.",
            hint="Start a new run from its weights: sgan train --resume SNAPSHOT --data " + spec.path,
        )
    return dataset


def train(
    config: TrainConfig,
    folder: Path,  # of the run
    device: str,  # 'cpu', 'cuda'
    start: Path | None = None,  # snapshot with the weights to begin with
    shown: int = 0,  # pictures shown before, in a run that goes on
    quiet: bool = False,  # no bar and no log on stderr
) -> None:
    """Train until kimg is reached or the user interrupts, on every rank alike. The first rank writes."""
    trainer = Trainer(config, open_run_data(config), device, load_snapshot(start) if start else None, shown)
    recorder = Recorder(config, folder, trainer, quiet) if distributed.rank() == 0 else None
    try:
        with _stop_on_interrupt() as stop:
            _loop(config, trainer, recorder, stop)
    finally:
        trainer.close()
        if recorder is not None:
            recorder.close()


def _loop(config: TrainConfig, trainer: Trainer, recorder: Recorder | None, stop: list[bool]) -> None:
    end, snap = max(round(config.kimg * 1000), 1), max(round(config.snap * 1000), 1)
    tick = max(min(snap // 8, 4000), config.batch)  # pictures between lines of the log
    first = trainer.shown
    if recorder is not None and first == 0:
        recorder.pictures()
    while trainer.shown < end:
        before = trainer.shown
        try:
            trainer.step()
        except Exception:
            if recorder is not None and before > first:
                with contextlib.suppress(Exception):  # what went wrong first is what the user should read
                    recorder.snapshot()
            raise
        stopped = _any_rank(stop[0], trainer.device)
        done = stopped or trainer.shown >= end
        saving = done or trainer.shown // snap > before // snap
        if saving or trainer.shown // tick > before // tick:
            means = trainer.means.take()  # all ranks together
            _refuse_divergence(means, trainer.shown)
            if recorder is not None:
                recorder.line(means)
        if recorder is not None:
            recorder.advance()
            if saving:
                recorder.snapshot()
        if stopped:
            return


def _refuse_divergence(means: dict[str, float], shown: int) -> None:
    if wrong := [name for name, value in means.items() if not math.isfinite(value)]:
        raise SganError(
            f"Training diverged before kimg {shown / 1000:g}: {wrong[0]} is not finite.",
            hint="Start again from the last snapshot with a lower --lr or a higher --gamma: sgan train --resume FILE",
        )


class Recorder:
    """What a run writes and shows."""

    def __init__(self, config: TrainConfig, folder: Path, trainer: Trainer, quiet: bool):
        self.config, self.folder, self.trainer, self.quiet = config, folder, trainer, quiet
        write_atomic(folder / "config.json", json.dumps(to_json(config), indent=2) + "\n")
        self.log = RunLog(folder)
        self.began, self.began_at = time.monotonic(), trainer.shown
        self._last, self._last_at = self.began, trainer.shown
        count, self.columns = _grid_shape(config.data.height, config.data.width)
        index = counter.integers(config.seed, "reals", torch.arange(count), len(trainer.dataset))
        labels = trainer.dataset.labels(index)
        self.labels = labels.to(trainer.device) if config.data.c_dim else None
        self.z = latents_from_seeds(range(count), config.generator.z_dim).to(trainer.device)
        self.grid_scale = max(1, 64 // config.data.width)
        save_image(image_grid(trainer.dataset.images(index), self.columns, scale=self.grid_scale), folder / "reals.png")
        self.bar = tqdm(
            total=config.kimg,
            initial=trainer.shown / 1000,
            unit="kimg",
            disable=True if quiet else None,  # None: off when stderr is no terminal
            bar_format="{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total:g} kimg [{elapsed}<{remaining}{postfix}]",
        )

    def advance(self) -> None:
        self.bar.update(self.trainer.shown / 1000 - self.bar.n)

    def line(self, means: dict[str, float]) -> None:
        """One line of stats.jsonl and of log.txt, and what the bar shows."""
        now, shown = time.monotonic(), self.trainer.shown
        sec_per_kimg = (now - self._last) / max(shown - self._last_at, 1) * 1000
        rate = (now - self.began) / max(shown - self.began_at, 1)
        self._last, self._last_at = now, shown
        self.log.stats({"kimg": shown / 1000, "seconds": now - self.began, "sec_per_kimg": sec_per_kimg, **means})
        losses = f"G {means.get('loss/G', 0):.2f} D {means.get('loss/D', 0):.2f}"
        if "r1/penalty" in means:
            losses += f" R1 {means['r1/penalty']:.3f}"
        left = _duration(max(self.config.kimg * 1000 - shown, 0) * rate)
        self.bar.set_postfix_str(f"{sec_per_kimg:.1f} sec/kimg, {losses}")
        kimg = f"{shown / 1000:8.1f}" if self.config.kimg >= 1 else f"{shown / 1000:8.3f}"
        self.say(f"kimg {kimg}   sec/kimg {sec_per_kimg:6.1f}   left {left:>8}   loss {losses}")

    def say(self, line: str) -> None:
        self.log.text(line)
        if not self.quiet and self.bar.disable:  # a bar shows the same already
            print(line, file=sys.stderr, flush=True)

    def pictures(self) -> None:
        """The moving average's drawings of the same latents every time."""
        kimg, G = self.trainer.shown / 1000, self.trainer.ema.network
        step = max(1, 2**20 // (self.config.data.height * self.config.data.width))  # about a megapixel at a time
        with torch.no_grad():
            parts = [
                to_uint8(G(z, None if self.labels is None else self.labels[i : i + step])).cpu()
                for i, z in zip(range(0, len(self.z), step), self.z.split(step), strict=True)
            ]
        name = snapshot_name(kimg).replace("snapshot", "fakes").replace(".safetensors", ".png")
        save_image(image_grid(torch.cat(parts), self.columns, scale=self.grid_scale), self.folder / name)

    def snapshot(self) -> None:
        kimg = self.trainer.shown / 1000
        info = SnapshotInfo(
            generator=self.config.generator,
            discriminator=self.config.discriminator,
            data=self.config.data,
            kimg=kimg,
            origin=f"sgan train --cfg {self.config.cfg}",
        )
        save_snapshot(self.folder / snapshot_name(kimg), self.trainer.ema.network, self.trainer.D, info)
        self.pictures()

    def close(self) -> None:
        self.bar.close()
        self.log.close()


def _grid_shape(height: int, width: int) -> tuple[int, int]:
    """How many pictures a grid shows, and in how many columns: about 2 megapixels, 4 to 8 columns."""
    columns = min(max(2048 // width, 4), 8)
    rows = min(max(1536 // height, 3), 8)
    return columns * rows, columns


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds:02d}s"


def _any_rank(flag: bool, device: torch.device) -> bool:
    if distributed.world_size() == 1:
        return flag
    return bool(distributed.sum_over_ranks(torch.tensor(float(flag), device=device)))


@contextlib.contextmanager
def _stop_on_interrupt():
    """Ctrl-C or SIGTERM asks for an orderly stop after the step; a second one stops at once. One of several ranks
    hears of it from the process that started them, by SIGTERM."""
    stop = [False]

    def ask(number: int, frame: FrameType | None) -> None:
        if stop[0]:
            raise KeyboardInterrupt
        stop[0] = True
        if distributed.rank() == 0:
            print("\nStopping after this step; press Ctrl-C again to stop at once.", file=sys.stderr, flush=True)

    numbers = (signal.SIGTERM,) if distributed.world_size() > 1 else (signal.SIGINT, signal.SIGTERM)
    old = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
