"""The cache: files are found again, ignored if damaged, and made by one process at a time."""

import errno
import os
import subprocess
import sys
import time

import pytest
import torch

from stylegan_cli import cache
from stylegan_cli.errors import SganError
from stylegan_cli.files import temporary_beside, write_atomic

TENSORS = {"mean": torch.arange(5.0).double(), "cov": torch.eye(5).t()[1:], "count": torch.tensor([9])}
KEY = cache.key("model", 3, None)


@pytest.fixture(autouse=True)
def root(monkeypatch, tmp_path):
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_stored_tensors_are_found_again(root):
    assert cache.load("things", KEY) is None
    cache.store("things", KEY, TENSORS, {"b": [1, "ü"], "a": None})
    tensors, about = cache.load("things", KEY)
    assert tensors.keys() == TENSORS.keys() and all(torch.equal(tensors[k], TENSORS[k]) for k in tensors)
    assert list(about.items()) == [("b", [1, "ü"]), ("a", None)]
    assert cache.load("things", cache.key("model", 4, None)) is None and cache.load("others", KEY) is None
    (name,) = visible(root / "things")
    assert name == f"{KEY}-{cache.sha256_of(root / 'things' / name)}.safetensors"


def test_the_key_depends_on_every_input():
    assert cache.key({"a": 1, "b": 2}) == cache.key({"b": 2, "a": 1})
    assert len({cache.key(*inputs) for inputs in [(), (None,), (1,), ("1",), (1, 2), ([1, 2],), (2, 1)]}) == 7


@pytest.mark.parametrize("damage", ["cut", "bit", "header", "empty"])
def test_a_damaged_file_is_ignored_and_replaced(root, damage):
    cache.store("things", KEY, TENSORS)
    path = cache.find("things", KEY)
    original = path.read_bytes()
    content = bytearray(original)
    if damage == "bit":
        content[-20] ^= 4
    elif damage == "header":
        content[:8] = b"\xff" * 8
    path.write_bytes({"cut": original[:-3], "empty": b""}.get(damage, content))
    assert cache.load("things", KEY) is None
    cache.store("things", KEY, {"x": torch.ones(2)}, "new")
    assert cache.load("things", KEY).about == "new" and len(visible(root / "things")) == 1


def test_a_newer_file_replaces_the_older_one(root):
    for number in range(3):
        cache.store("things", KEY, {}, number)
        assert cache.load("things", KEY).about == number
    assert len(visible(root / "things")) == 1


def test_store_file_accepts_any_content(root):
    path = cache.store_file("things", KEY, lambda draft: write_atomic(draft, b"content"))
    assert path.read_bytes() == b"content" and cache.find("things", KEY) == path
    assert visible(root / "things") == [path.name]


def test_a_temporary_folder_stands_in(root, tmp_path, monkeypatch):
    """Where the cache cannot be written; where it can, what is in that folder does not count."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root.write_text("a file")
    path = cache.store("things", KEY, TENSORS)
    assert path.is_relative_to(cache.temporary_folder()) and cache.find("things", KEY) == path
    root.unlink()
    assert cache.find("things", KEY) is None


def test_where_nothing_can_be_written(root, tmp_path, monkeypatch):
    root.write_text("a file")
    monkeypatch.setattr("tempfile.tempdir", str(root))
    with cache.claim("things", KEY):
        assert cache.load("things", KEY) is None
    with pytest.raises(SganError, match="Cannot write"):
        cache.store("things", KEY, TENSORS)
    with pytest.raises(OSError), cache.lock(cache.folder("things") / "a", ""):
        pass


def test_a_file_system_without_locks(root, monkeypatch):
    def acquire(*args, **kwargs):
        raise NotImplementedError("flock")

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    with pytest.raises(OSError, match="[Nn]o locks"), cache.lock(cache.folder("things") / "a", ""):
        pass
    with cache.claim("things", KEY):
        cache.store("things", KEY, TENSORS)
    assert cache.load("things", KEY) is not None


def test_a_lock_file_without_its_process_is_no_lock(root, monkeypatch):
    """Not even where the system has no locks, so that the file looks like that of a running process."""
    path = cache.folder("things") / f".{KEY}.lock"
    path.parent.mkdir(parents=True)
    for content in ("", f"{2**22 + 1}\nanother-host\n"):
        path.write_text(content)
        start = time.monotonic()
        with cache.claim("things", KEY):
            assert time.monotonic() - start < 1

    def flock(*args):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError, match="not implemented|locks"), cache.lock(cache.folder("things") / KEY, ""):
        pass
    with cache.claim("things", KEY):
        pass


def test_a_folder_of_one_kind_that_cannot_be_written(root, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cache.folder("things").mkdir(parents=True)
    access = os.access  # of which root always gets all
    monkeypatch.setattr(os, "access", lambda path, mode: path != cache.folder("things") and access(path, mode))
    with cache.claim("things", KEY):
        path = cache.store("things", KEY, TENSORS)
    assert path.is_relative_to(cache.temporary_folder()) and cache.find("things", KEY) == path
    assert cache.places("others") == [cache.folder("others")]


def test_leftovers_of_a_killed_process_are_removed(root):
    cache.folder("things").mkdir(parents=True)
    leftover, other = (temporary_beside(cache.folder("things") / f"{key}.safetensors") for key in (KEY, "other"))
    leftover.touch()
    other.touch()
    with cache.claim("things", KEY):
        assert not leftover.exists() and other.exists()


def test_keys_are_claimed_in_sorted_order(monkeypatch):
    """Otherwise two processes could wait for each other."""
    names, lock = [], cache.lock
    monkeypatch.setattr(cache, "lock", lambda path, waiting: names.append(path.name) or lock(path, waiting))
    with cache.claim("things", "b", "a", "c", "b"):
        assert names == ["a", "b", "c"]


MAKE = """if 1:
    import sys, time, torch
    from stylegan_cli import cache
    print("ready", flush=True)
    sys.stdin.readline()
    keys = sys.argv[1:]
    with cache.claim("things", *keys):
        for key in keys:
            if cache.load("things", key) is None:
                time.sleep(0.3)
                cache.store("things", key, {"x": torch.ones(4000)})
                print("made", flush=True)
"""


def test_one_process_makes_it_and_the_others_wait():
    """Each process needs both files, in a different order."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    orders = (["a", "b"], ["b", "a"], ["a", "b"])
    processes = [subprocess.Popen([sys.executable, "-c", MAKE, *order], **pipes) for order in orders]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(outputs) == [[], [], ["made", "made"]]


def test_concurrent_readers_get_nothing_or_everything():
    """The writer holds no lock."""
    code = """if 1:
        import torch
        from stylegan_cli import cache
        print("ready", flush=True)
        for _ in range(25):
            cache.store("things", "a", {"x": torch.ones(4000)})
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        hits = 0
        while writer.poll() is None:
            entry = cache.load("things", "a")
            hits += entry is not None
            assert entry is not None or not hits
    assert writer.returncode == 0 and hits
    assert torch.equal(cache.load("things", "a").tensors["x"], torch.ones(4000))


def test_a_killed_process_releases_its_lock_and_waiting_is_reported(tmp_path, monkeypatch, capsys):
    code = (
        "import pathlib, sys, time; from stylegan_cli import cache\n"
        "with cache.lock(pathlib.Path(sys.argv[1]), ''):\n    print('held', flush=True); time.sleep(60)"
    )
    monkeypatch.setattr(cache, "LOCK_NOTICE_DELAY", 0.1)
    command = [sys.executable, "-c", code, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        kill = f"import os, time; time.sleep(1); os.kill({process.pid}, 9)"
        subprocess.Popen([sys.executable, "-c", kill])
        start = time.monotonic()
        with cache.lock(tmp_path / "a", "Another process is working on it."):
            assert time.monotonic() - start > 0.5
    assert capsys.readouterr().err == "Another process is working on it.\n"
