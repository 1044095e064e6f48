"""One training run in its folder: begun or gone on with, guarded, saved, and stopped in good order."""

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
from ..errors import SganError
from ..files import remove_leftovers
from ..runs import lock_run
from .engine import Engine
from .folders import failure_told, refuse_other_recipe
from .guard import ROLLBACKS, STREAK
from .recipe import Report, RunConfig
from .recorder import Recorder
from .state import gather
from .state_files import StateWriter, list_states, load_newest, read_state
from .stopping import StopFlag, stop_on_interrupt


class Measure(Protocol):
    """Metrics, handed in by the command. Called on all ranks alike, with what the recipe offers to be measured."""

    @property
    def higher_is_better(self) -> bool:
        """Of the first."""
        ...

    def __call__(self, network: Any, data: Any, device: torch.device, /) -> dict[str, float]: ...


@dataclass(frozen=True)
class RunOptions:
    """How a run proceeds, without a say in what comes out."""

    quiet: bool = False  # no bar and no log on stderr
    graphs: bool = True  # CUDA graphs, on CUDA
    profile: int = 0  # steps to write a trace of
    measure: Measure | None = None  # at every snapshot
    runs: str = "./runs"  # where a run that has no folder yet makes one


C = TypeVar("C", bound=RunConfig)


def run_training(
    config: C,
    folder: Path,  # of the run; where it holds a state, the run goes on from there
    device: torch.device,
    build: Callable[[bool], Engine[Any]],  # told whether there is a state to go on from
    report: Callable[[Engine[Any], C], Report],  # called on the first rank
    options: RunOptions,
) -> None:
    """Train until kimg is reached or the user interrupts, on every rank alike. The first rank writes."""
    with contextlib.ExitStack() as stack:
        if distributed.rank() == 0:
            stack.enter_context(lock_run(folder))
            refuse_other_recipe(folder, config.recipe)
            stack.enter_context(failure_told(folder))
        stop = stack.enter_context(stop_on_interrupt(device))
        engine = build(bool(list_states(folder)))
        stack.callback(engine.close)
        run = Run(config, folder, engine, lambda: report(engine, config), options, stop)
        stack.push(run.close)
        run.begin()
        run.go()


class Run:
    """The engine, what it remembers on disk, and what is recorded of it."""

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
        self._overdue = False  # a save waits for a step that is not skipped
        self._gone_back_to: str | None = None  # name of the state
        if distributed.rank() == 0:
            remove_leftovers(folder)
            self.recorder = Recorder(config, folder, engine, report(), options.quiet, lambda: stop.asked)
            self.writer = StateWriter(folder, say=self.recorder.say)

    def begin(self) -> None:
        """Go on from the last state, or write the first one."""
        if self.engine.device.type == "cuda":
            self.engine.fit_memory()
        said: list[str] = []
        about = self._load(said.append)
        if self.recorder is not None:
            self.recorder.begin()
            self._announce(about, said)
        if about is None:
            began = time.monotonic()
            self._each(lambda r: r.draw())
            self._save_state()
            self._each(lambda r: r.paused(time.monotonic() - began))

    def go(self) -> None:
        """Steps, and what is due after each."""
        engine, end = self.engine, max(round(self.config.kimg * 1000), 1)
        snap = max(round(self.config.snap * 1000), 1)
        tick = max(min(snap // 8, 4000), self.config.batch)  # images between lines of the log
        with _profile(self.options.profile, end, engine, self.folder) as profiled:
            while engine.shown < end or self._overdue:
                before = engine.shown
                if engine.is_to_change:
                    self._each(lambda r: r.end_of_stage())
                self._step()
                profiled()
                stopped = self.stop.heard()
                saving = stopped or engine.shown >= end or engine.shown // snap > before // snap or self._overdue
                if saving or engine.shown // tick > before // tick:
                    self._due(saving, stopped)
                if stopped:
                    break
        if engine.shown >= end:
            self._each(lambda r: r.end_of_stage())
        if self.recorder is not None:
            self.writer.wait(lambda: self.stop.asked)

    def close(self, kind: type[BaseException] | None = None, *error: object) -> None:
        if self.recorder is not None:
            if kind is not KeyboardInterrupt:  # at once: no state is waited for
                self.writer.close()
            self.recorder.close()

    # ------------------------------------------------------------------------------------------- parts

    def _step(self) -> None:
        try:
            self.engine.step()
        except Exception:
            if self.recorder is not None and self.engine.shown > self._began_at:
                with contextlib.suppress(Exception):  # what went wrong first is what the user should read
                    self.recorder.snapshot()
            raise
        if self.recorder is not None:
            self.recorder.step()
            if self.writer.blocked:
                began = time.monotonic()
                self.writer.pause_if_blocked(lambda: self.stop.asked)
                self.recorder.paused(time.monotonic() - began)

    def _due(self, saving: bool, stopped: bool) -> None:
        """A line of the log; where steps keep failing, back to the last state; else what is to be saved. While steps
        are skipped nothing is: the weights may be beyond repair."""
        means = self.engine.means.take()  # all ranks together
        self._each(lambda r: r.line(means))
        streak = self.engine.guard.streak()
        self._overdue = saving and 0 < streak < STREAK and not stopped
        if streak >= STREAK and not stopped:
            self._roll_back()
        elif saving and streak == 0:
            self._save(stopped)
        elif stopped:
            self._say(f"Not saved, as the last {streak} step(s) were skipped: the last state is where the run goes on.")

    def _save(self, stopped: bool) -> None:
        """Snapshot, images, the state to go on from, and metrics unless the user wants an end."""
        began = time.monotonic()
        if not distributed.same_on_all_ranks(self.engine.learning):
            hint = f"Go on from the last state: sgan train --resume {self.folder}"
            raise SganError("The ranks hold different weights.", hint=hint)
        snapshot = self._each(lambda r: r.snapshot())
        self._save_state()
        if self.options.measure is not None and not stopped and self.engine.recipe.product is not None:
            self._measure(self.options.measure, snapshot)
        self._each(lambda r: r.paused(time.monotonic() - began))

    def _measure(self, measure: Measure, snapshot: Path) -> None:
        """A metric that fails is told, and on one rank no reason to stop: the others would wait for each other."""
        try:
            values = measure(self.engine.recipe.product, self.engine.recipe.reals, self.engine.device)
        except (SganError, OSError, RuntimeError) as e:
            if distributed.world_size() > 1:
                raise
            self._say(f"The metrics could not be measured: {e}")
        else:
            self._each(lambda r: r.metrics(values, snapshot, measure.higher_is_better))

    def _save_state(self) -> None:
        if self.recorder is not None:
            state = gather({**self.engine.memory, "record": self.recorder})
            about = {"recipe": self.config.recipe, "config": to_json(self.config)}
            about["ranks"] = distributed.world_size()
            self.writer.save(state, about, self.engine.shown, lambda: self.stop.asked)

    def _load(self, say: Callable[[str], None]) -> dict[str, Any] | None:
        """Put everything where the newest good state says, on all ranks; what the state says of itself."""
        found = load_newest(self.folder, say) if self.recorder is not None else None
        path = distributed.broadcast_text(str(found[2]) if found else "")
        about = None
        if path:
            state, about = found[:2] if found else read_state(Path(path))
            self.engine.restore(state)
            self._each(lambda r: r.load_state_dict(state["record"]))
        self._began_at, self._loaded = self.engine.shown, Path(path).name
        return about

    def _roll_back(self) -> None:
        """To the last state with half the learning rate; too often and the run ends."""
        engine, at, count = self.engine, self.engine.shown / 1000, self.engine.guard.rollbacks + 1
        if count > ROLLBACKS:
            raise SganError(
                f"Training diverged at kimg {at:g}: no finite gradients in {STREAK} steps in a row, also with "
                f"learning rates down to 1/{2**ROLLBACKS}.",
                hint=f"Start again from a snapshot with {engine.recipe.cure}: sgan train --resume FILE",
            )
        if self.recorder is not None:
            self.writer.wait(lambda: self.stop.asked)
            self._abandon_hopeless()
        said: list[str] = []
        self._load(said.append)
        self._gone_back_to = self._loaded
        engine.slow_down(0.5 ** (count - engine.guard.rollbacks))
        engine.guard.forgive(count)
        engine.means.clear()
        self._overdue = False
        self._each(lambda r: (r.close(), r.begin()))
        for line in said:
            self._say(line)
        self._say(
            f"No finite gradients in {STREAK} steps in a row at kimg {at:g}: going on from kimg "
            f"{engine.shown / 1000:g} with the learning rate divided by {2**count} ({count} of {ROLLBACKS})."
        )

    def _abandon_hopeless(self) -> None:
        """A state that was gone back to and led nowhere steps aside for the one before it."""
        states = list_states(self.folder)
        if len(states) > 1 and states[0].name == self._gone_back_to:
            states[0].rename(states[0].with_name(states[0].name + ".abandoned"))

    def _announce(self, about: dict[str, Any] | None, said: list[str]) -> None:
        """What a user should know about how this run begins."""
        engine = self.engine
        for line in said:
            self._say(line)
        if engine.short_of_memory:
            self._say(f"Memory is short: looking at {engine.recipe.batch_gpu} images at a time.")
        fresh = engine.recipe.fresh
        if about is None and fresh:
            names = ", ".join(fresh[:6]) + (" ..." if len(fresh) > 6 else "")
            self._say(f"{len(fresh)} tensors start fresh, as the model has none of their shape: {names}")
        if about is not None:
            self._say(f"Going on from kimg {about['kimg']:g}.")
        if about is not None and about["ranks"] != distributed.world_size():
            self._say(
                f"On {distributed.world_size()} rank(s) instead of {about['ranks']}: images and random numbers come "
                "in the same order, but sums over images are rounded otherwise: not the same to the last bit."
            )

    def _say(self, line: str) -> None:
        if self.recorder is not None:
            self.recorder.say(line)

    def _each(self, write: Callable[[Recorder], Any]) -> Any:
        """Let the recorder write, if this is the first rank."""
        return None if self.recorder is None else write(self.recorder)


@contextlib.contextmanager
def _profile(
    steps: int,
    end: int,  # of the run, in images
    engine: Engine[Any],
    folder: Path,
) -> Iterator[Callable[[], None]]:
    """Write a trace of so many steps to trace.json, once the first ones, unlike all others, are over."""
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
