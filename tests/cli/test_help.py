"""Help texts: sentences that say what goes in and what comes out, with examples, and the same in every command."""

import re

import click
import pytest

from stylegan_cli.cli import main
from stylegan_cli.models.registry import presets


def walk(command, path, parent=None):
    """All commands below a command, with their paths: ('sgan edit find', command)."""
    context = click.Context(command, info_name=path.split()[-1], parent=parent)
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), f"{path} {name}", context)


COMMANDS = dict(walk(main, "sgan"))
OPTIONS = [
    (path, option)
    for path, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
]
IDS = [f"{path} {option.opts[0]}" for path, option in OPTIONS]

# Options whose meaning differs from command to command, although the name is the same.
DIFFERENT = {
    "--any-model": "model blend: models to blend; else: files of another model",
    "--batch": "train: per step; else: at a time",
    "--data": "train: to train on; edit find: labels; else: real images",
    "--direction": "edit show: several in one; edit apply: one at a time",
    "--frames": "interpolate: from each image to the next; equivariance: all",
    "--grid": "generate: a flag; interpolate: rows and columns",
    "--kimg": "train: shown to the discriminator; encoder: images",
    "--labels": "data pack: of the dataset; segment fit: the method",
    "--layers": "edit find, edit show: styles; model info: a flag",
    "--loss": "train: objective; else: distance",
    "--lr": "encoder: it falls",
    "--mask": "project: pixels that count; translate: pixels that are given",
    "--noise-mode": "interpolate: without random",
    "--num": "the number of different things",
    "--precision": "train: of the training; else: of the highest resolutions",
    "--quiet": "train: without a result on stdout",
    "--recipe": "train: an encoder beside both networks; translate fit: a network of its own",
    "--resume": "train: also the weights of a model; encoder: a run only",
    "--rotate": "interpolate: over the whole video",
    "--seed": "edit drag: the image; else: of random numbers",
    "--seeds": "generate: seeds only; interpolate: keyframes",
    "--segmenter": "segment: to use; translate fit: to train with",
    "--size": "metrics, train: of what is read; data: of what is written",
    "--space": "project: to search; encoder: to predict",
    "--steps": "project: of the search; segment: perhaps none",
    "--style": "data demo: of avatars; stylize: an image",
    "--styles": "mix: from the column; interpolate: that fade",
    "--translate": "interpolate: over the whole video",
    "--video": "project: a format; edit drag: a file",
    "--weight": "model blend: of a model; stylize: of the style",
}


def main_help(text):
    """A help without its last part, the default, which may differ."""
    return text.partition(" Default: ")[0]


def sentences(text):
    return re.split(r"(?<=\.) (?=[A-Z])", text)


@pytest.mark.parametrize("path", COMMANDS)
def test_command_help_is_sentences_with_an_example(path):
    command = COMMANDS[path]
    paragraphs = (command.help or "").split("\n\n")
    for text in (paragraphs[0], command.get_short_help_str(limit=1000)):
        assert re.match(r"[A-Z][a-z]+ ", text) and text.endswith(".")
        assert not text.startswith(("Of ", "What ", "Where ", "Which "))
    assert "Left out" not in command.help
    assert any(line.strip().startswith("sgan ") for line in command.help.splitlines())
    for line in command.help.splitlines():
        if line.strip().startswith("sgan "):
            example = line.split()
            assert " ".join(example[: len(path.split())]) == path or isinstance(command, click.Group)


@pytest.mark.parametrize(("path", "option"), OPTIONS, ids=IDS)
def test_option_help_is_a_sentence(path, option):
    text = option.help
    assert text and re.match(r"[A-Z][A-Za-z0-9-]*[ ,:]", text) and text.endswith(".")
    assert not text.startswith(("Of ", "What ", "Where ", "Which ", "How "))
    assert "Left out" not in text and "[default" not in text
    for sentence in sentences(text):
        assert sentence[0].isupper() and sentence.endswith(".")


@pytest.mark.parametrize(("path", "option"), OPTIONS, ids=IDS)
def test_default_is_stated_once(path, option):
    shown = option.show_default or (option.show_default is None)  # the group shows defaults
    has_default = option.default not in (None, False) and isinstance(option.default, (str, int, float, list, tuple))
    assert not (shown and has_default and not option.is_flag and "Default:" in option.help)


def test_options_of_the_same_name_mean_the_same():
    variants = {}
    for path, option in OPTIONS:
        name = max(option.opts, key=len) if "--runs" not in option.opts else "--runs"
        variants.setdefault(name, {}).setdefault((main_help(option.help), option.metavar), []).append(path)
    different = {name: kinds for name, kinds in variants.items() if len(kinds) > 1}
    assert {name for name in different if name not in DIFFERENT} == set()
    assert set(DIFFERENT) == set(different)


def test_options_that_mean_the_same_have_the_same_name():
    names = {}
    for _, option in OPTIONS:
        names.setdefault(main_help(option.help), set()).add(max(option.opts, key=len))
    names.pop("Folder that contains the run folders.")  # --outdir is another name of --runs in train
    assert {text: n for text, n in names.items() if len(n) > 1} == {}


def test_what_trains_an_encoder(sgan):
    """All runs that --encoder can name, whatever the width of the terminal."""
    text = " ".join(sgan("encode", "--help").stdout.split())
    assert "with --recipe bigan, --recipe vaegan or --mode-regularize" in text


def test_the_space_that_is_searched(sgan):
    text = " ".join(sgan("project", "--help").stdout.split())
    assert "Default: w, or z in a model without a mapping network" in text


def test_the_presets_of_train(sgan, monkeypatch):
    """Each on a line of its own, and no line is longer than the terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    text = sgan("train", "--help").stdout
    assert "  --cfg NAME   " in text and max(map(len, text.splitlines())) <= 80
    listed = re.findall(r"^  ([a-z0-9-]+)  +\S", text.partition("\nPresets:\n")[2], re.MULTILINE)
    assert listed == list(presets())
    assert text.count("(a small Style") == 0 and "Train a StyleGAN" not in text
