"""The number of cores from affinity and cgroup quota; OpenMP's environment in the command line, and not elsewhere."""

import os
import subprocess
import sys

import pytest

from stylegan_cli import threads

SHOW = (
    "import os, sys; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('KMP_BLOCKTIME'), 'torch' in sys.modules)"
)
COMMAND_LINE = """
import sys
from stylegan_cli.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
"""


def run(code, *arguments, **environment):
    """What a new process prints, with no OpenMP variable set but those given."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP", "KMP", "OMP"))}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("busy", "environment", "line"),
    [
        (False, {}, "10000 None False"),
        (True, {}, "1000 0 False"),
        (True, {"GOMP_SPINCOUNT": "20000"}, "20000 0 False"),
        (True, {"KMP_BLOCKTIME": "200"}, "1000 200 False"),
        (True, {"OMP_WAIT_POLICY": "active"}, "None None False"),
    ],
)
def test_command_line_sets_what_is_not_set_before_torch_is_imported(busy, environment, line):
    patch = f"from stylegan_cli import threads\nthreads.is_busy = lambda: {busy}\n"
    assert run(patch + COMMAND_LINE + SHOW, "--version", **environment).stdout.splitlines()[-1] == line


@pytest.mark.parametrize(
    ("line", "cores", "busy"),
    [
        ("0.00 0.01 0.05 1/123 4567", 4, False),  # only this process
        ("0.00 0.01 0.05 2/123 4567", 4, True),
        ("9.00 9.01 9.05 2/123 4567", 3, False),  # a core is left for it; the load of the last minute does not matter
        ("nonsense", 4, False),
    ],
)
def test_other_processes_are_noticed(tmp_path, monkeypatch, line, cores, busy):
    (tmp_path / "loadavg").write_text(line)
    monkeypatch.setattr(threads, "available_cores", lambda: cores)
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 4)
    assert threads.is_busy(tmp_path / "loadavg") == busy


def test_without_a_load_average_a_machine_is_quiet(tmp_path):
    assert not threads.is_busy(tmp_path / "missing")


def test_the_library_leaves_the_environment_alone():
    assert run(f"import stylegan_cli.session\n{SHOW}").stdout == "None None True\n"


@pytest.mark.parametrize("value", ["two", "0", "-1", "1.5", "2,", "2 3"])
def test_bad_number_of_threads(value):
    done = run(COMMAND_LINE, "runs", OMP_NUM_THREADS=value)
    assert done.stderr == (
        f"Error: OMP_NUM_THREADS={value!r} is not a number of threads.\n"
        "Set it to a whole number such as 2, or unset it to use every available core.\n"
    )
    command = [sys.executable, "-m", "stylegan_cli", "runs"]
    assert subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": value}).returncode == 1


@pytest.mark.parametrize("arguments", [[], ["-h"], ["train", "--help"], ["--version"]])
def test_a_bad_number_does_not_prevent_help(arguments):
    done = run(COMMAND_LINE, *arguments, OMP_NUM_THREADS="two")
    assert "Usage: " in done.stdout + done.stderr or done.stdout.startswith("sgan ")
    assert "OMP_NUM_THREADS" not in done.stderr


@pytest.mark.parametrize("value", ["", " "])
def test_a_blank_number_of_threads_is_ignored(value):
    environment = {"OMP_NUM_THREADS": value}
    threads.check_num_threads(environment)
    threads.configure_openmp(environment)
    assert "OMP_NUM_THREADS" not in environment


@pytest.mark.parametrize("value", ["2", " 4 ", "4,2"])
def test_good_number_of_threads(value):
    environment = {"OMP_NUM_THREADS": value}
    threads.check_num_threads(environment)
    threads.configure_openmp(environment)
    assert environment["OMP_NUM_THREADS"] == value


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """Pretend that this process may use 8 cores, and belongs to a cgroup of these lines and files."""
    monkeypatch.setattr(threads, "_affinity", lambda: 8)

    def make(membership, files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
        return threads.available_cores(tmp_path, tmp_path / "membership")

    return make


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),  # half a core
        ("0::/\n", {"cpu.max": "1600000 100000"}, 8),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),  # the group above limits
        ("0::/host/name\n", {"cpu.max": "200000 100000"}, 2),  # inside a container
        ("1:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000"}, 4),
        (
            "1:cpu,cpuacct:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "4000", "cpu,cpuacct/a/cpu.cfs_period_us": "1000"},
            4,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("2:cpuset:/a\n", {"cpuset/a/cpu.max": "100000 100000"}, 8),
    ],
)
def test_quota(cgroup, membership, files, cores):
    assert cgroup(membership, files) == cores


def test_unusual_cgroups_are_no_error(cgroup, tmp_path):
    (tmp_path / "membership").write_bytes(b"malformed\n0::/\xe9\n")
    assert threads.available_cores(tmp_path, tmp_path / "membership") == 8


def test_files_outside_the_cgroup_file_system_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "_affinity", lambda: 8)
    (tmp_path / "cpu.max").write_text("100000 100000")
    (tmp_path / "membership").write_text("0::/a\n")
    assert threads.available_cores(tmp_path / "cgroup", tmp_path / "membership") == 8


def test_a_quota_limits_the_threads(monkeypatch):
    monkeypatch.setattr(threads, "_affinity", lambda: 8)
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    environment = {}
    threads.configure_openmp(environment)
    assert environment["OMP_NUM_THREADS"] == "2"
