"""`sgan convert`, `sgan model info`, and checkpoints of other programs in all commands with --model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image

from stylegan_cli import load
from stylegan_cli.runs import PACKAGED_MODEL
from stylegan_cli.snapshot import load_snapshot, read_info

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture(scope="module")
def foreign(sgan, tmp_path_factory):
    """A small StyleGAN2 in NVIDIA's format."""
    path = tmp_path_factory.mktemp("foreign") / "critters.pkl"
    assert sgan("convert", MODEL, path, "--for", "ada", "-q").stdout == f"{path}\n"
    return path


def generate(sgan, model, folder):
    sgan("generate", "--model", model, "--seeds", "3,4", "--outdir", folder, "-q")
    return [pixels(folder / f"seed000{i}.png") for i in (3, 4)]


def test_round_trip_keeps_the_weights(sgan, foreign, tmp_path):
    sgan("convert", foreign, tmp_path / "again.safetensors", "-q")
    a, b = load_snapshot(MODEL), load_snapshot(tmp_path / "again.safetensors")
    assert a.fingerprint == b.fingerprint and b.D is not None
    assert "critters.pkl" in b.info.origin and "SHA-256" in b.info.origin


def test_converted_model_generates_the_same_images(sgan, foreign, tmp_path):
    a, b = generate(sgan, MODEL, tmp_path / "a"), generate(sgan, foreign, tmp_path / "b")
    assert all(np.abs(x - y).max() <= 1 for x, y in zip(a, b, strict=True))
    z = torch.ones(1, 128)
    assert torch.allclose(load(foreign)(z), load(MODEL)(z), atol=1e-5)


def test_half_precision_without_discriminator(sgan, foreign, tmp_path):
    sgan("convert", foreign, tmp_path / "a.safetensors", "-q")
    sgan("convert", foreign, tmp_path / "b.safetensors", "--half", "--drop-discriminator", "-q")
    assert (tmp_path / "b.safetensors").stat().st_size < 0.35 * (tmp_path / "a.safetensors").stat().st_size
    assert load_snapshot(tmp_path / "b.safetensors").D is None
    with safetensors.safe_open(tmp_path / "b.safetensors", "pt") as f:
        assert f.get_tensor("G.mapping.w_avg").dtype == torch.float16


def test_training_starts_from_a_checkpoint(sgan, foreign, tmp_path, monkeypatch):
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    line = [
        "--data",
        PACKAGED_MODEL.with_name("critters64.zip"),
        "--cfg",
        "demo-stylegan2",
        "--resume",
        foreign,
        "--runs",
        tmp_path,
        "--kimg",
        "0.008",
        "--snap",
        "0.008",
        "--batch",
        "8",
        "--size",
        "32",
    ]
    folder = sgan("train", *line, "-q").stdout.strip()
    assert read_info(f"{folder}/snapshot-000000.008.safetensors").generator == read_info(MODEL).generator
    assert len(list((tmp_path / "cache" / "conversions").glob("*.safetensors"))) == 1


def test_other_commands_accept_a_checkpoint(sgan, foreign, tmp_path):
    sgan("mix", "--model", foreign, "--rows", "1", "--cols", "2", "--outdir", tmp_path, "-q")
    sgan("interpolate", "--model", foreign, "--seeds", "1,2", "--frames", "2", "--out", tmp_path / "a.gif", "-q")
    quick = ["--loss", "discriminator", "--steps", "2", "--outdir", tmp_path, "-q"]
    sgan("project", tmp_path / "mix0001-0002.png", "--model", foreign, *quick)
    with np.load(tmp_path / "projected.npz") as file:
        assert file["w"].shape[0] == 1 and np.isfinite(file["w"]).all()
    with Image.open(tmp_path / "a.gif") as video:
        assert video.size == (128, 128) and video.n_frames > 1  # small ones are enlarged


def test_info(sgan, foreign):
    text = sgan("model", "info", foreign).stdout
    assert "inert" in text and "UNKNOWN" not in text and "functools.partial" in text
    assert "32x32 (height x width) RGB" in text and "StyleGAN2" in text and "channel base 768" in text
    answer = json.loads(sgan("model", "info", MODEL, "--json").stdout)
    assert answer["names"] is None and answer["info"]["kimg"] == 140 and answer["parameters"]["G"] > 100_000


def test_info_lists_unknown_names_in_a_pickle(sgan, tmp_path):
    (tmp_path / "evil.pkl").write_bytes(b"\x80\x04cos\nsystem\n\x8c\x09touch EVIL\x85R.")
    result = sgan("model", "info", tmp_path / "evil.pkl", code=1)
    assert "UNKNOWN  os.system" in result.stdout and "evil.pkl" in result.stderr
    assert not (tmp_path / "EVIL").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["x.safetensors", "y.bin"], "model format"),
        (["x.safetensors", "y.pkl"], "--for"),
        (["x.safetensors", "y.onnx", "--half"], "--half"),
        (["x.safetensors", "y.onnx", "--drop-discriminator"], "--drop-discriminator"),
        (["x.safetensors", "y.pt", "--part", "mapping"], "--part"),
        (["x.safetensors", "y.onnx", "--for", "ada"], "--for"),
        (["missing.pkl", "y.safetensors"], "missing.pkl"),
        (["x.safetensors", "x.safetensors"], "is the input file itself"),
        (["x.safetensors", "y.pt"], "rosinality"),
    ],
)
def test_refused(sgan, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    shutil.copy(MODEL, "x.safetensors")
    result = sgan("convert", *args, "-q", code=None)
    assert message in result.stderr and len(result.stderr.strip().splitlines()) <= 5
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_urls(sgan, foreign, tmp_path, monkeypatch):
    """A URL is downloaded under its name; a hash in the name is checked."""
    from stylegan_cli.cache import sha256_of
    from stylegan_cli.interop import conversion

    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    fetched = []

    def fetch(url, sha256, name):
        fetched.append((url, sha256, name))
        return shutil.copy(foreign, tmp_path / "fetched.pkl") and tmp_path / "fetched.pkl"

    monkeypatch.setattr(conversion, "fetch", fetch)
    right = sha256_of(foreign)
    for url in ("https://x.org/a/ffhq.pkl?download=1", f"https://x.org/ffhq-{right[:8]}.pkl"):
        assert conversion.locate(url).read_bytes() == foreign.read_bytes()
    conversion.locate(f"https://x.org/ffhq-{right}.pkl")
    assert fetched[2][1] == right and fetched[0][1] is None and fetched[0][2].endswith("ffhq.pkl")
    result = sgan("generate", "--model", "https://x.org/ffhq-01234567.pkl", "--outdir", tmp_path / "o", "-q", code=1)
    assert "01234567" in result.stderr and not (tmp_path / "fetched.pkl").exists()
