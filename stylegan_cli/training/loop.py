"""One training step: a list of phases, a list of what has memory, and a clock that counts pictures."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import distributed
from ..data.dataset import Dataset
from ..data.sampler import Loader, Sampler
from ..errors import SganError
from ..models.growing import set_alpha
from ..models.registry import build_discriminator, build_generator
from ..sampling import counter
from ..snapshot import Snapshot
from ..training.config import TrainConfig
from .ema import EMA
from .graphs import WARM_UP, Graphed
from .growth import Growth, faded_reals
from .guard import Guard
from .objective import Batch, Objective
from .optimizer import FusedAdam, adam
from .state import Rng, Stateful, gather, restore
from .stats import Means


@dataclass(frozen=True)
class Phase:
    """One optimizer step on one network."""

    name: str
    network: nn.Module
    optimizer: FusedAdam
    loss: Callable[[Batch], Tensor]  # sum over the batch's pictures
    interval: int = 1  # run every so many steps, with the loss weighted up by as much
    end: Callable[[], None] | None = None  # after the last part of the batch, on all ranks

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What learns: all of the network but what is frozen."""
        return self.optimizer.param_groups[0]["params"]


class Trainer:
    """Networks, optimizers, data and the phases that join them. `step()` shows one batch; nothing here prints.

    In a run that grows, `config` and everything else is that of its stage.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        device: torch.device | str = "cpu",
        start: Snapshot | None = None,  # weights to begin with, as far as they fit; None: fresh ones
        dtype: torch.dtype = torch.float32,  # of the weights; float64 is for tests
        graphs: bool = False,  # run phases as CUDA graphs
    ):
        self.device, self.dtype, self.whole = torch.device(device), dtype, dataset
        self.growth = Growth(config) if config.growth else None
        self.means, self.clock = Means(), Clock()
        self.fresh: list[str] = []  # weights that `start` could not give
        self.short_of_memory = False  # less is looked at at a time than was asked for
        self._use_graphs = graphs
        self._graph_memory = (torch.cuda.graph_pool_handle(), torch.cuda.Stream()) if graphs else None
        self._build(self.growth.stage.config if self.growth else config, start)

    def _build(
        self,
        config: TrainConfig,  # of the run, or of its stage
        start: Snapshot | None = None,
    ) -> None:
        """Fresh networks and everything around them."""
        spec = config.data
        self.config, self.dataset = config, self.whole.resized(spec.height, spec.width)
        torch.manual_seed(config.seed)  # initial weights, alike on all ranks
        self.G = build_generator(config.generator)
        self.D = build_discriminator(config.discriminator)
        if start is not None:
            self.fresh = [f"G.{name}" for name in _load_what_fits(self.G, start.G.state_dict())]
            left = ["D"] if start.D is None else _load_what_fits(self.D, start.D.state_dict())
            self.fresh += [f"D.{name}" if start.D is not None else name for name in left]
        self.G.to(self.device, dtype=self.dtype).requires_grad_(False)
        self.D.to(self.device, dtype=self.dtype).requires_grad_(False)
        self.ema = EMA(self.G, config.ema_kimg * 1000, config.ema_rampup)
        self.objective = Objective(config, self.G, self.D, self.means)
        sampler = Sampler(len(self.dataset), seed=config.seed, rank=distributed.rank(), world=distributed.world_size())
        self.loader = Loader(self.dataset, sampler, config.batch, pin=self.device.type == "cuda")
        self.phases = _phases(config, self.G, self.D, self.objective, self._use_graphs)
        self.guard = Guard([phase.name for phase in self.phases], self.device)
        self._graphs: dict[str, Graphed] | None = {} if self._use_graphs else None
        self._batch: Batch | None = None  # where the graphs find theirs
        self.memory: dict[str, Stateful] = {
            "G": self.G,
            "D": self.D,
            "G_ema": self.ema,
            **{f"optimizer.{name}": opt for name, opt in _optimizers(self.phases)},
            "path_length": self.objective.path_length,
            "augment": self.objective.p,
            "guard": self.guard,
            "data": self.loader,
            "clock": self.clock,
            "rng": Rng(distributed.gather_over_ranks, distributed.rank()),
            **({"growth": self.growth} if self.growth else {}),
        }

    @property
    def shown(self) -> int:
        """Pictures shown to the discriminator so far."""
        return self.clock.shown

    @property
    def must_grow(self) -> bool:
        """Whether the next step is the first of another stage."""
        return self.growth is not None and self.growth.is_over(self.clock.shown)

    def step(self) -> None:
        """Every phase whose turn it is, then the moving average. A network that is to grow grows first."""
        if self.must_grow:
            self._grow()
        batch = self._in_place(self._next_batch())
        for phase in self.phases:
            if self.clock.step % phase.interval == 0:
                self._run(phase, batch)
        self.guard.tick()
        self.objective.p.update(self.config.batch)
        self.ema.update(self.G, self.clock.shown, self.config.batch)
        self.clock.tick(self.config.batch)
        self._fade()

    def restore(
        self,
        state: dict,  # what `gather(memory)` gave, on any number of ranks
    ) -> None:
        elsewhere = self.growth is not None and state["growth"] != self.growth.state_dict()
        if elsewhere:
            self.loader.close()
            self.growth.load_state_dict(state["growth"])
            self._build(self.growth.stage.config)
        restore(self.memory, state)
        if elsewhere and self.device.type == "cuda":
            self.fit_memory()
        self.objective.forget()
        self._graphs = None if self._graphs is None else {}  # they know where the optimizer's old state was

    def slow_down(
        self,
        factor: float,  # on both learning rates
    ) -> None:
        for _, optimizer in _optimizers(self.phases):
            optimizer.param_groups[0]["lr"] *= factor
        self._graphs = None if self._graphs is None else {}  # the old rate is written into them

    def fit_memory(self) -> None:
        """Try every phase without learning from it; while a rank runs out of memory, all halve what they look at at
        a time and accumulate. Changes `config.batch_gpu`, and no result as long as that is a multiple of
        pl_batch_shrink. Raises SganError if it cannot be halved."""
        while distributed.any_rank(self._out_of_memory(), self.device):
            half, group = self.config.batch_gpu // 2, self.config.discriminator.mbstd_group
            grouped = self.config.discriminator.mbstd_channels > 0
            if self.config.batch_gpu % 2 or grouped and (group is None or half % group):
                raise SganError(
                    f"Out of memory with {self.config.batch_gpu} pictures at a time on one rank, which is as few as "
                    f"minibatch-deviation groups of {group or 'all'} allow.",
                    hint="Choose a smaller --mbstd-group, --batch-gpu, --size or --cbase, or --precision fp16.",
                )
            self.config = self.objective.config = dataclasses.replace(self.config, batch_gpu=half)
            self.short_of_memory = True

    def close(self) -> None:
        self.loader.close()

    # ------------------------------------------------------------------------------------------- parts

    def _grow(self) -> None:
        """On to the next stage, with everything that both know."""
        before, phases, level = gather(self.memory), self.phases, self.growth.stage.level
        self.loader.close()
        self.growth.index += 1
        self._build(self.growth.stage.config)
        for network, name in ((self.G, "G"), (self.D, "D"), (self.ema.network, "G_ema")):
            _load_what_fits(network, before[name])
        for name in ("path_length", "augment", "guard", "data"):
            self.memory[name].load_state_dict(before[name])
        for old, new in zip(phases, self.phases):
            # Where a level is added both optimizers begin anew: their moments tell of another loss. (The papers' code
            # drops them at the end of a fade too, when nothing has changed.)
            if self.growth.stage.level == level:
                _take_over_moments(old, new)
        self._fade()
        self.slow_down(0.5**self.guard.rollbacks)
        if self.device.type == "cuda":
            self.fit_memory()

    def _fade(self) -> None:
        """Say to the networks how far their highest level has come."""
        if self.growth is not None:
            for network in (self.G, self.D, self.ema.network):
                set_alpha(network, self.growth.alpha(self.clock.shown))

    def _run(self, phase: Phase, batch: Batch) -> None:
        if self._graphs is None:
            self._learn(phase, batch)
            return
        if phase.name not in self._graphs:
            self._graphs[phase.name] = Graphed(lambda: self._learn(phase, batch), *self._graph_memory)
        self._graphs[phase.name]()

    def _in_place(self, batch: Batch) -> Batch:
        """Where the graphs, if there are any, find their batch."""
        if self._graphs is None:
            return batch
        self._batch = batch if self._batch is None else self._batch.take_over(batch)
        return self._batch

    def _learn(self, phase: Phase, batch: Batch) -> None:
        self._backward(phase, batch.split(self.config.batch_gpu))
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
            (phase.loss(part) * (phase.interval / self.config.batch)).backward()
        phase.network.requires_grad_(False)

    def _out_of_memory(self) -> bool:
        """Whether this rank lacks the memory for a step. Nothing is learnt."""
        remembered = ("path_length", "augment", "guard", "data")
        state = copy.deepcopy({name: self.memory[name].state_dict() for name in remembered})
        buffers = [(buffer, buffer.clone()) for buffer in self.G.buffers()]
        try:
            self._rehearse()
        except torch.OutOfMemoryError:
            self._graphs = None if self._graphs is None else {}
            return True
        finally:
            for phase in self.phases:
                phase.network.requires_grad_(False)
                phase.optimizer.zero_grad(set_to_none=True)
            self.objective.forget()
            restore({name: self.memory[name] for name in remembered}, state)
            self.guard.hold.zero_()
            for buffer, before in buffers:
                buffer.copy_(before)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return False

    def _rehearse(self) -> None:
        """Every phase, with the moments that Adam will need. Ranks that others wait for would hang if one of them ran
        out of memory between two sums: several go no further than the gradients; one captures its graphs too."""
        self.guard.hold.fill_(1)
        batch = self._in_place(self._next_batch())
        for phase in self.phases:
            self._backward(phase, batch.split(self.config.batch_gpu)[:1])
            phase.optimizer.step_unless(self.guard.hold)
        if distributed.world_size() == 1:
            for phase in self.phases:
                for _ in range(1 if self._graphs is None else WARM_UP + 1):
                    self._run(phase, batch)

    def _next_batch(self) -> Batch:
        images, labels, index = self.loader.next()
        chosen = counter.integers(self.config.seed, "label", index, len(self.dataset))
        fake_labels = self.dataset.labels(chosen)
        fake_labels = fake_labels.pin_memory() if self.loader.pin else fake_labels
        images, labels, fake_labels, index = (
            t.to(self.device, non_blocking=True) for t in (images, labels, fake_labels, index)
        )
        images = images.to(self.dtype) / 127.5 - 1  # [N, C, H, W] in [-1, 1]
        if self.dataset.spec.mirror:
            flip = counter.uniform(self.config.seed, "mirror", index) < 0.5
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
        if self.growth is not None:
            images = faded_reals(images, self.growth.alpha(self.clock.shown))
        return Batch(images, labels.to(self.dtype), fake_labels.to(self.dtype), index)


class Clock:
    """Steps and pictures so far."""

    def __init__(self) -> None:
        self.step = self.shown = 0

    def tick(self, batch: int) -> None:
        self.step += 1
        self.shown += batch

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step, "shown": self.shown}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step, self.shown = state["step"], state["shown"]


def _phases(config: TrainConfig, G: nn.Module, D: nn.Module, objective: Objective, graphs: bool = False) -> list[Phase]:
    g_interval = config.pl_interval if config.pl_weight > 0 else None
    weights = {"R1": config.gamma, "R2": config.r2_gamma, "GP": config.gp_weight}
    penalties = [name for name, weight in weights.items() if weight > 0]
    d_interval = config.r1_interval if penalties and config.r1_interval > 1 else None
    g = adam(list(G.parameters()), config, g_interval, graphs)
    d = adam(_not_frozen(D, config.freezed), config, d_interval, graphs)
    phases = [Phase("G", G, g, objective.generator_main, end=objective.end_generator_main)]
    if g_interval:
        path, end = objective.generator_path_length, objective.end_generator_path_length
        phases.append(Phase("G path length", G, g, path, g_interval, end))
    at_once = bool(penalties) and d_interval is None
    phases.append(Phase("D", D, d, objective.discriminator_whole if at_once else objective.discriminator_main))
    if d_interval:
        phases.append(Phase(f"D {' '.join(penalties)}", D, d, objective.discriminator_penalties, d_interval))
    return phases


def _not_frozen(D: nn.Module, freezed: int) -> list[nn.Parameter]:
    """Freeze-D (Mo et al. 2020): the layers nearest to the picture keep what they know."""
    if freezed >= len(D.layers):
        raise SganError(
            f"The discriminator has {len(D.layers)} layers; {freezed} of them cannot be frozen.",
            hint=f"Choose --freezed from 0 to {len(D.layers) - 1}.",
        )
    frozen = tuple(f"{name}." for name in D.layers[:freezed])
    return [p for name, p in D.named_parameters() if not name.startswith(frozen)]


def _load_what_fits(network: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Take over all tensors of the same name and shape; the names of the others, which stay as they are."""
    own = network.state_dict()
    fitting = {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
    network.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def _take_over_moments(old: Phase, new: Phase) -> None:
    """What an optimizer knows of the parameters that both networks have."""
    known = dict(old.network.named_parameters())
    for name, parameter in new.network.named_parameters():
        if name in known and known[name] in old.optimizer.state:
            new.optimizer.state[parameter] = old.optimizer.state[known[name]]


def _optimizers(phases: list[Phase]) -> Iterator[tuple[str, FusedAdam]]:
    seen: set[int] = set()
    for phase in phases:
        if id(phase.optimizer) not in seen:
            seen.add(id(phase.optimizer))
            yield phase.name, phase.optimizer
