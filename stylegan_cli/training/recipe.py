"""What a recipe declares, so that the engine can train it and a run can record it."""

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
    """What one rank looks at in a step. The fields of a subclass are tensors, an image to each row of all of them."""

    def split(
        self: B,
        size: int,  # images of a part
    ) -> list[B]:
        """Dealt round-robin, so that what was dealt to ranks in this way stays together in groups."""
        parts = len(next(iter(vars(self).values()))) // size
        return [dataclasses.replace(self, **{n: t[k::parts] for n, t in vars(self).items()}) for k in range(parts)]

    def take_over(self: B, other: B) -> B:
        """Copy another batch's images to where these are."""
        for name, tensor in vars(self).items():
            tensor.copy_(vars(other)[name])
        return self

    def head(
        self: B,
        size: int,
    ) -> B:
        """The first images."""
        return dataclasses.replace(self, **{name: tensor[:size] for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class Phase:
    """One optimizer step on one network."""

    name: str
    network: nn.Module
    optimizer: GuardedOptimizer
    loss: Callable[[Any], Tensor]  # of the recipe's batch: [] sum over its images
    interval: int = 1  # run every so many steps, with the loss weighted up by as much
    end: Callable[[], None] | None = None  # after the last part of the batch, on all ranks

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What learns: all of the network but what is frozen."""
        return self.optimizer.param_groups[0]["params"]


class Recipe:
    """What is learnt, from which images, by which losses. All that a recipe remembers is in `networks`, `parts` or the
    optimizers of its phases."""

    networks: dict[str, nn.Module]  # by their names in a training state
    phases: list[Phase]  # in the order of a step
    parts: dict[str, Stateful]  # what else has a memory, by name; small
    product: nn.Module | None = None  # what a run measures at a snapshot; None: nothing yet
    reals: Any = None  # the data that metrics compare the product with
    cure = "a lower learning rate"  # for training that diverges
    fresh: Sequence[str] = ()  # tensors that the weights to begin with could not give

    def __init__(
        self,
        batch: int,  # images of a step, over all ranks
        batch_gpu: int,  # images at a time on one rank; the rest is accumulated
        device: torch.device,
        graphs: bool = False,  # phases may run as CUDA graphs
        means: Means | None = None,  # gets what the log shows
    ):
        self.batch, self.batch_gpu, self.device, self.graphs = batch, batch_gpu, device, graphs
        self.means = means or Means()

    def next_batch(self) -> Batch:
        """This rank's share."""
        raise NotImplementedError

    def after_step(
        self,
        shown: int,  # images before this step
    ) -> None:
        """What follows the phases: moving averages, schedules."""

    def halve_batch_gpu(self) -> None:
        """The device lacks memory. Raises SganError if half as many images at a time would change what is learnt."""
        raise NotImplementedError

    def forget(self) -> None:
        """Drop what a batch that will not be finished left behind."""
        self.means.clear()

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Drawn:
    """What there is to see of a model."""

    images: dict[str, Tensor]  # uint8 [C, H, W] by the name of the file
    values: dict[str, float] = field(default_factory=dict)  # what they tell, for the log
    warning: str | None = None  # a sentence
    alarm: str = ""  # the same in a word, for the bar


class RunConfig(Protocol):
    """What a run asks of its settings, a dataclass that becomes config.json."""

    recipe: ClassVar[str]  # the name of the recipe that they are for

    @property
    def kimg(self) -> float: ...  # length of the run in thousands of images
    @property
    def snap(self) -> float: ...  # thousands of images between snapshots
    @property
    def batch(self) -> int: ...  # images of a step, over all ranks
    @property
    def data(self) -> DataSpec: ...  # the images that metrics measure against


class Report(Stateful, Protocol):
    """What a run of a recipe records and shows, on the first rank."""

    @property
    def slows_down(self) -> bool: ...  # later steps will take longer

    def stills(self) -> dict[str, Tensor]: ...  # images that stay the same, uint8 [C, H, W] by the name of the file

    def draw(self) -> Drawn: ...  # at every snapshot

    def save(self, path: Path, kimg: float) -> None: ...  # the model as it is now

    def values(self) -> dict[str, float]: ...  # of a line of the log, besides the means

    def summary(self, values: dict[str, float]) -> str: ...  # a line of the log in a few words

    def end_of_stage(self, folder: Path, kimg: str) -> str | None:
        """Before the networks change, and at the end of the run: a sentence on what follows, if anything does."""
