"""Results files: where they are, what is in them, and the machine that they are from."""

from __future__ import annotations

import datetime
import functools
import json
import platform
import shlex
import subprocess
from pathlib import Path

import torch

from stylegan_cli.files import write_atomic

RESULTS = Path(__file__).parent / "results"


def is_cuda(device: torch.device) -> bool:
    return device.type == "cuda"


def save_entry(
    path: Path,  # of a results file
    entry: dict,  # replaces the one of the same command
) -> None:
    entries = json.loads(path.read_text()) if path.exists() else []
    entries = [e for e in entries if e.get("command") != entry["command"]] + [entry]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(entries, indent=1) + "\n")


def results_path(device: torch.device) -> Path:
    return RESULTS / f"{datetime.date.today()}-{_device(device).replace(' ', '-').lower()}.json"


def machine(device: torch.device) -> dict[str, object]:
    """Everything that the measurements depend on."""
    return {
        "device": _device(device),
        "driver": _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "clock": "CUDA events" if is_cuda(device) else "process time with one thread, otherwise wall time",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _output_of("git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty", "--abbrev=40"),
        "date": datetime.datetime.now().isoformat(timespec="seconds"),
    }


@functools.cache
def _output_of(*command: str) -> str | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if is_cuda(device) else "cpu"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def command_line(arguments: list[str]) -> str:
    """The command as typed, without the files that it writes, and with only the names of those that it reads."""
    words = [part for word in arguments[1:] for part in (word.split("=", 1) if word.startswith("--") else [word])]
    kept, previous = [], ""
    for word in words:
        if not {"--out", "--save"} & {previous, word}:
            kept.append(Path(word).name if previous in ("--peer", "--data", "--before") else word)
        previous = word
    return shlex.join(["python", f"benchmarks/{Path(arguments[0]).name}", *kept])
