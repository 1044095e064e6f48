"""Click types and shared options: the values they accept, and the messages for others."""

import json
import os
import re

import click
import pytest
import torch
from click.testing import CliRunner

from stylegan_cli.cli import options, params
from stylegan_cli.cli.call import output_file, resolve_device
from stylegan_cli.errors import SganError


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", [0]),
        ("0,5,10-13", [0, 5, 10, 11, 12, 13]),
        ("7-7, 3", [7, 3]),
        ("2,2", [2, 2]),
        ("4294967295", [2**32 - 1]),
    ],
)
def test_seeds(text, numbers):
    assert params.SEEDS.convert(text, None, None) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5-1", "The range '5-1' is descending. Use 1-5."),
        ("5-x", "'5-x' is not a valid seed list. Use numbers and ranges such as 0,5,10-20."),
        ("me.npz", "Use numbers and ranges such as 0,5,10-20. Files of latents go to --from-w."),
        ("", "'' is not a valid seed list"),
        ("1,,2", "'' is not a valid seed list"),
        ("-3", "'-3' is not a valid seed list"),
        ("1.5", "'1.5' is not a valid seed list"),
        ("٣", "'٣' is not a valid seed list"),
        ("4294967296", "The seed 4294967296 is too large. Use at most 4294967295."),
        ("0-1000000", "'0-1000000' has too many numbers. Use at most 1000000."),
        ("0-4294967295", "has too many numbers. Use at most 1000000."),
        ("99999999999999999999999", "is not a valid seed list"),
    ],
)
def test_bad_seeds(text, message):
    with pytest.raises(click.BadParameter, match=re.escape(message)):
        params.SEEDS.convert(text, None, None)


def test_seeds_and_files():
    assert params.LATENTS.convert("3,a.npz,5-6", None, None) == [3, "a.npz", 5, 6]
    with pytest.raises(
        click.BadParameter, match="not a valid seed list. Use .* such as 0,5,10-20, or files of latents .*npy"
    ):
        params.LATENTS.convert("a.png", None, None)


def test_styles():
    assert params.STYLES.convert("0-2,5", None, None) == [0, 1, 2, 5]
    assert params.STYLES.convert("middle", None, None) == "middle"
    with pytest.raises(click.BadParameter, match="'course' is not a valid style list. Use coarse, middle, fine, or"):
        params.STYLES.convert("course", None, None)


@pytest.mark.parametrize(("text", "size"), [("256", (256, 256)), ("256x384", (256, 384)), ("24X48", (24, 48))])
def test_size(text, size):
    assert params.SIZE.convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "x", "0", "256x", "256x0", "-1", "256x384x3", "1e3"])
def test_bad_size(text):
    with pytest.raises(click.BadParameter, match="not a valid size. Use a number of pixels such as 256, or HEIGHT"):
        params.SIZE.convert(text, None, None)


@pytest.mark.parametrize(("text", "kimg"), [("25000", 25000.0), ("0.5", 0.5)])
def test_kimg(text, kimg):
    assert params.KIMG.convert(text, None, None) == kimg


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "many"])
def test_bad_kimg(text):
    with pytest.raises(click.BadParameter, match="is not a valid number of kimg. Use a number above 0"):
        params.KIMG.convert(text, None, None)


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:x", "", "CPU", "mps:0", "MPS"])
def test_bad_device(text):
    with pytest.raises(click.BadParameter, match="is not a valid device. Use auto, cpu, cuda, cuda:N .* or mps"):
        params.DEVICE.convert(text, None, None)


@pytest.mark.parametrize(
    ("name", "count", "device"),
    [("auto", 0, "cpu"), ("auto", 2, "cuda"), ("cpu", 2, "cpu"), ("cuda:1", 2, "cuda:1"), ("cuda", 1, "cuda")],
)
def test_resolve_device(monkeypatch, name, count, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert resolve_device(name) == torch.device(device)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:2", 2)])
def test_absent_device(monkeypatch, name, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(SganError, match=f"Device '{name}' is not available: PyTorch finds {count or 'no'} CUDA device"):
        resolve_device(name)


@click.command()
@options.model_option
@options.output_options
@options.device_option
def shared(**values):
    click.echo(json.dumps(values))


def test_shared_options():
    result = CliRunner().invoke(shared, ["--network", "a", "--json", "-q"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "as_json": True,
        "device": "auto",
        "model": "a",
        "quiet": True,
        "runs": "./runs",
    }


@pytest.mark.parametrize("value", ["nan", "inf", "x"])
def test_truncation_is_a_number(value):
    with pytest.raises(click.UsageError, match="is not a valid number"):
        params.Number().convert(value, None, None)


def test_other_spellings_of_a_choice():
    choice = params.Aliases(["optimize", "const"], optimise="optimize")
    assert [choice.convert(value, None, None) for value in ("optimize", "optimise", "const")] == [
        "optimize",
        "optimize",
        "const",
    ]
    with pytest.raises(click.BadParameter, match="'none' is not one of 'optimize', 'const'"):
        choice.convert("none", None, None)


@pytest.mark.parametrize(
    ("out", "outdir", "file"),
    [
        (None, None, "out/a.gif"),
        (None, "b", "b/a.gif"),
        ("c.mp4", None, "c.mp4"),
        ("b/c.mp4", None, "b/c.mp4"),
        ("c.mp4", "b", "b/c.mp4"),
        ("b/c.mp4", "b", "b/c.mp4"),
        ("b/c.mp4", "./b/", "b/c.mp4"),
    ],
)
def test_output_file(out, outdir, file):
    assert os.path.normpath(output_file(out, outdir, "a.gif")) == os.path.normpath(file)


@pytest.mark.parametrize("out", ["b/c.mp4", "./c.mp4", "/c.mp4"])
def test_output_file_outside_the_output_folder(out):
    with pytest.raises(click.UsageError, match=re.escape(f"--out {out} is not in --outdir a. Use only one of")):
        output_file(out, "a", "a.gif")
