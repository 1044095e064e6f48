"""Builds are found again in the cache, wherever that is."""

import os
from collections import Counter

import pytest

from stylegan_cli import cache
from stylegan_cli.kernels import build


@pytest.mark.parametrize("damage", ["cut", "changed", "no metadata", "no library"])
def test_a_damaged_library_is_rebuilt(toolkit, damage):
    path = build.build(["90a"])
    if damage in ("cut", "changed"):
        path.write_text("half" if damage == "cut" else "halfwhale")
    else:
        (path if damage == "no library" else path.with_suffix(".json")).unlink()
    assert build.build(["90a"]) == path
    assert path.read_text() == "halfwhole"
    assert Counter(toolkit.outputs()) == dict.fromkeys(toolkit.parts, 2)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("SGAN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "stylegan_cli"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "stylegan_cli"
    monkeypatch.setenv("SGAN_CACHE", "~/own")
    assert cache.folder() == tmp_path / "own"


@pytest.fixture
def no_cache(toolkit, tmp_path, monkeypatch):
    """A cache that not even root can write to, and a folder for temporary files. Returns where builds go instead."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp" / f"stylegan_cli-{os.getuid()}"


def test_a_cache_that_is_not_writable(toolkit, no_cache, recwarn):
    paths = [build.build(["90a"]), build.build(["80"]), build.build(["90a"])]
    assert paths[0] == paths[2] != paths[1] and paths[0].is_relative_to(no_cache)
    assert no_cache.stat().st_mode & 0o777 == 0o700
    assert [str(w.message).split(" is not writable")[0] for w in recwarn] == [os.environ["SGAN_CACHE"]]
    assert len(toolkit.calls()) == 8


@pytest.mark.skipif(os.getuid() == 0, reason="root can write everywhere")
def test_a_read_only_cache(toolkit, no_cache, monkeypatch):
    toolkit.cache.mkdir(mode=0o500)
    monkeypatch.setenv("SGAN_CACHE", str(toolkit.cache))
    with pytest.warns(UserWarning, match="is not writable"):
        assert build.build(["90a"]).is_relative_to(no_cache)


def test_a_library_in_a_read_only_cache_is_used(toolkit, monkeypatch):
    path = build.build(["90a"])
    monkeypatch.setattr(build, "writable", lambda folder: None)
    monkeypatch.setattr(build, "temporary_folder", None)
    assert build.build(["90a"]) == path


@pytest.mark.parametrize("what", ["open", "link", "file", "other user"])
def test_a_temporary_folder_that_is_not_private_is_refused(
    toolkit, no_cache, tmp_path, monkeypatch, what, expect_error
):
    if what == "link":
        (tmp_path / "other").mkdir(mode=0o700)
        no_cache.symlink_to(tmp_path / "other")
    elif what == "file":
        no_cache.touch(mode=0o600)
    else:
        no_cache.mkdir(mode=0o700)
        no_cache.chmod(0o777 if what == "open" else 0o700)
    if what == "other user":
        uid = os.getuid()
        no_cache.rename(no_cache.with_name(f"stylegan_cli-{uid + 1}"))
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with expect_error("not a private folder of this user") as e:
        build.build(["90a"])
    assert "SGAN_CACHE" in e.value.hint and not toolkit.calls()
