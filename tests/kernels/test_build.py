"""Building the kernels, with shell scripts in the place of the compilers; one slow test has the real ones."""

import errno
import fcntl
import gc
import importlib.machinery
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
import venv
import weakref
from collections import Counter
from pathlib import Path

import pytest
import torch

from stylegan_cli.ops import build, kernel_cache, toolchain

ROOT = Path(__file__).parents[2]
PARTS = ["a.cu.o", "b.cu.o", "library.cpp.o", "sgan_kernels.so"]  # what the little sources are made into
REAL = Path(torch.__file__).parent / "lib" / "libtorch_global_deps.so"  # a small library that loads

# Notes its arguments, then writes its output in two halves, with a pause between them.
STAND_IN = """#!/bin/sh
case " $* " in *" --version "*) echo 'release {release}, V{version}'; exit;; esac
echo "$*" >> '{folder}/calls'
for word; do
    [ "$last" = -o ] && out=$word
    case $word in *.cu) grep -s ERROR "$word" && echo "$word(1): error: it holds an ERROR" && exit 1;; esac
    last=$word
done
{action}
printf half > "$out"; sleep {pause}; printf whole >> "$out"
"""

# A process with build.py and without PyTorch, which a hundred of them have no time for.
ALONE = """
import os, pathlib, random, signal, sys, time, types
import stylegan_cli
ops = types.ModuleType("stylegan_cli.ops")
ops.__path__ = [str(pathlib.Path(stylegan_cli.__file__).parent / "ops")]
sys.modules["stylegan_cli.ops"] = ops
from stylegan_cli.ops import build, toolchain
assert "torch" not in sys.modules
build.SOURCES = pathlib.Path(sys.argv[1])
toolchain.driver_version = lambda: None

def start():
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.write(1, f"{build.build(['90a'])}\\n".encode())
            code = 0
        finally:
            os._exit(code)
    return pid
"""


class Toolkit:
    """A CUDA toolkit and a C++ compiler that only pretend, and sources for them."""

    def __init__(self, folder):
        self.folder, self.sources, self.cache = folder, folder / "csrc", folder / "cache"
        self.sources.mkdir()
        for name in ("a.cu", "b.cu", "library.cpp", "kernels.h"):
            (self.sources / name).write_text(f"// {name}\n")
        self.nvcc, self.cxx = folder / "cuda" / "bin" / "nvcc", folder / "c++"
        self.install()

    def install(self, version="13.0.88", pause=0, action="", host="12.2.0"):
        for path, v in ((self.nvcc, version), (self.cxx, host)):
            self.script(path, v, pause, action)

    def script(self, path, version="13.0.88", pause=0, action=""):
        path.parent.mkdir(parents=True, exist_ok=True)
        release = version.rpartition(".")[0]
        path.write_text(
            STAND_IN.format(release=release, version=version, folder=self.folder, pause=pause, action=action)
        )
        path.chmod(0o755)

    def links_to(self, library):
        """From now on what is linked is a copy of this."""
        self.install(action=f"case $out in *.so) cp '{library}' \"$out\"; exit;; esac")

    def calls(self):
        """The command lines so far."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def made(self):
        """The outputs of the command lines so far, sorted."""
        return sorted(line.split(" -o ")[1].split()[0] for line in self.calls())

    def processes(self):
        """Every process that works in here."""
        found = []
        for link in Path("/proc").glob("[0-9]*/cwd"):
            try:
                if os.readlink(link).startswith(str(self.folder)):
                    found.append(int(link.parent.name))
            except OSError:
                continue
        return found

    def start(self, code):
        command = [sys.executable, "-c", ALONE + code, self.sources]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")

    def run(self, code):
        process = self.start(code)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return out.splitlines()


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def refused(*words):
    """Expect a BuildError of one sentence with these words, and a hint."""
    return pytest.raises(build.BuildError, match="(?s)" + ".*".join(words) + r".*\.$")


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """The stand-ins, in CUDA_HOME and CXX; the machine's own compilers are out of sight."""
    kit = Toolkit(tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("cp", "grep", "sleep"):  # what the stand-ins call
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    nvidia = types.ModuleType("nvidia")
    nvidia.__spec__ = importlib.machinery.ModuleSpec("nvidia", None, is_package=True)
    nvidia.__spec__.submodule_search_locations.append(str(tmp_path / "nvidia"))
    monkeypatch.setitem(sys.modules, "nvidia", nvidia)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setenv("CXX", str(kit.cxx))
    monkeypatch.setenv("SGAN_CACHE", str(kit.cache))
    for name in ("CUDA_PATH", "SGAN_CUDA_ARCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(build, "SOURCES", kit.sources)
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "prebuilt")
    monkeypatch.setattr(build, "_loaded", False)
    for module in (build, toolchain):
        monkeypatch.setattr(module, "driver_version", lambda: None)
    return kit


@pytest.fixture
def bare(toolkit, tmp_path, monkeypatch):
    """No compiler and no ninja anywhere; gives the folder that stands for pip's `nvidia`."""
    for name in ("CUDA_HOME", "CXX"):
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "ninja", None)
    return tmp_path / "nvidia"


# One build


def test_build(toolkit):
    path = build.build(["90a", "8.0"])
    assert toolkit.made() == PARTS
    assert path.parent.parent == toolkit.cache / "kernels" and len(path.parent.name) == 16
    assert path.read_text() == "halfwhole"
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "build.log",
        "lock",
        "sgan_kernels.json",
        "sgan_kernels.so",
    ]
    assert build.build(["80", "90a"]) == path and len(toolkit.calls()) == 4  # from the cache


def test_commands(toolkit):
    build.build(["90a", "80"])
    build.build(["8.0"])
    kernel, host, link = (
        [line for line in toolkit.calls() if f"-o {name}" in line] for name in ("a.cu.o", "library.cpp.o", PARTS[-1])
    )
    assert "arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a" in kernel[0]
    assert "code=compute" not in kernel[0]  # PTX of 90a runs nowhere else
    assert "arch=compute_80,code=sm_80 -gencode arch=compute_80,code=compute_80" in kernel[1]
    assert not any("fast_math" in line for line in kernel)
    assert f"-ccbin {toolkit.cxx}" in kernel[0]
    assert "-DTORCH_TARGET_VERSION=0x020a000000000000" in host[0] and f"-I{REAL.parents[1]}/include" in host[0]
    assert "-cudart static" in link[0] and "a.cu.o b.cu.o library.cpp.o" in link[0]


def test_compilers_work_in_a_clean_place(toolkit, monkeypatch):
    """Flags that are in no hash are not passed on; temporary files go when the scratch folder goes."""
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "--use_fast_math")
    monkeypatch.setenv("NVCC_PREPEND_FLAGS", "-ccbin /other")
    toolkit.install(action=f"echo $PWD $TMPDIR $NVCC_APPEND_FLAGS $NVCC_PREPEND_FLAGS >> '{toolkit.folder}/seen'")
    build.build(["90a"])
    for line in (toolkit.folder / "seen").read_text().splitlines():
        here, temporary = line.split()
        assert here == temporary and Path(here).parent.parent == toolkit.cache / "kernels" and not Path(here).exists()


def test_importing_starts_nothing(toolkit):
    toolkit.run("")
    assert not toolkit.cache.exists() and not toolkit.calls()


def test_folders_with_odd_names(toolkit, monkeypatch):
    odd = toolkit.folder / "a $b 'c"
    shutil.copytree(toolkit.sources, odd)
    monkeypatch.setattr(build, "SOURCES", odd)
    monkeypatch.setenv("SGAN_CACHE", str(odd / "cache: 1"))
    assert build.build(["90a"]).read_text() == "halfwhole"
    assert any(f"-c {odd}/a.cu" in line for line in toolkit.calls())


def test_the_hash_is_of_all_that_goes_in(toolkit, monkeypatch):
    paths = [build.build(["90a"])]

    def build_another(architectures=("90a",)):
        paths.append(build.build(architectures))
        assert len(set(paths)) == len(paths)

    build_another(["90"])
    for name in ("a.cu", "kernels.h", "library.cpp"):
        (toolkit.sources / name).write_text("// other\n")
        build_another()
    (toolkit.sources / "a.cu").rename(toolkit.sources / "c.cu")
    build_another()
    toolkit.install(version="13.0.89")
    build_another()
    toolkit.install(version="13.0.89", host="13.1.0")
    build_another()
    for name in ("NVCC_FLAGS", "HOST_FLAGS", "LINK_FLAGS"):
        monkeypatch.setattr(build, name, (*getattr(build, name), "-g"))
        build_another()
    monkeypatch.setattr(build.platform, "machine", lambda: "abacus")
    build_another()
    # Not of where things lie, nor of what no compiler reads.
    (toolkit.sources / "README.md").write_text("words")
    moved = shutil.copytree(toolkit.sources, toolkit.folder / "elsewhere")
    monkeypatch.setattr(build, "SOURCES", moved)
    assert build.build(["90a"]) == paths[-1]


# Many processes


def test_eight_at_once_build_once(toolkit):
    toolkit.install(pause=0.2)
    paths = toolkit.run("for pid in [start() for _ in range(8)]: assert os.waitpid(pid, 0)[1] == 0")
    assert toolkit.made() == PARTS
    assert len(paths) == 8 and len(set(paths)) == 1 and Path(paths[0]).read_text() == "halfwhole"


def test_a_hundred_killed_builders(toolkit):
    """Whatever the moment, none leaves a half library, a lock or a compiler."""
    toolkit.install(pause=0.1)
    *_, killed = toolkit.run("""
random.seed(1)
alive, started, killed = {}, 0, 0
def check():
    for path in pathlib.Path(os.environ["SGAN_CACHE"]).glob("kernels/*/*.so"):
        assert path.read_text() == "halfwhole", "half a library"
        path.unlink(missing_ok=True)  # so that there is always something to do
begin = time.monotonic()
os.waitpid(start(), 0)
life = 2 * (time.monotonic() - begin)  # twice what one takes, as most wait for others
check()
while started < 100 or alive:
    while started < 100 and len(alive) < 4:
        alive[start()] = time.monotonic() + random.uniform(0, life)
        started += 1
    for pid in [pid for pid, end in alive.items() if end < time.monotonic()]:
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        del alive[pid]
    check()
    time.sleep(0.01)
print()
print(killed)
""")
    assert int(killed) > 40
    builds = Counter(toolkit.made())
    assert builds["a.cu.o"] > 5 and builds["a.cu.o"] > builds["sgan_kernels.so"] > 0  # killed at work, early and late
    until(lambda: not toolkit.processes(), 5)
    (folder,) = (toolkit.cache / "kernels").iterdir()
    (folder / "tmp-dead").mkdir(exist_ok=True)
    toolkit.install()
    assert build.build(["90a"]).read_text() == "halfwhole"
    assert not list(folder.glob("tmp-*"))


def test_compilers_end_with_their_builder(toolkit):
    toolkit.install(pause=60)
    builder = toolkit.start("build.build(['90a'])")
    until(lambda: len(toolkit.calls()) > 1)
    assert toolkit.processes()
    builder.kill()
    builder.communicate()
    until(lambda: not toolkit.processes(), 5)


def test_a_compiler_that_will_not_end_holds_no_lock(toolkit):
    deaf = toolkit.folder / "deaf"
    toolkit.install(pause=60, action=f"trap '' TERM; echo > '{deaf}'")
    builder = toolkit.start("build.build(['90a'])")
    try:
        until(deaf.exists)
        builder.kill()
        builder.communicate()
        toolkit.install()
        start = time.monotonic()
        assert build.build(["90a"]).read_text() == "halfwhole"
        assert time.monotonic() - start < 10
        assert toolkit.processes()  # it was still there
    finally:
        for pid in toolkit.processes():
            os.kill(pid, signal.SIGKILL)


def test_an_interrupted_build_is_not_a_failed_one(toolkit):
    toolkit.install(pause=60)
    builder = toolkit.start("build.build(['90a'])")
    until(lambda: len(toolkit.calls()) > 1)
    builder.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in builder.communicate(timeout=10)[1]
    (folder,) = (toolkit.cache / "kernels").iterdir()
    assert not (folder / "failed.json").exists() and not list(folder.glob("tmp-*")) and not toolkit.processes()
    toolkit.install()
    build.build(["90a"])


def test_waiting_is_said_once(toolkit, monkeypatch, capsys):
    monkeypatch.setattr(kernel_cache, "_PATIENCE", 0.1)
    path = build.build(["90a"])
    path.unlink()
    with open(path.parent / "lock") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        waiting = threading.Thread(target=build.build, args=(["90a"],))
        waiting.start()
        time.sleep(0.5)
        assert waiting.is_alive() and not path.exists()
    waiting.join(10)
    assert path.exists()
    assert capsys.readouterr().err.count("Another process builds the CUDA kernels") == 1


# Builds that fail


def test_a_failed_build_is_remembered(toolkit):
    (toolkit.sources / "a.cu").write_text("ERROR\n")
    with refused("a.cu.1.: error: it holds an ERROR", "build.log") as first:
        build.build(["90a"])
    calls = toolkit.calls()
    assert first.value.log.parent.parent.parent == toolkit.cache and str(first.value.log) in str(first.value)
    assert (
        "it holds an ERROR" in first.value.log.read_text()
        and str(toolkit.sources / "a.cu") in first.value.log.read_text()
    )
    with refused() as second:
        build.build(["90a"])
    assert toolkit.calls() == calls
    told = [(str(e.value), e.value.hint, e.value.log) for e in (first, second)]
    assert told[0] == told[1] and "sgan doctor" in told[0][1]
    with refused():
        build.build(["90a"], retry=True)
    assert len(toolkit.calls()) > len(calls)
    with refused():  # other architectures are another build
        build.build(["80"])
    (toolkit.sources / "a.cu").write_text("// mended\n")
    assert build.build(["90a"]).exists()


def test_after_a_retry_the_failure_is_forgotten(toolkit):
    toolkit.install(action="echo 'nvcc fatal   : no licence'; exit 1")
    with refused("no licence"):
        build.build(["90a"])
    toolkit.install()
    with refused("no licence"):
        build.build(["90a"])
    path = build.build(["90a"], retry=True)
    path.unlink()
    assert build.build(["90a"]) == path


@pytest.mark.parametrize("signal_name", ["KILL", "TERM"])
def test_a_killed_compiler_is_tried_again(toolkit, signal_name):
    toolkit.install(action=f"kill -{signal_name} $$")
    with refused("ended from outside"):
        build.build(["90a"])
    toolkit.install()
    assert build.build(["90a"]).exists()


def test_a_killed_compiler_is_known_by_code_or_words(toolkit):
    for code in (-9, 130, 137, 143):
        assert "ended from outside" in str(build._failure(code, "FAILED: a.o", toolkit.folder))
    error = build._failure(1, "nvcc error   : 'cicc' died due to signal 9 (Kill signal)", toolkit.folder)
    assert "ended from outside" in str(error)
    error = build._failure(1, "nvcc error   : 'cicc' died due to signal 11 (Invalid memory reference)", toolkit.folder)
    assert "signal 11" in str(error) and (toolkit.folder / "failed.json").exists()


def test_a_too_new_host_compiler_gets_its_own_hint(toolkit):
    error = build._failure(1, "host_config.h:1:2: error: #error -- unsupported GNU version!", toolkit.folder)
    assert "CXX" in error.hint


def test_no_space_for_the_compilers(toolkit):
    toolkit.install(action="echo 'fatal error: error writing to a.o: No space left on device'; exit 1")
    with refused("no space left", str(toolkit.cache)) as e:
        build.build(["90a"])
    assert "SGAN_CACHE" in e.value.hint
    toolkit.install()
    assert build.build(["90a"]).exists()


@pytest.mark.parametrize("where", ["pathlib.Path.mkdir", "tempfile.mkdtemp", "pathlib.Path.write_text", "os.replace"])
def test_no_space_for_us(toolkit, monkeypatch, where):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as m:
        m.setattr(where, full)
        with refused("no space left", str(toolkit.cache)) as e:
            build.build(["90a"])
    assert "SGAN_CACHE" in e.value.hint
    assert build.build(["90a"]).read_text() == "halfwhole"


# The cache


@pytest.mark.parametrize("damage", ["cut", "changed", "no record", "no library"])
def test_a_damaged_library_is_built_again(toolkit, damage):
    path = build.build(["90a"])
    if damage in ("cut", "changed"):
        path.write_text("half" if damage == "cut" else "halfwhale")
    else:
        (path if damage == "no library" else path.with_suffix(".json")).unlink()
    assert build.build(["90a"]) == path
    assert path.read_text() == "halfwhole"
    assert Counter(toolkit.made()) == dict.fromkeys(PARTS, 2)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("SGAN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert build.cache_folder() == tmp_path / ".cache" / "stylegan_cli"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert build.cache_folder() == tmp_path / "xdg" / "stylegan_cli"
    monkeypatch.setenv("SGAN_CACHE", "~/own")
    assert build.cache_folder() == tmp_path / "own"


@pytest.fixture
def no_cache(toolkit, tmp_path, monkeypatch):
    """A cache that not even root can write, and a folder for temporary files."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp" / f"stylegan_cli-{os.getuid()}"


def test_a_cache_that_cannot_be_written(toolkit, no_cache, recwarn):
    paths = [build.build(["90a"]), build.build(["80"]), build.build(["90a"])]
    assert paths[0] == paths[2] != paths[1] and paths[0].is_relative_to(no_cache)
    assert no_cache.stat().st_mode & 0o777 == 0o700
    assert [str(w.message).split(" cannot")[0] for w in recwarn] == [os.environ["SGAN_CACHE"]]
    assert len(toolkit.calls()) == 8


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache(toolkit, no_cache, monkeypatch):
    toolkit.cache.mkdir(mode=0o500)
    monkeypatch.setenv("SGAN_CACHE", str(toolkit.cache))
    with pytest.warns(UserWarning, match="cannot be written"):
        assert build.build(["90a"]).is_relative_to(no_cache)


def test_a_library_in_a_read_only_cache_is_used(toolkit, monkeypatch):
    path = build.build(["90a"])
    monkeypatch.setattr(build, "writable", lambda folder: None)
    monkeypatch.setattr(build, "temporary", None)
    assert build.build(["90a"]) == path


@pytest.mark.parametrize("what", ["open", "link", "file", "foreign"])
def test_a_temporary_folder_of_others_is_refused(toolkit, no_cache, tmp_path, monkeypatch, what):
    if what == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        no_cache.symlink_to(tmp_path / "theirs")
    elif what == "file":
        no_cache.touch(mode=0o600)
    else:
        no_cache.mkdir(mode=0o700)
        no_cache.chmod(0o777 if what == "open" else 0o700)
    if what == "foreign":
        mine = os.getuid()
        no_cache.rename(no_cache.with_name(f"stylegan_cli-{mine + 1}"))
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with refused("no folder of this user alone") as e:
        build.build(["90a"])
    assert "SGAN_CACHE" in e.value.hint and not toolkit.calls()


# Loading


def test_load_happens_once(toolkit, monkeypatch):
    monkeypatch.setenv("SGAN_CUDA_ARCH", "90a")
    toolkit.links_to(REAL)
    build.load()
    (path,) = toolkit.cache.glob("kernels/*/*.so")
    assert str(path) in torch.ops.loaded_libraries
    monkeypatch.setattr(build, "_load", None)
    build.load()


def test_failing_to_load_happens_once(toolkit, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with refused("no CUDA device") as first:
        build.load()
    monkeypatch.setattr(build, "_load", None)
    with refused() as second:
        build.load()
    assert str(first.value) == str(second.value) and isinstance(first.value, RuntimeError)
    assert "SGAN_CUDA_ARCH" in first.value.hint


def test_a_remembered_failure_keeps_no_frame_alive(toolkit, monkeypatch):
    """Else every call that falls back would keep its tensors."""
    monkeypatch.setattr(torch.version, "cuda", None)

    def caller():
        x = torch.zeros(1)
        with refused("no CUDA device"):
            build.load()
        return weakref.ref(x)

    first, second = caller(), caller()
    gc.collect()
    assert first() is None and second() is None


def test_what_does_not_load_is_built_again_once(toolkit, monkeypatch):
    monkeypatch.setenv("SGAN_CUDA_ARCH", "90a")
    with refused("do not load", "sgan_kernels.so"):  # "halfwhole" is no library
        build.load()
    assert Counter(toolkit.made()) == dict.fromkeys(PARTS, 2)
    monkeypatch.setattr(build, "_loaded", False)
    with refused("do not load"):
        build.load()
    assert len(toolkit.calls()) == 8  # remembered
    toolkit.links_to(REAL)
    build.build(["90a"], retry=True)
    monkeypatch.setattr(build, "_loaded", False)
    build.load()


def test_a_library_of_another_system_is_replaced(toolkit, monkeypatch):
    monkeypatch.setenv("SGAN_CUDA_ARCH", "90a")
    path = build.build(["90a"])
    toolkit.links_to(REAL)
    build.load()
    assert path.read_bytes() == REAL.read_bytes()


# Built beforehand


def test_prebuilt(toolkit, monkeypatch):
    toolkit.links_to(REAL)
    path = build.build_prebuilt()
    assert path.parent == build.PREBUILT and path.name == f"sgan_kernels_{build.source_hash()[:16]}.so"
    flags = "code=sm_120 -gencode arch=compute_120,code=compute_120"
    assert any(flags in call for call in toolkit.calls())  # ninja starts them in any order
    monkeypatch.setattr(build, "build", None)
    monkeypatch.setenv("SGAN_CUDA_ARCH", "8.6, 9.0a")
    build.load()
    assert str(path) in torch.ops.loaded_libraries


def test_what_hinders_prebuilt(toolkit, monkeypatch):
    monkeypatch.setenv("SGAN_CUDA_ARCH", "90a")
    path = build.build_prebuilt()
    assert build._prebuilt(["90a", "103", "121"]) == path
    monkeypatch.setattr(build, "driver_version", lambda: (12, 8))
    assert build._prebuilt(["90a"]) is None
    monkeypatch.setattr(build, "driver_version", lambda: (13, 1))
    assert build._prebuilt(["90a"]) == path
    toolkit.links_to(REAL)  # the one in the package is words, as no compiler of ours would leave it
    build.load()
    (built,) = (p for p in toolkit.cache.glob("kernels/*/*.so") if p.read_bytes() == REAL.read_bytes())
    assert str(built) in torch.ops.loaded_libraries
    (toolkit.sources / "a.cu").write_text("// other\n")
    assert build._prebuilt(["90a"]) is None


def test_the_command_of_setup(toolkit, tmp_path):
    copy = tmp_path / "checkout"
    shutil.copytree(
        ROOT / "stylegan_cli", copy / "stylegan_cli", ignore=shutil.ignore_patterns("__pycache__", "assets")
    )
    shutil.copytree(toolkit.sources, copy / "csrc")
    shutil.copy(ROOT / "setup.py", copy)
    toolkit.install(version="12.8.93")
    done = subprocess.run([sys.executable, "setup.py", "-q", "build_kernels"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert path.parent == copy / "stylegan_cli" / "prebuilt" and path.read_text() == "halfwhole"
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["architectures"] == list(build.PREBUILT_FOR) and record["nvcc"] == [12, 8, 93]
    assert path.name == f"sgan_kernels_{build.source_hash()[:16]}.so"


# Architectures and tools


def test_architectures_by_name(toolkit, monkeypatch):
    for text, names in {"90a,80": ["80", "90a"], "8.0;9.0a 12.0": ["80", "90a", "120"], "80, 8.0": ["80"]}.items():
        monkeypatch.setenv("SGAN_CUDA_ARCH", text)
        assert build.architectures() == names
    for text in ("sm_90", "9.5", "80,fast", "8"):
        monkeypatch.setenv("SGAN_CUDA_ARCH", text)
        with refused("no GPU architecture") as e:
            build.architectures()
        assert "SGAN_CUDA_ARCH" in e.value.hint


def test_architectures_of_the_devices(toolkit, monkeypatch):
    devices = []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(devices))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(devices))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: devices[i])
    assert build.architectures() == []
    devices[:] = [(9, 0), (8, 6), (9, 0)]
    assert build.architectures() == ["86", "90a"]
    devices[:] = [(10, 3), (12, 1), (11, 0)]
    assert build.architectures() == ["100", "110", "120"]
    devices[:] = [(14, 2)]
    assert build.architectures() == ["120"] and "code=compute_120" in " ".join(build._gencode(["120"]))
    devices[:] = [(6, 1)]
    with refused("61 is no GPU architecture"):
        build.architectures()
    monkeypatch.setattr(torch.version, "cuda", None)  # a build for other makes of devices, which calls them cuda too
    assert build.architectures() == []


def test_nothing_is_there(bare):
    found = toolchain.missing(["90a"])
    assert [next(w for w in ("nvcc", "C++ compiler", "ninja") if w in what) for what, _ in found] == [
        "nvcc",
        "C++ compiler",
        "ninja",
    ]
    assert "stylegan-cli[cuda]" in found[0][1] and "g++" in found[1][1] and found[2][1] == "pip install ninja"
    with refused("no nvcc") as e:
        build.build(["90a"])
    assert e.value.hint == found[0][1] and e.value.log is None


def test_nothing_is_missing(toolkit):
    assert toolchain.missing(["90a"]) == []


def test_no_host_compiler(toolkit, bare, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(toolkit.folder / "cuda"))
    with refused("no C.. compiler") as e:
        build.build(["90a"])
    assert "g++" in e.value.hint
    monkeypatch.setenv("CXX", "/none/g++ -m64")
    with refused("CXX names /none/g"):
        build.build(["90a"])


def test_no_ninja(toolkit, bare, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(toolkit.folder / "cuda"))
    monkeypatch.setenv("CXX", f"ccache {toolkit.cxx} -m64")
    assert build.find_host_compiler().path == toolkit.cxx
    with refused("no ninja") as e:
        build.build(["90a"])
    assert e.value.hint == "pip install ninja"
    toolkit.script(toolkit.folder / "bin" / "ninja")
    assert build.find_ninja() == toolkit.folder / "bin" / "ninja"


def test_only_linux(toolkit, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with refused("Linux only"):
        build.build(["90a"])


@pytest.mark.parametrize(
    "version, name, why",
    [
        ("12.6.1", "120", "is too old for sm_120, which needs 12.8"),
        ("11.8.0", "90a", "is too old for sm_90a, which needs 12.0"),
    ],
)
def test_an_nvcc_of_another_age(toolkit, version, name, why):
    toolkit.install(version=version)
    with refused(f"nvcc {version[:4]}", why) as e:
        build.build([name])
    assert "CUDA" in e.value.hint and not toolkit.calls()
    toolkit.install(version="12.8.0")
    assert build.build([name]).exists()


def test_an_nvcc_newer_than_the_driver(toolkit, monkeypatch):
    monkeypatch.setattr(toolchain, "driver_version", lambda: (12, 4))
    with refused("nvcc 13.0", "CUDA 12.4") as e:
        build.build(["90a"])
    assert "driver" in e.value.hint
    toolkit.script(toolkit.folder / "bin" / "nvcc", "12.9.1")
    nvcc = build.find_nvcc(["90a"])
    assert nvcc.version == (12, 9, 1) and nvcc.found == "PATH"


def test_nvcc_is_looked_for_everywhere(toolkit, bare, monkeypatch):
    assert build.find_nvcc() is None
    pip = bare / "cu13" / "bin" / "nvcc"
    toolkit.script(pip, "13.0.88")
    for part in toolchain._PARTS:
        (bare / "cu13" / part).parent.mkdir(parents=True, exist_ok=True)
        (bare / "cu13" / part).touch()
    nvcc = build.find_nvcc(["90a"])
    assert (nvcc.path, nvcc.version, nvcc.found) == (pip, (13, 0, 88), "pip")
    assert nvcc.libraries == (bare / "cu13" / "lib",) and nvcc.includes == (bare / "cu13" / "include",)
    toolkit.script(toolkit.folder / "bin" / "nvcc", "12.9.1")
    assert build.find_nvcc(["90a"]).found == "PATH"
    monkeypatch.setenv("CUDA_PATH", str(toolkit.folder / "cuda"))
    assert build.find_nvcc(["90a"]).found == "CUDA_PATH"
    toolkit.script(toolkit.folder / "home" / "bin" / "nvcc", "11.5.0")
    monkeypatch.setenv("CUDA_HOME", str(toolkit.folder / "home"))
    assert build.find_nvcc(["80"]).found == "CUDA_HOME"
    assert build.find_nvcc(["90a"]).found == "CUDA_PATH"  # the first that is new enough
    pip.chmod(0o644)
    assert [n.found for n in toolchain._every_nvcc()] == ["CUDA_HOME", "CUDA_PATH", "PATH"]


@pytest.mark.parametrize("part", toolchain._PARTS)
def test_pip_packages_that_lack_one(toolkit, bare, part):
    toolkit.script(bare / "cu13" / "bin" / "nvcc")
    for other in set(toolchain._PARTS) - {part}:
        (bare / "cu13" / other).parent.mkdir(parents=True, exist_ok=True)
        (bare / "cu13" / other).touch()
    ((what, hint), *_) = toolchain.missing(["90a"])
    assert what.endswith(f"lacks the pip package {toolchain._PARTS[part]}.") and "stylegan-cli[cuda]" in hint


def test_sources_that_are_not_there(toolkit):
    (toolkit.sources / "library.cpp").unlink()
    with refused("not in", str(toolkit.sources)):
        build.build(["90a"])


@pytest.mark.slow
def test_the_real_compilers_of_pip(tmp_path):
    """csrc/ with nvcc from pip in a fresh environment; no other nvcc can be seen."""
    if not (build.SOURCES / "library.cpp").is_file() or not shutil.which("g++", path="/usr/bin:/bin"):
        pytest.skip("no kernels, or no g++")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    names = [f"nvidia-{n}==13.0.*" for n in ("cuda-nvcc", "cuda-crt", "nvvm", "cuda-runtime", "cuda-cccl")]
    done = subprocess.run([python, "-m", "pip", "install", "--no-deps", *names], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no registry: {done.stderr.strip().splitlines()[-1]}")
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    here = [str(Path(m.__file__).parents[1]) for m in (torch, sys.modules["stylegan_cli"])]
    (site / "here.pth").write_text("\n".join(here))
    code = (
        "from stylegan_cli.ops import build; print(build.find_nvcc().found); build.load(); "
        "import torch; print(dir(torch.ops.sgan) and torch.ops.sgan.bias_act)"
    )
    env = {"PATH": "/usr/bin:/bin", "SGAN_CACHE": str(tmp_path / "cache"), "SGAN_CUDA_ARCH": "90a,120"}
    done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["pip", "sgan.bias_act"]
