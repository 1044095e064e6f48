"""Measure metrics of a model, or of two datasets: a stream of images -> a detector -> statistics -> values.

All ranks call these functions and get the same values. Random numbers depend only on the seed and the image's index;
PyTorch's random state does not change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import distributed
from ..data.codec import FILTERS
from ..data.dataset import Dataset, DataSpec
from ..errors import SganError
from ..models.config import GeneratorConfig
from ..models.generator import Generator
from ..models.registry import require_transform
from ..ops import tensor_cores
from ..progress import Progress, silent
from .metric import EvaluationProtocol, Metric, Settings
from .motions import MotionErrors
from .passes import (
    Measurement,
    dataset_statistics,
    measure_equivariance,
    measure_path_lengths,
    measure_with_detectors,
    require_detectors,
    run_pass,
)
from .path_pairs import PathPairs
from .stream import Fakes

_BATCH_PIXELS = 1 << 22  # pixels of a batch by default


@dataclass(frozen=True)
class Results:
    """Measured values.

    Names include what differs from the standard protocol: the number of generated images, the features, truncation,
    and, after an '@', the fingerprint of weights that are not standard.
    """

    values: dict[str, float]  # by full name, in the order of the protocol; some metrics have two values
    higher_is_better: dict[str, bool]  # by the same names
    deviations: dict[str, float]  # standard error of kernel distances; standard deviation of the Inception score
    num_images: dict[str, tuple[int, int]]  # real images; generated images, or pairs for path lengths
    notes: tuple[str, ...]  # sentences to show below the values
    seconds: float

    def with_suffix(self, suffix: str) -> Results:
        """Return a copy with a suffix on all names."""
        tables = {
            field: {name + suffix: value for name, value in getattr(self, field).items()}
            for field in ("values", "higher_is_better", "deviations", "num_images")
        }
        return dataclasses.replace(self, **tables)


def measure(
    protocol: EvaluationProtocol,  # from registry.resolve
    G: Generator,  # on the device, in float32
    data: Dataset | None,  # real images; None if no metric of the protocol needs them
    device: torch.device | str,
    progress: Progress = silent,  # called on the first rank
) -> Results:
    """Measure a model.

    Raises SganError if there are too few images or their size is not the model's, if a detector's weights are missing,
    or if generated images are not finite.
    """
    start = time.monotonic()
    metrics = protocol.metrics
    check_transform(metrics, G.config)
    _check_model(metrics, G, data)
    check_sizes(metrics, G.config.height, G.config.width)
    check_enough(metrics, data)
    settings = _settings(protocol, torch.device(device), G.config.height * G.config.width, progress)
    sampling = (data if _is_labeled(G) else None, settings.device, protocol.seed, protocol.truncation_psi)
    with _isolated(settings.device):
        measured = measure_with_detectors(
            metrics,
            data,
            lambda specs, detector: run_pass(
                Fakes(G, *sampling), specs, detector, settings, f"{detector.name}, images of the model"
            ),
            settings,
        )
        measured |= measure_path_lengths(metrics, lambda path, lpips: PathPairs(G, lpips, path, *sampling), settings)
        measured |= measure_equivariance(metrics, lambda motion: MotionErrors(G, motion, *sampling), settings)
    truncation = "" if protocol.truncation_psi == 1 else f"_trunc{protocol.truncation_psi:g}"
    detected = any(m.motion is None for m in metrics)  # others compare the generated images as they are
    notes = _channel_notes(({"the model": G.config.channels} if detected else {}) | _channels(metrics, data))
    return _results(metrics, measured, data, truncation, notes, start)


class TrainingMetrics:
    """Metrics that training measures at every snapshot. Picklable, because each rank has its own copy."""

    def __init__(
        self,
        protocol: EvaluationProtocol,  # the first value of its first metric of quality decides which snapshot is best
        progress: Progress = silent,
    ):
        # Equivariance says nothing about quality: that of a flat image is perfect.
        quality = [metric for metric in protocol.metrics if metric.motion is None]
        others = [metric for metric in protocol.metrics if metric.motion is not None]
        self.protocol, self.progress = dataclasses.replace(protocol, metrics=[*quality, *others]), progress
        self.higher_is_better = quality[0].outputs[0].higher_is_better if quality else None

    def check(
        self,
        data: Dataset,
        generator: GeneratorConfig,
    ) -> None:
        """Check before a run starts. Raises SganError if there are too few images, weights are missing, or a metric is
        not possible with this generator."""
        check_transform(self.protocol.metrics, generator)
        check_sizes(self.protocol.metrics, data.spec.height, data.spec.width)
        check_enough(self.protocol.metrics, data)
        require_detectors(self.protocol.metrics, self.protocol.detector_file)

    def __call__(
        self,
        G: Generator,
        dataset: Dataset,
        device: torch.device,
    ) -> dict[str, float]:
        return measure(self.protocol, G, dataset, device, self.progress).values


def compare_images(
    protocol: EvaluationProtocol,  # its number of images is limited to those of b; truncation is ignored
    a: Dataset,  # instead of real images
    b: Dataset,  # instead of generated images
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Results:
    """Measure two datasets. Names include the number of images of b. Raises SganError like `measure`."""
    start = time.monotonic()
    metrics = [dataclasses.replace(m, num=min(m.num, len(b))) for m in protocol.metrics]
    for m in metrics:
        if m.needs_model:
            raise SganError(f"{m.name()} measures a model, not images.", hint="Use --model instead of --images.")
    check_enough(metrics, a, b)
    pixels = max(d.spec.height * d.spec.width for d in (a, b))
    settings = _settings(protocol, torch.device(device), pixels, progress)
    with _isolated(settings.device):
        measured = measure_with_detectors(
            metrics, a, lambda specs, detector: dataset_statistics(b, False, specs, detector, settings), settings
        )
    notes = _channel_notes(_channels(metrics, a) | _channels(metrics, b))
    sizes = [f"{d.spec.height}x{d.spec.width}" for d in (a, b)]
    if sizes[0] != sizes[1]:
        notes.append(f"The datasets differ in image size: {sizes[0]} and {sizes[1]} (height x width).")
    notes += filter_notes(a.spec, b.spec)
    return _results(metrics, measured, a, "", notes, start)


def filter_notes(
    a: DataSpec,
    b: DataSpec,
) -> list[str]:
    """Return a warning if both datasets were resized, but not alike; else nothing."""
    filters = [[f for f in (spec.pack_filter, spec.filter) if f in FILTERS] for spec in (a, b)]
    if not all(filters) or filters[0] == filters[1]:
        return []
    first, second = (f"{' then '.join(f)} ({spec.path})" for f, spec in zip(filters, (a, b), strict=True))
    return [
        f"The images were resized with different filters: {first}, {second}. This alone changes the values; "
        "pack both datasets with the same --filter."
    ]


def _settings(
    protocol: EvaluationProtocol,
    device: torch.device,
    pixels: int,  # pixels of an image
    progress: Progress,
) -> Settings:
    max_batch = 64 if device.type == "cuda" else 8  # larger batches exceed a CPU's caches
    batch = protocol.batch or min(max(_BATCH_PIXELS // pixels, 1), max_batch)
    progress = progress if distributed.rank() == 0 else silent
    file = None if protocol.detector_file is None else Path(protocol.detector_file)
    return Settings(device, batch, protocol.seed, progress, file)


@contextlib.contextmanager
def _isolated(
    device: torch.device,
) -> Iterator[None]:
    """Disable TF32 and gradients; afterwards restore precision and random state, and free cached GPU memory."""
    cuda = device.type == "cuda"
    try:
        with tensor_cores(False), torch.no_grad(), torch.random.fork_rng([device] if cuda else []):
            yield
    finally:
        if cuda:
            torch.cuda.empty_cache()


# ------------------------------------------------------------------------------------------- checks


def _check_model(metrics: Sequence[Metric], G: Generator, data: Dataset | None) -> None:
    config, unit = G.config, "label values" if G.label_space.vectors else "classes"
    if data is None:
        if metrics_with_reals := [m for m in metrics if m.max_reals]:
            raise SganError(f"{metrics_with_reals[0].name()} needs real images.", hint="Pass them with --data.")
        if _is_labeled(G):
            raise SganError(
                "Measuring a conditional model needs its dataset, for the frequency of the labels.",
                hint="Pass it with --data.",
            )
        spec = None
    else:
        spec = data.spec
    if spec and any(m.max_reals for m in metrics) and (spec.height, spec.width) != (config.height, config.width):
        raise SganError(
            f"The model generates {config.height}x{config.width} (height x width), but the images of {spec.path} are "
            f"read at {spec.height}x{spec.width}.",
            hint=f"Read or pack them with --size {config.height}x{config.width}.",
        )
    if spec and _is_labeled(G) and spec.c_dim != config.c_dim:
        raise SganError(
            f"The model has {config.c_dim} {unit}, but {spec.path} is read with {spec.describe_labels() or 'none'}.",
            hint="Use the dataset and the labels that the model was trained on.",
        )


def _is_labeled(G: Generator) -> bool:
    """Whether the classes are those of the dataset."""
    return G.config.c_dim > 0 and not G.label_space.codes.values


def check_transform(
    metrics: Sequence[Metric],
    config: GeneratorConfig,
) -> None:
    """Raise SganError if a metric moves the input of a generator that cannot be moved."""
    for m in metrics:
        if m.motion is not None:
            require_transform(config, m.name())


def check_sizes(
    metrics: Sequence[Metric],
    height: int,  # of the model's images
    width: int,
) -> None:
    """Raise SganError if images are too small for a metric."""
    for m in metrics:
        if min(height, width) < m.min_side:
            raise SganError(
                f"{m.name()} needs at least {m.min_side} pixels per side, not {height}x{width} (height x width).",
                hint="Leave this metric out.",
            )


def check_enough(
    metrics: Sequence[Metric],
    data: Dataset | None,  # real images
    fakes: Dataset | None = None,  # instead of generated images
) -> None:
    """Raise SganError unless both sides have enough images for the metrics, and one per rank."""
    for m in metrics:
        min_images = max(m.min_images, distributed.world_size())
        sides = [(m.num_reals(data), data.spec.path)] if m.max_reals and data is not None else []
        sides.append((m.num, fakes.spec.path if fakes else "the model"))
        for count, where in sides:
            if count < min_images:
                raise SganError(
                    f"{m.name()} needs at least {min_images} images, but gets {count} of {where}.",
                    hint="Use more images, or leave this metric out.",
                )


# ------------------------------------------------------------------------------------------- results


def _results(
    metrics: Sequence[Metric],
    measured: dict[Metric, Measurement],
    data: Dataset | None,
    truncation: str,  # suffix of the names
    notes: list[str],
    start: float,  # time
) -> Results:
    values, higher, deviations, num_images = {}, {}, {}, {}
    for m in metrics:
        suffix = truncation + (f"@{measured[m].fingerprint}" if measured[m].fingerprint else "")
        counts = (m.num_reals(data), m.num)
        for output, (value, deviation) in zip(m.outputs, measured[m].values, strict=True):
            name = m.name(output.suffix + suffix)
            values[name], higher[name], num_images[name] = value, output.higher_is_better, counts
            if deviation is not None:
                deviations[name] = deviation
        if m.note and (note := m.note(m, measured[m].values)):
            notes.append(note)
    return Results(values, higher, deviations, num_images, tuple(notes), time.monotonic() - start)


def _channels(metrics: Sequence[Metric], data: Dataset | None) -> dict[str, int]:
    return {data.spec.path: data.spec.channels} if data is not None and any(m.max_reals for m in metrics) else {}


def _channel_notes(channels: dict[str, int]) -> list[str]:
    notes = {1: "Gray images were converted to RGB: {}.", 4: "Transparent images were composited onto white: {}."}
    where = {c: ", ".join(name for name, n in channels.items() if n == c) for c in notes}
    return [note.format(where[c]) for c, note in notes.items() if where[c]]
