"""The training loop: a list of phases, a list of what has memory, and a clock that counts pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import distributed
from ..config import TrainConfig
from ..data.dataset import Dataset, Loader, Sampler
from ..models import build_discriminator, build_generator
from ..sampling import counter
from ..snapshot import Snapshot
from .ema import EMA
from .objective import Batch, Objective
from .state import Stateful
from .stats import Means


@dataclass(frozen=True)
class Phase:
    """One optimizer step on one network."""

    name: str
    network: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Batch], Tensor]  # sum over the batch's pictures
    interval: int = 1  # run every so many steps, with the loss weighted up by as much
    end: Callable[[], None] | None = None  # after the last part of the batch, on all ranks


class Trainer:
    """Networks, optimizers, data and the phases that join them. `step()` shows one batch; nothing here prints."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        device: torch.device | str = "cpu",
        start: Snapshot | None = None,  # weights to begin with; None: fresh ones
        shown: int = 0,  # pictures shown before, in a run that goes on
        dtype: torch.dtype = torch.float32,  # of the weights; float64 is for tests
    ):
        self.config, self.dataset, self.device, self.dtype = config, dataset, torch.device(device), dtype
        torch.manual_seed(config.seed)  # initial weights, alike on all ranks
        self.G = build_generator(config.generator)
        self.D = build_discriminator(config.discriminator)
        if start is not None:
            self.G.load_state_dict(start.G.state_dict())
            if start.D is not None:
                self.D.load_state_dict(start.D.state_dict())
        self.G.to(self.device, dtype).requires_grad_(False)
        self.D.to(self.device, dtype).requires_grad_(False)
        self.ema = EMA(self.G, config.ema_kimg * 1000, config.ema_rampup)
        self.means = Means()
        self.objective = Objective(config, self.G, self.D, self.means)
        sampler = Sampler(len(dataset), seed=config.seed, rank=distributed.rank(), world=distributed.world_size())
        sampler.load_state_dict({"position": shown})
        self.loader = Loader(dataset, sampler, config.batch)
        self.clock = Clock(shown // config.batch, shown)
        self.phases = _phases(config, self.G, self.D, self.objective)
        self.memory: dict[str, Stateful] = {
            "G": self.G,
            "D": self.D,
            "G_ema": self.ema,
            **{f"optimizer.{name}": opt for name, opt in _optimizers(self.phases)},
            "path_length": self.objective.path_length,
            "data": self.loader,
            "clock": self.clock,
        }

    @property
    def shown(self) -> int:
        """Pictures shown to the discriminator so far."""
        return self.clock.shown

    def step(self) -> None:
        """Every phase whose turn it is, then the moving average."""
        config = self.config
        parts = self._next_batch().split(config.batch_gpu)
        for phase in self.phases:
            if self.clock.step % phase.interval == 0:
                self._run(phase, parts)
        self.ema.update(self.G, self.clock.shown, config.batch)
        self.clock.tick(config.batch)

    def close(self) -> None:
        self.loader.close()

    def _run(self, phase: Phase, parts: list[Batch]) -> None:
        phase.network.requires_grad_(True)
        phase.optimizer.zero_grad(set_to_none=True)
        for part in parts:
            (phase.loss(part) * (phase.interval / self.config.batch)).backward()
        phase.network.requires_grad_(False)
        distributed.sum_gradients(phase.network.parameters())
        if phase.end is not None:
            phase.end()
        phase.optimizer.step()

    def _next_batch(self) -> Batch:
        images, labels, index = (t.to(self.device, non_blocking=True) for t in self.loader.next())
        images = images.to(self.dtype) / 127.5 - 1  # [N, C, H, W] in [-1, 1]
        if self.dataset.spec.mirror:
            flip = counter.uniform(self.config.seed, "mirror", index) < 0.5
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
        chosen = counter.integers(self.config.seed, "label", index, len(self.dataset))
        fake_labels = self.dataset.labels(chosen.cpu()).to(self.device, self.dtype)
        return Batch(images, labels.to(self.dtype), fake_labels, index)


class Clock:
    """Steps and pictures so far."""

    def __init__(self, step: int = 0, shown: int = 0):
        self.step, self.shown = step, shown

    def tick(self, batch: int) -> None:
        self.step += 1
        self.shown += batch

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step, "shown": self.shown}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step, self.shown = state["step"], state["shown"]


def _phases(config: TrainConfig, G: nn.Module, D: nn.Module, objective: Objective) -> list[Phase]:
    g_interval = config.pl_interval if config.pl_weight > 0 else None
    d_interval = config.r1_interval if config.gamma > 0 else None
    g = _adam(G, config, g_interval)
    d = _adam(D, config, d_interval)
    phases = [Phase("G", G, g, objective.generator_main, end=objective.end_generator_main)]
    if g_interval:
        path, end = objective.generator_path_length, objective.end_generator_path_length
        phases.append(Phase("G path length", G, g, path, g_interval, end))
    phases.append(Phase("D", D, d, objective.discriminator_main))
    if d_interval:
        phases.append(Phase("D R1", D, d, objective.discriminator_r1, d_interval))
    return phases


def _adam(network: nn.Module, config: TrainConfig, interval: int | None) -> torch.optim.Adam:
    """With a regulariser every k steps the optimizer moves k + 1 times where it used to move k times: learning rate
    and betas are corrected by c = k / (k + 1) (Karras et al. 2020, appendix B, "lazy regularization")."""
    c = 1 if interval is None else interval / (interval + 1)
    betas = (float(config.betas[0] ** c), float(config.betas[1] ** c))
    return torch.optim.Adam(network.parameters(), lr=config.lr * c, betas=betas, eps=config.eps)


def _optimizers(phases: list[Phase]) -> Iterator[tuple[str, torch.optim.Optimizer]]:
    seen: set[int] = set()
    for phase in phases:
        if id(phase.optimizer) not in seen:
            seen.add(id(phase.optimizer))
            yield phase.name, phase.optimizer
