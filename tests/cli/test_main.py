"""The group `sgan`: fast help, lazy commands, error reports."""

import errno
import io
import os
import signal
import subprocess
import sys
import types

import click
import pytest
from click.testing import CliRunner

import stylegan_cli
from stylegan_cli import cli
from stylegan_cli.errors import SganError

SGAN = [sys.executable, "-m", "stylegan_cli"]


@pytest.fixture
def raising(monkeypatch):
    """Run `sgan mix` with a command that raises an error: raising(error, *arguments) -> click's result."""

    def run(error, *args):
        @click.command()
        @click.argument("rest", nargs=-1)
        def command(rest):
            raise error

        monkeypatch.setitem(sys.modules, "stylegan_cli.cli.mix", types.SimpleNamespace(command=command))
        return CliRunner().invoke(cli.main, ["mix", *args])

    return run


def test_help_imports_no_torch_and_no_command():
    code = (
        "import sys; from stylegan_cli.cli import COMMANDS, main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "loaded = {'torch', 'numpy', 'PIL', *(f'stylegan_cli.cli.{c}' for c in COMMANDS)} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout and line[:40] in done.stdout for name, line in cli.COMMANDS.items())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_line_equals_the_short_help_of_the_command(name):
    command = cli.main.get_command(click.Context(cli.main), name)
    assert command.get_short_help_str(limit=200) == cli.COMMANDS[name]
    assert CliRunner().invoke(cli.main, [name, "--help"]).exit_code == 0


def test_version():
    result = CliRunner().invoke(cli.main, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"sgan {stylegan_cli.__version__}\n")


@pytest.mark.parametrize(("line", "nearest"), [("trian", "train"), ("--versoin", "--version"), ("generat", "generate")])
def test_mistyped(line, nearest):
    result = CliRunner().invoke(cli.main, [line])
    assert result.exit_code == 2
    assert f"Did you mean '{nearest}'?" in result.stderr
    assert len(result.stderr.splitlines()) <= 5
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SganError("No faces.", hint="sgan data demo faces.zip"), 1, "Error: No faces.\nsgan data demo faces.zip\n"),
        (SganError("No faces."), 1, "Error: No faces.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), 1, "a.png: No space left on device."),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "/x: Permission denied."),
        (ModuleNotFoundError("No module", name="av.video"), 1, "pip install 'stylegan-cli[video]'"),
        (MemoryError(), 1, "--batch"),
        (ZeroDivisionError("by\nzero"), 1, "Error: ZeroDivisionError: by zero\nRun again with --debug"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (click.Abort(), 130, "Interrupted.\n"),
        (click.UsageError("Which one?"), 2, "Which one?"),
        (click.exceptions.Exit(3), 3, ""),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
    ],
)
def test_errors_are_reported(raising, monkeypatch, error, code, message):
    monkeypatch.setattr(cli, "_silence_stdout", lambda: None)  # pytest's own stdout stays
    result = raising(error)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 5


@pytest.mark.parametrize("where", ["before", "after"])
def test_debug_shows_the_traceback(raising, monkeypatch, where):
    stderr = raising(ZeroDivisionError("x"), "--debug").stderr
    if where == "before":
        stderr = CliRunner().invoke(cli.main, ["--debug", "mix"]).stderr
    assert "Traceback" in stderr
    assert stderr.splitlines()[-2] == "Error: ZeroDivisionError: x"


def test_debug_after_two_dashes_is_an_argument():
    assert cli._take_debug(["mix", "--", "--debug"]) == (["mix", "--", "--debug"], False)
    assert cli._take_debug(["mix", "--debug", "--", "a"]) == (["mix", "--", "a"], True)


def test_exceptions_pass_outside_standalone_mode():
    with pytest.raises(click.UsageError):
        cli.main.main(["trian"], standalone_mode=False)


@pytest.mark.skipif(os.name != "posix", reason="closes streams by the shell")
@pytest.mark.parametrize(("redirect", "code"), [(">&-", 0), (">&- 2>&-", 0), ("<&-", 0), ("> /dev/full", 1)])
def test_closed_and_full_streams(redirect, code):
    if "full" in redirect and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    done = subprocess.run(
        f'"{sys.executable}" -m stylegan_cli --help {redirect}', shell=True, capture_output=True, text=True
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_closed_pipe():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*SGAN, "--help"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c():
    code = (
        "import sys, types, time, click\n"
        "def wait():\n    print('ready', flush=True)\n    time.sleep(30)\n"
        "sys.modules['stylegan_cli.cli.mix'] = types.SimpleNamespace(command=click.command()(wait))\n"
        "from stylegan_cli.cli import main; main(['mix'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert "Interrupted." in process.communicate(timeout=20)[1]
    assert process.returncode == 130


def test_closed_stdout_is_replaced(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    cli._open_closed_streams()
    stream = sys.stdout
    monkeypatch.undo()
    assert isinstance(stream, io.TextIOBase)
    stream.close()


@pytest.mark.parametrize(
    "line",
    [
        "metrics fud",
        "metrics fid --features dino",
        "metrics fid --num 1",
        "metrics fid --images a b --size 8",
        "train --loss wgan --gamma 1",
        "train --aux-classifier",
        "train --grow-kimg 1",
        "train --metrics fud",
        "train --batch 9 --batch-gpu 2",
        "project",
        "attribute",
        "generate --seeds 1-x",
        "generate --trunc nan",
        "interpolate --out a.avi",
        "interpolate --seeds 1",
        "edit find --csv a --data b",
        "convert a.safetensors b.txt",
        "no-such-command",
        "data pack . x.zip --pad red",
        "data pack . x.zip --crop pad --pad nocolor",
        "data pack . x.zip --size 7",
        "data pack x.zip x.zip",
        "interpolate --kind slerp --seeds a.npz,b.npz",
        "train --gamma nan",
        "train --lr inf",
        "train --mixing-prob nan",
        "train --size 8x999",
        "train --grow-from 8",
        "train --cfg demo-stylegan --freezed 1",
        "train --features efficientnet-lite0",
    ],
)
def test_misused(sgan, line, tmp_path, monkeypatch):
    """A command line that is wrong whatever the files contain."""
    monkeypatch.chdir(tmp_path)
    result = sgan(*line.split(), code=2)
    assert result.stdout == "" and "Error: " in result.stderr and len(result.stderr.splitlines()) <= 5
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
