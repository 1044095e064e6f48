"""Signals to stop, closed pipes, and encodings that lack characters: in processes of their own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.runs import latest_snapshot
from stylegan_cli.snapshot import read_info
from stylegan_cli.terminal import STOP_SIGNALS

MODEL = Path(__file__).parent / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and pipes")

SGAN = [sys.executable, "-m", "stylegan_cli"]
SMALL = ["--batch", "8", "--cbase", "64", "--cmax", "8", "--map-depth", "2", "--pl-weight", "0"]


@contextlib.contextmanager
def started(*line, **options):
    """Start a command; it is killed at the end."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    process = subprocess.Popen([*SGAN, *map(str, line)], **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert condition(), process.poll()


@pytest.fixture
def large_images(tmp_path):
    """Images that take seconds to pack."""
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    for i in range(60):
        Image.fromarray(np.roll(pixels, i)).save(folder / f"{i}.bmp")
    return folder


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_leaves_no_temporary_file(large_images, tmp_path, number):
    out = tmp_path / "out"
    with started("data", "pack", large_images, out / "set.zip", "-q", "--workers", "2") as process:
        wait_for(lambda: any(out.glob(".set.zip*")), process)
        process.send_signal(number)
        stderr = process.communicate(timeout=30)[1].decode()
    assert (process.returncode, list(out.iterdir())) == (128 + number, [])
    assert "Interrupted." in stderr and "Traceback" not in stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_hangups_save_the_run(rgb_set, tmp_path, ranks):
    """A terminal that closes sends one to all its processes, and the shell sends another."""
    line = ["train", "--data", rgb_set, "--runs", tmp_path, *SMALL, "--kimg", "1000", "--snap", "1000"]
    with started(*line, "--gpus", ranks, start_new_session=True) as process:
        folder = tmp_path / "00000-rgb-auto"
        wait_for((folder / "fakes-000000.png").exists, process)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        stderr = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 0, stderr
    assert 0 < read_info(latest_snapshot(folder)).kimg < 1000 and not (folder / "failure.txt").exists()


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGXCPU", "SIGQUIT"])
def test_the_warnings_of_batch_systems_save_the_run(rgb_set, tmp_path, name):
    """Slurm and others send SIGUSR1 before the end of a job; a limit on CPU time sends SIGXCPU every second."""
    line = ["train", "--data", rgb_set, "--runs", tmp_path, *SMALL, "--kimg", "1000", "--snap", "1000"]
    with started(*line) as process:
        folder = tmp_path / "00000-rgb-auto"
        wait_for((folder / "fakes-000000.png").exists, process)
        time.sleep(0.5)
        for _ in range(1 if name == "SIGQUIT" else 3):
            process.send_signal(getattr(signal, name))
            time.sleep(0.01)
        stderr = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 0, stderr
    assert 0 < read_info(latest_snapshot(folder)).kimg < 1000


def test_nohup(rgb_set, tmp_path):
    """A run that was started with SIGHUP ignored goes on."""
    line = ["train", "--data", rgb_set, "--runs", tmp_path, *SMALL, "--kimg", "1000", "--snap", "1000"]
    with started(*line, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        wait_for((tmp_path / "00000-rgb-auto" / "fakes-000000.png").exists, process)
        process.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert process.poll() is None


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_training_goes_on_when_nobody_reads_its_messages(rgb_set, tmp_path, ranks):
    read, write = os.pipe()
    line = ["train", "--data", rgb_set, "--runs", tmp_path, *SMALL, "--kimg", "0.064", "--snap", "0.016"]
    with started(*line, "--gpus", ranks, stderr=write) as process:
        os.close(write)
        assert os.read(read, 8) == b"Training"
        os.close(read)
        stdout = process.communicate(timeout=60)[0].decode()
    folder = tmp_path / "00000-rgb-auto"
    assert (process.returncode, stdout) == (0, f"{folder}\n")
    assert read_info(latest_snapshot(folder)).kimg == 0.064


@pytest.mark.parametrize(
    ("line", "written", "count"),
    [
        ("train --data DATA --runs out --kimg 0.016 --snap 0.016", "out/*/snapshot-000000.016.safetensors", 1),
        ("generate --seeds 1-3 --json", "out/seed*.png", 3),
        ("attribute a.png a.png --loss pixel --steps 1 --num 8", "out/attribute*.png", 2),
        ("data pack DATA out/set.zip", "out/set.zip", 1),
        ("data info DATA --outdir out", "out/*-contact.png", 1),
        ("convert MODEL out/model.pkl --for sg3", "out/model.pkl", 1),
        ("model info MODEL --layers", "a.png", 1),
        ("runs --json", "a.png", 1),
        ("train --help", "a.png", 1),
    ],
    ids=lambda x: x.partition(" -")[0] if isinstance(x, str) else "",
)
def test_a_command_whose_output_nobody_reads_succeeds(rgb_set, tmp_path, line, written, count):
    """And writes all its files."""
    Image.new("RGB", (32, 32), (200, 30, 90)).save(tmp_path / "a.png")
    words = line.replace("DATA", str(rgb_set)).replace("MODEL", str(MODEL)).split()
    words += SMALL if "snap" in line else []
    environment = os.environ | {"SGAN_CACHE": str(tmp_path / "cache")}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*SGAN, *words], stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, env=environment)
    os.close(write)
    assert done.returncode == 0 and b"Traceback" not in done.stderr and b"Exception" not in done.stderr, done.stderr
    assert len(list(tmp_path.glob(written))) == count


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_result_that_cannot_be_written_is_an_error(tmp_path):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*SGAN, "model", "info", MODEL], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and b"No space left on device" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_an_encoding_that_lacks_characters(rgb_set, tmp_path, encoding):
    """Undecodable bytes come out as they are, so that a script can use the printed path."""
    folder = os.path.join(os.fsencode(tmp_path), "ж猫".encode() + b"\xff")
    os.mkdir(folder)
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    line = ["generate", "--seeds", "1", "--outdir", os.fsdecode(folder)]
    done = subprocess.run([*SGAN, *line], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    if encoding == "utf-8":
        assert done.stdout == folder + b"\n"
    (path,) = os.listdir(folder)
    record = Image.open(os.path.join(folder, path)).text
    assert all(value.isprintable() and value.encode() for value in record.values())
    assert b"\xff" not in json.dumps(record, ensure_ascii=False).encode()


HOSTILE = "a\nb\tc\x1b[31m\u202ed\udcff"
ESCAPED = r"a\nb\tc\x1b[31m\u202ed\xff"


def run(line, **environment):
    done = subprocess.run([*SGAN, *map(str, line)], capture_output=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_nothing_but_text_reaches_a_terminal(tmp_path):
    """Names of datasets, classes, files and runs, in every line but the last one, which is a path for scripts."""
    folder = tmp_path / f"data{HOSTILE}"
    (folder / HOSTILE).mkdir(parents=True)
    for i in range(16):
        Image.new("RGB", (16, 16), (i, 99, 9 * i)).save(folder / HOSTILE / f"{i}.png")
    (folder / HOSTILE / f"no{HOSTILE}").write_bytes(b"text")
    dataset, runs = tmp_path / f"{HOSTILE}.zip", tmp_path / f"runs{HOSTILE}"
    packed = run(["data", "pack", folder, dataset, "--labels", "folders"])
    assert packed[1].decode().splitlines()[1].startswith(f"  {ESCAPED}/no{ESCAPED}: ")
    trained = run(["train", "--data", dataset, "--cond", "--runs", runs, *SMALL, "--kimg", "0.016", "--snap", "0.016"])
    (folder,) = runs.iterdir()
    assert trained[0] == os.fsencode(folder) + b"\n"
    model = run(["model", "info", folder])
    table = run(["runs", "show", "--runs", runs])
    for text in (packed[1], trained[1], *model, table[1], (folder / "log.txt").read_bytes()):
        assert all(line.isprintable() for line in text.decode().split("\n")), text
    assert f"0 {ESCAPED}\n" in model[0].decode()
    page = (folder / "report.html").read_text("utf-8")
    assert ESCAPED in page and all(line.isprintable() for line in page.split("\n"))
    failed = subprocess.run([*SGAN, "model", "info", f"no{HOSTILE}"], capture_output=True)
    assert failed.stderr.decode().splitlines()[0] == f"Error: no{ESCAPED} does not exist."


@pytest.mark.parametrize("encoding", ["ascii:strict", "latin-1", "cp1252"])
def test_escapes_are_in_the_encoding_of_the_stream(rgb_set, tmp_path, encoding):
    """Click would write UTF-8 to a stream that is ASCII."""
    folder = tmp_path / "猫→🙂é"
    folder.mkdir()
    name = "猫→🙂é".encode(encoding.partition(":")[0], "backslashreplace")
    line = ["data", "info", rgb_set, "--outdir", folder]
    assert name in run(line, PYTHONIOENCODING=encoding)[0].splitlines()[-1]
