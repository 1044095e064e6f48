"""A run folder as training writes it, with invented numbers."""

import json
import math

import numpy as np
import pytest
from PIL import Image

CONFIG = {
    "cfg": "auto",
    "data": {"path": "faces.zip", "num": 40, "height": 32, "width": 48, "classes": ["a", "b"]},
    "generator": {"fir": [1.0, 3.0], "conv_clamp": None},
    "kimg": 100.0,
    "batch": 16,
}


@pytest.fixture
def make_run():
    """make_run(folder, lines=50, grids=4, **files): a run with one line per 2 kimg, by default of 100 kimg."""

    def make(folder, lines=50, grids=4, config=CONFIG, metrics=(), **files):
        folder.mkdir(parents=True)
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
        stats = [
            {
                "kimg": 2.0 * i,
                "seconds": 30.0 * i,
                "sec_per_kimg": 15.0 + i % 3,
                "loss/G": 1 + math.sin(i),
                "loss/D": 0.9,
            }
            for i in range(1, lines + 1)
        ]
        write_lines(folder / "stats.jsonl", stats)
        rng = np.random.default_rng(0)
        for i in range(grids):
            pixels = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"fakes-{10 * i:06d}.png")
            (folder / f"snapshot-{10 * i:06d}.safetensors").touch()
        if grids:
            Image.fromarray(pixels).save(folder / "reals.png")
        for name, values in dict(metrics).items():
            lines = [{"metric": name, "value": value, "kimg": 10 * i} for i, value in enumerate(values)]
            write_lines(folder / f"metric-{name}.jsonl", lines)
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text)
        return folder

    return make


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
