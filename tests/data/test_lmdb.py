"""LMDBs as sources of datasets."""

import io
import json
import multiprocessing
import sys

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.pack import pack
from stylegan_cli.errors import SganError

lmdb = pytest.importorskip("lmdb", reason="needs the extra lmdb")


def encoded(seed, size, format="PNG"):
    pixels = np.random.default_rng([seed, size]).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def write(path, items, **options):
    with lmdb.open(str(path), map_size=1 << 28, **options) as environment, environment.begin(write=True) as transaction:
        for key, value in items.items():
            transaction.put(key, value)
    return path


def as_rosinality(count, sizes=(8, 16), format="PNG"):
    """The keys of prepare_data.py."""
    images = {f"{size}-{i:05d}".encode(): encoded(i, size, format) for size in sizes for i in range(count)}
    return {**images, b"length": str(count).encode()}


def pixels_of(files):
    return np.stack([np.asarray(Image.open(io.BytesIO(f)).convert("RGB")).transpose(2, 0, 1) for f in files])


def packed(src, tmp_path, **options):
    report = pack(src, tmp_path / "out.zip", **options)
    return report, open_dataset(report.path).images(range(report.num)).numpy()


@pytest.mark.parametrize(
    ("format", "where"),
    [*(("PNG", where) for where in ("folder", "file", "above", "other name")), ("JPEG", "file"), ("WEBP", "folder")],
)
def test_the_largest_size_unless_another_is_stored(tmp_path, format, where):
    items = as_rosinality(5, format=format)
    src = tmp_path / "a" / "faces.lmdb"
    src.parent.mkdir()
    write(src, items, subdir=where != "other name")
    src = {"folder": src, "file": src / "data.mdb", "above": src.parent, "other name": src}[where]
    for size, options in ((16, {}), (8, {"size": (8, 8)})):
        expected = pixels_of([items[f"{size}-{i:05d}".encode()] for i in range(5)])
        report, result = packed(src, tmp_path, strict=True, workers=1, **options)
        assert np.array_equal(result, expected)
        other = f"{24 - size}-*"
        assert report.skipped == ((other, "another size of the same images"),)
        data = open_dataset(src, **options)
        assert np.array_equal(data.images(range(5)).numpy(), expected)
        assert data.spec.open().spec == data.spec
    assert open_dataset(src).resized(8, 8).spec.open().spec.source_height == 16


def test_several_processes(tmp_path):
    """An LMDB that is open must not be opened again, also not in a fork."""
    items = as_rosinality(70)
    src, expected = write(tmp_path / "a", items), pixels_of([items[f"16-{i:05d}".encode()] for i in range(70)])
    data = open_dataset(src)
    for workers in (1, 3):
        assert np.array_equal(packed(src, tmp_path, workers=workers)[1], expected)
    assert np.array_equal(data.images(range(70)).numpy(), expected)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(data._source.read, ("16-00003",)) == items[b"16-00003"]


def test_order_of_numbers(tmp_path):
    items = {f"8-{i:05d}".encode(): encoded(i, 8) for i in (99_999, 100_000, 2)}
    report, result = packed(write(tmp_path / "a", items), tmp_path)
    assert np.array_equal(result, pixels_of([items[k] for k in (b"8-00002", b"8-99999", b"8-100000")]))
    assert report.num == 3 and report.skipped == ()


def test_files_not_taken_and_images_packed_are_all(tmp_path):
    items = as_rosinality(6)
    del items[b"16-00001"], items[b"8-00005"]
    items |= {b"16-00002": items[b"16-00002"][:-30], b"16-00007": encoded(7, 16), b"8-00009": encoded(9, 8)}
    items |= {b"16-00003": b"", b"note": b"hello"}
    src = write(tmp_path / "a", items)
    report, result = packed(src, tmp_path)
    assert np.array_equal(result, pixels_of([items[f"16-{i:05d}".encode()] for i in (0, 4, 5, 7)]))
    reasons = dict(report.skipped)
    assert {k: v for k, v in reasons.items() if k != "16-00002"} == {
        "16-00001": "it is missing",
        "16-00003": "the file is empty",
        "16-00009": "it is missing",
        "8-*": "another size of the same images",
        "note": "its key is not SIZE-INDEX",
    }
    assert "16-00002" in reasons
    with pytest.raises(SganError, match="4 files that cannot be read as images: 16-00001"):
        pack(src, tmp_path / "o.zip", strict=True)
    with pytest.raises(SganError, match="3 unreadable images"):
        open_dataset(src)


@pytest.mark.parametrize("length", [b"many", b"-1", b"99999999999999", b"9" * 5000, b""])
def test_length_that_is_none(tmp_path, length):
    report, _ = packed(write(tmp_path / "a", as_rosinality(2) | {b"length": length}), tmp_path)
    assert report.num == 2 and dict(report.skipped)["length"] == "it is not a number of images"


def test_other_keys(tmp_path):
    """As in the LMDBs of LSUN: every value that is an image is one."""
    items = {bytes([65 + i]) * 5 + b"\xff" * (i == 3): encoded(i, 16, "WEBP") for i in range(4)}
    report, result = packed(write(tmp_path / "a", {**items, b"about": b"text"}), tmp_path)
    assert np.array_equal(result, pixels_of(items.values()))
    assert [name for name, _ in report.skipped] == ["about"]


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_truncated(tmp_path, kept):
    """LMDB itself dies of a bus error."""
    path = write(tmp_path / "a", as_rosinality(200)) / "data.mdb"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(SganError, match="data.mdb is truncated: it has"):
        pack(tmp_path / "a", tmp_path / "o.zip")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SganError, match="data.mdb cannot be read"):
        pack(tmp_path / "a", tmp_path / "o.zip")


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_random_damage(tmp_path):
    """LMDB itself aborts the process in a fifth of these."""
    path = write(tmp_path / "a", as_rosinality(60)) / "data.mdb"
    whole, rng, outcomes = path.read_bytes(), np.random.default_rng(0), set()
    for i in range(40):
        data, start = bytearray(whole), 4096 * int(rng.integers(len(whole) // 4096))
        if i % 2:
            data[start : start + 4096] = bytes(4096) if i % 4 == 1 else rng.bytes(4096)
        for position in rng.integers(0, len(data), 4 if i % 2 == 0 else 0):
            data[position] = rng.integers(256)
        path = tmp_path / f"{i}.mdb"
        path.write_bytes(data)
        try:
            report = pack(path, tmp_path / "o.zip", workers=1)
            outcomes.add(report.num == 60)
        except SganError as e:
            assert str(path) in str(e)
            outcomes.add(type(e))
    assert outcomes == {True, False, SganError}


def test_images_beside_it_and_several(tmp_path):
    (tmp_path / "src").mkdir()
    write(tmp_path / "src" / "a", as_rosinality(2))
    write(tmp_path / "src" / "b", as_rosinality(2))
    with pytest.raises(SganError, match="more than one dataset: "):
        pack(tmp_path / "src", tmp_path / "o.zip")
    Image.new("RGB", (8, 8)).save(tmp_path / "src" / "x.png")
    report = pack(tmp_path / "src", tmp_path / "o.zip")
    assert report.num == 1 and dict(report.skipped)["a/data.mdb"] == "LMDB: pass the file itself"
    (tmp_path / "src" / "a" / "notes.txt").write_text("x")
    assert "notes.txt" in dict(pack(tmp_path / "src" / "a", tmp_path / "o.zip").skipped)
    with pytest.raises(SganError, match="contains no images"):
        pack(write(tmp_path / "empty", {}), tmp_path / "o.zip")


def test_missing_package(sgan, tmp_path, monkeypatch):
    write(tmp_path / "a", as_rosinality(2))
    monkeypatch.setitem(sys.modules, "lmdb", None)
    result = sgan("data", "pack", tmp_path / "a", tmp_path / "o.zip", code=1)
    assert result.stderr.count("\n") <= 2 and "pip install 'stylegan-cli[lmdb]'" in result.stderr


def test_commands(sgan, tmp_path):
    src = write(tmp_path / "a", as_rosinality(8))
    info = json.loads(sgan("data", "info", src, "--json").stdout)
    assert (info["num"], info["height"], info["ignored"]) == (8, 16, {"8-*": "another size of the same images"})
    line = ["train", "--data", src, "--runs", tmp_path / "runs", "--batch", "4", "--cbase", "64", "--cmax", "8"]
    sgan(*line, "--map-depth", "2", "--aug", "noaug", "--kimg", "0.008", "--snap", "0.008")
    sgan("train", "--resume", next((tmp_path / "runs").iterdir()), "--kimg", "0.016")
