"""A training run in its folder: started or resumed, guarded, saved, and stopped cleanly."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from .. import distributed
from ..config import to_json
from ..errors import SganError, plural
from ..files import remove_leftovers
from ..runs import lock_run
from ..runs.commands import train_command
from ..runs.history import Changes, describe_changes
from ..runs.records import read_config
from .engine import Engine
from .folders import FAILURE, claim_folder, keep_copy, record_failure, refuse_other_recipe
from .guard import MAX_ROLLBACKS, MAX_STREAK
from .recipe import Report, RunConfig
from .recorder import Recorder
from .state import gather
from .state_files import StateWriter, list_states, load_newest, read_state
from .stopping import StopFlag, stop_on_interrupt


class Measure(Protocol):
    """Metrics, passed in by the command. Called on all ranks, with `metric_network` and `metric_data` of the recipe."""

    @property
    def higher_is_better(self) -> bool | None:
        """Whether higher values of the first metric are better; None: no snapshot is best."""
        ...

    def __call__(self, network: Any, data: Any, device: torch.device, /) -> dict[str, float]: ...


@dataclass(frozen=True)
class RunOptions:
    """How a run is executed; has no effect on the result."""

    quiet: bool = False  # no progress bar and no log on stderr
    graphs: bool = True  # use CUDA graphs, on CUDA
    profile: int = 0  # number of steps to profile
    measure: Measure | None = None  # called at every snapshot
    runs: str = "./runs"  # where new run folders are created


_INEXACT = (
    "Networks, optimizers, augmentation and moving averages continue, so the first steps are not exact: the averages "
    "are still those of the previous settings."
)

C = TypeVar("C", bound=RunConfig)


def prepare_rank(
    device: str,  # 'cpu' or 'cuda'; each rank uses its own GPU
    folder: Path | None,  # of the run; None: a new one
    runs: str,  # where it is created
    name: str,  # of the new folder without its number
) -> tuple[torch.device, Path]:
    """Select this rank's GPU, and agree on a folder with the other ranks."""
    selected = torch.device(device)
    if selected.index is not None:
        torch.cuda.set_device(selected)
    torch.backends.cudnn.benchmark = True  # shapes do not change
    if folder is None:
        folder = Path(distributed.broadcast_text(str(claim_folder(runs, name)) if distributed.rank() == 0 else None))
    return selected, folder


def run_training(
    config: C,
    folder: Path,  # of the run; resumed if it contains a state
    device: torch.device,
    build: Callable[[bool], Engine[Any]],  # called with whether there is a state to resume
    report: Callable[[Engine[Any], C], Report],  # called on the first rank
    options: RunOptions,
) -> None:
    """Train until kimg is reached or the user interrupts. Called on every rank; the first rank writes."""
    with contextlib.ExitStack() as stack:
        if distributed.rank() == 0:
            stack.enter_context(lock_run(folder))
            refuse_other_recipe(folder, config.recipe)
            stack.enter_context(record_failure(folder))
            for path, content_hash in config.needed_files:
                keep_copy(folder, path, content_hash)
        stop = stack.enter_context(stop_on_interrupt(device))
        engine = build(bool(list_states(folder)))
        stack.callback(engine.close)
        run = Run(config, folder, engine, lambda: report(engine, config), options, stop)
        stack.push(run.close)
        run.start()
        run.train()


class Run:
    """An engine with its states on disk and its recorder."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        engine: Engine[Any],
        report: Callable[[], Report],
        options: RunOptions,
        stop: StopFlag,
    ):
        self.config, self.folder, self.engine, self.options, self.stop = config, folder, engine, options, stop
        self.recorder: Recorder | None = None
        self._overdue = False  # a save is waiting for a step that is not skipped
        self._rollback_state: str | None = None  # file name of the state that the last rollback loaded
        if distributed.rank() == 0:
            remove_leftovers(folder)
            self.recorder = Recorder(config, folder, engine, report(), options.quiet, lambda: stop.requested)
            self.writer = StateWriter(folder, notify=self.recorder.log_message)

    def start(self) -> None:
        """Resume from the last state, or write the first one."""
        if self.engine.device.type == "cuda":
            self.engine.fit_memory()
        messages: list[str] = []
        about = self._load(messages.append)
        if self.recorder is not None:
            changes = self.recorder.record_settings(about)
            (self.folder / FAILURE).unlink(missing_ok=True)
            self.recorder.start()
            self._log_start(about, messages, changes)
        if about is None:
            start = time.monotonic()
            self.engine.recipe.prepare_snapshot()
            self._record(lambda r: r.save_samples())
            self._save_state()
            self._record(lambda r: r.add_pause(time.monotonic() - start))

    def train(self) -> None:
        """Run steps until the end; after each, log and save if due."""
        engine, end = self.engine, max(round(self.config.kimg * 1000), 1)
        snap = max(round(self.config.snap * 1000), 1)
        tick = max(min(snap // 8, 4000), self.config.batch)  # images between log lines
        with _profile(self.options.profile, end, engine, self.folder) as step_profiler:
            while engine.shown < end or self._overdue:
                before = engine.shown
                if engine.is_change_due:
                    self._record(lambda r: r.end_stage())
                self._step()
                step_profiler()
                stopping = self.stop.requested_on_any_rank()
                saving = stopping or engine.shown >= end or engine.shown // snap > before // snap or self._overdue
                if saving or engine.shown // tick > before // tick:
                    self._log_and_save(saving, stopping)
                if stopping:
                    break
        if engine.shown >= end:
            self._record(lambda r: r.end_stage())
        if self.recorder is not None:
            self.writer.wait(lambda: self.stop.requested)

    def close(self, kind: type[BaseException] | None = None, *error: object) -> None:
        if self.recorder is not None:
            if kind is not KeyboardInterrupt:  # stop at once, without waiting for a state
                self.writer.close()
            self.recorder.close()

    # ------------------------------------------------------------------------------------------- parts

    def _step(self) -> None:
        try:
            self.engine.step()
        except Exception:
            if self.recorder is not None and self.engine.shown > self._start_shown:
                with contextlib.suppress(Exception):  # report the first error
                    self.recorder.save_snapshot()
            raise
        if self.recorder is not None:
            self.recorder.step()
            if self.writer.blocked:
                start = time.monotonic()
                self.writer.pause_if_blocked(lambda: self.stop.requested)
                self.recorder.add_pause(time.monotonic() - start)

    def _log_and_save(self, saving: bool, stopping: bool) -> None:
        """Log; then roll back if too many steps were skipped in a row, else save if due. Nothing is saved while steps
        are being skipped, as the weights may be invalid."""
        means = self.engine.means.take()  # a collective operation
        self._record(lambda r: r.log_progress(means))
        streak = self.engine.streak
        self._overdue = saving and 0 < streak < MAX_STREAK and not stopping
        if streak >= MAX_STREAK and not stopping:
            self._roll_back()
        elif saving and streak == 0:
            self._save(stopping)
        elif stopping:
            self._log(f"Not saved: the last {plural(streak, 'step')} had to be skipped. Resuming uses the last state.")

    def _save(self, stopping: bool) -> None:
        """Save a snapshot, samples and a state; measure metrics unless the run is being stopped."""
        start = time.monotonic()
        if not distributed.same_on_all_ranks(self.engine.trained_parameters):
            hint = f"Resume from the last state: {train_command(read_config(self.folder))} --resume {self.folder}"
            raise SganError("The ranks have different weights.", hint=hint)
        self.engine.recipe.prepare_snapshot()
        snapshot = self._record(lambda r: r.save_snapshot())
        self._save_state()
        if self.options.measure is not None and not stopping and self.engine.recipe.metric_network is not None:
            self._measure(self.options.measure, snapshot)
        self._record(lambda r: r.add_pause(time.monotonic() - start))

    def _measure(self, measure: Measure, snapshot: Path) -> None:
        """Measure metrics. On one rank an error is only logged; on several it is raised, or the others would wait."""
        try:
            values = measure(self.engine.recipe.metric_network, self.engine.recipe.metric_data, self.engine.device)
        except (SganError, OSError, RuntimeError) as e:
            if distributed.world_size() > 1:
                raise
            self._log(f"The metrics could not be measured: {e}")
        else:
            self._record(lambda r: r.log_metrics(values, snapshot, measure.higher_is_better))

    def _save_state(self) -> None:
        if self.recorder is not None:
            state = gather({**self.engine.stateful, "record": self.recorder})
            about = {"recipe": self.config.recipe, "config": to_json(self.config)}
            about["ranks"] = distributed.world_size()
            self.writer.save(state, about, self.engine.shown, lambda: self.stop.requested)

    def _load(self, notify: Callable[[str], None]) -> dict[str, Any] | None:
        """Restore the newest undamaged state on all ranks. Return its `about`; None if there is no state."""
        newest = load_newest(self.folder, notify) if self.recorder is not None else None
        path = distributed.broadcast_text(str(newest[2]) if newest else "")
        about = None
        if path:
            state, about = newest[:2] if newest else read_state(Path(path))
            self.engine.restore(state)
            self._record(lambda r: r.load_state_dict(state["record"]))
        self._start_shown, self._loaded_state = self.engine.shown, Path(path).name
        return about

    def _roll_back(self) -> None:
        """Return to the last state with half the learning rate. Raises SganError after `MAX_ROLLBACKS` times."""
        engine, kimg, count = self.engine, self.engine.shown / 1000, self.engine.guard.rollbacks + 1
        if count > MAX_ROLLBACKS:
            raise SganError(
                f"Training diverged at kimg {kimg:g}: no finite gradients in {MAX_STREAK} steps in a row, even with "
                f"the learning rate reduced to 1/{2**MAX_ROLLBACKS}.",
                hint=engine.recipe.divergence_advice,
            )
        if self.recorder is not None:
            self.writer.wait(lambda: self.stop.requested)
            self._abandon_failed_state()
        messages: list[str] = []
        about = self._load(messages.append)
        self._rollback_state = self._loaded_state
        engine.recipe.apply_settings(count)
        engine.guard.reset_streaks(count)
        engine.means.clear()
        self._overdue = False
        self._record(lambda r: (r.close(), r.record_settings(about), r.start()))
        for line in messages:
            self._log(line)
        self._log(
            f"No finite gradients in {MAX_STREAK} steps in a row at kimg {kimg:g}. Continuing from kimg "
            f"{engine.shown / 1000:g} with the learning rate divided by {2**count} ({count} of {MAX_ROLLBACKS})."
        )

    def _abandon_failed_state(self) -> None:
        """Rename the state of the last rollback if training fails again after it, so that the previous one is used."""
        states = list_states(self.folder)
        if len(states) > 1 and states[0].name == self._rollback_state:
            states[0].rename(states[0].with_name(states[0].name + ".abandoned"))

    def _log_start(self, about: dict[str, Any] | None, messages: list[str], changes: Changes) -> None:
        """Log how this run starts."""
        engine = self.engine
        for line in messages:
            self._log(line)
        if engine.batch_gpu_halved:
            self._log(f"Not enough memory: reduced --batch-gpu to {engine.recipe.batch_gpu}.")
        new = engine.recipe.new_tensors
        if about is None and new:
            names = ", ".join(new[:6]) + (" ..." if len(new) > 6 else "")
            self._log(f"{len(new)} tensors are newly initialized, as the snapshot has none of their shape: {names}")
        if about is not None:
            self._log(f"Resuming from kimg {about['kimg']:g}.")
        if about is not None and changes:
            self._log(f"Settings changed at kimg {about['kimg']:g}: {describe_changes(changes)}. {_INEXACT}")
        if about is not None and about["ranks"] != distributed.world_size():
            self._log(
                f"Running on {plural(distributed.world_size(), 'rank')} instead of {about['ranks']}: images and random "
                "numbers stay the same, but sums are rounded differently, so results are not bit-exact."
            )

    def _log(self, line: str) -> None:
        if self.recorder is not None:
            self.recorder.log_message(line)

    def _record(self, action: Callable[[Recorder], Any]) -> Any:
        """Call the recorder, if this is the first rank."""
        return None if self.recorder is None else action(self.recorder)


@contextlib.contextmanager
def _profile(
    steps: int,
    end: int,  # of the run, in images
    engine: Engine[Any],
    folder: Path,
) -> Iterator[Callable[[], None]]:
    """Write a trace of some steps to trace.json, after the first steps, which are not typical."""
    if not steps or distributed.rank() != 0:
        yield lambda: None
        return
    activity = torch.profiler.ProfilerActivity
    left = -(-(end - engine.shown) // engine.recipe.batch)  # steps
    wait = max(min(4 * max(phase.interval for phase in engine.recipe.phases), left - steps - 1), 0)
    with torch.profiler.profile(
        activities=[activity.CPU, *([activity.CUDA] if engine.device.type == "cuda" else [])],
        schedule=torch.profiler.schedule(wait=wait, warmup=1, active=steps, repeat=1),
        on_trace_ready=lambda p: p.export_chrome_trace(str(folder / "trace.json")),
    ) as profiler:
        yield profiler.step
