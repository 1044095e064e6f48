"""Everything that needs a GPU, in one command and under ten minutes: build, tests, compute-sanitizer, benchmarks.

python benchmarks/gpu_check.py --out gpu_check --peer ../stylegan3

Every part has a time limit and a log in the --out folder; the next part runs even if one fails. Measurements go to
benchmarks/results/. Prints a summary at the end; exit code 1 if a part failed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import click

HERE = Path(__file__).parent
BUILD = """
import time
from stylegan_cli.kernels import build
start = time.time()
build.load()
print(f"built and loaded in {time.time() - start:.1f} s")
"""
# Separate allocations, so that the sanitizer detects accesses beyond the end of a tensor.
SANITIZER_ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


@dataclass(frozen=True)
class Part:
    name: str
    commands: list[list[str]]  # run in order
    limit: float  # seconds, for all commands
    environment: dict[str, str] = field(default_factory=dict)
    success: tuple[int, ...] = (0,)  # exit codes


def parts_for(device: str, results: Path, peer: str | None, tiny: bool) -> list[Part]:
    python = [sys.executable, "-u"]

    def bench(name: str, *options: str) -> list[str]:
        tiny_options = TINY[name].split() if tiny else []
        peer_options = ["--peer", peer] if peer else []
        return [
            *python,
            str(HERE / f"bench_{name}.py"),
            "--device",
            device,
            "--out",
            str(results),
            *options,
            *tiny_options,
            *peer_options,
        ]

    sanitizer = [_sanitizer(), "--error-exitcode", "9", "--tool"]
    exercise = [*python, str(HERE / "_exercise.py")]
    sanitizer_runs = [[*sanitizer, tool, *exercise] for tool in ("memcheck", "racecheck")]
    memory_bound, layers = ("--op", "bias_act", "--op", "upfirdn2d"), ("--op", "modulated_conv2d")
    on_gpu = [
        Part("build", [[*python, "-c", BUILD]], 120),
        Part("tests", [[*python, "-m", "pytest", "-q", "-m", "gpu", str(HERE.parent / "tests")]], 150, success=(0, 5)),
        Part("sanitizer", sanitizer_runs, 120, SANITIZER_ENVIRONMENT),
    ]
    return [
        *(on_gpu if device == "cuda" else []),
        Part("ops", [bench("ops", *memory_bound, "--seconds", "95"), bench("ops", *layers, "--seconds", "110")], 240),
        Part("filtered_lrelu", [bench("filtered_lrelu", "--seconds", "60")], 80),
        Part("synthesis", [bench("synthesis", "--seconds", "110")], 130),
        Part("train_step", [bench("train_step", "--seconds", "60")], 90),
        Part("compiled", [bench("synthesis", "--compile", "--size", "256", "--batch", "8")], 120),
    ]


def _sanitizer() -> str:
    """The path of compute-sanitizer: on the PATH, or in the folder of nvcc."""
    from stylegan_cli.kernels.toolchain import find_nvcc

    name, nvcc = "compute-sanitizer", find_nvcc()
    folder = str(nvcc.home / "bin") if nvcc else None
    return shutil.which(name) or (folder and shutil.which(name, path=folder)) or name


TINY = {
    "ops": "--size 16 --batch 2 --channel-max 8 --rounds 2",
    "filtered_lrelu": "--batch 1 --channel-max 4 --size-max 36 --rounds 2",
    "synthesis": "--size 16 --batch 2 --channel-base 128 --rounds 2",
    "train_step": "--size 16 --batch 2 --channel-base 128 --rounds 2",
}


def run(part: Part, limit: float, out: Path) -> str:
    """Run a part, logging to <out>/<name>.log. Returns 'passed', or why not."""
    deadline, environment = time.monotonic() + limit, os.environ | part.environment
    if not shutil.which(part.commands[0][0]):
        return f"skipped: {part.commands[0][0]} was not found"
    path = out / f"{part.name}.log"
    with open(path, "w") as log:
        for command in part.commands:
            log.write(f"+ {' '.join(command)}\n")
            log.flush()
            code = _wait(command, environment, log, deadline - time.monotonic())
            if code is None:
                return f"FAILED: stopped after {limit:.0f} s"
            if "Device not supported" in path.read_text(errors="replace"):
                return "skipped: compute-sanitizer does not support this device"
            if code not in part.success:
                return f"FAILED with exit code {code}"
    return "passed" if code == 0 else "passed: nothing to run"


def _wait(command: list[str], environment: dict[str, str], log, seconds: float) -> int | None:
    """The exit code; None after a timeout. All processes of the command are killed."""
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        return process.wait(max(seconds, 0.1))
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("gpu_check"), show_default=True)
@click.option("--device", default="cuda", show_default=True, help="'cpu' only tests that the benchmarks run.")
@click.option("--peer", help="Checkout of stylegan3 or stylegan2-ada-pytorch to measure in the same run.")
@click.option("--only", help="Parts to run: build,tests,sanitizer,ops,filtered_lrelu,synthesis,train_step,compiled")
@click.option("--seconds", default=590.0, show_default=True, help="Time limit for everything.")
@click.option("--tiny", is_flag=True, help="Small shapes, to test that everything runs.")
@click.option("--results", type=click.Path(path_type=Path), help="Default: benchmarks/results/<date>-<device>.json.")
def main(out: Path, device: str, peer: str | None, only: str | None, seconds: float, tiny: bool, results) -> None:
    deadline = time.monotonic() + seconds
    out.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(HERE.parent))
    results = results or _results_file(device)
    parts = [part for part in parts_for(device, results, peer, tiny) if not only or part.name in only.split(",")]
    verdicts = {}
    with tempfile.TemporaryDirectory(prefix="sgan-") as cache:
        os.environ["SGAN_CACHE"] = cache  # an empty cache, so that the build is timed
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
        for part in parts:
            start = time.monotonic()
            remaining = deadline - start
            verdict = run(part, min(part.limit, remaining), out) if remaining > 5 else "FAILED: no time left"
            verdicts[part.name] = f"{time.monotonic() - start:6.1f} s  {verdict}"
            print(f"{part.name:<12} {verdicts[part.name]}", flush=True)
            _show_end(out / f"{part.name}.log", 1 if "FAILED" not in verdict else 25)
    if results.exists():
        shutil.copy(results, out / "results.json")
        _show_targets(results)
    print("\nsummary", *(f"{name:<12} {verdict}" for name, verdict in verdicts.items()), sep="\n")
    sys.exit(any("FAILED" in verdict for verdict in verdicts.values()))


def _results_file(device: str) -> Path:
    import torch
    from _harness import results_path

    return results_path(torch.device(device))


def _show_end(log: Path, lines: int) -> None:
    if log.exists():
        print(*(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-lines:]), sep="\n", flush=True)


def _show_targets(results: Path) -> None:
    import json

    from _targets import targets

    rows = [row for entry in json.loads(results.read_text()) for row in entry.get("rows", [])]
    for text, value, is_met in targets(rows):
        print(f"{'met   ' if is_met else 'MISSED'} {text}: {value}")


if __name__ == "__main__":
    main()
