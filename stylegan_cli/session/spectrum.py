"""Average power spectra of datasets and models, in one comparison."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import BUNDLED, Dataset, open_dataset
from ..data.images import to_rgb
from ..errors import SganError
from ..files import write_atomic
from ..interop.conversion import find_model, model_info
from ..interop.opening import open_model
from ..metrics.spectrum import PowerSums, Spectrum
from ..metrics.stream import Reals
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.generate import SamplingOptions, generate_images, map_seeds
from .model import OutputImage

_BATCH = 32  # images of a dataset at a time


@dataclass(frozen=True)
class SpectrumRequest:
    """The datasets and models to compare."""

    data: Sequence[str | Path] = ()  # datasets; the first one's mean and standard deviation are used for all
    models: Sequence[str | Path] = ()  # model files, run folders or URLs
    num: int = 1000  # maximum number of images of each
    seed: int = 0  # of a model's first image; the others follow
    size: tuple[int, int] | None = None  # (height, width) to read datasets at; None: that of the first model, if any
    batch: int | None = None  # generated images at a time; None: depends on their size

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            num=checks.integer(1),
            seed=checks.integer(0, 2**32 - 1),
            size=checks.list_of(checks.integer(1), "(64, 64)", 2, 2),
            batch=checks.integer(1),
        )
        if not self.data and not self.models:
            raise SganError("There is nothing to compare.", hint="Name datasets or models.")


@dataclass(frozen=True, eq=False)
class SpectrumResult:
    """The spectra, datasets first, and their plots."""

    spectra: list[Spectrum]
    heat_maps: OutputImage
    slices: OutputImage

    def summary(self) -> list[dict]:
        """The slices of each spectrum, as plain numbers."""
        return [_describe(spectrum) for spectrum in self.spectra]

    def save(
        self,
        folder: str | Path,
    ) -> list[Path]:  # the slices last
        """Write spectrum-NAME.npz for each input, spectrum.json with all slices, and both plots."""
        files = []
        for spectrum in self.spectra:
            content = io.BytesIO()
            numbers = {"num": spectrum.num, "mean": spectrum.mean, "std": spectrum.std}
            size = spectrum.height if spectrum.height == spectrum.width else (spectrum.height, spectrum.width)
            np.savez(content, spectrum=spectrum.power, image_size=size, **numbers)
            files.append(Path(folder) / f"spectrum-{_file_part(spectrum.name)}.npz")
            write_atomic(files[-1], content.getvalue())
        files.append(Path(folder) / "spectrum.json")
        write_atomic(files[-1], json.dumps(self.summary()) + "\n")
        return [*files, self.heat_maps.save(folder), self.slices.save(folder)]


def measure_spectra(
    request: SpectrumRequest,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> SpectrumResult:
    """Compute the spectra of all inputs, relative to the mean and the standard deviation of the first. Raises SganError
    if one cannot be opened, or if their images differ in size."""
    from ..metrics.spectrum_plots import heat_maps, slices

    paths = [find_model(model)[0] for model in request.models]
    generators = [model_info(path).generator for path in paths]
    size = request.size or ((generators[0].height, generators[0].width) if generators else None)
    datasets = [_open(data, size, progress) for data in request.data]
    names = _unique([*(d.name for d in datasets), *map(_model_name, paths)])
    sizes = [*((d.spec.height, d.spec.width) for d in datasets), *((g.height, g.width) for g in generators)]
    for name, other in zip(names, sizes, strict=True):
        if other != sizes[0]:
            raise SganError(
                f"{names[0]} has images of {sizes[0][0]}x{sizes[0][1]} (height x width), but {name} of "
                f"{other[0]}x{other[1]}.",
                hint="Compare datasets and models of one size, or read datasets with --size.",
            )
    sums = [_sum_dataset(dataset, request, device, progress) for dataset in datasets]
    sums += [_sum_model(path, request, device, progress) for path in paths]
    mean, std = sums[0].moments
    if std == 0:
        raise SganError(f"All pixels of {names[0]} are equal: they have no spectrum.")
    spectra = [one.spectrum(name, mean, std) for one, name in zip(sums, names, strict=True)]
    metadata = {"inputs": ", ".join(names), "num": str([s.num for s in spectra]), "seed": str(request.seed)}
    return SpectrumResult(
        spectra,
        OutputImage("spectrum-heatmap", heat_maps(spectra), metadata),
        OutputImage("spectrum-slices", slices(spectra), metadata),
    )


def default_inputs(
    runs: str | Path = "runs",  # the folder of all runs
) -> tuple[tuple[str, ...], tuple[str, ...], str]:  # datasets, models, a sentence that says which model it is
    """The newest model, and the dataset that it was trained on, if it is still there."""
    path, description = find_model(None, runs)
    spec = model_info(path).data
    has_data = spec is not None and (spec.path == BUNDLED or Path(spec.path).exists())
    return (spec.path,) if spec and has_data else (), (str(path),), description


def _open(data: str | Path, size: tuple[int, int] | None, progress: Progress) -> Dataset:
    dataset = open_dataset(data, progress=progress)
    return dataset.resized(*size) if size else dataset


def _sum_dataset(
    dataset: Dataset, request: SpectrumRequest, device: torch.device | str, progress: Progress
) -> PowerSums:
    sums = PowerSums(dataset.spec.height, dataset.spec.width, device)
    images = Reals(dataset, False, torch.device(device))
    count = min(request.num, len(dataset))
    progress(dataset.name, 0, count)
    for index in torch.arange(count).split(_BATCH):
        sums.add(images(index))
        progress(dataset.name, sums.num, count)
    return sums


def _sum_model(path: Path, request: SpectrumRequest, device: torch.device | str, progress: Progress) -> PowerSums:
    """Without truncation, with random classes and noise, as published."""
    G = open_model(path, device).G
    sums = PowerSums(G.config.height, G.config.width, device)
    options = SamplingOptions(noise_mode="random", batch=request.batch).for_measuring()
    seeds = [(request.seed + i) % 2**32 for i in range(request.num)]
    images: Iterator[Tensor] = generate_images(
        G,
        lambda i, j: map_seeds(G, seeds[i:j], options),
        seeds,
        options,
        lambda _, done, total: progress(_model_name(path), done, total),
    )
    for image in images:
        sums.add(to_rgb(image[None]))
    return sums


def _model_name(path: Path) -> str:
    """The run folder and the snapshot, or the name of the file."""
    is_snapshot = path.stem.startswith(("snapshot-", "best"))
    return f"{path.resolve().parent.name} {path.stem}" if is_snapshot else path.stem


def _unique(names: list[str]) -> list[str]:
    return [f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name for i, name in enumerate(names)]


def _file_part(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def _describe(spectrum: Spectrum) -> dict:
    slices = {"0": spectrum.horizontal, "45": spectrum.diagonal}
    return {
        "name": spectrum.name,
        "num": spectrum.num,
        "mean": spectrum.mean,
        "std": spectrum.std,
        "slices": {
            angle: {"cycles": frequencies.tolist(), "decibels": np.round(decibels, 3).tolist()}
            for angle, (frequencies, decibels) in slices.items()
        },
    }
