"""`--kernels`: the implementation of the ops that a command uses."""

import os

import pytest

from stylegan_cli import distributed
from stylegan_cli.errors import SganError
from stylegan_cli.ops import composite as composite_ops

OPTIONS = {"generate": ["--seeds", "1"], "mix": ["--rows", "1", "--cols", "2"]}


@pytest.fixture
def composite(monkeypatch):
    """A list that gets an item for each use of the composite path."""
    calls, activate = [], composite_ops._activate_  # used by every model
    monkeypatch.setattr(composite_ops, "_activate_", lambda *args: calls.append(1) or activate(*args))
    monkeypatch.delenv("SGAN_KERNELS", raising=False)
    return calls


@pytest.mark.parametrize("command", OPTIONS)
def test_option_chooses_the_implementation(sgan, tiny_run, tmp_path, composite, command):
    line = [command, "--model", tiny_run, "--outdir", tmp_path, "-q", *OPTIONS[command]]
    sgan(*line, "--kernels", "reference")
    assert not composite and "SGAN_KERNELS" not in os.environ
    sgan(*line)
    assert composite


def test_environment_variable_is_the_default(sgan, tiny_run, tmp_path, composite, monkeypatch):
    line = ["generate", "--model", tiny_run, "--outdir", tmp_path, "--seeds", "1", "-q"]
    monkeypatch.setenv("SGAN_KERNELS", "reference")
    sgan(*line)
    assert not composite
    sgan(*line, "--kernels", "auto")  # the option overrides the environment
    assert composite and os.environ["SGAN_KERNELS"] == "reference"


@pytest.mark.parametrize("options, seen", [([], "auto"), (["--kernels", "reference"], "reference")])
def test_ranks_inherit_the_option(sgan, rgb_set, tmp_path, monkeypatch, composite, options, seen):
    """Ranks are started while it is in the environment."""
    at_start = []

    def launch(*args):
        at_start.append(os.environ.get("SGAN_KERNELS"))
        raise SganError("That is all.")

    monkeypatch.setattr(distributed, "launch", launch)
    sgan("train", "--data", rgb_set, "--runs", tmp_path, "--batch", "8", "--gpus", "2", "-q", *options, code=1)
    assert at_start == [seen] and "SGAN_KERNELS" not in os.environ


@pytest.mark.parametrize("command", ["train", "generate", "mix"])
@pytest.mark.parametrize("source", ["option", "environment"])
def test_cuda_kernels_on_a_cpu(sgan, rgb_set, tiny_run, tmp_path, monkeypatch, composite, command, source):
    line = [command, "--device", "cpu", "--outdir", tmp_path / "out"]
    line += ["--data", rgb_set] if command == "train" else ["--model", tiny_run]
    if source == "environment":
        monkeypatch.setenv("SGAN_KERNELS", "cuda")
    result = sgan(*line, "-q", *(["--kernels", "cuda"] if source == "option" else []), code=1)
    assert result.stderr.splitlines() == [
        "Error: The CUDA kernels need a GPU, but the device is cpu.",
        "Use --kernels auto.",
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["option", "environment"])
def test_unknown_value(sgan, monkeypatch, composite, source):
    if source == "environment":
        monkeypatch.setenv("SGAN_KERNELS", "fast")
    result = sgan("generate", *(["--kernels", "fast"] if source == "option" else []), code=2)
    words = "'fast' is not one of 'auto', 'cuda', 'fused', 'composite', 'reference'"
    assert "SGAN_KERNELS" in result.stderr and words in result.stderr
    assert len(result.stderr.splitlines()) <= 5
