"""README.md says what works: its install commands, and every `sgan` line, checked by the parser itself."""

import re
import shlex
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from stylegan_cli.cli import COMMANDS, main
from stylegan_cli.interop.nvidia_writer import write_nvidia
from stylegan_cli.runs import PACKAGED_MODEL
from stylegan_cli.snapshot import load_snapshot

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.is_file() else ""

pytestmark = pytest.mark.skipif(not TEXT, reason="there is no README.md")


def sgan_lines(text):
    """The arguments of every `sgan` command in the fenced blocks: [['generate', '--seeds', '0-99'], ...]."""
    found = []
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(re.sub(r"^\s*\$ ", "", line), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            try:
                words = list(lexer)
            except ValueError:  # an output with an apostrophe in it
                continue
            commands, rest = [[]], iter(words)
            for word in rest:
                if set(word) <= set("&|;"):
                    commands.append([])
                elif set(word) <= set("<>"):
                    next(rest, None)
                else:
                    commands[-1].append(word)
            for command in commands:
                while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):  # SGAN_KERNELS=reference sgan ...
                    command.pop(0)
                if command[:1] == ["sgan"]:
                    found.append(command[1:])
    return found


def leaves(command):
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            yield from leaves(command.get_command(ctx, name))
    else:
        yield command


@pytest.fixture
def parse(monkeypatch):
    """Parse a command line to the end, option values too, without running it or looking for its files."""
    for command in leaves(main):
        monkeypatch.setattr(command, "callback", lambda **given: None)
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)
    return lambda args: main.main(list(args), standalone_mode=False)


@pytest.mark.parametrize("args", sgan_lines(TEXT), ids=" ".join)
def test_commands_are_understood(parse, args):
    parse(args)


@pytest.mark.parametrize("args", [["generate", "--sedes", "1"], ["generate", "--seeds", "5-1"], ["paint"]])
def test_the_check_sees_mistakes(parse, args):
    with pytest.raises(click.UsageError):
        parse(args)


def test_lines_are_found():
    block = "$ SGAN_KERNELS=cuda sgan a \\\n  --b 'c d'  # why\npip install . && sgan train > log\nIt's\n"
    text = f"sgan no\n```sh\n{block}```\n"
    assert sgan_lines(text) == [["a", "--b", "c d"], ["train"]]


def test_every_command_is_shown():
    assert {args[0] for args in sgan_lines(TEXT) if args} >= set(COMMANDS)


@pytest.mark.parametrize(
    "command", ["pip install torch==2.13.0 . && sgan train", "pip install torch==2.13.0 '.[test]' && pytest"]
)
def test_install_commands(command):
    assert command in TEXT.splitlines()


# What long commands are shortened to, by replacing an option's value or appending an option.
SHORT = {"--kimg": "0.016", "--snap": "0.016", "--batch": "8"}
SHORT_NETWORK = {"--size": "32", "--cbase": "64", "--cmax": "8"}


def shortened(args):
    args = list(args)
    changes = {}
    if args[0] == "train":
        changes = dict(SHORT)
        if "--resume" not in args:
            changes |= SHORT_NETWORK
        elif args[args.index("--resume") + 1].endswith(".safetensors"):
            args[args.index("--resume") + 1] = "runs/00000-faces-auto/snapshot-000000.016.safetensors"
        else:
            changes = {"--kimg": "0.024"}
    elif args[:2] == ["data", "pack"]:
        changes = {"--size": "32"}
    elif args[:2] == ["data", "demo"]:
        changes = {"--num": "6", "--size": "32"}
    elif args[0] == "metrics":
        changes = {"--num": "8"}
    elif args[0] == "project":
        changes = {"--steps": "2", "--loss": "pixel"} | ({"--tune": "2"} if "--tune" in args else {})
    elif args[0] == "attribute":
        changes = {"--steps": "2", "--loss": "pixel", "--num": "8"}
    elif args[0] == "convert" and args[2].endswith(".pt"):  # the little model has not its channels
        args = ["convert", args[1], "other.safetensors"]
    elif args[:2] == ["edit", "find"]:
        changes = {"--num": "64"}
        if "--from-labels" in args:  # the images that were painted here have no attributes
            args = ["edit", "find", "--csv", "labels.csv"]
    elif args[0] == "interpolate":
        changes = {"--frames": "2"}
    elif args[0] == "noise":
        changes = {"--draws": "2"}
    elif args == ["doctor"]:
        args = ["doctor", "--no-build"]
    for option, value in changes.items():
        if option in args:
            args[args.index(option) + 1] = value
        else:
            args += [option, value]
    return args


def paint(folder, count):
    """A few random images in place of a user's."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(count)
    for i in range(count):
        pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg")


class Detector:
    """In place of networks whose weights would have to be downloaded."""

    name, fingerprint, is_standard = "inception-2015", "0123abcd", True

    def __call__(self, images, others=None):
        return images.float().mean([1, 2, 3]) if others is not None else {"pool": images.float().mean([2, 3])}


def test_every_line_runs(tmp_path, monkeypatch):
    from stylegan_cli.metrics import passes

    monkeypatch.setattr(passes, "load_detector", lambda *arguments: Detector())
    monkeypatch.setattr(passes, "load_lpips", lambda *arguments: Detector())
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    paint(Path("photos"), 9)
    paint(Path("animals/cats"), 5)
    paint(Path("animals/dogs"), 4)
    paint(Path("FOLDER"), 8)
    for name in ("target.png", "a.png", "b.png", "c.png", "face.jpg", "eyes.png", "suspicious.png"):
        Image.open("photos/0.jpg").convert("L" if name == "eyes.png" else "RGB").save(name)
    rows = "".join(f"{seed},{'yes' if seed % 2 else 'no'}\n" for seed in range(64))
    Path("labels.csv").write_text(f"seed,smile\n{rows}")
    model = load_snapshot(PACKAGED_MODEL)
    write_nvidia(Path("ffhq.pkl"), model.G, model.D, "sg3")
    for name in ("bald", "bearded", "me", "you"):
        np.savez(f"{name}.npz", w=np.zeros((1, 512)))
    lines = [args for args in sgan_lines(TEXT) if args != ["train"]]  # that one has a slow test of its own
    lines.sort(
        key=lambda args: (["data", "train"].index(args[0]) if args[0] in ("data", "train") else 2, "info" in args)
    )
    for args in lines:
        if "portraits.zip" in args:
            shutil.copy("faces.zip", "portraits.zip")
        result = CliRunner().invoke(main, shortened(args))
        fine = (0, 3) if args[0] == "doctor" else (0,)  # 3: works, but slower than with a GPU
        assert result.exit_code in fine, f"sgan {' '.join(args)}\n{result.output}{result.exception!r}"
