"""The engine and a run know no recipe: one that learns a line is trained, recorded, shown and gone on with as any."""

import dataclasses
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stylegan_cli.data.dataset import DataSpec
from stylegan_cli.errors import SganError
from stylegan_cli.runs import find_model
from stylegan_cli.runs.page import make_page
from stylegan_cli.sampling import counter
from stylegan_cli.training.engine import Engine
from stylegan_cli.training.optimizer import FusedAdam
from stylegan_cli.training.recipe import Batch, Drawn, Phase, Recipe
from stylegan_cli.training.recipes.gan_plan import continued
from stylegan_cli.training.run import RunOptions, run_training
from stylegan_cli.training.state_files import list_states, read_about, read_state


@dataclass(frozen=True)
class Settings:
    recipe: ClassVar[str] = "line"
    kimg: float
    snap: float = 0.064
    batch: int = 8
    data: DataSpec = DataSpec("none", "", 1, 4, 4, 3, 4, 4)


@dataclass(frozen=True)
class Numbers(Batch):
    x: Tensor  # [N, 1]


class Position:
    shown = 0

    def state_dict(self):
        return {"shown": self.shown}

    def load_state_dict(self, state):
        self.shown = state["shown"]


class LineRecipe(Recipe):
    """y = 3 x + 1"""

    def __init__(self, config):
        super().__init__(config.batch, config.batch, torch.device("cpu"))
        torch.manual_seed(0)
        self.line, self.position = nn.Linear(1, 1).requires_grad_(False), Position()
        self.networks, self.parts = {"line": self.line}, {"position": self.position}
        optimizer = FusedAdam(list(self.line.parameters()), lr=0.1)
        self.phases = [Phase("fit", self.line, optimizer, self._loss)]
        self.product = self.line

    def next_batch(self):
        index = torch.arange(self.position.shown, self.position.shown + self.batch)
        self.position.shown += self.batch
        return Numbers(counter.normal(0, "x", index, (1,)))

    def _loss(self, batch):
        loss = (self.line(batch.x) - 3 * batch.x - 1).square()
        self.means.add("loss/fit", loss)
        return loss.sum()


class LineReport:
    slows_down = False

    def __init__(self, engine, config):
        self.engine, self.seen = engine, 0

    def stills(self):
        return {"reals": torch.zeros(3, 8, 8, dtype=torch.uint8)}

    def draw(self):
        self.seen += 1
        weight = self.engine.recipe.line.weight.item()
        return Drawn({"guesses": torch.full((3, 8, 8), 40, dtype=torch.uint8)}, {"weight": weight})

    def save(self, path, kimg):
        save_file(self.engine.recipe.line.state_dict(), path)

    def values(self):
        return {"line/weight": self.engine.recipe.line.weight.item()}

    def summary(self, values):
        return f"fit {values['loss/fit']:.2f}"

    def end_of_stage(self, folder, kimg):
        return None

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def train(folder, kimg, **options):
    folder.mkdir(exist_ok=True)
    config = Settings(kimg)
    build = lambda begun: Engine(LineRecipe(config))  # noqa: E731
    run_training(config, folder, torch.device("cpu"), build, LineReport, RunOptions(quiet=True, **options))


def test_a_run_of_another_recipe(tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    train(whole, 1.28)
    line = load_file(whole / "snapshot-000001.280.safetensors")
    assert line["weight"].item() == pytest.approx(3, abs=0.2) and line["bias"].item() == pytest.approx(1, abs=0.2)
    assert {"reals.png", "guesses-000000.png", "guesses-000001.280.png"} <= {p.name for p in whole.iterdir()}
    lines = [json.loads(text) for text in (whole / "stats.jsonl").read_text().splitlines()]
    assert {"loss/fit", "line/weight", "guard/skipped"} <= lines[-2].keys() and "weight" in lines[-1]
    assert re.search(r"loss fit 0\.\d\d$", (whole / "log.txt").read_text(), re.MULTILINE)
    train(part, 0.64)
    train(part, 1.28)
    state, _ = read_state(list_states(part)[0])
    expected, _ = read_state(list_states(whole)[0])
    assert state.keys() == {"line", "optimizer.fit", "position", "guard", "clock", "record"}
    assert state["record"]["seen"] == expected["record"]["seen"] == 21
    assert all(torch.equal(state["line"][name], expected["line"][name]) for name in ("weight", "bias"))


def test_its_folder_says_of_which_recipe_it_is(tmp_path):
    train(tmp_path, 0.064)
    settings, about = json.loads((tmp_path / "config.json").read_text()), read_about(list_states(tmp_path)[0])
    assert settings == {"recipe": "line", **about["config"]} and about["recipe"] == "line"


@pytest.mark.parametrize("left", ["both", "settings", "state"])
def test_another_recipe_does_not_go_on_with_it(tmp_path, left):
    """By what the settings and the state say, or one of them alone."""
    folder = tmp_path / "00000-line"
    train(folder, 0.064)
    (folder / "failure.txt").write_text("before")
    if left == "settings":
        for path in list_states(folder):
            path.unlink()
    if left == "state":
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if k != "recipe"}))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SganError, match=r"^The run in .*00000-line is of the recipe 'line' .* one of 'gan'\.$"):
        continued(folder, {}, [])

    class Other(Settings):
        recipe = "curve"

    with pytest.raises(SganError, match="is of the recipe '(line|gan)' .* one of 'curve'"):
        run_training(Other(1), folder, torch.device("cpu"), None, LineReport, RunOptions(quiet=True))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_its_snapshots_are_not_taken_for_models(tmp_path):
    model = tmp_path / "00000-faces" / "snapshot-000001.safetensors"
    model.parent.mkdir()
    model.touch()
    train(tmp_path / "00001-line", 0.064)
    assert find_model(None, tmp_path)[0] == model


def test_its_page_shows_what_it_drew_and_counted(tmp_path):
    train(tmp_path / "run", 0.128)
    page = make_page(tmp_path / "run")
    assert 'generated images at <output id="when">0.128</output>' in page and "real images" in page
    assert "loss/fit" in page and "line/weight" in page


def test_it_is_measured(tmp_path):
    class Weight:
        higher_is_better = True

        def __call__(self, network, data, device):
            return {"weight": network.weight.item()}

    train(tmp_path / "run", 0.128, measure=Weight())
    assert len((tmp_path / "run" / "metric-weight.jsonl").read_text().splitlines()) == 2


def test_parts_of_a_batch_and_what_a_rehearsal_leaves_behind(monkeypatch):
    """Memory runs out once: half is looked at at a time, and nothing that the recipe remembers has moved."""
    recipe = LineRecipe(Settings(1))
    recipe.line.register_buffer("mean", torch.ones(1))
    recipe.halve_batch_gpu = lambda: setattr(recipe, "batch_gpu", recipe.batch_gpu // 2)
    sizes = []

    def loss(batch):
        sizes.append(len(batch.x))
        recipe.line.mean += 1
        if len(batch.x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return LineRecipe._loss(recipe, batch)

    recipe.phases = [dataclasses.replace(recipe.phases[0], loss=loss)]
    engine = Engine(recipe)
    before = {name: tensor.clone() for name, tensor in recipe.line.state_dict().items()}
    engine.fit_memory()
    assert (recipe.batch_gpu, recipe.position.shown, engine.shown) == (4, 0, 0) and engine.short_of_memory
    assert all(torch.equal(before[name], tensor) for name, tensor in recipe.line.state_dict().items())
    sizes.clear()
    engine.step()
    assert sizes == [4, 4] and recipe.line.weight != before["weight"]


# ------------------------------------------------------------------------------------------- imports

CORE = ["engine", "folders", "graphs", "guard", "optimizer", "recipe", "recorder", "run"]
CORE += ["state", "state_files", "state_format"]
OF_GANS = ["models", "training.config", "training.presets", "training.recipes"]


@pytest.fixture(scope="module")
def edges():
    """{module: modules that it imports, also lazily}, names as tuples of their parts."""
    spec = importlib.util.spec_from_file_location("order", Path(__file__).parents[1] / "test_imports.py")
    order = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(order)
    return order.graph({path: order.tree_of(path) for path in order.MODULES})


def of_gans(edges, module):
    """What is of GANs alone among all that importing a module of `training` imports, with the packages around it."""
    found, left = set(), [("stylegan_cli", "training", *module.split("."))]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [*edges[name], *(name[:n] for n in range(2, len(name)))]  # the root imports on demand alone
    names = {".".join(name[1:]) for name in found}
    return {name for name in names if any(name == other or name.startswith(f"{other}.") for other in OF_GANS)}


@pytest.mark.parametrize("module", CORE)
def test_the_engine_and_a_run_import_nothing_of_a_gan(edges, module):
    assert not of_gans(edges, module)


def test_what_is_of_gans_is_seen_from_afar(edges):
    assert {"models.registry", "training.config"} <= of_gans(edges, "recipes.gan")
    assert of_gans(edges | {("stylegan_cli", "files"): {("stylegan_cli", "training", "presets")}}, "state_files")
