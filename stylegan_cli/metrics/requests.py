"""Measure a model's file, and record the values beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.dataset import DataSpec, open_dataset
from ..progress import Progress, silent
from ..runs import PACKAGED_MODEL, metric_lines, record_metric
from ..snapshot import Snapshot, SnapshotInfo, open_training_dataset
from .measure import Results, compare_images, filter_notes, measure
from .metric import EvaluationProtocol


@dataclass(frozen=True)
class Request:
    """A model's file, and how to measure it."""

    protocol: EvaluationProtocol
    path: Path
    info: SnapshotInfo  # of the file
    reals: DataSpec | None = None  # real images; None: those that the model was trained on
    size: tuple[int, int] | None = None  # (height, width) to read real images at; None: the model's

    @property
    def training_data_hash(self) -> str:
        """Content hash of the dataset that the model was trained on; empty if unknown."""
        return self.info.data.content_hash if self.info.data else ""

    @property
    def name_suffix(self) -> str:
        """Suffix of names, and so of the curves, of metrics that are measured on another dataset; else empty."""
        if self.reals is None or self.reals.content_hash == self.training_data_hash or not self.protocol.needs_reals:
            return ""
        return "_on_" + re.sub(r"[^A-Za-z0-9.-]+", "-", Path(self.reals.path).stem)

    def conditions(self) -> dict[str, Any]:
        """What values depend on besides the model; recorded with each value."""
        return {
            "data": (self.reals.content_hash if self.reals else self.training_data_hash)[:16],
            "seed": self.protocol.seed,
            "trunc": self.protocol.truncation_psi,
            "detector": self.protocol.detector_file and str(self.protocol.detector_file),
        }


def measure_file(
    request: Request,
    open_model: Callable[[Path, str], Snapshot],  # from path and device
    device: str,
    progress: Progress = silent,
) -> Results:
    """Measure a model's file, on all ranks. Raises SganError like `measure`, or if a file cannot be opened."""
    snapshot, reals = open_model(request.path, device), None
    if snapshot.info.is_labeled or request.protocol.needs_reals:
        reals = open_training_dataset(snapshot.info, request.reals and request.reals.path, request.size)
    results = measure(request.protocol, snapshot.G, reals, device, progress)
    if reals and snapshot.info.data and request.protocol.needs_reals:
        notes = filter_notes(reals.spec, snapshot.info.data)
        results = dataclasses.replace(results, notes=(*results.notes, *notes))
    return results.with_suffix(request.name_suffix)


def compare_files(
    protocol: EvaluationProtocol,
    a: str,  # path of a dataset, instead of real images
    b: str,  # path of a dataset, instead of generated images
    device: str,
    progress: Progress = silent,
) -> Results:
    """Measure two datasets, on all ranks. Raises SganError like `compare_images`, or if one cannot be opened."""
    return compare_images(protocol, open_dataset(a), open_dataset(b), device, progress)


def is_measured(request: Request) -> bool:
    """Whether values of all requested metrics are recorded beside the file."""
    conditions, metrics = request.conditions(), request.protocol.metrics
    # Lines that training records do not have these keys
    defaults = {"data": request.training_data_hash[:16], "seed": 0, "trunc": 1.0, "detector": None}
    by_value = {m.name(m.outputs[0].suffix): m.name() for m in metrics}
    recorded = {
        line.get("asked") or by_value.get(line.get("metric", ""))
        for line in metric_lines(request.path.parent)
        if line.get("snapshot") == request.path.name
        and all(line.get(key, defaults[key]) == value for key, value in conditions.items())
    }
    return recorded.issuperset(m.name() for m in metrics)


def record(request: Request, results: Results) -> None:
    """Append each value to a file beside the model, except for the bundled model."""
    if request.path == PACKAGED_MODEL:
        return
    names = [m.name() for m in request.protocol.metrics]
    for name, value in results.values.items():
        metric = max((n for n in names if name.startswith(n)), key=len, default=name)
        conditions = {"asked": metric, **request.conditions()}
        with contextlib.suppress(PermissionError):  # in a read-only folder, values are only returned
            record_metric(request.path.parent, name, value, request.info.kimg, request.path.name, **conditions)
