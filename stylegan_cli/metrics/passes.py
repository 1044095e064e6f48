"""Passes over images, as few as possible: each detector sees each generated image once, and statistics of datasets are
cached.

All ranks share a pass; the first rank gets its statistics, computes the values and sends them to the others.
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
from .metric import LatentPath, Metric, Motion, Settings, Value
from .statistics import STATISTICS, Tensors
from .stream import ImageSource, Reals, stream

CACHE_KIND = "statistics"
_PROTOCOL = 2  # part of cache keys: to be increased when a change affects statistics


@dataclass(frozen=True)
class StatisticSpec:
    """A statistic of a stream."""

    statistic: str  # key of STATISTICS
    output: str  # key of the detector's output
    count: int  # number of images


@dataclass(frozen=True)
class Measurement:
    values: list[Value]  # one per output of the metric
    fingerprint: str  # of weights that are not standard, else empty


def measure_with_detectors(
    metrics: Sequence[Metric],
    data: Dataset | None,  # real images
    fake_statistics: Callable[[list[StatisticSpec], Detector], dict[StatisticSpec, Tensors]],
    settings: Settings,
) -> dict[Metric, Measurement]:
    """Measure the metrics of images, one detector after the other, so that only one is in memory."""
    by_detector: dict[str, list[Metric]] = {}
    for m in metrics:
        if not m.needs_model:
            by_detector.setdefault(m.features.detector, []).append(m)
    measured = {}
    for name, group in by_detector.items():
        measured |= _measure_with(name, group, data, fake_statistics, settings)
    return measured


def _measure_with(
    name: str,  # name of the detector
    metrics: Sequence[Metric],  # metrics that use it
    data: Dataset | None,
    fake_statistics: Callable[[list[StatisticSpec], Detector], dict[StatisticSpec, Tensors]],
    settings: Settings,
) -> dict[Metric, Measurement]:
    detector = load_detector(name, settings.device, settings.detector_file)
    reals: dict[bool, dict[StatisticSpec, Tensors]] = {}
    for mirror in (False, True):
        specs = [_spec(m, m.num_reals(data)) for m in metrics if m.max_reals and m.uses_mirrored(data) == mirror]
        if data is not None and specs:
            reals[mirror] = dataset_statistics(data, mirror, specs, detector, settings)
    fakes = fake_statistics([_spec(m, m.num) for m in metrics], detector)
    measured = {}
    for m in metrics:
        real = reals[m.uses_mirrored(data)][_spec(m, m.num_reals(data))] if m.max_reals else {}
        values = _compute_values(m, real, fakes[_spec(m, m.num)], settings)
        measured[m] = Measurement(values, nonstandard_fingerprint(detector))
    return measured


def measure_path_lengths(
    metrics: Sequence[Metric],
    make_pairs: Callable[[LatentPath, Lpips], ImageSource],  # the source yields distances [n]
    settings: Settings,
) -> dict[Metric, Measurement]:
    """Measure the metrics with a path."""
    measured, paths = {}, [(m, m.path) for m in metrics if m.path is not None]
    if paths:
        lpips = load_lpips("vgg", settings.device, settings.detector_file)
        for m, path in paths:
            values = _measure_pairs(m, make_pairs(path, lpips), settings)
            measured[m] = Measurement(values, nonstandard_fingerprint(lpips))
    return measured


def measure_equivariance(
    metrics: Sequence[Metric],
    make_pairs: Callable[[Motion], ImageSource],  # the source yields errors [n, 2]
    settings: Settings,
) -> dict[Metric, Measurement]:
    """Measure the metrics with a motion."""
    measured = {}
    for m in metrics:
        if m.motion is not None:
            measured[m] = Measurement(_measure_pairs(m, make_pairs(m.motion), settings), "")
    return measured


def _measure_pairs(
    metric: Metric,
    source: ImageSource,  # yields numbers [n, ...], each from two images
    settings: Settings,
) -> list[Value]:
    settings = dataclasses.replace(settings, batch=max(settings.batch // 2, 1))
    spec, output = _spec(metric, metric.num), metric.features.output
    statistics = run_pass(source, [spec], lambda numbers: {output: numbers}, settings, metric.name())
    return _compute_values(metric, {}, statistics[spec], settings)


def require_detectors(metrics: Sequence[Metric], file: str | Path | None) -> None:
    """Raise SganError if the weights of a detector that these metrics use are missing."""
    with_detectors = [m for m in metrics if m.motion is None]
    for path_length, name in dict.fromkeys((m.path is not None, m.features.detector) for m in with_detectors):
        if path_length:
            load_lpips("vgg", "cpu", file)
        else:
            load_detector(name, "cpu", file)


def dataset_statistics(
    dataset: Dataset,
    mirror: bool,
    specs: Sequence[StatisticSpec],
    detector: Detector,
    settings: Settings,
) -> dict[StatisticSpec, Tensors]:
    """Statistics of a dataset, from the cache if they are there."""
    is_first = distributed.rank() == 0
    detector_key = f"{detector.name} {detector.fingerprint}"
    specs = list(dict.fromkeys(specs))
    keys = {s: statistics_key(dataset.spec, mirror, s.count, f"{s.statistic} {s.output}", detector_key) for s in specs}
    statistics = {s: _load_cached(keys[s]) for s in specs} if is_first else {s: {} for s in specs}
    with cache.claim(CACHE_KIND, *(keys[s] for s in specs if is_first and not statistics[s])):
        statistics |= {s: _load_cached(keys[s]) for s in specs if is_first and not statistics[s]}
        text = distributed.broadcast_text(" ".join(str(i) for i, s in enumerate(specs) if not statistics[s]))
        if text:
            missing = [specs[int(i)] for i in text.split()]
            reals, title = Reals(dataset, mirror, settings.device), f"{detector.name}, {dataset.name}"
            computed = run_pass(reals, missing, detector, settings, title, ahead=True)
            statistics |= computed
            for spec in missing if is_first else ():
                with contextlib.suppress(SganError):  # the cache folder may be read-only or full
                    cache.store(CACHE_KIND, keys[spec], computed[spec])
    return statistics


def statistics_key(
    data: DataSpec,
    mirror: bool,
    count: int,  # number of images
    kind: str,  # statistic, and key of the detector's output
    detector: str,  # name and fingerprint
) -> str:
    size = [data.height, data.width, data.channels, data.filter]
    return cache.key(_PROTOCOL, data.content_hash, *size, mirror, count, kind, detector)


def _load_cached(key: str) -> Tensors:
    """Load a statistic from the cache; empty if it is not there."""
    return entry.tensors if (entry := cache.load(CACHE_KIND, key)) else {}


def run_pass(
    source: ImageSource,
    specs: Sequence[StatisticSpec],
    detector: Callable[[Tensor], Tensors],
    settings: Settings,
    title: str,  # for progress
    ahead: bool = False,  # whether to prepare images in a thread
) -> dict[StatisticSpec, Tensors]:
    """Compute statistics in one pass, shared by all ranks."""
    statistics = {spec: STATISTICS[spec.statistic](spec.output, spec.count) for spec in specs}
    count, ranks = max(spec.count for spec in specs), distributed.world_size()
    settings.progress(title, 0, count)
    for index, images in stream(source, count, settings.batch, ahead):
        outputs = detector(images)
        for statistic in statistics.values():
            statistic.add(index, outputs)
        if index[0] < ranks:  # check the first batch, to fail early
            source.check()
        settings.progress(title, min(int(index[-1]) + ranks, count), count)
    source.check()
    return {spec: statistic.result() for spec, statistic in statistics.items()}


def nonstandard_fingerprint(
    detector: Detector | Lpips,
) -> str:
    """The fingerprint of weights that are not standard; else empty."""
    return "" if detector.is_standard else detector.fingerprint


def _spec(metric: Metric, count: int) -> StatisticSpec:
    return StatisticSpec(metric.statistic, metric.features.output, count)


def _compute_values(
    metric: Metric,
    real: Tensors,  # statistic of the reals, empty if it needs none
    fake: Tensors,  # statistic of the fakes
    settings: Settings,
) -> list[Value]:
    """Compute values on the first rank and broadcast them, so that they are identical on all ranks."""
    text = None
    if distributed.rank() == 0:
        settings = dataclasses.replace(
            settings, progress=lambda what, *count, report=settings.progress: report(metric.name(), *count)
        )
        text = json.dumps(metric.compute(real, fake, settings))
    return [Value(*value) for value in json.loads(distributed.broadcast_text(text))]
