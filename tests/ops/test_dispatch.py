"""Which implementation of the ops runs, and what decides it."""

import asyncio
import threading

import pytest
import torch

from stylegan_cli import ops
from stylegan_cli.kernels.toolchain import BuildError
from stylegan_cli.ops import dispatch
from stylegan_cli.ops.dispatch import IMPLEMENTATIONS, choose, current_implementation, kernels_on


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    monkeypatch.delenv("SGAN_KERNELS", raising=False)


def test_blocks_can_be_nested():
    assert current_implementation() == "auto"
    with ops.use("reference"):
        with ops.use("auto"):
            assert current_implementation() == "auto"
        assert current_implementation() == "reference"
        with pytest.raises(ZeroDivisionError), ops.use("composite"):
            raise ZeroDivisionError
        assert current_implementation() == "reference"
    assert current_implementation() == "auto"


def test_the_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("SGAN_KERNELS", "reference")
    assert current_implementation() == choose("cpu") == "reference"
    with ops.use("auto"):
        assert current_implementation() == "auto" and choose("cpu") == "composite"
    monkeypatch.setenv("SGAN_KERNELS", "fast")
    with pytest.raises(ValueError, match="SGAN_KERNELS must be 'auto', .* or 'reference', not 'fast'"):
        current_implementation()


def test_choices_are_local_to_threads_and_tasks():
    seen = {}

    def work(name):
        with ops.use(name):
            barrier.wait(5)  # all are inside their blocks
            seen[name] = current_implementation()

    async def task(name):
        with ops.use(name):
            await asyncio.sleep(0.01)
            return current_implementation()

    async def tasks():
        return await asyncio.gather(*map(task, IMPLEMENTATIONS))

    barrier = threading.Barrier(len(IMPLEMENTATIONS) + 1)
    threads = [threading.Thread(target=work, args=(name,)) for name in IMPLEMENTATIONS]
    with ops.use("reference"):
        for thread in threads:
            thread.start()
        barrier.wait(5)
        assert current_implementation() == "reference"
        assert asyncio.run(tasks()) == list(IMPLEMENTATIONS)
    for thread in threads:
        thread.join()
    assert seen == {name: name for name in IMPLEMENTATIONS}


def test_unknown_name():
    with (
        pytest.raises(ValueError, match="implementation must be 'auto', .* or 'reference', not 'fast'"),
        ops.use("fast"),
    ):
        pass


@pytest.mark.parametrize("name", ["cuda", "fused"])
def test_kernels_refuse_cpu_tensors(name):
    with ops.use(name), pytest.raises(ValueError, match="cannot run on cpu tensors"):
        ops.bias_act(torch.ones(1, 2))


def test_choice_by_what_the_kernels_support():
    """On a device with kernels: (choice, cuda=, fused=) -> implementation."""
    with kernels_on("cpu"):
        for choice, expected in {"auto": "cuda", "cuda": "cuda", "fused": "fused", "reference": "reference"}.items():
            with ops.use(choice):
                assert choose("cpu", fused=True) == expected
        for choice in ("auto", "cuda", "fused"):
            with ops.use(choice):
                assert choose("cpu", cuda=False) == "composite" and choose("cpu") == "cuda"


def test_kernels_that_cannot_be_built(monkeypatch):
    """auto warns once and continues; cuda raises."""

    def fail():
        raise BuildError("There is no nvcc.")

    monkeypatch.setattr(dispatch, "load", fail)
    dispatch._warn_once.cache_clear()
    with pytest.warns(UserWarning, match="There is no nvcc. Continuing without the CUDA kernels") as warnings:
        assert [choose("cuda"), choose("cuda")] == ["composite"] * 2
    assert len(warnings) == 1
    for name in ("cuda", "fused"):
        with ops.use(name), pytest.raises(BuildError):
            choose("cuda")


def test_the_reference_is_plain_pytorch():
    """The graph of every op contains only PyTorch's own derivatives."""

    def nodes(y):
        pending, names = [y.grad_fn], set()
        while pending:
            node = pending.pop()
            names.add(type(node).__name__)
            pending += [following for following, _ in node.next_functions if following is not None]
        return names

    def layers():
        x, w = torch.randn(1, 2, 4, 4, requires_grad=True), torch.randn(3, 2, 3, 3, requires_grad=True)
        f, b = ops.fir_filter([1, 3, 3, 1]), torch.randn(3, requires_grad=True)
        x = ops.modulated_conv2d(x, w, x.mean((2, 3)), up=2, f=f, b=b, act="lrelu", clamp=1)
        x = ops.bias_act(ops.conv2d_resample(x, w.transpose(0, 1), f, down=2), act="lrelu")
        return nodes(ops.downsample2d(x, f))

    ours = {"EpilogueBackward", "PiecewiseLinearBackward", "_ConvolutionBackward", "_UpFirDn2dBackward"}
    assert ours <= layers()
    with ops.use("reference"):
        assert not [name for name in layers() if not name.endswith(("Backward0", "Backward1", "AccumulateGrad"))]
