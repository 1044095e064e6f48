"""Atomic writing of files."""

import os
import stat

import pytest

from stylegan_cli.errors import SganError
from stylegan_cli.files import atomic_path, write_atomic


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_missing_folders_are_created(tmp_path):
    write_atomic(tmp_path / "a" / "b.txt", "gr\u00fcn")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "gr\u00fcn".encode()
    assert names(tmp_path / "a") == ["b.txt"]


def test_the_temporary_file_has_the_same_extension(tmp_path):
    with atomic_path(tmp_path / "a.png") as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_bytes(b"x")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_crash_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_reported(tmp_path):
    with pytest.raises(SganError, match="No space left on device"), atomic_path(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []


def test_an_unwritable_folder_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SganError, match="Cannot write"):
        write_atomic(tmp_path / "file" / "a.txt", "x")


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a.txt", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
