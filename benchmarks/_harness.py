"""Shared by the benchmarks: verify results, time the candidates in turn, write the measurements.

Every candidate runs once per round, so that other load on the machine affects all of them equally. Only correct results
get a ratio: the error of ours must be at most twice that of plain PyTorch in the same precision. The clock is CUDA
events on a GPU, process time on a CPU with one thread.
"""

from __future__ import annotations

import functools
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import _peer
import click
import torch
from _results import command_line, is_cuda, machine, results_path, save_entry
from torch import Tensor

from stylegan_cli.cli.call import keep_freed_memory

RELAXED_CANDIDATES = ("compiled", "peer")  # candidates that are allowed larger errors than ours
Run = Callable[[int], object]  # one call on input set i -> one or more tensors


# ------------------------------------------------------------------------------------------- candidates


def cycle_through(function: Callable, sets: Sequence[tuple]) -> Run:
    """A candidate that uses the input sets in turn, so that they do not stay in caches."""
    return lambda i: function(*sets[i % len(sets)])


def backward_of(function: Callable, sets: Sequence[tuple]) -> Run:
    """A candidate that computes only the gradient of the first input. The last tensor of a set is the gradient of y."""
    forward = {}

    def run(i):
        i %= len(sets)
        if i not in forward:
            x, *rest, dy = sets[i]
            x = x.detach().requires_grad_(True)
            with torch.enable_grad():
                forward[i] = function(x, *rest), x, dy
        y, x, dy = forward[i]
        return torch.autograd.grad(y, x, dy, retain_graph=True)[0]

    return run


def compiled(function: Callable) -> Callable:
    """The function under torch.compile, for one shape."""
    import torch._functorch.config

    def call(*arguments):
        return function(*arguments)

    torch._dynamo.reset()  # the many shapes of a benchmark would exceed the recompile limit and fall back to eager
    torch._functorch.config.donated_buffer = False  # so that a backward pass can run again
    return torch.compile(call, dynamic=False)


def graphed(
    function: Callable,
    sets: Sequence[tuple],
    pool: object,  # memory shared by the compared graphs, which run one after the other
) -> Run:
    """A candidate that runs as one CUDA graph, captured at the first call."""
    static = tuple(t.clone() for t in sets[0])
    captured = []

    def run(i):
        if not captured:
            captured.extend(_capture(lambda: function(*static), pool))
        for target, source in zip(static, sets[i % len(sets)], strict=True):
            target.copy_(source)
        graph, result = captured
        graph.replay()
        return result

    return run


def _capture(function: Callable[[], object], pool: object) -> tuple[torch.cuda.CUDAGraph, object]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # first-call tuning and caching must not be captured
            function()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        result = function()
    return graph, result


# --------------------------------------------------------------------------------------------- verifying


def error(
    result: object,  # a tensor, or several
    exact: Tensor,  # [numbers]
) -> tuple[float, float]:
    """Relative error: root mean square, and the largest difference over the largest exact value."""
    difference = flatten(result, exact.dtype) - exact
    norm = torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(exact)
    return norm.item(), (difference.abs().max() / exact.abs().max()).item()


def verify(
    result: tuple[float, float],  # error of the verified result
    plain: tuple[float, float],  # error of plain PyTorch in the same precision
    eps: float,  # machine epsilon of that precision
    factor: float = 2.0,
    tolerance: float = 0.0,  # additional allowed error
) -> bool:
    """Whether the error is at most `factor` times that of plain PyTorch, or twice that for the largest difference,
    which varies more. A fraction of eps is allowed in case PyTorch happens to be exact."""
    norm, largest = factor * plain[0] + eps / 16 + tolerance, 2 * factor * plain[1] + eps / 2 + 2 * tolerance
    return result[0] <= norm and result[1] <= largest  # False for NaN


def flatten(result: object, dtype: torch.dtype) -> Tensor:  # [numbers]
    tensors = [result] if isinstance(result, Tensor) else list(result)
    return torch.cat([t.detach().to(dtype).flatten() for t in tensors])


def wider_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision that counts as exact."""
    return torch.float64 if dtype in (torch.float32, torch.float64) else torch.float32


# ------------------------------------------------------------------------------------------------ timing


def compare(
    candidates: dict[str, Run],
    device: torch.device,
    sets: int = 1,  # different inputs
    rounds: int = 7,
    ahead: bool = True,  # on a GPU: queue calls ahead, to measure only the device's time
) -> dict[str, list[float]]:
    """Seconds per call of each candidate, one number per round."""
    for run in candidates.values():
        for i in range(max(sets, 2)):
            run(i)
    if not is_cuda(device):
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        timers = {name: functools.partial(_cpu_seconds, run, clock) for name, run in candidates.items()}
    else:
        timers = {name: _cuda_timer(run, sets, ahead) for name, run in candidates.items()}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for k in range(rounds):
        for name, timer in timers.items():
            times[name].append(timer(k))
    return times


def _cpu_seconds(run: Run, clock: Callable[[], float], i: int) -> float:
    start = clock()
    run(i)
    return clock() - start


def _cuda_timer(run: Run, sets: int, ahead: bool) -> Callable[[int], float]:
    """A timer with enough calls for two milliseconds and for all input sets."""
    host, device = _queue(run, sets, 0.0)
    calls = sets * min(max(math.ceil(2e-3 / max(device * sets, 1e-6)), 1), 16)
    calls = max(min(calls, 32), sets)
    pause = min(2 * host * calls + 1e-3, 0.1) if ahead else 0.0
    return lambda _: _queue(run, calls, pause)[1]


def _queue(run: Run, calls: int, pause: float) -> tuple[float, float]:
    """Seconds per call: for the host to queue it, and for the device to execute it. During a pause, which blocks the
    device, the host can queue ahead."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    results = deque(maxlen=4)  # so that the next result gets different memory
    torch.cuda.synchronize()
    if pause:
        torch.cuda._sleep(int(pause * 2e9))  # cycles
    host_start = time.perf_counter()
    start.record()
    for i in range(calls):
        results.append(run(i))
    end.record()
    queued = time.perf_counter() - host_start
    end.synchronize()
    return queued / calls, start.elapsed_time(end) / 1000 / calls


def count_input_sets(
    size: int,  # bytes of one input set
    device: torch.device,
) -> int:
    """The number of input sets that together exceed the L2 cache."""
    if not is_cuda(device):
        return 2
    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 50 << 20)
    return min(max(math.ceil(2 * cache / size), 2), 32)


def time_share(
    run: Callable[[], object],
    parts: tuple[str, ...],  # parts of operator names, such as 'convolution'
) -> float:
    """The share of CPU time in operators whose name contains one of the parts."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    rows = [(row.key, row.self_cpu_time_total) for row in profile.key_averages()]
    return sum(t for key, t in rows if any(part in key for part in parts)) / sum(t for _, t in rows)


# ---------------------------------------------------------------------------------------------- ceilings


@torch.no_grad()
def ceilings(device: torch.device) -> dict[str, float]:
    """Measured limits of the device: GB/s of a copy, read and written, and TFLOP/s of matrix products."""
    numbers, side = (1 << 28, 8192) if is_cuda(device) else (1 << 22, 256)
    pairs = [(torch.zeros(numbers, device=device), torch.ones(numbers, device=device)) for _ in range(2)]
    limits = {"copy_gbs": 2 * 4 * numbers / _median(lambda target, x: target.copy_(x), pairs, device) / 1e9}
    del pairs
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        pairs = [tuple(torch.randn(side, side, device=device).to(dtype) for _ in "ab") for _ in range(2)]
        limits[f"matmul_tflops_{_name(dtype)}"] = 2 * side**3 / _median(torch.mm, pairs, device) / 1e12
    return limits


def _median(function: Callable, pairs: list[tuple[Tensor, Tensor]], device: torch.device) -> float:
    return statistics.median(compare({"": cycle_through(function, pairs)}, device, sets=len(pairs))[""])


# ----------------------------------------------------------------------------------------------- writing


class Bench:
    """One run of one benchmark. Rows are printed and written as soon as they are measured."""

    def __init__(
        self,
        device: str,
        out: Path | None = None,  # results file; None: results/<date>-<device>.json
        rounds: int = 7,
        seconds: float | None = None,  # start no new row after this time
        peer: str | None = None,  # path of a peer's checkout
        keep_memory: bool = True,  # see `keep_freed_memory`, for all candidates
    ):
        self.device, self.rounds = torch.device(device), rounds
        if keep_memory:
            keep_freed_memory()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # keep float32 exact
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)
        self.deadline = time.monotonic() + (math.inf if seconds is None else seconds)
        self.skipped = 0
        self.peer, self.no_peer = _peer.load(peer, self.device) if peer else (None, "not requested")
        self.path = out or results_path(self.device)
        self.ceilings = ceilings(self.device)
        self.rows: list[dict] = []
        print(*(f"{name} {value:.4g}" for name, value in self.ceilings.items()), f"(peer: {self.no_peer or 'loaded'})")

    @property
    def cuda(self) -> bool:
        return is_cuda(self.device)

    def row(
        self,
        case: str,
        candidates: dict[str, Run],  # the first is ours; ratios are the times of the others over ours
        exact: Callable[[], object],  # the result in higher precision
        plain: Callable[[], object],  # the result of plain PyTorch
        dtype: torch.dtype,  # precision of the candidates
        sets: int = 1,
        ahead: bool = True,
        moved: float = 0,  # bytes that must be read or written
        flop: float = 0,
        finish: Callable[[dict], None] | None = None,  # adds derived values to the row
        tolerance: float = 0.0,  # relative error allowed in addition to twice PyTorch's
        unverified: tuple[str, ...] = (),  # candidates with random numbers of their own
        **facts: object,  # saved with the row
    ) -> dict | None:
        """Verify and time the candidates. Returns None if the time limit has passed."""
        if time.monotonic() > self.deadline:
            self.skipped += 1
            return None
        row = {"case": case, "dtype": _name(dtype), **facts, "error": {}, "wrong": [], "failed": {}}
        trusted = {name: run for name, run in candidates.items() if name in unverified}
        candidates = {name: run for name, run in candidates.items() if name not in unverified}
        if candidates := self._verified(row, candidates, exact, plain, dtype, tolerance):
            candidates |= trusted
        if not self.peer or self.no_peer:
            candidates = {name: run for name, run in candidates.items() if not name.startswith("peer")}
        times = {}
        try:
            times = compare(candidates, self.device, sets, self.rounds, ahead) if candidates else {}
        except Exception as e:  # such as out of memory: the other rows must still run
            row["failed"]["timing"] = _first_line(e)
        self._add_times(row, times)
        if "ours" in row:
            self._add_speeds(row, moved, flop)
            if finish:
                finish(row)
        self.add(row)
        if self.cuda:
            torch.cuda.empty_cache()
        return row

    def _verified(
        self, row: dict, candidates: dict[str, Run], exact, plain, dtype: torch.dtype, tolerance: float
    ) -> dict[str, Run]:
        """The candidates with a correct result; none if ours is wrong, as ratios need it."""
        row["first"] = next(iter(candidates))
        try:
            exact_result = flatten(exact(), wider_dtype(dtype))
            plain_error = error(plain(), exact_result)
        except Exception as e:
            row["failed"]["exact"] = _first_line(e)
            return {}
        row["error"]["plain"] = plain_error
        correct = {}
        for name, run in candidates.items():
            try:
                result = row["error"][name] = error(run(0), exact_result)
            except Exception as e:
                row["failed"][name] = _first_line(e)
                continue
            if verify(
                result, plain_error, torch.finfo(dtype).eps, 10 if name.startswith(RELAXED_CANDIDATES) else 2, tolerance
            ):
                correct[name] = run
            else:
                row["wrong"].append(name)
        return correct if row["first"] in correct else {}

    def _add_times(self, row: dict, times: dict[str, list[float]]) -> None:
        row["seconds"] = {name: statistics.median(ts) for name, ts in times.items()}
        row["spread"] = {name: _spread(ts) for name, ts in times.items()}
        row["ratio"] = {}
        if row["first"] in times:
            row["ours"] = row["seconds"][row["first"]]
            first = times.pop(row["first"])
            rounds = {name: zip(ts, first, strict=True) for name, ts in times.items()}
            row["ratio"] = {name: statistics.median(t / o for t, o in pairs) for name, pairs in rounds.items()}

    def _add_speeds(self, row: dict, moved: float, flop: float) -> None:
        if moved:
            row["gbs"] = moved / row["ours"] / 1e9
            row["of_copy"] = row["gbs"] / self.ceilings["copy_gbs"]
        if flop:
            row["tflops"] = flop / row["ours"] / 1e12

    def add(self, row: dict) -> None:
        """Print a row, and write it to the results file."""
        self.rows.append(row)
        print(line(row), flush=True)
        entry = {"command": command_line(sys.argv), "ceilings": self.ceilings, "rows": self.rows}
        entry |= {"skipped": self.skipped, "peer": self.no_peer or "loaded", "machine": machine(self.device)}
        save_entry(self.path, entry)

    def finish(self) -> None:
        """Exit, with code 1 if any of ours was wrong or failed."""
        bad = [row["case"] for row in self.rows if row.get("ours") is None]
        for case in bad:
            print(f"WRONG OR FAILED: {case}")
        if self.skipped:
            print(f"{self.skipped} rows were skipped: the time limit had passed")
        sys.exit(1 if bad else 0)


def benchmark(function: Callable) -> Callable:
    """Decorator that adds the common options; the function receives a Bench instead of them."""

    @click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
    @click.option("--out", type=click.Path(path_type=Path), help="Results file.")
    @click.option("--rounds", default=7, show_default=True)
    @click.option("--seconds", type=float, help="Start nothing new after this many seconds.")
    @click.option("--peer", help="Checkout of stylegan3 or stylegan2-ada-pytorch to measure in the same run.")
    @click.option(
        "--keep-memory/--return-memory",
        default=True,
        help="Whether the C library keeps freed memory, as in `sgan`, or returns it, as in other programs.",
    )
    @functools.wraps(function)
    def main(device, out, rounds, seconds, peer, keep_memory, **options):
        bench = Bench(device, out, rounds, seconds, peer, keep_memory)
        function(bench, **options)
        bench.finish()

    return main


def line(row: dict) -> str:
    """A row as text for the terminal."""
    if row.get("ours") is None:
        reasons = "; ".join(f"{name}: {text}" for name, text in row["failed"].items())
        return f"{row['case']:<62} {'WRONG' if row['wrong'] else 'FAILED'} {reasons}"
    parts = [f"{row['case']:<62} {row['first']} {row['ours'] * 1e3:8.3f} ms"]
    parts += [f"{row['gbs']:6.0f} GB/s ({row['of_copy']:.0%} of a copy)"] if "gbs" in row else []
    parts += [f"{row['tflops']:6.1f} TFLOP/s"] if "tflops" in row else []
    parts += [f"{row['of_floor']:.0%} of the theoretical speed"] if "of_floor" in row else []
    parts += [f"{name} {ratio:.2f}x" for name, ratio in row["ratio"].items()]
    parts += [f"{name} wrong" for name in row["wrong"]] + [f"{name} failed" for name in row["failed"]]
    return "  ".join(parts)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _spread(times: list[float]) -> float:
    """Interquartile range over the median."""
    if len(times) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / middle if middle else 0.0


def _first_line(e: Exception) -> str:
    return f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
