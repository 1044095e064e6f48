"""Fitting pix2pix: its losses against plain ones, what it learns, runs that are killed, ranks."""

import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from stylegan_cli.config import to_json
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import MisuseError, SganError
from stylegan_cli.runs import latest_snapshot, snapshots, summarize_run
from stylegan_cli.runs.commands import train_command, use_command
from stylegan_cli.runs.records import read_config, read_stats
from stylegan_cli.sampling.translators import dropout, load_translator
from stylegan_cli.training.engine import Engine
from stylegan_cli.training.recipes.pix2pix import Pix2PixRecipe
from stylegan_cli.training.recipes.pix2pix_run import fit_pix2pix, plan_new_pix2pix, plan_resumed_pix2pix
from stylegan_cli.training.run import RunOptions
from stylegan_cli.training.state_files import list_states

QUIET = RunOptions(quiet=True)
SHORT = {"kimg": 0.064, "snap": 0.032, "batch": 8, "held_out": 4}  # 8 steps, 3 states

kills = runpy.run_path(str(Path(__file__).parents[1] / "_kills.py"))
final_state, same = kills["final_state"], kills["same"]


@pytest.fixture(scope="module")
def pair(make_set, tmp_path_factory):
    """Images of 16 x 16, and gray ones of 32 x 32 of the same names."""
    folder = tmp_path_factory.mktemp("pair")
    return make_set(folder / "images.zip"), make_set(folder / "source.zip", (32, 32))


@pytest.fixture
def fit(pair, tmp_path):
    """Fit a translator: fit(name='run', kimg=..., ...) -> its folder."""

    def fit(name="run", **options):
        plan = plan_new_pix2pix(*pair, **SHORT | options)
        (tmp_path / name).mkdir(parents=True)
        fit_pix2pix(plan.config, tmp_path / name, "cpu", QUIET, plan.dataset)
        return tmp_path / name

    return fit


@pytest.fixture
def engine(pair):
    plan = plan_new_pix2pix(*pair, **SHORT)
    engine = Engine(Pix2PixRecipe(plan.config, plan.dataset))
    yield engine
    engine.close()


def resume(folder, **options):
    plan = plan_resumed_pix2pix(folder, **options)
    fit_pix2pix(plan.config, folder, "cpu", QUIET, plan.dataset)


def test_the_losses(engine):
    """Equations 1 to 4 of Isola et al. 2017, with the same dropout in both phases."""
    recipe = engine.recipe
    batch = recipe.next_batch()
    images, source = batch.images[:, :3], batch.images[:, 3:]
    assert source.shape == (8, 1, 16, 16)
    fakes = recipe.G(source, dropout(recipe.G, recipe.config.seed, batch.index))
    real, fake = torch.sigmoid(recipe.D(source, images)), torch.sigmoid(recipe.D(source, fakes))
    D, G = (phase.loss(batch) for phase in recipe.phases)
    assert D.item() == pytest.approx(-(real.log() + (1 - fake).log()).mean().item() * 8 / 2, rel=1e-4)
    absolute = F.l1_loss(fakes, images)
    assert G.item() == pytest.approx((-fake.log().mean() + 100 * absolute).item() * 8, rel=1e-4)
    means = recipe.means.take()
    assert means["loss/absolute"] == pytest.approx(absolute.item(), rel=1e-5)
    assert not torch.equal(fakes, recipe.G(source)), "there is dropout"


def test_each_phase_trains_its_network(engine):
    before = {name: [p.clone() for p in n.parameters()] for name, n in engine.recipe.networks.items()}
    D, G = engine.recipe.phases
    batch = engine.recipe.next_batch()
    engine._run(D, batch)
    changed = {
        name: [not torch.equal(a, b) for a, b in zip(before[name], n.parameters(), strict=True)]
        for name, n in engine.recipe.networks.items()
    }
    assert all(changed["D"]) and not any(changed["G"])
    engine._run(G, batch)
    assert all(not torch.equal(a, b) for a, b in zip(before["G"], engine.recipe.G.parameters(), strict=True))


def test_it_learns_the_pairs(make_set, tmp_path):
    """Here, to invert colors. The noise of the images alone, which only the source knows, is 0.125."""
    images = make_set(tmp_path / "images.zip")
    (tmp_path / "source").mkdir()
    dataset = open_dataset(images)
    for i, name in enumerate(dataset.names):
        pixels = 255 - dataset.images([i])[0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / "source" / Path(name).name)
    plan = plan_new_pix2pix(images, tmp_path / "source", batch=8, kimg=100, lr=2e-3)
    engine = Engine(Pix2PixRecipe(plan.config, plan.dataset))
    losses = []
    for _ in range(100):
        engine.step()
        losses.append(engine.means.take()["loss/absolute"])
    engine.close()
    assert losses[0] > 0.2 and losses[-1] < 0.12


def test_the_rate_falls_in_the_second_half(engine):
    rates = []
    for _ in range(8):
        rates.append(engine.recipe.phases[1].optimizer.param_groups[0]["lr"] / 2e-4)
        engine.step()
    assert rates == pytest.approx([1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert engine.recipe.phases[0].optimizer.param_groups[0]["lr"] == 0


def test_defaults(pair, rgba_set):
    """The paper's batch of 1 at 256 pixels; more of smaller images, for 200 epochs at most."""
    plan = plan_new_pix2pix(*pair)
    config = plan.config
    assert (config.batch, config.kimg, config.generator.base) == (16, 6.4, 32)
    assert (config.lr, config.betas, config.absolute_weight) == (2e-4, (0.5, 0.999), 100)
    assert config.held_out == 3 and config.generator.inputs == 1
    assert plan_new_pix2pix(*pair, batch=24, gpus=3).config.batch_gpu == 8


def test_files_of_a_run(fit, pair):
    folder = fit()
    assert [p.name for p in snapshots(folder)] == [f"snapshot-000000.{k}.safetensors" for k in ("032", "064")]
    assert (folder / "reconstructions-000000.064.png").is_file()
    translator, lines = load_translator(latest_snapshot(folder)), read_stats(folder)
    assert translator.info.kimg == 0.064 and translator.info.data == open_dataset(pair[0]).spec
    assert translator.info.held_out["images"] == 4
    assert lines[-1]["held_out/psnr"] == pytest.approx(translator.info.held_out["psnr"], abs=1e-4)
    config = read_config(folder)
    assert (
        train_command(config) == "sgan translate fit" and use_command("x", config) == "sgan translate IMAGE --encoder x"
    )
    assert summarize_run(folder).metric == "psnr" and summarize_run(folder).state == "complete"


@pytest.mark.parametrize("options", [{}, {"batch_gpu": 4}])
def test_resumed_from_any_state_it_ends_the_same(fit, options):
    folder = fit(**options)
    expected, translator = final_state(folder), load_file(latest_snapshot(folder))
    for _ in range(2):
        list_states(folder)[0].unlink()
        latest_snapshot(folder).unlink()
        resume(folder)
        assert same(final_state(folder), expected) and same(load_file(latest_snapshot(folder)), translator)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_killed_while_training(fit, pair, tmp_path):
    """A process dies in the middle of a step, and another one continues."""
    expected = final_state(fit("uninterrupted"))
    (tmp_path / "killed").mkdir()
    code = (
        "import os, signal, sys, json; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from stylegan_cli.config import from_json; from stylegan_cli.training.pix2pix_config import *\n"
        "from stylegan_cli.training.recipes.pix2pix_run import *\n"
        "translate = Pix2PixRecipe._translate\n"
        "def dying(self, batch):\n"
        "    if self.rate.shown == 48: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return translate(self, batch)\n"
        "Pix2PixRecipe._translate = dying\n"
        "config = from_json(Pix2PixRunConfig, json.loads(sys.argv[1]))\n"
        "fit_pix2pix(config, Path(sys.argv[2]), 'cpu', RunOptions(quiet=True))\n"
    )
    arguments = [json.dumps(to_json(plan_new_pix2pix(*pair, **SHORT).config)), str(tmp_path / "killed")]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert result.returncode == -signal.SIGKILL, result.stderr
    resume(tmp_path / "killed")
    assert same(final_state(tmp_path / "killed"), expected)


def test_refused_resumes(fit, encoder_run):
    with pytest.raises(SganError, match="recipe 'encoder'"):
        plan_resumed_pix2pix(encoder_run)
    folder = fit()
    with pytest.raises(SganError, match=r"complete at 0\.064 kimg"):
        plan_resumed_pix2pix(folder)
    config = json.loads((folder / "config.json").read_text())
    for content, message in (("{", "Cannot read"), (json.dumps(config | {"lr": 0.5}), "lr: 0.0002 then, 0.5 now")):
        (folder / "config.json").write_text(content)
        with pytest.raises(SganError, match=message):
            plan_resumed_pix2pix(folder, kimg=1.0)


@pytest.mark.parametrize("changed", [0, 1])
def test_pairs_that_have_changed(pair, make_set, tmp_path, changed):
    copies = [tmp_path / path.name for path in pair]
    for path, copy in zip(pair, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    plan = plan_new_pix2pix(*copies, **SHORT)
    (tmp_path / "run").mkdir()
    fit_pix2pix(plan.config, tmp_path / "run", "cpu", QUIET, plan.dataset)
    make_set(copies[changed], (16, 16), num=32)
    with pytest.raises(SganError, match="have changed since this run"):
        plan_resumed_pix2pix(tmp_path / "run", kimg=1.0)


def test_plans_that_are_refused(pair, make_set, tmp_path):
    images, source = pair
    with pytest.raises(MisuseError, match="--batch 9 is not a multiple"):
        plan_new_pix2pix(images, source, batch=9, batch_gpu=2)
    with pytest.raises(MisuseError, match="--held-out 32 leaves no image"):
        plan_new_pix2pix(images, source, held_out=32)
    with pytest.raises(SganError, match="cannot be enlarged to 32x32"):
        plan_new_pix2pix(source, images)
    with pytest.raises(SganError, match="not the aspect ratio"):
        plan_new_pix2pix(images, make_set(tmp_path / "wide.zip", (16, 32)))
    odd = make_set(tmp_path / "odd.zip", (20, 20))
    with pytest.raises(SganError, match="cannot translate images of 20x20"):
        plan_new_pix2pix(odd, odd)


def test_two_ranks_equal_one(pair, tmp_path):
    script = str(Path(__file__).with_name("_pix2pix_ranks.py"))
    command = [sys.executable, script, *map(str, pair), str(tmp_path / "2.pt"), "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    runpy.run_path(script)["work"](*pair, str(tmp_path / "1.pt"), 1)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    one, two = (torch.load(tmp_path / f"{k}.pt", weights_only=True) for k in (1, 2))
    assert (one["world"], two["world"]) == (1, 2)
    flat = runpy.run_path(str(Path(__file__).parents[1] / "test_ranks.py"))["flat"]
    a, b = flat(one["state"]), flat(two["state"])
    assert a.keys() == b.keys()
    worst = {k: (a[k] - b[k]).abs().max().item() for k in a if a[k].numel()}
    assert max(worst.values()) < 1e-8, max(worst, key=worst.get)
    assert one["means"] == pytest.approx(two["means"], rel=1e-9)
