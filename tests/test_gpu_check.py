"""The four calls for a machine with a GPU run to their end, with CUDA mocked: no call dies of a mistake in Python.

The kernels are emulated. What PyTorch would do on a GPU is replaced by functions with its signatures.
"""

import contextlib
import importlib
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from click.testing import CliRunner

from stylegan_cli.ops import dispatch

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
OPS = {  # of the rows that each call measures
    "a": {"synthesis"},
    "b": {"train_step", "trainer", "bias_act", "upfirdn2d", "add_skip", "modulated_conv2d"},
    "c": {"synthesis", "filtered_lrelu", "project", "features"},
    "d": set(),
}
PARTS = {
    "a": ["build", "check", "profile", "counters", "counters"],
    "b": ["build"],
    "c": ["build"],
    "d": ["build", "equal", "train", "encoder"],
}


@pytest.fixture
def load(monkeypatch):
    """Import a module of benchmarks/, whose files import each other by name."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


class Event:
    def __init__(self, enable_timing=False, blocking=False, interprocess=False, external=False):
        self.recorded = False

    def record(self, stream=None):
        self.recorded = True

    def synchronize(self):
        assert self.recorded

    def elapsed_time(self, end_event):
        assert self.recorded and end_event.recorded
        return 1.0


class Stream:
    def __init__(self, device=None, priority=0):
        pass

    def wait_stream(self, stream):
        assert isinstance(stream, Stream)


class Graph:
    def __init__(self, keep_graph=False):
        self.captured = False

    def replay(self):
        assert self.captured


class Capture:
    def __init__(self, cuda_graph, pool=None, stream=None, capture_error_mode="global"):
        self.graph = cuda_graph

    def __enter__(self):
        assert not self.graph.captured

    def __exit__(self, *error):
        self.graph.captured = True


@contextlib.contextmanager
def on_stream(stream):
    assert isinstance(stream, Stream)
    yield


RESULTS = {"memory_allocated": 0, "max_memory_allocated": 1 << 20, "get_device_name": "Stand-in 9000"}
RESULTS |= {"graph_pool_handle": (0, 1), "get_device_properties": SimpleNamespace(L2_cache_size=1 << 10)}
WITHOUT_RESULT = ("synchronize", "empty_cache", "reset_peak_memory_stats")
CLASSES = {"Event": Event, "Stream": Stream, "CUDAGraph": Graph, "graph": Capture, "stream": on_stream}


@pytest.fixture
def cuda(load, monkeypatch):
    """Benchmarks take the CPU for a GPU: kernels are emulated, and torch.cuda does nothing."""
    spec = importlib.util.spec_from_file_location("emulator_harness", ROOT / "tests" / "emulator" / "harness.py")
    harness = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harness)
    if reason := harness.missing():
        pytest.skip(reason)
    torch.ops.load_library(str(harness.build_library()))
    for name in ("_results", "_harness", "gpu_parts", "gpu_equal"):
        monkeypatch.setattr(load(name), "is_cuda", lambda device: True)
    limits = {"copy_gbs": 1.0} | {f"matmul_tflops_{name}": 1.0 for name in ("float16", "bfloat16", "float32")}
    monkeypatch.setattr(load("_harness"), "ceilings", lambda device: limits)
    monkeypatch.setattr(load("gpu_parts").kernels, "load", lambda: None)
    monkeypatch.setattr(load("bench_synthesis"), "compiled", lambda function: function)  # takes minutes
    for name, stand_in in CLASSES.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    for name in (*RESULTS, *WITHOUT_RESULT):
        function = mock.create_autospec(getattr(torch.cuda, name), return_value=RESULTS.get(name))
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream())
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: None, raising=False)
    for name in ("start", "stop"):
        monkeypatch.setattr(torch.cuda.profiler, name, lambda: None)
    with dispatch.kernels_on("cpu"):
        yield


@pytest.mark.parametrize("name", ["Event", "Stream", "CUDAGraph", "graph"])
def test_stand_ins_have_the_signatures_of_pytorch(name):
    real = getattr(torch.cuda, name)
    function = real.__init__ if name == "graph" else real.__new__
    expected = list(inspect.signature(function).parameters)[1:]
    ours = list(inspect.signature(CLASSES[name]).parameters)
    assert expected[: len(ours)] == ours or "kwargs" in expected  # other builds of PyTorch take anything


NCU = """==PROF== Connected to process 7
"ID","Kernel Name","gpu__time_duration.sum","dram__throughput.avg.pct_of_peak_sustained_elapsed",\
"sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active","smsp__issue_active.avg.per_cycle_active",\
"launch__registers_per_thread","smsp__average_warps_issue_stalled_wait_per_issue_active.ratio",\
"smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio"
"","","us","%","%","inst/cycle","register/thread","inst","inst"
"0","void sgan::bias_act_kernel<__half, 8>(sgan::BiasAct)","1,234.5","91.2","0","0.31","32","1.5","2.5"
"1","sgan::modulated_conv2d_kernel<3>(sgan::ModulatedConv2d)","77","12","55.5","0.62","127","0.5","n/a"
""".replace("\\\n", "")


def python_of(command):
    """The module of benchmarks/ and the arguments of a command, whatever starts Python."""
    (script,) = [word for word in command if word.startswith(str(FOLDER)) and word.endswith(".py")]
    return Path(script).stem, command[command.index(script) + 1 :]


def commands_of(check, call, out):
    parts = check.CALLS[call](check.Commands("cpu", out, call, None, True))
    return [(part.name, command) for part in parts for command in part.commands]


@pytest.mark.slow
@pytest.mark.parametrize("call", OPS)
def test_every_part_runs(load, cuda, monkeypatch, tmp_path, call):
    check = load("gpu_check")
    for name, command in commands_of(check, call, tmp_path):
        if "pytest" in command:
            continue
        if "counters" in command:
            Path(command[-1]).write_text(NCU)
        module, arguments = python_of(["400" if word == check.SECONDS else word for word in command])
        monkeypatch.setattr(sys, "argv", [f"{module}.py", *arguments])
        result = CliRunner().invoke(load(module).main, arguments)
        assert result.exit_code == 0, f"{name}: {result.output}"
    results = tmp_path / f"{call}.json"
    entries = json.loads(results.read_text()) if results.exists() else []  # d has none
    rows = [row for entry in entries for row in entry["rows"]]
    assert {row["op"] for row in rows} == OPS[call]
    assert not [row for row in rows if "ours" not in row or row["failed"]]
    parts = tmp_path / f"{call}-parts.json"
    assert [entry["part"] for entry in json.loads(parts.read_text())] == PARTS[call]


def test_counters_of_ncu(load):
    first, second = load("gpu_parts").read_counters(NCU)
    assert first["kernel"] == "sgan::bias_act_kernel<__half, 8>" and first["microseconds"] == 1234.5
    assert first["DRAM %"] == 91.2 and first["issue %"] == 0.31 and first["registers"] == 32
    assert list(first["stalls"].items()) == [("barrier", 2.5), ("wait", 1.5)]
    assert second["tensor pipe %"] == 55.5 and second["stalls"] == {"wait": 0.5} and second["occupancy %"] is None
    assert load("gpu_parts").read_counters("==ERROR== no permission\n") == []


@pytest.mark.parametrize("call", OPS)
def test_limits_of_the_parts_fit_into_a_call(load, tmp_path, call):
    """And benchmarks start nothing new in the last quarter of their part."""
    check = load("gpu_check")
    parts = check.CALLS[call](check.Commands("cuda", tmp_path, call, "../stylegan3", False))
    assert sum(part.limit for part in parts) <= check.LIMIT <= 540
    for part in parts:
        seconds = [
            float(c[c.index("--seconds") + 1]) for c in part.commands if "--seconds" in c and check.SECONDS not in c
        ]
        assert sum(seconds) <= 0.76 * part.limit, part.name


def test_sanitizers_get_every_kernel(load, tmp_path):
    """As the emulator does: what its tests call is called in the parts with a sanitizer too."""
    check, emulator, called = load("gpu_check"), ROOT / "tests" / "emulator", ""
    for part in check.CALLS["c"](check.Commands("cuda", tmp_path, "c", None, False)):
        if part.environment.get("SGAN_SANITIZER") == "memcheck":
            called += "".join(Path(w).read_text() for c in part.commands for w in c if w.startswith(str(emulator)))
    code = "".join(path.read_text() for path in (ROOT / "csrc").glob("*.cu"))
    launchers = set(re.findall(r"^const char\* (\w+)\(", (ROOT / "csrc" / "kernels.h").read_text(), re.M))
    assert launchers and not {name for name in launchers if f" {name}(const" in code and f'"{name}"' not in called}


def test_parts_that_fail_or_hang(load, tmp_path):
    check, log = load("gpu_check"), tmp_path / "log"
    assert check.run(check.Part("good", [["true"], ["true"]], 5), 5, log) == "passed"
    informed = ["sh", "-c", 'test "$0" = 80', check.SECONDS]  # less what it needs to end
    assert check.run(check.Part("limited", [informed], 5), 100, log) == "passed"
    assert check.run(check.Part("bad", [["false"], ["true"]], 5), 5, log) == "FAILED with exit code 1"
    assert check.run(check.Part("slow", [["sleep", "60"]], 5), 0.2, log).startswith("FAILED: stopped")
    assert check.run(check.Part("absent", [["no-such-tool"]], 5), 5, log).startswith("skipped")
    refused = ["sh", "-c", "echo Device not supported; exit 1"]
    assert "does not support this device" in check.run(check.Part("refused", [refused], 5), 5, log)
    assert check.run(check.Part("bad", [["false"]], 5), 5, log) == "FAILED with exit code 1"  # not by older output


def test_parts_get_the_time_that_others_saved(load, monkeypatch, tmp_path):
    check, limits = load("gpu_check"), {}

    def run(part, limit, log):
        limits[part.name] = limit
        return "FAILED: stopped" if part.name == "first" else "passed"

    (tmp_path / "log").touch()
    monkeypatch.setattr(check, "run", run)
    parts = [check.Part("first", [], 10), check.Part("second", [], 20), check.Part("third", [], 30)]
    verdicts = check.run_parts(parts, tmp_path / "log", check.time.monotonic() + 100)
    assert [round(limits[name]) for name in ("first", "second", "third")] == [50, 70, 100]
    assert "FAILED" in verdicts["first"] and "passed" in verdicts["third"]


def test_a_call_from_the_checkout_alone(tmp_path):
    """As a process, with nothing else on the path."""
    command = [sys.executable, FOLDER / "gpu_check.py", "b", "--only", "trainer", "--tiny", "--device", "cpu"]
    done = subprocess.run([*map(str, command), "--out", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (entry,) = json.loads((tmp_path / "b.json").read_text())
    assert (
        entry["rows"][0]["ours"] > 0 and "passed" in done.stdout and "bench_trainer" in (tmp_path / "b.log").read_text()
    )


@pytest.fixture
def equal(load, monkeypatch):
    """Two steps of StyleGAN2 on both sides: equal() -> exit code, output. The other side has the reference's ops."""

    def run(*arguments):
        arguments = ["--device", "cpu", "--steps", "2", "--only", "StyleGAN2", *arguments]
        result = CliRunner().invoke(load("gpu_equal").main, arguments)
        return result.exit_code, result.output

    return run


def test_devices_that_agree(equal, tmp_path):
    code, output = equal("--out", str(tmp_path / "out.json"))
    assert code == 0 and "alone, above 0.001: never" in output and "DIFFERS" not in output
    (entry,) = json.loads((tmp_path / "out.json").read_text())
    bundled, family = entry["compared"]
    assert bundled["agrees"] and family["agrees"] and bundled["levels"] <= 1
    assert 0 < family["loss"] < 1e-5 and 0 < family["gradient"] < 1e-2 and len(family["alone"]) == 2


@pytest.mark.parametrize(
    "fault, differs",
    [
        (lambda x, b, *others: (x * 1.01, b, *others), r"losses \d\.\de-0[123]"),
        (lambda x, b, *others: (x, b, others[0], others[1] * 1.05, *others[2:]), r"within (?!0|1/)"),
        # The right values with twice the gradient: the losses of a step do not tell.
        (
            lambda x, b, *others: (x, None if b is None else 2 * b - b.detach(), *others),
            r"gradients \d\.\de(-0[12]|\+)",
        ),
    ],
    ids=["input", "gain", "gradient"],
)
def test_devices_that_differ(equal, monkeypatch, fault, differs):
    from stylegan_cli.ops import bias_act

    ops = sys.modules[bias_act.__module__]
    right = ops.bias_act_reference
    monkeypatch.setitem(ops._IMPLEMENTATIONS, "reference", lambda *values: right(*fault(*values)))
    code, output = equal()
    assert code == 1 and re.search(differs, output) and "differ: " in output


def test_a_family_that_fails_does_not_stop_the_others(equal, load, monkeypatch):
    module = load("gpu_equal")
    monkeypatch.setattr(
        module, "every_family", lambda: {"StyleGAN2 x": ("demo-stylegan2", {}), "StyleGAN2": ("no", {})}
    )
    monkeypatch.setattr(module, "train_alone", mock.Mock(side_effect=RuntimeError("not captured\nat all")))
    code, output = equal()
    assert code == 1 and "2 of 3 differ: StyleGAN2 x, StyleGAN2" in output
    assert "alone: RuntimeError: not captured  DIFFERS" in output and "losses" in output and "never" not in output


def test_gradients_that_are_zero(load):
    def engine(moment):
        optimizer = SimpleNamespace(state_dict=lambda: {"state": {0: {"exp_avg": torch.full([3], moment)}}})
        return SimpleNamespace(stateful={"optimizer.D": optimizer, "G": None})

    differences = load("gpu_equal").gradient_differences
    assert differences(engine(0.0), engine(0.0)) == {"D": 0.0} and differences(engine(0.0), engine(1e-9))["D"] > 1
    assert differences(engine(1.0), engine(1.1)) == pytest.approx({"D": 0.1})


def test_losses_that_are_not_numbers_differ_alone_too(load, monkeypatch):
    module = load("gpu_equal")
    monkeypatch.setattr(module, "losses_of", lambda engine: {"a": 1.0, "b": float("nan"), "c": 1.0})
    monkeypatch.setattr(module, "opened", mock.MagicMock())
    (error,) = module.train_alone(None, None, module.CPU, {}, [{"a": 1.0, "b": 1.0, "c": 1.0}])
    assert error != error


def test_differences(load):
    module = load("gpu_equal")
    assert module.differences({"a": 10.0, "b": 0.1}, {"a": 11.0, "b": 0.2}) == pytest.approx({"a": 0.1, "b": 0.1})
    apart = module.differences({"a": 1.0, "b": 2.0}, {"a": float("nan"), "c": 2.0})
    assert module.worst(apart) == "a" and apart["b"] == float("inf") and apart["c"] != 0
    assert not module.Compared("case", loss=float("nan")).agrees and not module.Compared("case", levels=2).agrees
    assert module.Compared("case").agrees and not module.Compared("case", failures=("lost",)).agrees


def test_compared_steps_are_of_full_size_and_of_every_stage(load):
    from stylegan_cli.data.dataset import open_dataset

    module, dataset = load("gpu_equal"), open_dataset(None, size=(32, 32))
    for case in module.every_family():
        config = module.config_of(case, dataset, 20)
        assert config.growth is None and config.precision == "fp32", case
        assert config.stage_kimg * 1000 < config.batch * 20 and config.lr < 1e-3, case


SGAN = """
import json, pathlib, sys, time
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
run = pathlib.Path(arguments["--runs"], "00000-run")
run.mkdir(parents=True)
lines = [json.dumps({"kimg": k, "sec_per_kimg": 0.01}) for k in range(int(arguments["--lines"]))]
(run / "stats.jsonl").write_text("\\n".join(lines))
try:
    time.sleep(float(arguments["--sleep"]))
except KeyboardInterrupt:
    sys.exit(1)
sys.exit(int(arguments["--exit"]))
"""


@pytest.fixture
def train(load, monkeypatch, tmp_path):
    """Train with a program that only writes a log: train(seconds, lines=..., sleep=..., exit=...)."""
    module, start = load("gpu_model"), load("time").monotonic()
    monkeypatch.setattr(module, "SGAN", [sys.executable, "-c", SGAN])
    monkeypatch.setattr(module, "MARGIN", 0.5)

    def run(seconds, most=1e6, **options):
        options = {"lines": 3, "sleep": 0, "exit": 0} | options
        command = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return module.train(command, tmp_path, (2.0, most), start + seconds)

    return run


def test_models_are_trained_for_as_long_as_there_is_time(train):
    trained = train(60)
    kimg = float(trained.command[trained.command.index("--kimg") + 1])
    assert 3000 < kimg < 60 * 0.9 / 0.01 and not trained.interrupted and trained.run.parent.name == "whole"
    assert trained.command[-2:] == ["--snap", f"{kimg / 4:g}"]


def test_models_are_not_trained_longer_than_useful(train):
    assert "5" in train(60, most=5).command


def test_a_run_that_is_late_is_interrupted(train):
    assert train(6, sleep=3.5).interrupted  # after the run that measures the pace


@pytest.mark.parametrize("options, message", [({"exit": 3}, "exit code 3"), ({"lines": 1}, "too long to measure")])
def test_a_run_that_fails(train, options, message):
    with pytest.raises(Exception, match=message):
        train(60, **options)


def test_the_model_is_small_enough_to_be_bundled(load):
    from stylegan_cli.data.dataset import open_dataset
    from stylegan_cli.models.registry import build_discriminator, build_generator
    from stylegan_cli.training.presets import make_train_config

    options = dict(zip(load("gpu_model").MODEL[1::2], load("gpu_model").MODEL[2::2]))
    sizes = {"channel_base": int(options["--cbase"]), "channel_max": int(options["--cmax"])}
    config = make_train_config(options["--cfg"], open_dataset(None).spec, **sizes)
    G, D = build_generator(config.generator), build_discriminator(config.discriminator)
    g, d = (load("_training").count_parameters(network) for network in (G, D))
    assert g <= 1.5e6 and 2 * (g + d) <= 5e6


def test_commands_in_results_have_no_folders(load):
    arguments = ["/a/gpu_model.py", "--data=/b/c.zip", "--save", "/d/e", "--seconds", "5", "--out=/f", "--peer", "/g/h"]
    expected = "python benchmarks/gpu_model.py --data c.zip --seconds 5 --peer h"
    assert load("_results").command_line(arguments) == expected


def test_kernels_of_the_peer_are_built_beside_ours(load, cuda, tmp_path, capfd):
    ops = tmp_path / "torch_utils" / "ops"
    ops.mkdir(parents=True)
    (ops / "bias_act.py").write_text("import pkg_resources\n_plugin = 1\ndef _init():\n    return True\n")
    (ops / "upfirdn2d.py").write_text("_plugin = None\ndef _init():\n    raise OSError('no compiler')\n")
    options = ["--peer", str(tmp_path), "--op", "bias_act", "--op", "upfirdn2d", "--op", "filtered_lrelu"]
    result = CliRunner().invoke(load("gpu_parts").main, ["--device", "cpu", "build", *options])
    assert result.exit_code == 0, result.output
    assert sorted(capfd.readouterr().out.splitlines()) == [
        "the peer has no filtered_lrelu",
        "the peer's bias_act was built",
        "torch_utils.ops.upfirdn2d was not built: OSError: no compiler",
    ]
