"""Fake compilers."""

import importlib.machinery
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from stylegan_cli.kernels import build, toolchain

# Logs its arguments, except questions about itself, then writes its output in two halves with a pause in between.
FAKE_COMPILER = """#!/bin/sh
case " $* " in
    *" --version "*) echo 'release {release}, V{version}'; exit;;
    *" --dryrun "*) exit;;
esac
echo "$*" >> '{folder}/calls'
for word; do
    [ "$last" = -o ] && out=$word
    case $word in *.cu) grep -s ERROR "$word" && echo "$word(1): error: it contains an ERROR" && exit 1;; esac
    last=$word
done
{action}
printf half > "$out"; sleep {pause}; printf whole >> "$out"
"""

# A process with build.py but without PyTorch, which would take too long to import a hundred times.
WITHOUT_TORCH = """
import os, pathlib, random, signal, sys, time
from stylegan_cli.kernels import build, toolchain
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
    """A fake CUDA toolkit and C++ compiler, with sources to compile."""

    parts = ["a.cu.o", "b.cu.o", "library.cpp.o", "sgan_kernels.so"]  # outputs of the sources

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
            FAKE_COMPILER.format(release=release, version=version, folder=self.folder, pause=pause, action=action)
        )
        path.chmod(0o755)

    def link_copies_of(self, library):
        """From now on, linking makes a copy of this library."""
        self.install(action=f"case $out in *.so) cp '{library}' \"$out\"; exit;; esac")

    def calls(self):
        """The compilers' command lines so far."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def outputs(self):
        """The outputs of the command lines so far, sorted."""
        return sorted(line.split(" -o ")[1].split()[0] for line in self.calls())

    def processes(self):
        """All processes that run in this folder."""
        pids = []
        for link in Path("/proc").glob("[0-9]*/cwd"):
            try:
                if os.readlink(link).startswith(str(self.folder)):
                    pids.append(int(link.parent.name))
            except OSError:
                continue
        return pids

    def start(self, code):
        command = [sys.executable, "-c", WITHOUT_TORCH + code, self.sources]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")

    def run(self, code):
        process = self.start(code)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return out.splitlines()


@pytest.fixture(scope="session")
def expect_error():
    """Expect a BuildError whose message contains these words: with expect_error("No nvcc"): ..."""
    return lambda *words: pytest.raises(toolchain.BuildError, match="(?s)" + ".*".join(words) + r".*\.$")


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """The fake compilers in CUDA_HOME and CXX; the real ones of the machine are hidden."""
    kit = Toolkit(tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("cp", "grep", "sleep"):  # what the fake compilers run
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
def no_tools(toolkit, tmp_path, monkeypatch):
    """No compiler and no ninja anywhere. Returns the folder that stands for pip's `nvidia` package."""
    for name in ("CUDA_HOME", "CXX"):
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "ninja", None)
    return tmp_path / "nvidia"
