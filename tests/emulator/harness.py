"""Compile csrc/ as plain C++ and call its launchers with CPU tensors, under sanitizers.

The arguments of the launchers are parsed from their header, the only place that defines them.
"""

import ctypes
import hashlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from filelock import FileLock

from stylegan_cli.threads import available_cores

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
EMULATOR = (HERE / "emulator.cpp", HERE / "emulated_hopper.cpp")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1")
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:handle_abort=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1:handle_abort=0",
}
POINTERS = ("const void*", "void*")  # read by the launcher, and written
CTYPES = {"int64_t": ctypes.c_int64, "int32_t": ctypes.c_int32, "double": ctypes.c_double}
CTYPES |= dict.fromkeys(POINTERS, ctypes.c_void_p)


class EmulatorError(Exception):
    """A kernel did something invalid; the message is the report."""


def missing() -> str | None:
    """Why the emulator cannot run here, or None."""
    if not shutil.which("g++"):
        return "no g++"
    library = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    return None if os.path.isabs(library) else "g++ without AddressSanitizer"


def cache_folder() -> Path:
    """The cache folder of this user. Deletes files that were unused for a week."""
    folder = Path(tempfile.gettempdir()) / f"sgan-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to another user")
    for path in folder.glob("*.*"):
        if path.is_file() and path.stat().st_mtime < time.time() - 7 * 24 * 3600:
            path.unlink(missing_ok=True)
    return folder


def compile_once(name: str, args, key) -> Path:
    """The file that g++ produces from args; key is everything that it depends on."""
    path = cache_folder() / f"{hashlib.sha256(repr((args, key)).encode()).hexdigest()[:16]}-{name}"
    if path.exists():
        path.touch()
        return path
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        result = subprocess.run(["g++", *args, "-o", f"{folder}/{name}"], capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"g++ failed\n{result.stderr[:4000]}")
        return Path(folder, name).replace(path)


def compile_all(name: str, sources, link=()) -> Path:  # [(source, flags)]
    """Compile every source, and link them into one program or library."""
    version = subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout
    headers = [p.read_text() for folder in (CSRC, HERE) for p in sorted(folder.iterdir()) if p.suffix in (".h", ".cuh")]

    def compile_one(job):
        source, flags = job
        args = ["-x", "c++", "-DSGAN_EMULATE", "-I", HERE, "-I", CSRC, *flags, "-c", source]
        return compile_once(f"{source.stem}.o", args, [version, headers, source.read_text()])

    with FileLock(cache_folder() / "lock"), ThreadPoolExecutor(available_cores()) as pool:  # once, for all workers
        objects = list(pool.map(compile_one, sources))
        return compile_once(name, [*objects, *link], version)


def build_library() -> Path:
    """A library for torch.ops.load_library that registers the ops for CPU tensors, with emulated kernels."""
    folder = Path(torch.__file__).parent
    flags = ["-std=c++17", "-O2", "-fPIC", "-I", folder / "include", "-DTORCH_TARGET_VERSION=0x020a000000000000ULL"]
    sources = [*sorted(CSRC.glob("*.cu")), *sorted(CSRC.glob("*.cpp")), *EMULATOR]
    link = ["-shared", "-L", folder / "lib", "-ltorch_cpu", "-lc10"]
    return compile_all("emulated.so", [(source, flags) for source in sources], link)


def parse_header(text: str):
    """-> launchers {name: struct}, structs {name: [(type, field, length or None)]}, enums {name: [enumerator]}."""
    text = re.sub(r"//.*", "", text)
    launchers = dict(re.findall(r"const char\* (\w+)\(const (\w+)&", text))
    enums = {name: re.findall(r"\w+", body) for name, body in re.findall(r"enum class (\w+)[^{]*{([^}]*)}", text)}
    structs = {}
    for name, body in re.findall(r"struct (\w+) {([^}]*)}", text):
        lines = [" ".join(line.split()) for line in body.split(";") if line.strip()]
        fields = [re.fullmatch(r"((?:const )?\w+\*?) (\w+)(?:\[(\d+)\])?", line) for line in lines]
        if None in fields:
            raise ValueError(f"struct {name}: cannot parse {lines[fields.index(None)]!r}")
        structs[name] = [field.groups() for field in fields]
    return launchers, structs, enums


def span(tensor) -> int:
    """Number of elements in memory from a tensor's first to its last, gaps included."""
    return 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride())) if tensor.numel() else 0


def copy_back(tensor, data: bytes) -> None:
    """Copy a kernel's output into the tensor. Raises EmulatorError if its gaps were written."""
    memory = torch.frombuffer(bytearray(data), dtype=tensor.dtype)
    gap = torch.ones(span(tensor), dtype=torch.bool)
    torch.as_strided(gap, tensor.shape, tensor.stride()).fill_(False)
    if (memory[gap].view(torch.uint8) != 0xFF).any():
        raise EmulatorError("wrote between the elements of its output")
    tensor.detach().copy_(torch.as_strided(memory, tensor.shape, tensor.stride()))


def pack_buffer(offset: int, tensor, written: bool) -> bytes:
    """A pointer in the format of driver.cpp: the memory from the tensor's first element to its last."""
    if tensor is None:
        return struct.pack("4q", offset, -1, 0, written)
    size = span(tensor) * tensor.element_size()
    head = struct.pack("4q", offset, size, tensor.data_ptr() % 16, written)
    return head if written or not size else head + ctypes.string_at(tensor.data_ptr(), size)


class Emulator:
    """Launchers compiled into one program, which is started for every call or list of calls."""

    wrapper = ()  # the words before it on the command line

    def __init__(self, sources=None, header=CSRC / "kernels.h", defines=(), sanitize=True):
        sources = [Path(source) for source in sources or sorted(CSRC.glob("*.cu"))]
        code = "".join(source.read_text() for source in sources)
        launchers, self.structs, self.enums = parse_header(Path(header).read_text())
        self.launchers = {name: args for name, args in launchers.items() if f" {name}(const {args}&" in code}
        table = " ".join(f"LAUNCHER({name}, {args})" for name, args in self.launchers.items())
        flags = ["-std=c++17", *(SANITIZE if sanitize else ())]
        # With sanitizers, compiling at -O1 takes five times as long as at -O0, more than it saves in the tests.
        kernel_flags = [*flags, "-O0" if sanitize else "-O2", *(f"-D{define}" for define in defines)]
        driver_flags = [*flags, f'-DLAUNCHERS_HEADER="{header}"', f"-DLAUNCHERS={table}"]
        jobs = [(HERE / "driver.cpp", driver_flags), *((source, [*flags, "-O2"]) for source in EMULATOR)]
        jobs += [(source, kernel_flags) for source in sources]
        self.program = compile_all("driver", jobs, SANITIZE[:1] if sanitize else ())

    def call(self, name: str, seed: int | None = None, **fields) -> None:
        """Launch once: call('bias_act', x=tensor, out=tensor, n=1, dtype=x.dtype, act='lrelu', ...).

        Pointers are tensors, or null if omitted; an array of pointers is a list of them. Memory that is not const
        starts as NaN, and is copied back into its tensors. Raises EmulatorError with the report, or RuntimeError with
        the launcher's message.
        """
        self.run([(name, fields)], seed)

    def run(self, calls, seed: int | None = None) -> None:  # [(name, fields)]
        """Make several calls in one process; the seed determines the order of threads."""
        env = os.environ | ENVIRONMENT | ({} if seed is None else {"SGAN_EMULATOR_SEED": str(seed)})
        with tempfile.TemporaryDirectory() as folder:
            requests, results = Path(folder, "calls"), Path(folder, "results")
            requests.write_bytes(b"".join(self._pack(*call) for call in calls))
            command, merged = [*self.wrapper, self.program, requests, results], subprocess.STDOUT
            done = subprocess.run(command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=merged, timeout=600)
            if done.returncode:
                raise EmulatorError(f"exit code {done.returncode}\n{trim(done.stdout.decode(errors='replace'))}")
            with results.open("rb") as file:
                for call in calls:
                    self._unpack(file, *call)

    def _pack(self, name, fields) -> bytes:
        declared = self.structs[self.launchers[name]]
        required = {field for kind, field, _ in declared if kind not in POINTERS}
        if wrong := (required - fields.keys()) | (fields.keys() - {field for _, field, _ in declared}):
            raise TypeError(f"{name}: missing or unknown: {', '.join(sorted(wrong))}")
        types = CTYPES | dict.fromkeys(self.enums, ctypes.c_int32)
        layout = [(field, types[kind] * int(length) if length else types[kind]) for kind, field, length in declared]
        args_type = type(name, (ctypes.Structure,), {"_fields_": layout})
        values, buffers = args_type(), []
        for kind, field, length in declared:
            value = fields.get(field)
            if kind in POINTERS:
                offset, pointers = getattr(args_type, field).offset, value if length else [value]
                buffers += [pack_buffer(offset + 8 * i, t, kind == "void*") for i, t in enumerate(pointers or [])]
            elif kind in self.enums:
                setattr(values, field, self.enums[kind].index(str(value).removeprefix("torch.")))
            else:
                setattr(values, field, tuple(value) if length else value)
        head = struct.pack("3q", list(self.launchers).index(name), ctypes.sizeof(values), len(buffers))
        return b"".join([head, bytes(values), *buffers])

    def _unpack(self, file, name, fields) -> None:
        (length,) = struct.unpack("q", file.read(8))
        if length >= 0:
            raise RuntimeError(file.read(length).decode())
        for kind, field, length in self.structs[self.launchers[name]]:
            value = fields.get(field)
            for tensor in (value or []) if length else [value]:
                if kind == "void*" and tensor is not None and tensor.numel():
                    copy_back(tensor, file.read(span(tensor) * tensor.element_size()))


def trim(report: str, lines: int = 30) -> str:
    """The report of the last call, without the emulator's own functions and AddressSanitizer's shadow bytes."""
    report = re.split(r"^(?=call \d+: )", report, flags=re.M)[-1]
    head, _, rest = report.partition("Shadow bytes around")
    own = re.compile(r"/emulat(or|ed_hopper)\.(h|cpp):|/driver\.cpp:|/usr/|libc|^$")
    kept = [line for line in head.splitlines() if not own.search(line)][:lines]
    return "\n".join(kept + re.findall(r"^in block .*", rest, re.M))
