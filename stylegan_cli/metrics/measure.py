"""Metrics of a model, or of two sets of pictures: a stream of pictures -> a detector -> statistics -> a function.

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
from ..detectors import load_lpips
from ..errors import SganError
from ..models.generator import Generator
from .passes import How, Measured, look, measure_path_length, measure_with_detectors, of_set
from .perceptual_path_length import SMALLEST, PathPairs
from .registry import DIMENSIONS, STANDARD, Metric, resolve
from .stream import Fakes

_BATCH_PIXELS = 1 << 22  # of a batch, where nothing else is said


@dataclass(frozen=True)
class Results:
    """What was measured. A name tells what differs from the field's protocol: another number of the model's pictures,
    other features, truncation, and behind an '@' the hash of weights that are not the known ones."""

    values: dict[str, float]  # by full name, in the order asked for; precision and recall have one each
    higher_is_better: dict[str, bool]  # by the same names
    deviations: dict[str, float]  # kernel distance: its standard error; Inception score: between its ten parts
    pictures: dict[str, tuple[int, int]]  # real ones; the model's, or of path lengths pairs
    notes: tuple[str, ...]  # sentences that belong under a table of these
    seconds: float


def measure(
    names: Sequence[str],  # of registry.METRICS, or short
    G: Generator,  # on the device, in float32
    data: Dataset | None,  # the real pictures; None where nothing that is asked for needs them
    device: torch.device | str,
    *,
    num: int | None = None,  # pictures of the model; None: as the names say
    batch: int | None = None,  # pictures at a time on one rank; None: by their size
    seed: int = 0,
    truncation_psi: float = 1.0,
    features: str = STANDARD,  # a name of registry.FEATURES
    detector_file: str | Path | None = None,  # weights of the one detector that these metrics use
    progress: bool = True,  # bars, where stderr is a terminal
) -> Results:
    """Raises SganError if a metric is unknown, if pictures are too few or of another size than the model's, if a
    detector's weights are missing, or if the model draws numbers that are not finite."""
    began = time.monotonic()
    metrics = resolve(names, num, features)
    _check_model(metrics, G, data)
    check_sizes(metrics, G.config.height, G.config.width)
    check_enough(metrics, data)
    device = torch.device(device)
    batch = batch or _batch(G.config.height * G.config.width, device)
    how = How(device, batch, seed, progress, _one_file(detector_file, metrics))
    classes = torch.from_numpy(data.class_index) if data is not None and G.config.c_dim else None
    drawing = (classes, device, seed, truncation_psi)
    with _apart(device):
        found = measure_with_detectors(
            [m for m in metrics if m.path is None],
            data,
            lambda wanted, by: look(Fakes(G, *drawing), wanted, by, how, f"{by.name}, pictures of the model"),
            how,
        )
        if paths := [m for m in metrics if m.path is not None]:
            lpips = load_lpips("vgg", device, how.file)
            halved = dataclasses.replace(how, batch=max(batch // 2, 1))  # a pair is two pictures
            for m in paths:
                found[m] = measure_path_length(m, PathPairs(G, lpips, m.path, *drawing), lpips, halved)
    truncation = "" if truncation_psi == 1 else f"_trunc{truncation_psi:g}"
    notes = _channel_notes({"the model": G.config.channels} | _channels(metrics, data))
    return _results(metrics, found, data, truncation, notes, began)


def compare_images(
    a: Dataset,  # in the place of the real pictures
    b: Dataset,  # in the place of the model's
    names: Sequence[str],
    device: torch.device | str = "cpu",
    *,
    num: int | None = None,  # pictures of b; None: as the names say, or as many as there are
    batch: int | None = None,
    seed: int = 0,
    features: str = STANDARD,
    detector_file: str | Path | None = None,
    progress: bool = True,
) -> Results:
    """The same with no model. Names tell how many pictures of b were taken. Raises SganError as `measure` does."""
    began = time.monotonic()
    metrics = [dataclasses.replace(m, num=min(m.num, len(b))) for m in resolve(names, num, features)]
    for m in metrics:
        if m.path is not None:
            raise SganError(f"{m.name()} measures a model, not pictures.", hint="Give a --model in place of --images.")
    check_enough(metrics, a, b)
    device = torch.device(device)
    batch = batch or _batch(max(d.spec.height * d.spec.width for d in (a, b)), device)
    how = How(device, batch, seed, progress, _one_file(detector_file, metrics))
    with _apart(device):
        found = measure_with_detectors(metrics, a, lambda wanted, by: of_set(b, False, wanted, by, how), how)
    notes = _channel_notes(_channels(metrics, a) | _channels(metrics, b))
    sizes = [f"{d.spec.height}x{d.spec.width}" for d in (a, b)]
    if sizes[0] != sizes[1]:
        notes.append(f"The sets differ in size: {sizes[0]} and {sizes[1]} (height x width).")
    return _results(metrics, found, a, "", notes, began)


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


def _batch(pixels: int, device: torch.device) -> int:
    most = 64 if device.type == "cuda" else 8  # beyond which a CPU's caches are too small for a detector
    return min(max(_BATCH_PIXELS // pixels, 1), most)


# ------------------------------------------------------------------------------------------- what goes wrong


def _check_model(metrics: Sequence[Metric], G: Generator, data: Dataset | None) -> None:
    config = G.config
    if data is None:
        if real := [m for m in metrics if m.reals]:
            raise SganError(f"{real[0].name()} compares with real pictures.", hint="Give them with --data.")
        if config.c_dim:
            raise SganError("This model draws classes as often as its data set has them.", hint="Give it with --data.")
        spec = None
    else:
        spec = data.spec
    if spec and any(m.reals for m in metrics) and (spec.height, spec.width) != (config.height, config.width):
        raise SganError(
            f"The model draws {config.height}x{config.width} (height x width), but the pictures of {spec.path} are "
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
    height: int,  # of the model's pictures
    width: int,
) -> None:
    """Raises SganError if the perceptual distance cannot see pictures so small."""
    for m in metrics:
        least = SMALLEST * (2 if m.path and m.path.crop else 1)
        if m.path and min(height, width) < least:
            raise SganError(f"{m.name()} takes pictures of {least} pixels a side at least, not {height}x{width}.")


def check_enough(
    metrics: Sequence[Metric],
    data: Dataset | None,  # the real ones
    others: Dataset | None = None,  # in the place of the model's
) -> None:
    """Raises SganError unless there are enough pictures on both sides, and one for each rank."""
    for m in metrics:
        least = max(m.least, distributed.world_size())
        sides = [(m.reals_of(data), data.spec.path)] if m.reals else []
        sides.append((m.num, others.spec.path if others else "the model"))
        for count, where in sides:
            if count < least:
                raise SganError(f"{m.name()} takes {least} pictures at least; of {where} there are {count}.")


def _one_file(file: str | Path | None, metrics: Sequence[Metric]) -> Path | None:
    detectors = list(dict.fromkeys(m.detector for m in metrics))
    if file is None:
        return None
    if len(detectors) > 1:
        raise SganError(
            f"One file of weights, {file}, cannot serve {' and '.join(detectors)}, which these metrics take.",
            hint="Ask for one of them at a time, or put all files into a folder and name it in SGAN_DETECTORS.",
        )
    return Path(file)


# ------------------------------------------------------------------------------------------- what comes out


def _results(
    metrics: Sequence[Metric],
    found: dict[Metric, Measured],
    data: Dataset | None,
    truncation: str,  # as names tell it
    notes: list[str],
    began: float,
) -> Results:
    values, higher, deviations, pictures = {}, {}, {}, {}
    for m in metrics:
        suffix = truncation + (f"@{found[m].fingerprint}" if found[m].fingerprint else "")
        counts = (m.reals_of(data), m.num)
        for (ending, better_up), (value, deviation) in zip(m.outputs, found[m].values, strict=True):
            name = m.name(ending + suffix)
            values[name], higher[name], pictures[name] = value, better_up, counts
            if deviation is not None:
                deviations[name] = deviation
        if m.kind == "fid" and m.num <= DIMENSIONS[m.detector]:
            notes.append(
                f"{m.name()}: with {m.num} pictures for {DIMENSIONS[m.detector]} features it is far too high; compare "
                "it only with others of as few."
            )
    return Results(values, higher, deviations, pictures, tuple(notes), time.monotonic() - began)


def _channels(metrics: Sequence[Metric], data: Dataset | None) -> dict[str, int]:
    return {data.spec.path: data.spec.channels} if data is not None and any(m.reals for m in metrics) else {}


def _channel_notes(channels: dict[str, int]) -> list[str]:
    told = {1: "Grey pictures were repeated to RGB: {}.", 4: "Transparent pictures were laid on white: {}."}
    where = {c: ", ".join(name for name, n in channels.items() if n == c) for c in told}
    return [text.format(where[c]) for c, text in told.items() if where[c]]
