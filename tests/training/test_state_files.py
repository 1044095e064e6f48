"""Training states as files: exact, checksummed, and safe whatever happens while they are written."""

import errno
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.files import atomic_path, disk_full_reason, wait_for_space
from stylegan_cli.training import state_files
from stylegan_cli.training.state import gather, restore
from stylegan_cli.training.state_files import (
    DamagedStateError,
    StateWriter,
    list_states,
    load_newest,
    read_about,
    read_state,
)
from stylegan_cli.training.state_format import file_layout

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def damage(monkeypatch):
    """The long form of these tests: benchmarks/damage_states.py."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("damage_states")


@pytest.fixture
def messages():
    return []


@pytest.fixture
def writer(tmp_path, messages):
    writer = StateWriter(tmp_path, notify=messages.append)
    writer.every = 0.01
    yield writer
    writer.close()


@pytest.fixture
def disk(monkeypatch):
    """A simulated disk: writes raise disk.error, wait for disk.gate, and are counted in disk.tries."""

    class Disk:
        error, tries = None, 0
        gate = threading.Event()

    put, disk = state_files._put, Disk()
    disk.gate.set()

    def wrapped(f, chunk):
        disk.tries += 1
        disk.gate.wait(20)
        if disk.error:
            put(f, chunk[: len(chunk) // 2])
            raise OSError(disk.error, os.strerror(disk.error))
        put(f, chunk)

    monkeypatch.setattr(state_files, "_put", wrapped)
    yield disk
    disk.error = None
    disk.gate.set()


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def write(writer, shown, state=None):
    writer.save(state or {"clock": {"shown": shown}}, {}, shown)
    writer.wait()
    return list_states(writer.folder)[0]


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.005)


# ---------------------------------------------------------------------------------------- round trips


def test_unusual_values_survive_a_round_trip(tmp_path, writer, damage):
    base = torch.arange(24.0).view(4, 6)
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    state = {
        "types": {str(dtype): torch.arange(7).to(dtype) for dtype in types},
        "shapes": [torch.tensor(3.5), torch.empty(0), torch.empty(2, 0, 3, dtype=torch.int64), torch.ones(1, 1, 1)],
        "bits": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "shared": (base, base[1], base.t(), base[:, ::2], base.flip(0), base.expand(2, 4, 6)),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "floats": [float("nan"), float("inf"), -float("inf"), -0.0, 0.1, 1e300, 5e-324, 1.0],
        "ints": [0, -1, 2**63, 10**50, True, False, None],
        "texts": ["", "grün", "\ud800", '"', "\x00", "['tensor', 'a']"],
        "empty": [{}, [], (), OrderedDict()],
        "nested": ([({1: ("a",)},)], ["tensor", "x"], ["dict"], ["list", 1]),
        "keys": {1: torch.ones(1), "1": torch.zeros(1), -2: 0, (3, "x"): 1, None: 2, 1.5: 3, "": torch.ones(2)},
        "ordered": OrderedDict(b=1, a=torch.ones(3)),
        "a.b": torch.tensor([1]),
        "a": {"b": torch.tensor([2])},
        "__metadata__": torch.tensor([3]),
        "grün\ud800": torch.tensor([4]),
    }
    loaded, _ = read_state(write(writer, 40, state))
    assert damage.is_identical(loaded, state)
    assert str(loaded["floats"]) == str(state["floats"])  # the sign of zero


def test_a_state_without_tensors(writer):
    assert read_state(write(writer, 0, {"clock": {"step": 1}}))[0] == {"clock": {"step": 1}}


@pytest.mark.parametrize(
    "value",
    [
        *({1}, b"x", object(), np.float64(1), namedtuple("Point", "x")(1), torch.Size([1])),
        torch.zeros(2, dtype=torch.complex64),
        torch.eye(2).to_sparse(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unsupported_values_are_refused_at_once(tmp_path, writer, value):
    with pytest.raises(TypeError, match="part.here cannot be saved in a training state"):
        writer.save({"part": {"here": value}}, {}, 0)
    assert names(tmp_path) == []


def test_about_and_name(tmp_path, writer):
    path = write(writer, 40_016, {"a": {"b": 1}})
    assert path.name.startswith("state-000040.016-")
    digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout
    assert path.name == f"state-000040.016-{digest[:16]}.safetensors"
    writer.save({}, {"config": {"batch": 8}, "ranks": 2}, 41_000)
    writer.wait()
    path = list_states(tmp_path)[0]
    assert path.name.startswith("state-000041-")
    about = read_about(path)
    assert about == read_state(path)[1]
    assert about.pop("version")
    assert about == {"config": {"batch": 8}, "ranks": 2, "kimg": 41.0, "shown": 41_000}


def test_it_is_a_safetensors_file(writer):
    state = {"G": OrderedDict({"b4.weight": torch.randn(3, 2)}), "rng": {"torch": torch.ones(7, dtype=torch.uint8)}}
    path = write(writer, 1, state)
    with safetensors.safe_open(path, framework="np") as f:
        assert sorted(f.keys()) == ["G.b4.weight", "rng.torch"]
        assert (f.get_tensor("G.b4.weight") == state["G"]["b4.weight"].numpy()).all()
        assert f.metadata()["format"] == "stylegan_cli-state/1"
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


def test_a_loaded_state_continues_bit_exactly(tmp_path, writer, damage, make_config, make_trainer):
    config = make_config(label="hat", r1_interval=3, pl_interval=2)
    trainer = make_trainer(config)
    for _ in range(4):
        trainer.step()
    state = gather(trainer.stateful)
    writer.save(state, {}, trainer.shown)
    for _ in range(4):
        trainer.step()  # during the write
    writer.wait()
    other = make_trainer(config)
    other.step()
    loaded, about, _ = load_newest(tmp_path, print)
    assert about["shown"] == 32
    restore(other.stateful, loaded)
    assert damage.is_identical(gather(other.stateful), read_state(list_states(tmp_path)[0])[0])
    for _ in range(4):
        other.step()
    assert damage.is_identical(gather(other.stateful), gather(trainer.stateful))


def test_changes_after_save_are_not_written(writer, disk):
    disk.gate.clear()
    live = {"a": torch.zeros(1000), "list": [1]}
    writer.save({"part": live}, {}, 0)
    live["a"].fill_(7)
    live["list"].append(2)
    disk.gate.set()
    writer.wait()
    loaded, _ = read_state(list_states(writer.folder)[0])
    assert not loaded["part"]["a"].any() and loaded["part"]["list"] == [1]


def test_memory_is_reused(writer):
    seen = []
    for size in (10, 1000, 1000, 500, 1000):
        write(writer, len(seen), {"a": torch.ones(size)})
        seen.append(writer._memory._buffer.data_ptr())
    assert len(set(seen[1:])) == 1


def test_loaded_tensors_do_not_depend_on_the_file(writer):
    path = write(writer, 1, {"a": torch.ones(100_000)})
    loaded, _ = read_state(path)
    path.write_bytes(b"")
    assert loaded["a"].eq(1).all()


def test_save_waits_for_the_previous_write(writer, disk):
    disk.gate.clear()
    writer.save({"a": 1}, {}, 1)
    threading.Timer(0.2, disk.gate.set).start()
    start = time.monotonic()
    writer.save({"a": 2}, {}, 2)
    assert time.monotonic() - start > 0.15
    writer.wait()
    assert [read_about(p)["shown"] for p in list_states(writer.folder)] == [2, 1]


# -------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(("kind", "tries"), [("truncated", 150), ("one bit flipped", 200), ("full disk", 15)])
def test_damage_is_detected(tmp_path, damage, kind, tries):
    """A sample; benchmarks/damage_states.py is the long form."""
    assert damage.CASES[kind](tmp_path / "run", tries, random.Random(1)) == tries


def test_damaged_states_are_renamed(tmp_path, writer, messages):
    older, newer = write(writer, 1000), write(writer, 2000)
    newer.write_bytes(newer.read_bytes() + b"x")
    state, about, path = load_newest(tmp_path, messages.append)
    assert (state, about["kimg"], path) == ({"clock": {"shown": 1000}}, 1.0, older)
    assert names(tmp_path) == [older.name, newer.name + ".damaged"]
    (message,) = messages
    assert newer.name in message and f"Using {older.name} instead" in message
    assert load_newest(tmp_path, messages.append)[2] == older and len(messages) == 1


def test_no_states_and_only_damaged_states(tmp_path, writer, messages):
    assert load_newest(tmp_path, messages.append) is None
    assert load_newest(tmp_path / "nowhere", messages.append) is None
    write(writer, 1).write_bytes(b"")
    for _ in range(2):
        with pytest.raises(SganError, match="All training states in .* are damaged"):
            load_newest(tmp_path, messages.append)
    assert messages == []


@pytest.mark.parametrize("change", ["format", "state", "about", "nonsense"])
def test_invalid_content_with_a_valid_checksum(tmp_path, writer, monkeypatch, change):
    texts = {"format": state_files.FORMAT, "state": '["dict", ["a", ["tensor", "b"]]]', "about": "{}"}
    if change == "format":
        texts["format"] = "stylegan_cli-state/2"
    elif change != "nonsense":
        del texts[change]
    monkeypatch.setattr(state_files, "file_layout", lambda *_: (file_layout({}, texts)[0], {}))
    path = write(writer, 1)
    message = "can read .its format is stylegan_cli-state/2" if change == "format" else "damaged.*is invalid.*KeyError"
    with pytest.raises(SganError, match=message) as caught:
        read_state(path)
    assert isinstance(caught.value, DamagedStateError) == (change != "format")  # a newer version may be able to read it


def test_a_file_with_a_temporary_error_is_not_renamed(tmp_path, writer, monkeypatch):
    def fail(path):
        raise OSError(number, os.strerror(number))

    write(writer, 1)
    path = write(writer, 2)
    monkeypatch.setattr(state_files, "sha256_of", fail)
    number = errno.EMFILE
    with pytest.raises(SganError, match="Cannot read .*Too many open files"):
        load_newest(tmp_path, print)
    assert list_states(tmp_path)[0] == path
    number = errno.EIO
    with pytest.raises(SganError, match="All training states"):
        load_newest(tmp_path, print)
    assert list_states(tmp_path) == []


def test_files_that_are_not_states(tmp_path, writer):
    path = write(writer, 1)
    with pytest.raises(SganError, match="Cannot read .*No such file"):
        read_state(path.with_name(path.name.replace("000000.001", "000009")))
    with pytest.raises(SganError, match="is not a training state"):
        read_state(path.rename(tmp_path / "other.safetensors"))
    with pytest.raises(DamagedStateError, match="is damaged"):
        (tmp_path / "short").write_bytes(b"12345")
        read_about(tmp_path / "short")


# ------------------------------------------------------------------------------ old states, order, kills


def test_two_are_kept(tmp_path, writer):
    for shown in (1, 2, 3, 4):
        write(writer, shown)
        assert len(list_states(tmp_path)) == min(shown, 2)
    assert [read_about(p)["shown"] for p in list_states(tmp_path)] == [4, 3]
    (tmp_path / "state-000000-other.safetensors").touch()
    write(writer, 5)
    assert "state-000000-other.safetensors" in names(tmp_path) and len(names(tmp_path)) == 3


def test_the_newest_file_is_never_removed(tmp_path, messages):
    writer = StateWriter(tmp_path, keep=1, notify=messages.append)
    write(writer, 5000)
    writer.save({"a": 1}, {}, 100)  # after a rollback
    writer.wait()
    assert [read_about(p)["shown"] for p in list_states(tmp_path)] == [100]


def test_newest_is_by_images_then_by_time(tmp_path):
    for i, kimg in enumerate(["000009", "000010", "1000000", "000010.001", "000010"]):
        path = tmp_path / f"state-{kimg}-{i:016x}.safetensors"
        path.touch()
        os.utime(path, (1e9 - i * (i < 4), 1e9 - i * (i < 4)))
    assert [p.name[-13] for p in list_states(tmp_path)] == ["2", "3", "4", "1", "0"]


KILLED = """
import sys, time, torch
from stylegan_cli.training import state_files
writer = state_files.StateWriter(sys.argv[1])
writer.save({"part": {"a": torch.arange(50_000_000 // 8)}}, {}, 1)
writer.wait()
put = state_files._put
def slow(f, chunk):
    put(f, chunk)
    if f.tell() > 2**25:
        print("in the middle", flush=True)
        time.sleep(60)
state_files._put = slow
writer.save({"part": {"a": torch.zeros(50_000_000 // 4)}}, {}, 2)
time.sleep(60)
"""


def test_killed_in_the_middle_of_a_write(tmp_path, messages):
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "in the middle\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    hidden = [p for p in tmp_path.iterdir() if p.name.startswith(".state-")]
    assert len(hidden) == 1 and hidden[0].stat().st_size > 2**25
    state, about, _ = load_newest(tmp_path, messages.append)
    assert about["shown"] == 1 and torch.equal(state["part"]["a"], torch.arange(50_000_000 // 8)) and messages == []
    (tmp_path / ".other.tmp").touch()
    StateWriter(tmp_path)
    assert [n for n in names(tmp_path) if n.startswith(".")] == [".other.tmp"]


# ----------------------------------------------------------------------------------------- full disks


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_pauses_until_there_is_space(tmp_path, writer, disk, messages, number):
    write(writer, 1), write(writer, 2)
    disk.error, disk.tries = number, 0
    writer.save({"a": torch.ones(5)}, {}, 3)
    until(lambda: disk.tries > 3)
    assert writer.blocked
    threading.Timer(0.3, lambda: setattr(disk, "error", None)).start()
    start = time.monotonic()
    writer.pause_if_blocked(lambda: False)
    assert time.monotonic() - start > 0.2 and not writer.blocked
    assert len(messages) == 2 and "continues" in messages[1]
    assert all(text in messages[0] for text in (str(tmp_path), os.strerror(number), "training waits", "Ctrl-C stops"))
    writer.wait()
    assert [read_about(p)["shown"] for p in list_states(tmp_path)] == [3, 2] and len(names(tmp_path)) == 2


def test_there_is_no_pause_without_errors(writer, disk, messages):
    writer.pause_if_blocked(lambda: pytest.fail("called"))
    disk.gate.clear()
    writer.save({"a": 1}, {}, 1)
    writer.pause_if_blocked(lambda: pytest.fail("called"))
    disk.gate.set()
    writer.wait()
    assert messages == []


def test_older_states_are_kept_while_the_disk_is_full(tmp_path, writer, disk):
    older = [write(writer, 1), write(writer, 2)]
    disk.error = errno.ENOSPC
    writer.save({"a": 1}, {}, 3)
    until(lambda: writer.blocked)
    assert list_states(tmp_path) == older[::-1]
    writer.close()
    assert names(tmp_path) == sorted(p.name for p in older)


@pytest.mark.parametrize("method", ["pause", "wait", "save"])
def test_ctrl_c_ends_waiting_for_space(tmp_path, writer, disk, messages, method):
    """A failed write raises an error; there is none if there is space for the last attempt."""
    disk.error = errno.ENOSPC
    writer.save({"a": 1}, {}, 1)
    until(lambda: writer.blocked)
    if method == "pause":
        writer.pause_if_blocked(lambda: True)
    if method != "save":
        with pytest.raises(SganError, match=f"Cannot write the training state in {tmp_path}: No space left"):
            writer.wait(stop=lambda: True)
    else:
        writer.save({"a": 2}, {}, 2, stop=lambda: True)
        with pytest.raises(SganError, match="No space left"):
            writer.wait()
    disk.error = None
    assert read_about(write(writer, 3))["shown"] == 3
    assert len(messages) == 1 and len(names(tmp_path)) == 1


def test_other_errors_are_raised_by_the_next_call(tmp_path, writer, disk, messages):
    disk.error = errno.EIO
    writer.save({"a": 1}, {}, 1)
    with pytest.raises(SganError, match="Cannot write the training state in .*: Input/output error"):
        writer.save({"a": 2}, {}, 2)
    writer.save({"a": 3}, {}, 3)
    with pytest.raises(SganError, match="Input/output error"):
        writer.wait()
    writer.wait()  # raised only once
    writer.save({"a": 4}, {}, 4)
    writer.close()  # reported, not raised
    assert messages == [f"Cannot write the training state in {tmp_path}: Input/output error."]
    assert names(tmp_path) == []


def test_any_exception_in_the_thread_is_raised(writer, monkeypatch):
    monkeypatch.setattr(state_files, "sync_folder", lambda folder: 1 / 0)
    writer.save({"a": 1}, {}, 1)
    with pytest.raises(ZeroDivisionError):
        writer.wait()


def test_errors_of_notify_are_ignored(tmp_path, disk):
    def notify(line):
        raise OSError(errno.ENOSPC, "full")

    writer = StateWriter(tmp_path, notify=notify)
    writer.every = 0.01
    disk.error = errno.ENOSPC
    writer.save({"a": 1}, {}, 1)
    until(lambda: writer.blocked)
    disk.error = None
    writer.pause_if_blocked(lambda: False)
    writer.wait()
    assert len(list_states(tmp_path)) == 1


def test_no_pickle_in_the_file(tmp_path, writer):
    content = write(writer, 1, {"a": {"b": torch.ones(3)}}).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert header["a.b"] == {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
    assert json.loads(header["__metadata__"]["state"]) == ["dict", ["a", ["dict", ["b", ["tensor", "a.b"]]]]]
    assert content[8 + size :] == torch.ones(3).numpy().tobytes()


# --------------------------------------------------------------------- the main thread's own writes


@pytest.fixture
def write_when_full(tmp_path):
    """write_when_full(n): a write with `atomic_path` that fails n times on a full disk."""

    def make(times, number=errno.ENOSPC):
        left = [number] * times

        def write():
            with atomic_path(tmp_path / "a.txt"):
                if left:
                    raise OSError(left[0], os.strerror(left.pop()))
            return "written"

        return write

    return make


def test_wait_for_space(tmp_path, messages, write_when_full):
    assert wait_for_space(write_when_full(0), "the log", messages.append, lambda: False) == "written" and messages == []
    assert wait_for_space(write_when_full(3), "the log", messages.append, lambda: False, interval=0.01) == "written"
    first, second = messages
    assert "No disk space for the log (No space left on device)" in first and "continues" in second
    assert names(tmp_path) == ["a.txt"]


def test_wait_for_space_ends(messages, write_when_full):
    def fail():
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    answers = iter([False, False, True, True])  # of stop()
    with pytest.raises(SganError, match="Cannot write .*a.txt: No space left"):
        wait_for_space(write_when_full(9), "the log", messages.append, lambda: next(answers), interval=0.2)
    with pytest.raises(SganError, match="a.txt: Read-only file system"):  # waiting would not help
        wait_for_space(write_when_full(1, errno.EROFS), "the log", messages.append, lambda: False)
    with pytest.raises(SganError, match="Cannot write the log: Read-only file system"):
        wait_for_space(fail, "the log", messages.append, lambda: False)
    assert len(messages) == 1


def test_disk_full_reason():
    around = SganError("x")
    around.__cause__ = OSError(errno.EDQUOT, "x")
    assert disk_full_reason(around) == "Disk quota exceeded" and disk_full_reason(OSError(errno.ENOSPC, "x"))
    assert disk_full_reason(None) is None and disk_full_reason(SganError("x")) is None
    assert disk_full_reason(OSError(errno.EFBIG, "x")) is None
