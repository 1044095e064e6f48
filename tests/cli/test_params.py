"""Click types: what they take, and what they say to what they don't."""

import json

import click
import pytest
import torch
from click.testing import CliRunner

from stylegan_cli.cli import params
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
    ("text", "said"),
    [
        ("5-1", "write 1-5"),
        ("x", "'x' is no number or range"),
        ("", "is no number"),
        ("1,,2", "is no number"),
        ("-3", "is no number"),
        ("1.5", "is no number"),
        ("٣", "is no number"),
        ("4294967296", "more than 4294967295"),
        ("0-1000000", "more than 1000000 numbers"),
        ("0-4294967295", "more than 1000000 numbers"),
        ("99999999999999999999999", "is no number"),
    ],
)
def test_bad_seeds(text, said):
    with pytest.raises(click.BadParameter, match=said):
        params.SEEDS.convert(text, None, None)


def test_styles():
    assert params.STYLES.convert("0-2,5", None, None) == [0, 1, 2, 5]
    assert params.STYLES.convert("middle", None, None) == "middle"
    with pytest.raises(click.BadParameter, match="coarse, middle, fine"):
        params.STYLES.convert("course", None, None)


@pytest.mark.parametrize(("text", "size"), [("256", (256, 256)), ("256x384", (256, 384)), ("24X48", (24, 48))])
def test_size(text, size):
    assert params.SIZE.convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "x", "0", "256x", "256x0", "-1", "256x384x3", "1e3"])
def test_bad_size(text):
    with pytest.raises(click.BadParameter, match="is no size"):
        params.SIZE.convert(text, None, None)


@pytest.mark.parametrize(("text", "kimg"), [("25000", 25000.0), ("0.5", 0.5)])
def test_kimg(text, kimg):
    assert params.KIMG.convert(text, None, None) == kimg


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "many"])
def test_bad_kimg(text):
    with pytest.raises(click.BadParameter, match="above 0"):
        params.KIMG.convert(text, None, None)


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:x", "", "CPU"])
def test_bad_device(text):
    with pytest.raises(click.BadParameter, match="is none of"):
        params.DEVICE.convert(text, None, None)


@pytest.mark.parametrize(
    ("name", "count", "device"),
    [("auto", 0, "cpu"), ("auto", 2, "cuda"), ("cpu", 2, "cpu"), ("cuda:1", 2, "cuda:1"), ("cuda", 1, "cuda")],
)
def test_resolve_device(monkeypatch, name, count, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert params.resolve_device(name) == torch.device(device)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:2", 2)])
def test_absent_device(monkeypatch, name, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(SganError, match=f"no device {name}"):
        params.resolve_device(name)


@click.command()
@params.model_option
@params.output_options
@params.device_option
def shared(**given):
    click.echo(json.dumps(given))


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
    with pytest.raises(click.UsageError, match="is no number"):
        params.Number().convert(value, None, None)
