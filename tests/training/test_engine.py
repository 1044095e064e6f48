"""The engine and runs are independent of the recipe: one that fits a line is trained, recorded, shown and resumed."""

import contextlib
import dataclasses
import importlib.util
import json
import re
import types
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
from stylegan_cli.training.graphs import WARM_UP, Graphed
from stylegan_cli.training.optimizer import FusedAdam
from stylegan_cli.training.recipe import Batch, Phase, Recipe, Samples
from stylegan_cli.training.recipes.gan_resume import plan_resumed_run
from stylegan_cli.training.run import RunOptions, run_training
from stylegan_cli.training.state_files import list_states, read_about, read_state


@dataclass(frozen=True)
class Settings:
    recipe: ClassVar[str] = "line"
    needed_files: ClassVar[list[tuple[str, str]]] = []
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
        self.metric_network = self.line

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

    def fixed_images(self):
        return {"reals": torch.zeros(3, 8, 8, dtype=torch.uint8)}

    def make_samples(self):
        self.seen += 1
        weight = self.engine.recipe.line.weight.item()
        return Samples({"guesses": torch.full((3, 8, 8), 40, dtype=torch.uint8)}, {"weight": weight})

    def save(self, path, kimg):
        save_file(self.engine.recipe.line.state_dict(), path)

    def values(self):
        return {"line/weight": self.engine.recipe.line.weight.item()}

    def summary(self, values):
        return f"fit {values['loss/fit']:.2f}"

    def end_stage(self, folder, kimg):
        return None

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def train(folder, kimg, **options):
    folder.mkdir(exist_ok=True)
    config = Settings(kimg)
    build = lambda resuming: Engine(LineRecipe(config))  # noqa: E731
    run_training(config, folder, torch.device("cpu"), build, LineReport, RunOptions(quiet=True, **options))


def test_a_run_of_another_recipe(tmp_path):
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    train(uninterrupted, 1.28)
    line = load_file(uninterrupted / "snapshot-000001.280.safetensors")
    assert line["weight"].item() == pytest.approx(3, abs=0.2) and line["bias"].item() == pytest.approx(1, abs=0.2)
    assert {"reals.png", "guesses-000000.png", "guesses-000001.280.png"} <= {p.name for p in uninterrupted.iterdir()}
    lines = [json.loads(text) for text in (uninterrupted / "stats.jsonl").read_text().splitlines()]
    assert {"loss/fit", "line/weight", "guard/skipped"} <= lines[-2].keys() and "weight" in lines[-1]
    assert re.search(r"loss fit 0\.\d\d$", (uninterrupted / "log.txt").read_text(), re.MULTILINE)
    train(resumed, 0.64)
    train(resumed, 1.28)
    state, _ = read_state(list_states(resumed)[0])
    expected, _ = read_state(list_states(uninterrupted)[0])
    assert state.keys() == {"line", "optimizer.fit", "position", "guard", "clock", "record"}
    assert state["record"]["seen"] == expected["record"]["seen"] == 21
    assert all(torch.equal(state["line"][name], expected["line"][name]) for name in ("weight", "bias"))


def test_the_folder_records_the_recipe(tmp_path):
    train(tmp_path, 0.064)
    settings, about = json.loads((tmp_path / "config.json").read_text()), read_about(list_states(tmp_path)[0])
    assert settings == {"recipe": "line", **about["config"]} and about["recipe"] == "line"


@pytest.mark.parametrize("source", ["both", "settings", "state"])
def test_another_recipe_cannot_resume_it(tmp_path, source):
    """With the recipe in the settings and the state, or in one of them."""
    folder = tmp_path / "00000-line"
    train(folder, 0.064)
    (folder / "failure.txt").write_text("before")
    if source == "settings":
        for path in list_states(folder):
            path.unlink()
    if source == "state":
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if k != "recipe"}))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SganError, match=r"^The run in .*00000-line uses the recipe 'line' .* with 'gan'\.$"):
        plan_resumed_run(folder, {})

    class Other(Settings):
        recipe = "curve"

    with pytest.raises(SganError, match="uses the recipe '(line|gan)' .* with 'curve'"):
        run_training(Other(1), folder, torch.device("cpu"), None, LineReport, RunOptions(quiet=True))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_its_snapshots_are_not_models(tmp_path):
    model = tmp_path / "00000-faces" / "snapshot-000001.safetensors"
    model.parent.mkdir()
    model.touch()
    train(tmp_path / "00001-line", 0.064)
    assert find_model(None, tmp_path)[0] == model


def test_its_page_shows_samples_and_charts(tmp_path):
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


def test_fit_memory_halves_batch_gpu_and_changes_nothing_else(monkeypatch):
    """After running out of memory once, `batch_gpu` is halved, and the state of the recipe is unchanged."""
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
    assert (recipe.batch_gpu, recipe.position.shown, engine.shown) == (4, 0, 0) and engine.batch_gpu_halved
    assert all(torch.equal(before[name], tensor) for name, tensor in recipe.line.state_dict().items())
    sizes.clear()
    engine.step()
    assert sizes == [4, 4] and recipe.line.weight != before["weight"]


class Captures:
    """torch.cuda without a GPU: streams do nothing, and a graph repeats nothing. A capture that is left by an error
    cannot be ended, which raises another one."""

    def __init__(self, message):
        self.message, self.pools, self.capturing = message, [], False

    def graph(self, graph, pool, stream, capture_error_mode):
        @contextlib.contextmanager
        def capture():
            assert pool not in self.pools, "recording to this pool"
            self.pools.append(pool)
            self.capturing = True
            try:
                yield
            except torch.OutOfMemoryError:
                raise RuntimeError(self.message)  # noqa: B904 (as PyTorch does)
            finally:
                self.capturing = False
            self.pools.remove(pool)

        return capture()

    def patch(self, monkeypatch):
        stream = types.SimpleNamespace(wait_stream=lambda other: None)
        fakes = {"graph": self.graph, "CUDAGraph": lambda: types.SimpleNamespace(replay=lambda: None)}
        fakes |= {"Stream": lambda: stream, "current_stream": lambda: stream, "graph_pool_handle": object}
        fakes["stream"] = lambda stream: contextlib.nullcontext()
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)


def test_out_of_memory_during_capture_is_handled_like_any_other(monkeypatch):
    """What PyTorch raises then is not an OutOfMemoryError, and the pool of the capture stays in use."""
    captures = Captures("CUDA error: operation failed due to a previous error during capture")
    captures.patch(monkeypatch)
    recipe = LineRecipe(Settings(1))
    recipe.halve_batch_gpu = lambda: setattr(recipe, "batch_gpu", recipe.batch_gpu // 2)
    recipe.graphs = True

    def loss(batch):
        if captures.capturing and len(batch.x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return LineRecipe._loss(recipe, batch)

    recipe.phases = [dataclasses.replace(recipe.phases[0], loss=loss)]
    engine = Engine(recipe)
    engine.fit_memory()
    assert recipe.batch_gpu == 4 and len(captures.pools) == 1
    engine.step()


@pytest.mark.parametrize("message, is_memory", [("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True), ("a bug", False)])
def test_other_errors_during_capture(monkeypatch, message, is_memory):
    Captures("").patch(monkeypatch)

    def work():
        raise RuntimeError(message)

    graphed = Graphed(work, object(), torch.cuda.Stream())
    graphed._runs = WARM_UP
    with pytest.raises(RuntimeError, match=message) as error:
        graphed()
    assert isinstance(error.value, torch.OutOfMemoryError) == is_memory


# ------------------------------------------------------------------------------------------- imports

CORE = ["engine", "folders", "graphs", "guard", "optimizer", "recipe", "recorder", "run"]
CORE += ["state", "state_files", "state_format"]
GAN_MODULES = ["models", "training.config", "training.presets", "training.recipes"]


@pytest.fixture(scope="module")
def edges():
    """{module: modules that it imports, also lazily}, names as tuples of their parts."""
    spec = importlib.util.spec_from_file_location("order", Path(__file__).parents[1] / "test_imports.py")
    order = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(order)
    return order.import_graph({path: order.tree_of(path) for path in order.MODULES})


def gan_imports(edges, module):
    """Return the GAN modules that a module of `training` imports, directly or not, with the enclosing packages."""
    visited, pending = set(), [("stylegan_cli", "training", *module.split("."))]
    while pending:
        name = pending.pop()
        if name not in visited:
            visited.add(name)
            pending += [*edges[name], *(name[:n] for n in range(2, len(name)))]  # the root package imports lazily
    names = {".".join(name[1:]) for name in visited}
    return {name for name in names if any(name == other or name.startswith(f"{other}.") for other in GAN_MODULES)}


@pytest.mark.parametrize("module", CORE)
def test_the_engine_and_runs_import_no_gan_modules(edges, module):
    assert not gan_imports(edges, module)


def test_indirect_imports_are_found(edges):
    assert {"models.registry", "training.config"} <= gan_imports(edges, "recipes.gan")
    assert gan_imports(edges | {("stylegan_cli", "files"): {("stylegan_cli", "training", "presets")}}, "state_files")
