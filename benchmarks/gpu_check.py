"""Everything that needs a GPU, in four calls of less than nine minutes each.

python benchmarks/gpu_check.py a --out gpu_check --peer ../stylegan3       (correctness, synthesis, profiles)
python benchmarks/gpu_check.py b --out gpu_check --peer ../stylegan3       (training, ops and layers)
python benchmarks/gpu_check.py c --out gpu_check --peer ../stylegan3       (compute-sanitizer, torch.compile, the rest)
python benchmarks/gpu_check.py d --out gpu_check --data critters10k.zip  (the same losses as on the CPU, a model)

Runs from the checkout; nothing needs to be installed besides PyTorch, a CUDA toolkit and what stylegan_cli imports. The
parts of a call run in the order of their importance. Each has a deadline, extended by what earlier ones saved; the next
runs even if one fails. If there is less than 36 minutes, leave out calls or parts (--only). Results are written as they
come: measurements to a.json (copies can go to benchmarks/results/), other facts to a-parts.json, the output of
everything to a.log, and what d trains to d-model.safetensors. Exit code 1 if a part failed.
"""

from __future__ import annotations

import contextlib
import json
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
LIMIT = 540.0  # seconds of a call
PYTHON = [sys.executable, "-u"]
TESTS = ["-m", "pytest", "-q", "-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider"]
NCU = ["ncu", "--profile-from-start", "off", "--clock-control", "none", "--kernel-name-base", "demangled"]
NCU += ["--kernel-name", "regex:sgan::", "--csv", "--page", "raw"]
SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "SchedulerStats", "WarpStateStats", "Occupancy", "LaunchStats")
# Apart from the sections: ncu stops at a metric that the GPU does not have.
TENSOR = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active"


@dataclass(frozen=True)
class Part:
    name: str
    commands: list[list[str]]  # run in order
    limit: float  # seconds, for all commands
    environment: dict[str, str] = field(default_factory=dict)
    success: tuple[int, ...] = (0,)  # exit codes


@dataclass(frozen=True)
class Commands:
    """Makes the commands of the parts of one call."""

    device: str
    out: Path  # folder
    call: str
    peer: str | None
    tiny: bool
    data: str | None = None  # dataset of the model

    def bench(self, name: str, limit: float, *options: str) -> list[str]:
        """A benchmark that starts nothing new after most of its time."""
        peer = ["--peer", self.peer] if self.peer and name in WITH_PEER else []
        rounds = ["--rounds", "2"] if self.tiny else ["--seconds", f"{0.75 * limit:.0f}"]
        small = TINY[name].split() if self.tiny else []  # overrides the options before
        out = ["--device", self.device, "--out", str(self.out / f"{self.call}.json"), *rounds]
        return [*PYTHON, str(HERE / f"bench_{name}.py"), *options, *small, *out, *peer]

    def script(self, name: str, *options: str) -> list[str]:
        out = ["--device", self.device, "--out", str(self.out / f"{self.call}-parts.json")]
        return [*PYTHON, str(HERE / f"{name}.py"), *out, *options]

    def part(self, name: str, *options: str) -> list[str]:
        return self.script("gpu_parts", name, *options)

    def build(self, *peer_ops: str) -> list[str]:
        ops = [word for op in peer_ops for word in ("--op", op)]
        return self.part("build", *(["--peer", self.peer, *ops] if self.peer else []))

    def profile(self, size: int, batch: int) -> list[str]:
        shapes = ["--size", "16", "--batch", "2", "--channel-base", "128", "--passes", "1"]
        return self.part("profile", *(shapes if self.tiny else ["--size", str(size), "--batch", str(batch)]))

    def ncu(self, name: str, *metrics: str) -> list[list[str]]:
        """Profile ten launches into one CSV file, and print its table."""
        path = self.out / f"{self.call}-{name}.csv"
        launches = self.part("launches", *(["--scale", "16"] if self.tiny else []))
        return [[*NCU, *metrics, "--log-file", str(path), *launches], self.part("counters", str(path))]

    def equal(self) -> list[str]:
        return self.script("gpu_equal", *(["--steps", "2", "--only", "GAN2"] if self.tiny else []))

    def model(self) -> list[str]:
        data = ["--data", self.data] if self.data else []
        length = ["--warm-up", "0.1", "--most", "0.1"] if self.tiny else []
        save = ["--save", str(self.out / f"{self.call}-model")]
        return self.script("gpu_model", "--seconds", SECONDS, *save, *data, *length)

    def tests(self, *options: str) -> list[str]:
        return [*PYTHON, *TESTS, *options]


SECONDS = "SECONDS"  # in a command: replaced by the seconds that its part has, less RESERVE
RESERVE = 20.0  # seconds, to start and to end
WITH_PEER = ("ops", "synthesis", "train_step", "trainer", "filtered_lrelu")
TINY = {
    "ops": "--size 16 --batch 2 --channel-max 8",
    "filtered_lrelu": "--batch 1 --channel-max 4 --size-max 36",
    "synthesis": "--size 16 --batch 2 --channel-base 128",
    "train_step": "--size 16 --batch 2 --channel-base 128",
    "trainer": "--size 16 --batch 4 --channel-base 128 --steps 2",
    "project": "--size 16 --batch 2 --channel-base 128",
    "metrics": "--part features --num 4 --size 16",
}


def files_with_gpu_tests() -> list[str]:
    """Without those of commands, which need more packages; the part 'check' does what they do."""
    tests = HERE.parent / "tests"
    marked = [path for path in sorted(tests.rglob("*.py")) if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]
    return [str(path.parent if path.name == "conftest.py" else path) for path in marked if path.parent.name != "cli"]


def parts_of_a(make: Commands) -> list[Part]:
    synthesis = [make.bench("synthesis", limit, "--size", size, "--batch", batch) for size, batch, limit in SYNTHESIS]
    tf32 = make.bench("synthesis", 65, "--size", "256,1024", "--batch", "8", "--tf32")
    gpu_tests = make.tests("-m", "gpu", "--maxfail", "30", *files_with_gpu_tests())
    return [
        Part("build", [make.build()], 90),
        Part("check", [make.part("check")], 40),
        Part("synthesis", synthesis, 155),
        Part("profile", [make.profile(256, 8), make.profile(1024, 8)], 40),
        Part("ncu", make.ncu("ncu", *(word for section in SECTIONS for word in ("--section", section))), 50),
        Part("tf32", [tf32], 65),
        Part("tests", [gpu_tests], 70, success=(0, 5)),  # 5: there are none
        Part("ncu tensor", make.ncu("ncu-tensor", "--metrics", TENSOR), 25),
    ]


SYNTHESIS = [("256", "8,1,32", 85), ("1024", "1,8", 70)]


def parts_of_b(make: Commands) -> list[Part]:
    memory_bound = ("--op", "bias_act", "--op", "upfirdn2d", "--op", "add_skip")
    return [
        Part("build", [make.build()], 90),
        Part("train 256", [make.bench("train_step", 125, "--size", "256")], 125),
        Part("trainer", [make.bench("trainer", 80, "--size", "256")], 80),
        Part("ops", [make.bench("ops", 85, *memory_bound)], 85),
        Part("layers", [make.bench("ops", 85, "--op", "modulated_conv2d")], 85),
        Part("train 1024", [make.bench("train_step", 75, "--size", "1024")], 75),
    ]


def parts_of_c(make: Commands) -> list[Part]:
    emulator = HERE.parent / "tests" / "emulator"
    kernels = make.tests("-x", str(emulator / "test_kernels.py"))
    others = [str(path) for path in sorted(emulator.glob("test_*.py")) if "_under_sanitizers(" in path.read_text()]
    compiled = make.bench("synthesis", 80, "--size", "256", "--batch", "8", "--compile")
    return [
        Part("build", [make.build("filtered_lrelu", "bias_act", "upfirdn2d")], 90),
        Part("memcheck", [kernels], 140, {"SGAN_SANITIZER": "memcheck"}),
        Part("racecheck", [kernels], 100, {"SGAN_SANITIZER": "racecheck"}),
        Part("filtered_lrelu", [make.bench("filtered_lrelu", 50)], 50),
        Part("project", [make.bench("project", 40)], 40),
        Part("metrics", [make.bench("metrics", 35, "--part", "features")], 35),
        Part("compiled", [compiled], 80),
        # In the time that the others saved.
        Part("memcheck more", [make.tests("-x", "-k", "under_sanitizers", *others)], 5, {"SGAN_SANITIZER": "memcheck"}),
    ]


def parts_of_d(make: Commands) -> list[Part]:
    return [
        Part("build", [make.build()], 90),
        Part("equal", [make.equal()], 150),
        Part("model", [make.model()], 290),
    ]


CALLS = {"a": parts_of_a, "b": parts_of_b, "c": parts_of_c, "d": parts_of_d}


def run(part: Part, limit: float, log_path: Path) -> str:
    """Run a part, appending its output to the log. Returns 'passed', or why not."""
    deadline, code = time.monotonic() + limit, None
    for command in part.commands:
        program = find_program(command[0])
        if program is None:
            return f"skipped: {command[0]} was not found"
        words = [f"{limit - RESERVE:.0f}" if word == SECONDS else word for word in command[1:]]
        with open(log_path, "a") as log:
            log.write(f"\n+ {' '.join([program, *words])}\n")
            log.flush()
            start = log.tell()
            code = _wait([program, *words], os.environ | part.environment, log, deadline - time.monotonic())
        if code is None:
            return f"FAILED: stopped after {limit:.0f} s"
        with open(log_path, errors="replace") as log:
            log.seek(start)
            output = log.read()
        if "Device not supported" in output or "LibraryNotLoaded" in output:
            return f"skipped: {command[0]} does not support this device"
        if code not in part.success:
            return f"FAILED with exit code {code}"
    return "passed" if code == 0 else "passed: nothing to run"


def find_program(name: str) -> str | None:
    """The path of a program: on the PATH, or beside nvcc."""
    from stylegan_cli.kernels.toolchain import find_nvcc

    if found := shutil.which(name):
        return found
    nvcc = find_nvcc()
    return shutil.which(name, path=str(nvcc.home / "bin")) if nvcc else None


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
@click.argument("call", type=click.Choice(list(CALLS)))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("gpu_check"), show_default=True)
@click.option("--device", default="cuda", show_default=True, help="'cpu' only tests that the benchmarks run.")
@click.option("--peer", help="Checkout of stylegan3 or stylegan2-ada-pytorch to measure in the same run.")
@click.option(
    "--data",
    type=click.Path(exists=True, resolve_path=True),
    help="Dataset that d trains a model on. Default: the bundled one.",
)
@click.option("--only", help="Names of the parts to run, with commas.")
@click.option("--tiny", is_flag=True, help="Small shapes, to test that everything runs.")
def main(call: str, out: Path, device: str, peer: str | None, data: str | None, only: str | None, tiny: bool) -> None:
    sys.path.insert(0, str(HERE.parent))
    out.mkdir(parents=True, exist_ok=True)
    parts = CALLS[call](Commands(device, out.resolve(), call, peer, tiny, data))
    parts = [part for part in parts if not only or part.name in only.split(",")]
    (out / f"{call}.log").write_text("")
    with tempfile.TemporaryDirectory(prefix="sgan-") as cache:
        os.environ["SGAN_CACHE"] = cache  # an empty cache, so that the build is timed
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
        verdicts = run_parts(parts, out / f"{call}.log", time.monotonic() + LIMIT)
    _show_targets(out / f"{call}.json")
    sys.exit(any("FAILED" in verdict for verdict in verdicts.values()))


def run_parts(parts: list[Part], log: Path, deadline: float) -> dict[str, str]:
    """Run the parts; each may use what is left after the limits of the later ones. Returns their verdicts."""
    verdicts: dict[str, str] = {}
    for i, part in enumerate(parts):
        start = time.monotonic()
        left = deadline - start - sum(later.limit for later in parts[i + 1 :])
        verdict = run(part, min(max(left, part.limit), deadline - start), log)
        verdicts[part.name] = f"{time.monotonic() - start:6.1f} s  {verdict}"
        print(f"{part.name:<15} {verdicts[part.name]}", flush=True)
        if "FAILED" in verdict:
            print(*(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-25:]), sep="\n", flush=True)
    return verdicts


def _show_targets(results: Path) -> None:
    from _targets import targets

    entries = json.loads(results.read_text()) if results.exists() else []
    for text, value, is_met in targets([row for entry in entries for row in entry["rows"]]):
        print(f"{'met   ' if is_met else 'MISSED'} {text}: {value}")


if __name__ == "__main__":
    main()
