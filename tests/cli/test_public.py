"""Public models: listed, downloaded from a server in this process, checked, converted, and used by their names."""

import contextlib
import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import stylegan_cli
from stylegan_cli import cache, files
from stylegan_cli.errors import SganError
from stylegan_cli.interop import zoo
from stylegan_cli.interop.writing import Output, write_model
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.snapshot import Snapshot, SnapshotInfo, read_info, save_snapshot


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small StyleGAN2, in NVIDIA's format."""
    torch.manual_seed(0)
    G = build_generator(StyleGAN2Config(16, 16, channel_base=128, channel_max=8, z_dim=8, w_dim=8))
    path = tmp_path_factory.mktemp("public") / "small.pkl"
    write_model(Snapshot(G, None, SnapshotInfo(G.config), path), Output(path, repository="ada"))
    return path.read_bytes()


@pytest.fixture
def offer(server, checkpoint, monkeypatch):
    """Fills the table with one model, small-faces, on the server; offer(**fields) changes it."""
    server.body = checkpoint

    def fill(**fields):
        row = {"shows": "faces", "resolution": 16, "family": "stylegan2", "license": "MIT", "commercial": True}
        row |= {"url": server.url.replace(".bin", ".pkl"), "source": "https://example.org", **fields}
        model = zoo.PublicModel("small-faces", **row)
        monkeypatch.setattr(zoo, "public_models", lambda: {model.name: model})
        return model

    fill()
    return fill


def download(name="small-faces.pkl"):
    return cache.folder("downloads") / name


def snapshot():
    return cache.folder("models") / "small-faces.safetensors"


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if p.name[0] != ".") if folder.is_dir() else []


def test_a_model_is_downloaded_converted_and_used_by_its_name(sgan, offer, server, checkpoint, tmp_path):
    sha256 = hashlib.sha256(checkpoint).hexdigest()
    result = sgan("model", "get", "small-faces")
    assert result.stdout.splitlines() == [str(snapshot())]
    shown = result.stderr.splitlines()
    assert shown[0] == "small-faces: faces, 16x16, stylegan2. Source: https://example.org"
    assert shown[1] == "License: MIT. Its author allows commercial use."
    assert "Nobody published its SHA-256: it is recorded" in shown[2]
    assert download("small-faces.pkl.sha256").read_text() == f"{sha256}  small-faces.pkl\n"
    assert f"SHA-256 {sha256}" in read_info(snapshot()).origin

    again = sgan("model", "get", "small-faces", "--json", "-q")  # neither downloaded nor announced again
    facts = json.loads(again.stdout)
    assert not again.stderr and len(server.ranges) == 1
    assert (facts["path"], facts["commercial"], facts["sha256"]) == (str(snapshot()), True, None)

    used = sgan("generate", "--model", "small-faces", "--seeds", "0", "--outdir", tmp_path)
    assert f"Model: {snapshot()}." in used.stderr and (tmp_path / "seed0000.png").is_file()
    assert json.loads(sgan("model", "info", "small-faces", "--json").stdout)["file"] == str(snapshot())
    assert stylegan_cli.load("small-faces").config.width == 16


def test_list(sgan, offer):
    header, row = sgan("model", "list", "FACES", "16").stdout.splitlines()
    assert header.split() == ["name", "shows", "size", "family", "license", "commercial", "here"]
    assert row.split() == ["small-faces", "faces", "16", "stylegan2", "MIT", "yes"]
    sgan("model", "get", "small-faces", "-q")
    quiet = sgan("model", "list", "-q")
    assert quiet.stdout.splitlines()[1].endswith("*") and not quiet.stderr
    assert json.loads(sgan("model", "list", "--json").stdout)[0]["path"] == str(snapshot())
    assert "No public model fits 'cars'." in sgan("model", "list", "cars", code=1).stderr


@pytest.mark.parametrize(("commercial", "terms"), [(False, "Commercial use is not allowed."), (None, "Ask the author")])
def test_the_terms_are_shown_even_if_there_is_no_download(sgan, offer, monkeypatch, commercial, terms):
    offer(commercial=commercial, license="unknown")
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    assert terms in sgan("model", "get", "small-faces", "-q", code=1).stderr


def test_nothing_is_downloaded_by_other_commands(sgan, offer, server):
    for line in (("generate", "--model", "small-faces"), ("model", "info", "small-faces")):
        error = sgan(*line, code=1).stderr
        assert error == "Error: The public model small-faces is not in the cache.\nGet it: sgan model get small-faces\n"
    with pytest.raises(SganError, match="not in the cache"):
        stylegan_cli.open("small-faces")
    assert not server.ranges


def test_unknown_names(sgan, offer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = sgan("model", "get", "small-face", code=1).stderr
    assert "There is no public model 'small-face'.\nDid you mean small-faces? " in error
    error = sgan("generate", "--model", "faces", code=1).stderr
    assert "faces is neither a file nor a public model.\nDid you mean small-faces? " in error
    for path in ("small-faces.pkl", "./small-faces", "cars"):  # a path, and nothing similar
        assert f"{Path(path)} does not exist." in sgan("generate", "--model", path, code=1).stderr
    (tmp_path / "facet").mkdir()  # a file or folder that resembles it is the nearer guess
    assert "faces does not exist.\nDid you mean facet?" in sgan("generate", "--model", "faces", code=1).stderr
    (tmp_path / "small-faces").mkdir()  # as is one that has the name
    assert "small-faces contains no snapshot" in sgan("generate", "--model", "small-faces", code=1).stderr


def test_a_cut_download_continues(sgan, offer, server, checkpoint):
    server.cut = 0
    download().parent.mkdir()
    download("small-faces.pkl.part").write_bytes(checkpoint[:1000])
    error = sgan("model", "get", "small-faces", code=1).stderr
    assert "the connection was cut" in error and f"or put the file at {download()}" in error
    assert visible(download().parent) == ["small-faces.pkl.part"] and not snapshot().exists()
    server.cut = None
    sgan("model", "get", "small-faces")
    assert server.ranges[-1] == "bytes=1000-" and snapshot().is_file()


def test_a_download_with_another_hash_than_the_published_one(sgan, offer):
    offer(sha256="0" * 64)
    error = sgan("model", "get", "small-faces", code=1).stderr
    assert f"not {'0' * 64}; the download was discarded." in error and "Nobody published" not in error
    assert visible(download().parent) == [] and not snapshot().exists()


def test_a_later_download_must_have_the_recorded_hash(sgan, offer, server, checkpoint):
    sgan("model", "get", "small-faces", "-q")
    record = download("small-faces.pkl.sha256")
    first = record.read_text()
    for path in (snapshot(), download()):
        path.unlink()
    server.body = checkpoint + b"\0"
    error = sgan("model", "get", "small-faces", code=1).stderr
    assert "the download was discarded." in error and f"remove {record} and run again." in error
    download().write_bytes(server.body)  # put there by hand
    error = sgan("model", "get", "small-faces", code=1).stderr
    assert f"{download()} has the SHA-256" in error and f"remove {record} and run again." in error
    assert record.read_text() == first and not snapshot().exists()
    download().write_bytes(checkpoint)
    sgan("model", "get", "small-faces", "-q")
    assert snapshot().is_file()


def test_a_wrong_file_that_was_put_there(sgan, offer, server, checkpoint):
    offer(sha256=hashlib.sha256(checkpoint).hexdigest())
    download().parent.mkdir()
    download().write_bytes(b"other")
    error = sgan("model", "get", "small-faces", code=1).stderr
    assert f"{download()} has the SHA-256" in error and "Put the right file there, or remove it" in error
    assert not server.ranges and download().read_bytes() == b"other"


def test_a_web_page(sgan, offer, server):
    """As Google Drive sends instead of a large file."""
    server.body = b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning"
    error = sgan("model", "get", "small-faces", code=1).stderr
    assert "weights.pkl is a web page, not the file small-faces.pkl itself." in error
    assert f"Open it in a browser, download the file, and put it at {download()}." in error
    assert visible(download().parent) == []


def test_a_file_that_is_not_a_model_is_kept_and_its_hash_is_not_recorded(sgan, offer, server):
    server.body = b"<?xml version='1.0'?><Error>"
    error = sgan("model", "get", "small-faces", code=1).stderr
    assert "is an XML text" in error and f"to download it again, remove {download()}." in error
    assert visible(download().parent) == ["small-faces.pkl"] and visible(snapshot().parent) == []


def test_offline_the_file_can_be_put_there(sgan, offer, server, checkpoint, monkeypatch):
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    error = sgan("model", "get", "small-faces", code=1).stderr
    assert "License: MIT." in error and f"Put the file at {download()}." in error and "weights.pkl" in error
    download().parent.mkdir(exist_ok=True)
    download().write_bytes(checkpoint)
    assert sgan("model", "get", "small-faces", "-q").stdout == f"{snapshot()}\n"
    assert not server.ranges


def test_a_full_disk_while_downloading(sgan, offer, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, block):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_full(path, mode="r", **options):
        return Full(open(path, mode, **options)) if str(path).endswith(".part") else open(path, mode, **options)

    monkeypatch.setattr("stylegan_cli.download.open", open_full, raising=False)
    error = sgan("model", "get", "small-faces", code=1).stderr
    assert f"Cannot write {download()}: No space left on device." in error
    assert "Set SGAN_CACHE to a writable folder with enough space." in error
    monkeypatch.undo()


def test_a_full_disk_while_converting(sgan, offer, server, monkeypatch):
    @contextlib.contextmanager
    def full(path):
        with files.atomic_path(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    monkeypatch.setattr("stylegan_cli.snapshot.atomic_path", full)
    error = sgan("model", "get", "small-faces", code=1).stderr
    assert f"Cannot write {snapshot()}: No space left on device." in error and "The download is kept" in error
    assert visible(snapshot().parent) == []
    monkeypatch.setattr("stylegan_cli.snapshot.atomic_path", files.atomic_path)
    sgan("model", "get", "small-faces", "-q")
    assert snapshot().is_file() and len(server.ranges) == 1


def test_snapshots_of_other_versions_are_converted_again_unless_the_download_is_gone(sgan, offer, server):
    sgan("model", "get", "small-faces", "-q")
    current, G = read_info(snapshot()), stylegan_cli.load("small-faces")
    for old in (SnapshotInfo(G.config, version="0.1"), None):
        if old:
            save_snapshot(snapshot(), G, None, old)
        else:
            snapshot().write_bytes(b"damaged")
        sgan("model", "get", "small-faces", "-q")
        assert read_info(snapshot()) == current
    save_snapshot(snapshot(), G, None, SnapshotInfo(G.config, version="0.1"))
    download().unlink()
    sgan("model", "get", "small-faces", "-q")
    assert read_info(snapshot()).version == "0.1" and len(server.ranges) == 1
    snapshot().write_bytes(b"damaged")
    sgan("model", "get", "small-faces", "-q")
    assert read_info(snapshot()) == current and len(server.ranges) == 2


def test_the_table_comes_with_the_package_and_needs_no_torch(tmp_path):
    code = (
        "import sys; from stylegan_cli.cli import main\ntry: main(['model', 'list', 'r3gan'])\nexcept SystemExit: pass"
    )
    command = [sys.executable, "-c", f"{code}\nassert 'torch' not in sys.modules"]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"SGAN_CACHE": str(tmp_path)})
    assert result.returncode == 0 and result.stdout.count("r3gan-") == 5, result.stderr
