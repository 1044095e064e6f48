"""Parts of gpu_check.py that are no benchmarks: the build, the kernels' checks, profiles. Each writes one entry.

python benchmarks/gpu_parts.py profile --size 1024 --batch 8
ncu --profile-from-start off ... python benchmarks/gpu_parts.py launches
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import torch
from _results import command_line, is_cuda, machine, save_entry
from bench_synthesis import generator
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from stylegan_cli.doctor import checks
from stylegan_cli.kernels import build as kernels
from stylegan_cli.models.frozen import frozen_synthesis
from stylegan_cli.ops import bias_act, fir_filter, modulated_conv2d, upfirdn2d, use

HERE = Path(__file__).parent
HALF = torch.float16
# Column of our table -> the metrics of ncu that it can be in, whose names differ between architectures.
COLUMNS = {
    "microseconds": r"gpu__time_duration\.sum",
    "DRAM %": r"(gpu__)?dram__throughput\.avg\.pct_of_peak_sustained_elapsed|gpu__dram_throughput\.avg\.pct.*",
    "tensor pipe %": r"sm__pipe_tensor\w*cycles_active\.avg\.pct.*|sm__inst_executed_pipe_tensor\w*\.avg\.pct.*",
    "issue %": r"smsp?__issue_active\.avg\.pct.*|smsp__issue_active\.avg\.per_cycle_active",
    "registers": r"launch__registers_per_thread",
    "occupancy %": r"sm__warps_active\.avg\.pct_of_peak_sustained_active",
}
STALL = re.compile(r"smsp__average_warps?_(?:latency_)?issue_stalled_(\w+?)_per_issue_active\.ratio")


@click.group()
@click.option("--device", default="cuda", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Results file.")
@click.pass_context
def main(context: click.Context, device: str, out: Path | None) -> None:
    context.obj = functools.partial(write, torch.device(device), out), torch.device(device)


def write(device: torch.device, out: Path | None, part: str, **facts: object) -> None:
    if out is not None:
        entry = {"command": command_line(sys.argv), "part": part, "machine": machine(device), **facts}
        save_entry(out, entry)


Context = tuple[Callable[..., None], torch.device]


@main.command()
@click.option("--peer", help="Checkout whose kernels to build at the same time.")
@click.option("--op", multiple=True, default=("bias_act", "upfirdn2d"), help="Of the peer.")
@click.pass_obj
def build(obj: Context, peer: str | None, op: tuple[str, ...]) -> None:
    """Build and load the kernels."""
    others = [build_beside(peer, name) for name in op] if peer else []
    start = time.perf_counter()
    kernels.load()
    seconds = time.perf_counter() - start
    print(f"built and loaded in {seconds:.1f} s", flush=True)
    obj[0]("build", seconds=seconds)
    for process in others:
        process.wait()


def build_beside(peer: str, name: str) -> subprocess.Popen[bytes]:
    code = "import sys, _peer; print(_peer.build(*sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.Popen([sys.executable, "-c", code, peer, name], env=environment)


@main.command()
@click.pass_obj
def check(obj: Context) -> None:
    """Compare every kernel with its reference."""
    kernels.load()
    found = []
    for result in checks.check_kernels():
        found.append(dataclasses.asdict(result) | {"agrees": result.agrees})
        print(found[-1], flush=True)
        obj[0]("check", checks=found)
    if wrong := [row for row in found if not row["agrees"]]:
        raise click.ClickException(f"{len(wrong)} of {len(found)} kernels differ from their reference")


# ------------------------------------------------------------------------------------------------- torch.profiler


@main.command("profile")
@click.option("--size", default=256, show_default=True)
@click.option("--batch", default=8, show_default=True)
@click.option("--channel-base", type=int, help="Default: 16384, or 32768 from 512 pixels up.")
@click.option("--passes", default=5, show_default=True)
@click.pass_obj
@torch.no_grad()
def profile_synthesis(obj: Context, size: int, batch: int, channel_base: int | None, passes: int) -> None:
    """List the kernels of synthesis by their time."""
    write_entry, device = obj
    G = generator(size, channel_base or (16384 if size < 512 else 32768), device)
    ws = G.mapping(torch.randn(batch, G.config.z_dim, device=device))
    synthesize = functools.partial(frozen_synthesis(G), ws, dtype=HALF if is_cuda(device) else None)
    for _ in range(3):
        synthesize()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda(device) else [])]
    with profile(activities=activities) as recorded:
        for _ in range(passes):
            synthesize()
        if is_cuda(device):
            torch.cuda.synchronize()
    rows = kernel_rows(recorded, passes, is_cuda(device))
    total = sum(row["microseconds"] for row in rows)
    print(f"{total:9.1f} us in {sum(row['launches'] for row in rows):.0f} launches, {total / batch:.1f} us an image")
    for row in rows:
        print(f"{row['microseconds']:9.1f} us {row['launches']:6.1f}  {row['kernel'][:110]}")
    write_entry("profile", size=size, batch=batch, microseconds=total, kernels=rows)


def kernel_rows(recorded: profile, passes: int, on_cuda: bool) -> list[dict]:
    """One row per kernel, per pass; operators on a CPU."""
    rows = []
    for event in recorded.key_averages():
        is_kernel = not on_cuda or event.device_type != torch.autograd.DeviceType.CPU
        spent = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        if is_kernel and spent > 0:
            rows.append({"kernel": event.key, "launches": event.count / passes, "microseconds": spent / passes})
    return sorted(rows, key=lambda row: -row["microseconds"])


# --------------------------------------------------------------------------------------------------------- ncu


@main.command()
@click.option("--scale", default=1, show_default=True, help="Divide sizes and channels by this.")
@click.pass_obj
@torch.no_grad()
def launches(obj: Context, scale: int) -> None:
    """Call each of the most used kernels once, between the start and the end of profiling."""
    device = obj[1]
    calls = list(make_calls(device, scale))
    for _, call in calls:
        call()
    with profiled(device):
        for name, call in calls:
            print(name, flush=True)
            call()


def make_calls(device: torch.device, scale: int) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    def randn(n: int, c: int, size: int, channels_last: bool = True) -> Tensor:
        x = torch.randn(n, c, size // scale, size // scale, device=device).to(HALF)
        return x.contiguous(memory_format=torch.channels_last) if channels_last else x

    f, wide = fir_filter((1, 3, 3, 1)).to(device), 128 // scale
    x, rgb, planes = randn(8, wide, 256), randn(8, 3, 1024), randn(8, wide, 256, channels_last=False)
    yield "bias_act", functools.partial(act, x)
    yield "bias_act of images", functools.partial(act, rgb)
    for name, up, down, padding in (("up", 2, 1, (2, 1) * 2), ("down", 1, 2, (1, 1) * 2), ("filter", 1, 1, (2, 1) * 2)):
        yield f"upfirdn2d {name}", functools.partial(use("cuda")(upfirdn2d), x, f, up, down, padding)
    yield "upfirdn2d filter, planes", functools.partial(use("cuda")(upfirdn2d), planes, f, 1, 1, (2, 1) * 2)
    for name, i, o, size, k, up in (
        ("256", wide, wide, 256, 3, 1),
        ("32", 512 // scale, 512 // scale, 32, 3, 1),
        ("up to 256", 2 * wide, wide, 128, 3, 2),
        ("to RGB", wide, 3, 256, 1, 1),
    ):
        w, style = torch.randn(o, i, k, k, device=device), torch.ones(8, i, device=device)
        noise = torch.randn(1, 1, size // scale * up, size // scale * up, device=device)
        options = {"up": up, "f": f, "noise": noise, "b": torch.zeros(o, device=device), "act": "lrelu", "clamp": 256}
        layer = functools.partial(use("fused")(modulated_conv2d), randn(8, i, size), w, style, **options)
        yield f"modulated_conv2d {name}", layer


@use("cuda")
def act(x: Tensor) -> Tensor:
    return bias_act(x, torch.zeros(x.shape[1], device=x.device), act="lrelu", clamp=256)


@contextlib.contextmanager
def profiled(device: torch.device) -> Iterator[None]:
    if is_cuda(device):
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
    yield
    if is_cuda(device):
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


@main.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def counters(obj: Context, path: Path) -> None:
    """Print the table of the launches that ncu wrote as CSV."""
    rows = read_counters(path.read_text(errors="replace"))
    for row in rows:
        print(row)
    obj[0]("counters", launches=rows)
    if not rows:
        raise click.ClickException(f"{path.name} has no launches")


def read_counters(text: str) -> list[dict]:
    """One row per launch of ncu's raw page: a header, the units, then the launches."""
    start = text.find('"ID"')
    lines = list(csv.DictReader(text[start:].splitlines())) if start >= 0 else []
    found = []
    for line in lines[1:]:  # the first has the units
        row: dict = {"kernel": re.sub(r"^void |\(.*", "", line.get("Kernel Name") or "")}
        for name, pattern in COLUMNS.items():
            matches = (number(value) for metric, value in line.items() if metric and re.fullmatch(pattern, metric))
            row[name] = next((value for value in matches if value is not None), None)
        reasons = {m[1]: number(value) for metric, value in line.items() if metric and (m := STALL.fullmatch(metric))}
        known = {reason: value for reason, value in reasons.items() if value is not None}
        row["stalls"] = dict(sorted(known.items(), key=lambda item: -item[1])[:5])
        found.append(row)
    return found


def number(text: str | None) -> float | None:
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return None


if __name__ == "__main__":
    main()
