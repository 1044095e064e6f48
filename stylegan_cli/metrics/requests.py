"""A model's file measured, and what is recorded beside it: which values are known, and which are of other images."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.dataset import DataSpec, open_dataset
from ..progress import Progress, silent
from ..runs import PACKAGED_MODEL, metric_lines, record_metric
from ..snapshot import Snapshot, SnapshotInfo, open_training_set
from .measure import Results, compare_images, measure
from .metric import EvaluationProtocol


@dataclass(frozen=True)
class Request:
    """What is asked of a model's file."""

    protocol: EvaluationProtocol
    path: Path
    info: SnapshotInfo  # of the file
    reals: DataSpec | None = None  # real images in place of those that it was trained on
    size: tuple[int, int] | None = None  # to read real images at; None: the model's

    @property
    def own_data(self) -> str:
        """The content hash of the images that the model was trained on; empty where it is not known."""
        return self.info.data.content_hash if self.info.data else ""

    @property
    def name_ending(self) -> str:
        """On other images than the model's own a metric has a name, and a curve, of its own."""
        if self.reals is None or self.reals.content_hash == self.own_data or not self.protocol.needs_reals:
            return ""
        return "_on_" + re.sub(r"[^A-Za-z0-9.-]+", "-", Path(self.reals.path).stem)

    def circumstances(self) -> dict[str, Any]:
        """What values depend on beside the model; recorded with each."""
        return {
            "data": (self.reals.content_hash if self.reals else self.own_data)[:16],
            "seed": self.protocol.seed,
            "trunc": self.protocol.truncation_psi,
            "detector": self.protocol.detector_file and str(self.protocol.detector_file),
        }


def measure_file(
    request: Request,
    open_model: Callable[[Path, str], Snapshot],  # of a file, on a device
    device: str,
    progress: Progress = silent,
) -> Results:
    """On all ranks alike. Raises SganError as `measure` does, and if the model or its data set cannot be opened."""
    snapshot, reals = open_model(request.path, device), None
    if snapshot.info.generator.c_dim or request.protocol.needs_reals:
        reals = open_training_set(snapshot.info, request.reals and request.reals.path, request.size)
    results = measure(request.protocol, snapshot.G, reals, device, progress)
    return results.renamed(request.name_ending)


def compare_files(
    protocol: EvaluationProtocol,
    a: str,  # a zip or folder, in the place of the real images
    b: str,  # in the place of the model's
    device: str,
    progress: Progress = silent,
) -> Results:
    """On all ranks alike. Raises SganError as `compare_images` does, and if a set cannot be opened."""
    return compare_images(protocol, open_dataset(a), open_dataset(b), device, progress)


def is_measured(request: Request) -> bool:
    """Whether a value of this file is recorded beside it for all that is asked."""
    circumstances, metrics = request.circumstances(), request.protocol.metrics
    # What training records says nothing of them
    usual = {"data": request.own_data[:16], "seed": 0, "trunc": 1.0, "detector": None}
    by_value = {m.name(m.outputs[0].ending): m.name() for m in metrics}
    known = {
        line.get("asked") or by_value.get(line.get("metric", ""))
        for line in metric_lines(request.path.parent)
        if line.get("snapshot") == request.path.name
        and all(line.get(key, usual[key]) == value for key, value in circumstances.items())
    }
    return known.issuperset(m.name() for m in metrics)


def record(request: Request, results: Results) -> None:
    """Add a line for each value to a file beside the model, unless that is the one in the package."""
    if request.path == PACKAGED_MODEL:
        return
    names = [m.name() for m in request.protocol.metrics]
    for name, value in results.values.items():
        asked = max((n for n in names if name.startswith(n)), key=len, default=name)
        how = {"asked": asked, **request.circumstances()}
        with contextlib.suppress(PermissionError):  # somebody else's folder: the value is returned all the same
            record_metric(request.path.parent, name, value, request.info.kimg, request.path.name, **how)
