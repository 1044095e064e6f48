"""Compile csrc/ into one shared library, once per machine and version, and load it as `torch.ops.sgan`.

Builds are cached by a hash of all their inputs. If several processes need the same build, one builds and the others
wait; a killed one leaves nothing behind that would break a later one. Importing compiles nothing.
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
from ..files import disk_full_reason
from ..progress import bars_disabled
from .kernel_cache import (
    RETRY_HINT,
    discard,
    is_intact,
    metadata_path,
    no_space_error,
    raise_remembered_failure,
    remember_failure,
    temporary_folder,
    writable,
)
from .toolchain import (
    BuildError,
    HostCompiler,
    Nvcc,
    architectures,
    driver_version,
    find_host_compiler,
    find_ninja,
    find_nvcc,
    find_problems,
    normalize_architectures,
)

PACKAGE = Path(__file__).parents[1]
PREBUILT = PACKAGE / "prebuilt"
# In the package when installed, next to it in the repository.
SOURCES = next(
    (p for p in (PACKAGE / "csrc", PACKAGE.parent / "csrc") if (p / "library.cpp").is_file()), PACKAGE / "csrc"
)
PREBUILT_ARCHITECTURES = ("80", "86", "89", "90a", "100", "120")
LIBRARY = "sgan_kernels.so"
CACHE_KIND = "kernels"

# Only functions that exist in PyTorch 2.10: the library works with that and every later release.
TORCH_TARGET_FLAG = "-DTORCH_TARGET_VERSION=0x020a000000000000"
NVCC_FLAGS = ("-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden")
HOST_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", TORCH_TARGET_FLAG)
# PyTorch loads its libraries with local visibility, so ours must name them. It exports no symbols of its own or of
# CUDA's static runtime.
LINK_FLAGS = ("-shared", "-cudart", "static", "--no-device-link", "-ltorch_cpu", "-Xlinker", "--exclude-libs=ALL,-s")

# Executes ninja, terminated when its parent dies, even by SIGKILL; ninja then terminates its compilers.
_RUN_NINJA_SCRIPT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

_load_lock = threading.Lock()
_loaded: bool | BuildError = False  # or the error of the first attempt


def load() -> None:
    """Make the kernels for this machine's GPUs available as `torch.ops.sgan`, building them if necessary.

    Raises BuildError if that fails. The outcome is remembered: later calls do nothing, or raise the same error.
    """
    global _loaded
    with _load_lock:
        if _loaded is False:
            try:
                _load()
                _loaded = True
            except BuildError as e:
                _loaded = BuildError(str(e), e.hint, e.log)
        if isinstance(_loaded, BuildError):  # a new one each time: exceptions keep their frames alive
            raise BuildError(str(_loaded), _loaded.hint, _loaded.log)


def _load() -> None:
    targets = architectures()
    if not targets:
        hint = "Set SGAN_CUDA_ARCH, to 90a for example, to build them anyway."
        raise BuildError("PyTorch sees no CUDA device to load kernels for.", hint)
    if (prebuilt := _find_prebuilt(targets)) and _try_load(prebuilt) is None:
        return
    path = build(targets)
    if _try_load(path) is None:
        return
    # Intact but not loadable: built on another system that shares this home folder, for example.
    discard(path)
    path = build(targets, retry=True)
    if reason := _try_load(path):
        discard(path)
        error = BuildError(f"The CUDA kernels were built but do not load: {reason}.", RETRY_HINT)
        raise remember_failure(error, path.parent)


def _try_load(path: Path) -> str | None:
    """Load a library. Returns None, or why it failed."""
    import torch

    try:
        torch.ops.load_library(path)
    except OSError as e:
        return str(e.__cause__ or e).rstrip(".")  # PyTorch's own message does not give the reason
    return None


def build(
    architectures: Sequence[str],  # such as ["80", "90a"]
    *,
    retry: bool = False,  # try again even if this build failed before
) -> Path:
    """The shared library for these architectures, from the cache or built now, with a progress bar on stderr.

    A failed build is remembered, and not tried again until its sources, flags or compilers change.
    Raises BuildError: no compiler, no space, or the compiler's error, with its log.
    """
    targets = normalize_architectures(architectures)
    nvcc, host, problems = find_nvcc(targets), find_host_compiler(), find_problems(targets)
    if problems or nvcc is None or host is None:
        raise BuildError(*problems[0])
    name = _build_name(targets, nvcc, host)
    folder = cache.folder(CACHE_KIND) / name
    if is_intact(folder / LIBRARY):  # also in a cache that is not writable
        return folder / LIBRARY
    try:
        folder = writable(folder) or temporary_folder(name)
        with cache.lock(folder / LIBRARY, "Another process is building the CUDA kernels; waiting for it."):
            if not is_intact(folder / LIBRARY):
                if not retry:
                    raise_remembered_failure(folder)
                _compile(folder, targets, nvcc, host)
        return folder / LIBRARY
    except OSError as e:
        if disk_full_reason(e):
            raise no_space_error(folder) from e
        raise BuildError(f"Cannot build the CUDA kernels in {folder}: {e.strerror or e}.", RETRY_HINT) from e


def build_prebuilt() -> Path:
    """Build for all common GPUs and add the library to the package, for machines without a compiler.

    Raises BuildError like `build`.
    """
    library = build(PREBUILT_ARCHITECTURES, retry=True)
    shutil.rmtree(PREBUILT, ignore_errors=True)  # built from other sources
    PREBUILT.mkdir()
    path = PREBUILT / f"sgan_kernels_{source_hash()[:16]}.so"
    shutil.copy(library, path)
    shutil.copy(metadata_path(library), metadata_path(path))
    return path


def find_built(
    architectures: Sequence[str],  # such as ["80", "90a"]
) -> tuple[Path, str] | None:
    """The library if it exists already, and its origin: 'package' or 'cache'. Raises BuildError if the sources are
    missing."""
    targets = normalize_architectures(architectures)
    if path := _find_prebuilt(targets):
        return path, "package"
    nvcc, host = find_nvcc(targets), find_host_compiler()
    if find_problems(targets) or nvcc is None or host is None:
        return None
    name = _build_name(targets, nvcc, host)
    paths = [place / name / LIBRARY for place in cache.places(CACHE_KIND)]
    return next(((path, "cache") for path in paths if is_intact(path)), None)


def _find_prebuilt(targets: list[str]) -> Path | None:
    """The library in the package, if it was built from these sources and this machine can run it."""
    path = PREBUILT / f"sgan_kernels_{source_hash()[:16]}.so"
    if not is_intact(path):
        return None
    metadata = json.loads(metadata_path(path).read_text())
    driver = driver_version()
    if driver and driver[0] < metadata["nvcc"][0]:
        return None
    return path if all(_can_run(metadata["architectures"], name) for name in targets) else None


def _can_run(built: list[str], name: str) -> bool:
    """Whether code built for some architectures runs on another: a later one of the same family, or through PTX."""
    number = int(name.rstrip("a"))
    plain = [int(b) for b in built if not b.endswith("a")]
    family = [b for b in plain if b // 10 == number // 10]
    return f"{number}a" in built or any(b <= number for b in family + [int(b) for b in _ptx(built)])


# Build identity


def _sources() -> list[Path]:
    paths = sorted(p for p in SOURCES.glob("*") if p.suffix in (".cu", ".cuh", ".h", ".cpp"))
    if not any(p.suffix == ".cpp" for p in paths):
        raise BuildError(f"The kernel sources are missing from {SOURCES}.", "Reinstall the package.")
    return paths


def source_hash() -> str:
    """Hash of the sources, flags and processor architecture, independent of the compilers."""
    content = hashlib.sha256(repr((NVCC_FLAGS, HOST_FLAGS, LINK_FLAGS, platform.machine())).encode())
    for path in _sources():
        content.update(repr((path.name, path.read_bytes())).encode())
    return content.hexdigest()


def _build_name(targets: list[str], nvcc: Nvcc, host: HostCompiler) -> str:
    """The name of the build's folder in the cache."""
    inputs = repr((source_hash(), _gencode(targets), nvcc.version, host.version))
    return hashlib.sha256(inputs.encode()).hexdigest()[:16]


# Build steps


def _compile(folder: Path, targets: list[str], nvcc: Nvcc, host: HostCompiler) -> None:
    """Build in a scratch folder and move the library to its place. The caller holds the lock."""
    for path in folder.glob("tmp-*"):  # left by killed builders
        shutil.rmtree(path, ignore_errors=True)
    discard(folder / LIBRARY)
    scratch = Path(tempfile.mkdtemp(prefix="tmp-", dir=folder))
    try:
        (scratch / "build.ninja").write_text(_ninja_file(targets, nvcc, host))
        code, output = _run_ninja(scratch, folder / "build.log")
        if code:
            raise _build_error(code, output, folder)
        sha256 = cache.sha256_of(scratch / LIBRARY)
        metadata = {"sha256": sha256, "architectures": targets, "nvcc": nvcc.version, "host": host.version}
        metadata_path(scratch / LIBRARY).write_text(json.dumps(metadata))
        for path in (scratch / LIBRARY, metadata_path(scratch / LIBRARY)):
            os.replace(path, folder / path.name)
        (folder / "failed.json").unlink(missing_ok=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


# Output of compilers that were killed, and may succeed the next time.
_TRANSIENT = re.compile(
    r"interrupted by user|\b(Killed|Terminated)\b|due to signal (2|9|15)\b|Cannot allocate memory|out of memory"
)


def _build_error(code: int, output: str, folder: Path) -> BuildError:
    """The error of a failed build, remembered if the next one would fail the same way."""
    log = folder / "build.log"
    if os.strerror(errno.ENOSPC) in output:
        return no_space_error(folder)
    match = re.search(r"^(?!\[).*(\b(error|fatal)\b[^:]{0,20}:|cannot find|undefined reference).*$", output, re.M)
    reason = match[0].strip().rstrip(".") if match else "a compiler failed"
    if code < 0 or code in (130, 137, 143) or _TRANSIENT.search(output):
        reason = "a compiler was killed, perhaps because memory ran out"
        return BuildError(f"Building the CUDA kernels failed: {reason} (log: {log}).", "Try again.", log)
    hint = "Set CXX to an older g++." if "unsupported GNU version" in output else RETRY_HINT
    error = BuildError(f"Building the CUDA kernels failed: {reason} (log: {log}).", hint, log)
    return remember_failure(error, folder)


def _ptx(names: list[str]) -> list[str]:
    """The architecture also kept as PTX for later devices: the last, unless it is an 'a', which they cannot run."""
    return [name for name in names[-1:] if not name.endswith("a")]


def _gencode(targets: list[str]) -> list[str]:
    codes = [(name, "sm") for name in targets] + [(name, "compute") for name in _ptx(targets)]
    return [word for name, kind in codes for word in ("-gencode", f"arch=compute_{name},code={kind}_{name}")]


def _ninja_file(targets: list[str], nvcc: Nvcc, host: HostCompiler) -> str:
    """The text of build.ninja: one command per source, and one to link."""
    spec = importlib.util.find_spec("torch")  # without importing it
    if spec is None or spec.origin is None:
        raise BuildError("PyTorch is not installed.", "Run pip install torch.")
    torch = Path(spec.origin).parent
    cuda = [nvcc.path, "-ccbin", host.path]
    binding = [host.path, *HOST_FLAGS, *(f"-I{p}" for p in (torch / "include", *nvcc.includes))]
    steps, objects = [], []
    for source in _sources():
        if source.suffix in (".cu", ".cpp"):
            command = [*cuda, *NVCC_FLAGS, *_gencode(targets)] if source.suffix == ".cu" else binding
            objects.append(f"{source.name}.o")
            steps.append((objects[-1], "", [*command, "-c", source, "-o", objects[-1]]))
    folders = [f"-L{p}" for p in (*nvcc.libraries, torch / "lib")]
    steps.append((LIBRARY, " ".join(objects), [*cuda, "-o", LIBRARY, *objects, *folders, *LINK_FLAGS]))
    text = "rule run\n  command = $line\n"
    for out, inputs, command in steps:
        text += f"build {out}: run {inputs}\n  line = {shlex.join(map(str, command)).replace('$', '$$')}\n"
    return text


def _run_ninja(scratch: Path, log: Path) -> tuple[int, str]:
    """Run ninja in the scratch folder, and log its output. Returns (exit code, output)."""
    command = [sys.executable, "-ISc", _RUN_NINJA_SCRIPT, str(os.getpid()), str(find_ninja()), "-v"]
    env = {k: v for k, v in os.environ.items() if k not in ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")}
    env |= {"TMPDIR": str(scratch), "NINJA_STATUS": "[%f/%t] "}  # leftovers are deleted with the folder
    total = (scratch / "build.ninja").read_text().count("\nbuild ")
    lines = []
    with (
        open(log, "w") as f,
        subprocess.Popen(
            command, cwd=scratch, env=env, text=True, errors="replace", stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        ) as ninja,
        tqdm(total=total, desc="building CUDA kernels", unit="file", disable=bars_disabled()) as bar,
    ):
        try:
            for line in ninja.stdout or ():
                f.write(line)
                lines.append(line)
                bar.update(line.startswith("["))
        except BaseException:  # Ctrl-C too
            ninja.terminate()
            raise
    return ninja.returncode, "".join(lines)
