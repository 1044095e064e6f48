"""Compile csrc/ into one shared library, once per machine and version, and load it as `torch.ops.sgan`.

A build is found again by a hash of all that it is made from. Of processes that want the same one, one builds and the
others wait; whoever is killed leaves nothing behind that a later one would stumble over. Importing compiles nothing.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

from tqdm import tqdm

from .. import cache
from ..files import no_room
from .kernel_cache import AGAIN, discard, is_whole, no_space, raise_remembered, record, remembered, temporary, writable
from .toolchain import (
    BuildError,
    HostCompiler,
    Nvcc,
    architectures,
    driver_version,
    find_host_compiler,
    find_ninja,
    find_nvcc,
    in_order,
    missing,
)

PACKAGE = Path(__file__).parents[1]
PREBUILT = PACKAGE / "prebuilt"
# Inside the package once installed, beside it in the repository.
SOURCES = next(
    (p for p in (PACKAGE / "csrc", PACKAGE.parent / "csrc") if (p / "library.cpp").is_file()), PACKAGE / "csrc"
)
PREBUILT_FOR = ("80", "86", "89", "90a", "100", "120")
LIBRARY = "sgan_kernels.so"
KIND = "kernels"  # in the cache

# The functions of PyTorch 2.10 and no later ones: what is built runs with every release from there on.
TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"
NVCC_FLAGS = ("-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden")
HOST_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", TARGET)
# PyTorch has its libraries loaded, but hidden from those that don't name them. Nothing of ours, nor of CUDA's static
# runtime, is seen from outside.
LINK_FLAGS = ("-shared", "-cudart", "static", "--no-device-link", "-ltorch_cpu", "-Xlinker", "--exclude-libs=ALL,-s")

# Becomes ninja, and ends when the process that asked for it ends, be it by SIGKILL; ninja then ends its compilers.
_LEASHED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

_one_at_a_time = threading.Lock()
_loaded: bool | BuildError = False


def load() -> None:
    """Make the kernels for this machine's GPUs available as `torch.ops.sgan`, built if need be.

    Raises BuildError, in one sentence, if that cannot be. What came of it is remembered: a second call does nothing,
    or raises the same again.
    """
    global _loaded
    with _one_at_a_time:
        if _loaded is False:
            try:
                _load()
                _loaded = True
            except BuildError as e:
                _loaded = BuildError(str(e), e.hint, e.log)
        if isinstance(_loaded, BuildError):  # each time a new one: an exception keeps the frames that it went through
            raise BuildError(str(_loaded), _loaded.hint, _loaded.log)


def _load() -> None:
    wanted = architectures()
    if not wanted:
        hint = "SGAN_CUDA_ARCH=90a, for example, builds them all the same."
        raise BuildError("PyTorch sees no CUDA device to load kernels for.", hint)
    if (ready := _prebuilt(wanted)) and _opens(ready) is None:
        return
    path = build(wanted)
    if _opens(path) is None:
        return
    # As it was written, yet of no use: made on another system that shares this home, for example.
    discard(path)
    path = build(wanted, retry=True)
    if why := _opens(path):
        discard(path)
        raise remembered(BuildError(f"The CUDA kernels were built but do not load: {why}.", AGAIN), path.parent)


def _opens(path: Path) -> str | None:
    """Load a library; why it cannot be, or None."""
    import torch

    try:
        torch.ops.load_library(path)
    except OSError as e:
        return str(e.__cause__ or e).rstrip(".")  # PyTorch's own sentence does not tell the reason
    return None


def build(
    architectures: Sequence[str],  # such as ["80", "90a"]
    *,
    retry: bool = False,  # try again although this very build has failed before
) -> Path:
    """The shared library for these GPUs, from the cache or built now, with a bar on stderr.

    A build that failed is remembered, and not tried again before its sources, flags or compilers change.
    Raises BuildError, in one sentence: no compiler, no space, or what the compiler said, with its log.
    """
    wanted = in_order(architectures)
    nvcc, host, lacks = find_nvcc(wanted), find_host_compiler(), missing(wanted)
    if lacks or nvcc is None or host is None:
        raise BuildError(*lacks[0])
    name = _name(wanted, nvcc, host)
    folder = cache.folder(KIND) / name
    if is_whole(folder / LIBRARY):  # also where nothing can be written
        return folder / LIBRARY
    try:
        folder = writable(folder) or temporary(name)
        with cache.lock(folder / LIBRARY, "Another process builds the CUDA kernels; waiting for it."):
            if not is_whole(folder / LIBRARY):
                if not retry:
                    raise_remembered(folder)
                _compile(folder, wanted, nvcc, host)
        return folder / LIBRARY
    except OSError as e:
        if no_room(e):
            raise no_space(folder) from e
        raise BuildError(f"The CUDA kernels cannot be built in {folder}: {e.strerror or e}.", AGAIN) from e


def build_prebuilt() -> Path:
    """Build for all common GPUs and put the library into the package, for machines without a compiler.

    Raises BuildError as `build` does.
    """
    library = build(PREBUILT_FOR, retry=True)
    shutil.rmtree(PREBUILT, ignore_errors=True)  # of other sources
    PREBUILT.mkdir()
    path = PREBUILT / f"sgan_kernels_{source_hash()[:16]}.so"
    shutil.copy(library, path)
    shutil.copy(record(library), record(path))
    return path


def ready(
    architectures: Sequence[str],  # such as ["80", "90a"]
) -> tuple[Path, str] | None:
    """The library that is there without compiling, and where it is from: 'package' or 'cache'. Raises BuildError if
    the sources are not there."""
    wanted = in_order(architectures)
    if path := _prebuilt(wanted):
        return path, "package"
    nvcc, host = find_nvcc(wanted), find_host_compiler()
    if missing(wanted) or nvcc is None or host is None:
        return None
    path = cache.folder(KIND) / _name(wanted, nvcc, host) / LIBRARY
    return (path, "cache") if is_whole(path) else None


def _prebuilt(wanted: list[str]) -> Path | None:
    """The library that came with the package, if it is of these sources and this machine can run it."""
    path = PREBUILT / f"sgan_kernels_{source_hash()[:16]}.so"
    if not is_whole(path):
        return None
    made = json.loads(record(path).read_text())
    driver = driver_version()
    if driver and driver[0] < made["nvcc"][0]:
        return None
    return path if all(_runs(made["architectures"], name) for name in wanted) else None


def _runs(made: list[str], name: str) -> bool:
    """Whether code made for some architectures runs on another: their own family's later ones, or by PTX."""
    number = int(name.rstrip("a"))
    plain = [int(m) for m in made if not m.endswith("a")]
    family = [m for m in plain if m // 10 == number // 10]
    return f"{number}a" in made or any(m <= number for m in family + [int(m) for m in _ptx(made)])


# What a build is known by


def _sources() -> list[Path]:
    found = sorted(p for p in SOURCES.glob("*") if p.suffix in (".cu", ".cuh", ".h", ".cpp"))
    if not any(p.suffix == ".cpp" for p in found):
        raise BuildError(f"The sources of the kernels are not in {SOURCES}.", "Install the package again.")
    return found


def source_hash() -> str:
    """Of the sources, the flags and the kind of processor; the same whatever compiles them."""
    content = hashlib.sha256(repr((NVCC_FLAGS, HOST_FLAGS, LINK_FLAGS, platform.machine())).encode())
    for path in _sources():
        content.update(repr((path.name, path.read_bytes())).encode())
    return content.hexdigest()


def _name(wanted: list[str], nvcc: Nvcc, host: HostCompiler) -> str:
    """The folder of a build within those of its kind."""
    made_of = repr((source_hash(), _gencode(wanted), nvcc.version, host.version))
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


# The build itself


def _compile(folder: Path, wanted: list[str], nvcc: Nvcc, host: HostCompiler) -> None:
    """Build beside the library's place and move it there. Under the lock."""
    for path in folder.glob("tmp-*"):  # of builders that were killed
        shutil.rmtree(path, ignore_errors=True)
    discard(folder / LIBRARY)
    scratch = Path(tempfile.mkdtemp(prefix="tmp-", dir=folder))
    try:
        (scratch / "build.ninja").write_text(_plan(wanted, nvcc, host))
        code, said = _run_ninja(scratch, folder / "build.log")
        if code:
            raise _failure(code, said, folder)
        content = cache.sha256_of(scratch / LIBRARY)
        made = {"sha256": content, "architectures": wanted, "nvcc": nvcc.version, "host": host.version}
        record(scratch / LIBRARY).write_text(json.dumps(made))
        for path in (scratch / LIBRARY, record(scratch / LIBRARY)):
            os.replace(path, folder / path.name)
        (folder / "failed.json").unlink(missing_ok=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


# What a compiler says that was ended from outside, and may get through the next time.
_PASSING = re.compile(
    r"interrupted by user|\b(Killed|Terminated)\b|due to signal (2|9|15)\b|Cannot allocate memory|out of memory"
)


def _failure(code: int, said: str, folder: Path) -> BuildError:
    """What is told of a build that did not end well; remembered if the next one would end the same way."""
    log = folder / "build.log"
    if os.strerror(errno.ENOSPC) in said:
        return no_space(folder)
    found = re.search(r"^(?!\[).*(\b(error|fatal)\b[^:]{0,20}:|cannot find|undefined reference).*$", said, re.M)
    why = found[0].strip().rstrip(".") if found else "a compiler failed"
    if code < 0 or code in (130, 137, 143) or _PASSING.search(said):
        why = "a compiler was ended from outside, perhaps for want of memory"
        return BuildError(f"The CUDA kernels were not built: {why} (log: {log}).", "Try again.", log)
    hint = "Set CXX to an older g++." if "unsupported GNU version" in said else AGAIN
    return remembered(BuildError(f"The CUDA kernels cannot be built: {why} (log: {log}).", hint, log), folder)


def _ptx(names: list[str]) -> list[str]:
    """What is kept as PTX too, for later devices to compile: the last. Not of an 'a', which they cannot run."""
    return [name for name in names[-1:] if not name.endswith("a")]


def _gencode(wanted: list[str]) -> list[str]:
    codes = [(name, "sm") for name in wanted] + [(name, "compute") for name in _ptx(wanted)]
    return [word for name, kind in codes for word in ("-gencode", f"arch=compute_{name},code={kind}_{name}")]


def _plan(wanted: list[str], nvcc: Nvcc, host: HostCompiler) -> str:
    """The text of build.ninja: one command per source, one that links."""
    spec = importlib.util.find_spec("torch")  # without the work of importing it
    if spec is None or spec.origin is None:
        raise BuildError("PyTorch is not installed.", "pip install torch")
    torch = Path(spec.origin).parent
    cuda = [nvcc.path, "-ccbin", host.path]
    binding = [host.path, *HOST_FLAGS, *(f"-I{p}" for p in (torch / "include", *nvcc.includes))]
    steps, objects = [], []
    for source in _sources():
        if source.suffix in (".cu", ".cpp"):
            command = [*cuda, *NVCC_FLAGS, *_gencode(wanted)] if source.suffix == ".cu" else binding
            objects.append(f"{source.name}.o")
            steps.append((objects[-1], "", [*command, "-c", source, "-o", objects[-1]]))
    folders = [f"-L{p}" for p in (*nvcc.libraries, torch / "lib")]
    steps.append((LIBRARY, " ".join(objects), [*cuda, "-o", LIBRARY, *objects, *folders, *LINK_FLAGS]))
    text = "rule run\n  command = $line\n"
    for out, inputs, command in steps:
        text += f"build {out}: run {inputs}\n  line = {shlex.join(map(str, command)).replace('$', '$$')}\n"
    return text


def _run_ninja(scratch: Path, log: Path) -> tuple[int, str]:
    """Carry the plan out: (exit code, all that was said), which also goes into the log."""
    command = [sys.executable, "-ISc", _LEASHED, str(os.getpid()), str(find_ninja()), "-v"]
    env = {k: v for k, v in os.environ.items() if k not in ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")}
    env |= {"TMPDIR": str(scratch), "NINJA_STATUS": "[%f/%t] "}  # what compilers leave behind goes with the folder
    total = (scratch / "build.ninja").read_text().count("\nbuild ")
    said = []
    with (
        open(log, "w") as f,
        subprocess.Popen(
            command, cwd=scratch, env=env, text=True, errors="replace", stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        ) as ninja,
        tqdm(total=total, desc="building CUDA kernels", unit="file", disable=None) as bar,
    ):
        try:
            for line in ninja.stdout or ():
                f.write(line)
                said.append(line)
                bar.update(line.startswith("["))
        except BaseException:  # Ctrl-C too
            ninja.terminate()
            raise
    return ninja.returncode, "".join(said)
