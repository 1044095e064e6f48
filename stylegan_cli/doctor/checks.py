"""Build the kernels, compare each with its reference, and time it against PyTorch's own operations.

A kernel agrees if its error, against the reference in float64, is at most twice the error that the reference itself
makes in the kernel's type, or what rounding explains. Errors are relative: root mean squares over an op's results.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..kernels import build
from ..kernels.toolchain import BuildError
from ..ops import bias_act, downsample2d, fir_filter, modulated_conv2d, upsample2d, use
from ..ops.dispatch import kernel_device
from ..ops.modulated_conv2d import HALF
from .machine import Advice, Machine, can_run_kernels, wanted_architectures

FULL, SLOWER, WRONG = "full speed", "slower", "wrong"


# ---------------------------------------------------------------------------------------------- the build


@dataclass(frozen=True)
class Build:
    """What came of building the kernels."""

    architectures: tuple[str, ...]  # ('80', '90a')
    library: Path | None = None
    origin: str | None = None  # 'package' (came with it), 'cache' (built before) or 'now'
    seconds: float = 0.0  # of building and loading
    loaded: bool = False  # only where there is a GPU
    problem: str | None = None  # one sentence
    todo: str | None = None
    log: Path | None = None  # what the compilers said


def build_kernels(
    may_compile: bool = True,  # False: only what is there already
) -> Build:
    """Find or build the library, and load it where there is a GPU. A build that failed before is tried again."""
    start, made = time.perf_counter(), Build(())
    try:
        made = replace(made, architectures=wanted_architectures())
        found = build.ready(made.architectures)
        if found is None:
            if not may_compile:
                raise BuildError("The CUDA kernels are not built yet.", "sgan doctor builds them.")
            found = build.build(made.architectures, retry=True), "now"
        made = replace(made, library=found[0], origin=found[1])
        if can_run_kernels():
            build.load()
            made = replace(made, loaded=True)
    except BuildError as e:
        made = replace(made, problem=str(e), todo=e.hint, log=e.log)
    return replace(made, seconds=time.perf_counter() - start)


# ---------------------------------------------------------------------------------------------- the checks


@dataclass(frozen=True)
class Check:
    """One kernel in one type: its error, and its time beside that of PyTorch's own operations."""

    kernel: str  # 'bias_act'
    dtype: str  # 'float16'
    what: str  # 'forward', or 'gradients' (first and second ones; timed are forward and first)
    error: float | None = None  # None: see the problem
    allowed: float | None = None
    seconds: float | None = None  # median; None: not timed
    composite_seconds: float | None = None
    problem: str | None = None  # what it raised, in a line

    @property
    def agrees(self) -> bool:
        return self.error is not None and self.allowed is not None and self.error <= self.allowed

    @property
    def speedup(self) -> float | None:
        return self.composite_seconds / self.seconds if self.seconds and self.composite_seconds else None


@dataclass(frozen=True)
class _Case:
    kernel: str
    functions: tuple[Callable[..., Tensor], ...]  # function(*inputs); the first one is timed
    inputs: Callable[..., list[Tensor]]  # from (n, c, h, w); the first takes the kernel's type
    dtypes: tuple[torch.dtype, ...] = (torch.float32, *HALF)
    implementation: str = "cuda"  # or 'fused'


SIZE = (2, 24, 9, 11)  # n, c, h, w of what is compared: no multiple of what a block of threads takes
TIMED = (8, 64, 256, 256)  # of what is timed on a GPU; elsewhere SIZE
REPEATS = 20  # of which the median is taken

# Errors that nothing is held against. In float32 cuDNN may choose Winograd's algorithm for one of two layouts.
FLOORS = {torch.float32: 5e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}

# Far from where activation and clamp have their kinks: there a rounding decides which slope counts.


def _bias_act_inputs(n: int, c: int, h: int, w: int) -> list[Tensor]:
    return [3 * _signs((n, c, h, w)) + 0.3 * torch.randn(n, c, h, w), 4 * _signs((c,))]


def _bias_act(act: str, clamp: float | None = None) -> Callable[..., Tensor]:
    return lambda x, b: bias_act(x, b.to(x.dtype), act=act, clamp=clamp)


def _fir(x: Tensor) -> Tensor:
    return fir_filter([1, 3, 3, 1]).to(x.device)


def _modulated_inputs(n: int, c: int, h: int, w: int) -> list[Tensor]:
    weight, style = torch.randn(c, c, 3, 3) / math.sqrt(9 * c), 1 + 0.3 * torch.randn(n, c)
    return [torch.randn(n, c, h, w), weight, style, 0.1 * torch.randn(n, 1, h, w), 6 * _signs((c,))]


def _modulated(up: int) -> Callable[..., Tensor]:
    def function(x: Tensor, w: Tensor, style: Tensor, noise: Tensor, b: Tensor) -> Tensor:
        noise = noise.repeat(1, 1, up, up)
        return modulated_conv2d(x, w, style, up=up, f=_fir(x), noise=noise, b=b, act="lrelu")

    return function


CASES = (
    _Case("bias_act", (_bias_act("lrelu", 5), _bias_act("swish")), _bias_act_inputs),
    _Case(
        "upfirdn2d",
        (lambda x: upsample2d(x, _fir(x)), lambda x: downsample2d(x, _fir(x))),
        lambda *size: [torch.randn(*size)],
    ),
    _Case("modulated_conv2d", (_modulated(1), _modulated(2)), _modulated_inputs),
    _Case("modulated_conv2d, fused", (_modulated(1), _modulated(2)), _modulated_inputs, HALF, "fused"),
)
NUM_CHECKS = 2 * sum(len(case.dtypes) for case in CASES)


def check_kernels() -> Iterator[Check]:
    """Every kernel in every type, forward and gradients, on the device that kernels run on. They must be loaded."""
    for case in CASES:
        for dtype in case.dtypes:
            for what in ("forward", "gradients"):
                yield _check(case, dtype, what)


def _check(case: _Case, dtype: torch.dtype, what: str) -> Check:
    check = Check(case.kernel, str(dtype).removeprefix("torch."), what)
    try:
        error, allowed = max((_compare(case, *how, dtype, what) for how in _ways(case)), key=_excess)
        if not math.isfinite(error):
            return replace(check, problem="its result is not finite")
        seconds, composite = (_time(case, dtype, what, path) for path in (case.implementation, "composite"))
    except RuntimeError as e:
        return replace(check, problem=" ".join(str(e).split())[:300])
    return replace(check, error=error, allowed=allowed, seconds=seconds, composite_seconds=composite)


def _ways(case: _Case) -> Iterator[tuple[Callable[..., Tensor], torch.memory_format]]:
    return itertools.product(case.functions, (torch.contiguous_format, torch.channels_last))


def _excess(found: tuple[float, float]) -> float:
    error, allowed = found
    return error / allowed if math.isfinite(error) else math.inf


def _compare(
    case: _Case, function: Callable[..., Tensor], layout: torch.memory_format, dtype: torch.dtype, what: str
) -> tuple[float, float]:
    """(relative error of the kernel, what is allowed)"""
    inputs = _inputs(case, SIZE, dtype, layout)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        with use("reference"):
            exact = _results(function, [t.double() for t in inputs], what)
            plain = _results(function, inputs, what)
        with use(case.implementation):
            ours = _results(function, inputs, what)
    return _error(ours, exact), 2 * max(_error(plain, exact), FLOORS[dtype])


def _inputs(
    case: _Case, size: tuple[int, int, int, int], dtype: torch.dtype, layout: torch.memory_format
) -> list[Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        x, *others = case.inputs(*size)
    return [t.to(kernel_device()) for t in (x.to(dtype).contiguous(memory_format=layout), *others)]


def _signs(shape: Sequence[int]) -> Tensor:
    return torch.randint(0, 2, shape) * 2.0 - 1


def _direction(like: Tensor) -> Tensor:
    """Normal numbers that all types hold exactly."""
    return torch.randn(like.shape).bfloat16().to(like)


def _results(function: Callable[..., Tensor], inputs: list[Tensor], what: str) -> list[Tensor]:
    """The output; or the first derivatives in a direction, and those of these in the inputs and the direction."""
    if what == "forward":
        with torch.no_grad():
            return [function(*inputs)]
    inputs = [t.detach().requires_grad_() for t in inputs]
    y = function(*inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        dy = _direction(y).requires_grad_()
        first = torch.autograd.grad(y, inputs, dy, create_graph=True)
        bent = [_direction(t) for t in first]
    second = torch.autograd.grad(first, [dy, *inputs], bent, materialize_grads=True)
    return [t.detach() for t in (*first, *second)]


def _error(results: list[Tensor], exact: list[Tensor]) -> float:
    """Root mean square over all results of their relative errors; what should be zero is measured by the others."""
    sizes = [_rms(true) for true in exact]
    mean = statistics.fmean(size for size in sizes if size)
    errors = [_rms(mine.double() - true) / (size or mean) for mine, true, size in zip(results, exact, sizes)]
    return math.sqrt(statistics.fmean(e * e for e in errors))


def _rms(t: Tensor) -> float:
    return t.square().mean().sqrt().item()


def _time(case: _Case, dtype: torch.dtype, what: str, implementation: str) -> float | None:
    """Seconds of the case's first function, alone or with its first derivatives; None if there is no memory for it."""
    function, on_gpu = case.functions[0], kernel_device() == "cuda"
    try:
        inputs = _inputs(case, TIMED if on_gpu else SIZE, dtype, torch.channels_last)  # as in the models
        if what == "gradients":
            inputs = [t.requires_grad_() for t in inputs]
        with use(implementation), torch.set_grad_enabled(what == "gradients"):
            dy = torch.ones_like(function(*inputs))

            def run() -> None:
                y = function(*inputs)
                if what == "gradients":
                    torch.autograd.grad(y, inputs, dy)

            return _median(run, on_gpu)
    except torch.OutOfMemoryError:
        return None


def _median(run: Callable[[], None], on_gpu: bool) -> float:
    if not on_gpu:
        return _clocked(run)
    for _ in range(3):
        run()
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(REPEATS)]
    for begin, end in marks:
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) / 1000 for begin, end in marks)


def _clocked(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


# ---------------------------------------------------------------------------------------------- what it comes to


def advice(machine: Machine, built: Build) -> list[Advice]:
    """What to do for full speed."""
    found = list(machine.hinders_use)
    if built.library is None and machine.hinders_building:
        found += machine.hinders_building
    elif built.problem:
        found.append(Advice(built.problem, built.todo or "sgan doctor tries again."))
    return found


def verdict(machine: Machine, built: Build, checks: Sequence[Check]) -> tuple[str, str]:
    """FULL, SLOWER or WRONG, and one sentence."""
    if wrong := sorted({check.kernel for check in checks if not check.agrees}):
        return WRONG, f"Not right: {' and '.join(wrong)}. Until that is mended, train with --kernels reference."
    if not can_run_kernels():
        return SLOWER, "It works, on the CPU: much slower than on a GPU."
    if not built.loaded or not checks:
        return SLOWER, "It works, but slower than it could: without the CUDA kernels."
    if (machine.settings.get("SGAN_KERNELS") or "auto") not in ("auto", "cuda", "fused"):
        return SLOWER, "It works, but slower than it could: SGAN_KERNELS is set against the CUDA kernels."
    return FULL, "All is well: training runs at full speed."
