"""`sgan interpolate` end to end: videos, metadata, errors."""

import json
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from stylegan_cli.data.images import read_metadata
from stylegan_cli.data.video import frame_grids


def frames(path):
    with Image.open(path) as image:
        return np.stack([np.asarray(f.convert("RGB")).astype(int) for f in ImageSequence.Iterator(image)])


@pytest.fixture
def video(sgan, tiny_run, tmp_path):
    """Render with the tiny run, whose images are RGBA of 24 x 48: video('--seeds', '1,2') -> answer, frames."""

    def run(*args, out="a.gif", model=tiny_run):
        line = ["--model", model, "--out", tmp_path / out, "--json", "-q", *args]
        result = sgan("interpolate", *line)
        assert result.stderr == ""
        return json.loads(result.stdout), frames(tmp_path / out)

    return run


@pytest.fixture
def still(sgan, tiny_run, tmp_path):
    """The image of a seed as it looks in a frame."""

    def render(seed):
        sgan("generate", "--model", tiny_run, "--outdir", tmp_path / "s", "--seeds", seed, "-q")
        with Image.open(tmp_path / "s" / f"seed{seed:04d}.png") as image:
            white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        import torch

        (sheet,) = frame_grids([torch.from_numpy(np.array(white)).permute(2, 0, 1)], 1, 1)
        return sheet.permute(1, 2, 0).numpy().astype(int)

    return render


def near(a, b):
    """Whether images are equal up to the palette of a GIF."""
    return np.abs(a - b).mean() < 4


def test_loop_through_seeds(video, still):
    answer, shown = video("--seeds", "1,2,3", "--frames", "4")
    assert answer["frames"] == 12 == len(shown) and answer["keys"] == [["1", "2", "3"]] and answer["fps"] == 30
    assert shown.shape[1:] == (24 * 6, 48 * 6, 3), "on white, with the shorter side enlarged to at least 128"
    assert all(near(shown[4 * i], still(seed)) for i, seed in enumerate((1, 2, 3)))
    assert not near(shown[2], still(1))


@pytest.mark.parametrize("kind", ["spline", "linear", "slerp"])
def test_once(video, still, kind):
    shown = video("--seeds", "1,2", "--frames", "3", "--once", "--kind", kind)[1]
    assert len(shown) == 4 and near(shown[0], still(1)) and near(shown[3], still(2))


def test_truncation(video, still):
    answer, shown = video("--kind", "trunc", "--seeds", "1,2", "--frames", "3", "--sweep", "-1", "1")
    assert len(shown) == 6 and answer["keys"] == [["1"], ["2"]]
    top, bottom = shown[3][:144], shown[3][-144:]  # one column: the images are wide
    assert near(top, still(1)) and near(bottom, still(2)) and not near(shown[0][:144], still(1))


def test_styles(video, still):
    every = video("--kind", "mix", "--styles", "0-7", "--seeds", "1,2", "--frames", "2")[1]
    assert len(every) == 4 and near(every[0], still(1)) and near(every[2], still(2))
    some = video("--kind", "mix", "--styles", "fine", "--seeds", "1,2", "--frames", "2")[1]
    assert near(some[0], still(1)) and not near(some[2], still(2))


def test_grid(video, still):
    answer, shown = video("--grid", "1x2", "--seeds", "1-4", "--frames", "2")
    assert answer["keys"] == [["1", "3"], ["2", "4"]] and shown.shape == (4, 144, 2 * 288, 3)
    assert near(shown[0], np.hstack([still(1), still(2)])) and near(shown[2], np.hstack([still(3), still(4)]))


def test_latent_file_is_a_keyframe(sgan, video, still, tiny_run, tmp_path):
    sgan("generate", "--model", tiny_run, "--outdir", tmp_path, "--seeds", "5", "--save-w", "-q")
    answer, shown = video("--seeds", f"{tmp_path / 'w.npz'},6", "--frames", "2")
    assert answer["keys"] == [["w", "6"]] and near(shown[0], still(5)) and near(shown[2], still(6))


def test_metadata(video, tmp_path):
    for name in ("a.gif", "a.webp"):
        video("--seeds", "1,2", "--frames", "1", "--trunc", "0.7", out=name)
        record = read_metadata(tmp_path / name)
        assert (record["kind"], record["trunc"], record["keys"]) == ("spline", "0.7", "[['1', '2']]")
        assert len(record["model"]) == 16 and record["command"].startswith("sgan ")


def test_files_are_reproducible(video, tmp_path):
    for name in ("a.gif", "b.gif"):
        video("--seeds", "1,2", "--frames", "3", out=name)
    a, b = ((tmp_path / name).read_bytes() for name in ("a.gif", "b.gif"))
    assert a.replace(b"a.gif", b"b.gif") == b


def test_noise_is_equal_in_all_frames(video):
    shown = video("--seeds", "1,1", "--frames", "3", "--batch", "1")[1]
    assert (shown == shown[:1]).all()


def test_path_is_the_last_line(sgan, tiny_run, tmp_path):
    line = ["--model", tiny_run, "--seeds", "1,2", "--frames", "1", "--out", tmp_path / "x" / "a.webp"]
    result = sgan("interpolate", *line)
    assert result.stdout == f"{tmp_path / 'x' / 'a.webp'}\n" and "Model: " in result.stderr


@pytest.mark.parametrize(
    ("options", "file"),
    [
        (["--outdir", "videos"], "videos/interpolate.gif"),
        (["--outdir", "videos", "--out", "a.webp"], "videos/a.webp"),
        (["--outdir", "videos", "--out", "videos/a.webp"], "videos/a.webp"),
        ([], "out/interpolate.gif"),
    ],
)
def test_outdir(sgan, tiny_run, tmp_path, monkeypatch, options, file):
    monkeypatch.chdir(tmp_path)
    line = ["interpolate", "--model", tiny_run, "--seeds", "1,2", "--frames", "1", "-q"]
    assert sgan(*line, *options).stdout == f"{file}\n" and (tmp_path / file).is_file()


def test_outdir_that_contradicts_out(sgan, tmp_path):
    result = sgan("interpolate", "--outdir", tmp_path / "a", "--out", tmp_path / "b" / "c.gif", code=2)
    assert "is not in --outdir" in result.stderr and not list(tmp_path.iterdir())


def test_classes(video, class_run):
    line = ["--seeds", "1,2", "--frames", "2"]
    _, first = video(*line, "--class", "0", model=class_run)
    _, second = video(*line, "--class", "1", model=class_run)
    assert len(first) == len(second) == 4 and not np.array_equal(first, second)
    _, sphere = video(*line, "--kind", "slerp", model=class_run)
    assert len(sphere) == 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--seeds", "4"], "One keyframe"),
        (["--seeds", "0-4", "--grid", "1x2"], "5 keyframes"),
        (["--seeds", "0-1", "--out", "a.avi"], "avi"),
        (["--seeds", "0-1", "--fps", "90"], "90 frames"),
        (["--seeds", "w.npz,1", "--kind", "slerp"], "needs seeds, not files"),
        (["--seeds", "w.npz,1"], "w.npz does not exist"),
        (["--kind", "trunc", "--trunc", "0.7"], "--sweep"),
        (["--kind", "mix", "--styles", "7-8"], "no style 8"),
        (["--seeds", "0-1", "--class", "1"], "no classes"),
    ],
)
def test_refused(sgan, tiny_run, tmp_path, monkeypatch, line, words):
    monkeypatch.chdir(tmp_path)
    result = sgan("interpolate", "--model", tiny_run, "-q", *line, code=None)
    assert words in result.stderr and len(result.stderr.splitlines()) <= 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        ["--seeds", "5-1"],
        ["--grid", "0x2"],
        ["--grid", "a"],
        ["--sweep", "0", "nan", "--kind", "trunc"],
        ["--sweep", "0", "1"],
        ["--styles", "fine"],
        ["--noise-mode", "random"],
        ["--frames", "0"],
        ["--kind", "spiral"],
    ],
)
def test_misused(sgan, line):
    result = sgan("interpolate", *line, code=2)
    assert line[0] in result.stderr and len(result.stderr.strip().splitlines()) <= 5


def test_mp4_without_pyav(sgan, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    result = sgan("interpolate", "--model", tiny_run, "-q", "--out", tmp_path / "a.mp4", code=1)
    assert "pip install 'stylegan-cli[video]'" in result.stderr and not list(tmp_path.iterdir())


def test_mp4(sgan, tiny_run, tmp_path):
    av = pytest.importorskip("av")
    sgan("interpolate", "--model", tiny_run, "-q", "--seeds", "1,2", "--frames", "5", "--out", tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as opened:
        assert sum(1 for _ in opened.decode(video=0)) == 10
        assert json.loads(opened.metadata["comment"])["kind"] == "spline"
