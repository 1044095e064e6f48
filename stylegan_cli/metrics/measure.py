"""Metrics of a model, or of two sets of images: a stream of images -> a detector -> statistics -> a function.

Called on all ranks alike, which get the same numbers. Random numbers come from the seed by counter; the generators of
PyTorch are left as they were.
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
from ..data.dataset import Dataset
from ..errors import SganError
from ..models.generator import Generator
from ..progress import Progress, silent
from .metric import EvaluationProtocol, Metric, Settings
from .passes import Measured, look, measure_path_lengths, measure_with_detectors, of_set, require_detectors
from .path_pairs import PathPairs
from .stream import Fakes

_BATCH_PIXELS = 1 << 22  # of a batch, where nothing else is said


@dataclass(frozen=True)
class Results:
    """What was measured. A name tells what differs from the field's protocol: another number of the model's images,
    other features, truncation, and behind an '@' the hash of weights that are not the known ones."""

    values: dict[str, float]  # by full name, in the order asked for; precision and recall have one each
    higher_is_better: dict[str, bool]  # by the same names
    deviations: dict[str, float]  # kernel distance: its standard error; Inception score: between its ten parts
    num_images: dict[str, tuple[int, int]]  # real ones; the model's, or of path lengths pairs
    notes: tuple[str, ...]  # sentences that belong under a table of these
    seconds: float

    def renamed(self, ending: str) -> Results:
        """The same with an ending to all names."""
        tables = {
            field: {name + ending: value for name, value in getattr(self, field).items()}
            for field in ("values", "higher_is_better", "deviations", "num_images")
        }
        return dataclasses.replace(self, **tables)


def measure(
    protocol: EvaluationProtocol,  # of registry.resolve
    G: Generator,  # on the device, in float32
    data: Dataset | None,  # the real images; None where nothing that is asked for needs them
    device: torch.device | str,
    progress: Progress = silent,  # called on the first rank
) -> Results:
    """Raises SganError if images are too few or of another size than the model's, if a detector's weights are
    missing, or if the model draws numbers that are not finite."""
    began = time.monotonic()
    metrics = protocol.metrics
    _check_model(metrics, G, data)
    check_sizes(metrics, G.config.height, G.config.width)
    check_enough(metrics, data)
    settings = _settings(protocol, torch.device(device), G.config.height * G.config.width, progress)
    classes = torch.from_numpy(data.class_index) if data is not None and G.config.c_dim else None
    drawing = (classes, settings.device, protocol.seed, protocol.truncation_psi)
    with _apart(settings.device):
        measured = measure_with_detectors(
            metrics,
            data,
            lambda wanted, by: look(Fakes(G, *drawing), wanted, by, settings, f"{by.name}, images of the model"),
            settings,
        )
        measured |= measure_path_lengths(metrics, lambda path, lpips: PathPairs(G, lpips, path, *drawing), settings)
    truncation = "" if protocol.truncation_psi == 1 else f"_trunc{protocol.truncation_psi:g}"
    notes = _channel_notes({"the model": G.config.channels} | _channels(metrics, data))
    return _results(metrics, measured, data, truncation, notes, began)


class TrainingMetrics:
    """Metrics as training calls them at every snapshot. Picklable: each process has its own."""

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
        """To be called before a run begins: raises SganError if images are too few, or weights are missing."""
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


def compare_images(
    protocol: EvaluationProtocol,  # its number is cut down to the images that b has; nothing is truncated
    a: Dataset,  # in the place of the real images
    b: Dataset,  # in the place of the model's
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Results:
    """The same with no model. Names tell how many images of b were taken. Raises SganError as `measure` does."""
    began = time.monotonic()
    metrics = [dataclasses.replace(m, num=min(m.num, len(b))) for m in protocol.metrics]
    for m in metrics:
        if m.path is not None:
            raise SganError(f"{m.name()} measures a model, not images.", hint="Give a --model in place of --images.")
    check_enough(metrics, a, b)
    pixels = max(d.spec.height * d.spec.width for d in (a, b))
    settings = _settings(protocol, torch.device(device), pixels, progress)
    with _apart(settings.device):
        measured = measure_with_detectors(
            metrics, a, lambda wanted, by: of_set(b, False, wanted, by, settings), settings
        )
    notes = _channel_notes(_channels(metrics, a) | _channels(metrics, b))
    sizes = [f"{d.spec.height}x{d.spec.width}" for d in (a, b)]
    if sizes[0] != sizes[1]:
        notes.append(f"The sets differ in size: {sizes[0]} and {sizes[1]} (height x width).")
    return _results(metrics, measured, a, "", notes, began)


def _settings(
    protocol: EvaluationProtocol,
    device: torch.device,
    pixels: int,  # of an image
    progress: Progress,
) -> Settings:
    most = 64 if device.type == "cuda" else 8  # beyond which a CPU's caches are too small for a detector
    batch = protocol.batch or min(max(_BATCH_PIXELS // pixels, 1), most)
    progress = progress if distributed.rank() == 0 else silent
    file = None if protocol.detector_file is None else Path(protocol.detector_file)
    return Settings(device, batch, protocol.seed, progress, file)


@contextlib.contextmanager
def _apart(
    device: torch.device,
) -> Iterator[None]:
    """Float32 means float32 here; outside nobody notices: random numbers, precision and memory are as they were."""
    cuda = device.type == "cuda"
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        with torch.no_grad(), torch.random.fork_rng([device] if cuda else []):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
        if cuda:
            torch.cuda.empty_cache()


# ------------------------------------------------------------------------------------------- what goes wrong


def _check_model(metrics: Sequence[Metric], G: Generator, data: Dataset | None) -> None:
    config = G.config
    if data is None:
        if real := [m for m in metrics if m.reals]:
            raise SganError(f"{real[0].name()} compares with real images.", hint="Give them with --data.")
        if config.c_dim:
            raise SganError("This model draws classes as often as its data set has them.", hint="Give it with --data.")
        spec = None
    else:
        spec = data.spec
    if spec and any(m.reals for m in metrics) and (spec.height, spec.width) != (config.height, config.width):
        raise SganError(
            f"The model draws {config.height}x{config.width} (height x width), but the images of {spec.path} are "
            f"read at {spec.height}x{spec.width}.",
            hint=f"Read them with --size {config.height}x{config.width}, or pack them so.",
        )
    if spec and config.c_dim and spec.c_dim != config.c_dim:
        raise SganError(
            f"The model knows {config.c_dim} classes, but {spec.path} is read with {spec.c_dim or 'none'}.",
            hint="Read it with the labels that the model was trained on.",
        )


def check_sizes(
    metrics: Sequence[Metric],
    height: int,  # of the model's images
    width: int,
) -> None:
    """Raises SganError if a network cannot see images so small."""
    for m in metrics:
        if min(height, width) < m.smallest:
            raise SganError(f"{m.name()} takes images of {m.smallest} pixels a side at least, not {height}x{width}.")


def check_enough(
    metrics: Sequence[Metric],
    data: Dataset | None,  # the real ones
    others: Dataset | None = None,  # in the place of the model's
) -> None:
    """Raises SganError unless there are enough images on both sides, and one for each rank."""
    for m in metrics:
        least = max(m.least, distributed.world_size())
        sides = [(m.reals_of(data), data.spec.path)] if m.reals and data is not None else []
        sides.append((m.num, others.spec.path if others else "the model"))
        for count, where in sides:
            if count < least:
                raise SganError(f"{m.name()} takes {least} images at least; of {where} there are {count}.")


# ------------------------------------------------------------------------------------------- what comes out


def _results(
    metrics: Sequence[Metric],
    measured: dict[Metric, Measured],
    data: Dataset | None,
    truncation: str,  # as names tell it
    notes: list[str],
    began: float,
) -> Results:
    values, higher, deviations, num_images = {}, {}, {}, {}
    for m in metrics:
        suffix = truncation + (f"@{measured[m].fingerprint}" if measured[m].fingerprint else "")
        counts = (m.reals_of(data), m.num)
        for output, (value, deviation) in zip(m.outputs, measured[m].values, strict=True):
            name = m.name(output.ending + suffix)
            values[name], higher[name], num_images[name] = value, output.higher_is_better, counts
            if deviation is not None:
                deviations[name] = deviation
        if m.note and (note := m.note(m)):
            notes.append(note)
    return Results(values, higher, deviations, num_images, tuple(notes), time.monotonic() - began)


def _channels(metrics: Sequence[Metric], data: Dataset | None) -> dict[str, int]:
    return {data.spec.path: data.spec.channels} if data is not None and any(m.reals for m in metrics) else {}


def _channel_notes(channels: dict[str, int]) -> list[str]:
    notes = {1: "Gray images were repeated to RGB: {}.", 4: "Transparent images were laid on white: {}."}
    where = {c: ", ".join(name for name, n in channels.items() if n == c) for c in notes}
    return [note.format(where[c]) for c, note in notes.items() if where[c]]
