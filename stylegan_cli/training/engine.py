"""Steps of training: phases in turn, gradients summed, checked and followed, a list of what has memory, and a clock.

What is learnt is a recipe's to say.
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
    """Acts between the steps of an engine, and may put another recipe in the place of the one that runs."""

    def is_due(self, shown: int) -> bool: ...  # whether `before_step` will change what is trained

    def before_step(self, engine: Engine[Any]) -> None: ...

    def after_step(self, engine: Engine[Any]) -> None: ...

    def before_restore(self, engine: Engine[Any], state: dict[str, Any]) -> None:
        """Bring the recipe that the state, the hook's own, is of."""


class Clock:
    """Steps and images so far."""

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
    """Trains a recipe. `step()` shows one batch; nothing here prints."""

    def __init__(
        self,
        recipe: R,
        hooks: Mapping[str, Hook] | None = None,  # by their names in a training state
    ):
        self.recipe, self.hooks = recipe, dict(hooks or {})
        self.device, self.clock = recipe.device, Clock()
        self.guard = Guard([phase.name for phase in recipe.phases], self.device)
        self.short_of_memory = False  # less is looked at at a time than was asked for
        self._graph_memory = (torch.cuda.graph_pool_handle(), torch.cuda.Stream()) if recipe.graphs else None
        self._graphs: dict[str, Graphed] = {}
        self._batch: Batch | None = None  # where the graphs find theirs

    @property
    def memory(self) -> dict[str, Stateful]:
        """Everything that has a state, by its name in a training state."""
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
    def learning(self) -> list[nn.Parameter]:
        """The parameters of every network that learns."""
        networks = dict.fromkeys(phase.network for phase in self.recipe.phases)
        return [p for network in networks for p in network.parameters()]

    @property
    def is_to_change(self) -> bool:
        """Whether the next step trains something else than the last one."""
        return any(hook.is_due(self.shown) for hook in self.hooks.values())

    def step(self) -> None:
        """Every phase whose turn it is, with what hooks and the recipe do before and after."""
        for hook in self.hooks.values():
            hook.before_step(self)
        batch = self._in_place(self.recipe.next_batch())
        for phase in self.recipe.phases:
            if self.clock.step % phase.interval == 0:
                self._run(phase, batch)
        self.guard.tick()
        self.recipe.after_step(self.shown)
        self.clock.tick(self.recipe.batch)
        for hook in self.hooks.values():
            hook.after_step(self)

    def adopt(
        self,
        recipe: R,
    ) -> None:
        """Go on with another recipe of the same phases, at the pace that earlier mishaps have left."""
        self.recipe.close()
        self.recipe, self._batch = recipe, None
        self.slow_down(0.5**self.guard.rollbacks)
        if self.device.type == "cuda":
            self.fit_memory()

    def restore(
        self,
        state: dict[str, dict[str, Any]],  # what `gather(memory)` gave, on any number of ranks
    ) -> None:
        for name, hook in self.hooks.items():
            hook.before_restore(self, state[name])
        restore(self.memory, state)
        self.recipe.forget()
        self._graphs.clear()  # they know where the optimizer's old state was

    def slow_down(
        self,
        factor: float,  # on all learning rates
    ) -> None:
        for optimizer in _optimizers(self.recipe.phases).values():
            optimizer.param_groups[0]["lr"] *= factor
        self._graphs.clear()  # the old rate is written into them

    def fit_memory(self) -> None:
        """Try every phase without learning from it; while a rank runs out of memory, all halve what they look at at
        a time and accumulate. Raises SganError if it cannot be halved."""
        while distributed.any_rank(self._out_of_memory(), self.device):
            self.recipe.halve_batch_gpu()
            self.short_of_memory = True

    def close(self) -> None:
        self.recipe.close()

    # ------------------------------------------------------------------------------------------- parts

    def _run(self, phase: Phase, batch: Batch) -> None:
        if self._graph_memory is None:
            self._learn(phase, batch)
            return
        if phase.name not in self._graphs:
            self._graphs[phase.name] = Graphed(lambda: self._learn(phase, batch), *self._graph_memory)
        self._graphs[phase.name]()

    def _in_place(self, batch: Batch) -> Batch:
        """Where the graphs, if there are any, find their batch."""
        if self._graph_memory is None:
            return batch
        self._batch = batch if self._batch is None else self._batch.take_over(batch)
        return self._batch

    def _learn(self, phase: Phase, batch: Batch) -> None:
        self._backward(phase, batch.split(self.recipe.batch_gpu))
        distributed.sum_gradients(phase.parameters)
        if phase.end is not None:
            phase.end()
        bad = self.guard.check(phase.name, [p.grad for p in phase.parameters if p.grad is not None])
        phase.optimizer.step_unless(bad)

    def _backward(self, phase: Phase, parts: list[Batch]) -> None:
        for parameter in phase.parameters:
            parameter.requires_grad_(True)
        phase.optimizer.zero_grad(set_to_none=True)
        for part in parts:
            (phase.loss(part) * (phase.interval / self.recipe.batch)).backward()
        phase.network.requires_grad_(False)

    def _out_of_memory(self) -> bool:
        """Whether this rank lacks the memory for a step. Nothing is learnt."""
        parts = {**self.recipe.parts, "guard": self.guard}
        state = copy.deepcopy(gather(parts))
        buffers = [(b, b.clone()) for network in self.recipe.networks.values() for b in network.buffers()]
        try:
            self._rehearse()
        except torch.OutOfMemoryError:
            self._graphs.clear()
            return True
        finally:
            for phase in self.recipe.phases:
                phase.network.requires_grad_(False)
                phase.optimizer.zero_grad(set_to_none=True)
            self.recipe.forget()
            restore(parts, state)
            self.guard.hold.zero_()
            for buffer, before in buffers:
                buffer.copy_(before)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return False

    def _rehearse(self) -> None:
        """Every phase, with the moments that the optimizers will need. Ranks that others wait for would hang if one of
        them ran out of memory between two sums: several go no further than the gradients; one captures its graphs
        too."""
        self.guard.hold.fill_(1)
        batch = self._in_place(self.recipe.next_batch())
        for phase in self.recipe.phases:
            self._backward(phase, batch.split(self.recipe.batch_gpu)[:1])
            phase.optimizer.step_unless(self.guard.hold)
        if distributed.world_size() == 1:
            for phase in self.recipe.phases:
                for _ in range(1 if self._graph_memory is None else WARM_UP + 1):
                    self._run(phase, batch)


def _optimizers(phases: list[Phase]) -> dict[str, GuardedOptimizer]:
    """Each one once, by the name of the first phase that has it."""
    found: dict[int, tuple[str, GuardedOptimizer]] = {}
    for phase in phases:
        found.setdefault(id(phase.optimizer), (phase.name, phase.optimizer))
    return dict(found.values())
