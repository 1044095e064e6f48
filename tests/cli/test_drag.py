"""`sgan edit drag` end to end: files, figures, the use of its results, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.data.images import read_metadata
from stylegan_cli.models.progan.config import ProGANConfig
from stylegan_cli.models.registry import build_generator
from stylegan_cli.snapshot import SnapshotInfo, save_snapshot

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters

POINTS = "16,12:19,12;8,20:6,20"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def drag(sgan, here):
    """Drag with a model of 32x32: drag('--points', ...) -> click's result."""

    def run(*args, model=MODEL, code=0):
        return sgan("edit", "drag", *args, "--model", model, code=code)

    return run


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def write_mask(path, size=(32, 32), box=(4, 6, 28, 24), mode="1", edge=None):
    mask = Image.new(mode, size)
    mask.paste(255 if mode == "L" else 1, box)
    if edge is not None:
        mask.putpixel(box[:2], edge)
    mask.save(path)
    return path


def test_drag(drag, here):
    result = drag("--seed", "3", "--points", POINTS)
    assert result.stdout == "out/drag.png\n" and names(here / "out") == ["drag-points.png", "drag.npz", "drag.png"]
    lines = result.stderr.splitlines()[-2:]
    assert lines[0].startswith("16,12: now ") and lines[0].endswith(" pixels from 19,12")
    assert lines[1].startswith("8,20: now ") and all(float(line.split(", ")[-1].split()[0]) <= 1 for line in lines)
    record = read_metadata(here / "out/drag.png")
    assert record["start"] == "3" and record["points"] == POINTS and "seed" not in record
    assert "sgan edit drag" in record["command"]


def test_json(drag, here):
    answer = json.loads(drag("--points", "16,12:19,12", "--steps", "2", "--json", "-q").stdout)
    assert answer["steps"] == 2 and answer["files"] == ["out/drag.npz", "out/drag.png", "out/drag-points.png"]
    (point,) = answer["points"]
    assert point["handle"] == [16, 12] and point["target"] == [19, 12] and point["distance"] > 1


def test_video_and_the_next_drag(drag, sgan, here):
    mask = write_mask(here / "mask.png")
    drag("--seed", "3", "--points", POINTS, "--steps", "3", "--mask", mask, "--video", "steps.gif", "--trunc", "0.7")
    with Image.open(here / "steps.gif") as video:
        assert video.size == (256, 256) and video.n_frames >= 2
    assert read_metadata(here / "out/drag.png")["trunc"] == "0.7"
    drag("--latents", "out/drag.npz", "--points", "10,10:11,12", "--steps", "2", "--outdir", "next")
    assert read_metadata(here / "next/drag.png")["start"] == "out/drag.npz"
    sgan("generate", "--from-w", "out/drag.npz", "--outdir", "same", "--model", MODEL, "-q")
    sgan("mix", "--rows", "out/drag.npz", "--cols", "1", "--outdir", "mixed", "--model", MODEL, "-q")
    images = [np.asarray(Image.open(path)) for path in ("out/drag.png", "same/w0000.png")]
    assert np.array_equal(*images)


def test_of_a_class(drag, class_run):
    result = drag("--points", "6,6:8,6", "--steps", "2", "--class", "1", model=class_run)
    assert read_metadata(result.stdout.strip())["class"] == "1"


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "There are no points to drag"),
        (["--points", ""], "'' is not a valid pair of points"),
        (["--points", "1,2"], "'1,2' is not a valid pair of points. Use X,Y:X,Y"),
        (["--points", "1,2:3,4;5,6:7"], "'5,6:7' is not a valid pair of points"),
        (["--points", "1,2:3,x"], "'1,2:3,x' is not"),
        (["--points", "1,2:3,nan"], "'1,2:3,nan' is not"),
        (["--points", "1,2:3,40"], "The point 3,40 is outside of the image, which is 32x32"),
        (["--points", "1,2:3,4", "--seed", "1", "--latents", "x.npz"], "--seed and --latents both name the image"),
        (["--points", "1,2:3,4", "--latents", "missing.npz"], "missing.npz does not exist"),
        (["--points", "1,2:3,4", "--mask", "missing.png"], "missing.png does not exist"),
        (["--points", "1,2:3,4", "--mask", "small.png"], "The mask small.png is 16x16, but the image is 32x32"),
        (["--points", "1,2:3,4", "--mask", "gray.png"], "gray.png has pixels of gray level 100"),
        (["--points", "1,2:3,4", "--mask", "black.png"], "The mask black.png lets nothing move"),
        (["--points", "1,2:3,4", "--video", "x.avi"], "'avi' is not a supported video format"),
        (["--points", "1,2:3,4", "--layer", "b7.conv1"], "no layer 'b7.conv1'"),
        (["--points", "1,2:3,4", "--lr", "0"], "0 is not in the range"),
        (["--points", "1,2:3,4", "--mask", "drag.png", "--outdir", "."], "drag.png would be overwritten"),
    ],
)
def test_mistakes(drag, here, args, message):
    write_mask(here / "small.png", (16, 16), (2, 2, 9, 9))
    write_mask(here / "gray.png", mode="L", edge=100)
    write_mask(here / "black.png", box=(0, 0, 0, 0))
    write_mask(here / "drag.png")
    files = names(here)
    result = drag(*args, code=None)
    assert message in " ".join(result.stderr.split()) and not result.stdout
    assert set(names(here)) - {"cache"} == set(files)


def test_latents_are_not_overwritten(drag, here):
    drag("--points", "6,6:8,6", "--steps", "1")
    before = (here / "out/drag.npz").read_bytes()
    result = drag("--points", "6,6:8,6", "--latents", "out/drag.npz", code=1)
    assert "out/drag.npz would be overwritten" in result.stderr and (here / "out/drag.npz").read_bytes() == before


def test_model_without_styles(drag, here):
    G = build_generator(ProGANConfig(16, 16, z_dim=8, channel_base=128, channel_max=8))
    save_snapshot("flat.safetensors", G, None, SnapshotInfo(G.config))
    result = drag("--points", "6,6:8,6", model="flat.safetensors", code=1)
    assert "Dragging needs a model with styles" in result.stderr and not (here / "out").exists()
