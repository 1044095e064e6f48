"""`sgan noise` end to end: sheets, single images, statistics."""

import json

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.data.images import read_metadata

NAMES = ["all", "coarse", "draw0", "draw1", "fine", "none", "std"]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


@pytest.fixture(scope="module")
def with_strength(tiny_run, tmp_path_factory):
    """Save the tiny run's model with a noise strength in every layer: with_strength(0.5) -> file."""
    from stylegan_cli.snapshot import load_snapshot, save_snapshot

    def make(strength):
        snapshot = load_snapshot(max(tiny_run.glob("snapshot-*")))
        for row in snapshot.G.layers:
            if row.noise:
                snapshot.G.get_submodule(row.name).noise_strength.data.fill_(strength)
        path = tmp_path_factory.mktemp("noise") / "model.safetensors"
        save_snapshot(path, snapshot.G, None, snapshot.info)
        return path

    return make


@pytest.fixture(scope="module")
def noisy(with_strength):
    return with_strength(0.5)


@pytest.fixture
def noise(sgan, noisy, tmp_path):
    """noise('--seeds', '1') -> click's result and the folder."""

    def run(*args, into="out", model=noisy):
        result = sgan("noise", "--model", model, "--outdir", tmp_path / into, "--draws", "5", *args)
        return result, tmp_path / into

    return run


def test_files(noise):
    result, out = noise("--seeds", "1,85", "--json", "-q")
    answer = json.loads(result.stdout)
    names = [f"noise{seed:04d}-{name}.png" for seed in (1, 85) for name in NAMES]
    assert sorted(p.name for p in out.iterdir()) == sorted(["noise.png", *names])
    assert answer["files"][-1] == str(out / "noise.png") and len(answer["files"]) == 15
    assert list(answer["std"]) == ["1", "85"] and answer["white"] > max(answer["std"].values()) > 1
    assert result.stderr == ""
    with Image.open(out / "noise0001-std.png") as std, Image.open(out / "noise0001-fine.png") as fine:
        assert (std.size, std.mode, fine.size, fine.mode) == ((48, 24), "L", (48, 24), "RGBA")
    with Image.open(out / "noise.png") as sheet:
        assert sheet.mode == "RGB" and sheet.width > 7 * 48 * 4 and sheet.height > 2 * 24 * 4


def test_maps_have_a_common_scale(noise):
    result, out = noise("--seeds", "1,2,3", "--json", "-q")
    answer, maps = json.loads(result.stdout), [pixels(out / f"noise{seed:04d}-std.png") for seed in (1, 2, 3)]
    assert max(x.max() for x in maps) == 255
    for mean, gray in zip(answer["std"].values(), maps):
        assert gray.mean() * answer["white"] / 255 == pytest.approx(mean, rel=0.05)


def test_images_equal_those_of_generate(sgan, noise, noisy, tmp_path):
    out = noise("--seeds", "4")[1]
    for mode, name in (("const", "all"), ("none", "none")):
        sgan("generate", "--model", noisy, "--seeds", "4", "--noise-mode", mode, "--outdir", tmp_path / mode, "-q")
        assert np.abs(pixels(tmp_path / mode / "seed0004.png") - pixels(out / f"noise0004-{name}.png")).max() <= 1


def test_output(noise):
    result, out = noise("--seeds", "1,2")
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["1", "2"] and "of 255" in lines[0]
    assert lines[2:] == [str(out / "noise.png")]
    assert noise("--seeds", "1,2", "-q")[0].stdout == f"{out / 'noise.png'}\n"


def test_metadata(noise):
    out = noise("--seeds", "1", "--trunc", "0.7")[1]
    record = read_metadata(out / "noise0001-fine.png")
    assert (record["seed"], record["noise"], record["draws"], record["trunc"]) == ("1", "fine", "5", "0.7")
    assert record["command"].startswith("sgan ") and read_metadata(out / "noise.png")["seeds"] == "[1]"


def test_model_without_noise_warns(noise, with_strength):
    result, out = noise("--seeds", "1", "-q", model=with_strength(0.0))
    assert "strengths are 0" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not pixels(out / "noise0001-std.png").any()


def test_weak_noise_is_noted(noise, with_strength):
    result = noise("--seeds", "1", model=with_strength(1e-4))[0]
    assert "below 1/255" in result.stderr


def test_latent_file(sgan, noise, noisy, tmp_path):
    sgan("generate", "--model", noisy, "--seeds", "5", "--outdir", tmp_path, "--save-w", "-q")
    out = noise("--seeds", tmp_path / "w.npz")[1]
    assert np.abs(pixels(out / "noisew-all.png") - pixels(tmp_path / "seed0005.png")).max() <= 1


@pytest.mark.parametrize(
    ("line", "code"),
    [(["--seeds", "5-1"], 2), (["--draws", "1"], 2), (["--seeds", "no.npz"], 1), (["--class", "1"], 1)],
)
def test_refused(sgan, noisy, tmp_path, line, code):
    result = sgan("noise", "--model", noisy, "--outdir", tmp_path / "out", "-q", *line, code=code)
    assert len(result.stderr.strip().splitlines()) <= 5 and not (tmp_path / "out").exists()
