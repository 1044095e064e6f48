"""The interface of a recipe: what the engine needs to train it, and a run to record it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..data.dataset import DataSpec
from .optimizer import GuardedOptimizer
from .state import Stateful
from .stats import Means

B = TypeVar("B", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """One rank's share of a step. The fields of a subclass are tensors with one row per image, or None."""

    def split(
        self: B,
        size: int,  # images per part
    ) -> list[B]:
        """Split round-robin, as images are split over ranks, so that minibatch-deviation groups stay together."""
        parts = len(next(iter(vars(self).values()))) // size
        return [dataclasses.replace(self, **{n: t[k::parts] for n, t in self._tensors.items()}) for k in range(parts)]

    def copy_from(self: B, other: B) -> B:
        """Copy another batch into these tensors."""
        for name, tensor in self._tensors.items():
            tensor.copy_(vars(other)[name])
        return self

    def head(
        self: B,
        size: int,
    ) -> B:
        """Return the first `size` images."""
        return dataclasses.replace(self, **{name: tensor[:size] for name, tensor in self._tensors.items()})

    @property
    def _tensors(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}


@dataclass(frozen=True)
class Phase:
    """One update of one network."""

    name: str
    network: nn.Module
    optimizer: GuardedOptimizer
    loss: Callable[[Any], Tensor]  # recipe's batch -> [] sum over its images
    interval: int = 1  # steps between runs
    weight: float | None = None  # of the loss; None: the interval
    end: Callable[[], None] | None = None  # called after the last part of the batch, on all ranks
    begin: Callable[[list[Any]], None] | None = None  # called with the parts of the batch before the first one's loss
    start: int = 0  # images shown from which on it runs
    stop: int | None = None  # images shown from which on it no longer runs; None: until the end

    def is_due(
        self,
        step: int,  # steps before
        shown: int,  # images before
    ) -> bool:
        return step % self.interval == 0 and self.start <= shown and (self.stop is None or shown < self.stop)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters to train: all of the network's that are not frozen."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]


class Recipe:
    """What is trained, on which images, with which losses. All state is in `networks`, `parts` or the optimizers of
    the phases."""

    networks: dict[str, nn.Module]  # by their names in the state
    phases: list[Phase]  # in the order in which a step runs them
    parts: dict[str, Stateful]  # other stateful parts, by name; small
    metric_network: nn.Module | None = None  # network to measure at a snapshot; None: none yet
    metric_data: Any = None  # dataset to compare it with
    divergence_advice = "Start a new run with a lower learning rate."  # what to try when training diverges
    new_tensors: Sequence[str] = ()  # tensors that the initial checkpoint does not have

    def __init__(
        self,
        batch: int,  # images per step, over all ranks
        batch_gpu: int,  # images at a time on one rank; gradients are accumulated
        device: torch.device,
        graphs: bool = False,  # run phases as CUDA graphs
        means: Means | None = None,  # collects the values for the log
    ):
        self.batch, self.batch_gpu, self.device, self.graphs = batch, batch_gpu, device, graphs
        self.means = means or Means()

    def next_batch(self) -> Batch:
        """Return this rank's share of the next batch."""
        raise NotImplementedError

    def after_step(
        self,
        shown: int,  # images before this step
    ) -> None:
        """Update moving averages and schedules after the phases."""

    def prepare_snapshot(self) -> None:
        """Measure what snapshots and samples need, on all ranks alike. The next step must not depend on it."""

    def apply_settings(
        self,
        rollbacks: int,  # so far: each halves the learning rates
    ) -> None:
        """Set the learning rates; and replace what a loaded state holds of settings, which may have changed since."""

    def halve_batch_gpu(self) -> None:
        """Halve `batch_gpu` to save memory. Raises SganError if that would change the result."""
        raise NotImplementedError

    def discard_batch(self) -> None:
        """Drop what an unfinished batch accumulated."""
        self.means.clear()

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Samples:
    """Images that show the state of a model."""

    images: dict[str, Tensor]  # name -> uint8 [C, H, W]
    values: dict[str, float] = field(default_factory=dict)  # statistics of the images, for the log
    warning: str | None = None  # a sentence for the log
    short_warning: str = ""  # short form of the warning, for the progress bar


class RunConfig(Protocol):
    """The settings that every run has: a dataclass that is saved as config.json."""

    recipe: ClassVar[str]  # name of the recipe

    @property
    def kimg(self) -> float: ...  # length of the run in thousands of images
    @property
    def snap(self) -> float: ...  # thousands of images between snapshots
    @property
    def batch(self) -> int: ...  # images per step, over all ranks
    @property
    def data(self) -> DataSpec: ...  # dataset that metrics compare with
    @property
    def needed_files(self) -> list[tuple[str, str]]: ...  # beside dataset and model: path, SHA-256


class Report(Stateful, Protocol):
    """What a run of a recipe logs and saves, on the first rank."""

    @property
    def slows_down(self) -> bool: ...  # whether later steps take longer

    def fixed_images(self) -> dict[str, Tensor]: ...  # name -> uint8 [C, H, W], saved once

    def make_samples(self) -> Samples: ...  # called at every snapshot

    def save(self, path: Path, kimg: float) -> None: ...  # write a snapshot of the model

    def values(self) -> dict[str, float]: ...  # for a line of stats.jsonl, besides the means

    def summary(self, values: dict[str, float]) -> str: ...  # short text for log.txt and the progress bar

    def end_stage(self, folder: Path, kimg: str) -> str | None:
        """Called before the recipe is replaced and at the end of the run. Return a sentence about the next stage."""
