"""The number of available cores, and OpenMP settings, which must be in the environment before PyTorch is imported."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from .errors import SganError

# An OpenMP thread that waits at a barrier spins by default. When another process takes the core of one thread, the
# others spin through their time slices, and training takes several times as long (benchmarks/bench_busy.py). A thread
# that sleeps sooner gives way, but waking it up costs time too: on a quiet machine, 1000 spins make small networks 16 %
# slower, and 10,000 spins less than 3 %.
QUIET = {"GOMP_SPINCOUNT": "10000"}
BUSY = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}  # KMP: the OpenMP runtimes of Intel and LLVM


def configure_openmp(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set OpenMP's spinning, by what other processes do now, and its number of threads under a cgroup quota, unless
    they are already set.

    Has no effect once PyTorch is imported. The library never calls it: only the command line and the tests do.
    """
    if not environment.get("OMP_NUM_THREADS", "").strip():
        environment.pop("OMP_NUM_THREADS", None)  # GNU OpenMP complains about an empty value
    if "torch" in sys.modules:
        return
    if "OMP_WAIT_POLICY" not in environment:
        for name, value in (BUSY if is_busy() else QUIET).items():
            environment.setdefault(name, value)
    if "OMP_NUM_THREADS" not in environment and (cores := available_cores()) < _affinity():
        environment["OMP_NUM_THREADS"] = str(cores)


def check_num_threads(environment: Mapping[str, str] = os.environ) -> None:
    """Check OMP_NUM_THREADS: one number, or one per nesting level, such as 4,2. Raises SganError if it is neither."""
    threads = environment.get("OMP_NUM_THREADS", "")
    if threads.strip() and not re.fullmatch(r"(\s*[1-9][0-9]{0,4}\s*)(,\s*[1-9][0-9]{0,4}\s*)*", threads):
        raise SganError(
            f"OMP_NUM_THREADS={threads!r} is not a number of threads.",
            hint="Set it to a whole number such as 2, or unset it to use every available core.",
        )


def available_cores(
    cgroups: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),  # names this process's cgroups
) -> int:
    """Number of cores that this process may keep busy: its affinity, limited by the quota of its cgroup. At least 1."""
    quota = min(_quotas(cgroups, membership), default=float("inf"))
    return max(1, int(min(_affinity(), quota)))


def is_busy(
    load: Path = Path("/proc/loadavg"),
    samples: int = 5,  # 2 ms apart
) -> bool:
    """Whether other processes keep a core busy, so that our threads will not all have one. False if unknown."""
    counts = []
    for _ in range(samples):
        runnable = re.search(r" (\d+)/\d+ ", _read(load))  # on all cores, with this process
        counts.append(int(runnable[1]) - 1 if runnable else 0)
        time.sleep(0.002)
    return min(counts) + available_cores() > (os.cpu_count() or 1)


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:  # in cores
    """The CPU quotas of this process's cgroup and of those above it: version 2, or the CPU controller of version 1."""
    for line in _read(membership).splitlines():
        if line.count(":") < 2:
            continue
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 1 is mounted as cpu,cpuacct; the link named cpu may be missing.
        for root in (cgroups / "cpu", cgroups / controllers) if controllers else (cgroups,):
            group = root / name.lstrip("/")  # inside a container this may be the host's path, which does not exist here
            for folder in (group, *group.parents):
                yield from _quota(folder, 1 if controllers else 2)
                if folder == root:
                    break


def _quota(
    folder: Path,
    version: int,  # of cgroups
) -> Iterator[float]:  # in cores
    """The CPU quota in one folder, if there is one."""
    if version == 1:
        numbers = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
    else:
        numbers = _read(folder / "cpu.max").split()
    if len(numbers) == 2 and all(re.fullmatch("[1-9][0-9]*", number) for number in numbers):  # or max, or -1
        yield int(numbers[0]) / int(numbers[1])


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "surrogateescape").strip()
    except OSError:
        return ""
