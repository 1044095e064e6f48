"""Opening a zip of images and reading it once, compared with Python's zipfile.

OMP_NUM_THREADS=1 python benchmarks/bench_data.py

With one thread the clock is process time. The files are in the page cache.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import zipfile
from pathlib import Path
from unittest import mock

import click
import numpy as np
import torch
from _harness import Bench, Run, benchmark, compare
from PIL import Image
from torch import Tensor

from stylegan_cli.data import dataset
from stylegan_cli.data.codec import from_array, png_bytes, to_array
from stylegan_cli.data.sources import ZipSource


class ZipfileSource(ZipSource):
    """A source that reads members with zipfile. Before Python 3.13, seeking to a member's end reads all of it."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._archive = zipfile.ZipFile(path)

    def tail(self, name: str, count: int) -> bytes:
        with self._archive.open(self._members[name]) as member:
            member.seek(-count, os.SEEK_END)
            return member.read()

    def _member(self, name: str, most: int | None = None) -> bytes:
        with self._archive.open(self._members[name]) as member:
            return member.read(most)


@click.command()
@click.option("--packaged/--no-packaged", default=True, help="The bundled dataset.")
@click.option("--small", default=3000, show_default=True, help="Number of 64x64 images.")
@click.option("--large", default=300, show_default=True, help="Number of 256x256 images.")
@benchmark
def main(bench: Bench, packaged: bool, small: int, large: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, Path | None] = {"the bundled dataset": None} if packaged else {}
        for num, side in ((small, 64), (large, 256)):
            paths[f"{num} images of {side}x{side}"] = write_dataset(Path(folder, f"{side}.zip"), num, side)
        for name, path in paths.items():
            candidates = {"ours": reader(ZipSource, path), "zipfile": reader(ZipfileSource, path)}
            row = {"op": "data", "case": f"{name}, opened and read", "dtype": "uint8", "first": "ours", "failed": {}}
            row["wrong"] = [] if torch.equal(*(run(0) for run in candidates.values())) else ["zipfile"]
            times = compare(candidates, bench.device, rounds=bench.rounds)
            row["seconds"] = {name: statistics.median(seconds) for name, seconds in times.items()}
            ratios = [other / ours for other, ours in zip(times["zipfile"], times["ours"], strict=True)]
            bench.add({**row, "ours": row["seconds"]["ours"], "ratio": {"zipfile": statistics.median(ratios)}})


def reader(source: type[ZipSource], path: Path | None) -> Run:
    def run(_: int) -> Tensor:
        with mock.patch.object(dataset, "open_source", lambda path, _: source(Path(path))):
            data = dataset.open_dataset(path)
        return data.images(range(len(data)))

    return run


def write_dataset(path: Path, num: int, side: int) -> Path:
    """Write bundled images with a little noise, so that the files are as large as those of photographs."""
    images, rng = dataset.open_dataset(None), np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(num):
            image = from_array(images.images([i % len(images)])[0].numpy())
            pixels = to_array(image.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int16)
            pixels = (pixels + rng.integers(-4, 5, pixels.shape)).clip(0, 255).astype(np.uint8)
            archive.writestr(f"{i // 1000:05d}/img{i:08d}.png", png_bytes(from_array(pixels)))
    return path


if __name__ == "__main__":
    main()
