"""Build the kernels, compare each with its reference, and time it against PyTorch operations.

A kernel agrees with its reference if its error, relative to the reference in float64, is at most twice that of the
reference in the kernel's type, or explained by rounding. Errors are relative root mean squares over an op's results.
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

from ..errors import SganError
from ..kernels import build
from ..kernels.toolchain import BuildError
from ..ops import use
from ..ops.dispatch import kernel_device
from ..threads import check_num_threads
from .cases import CASES, Case
from .machine import Advice, Machine, can_run_kernels, target_architectures

FULL, SLOWER, WRONG = "full speed", "slower", "wrong"


# ---------------------------------------------------------------------------------------------- build


@dataclass(frozen=True)
class Build:
    """The result of building the kernels."""

    architectures: tuple[str, ...]  # ('80', '90a')
    library: Path | None = None
    origin: str | None = None  # 'package' (bundled), 'cache' (built before) or 'now'
    seconds: float = 0.0  # to build and load
    loaded: bool = False  # only with a GPU
    problem: str | None = None  # one sentence
    todo: str | None = None  # how to fix it
    log: Path | None = None  # output of the compilers


def build_kernels(
    allow_build: bool = True,  # False: use an existing build only
) -> Build:
    """Find or build the library, and load it if there is a GPU. A build that failed before is tried again."""
    start, result = time.perf_counter(), Build(())
    try:
        result = replace(result, architectures=target_architectures())
        built = build.find_built(result.architectures)  # (library, origin)
        if built is None:
            if not allow_build:
                raise BuildError("The CUDA kernels are not built yet.", "Run `sgan doctor` to build them.")
            built = build.build(result.architectures, retry=True), "now"
        result = replace(result, library=built[0], origin=built[1])
        if can_run_kernels():
            build.load()
            result = replace(result, loaded=True)
    except BuildError as e:
        result = replace(result, problem=str(e), todo=e.hint, log=e.log)
    return replace(result, seconds=time.perf_counter() - start)


# ---------------------------------------------------------------------------------------------- checks


@dataclass(frozen=True)
class Check:
    """One kernel in one type: its error, and its time compared with PyTorch operations."""

    kernel: str  # 'bias_act'
    dtype: str  # 'float16'
    what: str  # 'forward' or 'gradients' (first and second; only forward and first are timed)
    error: float | None = None  # None: the check failed with a problem
    allowed: float | None = None
    seconds: float | None = None  # median; None: not timed
    composite_seconds: float | None = None
    problem: str | None = None  # error message, in one line

    @property
    def agrees(self) -> bool:
        return self.error is not None and self.allowed is not None and self.error <= self.allowed

    @property
    def speedup(self) -> float | None:
        return self.composite_seconds / self.seconds if self.seconds and self.composite_seconds else None


SIZE = (2, 24, 9, 11)  # n, c, h, w for comparisons: not a multiple of what a thread block covers
TIMED_SIZE = (8, 64, 256, 256)  # for timings on a GPU; elsewhere SIZE
REPEATS = 20  # timings to take the median of

# Errors that are always allowed. In float32 cuDNN can choose Winograd's algorithm for only one of the two layouts.
ERROR_FLOORS = {torch.float32: 5e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}

NUM_CHECKS = sum(len(case.dtypes) * len(case.parts) for case in CASES)


def check_kernels() -> Iterator[Check]:
    """Check every kernel in every type, forward and gradients. The kernels must be loaded."""
    for case in CASES:
        for dtype in case.dtypes:
            for what in case.parts:
                yield _check(case, dtype, what)


def _check(case: Case, dtype: torch.dtype, what: str) -> Check:
    check = Check(case.kernel, str(dtype).removeprefix("torch."), what)
    try:
        error, allowed = max((_compare(case, *variant, dtype, what) for variant in _variants(case)), key=_excess)
        if not math.isfinite(error):
            return replace(check, problem="the result is not finite")
        seconds, composite = (_time(case, dtype, what, path) for path in (case.implementation, "composite"))
    except RuntimeError as e:
        return replace(check, problem=" ".join(str(e).split())[:300])
    return replace(check, error=error, allowed=allowed, seconds=seconds, composite_seconds=composite)


def _variants(case: Case) -> Iterator[tuple[Callable[..., Tensor], torch.memory_format]]:
    return itertools.product(case.functions, (torch.contiguous_format, torch.channels_last))


def _excess(error_and_allowed: tuple[float, float]) -> float:
    error, allowed = error_and_allowed
    return error / allowed if math.isfinite(error) else math.inf


def _compare(
    case: Case, function: Callable[..., Tensor], layout: torch.memory_format, dtype: torch.dtype, what: str
) -> tuple[float, float]:
    """(relative error of the kernel, largest allowed error)"""
    inputs = _inputs(case, SIZE, dtype, layout)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        with use("reference"):
            exact = _results(function, [t.double() for t in inputs], what)
            plain = _results(function, inputs, what)
        with use(case.implementation):
            results = _results(function, inputs, what)
    return _error(results, exact), 2 * max(_error(plain, exact), ERROR_FLOORS[dtype])


def _inputs(
    case: Case, size: tuple[int, int, int, int], dtype: torch.dtype, layout: torch.memory_format
) -> list[Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        x, *others = case.inputs(*size)
    return [t.to(kernel_device()) for t in (x.to(dtype).contiguous(memory_format=layout), *others)]


def _direction(like: Tensor) -> Tensor:
    """Normal random numbers that all types represent exactly."""
    return torch.randn(like.shape).bfloat16().to(like)


def _results(function: Callable[..., Tensor], inputs: list[Tensor], what: str) -> list[Tensor]:
    """The output; or the first derivatives in a direction, and their derivatives in the inputs and that direction."""
    if what == "forward":
        with torch.no_grad():
            return [function(*inputs)]
    inputs = [t.detach().requires_grad_() for t in inputs]
    y = function(*inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        dy = _direction(y).requires_grad_()
        first = torch.autograd.grad(y, inputs, dy, create_graph=True)
        directions = [_direction(t) for t in first]
    second = torch.autograd.grad(first, [dy, *inputs], directions, materialize_grads=True)
    return [t.detach() for t in (*first, *second)]


def _error(results: list[Tensor], exact: list[Tensor]) -> float:
    """Root mean square of the relative errors of all results; where zero is exact, relative to the mean magnitude."""
    sizes = [_rms(t) for t in exact]
    mean = statistics.fmean(size for size in sizes if size)
    errors = [_rms(result.double() - t) / (size or mean) for result, t, size in zip(results, exact, sizes)]
    return math.sqrt(statistics.fmean(e * e for e in errors))


def _rms(t: Tensor) -> float:
    return t.square().mean().sqrt().item()


def _time(case: Case, dtype: torch.dtype, what: str, implementation: str) -> float | None:
    """Seconds for the case's first function, alone or with its first derivatives; None if memory runs out."""
    function, on_gpu = case.functions[0], kernel_device() == "cuda"
    try:
        inputs = _inputs(case, TIMED_SIZE if on_gpu else SIZE, dtype, torch.channels_last)  # as in the models
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
        return _wall_seconds(run)
    for _ in range(3):
        run()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(REPEATS)]
    for begin, end in events:
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) / 1000 for begin, end in events)


def _wall_seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


# ---------------------------------------------------------------------------------------------- verdict


def advice(machine: Machine, built: Build) -> list[Advice]:
    """What to do to get full speed."""
    items = list(machine.use_blockers)
    if built.library is None and machine.build_blockers:
        items += machine.build_blockers
    elif built.problem:
        items.append(Advice(built.problem, built.todo or "Run `sgan doctor` to try again."))
    return items


def verdict(machine: Machine, built: Build, checks: Sequence[Check]) -> tuple[str, str]:
    """FULL, SLOWER or WRONG, and one sentence about it."""
    if wrong := sorted({check.kernel for check in checks if not check.agrees}):
        return WRONG, f"Wrong results: {' and '.join(wrong)}. Until this is fixed, train with --kernels reference."
    try:
        check_num_threads()
    except SganError:
        return SLOWER, "Other commands do not start until OMP_NUM_THREADS is a number of threads."
    if not can_run_kernels():
        return SLOWER, "Everything works, but on the CPU, which is much slower than a GPU."
    if not built.loaded or not checks:
        return SLOWER, "Everything works, but slower than it could: the CUDA kernels are not available."
    if (machine.settings.get("SGAN_KERNELS") or "auto") not in ("auto", "cuda", "fused"):
        return SLOWER, "Everything works, but slower than it could: SGAN_KERNELS prevents the use of the CUDA kernels."
    return FULL, "Everything works: training runs at full speed."
