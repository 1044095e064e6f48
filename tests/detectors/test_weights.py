"""Where weights are searched, which files are accepted, and the message if there are none."""

import dataclasses
import hashlib

import pytest

from stylegan_cli.detectors import load_detector, weights
from stylegan_cli.detectors.weights import SOURCES, find_weights
from stylegan_cli.errors import SganError

BODY = b"weights"
FIRST, SECOND = (s.file for s in SOURCES["inception-2015"][::2])


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """Empty caches, and no network."""
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    monkeypatch.delenv("SGAN_DETECTORS", raising=False)


@pytest.fixture
def published(monkeypatch):
    """Make BODY the content of the published files."""
    sources = tuple(dataclasses.replace(s, sha256=hashlib.sha256(BODY).hexdigest()) for s in SOURCES["inception-2015"])
    monkeypatch.setitem(weights.SOURCES, "inception-2015", sources)


def write(path, body=BODY):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def test_missing_weights_say_how_to_get_them(tmp_path):
    with pytest.raises(SganError) as e:
        load_detector("inception-2015")
    source = SOURCES["inception-2015"][0]
    assert all(word in str(e.value) for word in (source.file, source.url, source.sha256, "SGAN_OFFLINE"))
    for word in (str(tmp_path / "cache" / "downloads" / FIRST), "SGAN_DETECTORS", "--detector", "efficientnet-lite0"):
        assert word in e.value.hint
    assert ". Or put" not in e.value.hint and len(e.value.hint.splitlines()) == 2
    assert len(f"Error: {e.value}\n{e.value.hint}".splitlines()) <= 5


def test_file_chosen_by_the_user(tmp_path, published):
    path = write(tmp_path / "any name")
    assert find_weights("inception-2015", path).is_standard
    write(path, b"other")
    result = find_weights("inception-2015", str(path))
    assert not result.is_standard and result.fingerprint == hashlib.sha256(b"other").hexdigest()[:8]
    with pytest.raises(SganError, match="does not exist"):
        find_weights("inception-2015", tmp_path / "none")


def test_user_folder_accepts_any_hash(tmp_path, monkeypatch, published):
    monkeypatch.setenv("SGAN_DETECTORS", str(tmp_path / "own"))
    with pytest.raises(SganError, match="which is not a folder"):
        find_weights("inception-2015")
    path = write(tmp_path / "own" / SECOND, b"other")
    write(tmp_path / "cache" / "downloads" / FIRST)
    result = find_weights("inception-2015")
    assert result.path == path and not result.is_standard
    write(tmp_path / "own" / FIRST)
    assert find_weights("inception-2015").is_standard


@pytest.mark.parametrize("folder", ["cache/downloads", "torch/hub/checkpoints"])
def test_cached_files_must_match_the_hash(tmp_path, published, folder):
    path = write(tmp_path / folder / SECOND, b"damaged")
    with pytest.raises(SganError, match="must be downloaded"):
        find_weights("inception-2015")
    write(path)
    assert find_weights("inception-2015") == weights.WeightsFile(path, hashlib.sha256(BODY).hexdigest(), True)


def test_only_nvidia_vgg_is_standard_for_precision_and_recall(tmp_path, monkeypatch):
    """Published precision and recall use NVIDIA's file; LPIPS uses torchvision's."""
    sources = SOURCES["vgg16"]
    hashes = {
        s.file: hashlib.sha256(write(tmp_path / s.file, s.file.encode()).read_bytes()).hexdigest() for s in sources
    }
    monkeypatch.setitem(SOURCES, "vgg16", tuple(dataclasses.replace(s, sha256=hashes[s.file]) for s in sources))
    assert [find_weights("vgg16", tmp_path / s.file).is_standard for s in sources] == [True, False]


def test_nvidia_vgg_is_not_standard_for_lpips(tmp_path, monkeypatch):
    """What its lpips0 ... 4 mean is not known, so such a distance is named with the file's fingerprint."""
    body = write(tmp_path / "vgg16.pt", b"nvidia")
    digest = hashlib.sha256(b"nvidia").hexdigest()
    sources = tuple(dataclasses.replace(s, sha256=digest) if s.file == body.name else s for s in SOURCES["lpips-vgg"])
    monkeypatch.setitem(SOURCES, "lpips-vgg", sources)
    assert not find_weights("lpips-vgg", body).is_standard


def test_sources():
    for name, sources in SOURCES.items():
        for source in sources:
            assert len(source.sha256) == 64 and not set(source.sha256) - set("0123456789abcdef")
            assert not source.url or (source.url.startswith("https://") and source.url.endswith(source.file))
            stem = source.file.partition(".")[0]
            if (prefix := stem.rpartition("-")[2]) != stem and len(prefix) == 8:  # as PyTorch names its files
                assert source.sha256.startswith(prefix)
        assert sources[0].url or sources[0].package, name
