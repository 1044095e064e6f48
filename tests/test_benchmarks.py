"""The benchmarks run, write their measurements, and never compare with a wrong result."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import stylegan_cli

MODEL = Path(__file__).parent / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters


FOLDER = Path(__file__).parents[1] / "benchmarks"
TINY = {
    "bench_busy": "--busy 0 --threads 1 --steps 1",
    "bench_data": "--no-packaged --small 3 --large 2",
    "bench_discriminator": "--batch 4 --channel-max 8",
    "bench_filtered_lrelu": "--channel-max 4 --size-max 36",
    "bench_ops": "--size 16 --batch 2 --channel-max 4",
    "bench_synthesis": "--size 16 --batch 2 --channel-base 64",
    "bench_generate": f"--before {Path(__file__).parents[1]} --seeds 0",
    "bench_growth": "--size 16 --images 64",
    "bench_project": "--size 16 --batch 2 --channel-base 64",
    "bench_train_step": "--size 16 --batch 2 --channel-base 64 --augpipe bgc",
    "bench_versions": f"--before {Path(__file__).parents[1]} --steps 1",
    "bench_trainer": "--size 16 --batch 4 --channel-base 64 --steps 1",
}

SLOW = ("bench_busy", "bench_generate", "bench_versions")  # start several processes


@pytest.fixture
def load(monkeypatch):
    """Import a module of benchmarks/, whose files import each other by name."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.fixture
def bench(load, tmp_path):
    return load("_harness").Bench("cpu", tmp_path / "results.json", rounds=2)


@pytest.fixture
def x():
    return torch.randn(4, 5)


def compare(bench, x, **candidates):
    functions = {name: lambda i, f=f: f(x) for name, f in candidates.items()}
    plain = {"exact": lambda: x.double() * 3, "plain": lambda: x * 3, "dtype": torch.float32}
    return bench.row("times three", functions, **plain, moved=160, flop=20, op="times", size=5)


def correct(x):
    return x + x + x


def wrong(x):
    return x * 3.001


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TINY],
)
def test_benchmarks_write_their_rows(load, monkeypatch, tmp_path, name):
    path = tmp_path / "results.json"
    arguments = [*TINY[name].split(), "--device", "cpu", "--rounds", "2", "--out", str(path)]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    result = CliRunner().invoke(load(name).main, arguments)
    assert result.exit_code == 0, result.output
    (entry,) = json.loads(path.read_text())
    typed = f"python benchmarks/{name}.py {TINY[name]} --device cpu --rounds 2"
    assert entry["command"] == typed.replace(str(FOLDER.parent), FOLDER.parent.name)
    assert {"device", "torch", "cuda", "driver", "commit", "date"} <= entry["machine"].keys()
    assert entry["ceilings"]["copy_gbs"] > 0
    for row in entry["rows"]:
        assert row["ours"] > 0 and row["ratio"].keys() & {
            "reference",
            "bare",
            "full size",
            "zipfile",
            "default",
            "before",
        }, row
        assert not row["wrong"] and not row["failed"], row
    table = load("table").entry_table(entry)
    assert sum(line.startswith("| ") for line in table.splitlines()) == len(entry["rows"]) + 2
    assert all(row["case"] in load("table").summary([path]) for row in entry["rows"])


def read_table(markdown):
    """Cells of all lines of all tables, without the headers."""
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    return [cells for cells in lines if cells[0] not in ("what", "---")]


@pytest.mark.parametrize("path", sorted((FOLDER / "results").glob("*.json")), ids=lambda path: path.stem)
def test_table_of_each_committed_results_file(load, path):
    table = load("table")
    rows = read_table(table.summary([path]))
    assert rows and len(rows) == len(list(table.read_lines(path)))
    for cells in rows:
        what, against, ratio, device, versions, command, date = cells
        assert what and against and versions and device.startswith(path.stem.split("-")[3])
        assert float(ratio.removesuffix("x")) > 0 and re.fullmatch(r"`python benchmarks/\w+\.py.*`", command)
        assert date == path.stem[:10]
        assert (FOLDER.parent / command.strip("`").split()[1]).is_file()


def test_summary_of_all_results_is_the_default(load):
    table = load("table")
    paths = sorted((FOLDER / "results").glob("*.json"))
    result = CliRunner().invoke(table.main, [])
    assert result.exit_code == 0 and result.output == table.summary(paths) + "\n"
    assert len(read_table(result.output)) == sum(len(list(table.read_lines(path))) for path in paths)
    headings = [line.removeprefix("## ") for line in result.output.splitlines() if line.startswith("## ")]
    assert headings == [title for title in table.KINDS if title in headings]
    assert "picture" not in result.output


def test_summary_of_wrong_and_failed_results(load, bench, x, monkeypatch):
    def fail(x):
        raise RuntimeError("no such kernel")

    table = load("table")
    monkeypatch.setitem(table.KINDS, "Ops", ("times",))
    compare(bench, x, ours=correct, composite=wrong, reference=fail)
    outcomes = {against: ratio for _, against, ratio, *_ in read_table(table.summary([bench.path]))}
    assert outcomes == {"PyTorch operations arranged to be fast": "wrong result", "plain PyTorch": "failed"}
    monkeypatch.undo()
    with pytest.raises(ValueError, match="no table for times"):
        table.summary([bench.path])


def test_table_of_one_results_file(load):
    path = str(FOLDER / "results" / "2026-11-21-cpu-metrics.json")
    result = CliRunner().invoke(load("table").main, [path, "--op", "fid"])
    assert result.exit_code == 0 and "torch-fidelity / ours" in result.output and "Fréchet" not in result.output


def test_layers_of_both_networks_are_measured(load):
    layers = list(load("bench_ops").layers(1024, 512))
    assert len(layers) == 35 and layers[0][-1] == 1024
    assert {("up", 64, 32, 1024), ("conv", 64, 64, 256), ("torgb", 512, 3, 4)} <= set(layers)


@pytest.mark.parametrize(("size", "channel_base", "gflop"), [(256, 16384, 29.8), (1024, 32768, 148.5)])
def test_floor_counts_the_multiplications(load, size, channel_base, gflop):
    from stylegan_cli.models.registry import build_generator
    from stylegan_cli.models.stylegan2.config import StyleGAN2Config

    with torch.device("meta"):
        G = build_generator(StyleGAN2Config(size, size, channel_base=channel_base))
    ceilings = {"copy_gbs": float("inf"), "matmul_tflops_float16": 1.0, "matmul_tflops_float32": 1.0}
    assert load("bench_synthesis").minimum_seconds(G, 1, torch.float16, ceilings) == pytest.approx(
        gflop / 1000, rel=0.01
    )


def test_a_wrong_op_has_no_ratio(load, bench, x):
    row = compare(bench, x, ours=wrong, reference=correct)
    assert row["wrong"] == ["ours"] and row["ratio"] == {} and "ours" not in row and "gbs" not in row
    with pytest.raises(SystemExit) as end:
        bench.finish()
    assert end.value.code == 1
    assert "WRONG" in load("_harness").line(row)


def test_a_wrong_candidate_has_no_ratio(bench, x):
    row = compare(bench, x, ours=correct, compiled=wrong, reference=correct)
    assert row["wrong"] == ["compiled"] and row["ratio"].keys() == {"reference"} and row["ours"] > 0
    with pytest.raises(SystemExit) as end:
        bench.finish()
    assert end.value.code == 0


def test_a_candidate_that_raises_does_not_stop_the_others(bench, x):
    def fail(x):
        raise RuntimeError("no such kernel\nmore")

    row = compare(bench, x, ours=correct, composite=fail)
    assert row["failed"] == {"composite": "RuntimeError: no such kernel"} and row["ours"] > 0
    assert "ours" not in compare(bench, x, ours=fail, reference=correct)


def test_a_peer_without_its_kernels_has_no_ratio(bench, x):
    bench.peer, bench.no_peer = object(), "its kernels need a GPU"
    row = compare(bench, x, ours=correct, peer=correct)
    assert row["ratio"] == {} and "peer" not in row["seconds"] and "peer" in row["error"]


def test_a_path_without_a_peer(load, tmp_path):
    peer, reason = load("_peer").load(str(tmp_path), torch.device("cpu"))
    assert peer is None and "cannot be imported" in reason


def test_no_row_starts_after_the_time_limit(bench, x):
    bench.deadline = 0
    assert compare(bench, x, ours=correct) is None and bench.skipped == 1


@pytest.mark.parametrize(
    ("norm", "expected"), [(1e-3, True), (2e-3, True), (2.2e-3, False), (float("nan"), False), (float("inf"), False)]
)
def test_twice_the_error_of_pytorch_is_allowed(load, norm, expected):
    assert load("_harness").verify((norm, 1e-3), (1e-3, 1e-3), eps=1e-6) == expected


def test_one_wrong_value_is_detected(load):
    harness, exact = load("_harness"), torch.randn(10**6, dtype=torch.float64)
    broken = exact.half().clone()
    broken[7] += 1
    plain = harness.error(exact.half(), exact)
    assert harness.verify(plain, plain, 1e-3) and not harness.verify(harness.error(broken, exact), plain, 1e-3)


def test_targets(load):
    row = {
        "op": "modulated_conv2d",
        "case": "layer",
        "size": 256,
        "seconds": {},
        "ratio": {"kernels": 1.2, "grouped": 3},
    }
    peers = [{"op": "synthesis", "case": str(r), "ratio": {"peer": 3, "peer channels_last": r}} for r in (1.6, 2.5)]
    trainer = {"op": "trainer", "case": "256", "ratio": {"eager": 1.1, "peer": 1.7}}
    found = load("_targets").targets([row, *peers, trainer])
    assert [is_met for _, _, is_met in found] == [True, False, False, True]
    assert "1.60, lowest for 1.6" in found[2][1]
    assert load("_targets").targets([]) == []


def test_droplets(load, tmp_path):
    """A spike in a uniform map is measured, and the sheet is written."""
    droplets = load("measure_droplets")
    uniform = torch.randn(1, 4, 8, 8).sign()
    maps = droplets.energy(uniform)
    assert maps.amax() / maps.mean() < 1.5
    uniform[:, :, 3, 3] = 100
    maps = droplets.energy(uniform)
    assert maps.amax() / maps.mean() > 50 and maps.flatten().argmax() == 27
    arguments = ["--model", str(MODEL), "--num", "3", "--show", "2", "--out", str(tmp_path / "sheet.png")]
    result = CliRunner().invoke(droplets.main, arguments)
    assert result.exit_code == 0, result.output
    assert "synthesis.b32.conv1" in result.output and (tmp_path / "sheet.png").is_file()
    (layers,) = json.loads((tmp_path / "sheet.json").read_text()).values()
    assert all(1 <= layer["median"] <= layer["largest"] for layer in layers.values())


def test_quality_of_images(load):
    """Distances are better when they are smaller, and blurred images have less diverse edges."""
    quality = load("measure_quality")
    sharp = torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8)
    blurred = torch.nn.functional.avg_pool2d(sharp.float(), 3, 1, 1).to(torch.uint8)
    assert quality.edge_diversity(blurred) < 0.7 * quality.edge_diversity(sharp)
    assert quality.edge_diversity(sharp[:1].expand(6, -1, -1, -1)) == 0
    ours = {"Fréchet distance": 10.0, "recall": 0.5, "path length": 3.0}
    others = {"Fréchet distance": 40.0, "recall": 0.25, "path length": 1.0}
    rows = quality.rows_of({"ours": ours, "enlarged": others})
    assert [row["ratio"] for row in rows] == [{"enlarged: 40": 4.0}, {"enlarged: 0.25": 2.0}, {}]
    rows = quality.rows_of({"ours": ours, "enlarged": others | {"recall": 0.0}})
    assert [row["ratio"] for row in rows] == [{"enlarged: 40": 4.0}, {}, {}]
    assert [row["ratio"] for row in quality.rows_of({"ours": ours})] == [{}, {}, {}]


@torch.inference_mode()
def test_quality_of_a_smaller_model(load):
    """Its images are enlarged, and those of the size of the dataset are as `sgan generate` writes them."""
    quality, G = load("measure_quality"), stylegan_cli.load(MODEL)
    images = quality.images(G, range(3), (32, 32))
    assert torch.equal(images, stylegan_cli.open(MODEL).generate(seeds=[0, 1, 2], noise_mode="const").images)
    enlarged = quality.images(G, range(3), (64, 64))
    assert enlarged.shape == (3, 3, 64, 64)
    reduced = torch.nn.functional.avg_pool2d(enlarged.float(), 2)
    assert (reduced - images.float()).abs().mean() < 4
