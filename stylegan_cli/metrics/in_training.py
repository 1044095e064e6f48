"""Metrics as the training loop calls them at every snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..config import DataSpec
from ..data.dataset import Dataset, open_dataset
from ..detectors import load_detector, load_lpips
from ..errors import SganError
from ..models import Generator
from .measure import check_enough, check_sizes, measure
from .registry import STANDARD, resolve


class TrainingMetrics:
    """Picklable; each process opens the data set once, when it first measures."""

    def __init__(
        self,
        names: Sequence[str],  # as for `measure`; the first value decides which snapshot is the best
        *,
        num: int | None = None,
        batch: int | None = None,
        features: str = STANDARD,
        detector_file: str | Path | None = None,
        progress: bool = True,
    ):
        """Raises SganError for a metric that there is not."""
        self.names = tuple(names)
        self.options = {"num": num, "batch": batch, "features": features, "detector_file": detector_file}
        self.progress = progress
        self.metrics = resolve(self.names, num, features)
        self._dataset: Dataset | None = None

    @property
    def higher_is_better(self) -> bool:
        """Of the first value."""
        return self.metrics[0].outputs[0][1]

    def check(
        self,
        data: Dataset,
    ) -> None:
        """To be called before a run begins: raises SganError if pictures are too few, or weights are missing."""
        check_sizes(self.metrics, data.spec.height, data.spec.width)
        check_enough(self.metrics, data)
        for name in dict.fromkeys(m.detector for m in self.metrics):
            if name == "lpips-vgg":
                load_lpips("vgg", "cpu", self.options["detector_file"])
            else:
                load_detector(name, "cpu", self.options["detector_file"])

    def __call__(
        self,
        G: Generator,
        data: DataSpec,
        device: torch.device,
    ) -> dict[str, float]:
        self._dataset = self._dataset or _open(data)
        return measure(self.names, G, self._dataset, device, **self.options, progress=self.progress).values

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_dataset": None}


def _open(spec: DataSpec) -> Dataset:
    """As training reads it; nothing of it is kept in memory a second time."""
    size = (spec.height, spec.width)
    dataset = open_dataset(spec.path, size=size, mirror=spec.mirror, label=spec.label, cache_bytes=0)
    if dataset.spec.content_hash != spec.content_hash:
        raise SganError(f"The pictures or labels in {spec.path} have changed since the run began.")
    return dataset
