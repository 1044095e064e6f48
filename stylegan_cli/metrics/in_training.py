"""Metrics as the training loop calls them at every snapshot."""

from __future__ import annotations

import torch

from ..data.dataset import Dataset
from ..models.generator import Generator
from ..progress import Progress, silent
from .measure import check_enough, check_sizes, measure
from .metric import EvaluationProtocol
from .passes import require_detectors


class TrainingMetrics:
    """Picklable: each process has its own."""

    def __init__(
        self,
        protocol: EvaluationProtocol,  # the first value decides which snapshot is the best
        progress: Progress = silent,
    ):
        self.protocol, self.progress = protocol, progress
        self.higher_is_better = protocol.metrics[0].outputs[0].higher_is_better  # of the first value

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
        dataset: Dataset,  # of the run
        device: torch.device,
    ) -> dict[str, float]:
        return measure(self.protocol, G, dataset, device, self.progress).values
