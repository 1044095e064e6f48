"""README.md says what works: its install commands, and every `sgan` line, checked by the parser itself."""

import re
import shlex
from pathlib import Path

import click
import pytest

from stylegan_cli.cli import COMMANDS, main

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
