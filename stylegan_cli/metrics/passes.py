"""Passes over pictures, as few as can be: each detector looks at each picture once, and at a data set once and for all.

All ranks share a pass; what came of it is on the first rank, which alone makes the values and tells the others.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import distributed
from ..cache import claim
from ..data.dataset import Dataset
from ..detectors import Detector, Lpips, load_detector
from .cache import KIND, load_statistics, save_statistics, statistics_key
from .frechet import frechet_distance
from .inception_score import inception_score
from .kernel import kernel_distance
from .perceptual_path_length import perceptual_path_length
from .precision_recall import density_coverage, precision_recall
from .progress import bar
from .registry import Metric
from .statistics import KINDS, Tensors
from .stream import Pictures, Reals, stream


@dataclass(frozen=True)
class How:
    """What all passes of one measurement have in common."""

    device: torch.device
    batch: int  # pictures at a time on one rank
    seed: int = 0
    progress: bool = False
    file: Path | None = None  # weights in place of the detector's


@dataclass(frozen=True)
class Want:
    """A statistic that is wanted of a stream."""

    kind: str  # a name of KINDS
    key: str  # of the detector's output
    count: int  # pictures


Values = list[tuple[float, float | None]]  # each with its deviation where one is known


@dataclass(frozen=True)
class Measured:
    values: Values  # one for each of the metric's outputs
    fingerprint: str  # of weights that are not the known ones, else empty


def measure_with_detectors(
    metrics: Sequence[Metric],  # no path lengths
    data: Dataset | None,  # the real pictures
    of_fakes: Callable[[list[Want], Detector], dict[Want, Tensors]],
    how: How,
) -> dict[Metric, Measured]:
    """One detector after the other, so that only one is in memory."""
    found = {}
    for name in dict.fromkeys(m.detector for m in metrics):
        found |= _measure_with(name, [m for m in metrics if m.detector == name], data, of_fakes, how)
    return found


def _measure_with(
    name: str,  # of the detector
    metrics: Sequence[Metric],  # that it serves
    data: Dataset | None,
    of_fakes: Callable[[list[Want], Detector], dict[Want, Tensors]],
    how: How,
) -> dict[Metric, Measured]:
    detector = load_detector(name, how.device, how.file)
    reals, found = {}, {}
    for mirror in (False, True):
        wanted = [_want(m, m.reals_of(data)) for m in metrics if m.reals and m.mirrors(data) == mirror]
        if wanted:
            reals[mirror] = of_set(data, mirror, wanted, detector, how)
    fakes = of_fakes([_want(m, m.num) for m in metrics], detector)
    for m in metrics:
        real = reals[m.mirrors(data)][_want(m, m.reals_of(data))] if m.reals else {}
        found[m] = Measured(_shared(_values, m, real, fakes[_want(m, m.num)], how), unknown(detector))
    return found


def measure_path_length(
    metric: Metric,
    pairs: Pictures,  # gives distances [n]
    lpips: Lpips,
    how: How,
) -> Measured:
    want = Want("features", "distances", metric.num)
    found = look(pairs, [want], lambda distances: {"distances": distances}, how, metric.name())
    return Measured(_shared(_values, metric, {}, found[want], how), unknown(lpips))


def of_set(
    dataset: Dataset,
    mirror: bool,
    wanted: Sequence[Want],
    detector: Detector,
    how: How,
) -> dict[Want, Tensors]:
    """Statistics of a set, from the cache where they are there."""
    first = distributed.rank() == 0
    by = f"{detector.name} {detector.fingerprint}"
    wanted = list(dict.fromkeys(wanted))
    keys = {w: statistics_key(dataset.spec, mirror, w.count, f"{w.kind} {w.key}", by) for w in wanted}
    found = {w: load_statistics(keys[w]) or {} for w in wanted} if first else {w: {} for w in wanted}
    with claim(KIND, *(keys[w] for w in wanted if first and not found[w])):
        found |= {w: load_statistics(keys[w]) or {} for w in wanted if first and not found[w]}
        absent = distributed.broadcast_text(" ".join(str(i) for i, w in enumerate(wanted) if not found[w]))
        if absent:
            absent, title = [wanted[int(i)] for i in absent.split()], f"{detector.name}, {dataset.name}"
            found |= (made := look(Reals(dataset, mirror, how.device), absent, detector, how, title, True))
            for want in absent if first else ():
                save_statistics(keys[want], made[want])
    return found


def look(
    pictures: Pictures,
    wanted: Sequence[Want],
    detector: Callable[[Tensor], Tensors],
    how: How,
    title: str,  # of the bar
    ahead: bool = False,  # prepare pictures in a thread
) -> dict[Want, Tensors]:
    """One pass of all ranks together."""
    statistics = {want: KINDS[want.kind](want.key, want.count) for want in wanted}
    count, ranks = max(want.count for want in wanted), distributed.world_size()
    with bar(how.progress, title, total=count, unit="picture") as shown:
        for index, images in stream(pictures, count, how.batch, ahead):
            outputs = detector(images)
            for statistic in statistics.values():
                statistic.add(index, outputs)
            if index[0] < ranks:  # the first batch: where it is broken the rest is not worth the time
                pictures.check()
            shown.update(min(len(index) * ranks, count - shown.n))
    pictures.check()
    return {want: statistic.result() for want, statistic in statistics.items()}


def unknown(
    detector: Detector | Lpips,
) -> str:
    """The fingerprint of weights that published figures are not measured with; else nothing."""
    return "" if detector.known else detector.fingerprint


def _want(metric: Metric, count: int) -> Want:
    return Want(metric.statistic, metric.key, count)


def _values(
    metric: Metric,
    real: Tensors,  # its statistic of the reals, empty if it needs none
    fake: Tensors,
    how: How,
) -> Values:
    if metric.kind == "fid":
        return [(frechet_distance(real["mean"], real["cov"], fake["mean"], fake["cov"]), None)]
    if metric.kind == "is":
        return [inception_score(fake["counts"], fake["sums"], fake["negentropies"])]
    if metric.kind == "ppl":
        return [(perceptual_path_length(fake["features"]), None)]
    x, y = (side["features"].to(how.device) for side in (real, fake))
    track = functools.partial(_tracked, how.progress, metric.name())
    if metric.kind == "kid":
        return [kernel_distance(x, y, seed=how.seed, track=track)]
    both = (precision_recall if metric.kind == "pr" else density_coverage)(x, y, track=track)
    return [(value, None) for value in both]


def _tracked(progress: bool, title: str, items: Sequence) -> Iterator:
    with bar(progress, title, total=len(items)) as shown:
        for item in items:
            yield item
            shown.update()


def _shared(make: Callable[..., Values], *arguments: object) -> Values:
    """What the first rank makes, on every rank, to the bit."""
    text = json.dumps(make(*arguments)) if distributed.rank() == 0 else None
    return [tuple(value) for value in json.loads(distributed.broadcast_text(text))]
