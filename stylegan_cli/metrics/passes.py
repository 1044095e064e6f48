"""Passes over images, as few as can be: each detector looks at each image once, and at a data set once and for all.

All ranks share a pass; what came of it is on the first rank, which alone makes the values and tells the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .. import cache, distributed
from ..data.dataset import Dataset, DataSpec
from ..detectors import Detector, Lpips, load_detector, load_lpips
from ..errors import SganError
from .metric import LatentPath, Metric, Settings, Value
from .statistics import STATISTICS, Tensors
from .stream import ImageSource, Reals, stream

KIND = "statistics"  # in the cache
_PROTOCOL = 1  # rises when the same images come to give another statistic


@dataclass(frozen=True)
class Want:
    """A statistic that is wanted of a stream."""

    statistic: str  # a name of STATISTICS
    output: str  # of the detector
    count: int  # images


@dataclass(frozen=True)
class Measured:
    values: list[Value]  # one for each of the metric's outputs
    fingerprint: str  # of weights that are not the known ones, else empty


def measure_with_detectors(
    metrics: Sequence[Metric],
    data: Dataset | None,  # the real images
    of_fakes: Callable[[list[Want], Detector], dict[Want, Tensors]],
    settings: Settings,
) -> dict[Metric, Measured]:
    """Those of the metrics that have no path. One detector after the other, so that only one is in memory."""
    served: dict[str, list[Metric]] = {}
    for m in metrics:
        if m.path is None:
            served.setdefault(m.features.detector, []).append(m)
    measured = {}
    for name, some in served.items():
        measured |= _measure_with(name, some, data, of_fakes, settings)
    return measured


def _measure_with(
    name: str,  # of the detector
    metrics: Sequence[Metric],  # that it serves
    data: Dataset | None,
    of_fakes: Callable[[list[Want], Detector], dict[Want, Tensors]],
    settings: Settings,
) -> dict[Metric, Measured]:
    detector = load_detector(name, settings.device, settings.detector_file)
    reals: dict[bool, dict[Want, Tensors]] = {}
    for mirror in (False, True):
        wanted = [_want(m, m.reals_of(data)) for m in metrics if m.reals and m.mirrors(data) == mirror]
        if data is not None and wanted:
            reals[mirror] = of_set(data, mirror, wanted, detector, settings)
    fakes = of_fakes([_want(m, m.num) for m in metrics], detector)
    measured = {}
    for m in metrics:
        real = reals[m.mirrors(data)][_want(m, m.reals_of(data))] if m.reals else {}
        values = _computed(m, real, fakes[_want(m, m.num)], settings)
        measured[m] = Measured(values, unknown(detector))
    return measured


def measure_path_lengths(
    metrics: Sequence[Metric],
    pairs_along: Callable[[LatentPath, Lpips], ImageSource],  # gives distances [n]
    settings: Settings,
) -> dict[Metric, Measured]:
    """Those of the metrics that have a path."""
    measured, paths = {}, [(m, m.path) for m in metrics if m.path is not None]
    if paths:
        lpips = load_lpips("vgg", settings.device, settings.detector_file)
        settings = dataclasses.replace(settings, batch=max(settings.batch // 2, 1))  # a pair is two images
        for m, path in paths:
            want, outputs = _want(m, m.num), lambda distances, name=m.features.output: {name: distances}
            found = look(pairs_along(path, lpips), [want], outputs, settings, m.name())
            measured[m] = Measured(_computed(m, {}, found[want], settings), unknown(lpips))
    return measured


def require_detectors(metrics: Sequence[Metric], file: str | Path | None) -> None:
    """Raises SganError if weights of a network that these metrics use are missing."""
    for path_length, name in dict.fromkeys((m.path is not None, m.features.detector) for m in metrics):
        if path_length:
            load_lpips("vgg", "cpu", file)
        else:
            load_detector(name, "cpu", file)


def of_set(
    dataset: Dataset,
    mirror: bool,
    wanted: Sequence[Want],
    detector: Detector,
    settings: Settings,
) -> dict[Want, Tensors]:
    """Statistics of a set, from the cache where they are there."""
    first = distributed.rank() == 0
    by = f"{detector.name} {detector.fingerprint}"
    wanted = list(dict.fromkeys(wanted))
    keys = {w: statistics_key(dataset.spec, mirror, w.count, f"{w.statistic} {w.output}", by) for w in wanted}
    found = {w: _kept(keys[w]) for w in wanted} if first else {w: {} for w in wanted}
    with cache.claim(KIND, *(keys[w] for w in wanted if first and not found[w])):
        found |= {w: _kept(keys[w]) for w in wanted if first and not found[w]}
        missing = distributed.broadcast_text(" ".join(str(i) for i, w in enumerate(wanted) if not found[w]))
        if missing:
            absent = [wanted[int(i)] for i in missing.split()]
            reals, title = Reals(dataset, mirror, settings.device), f"{detector.name}, {dataset.name}"
            made = look(reals, absent, detector, settings, title, ahead=True)
            found |= made
            for want in absent if first else ():
                with contextlib.suppress(SganError):  # where the folder cannot be written, or is full
                    cache.store(KIND, keys[want], made[want])
    return found


def statistics_key(
    data: DataSpec,
    mirror: bool,
    count: int,  # images
    kind: str,  # of statistic, with the key of the detector's output
    detector: str,  # name and fingerprint
) -> str:
    size = [data.height, data.width, data.channels, data.filter]
    return cache.key(_PROTOCOL, data.content_hash, *size, mirror, count, kind, detector)


def _kept(key: str) -> Tensors:
    """Empty if nothing is."""
    return kept.tensors if (kept := cache.load(KIND, key)) else {}


def look(
    source: ImageSource,
    wanted: Sequence[Want],
    detector: Callable[[Tensor], Tensors],
    settings: Settings,
    title: str,  # for progress
    ahead: bool = False,  # prepare images in a thread
) -> dict[Want, Tensors]:
    """One pass of all ranks together."""
    statistics = {want: STATISTICS[want.statistic](want.output, want.count) for want in wanted}
    count, ranks = max(want.count for want in wanted), distributed.world_size()
    settings.progress(title, 0, count)
    for index, images in stream(source, count, settings.batch, ahead):
        outputs = detector(images)
        for statistic in statistics.values():
            statistic.add(index, outputs)
        if index[0] < ranks:  # the first batch: where it is broken the rest is not worth the time
            source.check()
        settings.progress(title, min(int(index[-1]) + ranks, count), count)
    source.check()
    return {want: statistic.result() for want, statistic in statistics.items()}


def unknown(
    detector: Detector | Lpips,
) -> str:
    """The fingerprint of weights that published figures are not measured with; else nothing."""
    return "" if detector.is_standard else detector.fingerprint


def _want(metric: Metric, count: int) -> Want:
    return Want(metric.statistic, metric.features.output, count)


def _computed(
    metric: Metric,
    real: Tensors,  # its statistic of the reals, empty if it needs none
    fake: Tensors,
    settings: Settings,
) -> list[Value]:
    """What the first rank computes, on every rank, to the bit."""
    text = None
    if distributed.rank() == 0:
        named = dataclasses.replace(settings, progress=lambda what, *count: settings.progress(metric.name(), *count))
        text = json.dumps(metric.compute(real, fake, named))
    return [Value(*value) for value in json.loads(distributed.broadcast_text(text))]
