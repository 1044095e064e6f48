"""Training steps: phases in turn, gradients summed, checked and applied; the list of stateful parts; and a clock.

The recipe defines what is trained.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from .. import distributed
from .graphs import WARM_UP, Graphed
from .guard import Guard
from .optimizer import GuardedOptimizer
from .recipe import Batch, Phase, Recipe
from .state import Stateful, gather, restore
from .stats import Means

R = TypeVar("R", bound=Recipe)


class Hook(Stateful, Protocol):
    """Acts between the steps of an engine, and may replace its recipe."""

    def is_due(self, shown: int) -> bool: ...  # whether `before_step` will replace the recipe

    def before_step(self, engine: Engine[Any]) -> None: ...

    def after_step(self, engine: Engine[Any]) -> None: ...

    def before_restore(self, engine: Engine[Any], state: dict[str, Any]) -> None:
        """Switch to the recipe that the hook's state belongs to."""


class Clock:
    """Counts steps and images."""

    def __init__(self) -> None:
        self.step = self.shown = 0

    def tick(self, batch: int) -> None:
        self.step += 1
        self.shown += batch

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step, "shown": self.shown}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step, self.shown = state["step"], state["shown"]


class Engine(Generic[R]):
    """Trains a recipe, one batch per `step()`. Prints nothing."""

    def __init__(
        self,
        recipe: R,
        hooks: Mapping[str, Hook] | None = None,  # by their names in the state
    ):
        self.recipe, self.hooks = recipe, dict(hooks or {})
        self.device, self.clock = recipe.device, Clock()
        self.guard = Guard([phase.name for phase in recipe.phases], self.device)
        self.batch_gpu_halved = False  # by `fit_memory`
        self._graph_memory = _graph_memory() if recipe.graphs else None
        self._graphs: dict[str, Graphed] = {}
        self._batch: Batch | None = None  # the graphs' static input

    @property
    def stateful(self) -> dict[str, Stateful]:
        """All stateful parts, by their names in the state."""
        recipe = self.recipe
        optimizers = {f"optimizer.{name}": optimizer for name, optimizer in _optimizers(recipe.phases).items()}
        return {**recipe.networks, **optimizers, **recipe.parts, "guard": self.guard, "clock": self.clock, **self.hooks}

    @property
    def means(self) -> Means:
        return self.recipe.means

    @property
    def shown(self) -> int:
        """Images shown so far."""
        return self.clock.shown

    @property
    def trained_parameters(self) -> list[nn.Parameter]:
        """Parameters of every network that is trained."""
        networks = dict.fromkeys(phase.network for phase in self.recipe.phases)
        return [p for network in networks for p in network.parameters()]

    @property
    def is_change_due(self) -> bool:
        """Whether the next step will replace the recipe."""
        return any(hook.is_due(self.shown) for hook in self.hooks.values())

    @property
    def streak(self) -> int:
        """Steps of a phase that were skipped in a row until now, at most, without phases that had ended before the last
        step: they will run no good one any more. Waits for the device."""
        before = self.shown - self.recipe.batch
        return self.guard.streak(p.name for p in self.recipe.phases if p.stop is None or before < p.stop)

    def step(self) -> None:
        """Run all phases that are due, and the callbacks of the hooks and the recipe."""
        for hook in self.hooks.values():
            hook.before_step(self)
        batch = self._static_batch(self.recipe.next_batch())
        for phase in self.recipe.phases:
            if phase.is_due(self.clock.step, self.shown):
                self._run(phase, batch)
        self.guard.tick()
        self.recipe.after_step(self.shown)
        self.clock.tick(self.recipe.batch)
        for hook in self.hooks.values():
            hook.after_step(self)

    def replace_recipe(
        self,
        recipe: R,
    ) -> None:
        """Continue with another recipe of the same phases, with learning rates reduced for earlier rollbacks."""
        self.recipe.close()
        self.recipe, self._batch = recipe, None
        self.recipe.apply_settings(self.guard.rollbacks)
        self.recapture()
        if self.device.type == "cuda":
            self.fit_memory()

    def restore(
        self,
        state: dict[str, dict[str, Any]],  # from `gather(stateful)`, on any number of ranks
    ) -> None:
        """Load a state. Raises KeyError if a part's state is missing."""
        for name, hook in self.hooks.items():
            hook.before_restore(self, state[name])
        restore(self.stateful, state)
        self.recipe.apply_settings(self.guard.rollbacks)
        self.recipe.discard_batch()
        self._graphs.clear()  # they hold addresses of the old optimizer state

    def recapture(self) -> None:
        """Capture the phases as CUDA graphs again, because they will run differently."""
        self._graphs.clear()

    def fit_memory(self) -> None:
        """Try every phase without updating weights; while any rank runs out of memory, halve `batch_gpu` on all ranks.
        Raises SganError if it cannot be halved."""
        while distributed.any_rank(self._out_of_memory(), self.device):
            self.recipe.halve_batch_gpu()
            self.batch_gpu_halved = True

    def close(self) -> None:
        self.recipe.close()

    # ------------------------------------------------------------------------------------------- parts

    def _run(self, phase: Phase, batch: Batch) -> None:
        if self._graph_memory is None:
            self._update(phase, batch)
            return
        if phase.name not in self._graphs:
            self._graphs[phase.name] = Graphed(lambda: self._update(phase, batch), *self._graph_memory)
        self._graphs[phase.name]()

    def _static_batch(self, batch: Batch) -> Batch:
        """With CUDA graphs, copy the batch to the tensors that the graphs read."""
        if self._graph_memory is None:
            return batch
        self._batch = batch if self._batch is None else self._batch.copy_from(batch)
        return self._batch

    def _update(self, phase: Phase, batch: Batch) -> None:
        parts = batch.split(self.recipe.batch_gpu)
        if phase.begin is not None:
            phase.begin(parts)
        self._backward(phase, parts)
        distributed.sum_gradients(phase.parameters)
        if phase.end is not None:
            phase.end()
        bad = self.guard.check(phase.name, [p.grad for p in phase.parameters if p.grad is not None])
        phase.optimizer.step_unless(bad)

    def _backward(self, phase: Phase, parts: list[Batch]) -> None:
        for parameter in phase.parameters:
            parameter.requires_grad_(True)
        phase.optimizer.zero_grad(set_to_none=True)
        weight = phase.interval if phase.weight is None else phase.weight
        for part in parts:
            (phase.loss(part) * (weight / self.recipe.batch)).backward(inputs=phase.parameters)
        phase.network.requires_grad_(False)
        for parameter in phase.parameters:
            if parameter.grad is None:  # Adam would skip it: its moments and step count must follow every update
                parameter.grad = torch.zeros_like(parameter)

    def _out_of_memory(self) -> bool:
        """Whether this rank lacks memory for a step. Leaves the training state unchanged."""
        parts = {**self.recipe.parts, "guard": self.guard}
        state = copy.deepcopy(gather(parts))
        buffers = [(b, b.clone()) for network in self.recipe.networks.values() for b in network.buffers()]
        try:
            self._dry_run()
        except torch.OutOfMemoryError:
            self._graphs.clear()
            if self._graph_memory is not None:  # the pool of a capture that failed cannot be used again
                self._graph_memory = _graph_memory()
            return True
        finally:
            for phase in self.recipe.phases:
                phase.network.requires_grad_(False)
                phase.optimizer.zero_grad(set_to_none=True)
            self.recipe.discard_batch()
            restore(parts, state)
            self.guard.hold.zero_()
            for buffer, before in buffers:
                buffer.copy_(before)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return False

    def _dry_run(self) -> None:
        """Run every phase, including the allocation of optimizer moments. With several ranks, stop at the gradients,
        because a rank that ran out of memory between two reductions would hang the others. A single rank also captures
        its graphs."""
        self.guard.hold.fill_(1)
        batch = self._static_batch(self.recipe.next_batch())
        for phase in self.recipe.phases:
            with distributed.alone():
                self._backward(phase, batch.split(self.recipe.batch_gpu)[:1])
            phase.optimizer.step_unless(self.guard.hold)
        with distributed.alone():
            self.recipe.prepare_snapshot()
        if distributed.world_size() == 1:
            for phase in self.recipe.phases:
                for _ in range(1 if self._graph_memory is None else WARM_UP + 1):
                    self._run(phase, batch)


def _graph_memory() -> tuple[Any, torch.cuda.Stream]:
    """The memory pool and the stream that the graphs share."""
    return torch.cuda.graph_pool_handle(), torch.cuda.Stream()


def _optimizers(phases: list[Phase]) -> dict[str, GuardedOptimizer]:
    """Each optimizer once, by the name of the first phase that uses it."""
    by_id: dict[int, tuple[str, GuardedOptimizer]] = {}
    for phase in phases:
        by_id.setdefault(id(phase.optimizer), (phase.name, phase.optimizer))
    return dict(by_id.values())
