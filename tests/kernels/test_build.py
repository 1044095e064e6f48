"""Building the kernels, with shell scripts as compilers."""

import errno
import fcntl
import os
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from stylegan_cli import cache
from stylegan_cli.kernels import build

TORCH = Path(torch.__file__).parent


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


# One build


def test_build(toolkit):
    path = build.build(["90a", "8.0"])
    assert toolkit.outputs() == toolkit.parts
    assert path.parent.parent == toolkit.cache / "kernels" and len(path.parent.name) == 16
    assert path.read_text() == "halfwhole"
    assert sorted(p.name for p in path.parent.iterdir()) == [
        ".sgan_kernels.so.lock",
        "build.log",
        "sgan_kernels.json",
        "sgan_kernels.so",
    ]
    assert build.build(["80", "90a"]) == path and len(toolkit.calls()) == 4  # from the cache


def test_commands(toolkit):
    build.build(["90a", "80"])
    build.build(["8.0"])
    kernel, host, link = (
        [line for line in toolkit.calls() if f"-o {name}" in line]
        for name in ("a.cu.o", "library.cpp.o", toolkit.parts[-1])
    )
    assert "arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a" in kernel[0]
    assert "code=compute" not in kernel[0]  # PTX of 90a runs nowhere else
    assert "arch=compute_80,code=sm_80 -gencode arch=compute_80,code=compute_80" in kernel[1]
    assert not any("fast_math" in line for line in kernel)
    assert f"-ccbin {toolkit.cxx}" in kernel[0]
    assert "-DTORCH_TARGET_VERSION=0x020a000000000000" in host[0] and f"-I{TORCH}/include" in host[0]
    assert "-cudart static" in link[0] and "a.cu.o b.cu.o library.cpp.o" in link[0]


def test_compilers_run_in_a_clean_environment(toolkit, monkeypatch):
    """Flags outside the hash are not passed on; temporary files are deleted with the scratch folder."""
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "--use_fast_math")
    monkeypatch.setenv("NVCC_PREPEND_FLAGS", "-ccbin /other")
    toolkit.install(action=f"echo $PWD $TMPDIR $NVCC_APPEND_FLAGS $NVCC_PREPEND_FLAGS >> '{toolkit.folder}/seen'")
    build.build(["90a"])
    for line in (toolkit.folder / "seen").read_text().splitlines():
        here, temporary = line.split()
        assert here == temporary and Path(here).parent.parent == toolkit.cache / "kernels" and not Path(here).exists()


def test_importing_builds_nothing(toolkit):
    toolkit.run("")
    assert not toolkit.cache.exists() and not toolkit.calls()


def test_folders_with_special_characters(toolkit, monkeypatch):
    folder = toolkit.folder / "a $b 'c"
    shutil.copytree(toolkit.sources, folder)
    monkeypatch.setattr(build, "SOURCES", folder)
    monkeypatch.setenv("SGAN_CACHE", str(folder / "cache: 1"))
    assert build.build(["90a"]).read_text() == "halfwhole"
    assert any(f"-c {folder}/a.cu" in line for line in toolkit.calls())


def test_the_hash_covers_every_input(toolkit, monkeypatch):
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
    # But neither paths nor files that no compiler reads.
    (toolkit.sources / "README.md").write_text("words")
    moved = shutil.copytree(toolkit.sources, toolkit.folder / "elsewhere")
    monkeypatch.setattr(build, "SOURCES", moved)
    assert build.build(["90a"]) == paths[-1]


# Many processes


def test_eight_processes_at_once_build_once(toolkit):
    toolkit.install(pause=0.2)
    paths = toolkit.run("for pid in [start() for _ in range(8)]: assert os.waitpid(pid, 0)[1] == 0")
    assert toolkit.outputs() == toolkit.parts
    assert len(paths) == 8 and len(set(paths)) == 1 and Path(paths[0]).read_text() == "halfwhole"


@pytest.mark.slow
def test_killing_a_hundred_builders(toolkit):
    """Whenever they are killed, they leave no partial library, lock or compiler."""
    toolkit.install(pause=0.1)
    *_, killed = toolkit.run("""
random.seed(1)
alive, started, killed = {}, 0, 0
def check():
    for path in pathlib.Path(os.environ["SGAN_CACHE"]).glob("kernels/*/*.so"):
        assert path.read_text() == "halfwhole", "partial library"
        path.unlink(missing_ok=True)  # so that there is always something to build
begin = time.monotonic()
os.waitpid(start(), 0)
life = 2 * (time.monotonic() - begin)  # twice the time of one build, as most wait for others
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
    builds = Counter(toolkit.outputs())
    assert builds["a.cu.o"] > 5 and builds["a.cu.o"] > builds["sgan_kernels.so"] > 0  # killed early and late
    wait_until(lambda: not toolkit.processes(), 5)
    (folder,) = (toolkit.cache / "kernels").iterdir()
    (folder / "tmp-dead").mkdir(exist_ok=True)
    toolkit.install()
    assert build.build(["90a"]).read_text() == "halfwhole"
    assert not list(folder.glob("tmp-*"))


def test_compilers_die_with_their_builder(toolkit):
    toolkit.install(pause=60)
    builder = toolkit.start("build.build(['90a'])")
    wait_until(lambda: len(toolkit.calls()) > 1)
    assert toolkit.processes()
    builder.kill()
    builder.communicate()
    wait_until(lambda: not toolkit.processes(), 5)


def test_a_compiler_that_ignores_sigterm_holds_no_lock(toolkit):
    started = toolkit.folder / "deaf"
    toolkit.install(pause=60, action=f"trap '' TERM; echo > '{started}'")
    builder = toolkit.start("build.build(['90a'])")
    try:
        wait_until(started.exists)
        builder.kill()
        builder.communicate()
        toolkit.install()
        start = time.monotonic()
        assert build.build(["90a"]).read_text() == "halfwhole"
        assert time.monotonic() - start < 10
        assert toolkit.processes()  # it is still running
    finally:
        for pid in toolkit.processes():
            os.kill(pid, signal.SIGKILL)


def test_an_interrupted_build_is_not_remembered_as_failed(toolkit):
    toolkit.install(pause=60)
    builder = toolkit.start("build.build(['90a'])")
    wait_until(lambda: len(toolkit.calls()) > 1)
    builder.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in builder.communicate(timeout=10)[1]
    (folder,) = (toolkit.cache / "kernels").iterdir()
    assert not (folder / "failed.json").exists() and not list(folder.glob("tmp-*")) and not toolkit.processes()
    toolkit.install()
    build.build(["90a"])


def test_waiting_is_reported_once(toolkit, monkeypatch, capsys):
    monkeypatch.setattr(cache, "LOCK_NOTICE_DELAY", 0.1)
    path = build.build(["90a"])
    path.unlink()
    with open(path.with_name(f".{path.name}.lock")) as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        waiting = threading.Thread(target=build.build, args=(["90a"],))
        waiting.start()
        time.sleep(0.5)
        assert waiting.is_alive() and not path.exists()
    waiting.join(10)
    assert path.exists()
    assert capsys.readouterr().err.count("Another process is building the CUDA kernels") == 1


# Failed builds


def test_a_failed_build_is_remembered(toolkit, expect_error):
    (toolkit.sources / "a.cu").write_text("ERROR\n")
    with expect_error("a.cu.1.: error: it contains an ERROR", "build.log") as first:
        build.build(["90a"])
    calls = toolkit.calls()
    assert first.value.log.parent.parent.parent == toolkit.cache and str(first.value.log) in str(first.value)
    assert (
        "it contains an ERROR" in first.value.log.read_text()
        and str(toolkit.sources / "a.cu") in first.value.log.read_text()
    )
    with expect_error() as second:
        build.build(["90a"])
    assert toolkit.calls() == calls
    errors = [(str(e.value), e.value.hint, e.value.log) for e in (first, second)]
    assert errors[0] == errors[1] and "sgan doctor" in errors[0][1]
    with expect_error():
        build.build(["90a"], retry=True)
    assert len(toolkit.calls()) > len(calls)
    with expect_error():  # other architectures are another build
        build.build(["80"])
    (toolkit.sources / "a.cu").write_text("// fixed\n")
    assert build.build(["90a"]).exists()


def test_a_successful_retry_clears_the_failure(toolkit, expect_error):
    toolkit.install(action="echo 'nvcc fatal   : no license'; exit 1")
    with expect_error("no license"):
        build.build(["90a"])
    toolkit.install()
    with expect_error("no license"):
        build.build(["90a"])
    path = build.build(["90a"], retry=True)
    path.unlink()
    assert build.build(["90a"]) == path


@pytest.mark.parametrize("signal_name", ["KILL", "TERM"])
def test_a_killed_compiler_is_tried_again(toolkit, signal_name, expect_error):
    toolkit.install(action=f"kill -{signal_name} $$")
    with expect_error("a compiler was killed"):
        build.build(["90a"])
    toolkit.install()
    assert build.build(["90a"]).exists()


def test_killed_compilers_are_recognized_by_exit_code_or_output(toolkit):
    for code in (-9, 130, 137, 143):
        assert "a compiler was killed" in str(build._build_error(code, "FAILED: a.o", toolkit.folder))
    output = "nvcc error   : 'cicc' died due to signal "
    error = build._build_error(1, f"{output}9 (Kill signal)", toolkit.folder)
    assert "a compiler was killed" in str(error)
    error = build._build_error(1, f"{output}11 (Invalid memory reference)", toolkit.folder)
    assert "signal 11" in str(error) and (toolkit.folder / "failed.json").exists()


def test_hint_for_a_host_compiler_that_is_too_new(toolkit):
    error = build._build_error(1, "host_config.h:1:2: error: #error -- unsupported GNU version!", toolkit.folder)
    assert "CXX" in error.hint


def test_no_space_for_the_compilers(toolkit, expect_error):
    toolkit.install(action="echo 'fatal error: error writing to a.o: No space left on device'; exit 1")
    with expect_error("no space left", str(toolkit.cache)) as e:
        build.build(["90a"])
    assert "SGAN_CACHE" in e.value.hint
    toolkit.install()
    assert build.build(["90a"]).exists()


@pytest.mark.parametrize("where", ["pathlib.Path.mkdir", "tempfile.mkdtemp", "pathlib.Path.write_text", "os.replace"])
def test_no_space_for_our_files(toolkit, monkeypatch, where, expect_error):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as m:
        m.setattr(where, full)
        with expect_error("no space left", str(toolkit.cache)) as e:
            build.build(["90a"])
    assert "SGAN_CACHE" in e.value.hint
    assert build.build(["90a"]).read_text() == "halfwhole"
