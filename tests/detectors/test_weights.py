"""Where weights are looked for, what may lie there, and what is said when there are none."""

import dataclasses
import hashlib

import pytest

from stylegan_cli.detectors import load_detector, weights
from stylegan_cli.detectors.weights import SOURCES, find_weights
from stylegan_cli.errors import SganError

BODY = b"weights"
FIRST, SECOND = (s.file for s in SOURCES["inception-2015"][::2])


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch, tmp_path):
    """An empty cache, PyTorch's too, and no network."""
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    monkeypatch.delenv("SGAN_DETECTORS", raising=False)


@pytest.fixture
def published(monkeypatch):
    """As if BODY were what is published."""
    sources = tuple(dataclasses.replace(s, sha256=hashlib.sha256(BODY).hexdigest()) for s in SOURCES["inception-2015"])
    monkeypatch.setitem(weights.SOURCES, "inception-2015", sources)


def put(path, body=BODY):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def test_a_newcomer_is_told_what_to_do(tmp_path):
    with pytest.raises(SganError) as e:
        load_detector("inception-2015")
    source = SOURCES["inception-2015"][0]
    assert all(word in str(e.value) for word in (source.file, source.url, source.sha256, "SGAN_OFFLINE"))
    for word in (str(tmp_path / "cache" / "downloads" / FIRST), "SGAN_DETECTORS", "--detector", "efficientnet-lite0"):
        assert word in e.value.hint
    assert len(f"Error: {e.value}\n{e.value.hint}".splitlines()) <= 5


def test_given_by_hand(tmp_path, published):
    path = put(tmp_path / "any name")
    assert find_weights("inception-2015", path).known
    put(path, b"mine")
    found = find_weights("inception-2015", str(path))
    assert not found.known and found.fingerprint == hashlib.sha256(b"mine").hexdigest()[:8]
    with pytest.raises(SganError, match="There is no file"):
        find_weights("inception-2015", tmp_path / "none")


def test_own_folder_takes_any_hash(tmp_path, monkeypatch, published):
    monkeypatch.setenv("SGAN_DETECTORS", str(tmp_path / "own"))
    with pytest.raises(SganError, match="which is no folder"):
        find_weights("inception-2015")
    path = put(tmp_path / "own" / SECOND, b"mine")
    put(tmp_path / "cache" / "downloads" / FIRST)
    found = find_weights("inception-2015")
    assert found.path == path and not found.known
    put(tmp_path / "own" / FIRST)
    assert find_weights("inception-2015").known


@pytest.mark.parametrize("folder", ["cache/downloads", "torch/hub/checkpoints"])
def test_caches_are_trusted_by_hash_only(tmp_path, published, folder):
    path = put(tmp_path / folder / SECOND, b"damaged")
    with pytest.raises(SganError, match="is not here"):
        find_weights("inception-2015")
    put(path)
    assert find_weights("inception-2015") == weights.Found(path, hashlib.sha256(BODY).hexdigest(), True)


def test_torchvisions_vgg_is_told_apart(tmp_path, monkeypatch):
    """The papers' precision and recall have NVIDIA's file; LPIPS has torchvision's."""
    sources = SOURCES["vgg16"]
    hashes = {s.file: hashlib.sha256(put(tmp_path / s.file, s.file.encode()).read_bytes()).hexdigest() for s in sources}
    monkeypatch.setitem(SOURCES, "vgg16", tuple(dataclasses.replace(s, sha256=hashes[s.file]) for s in sources))
    assert [find_weights("vgg16", tmp_path / s.file).known for s in sources] == [True, False]


def test_nvidias_vgg_is_lpips_under_its_hash(tmp_path, monkeypatch):
    """What its lpips0 ... 4 are is recorded nowhere: a distance with them carries the file's hash."""
    body = put(tmp_path / "vgg16.pt", b"nvidia")
    digest = hashlib.sha256(b"nvidia").hexdigest()
    sources = tuple(dataclasses.replace(s, sha256=digest) if s.file == body.name else s for s in SOURCES["lpips-vgg"])
    monkeypatch.setitem(SOURCES, "lpips-vgg", sources)
    assert not find_weights("lpips-vgg", body).known


def test_the_table():
    for name, sources in SOURCES.items():
        for source in sources:
            assert len(source.sha256) == 64 and not set(source.sha256) - set("0123456789abcdef")
            assert not source.url or (source.url.startswith("https://") and source.url.endswith(source.file))
            stem = source.file.partition(".")[0]
            if (prefix := stem.rpartition("-")[2]) != stem and len(prefix) == 8:  # as PyTorch names its files
                assert source.sha256.startswith(prefix)
        assert sources[0].url or sources[0].package, name
