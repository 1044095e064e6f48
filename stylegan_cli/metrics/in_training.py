"""Metrics as the training loop calls them at every snapshot."""

from __future__ import annotations

from typing import Any

import torch

from ..config import DataSpec, TrainConfig
from ..data.dataset import Dataset, open_dataset
from ..errors import SganError
from ..models import Generator
from ..progress import Progress, silent
from .measure import check_enough, check_sizes, measure
from .metric import EvaluationProtocol
from .passes import require_detectors


class TrainingMetrics:
    """Picklable; each process opens the data set once, when it first measures."""

    def __init__(
        self,
        protocol: EvaluationProtocol,  # the first value decides which snapshot is the best
        progress: Progress = silent,
    ):
        self.protocol, self.progress = protocol, progress
        self.higher_is_better = protocol.metrics[0].outputs[0].higher_is_better  # of the first value
        self._dataset: Dataset | None = None

    def check(
        self,
        data: Dataset,
    ) -> None:
        """To be called before a run begins: raises SganError if pictures are too few, or weights are missing."""
        check_sizes(self.protocol.metrics, data.spec.height, data.spec.width)
        check_enough(self.protocol.metrics, data)
        require_detectors(self.protocol.metrics, self.protocol.detector_file)

    def __call__(
        self,
        G: Generator,
        config: TrainConfig,
        device: torch.device,
    ) -> dict[str, float]:
        self._dataset = self._dataset or _open(config.data)
        return measure(self.protocol, G, self._dataset, device, self.progress).values

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_dataset": None}


def _open(spec: DataSpec) -> Dataset:
    """As training reads it; nothing of it is kept in memory a second time."""
    size = (spec.height, spec.width)
    dataset = open_dataset(spec.path, size=size, mirror=spec.mirror, label=spec.label, cache_bytes=0)
    if dataset.spec.content_hash != spec.content_hash:
        raise SganError(f"The pictures or labels in {spec.path} have changed since the run began.")
    return dataset
