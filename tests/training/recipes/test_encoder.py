"""Runs that fit an encoder: what they learn from, resumed to the bit, guarded, on ranks, and refused in a sentence."""

import copy
import dataclasses
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

from stylegan_cli.detectors.distances import PixelLoss
from stylegan_cli.errors import MisuseError, SganError
from stylegan_cli.models.encoders.passes import encode
from stylegan_cli.models.progan.config import ProGANConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.runs import latest_snapshot, snapshots
from stylegan_cli.runs.records import read_stats
from stylegan_cli.sampling.encoders import ENCODER_FILE, load_encoder
from stylegan_cli.snapshot import SnapshotInfo, load_snapshot, save_snapshot
from stylegan_cli.training.engine import Engine
from stylegan_cli.training.recipes.encoder import EncoderRecipe
from stylegan_cli.training.recipes.encoder_run import (
    describe_fit,
    fit_encoder,
    open_data_of,
    plan_new_encoder,
    plan_resumed_encoder,
)
from stylegan_cli.training.recipes.fitting import Rate
from stylegan_cli.training.recipes.fitting_run import describe_next
from stylegan_cli.training.run import RunOptions
from stylegan_cli.training.state import gather
from stylegan_cli.training.state_files import list_states, read_state

QUIET = RunOptions(quiet=True)
SHORT = {"kimg": 0.064, "snap": 0.032, "batch": 8, "held_out": 4}  # 8 steps, 3 states
EVERYTHING = {"passes": 2, "editable": True, "batch_gpu": 4}  # with state of its own
EVERYTHING |= {"task": "restore", "skips": True, "adversarial_weight": 0.1, "r1_interval": 4}


@pytest.fixture(scope="module")
def model(class_run):
    """A conditional model of 16 x 16 RGB images."""
    return load_snapshot(latest_snapshot(class_run))


@pytest.fixture
def fit(model, tmp_path):
    """Fit an encoder: fit(name='run', kimg=..., ...) -> its folder and settings."""

    def fit(name="run", snapshot=model, data=None, **options):
        plan = plan_new_encoder(snapshot, data, **SHORT | options)
        (tmp_path / name).mkdir(parents=True)
        fit_encoder(plan.config, tmp_path / name, "cpu", QUIET, plan.dataset)
        return tmp_path / name, plan.config

    return fit


@pytest.fixture
def make_engine(model):
    """Engines that are closed after the test: make_engine(passes=..., ...) -> Engine."""
    engines = []

    def make(snapshot=model, **options):
        plan = plan_new_encoder(snapshot, None, **SHORT | options)
        fresh = load_snapshot(snapshot.path)
        loss = PixelLoss()
        engines.append(Engine(EncoderRecipe(plan.config, plan.dataset, fresh.G, fresh.D, loss)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def resume(folder, **options):
    plan = plan_resumed_encoder(folder, **options)
    fit_encoder(plan.config, folder, "cpu", QUIET, plan.dataset)


def log(folder):
    return (folder / "log.txt").read_text()


kills = runpy.run_path(str(Path(__file__).parents[1] / "_kills.py"))
final_state, same = kills["final_state"], kills["same"]


# ------------------------------------------------------------------------------------------------ files


def test_files_of_a_run(fit, model, class_run):
    folder, config = fit()
    names = {p.name for p in folder.iterdir()}
    assert {"config.json", "log.txt", "stats.jsonl", "reconstructions-000000.png"} <= names
    assert {f"reconstructions-000000.{k}.png" for k in ("032", "064")} <= names
    assert [p.name for p in snapshots(folder)] == [f"snapshot-000000.{k}.safetensors" for k in ("032", "064")]
    settings = json.loads((folder / "config.json").read_text())
    assert (settings["recipe"], settings["task"], settings["fingerprint"]) == ("encoder", "invert", model.fingerprint)
    info = ENCODER_FILE.read_info(latest_snapshot(folder))
    assert (info.kimg, info.model, info.task, info.data) == (0.064, model.fingerprint, "invert", config.data)
    assert info.held_out.keys() == {"images", "psnr", "discriminator", "spread", "offset"}
    assert info.held_out["images"] == 4 and 3 < info.held_out["psnr"] < 60
    assert info.owner["run"] == model.info.run and info.owner["model"] == str(model.path)
    encoder = load_encoder(latest_snapshot(folder), model.G, model.fingerprint)
    assert all(p.isfinite().all() for p in encoder.network.parameters())
    last = read_stats(folder)[-1]
    assert any("loss/latent" in line for line in read_stats(folder))  # not every step
    assert {"loss/pixel", "loss/discriminator", "loss/spread", "held_out/psnr", "lr"} <= last.keys()
    assert last["held_out/psnr"] == pytest.approx(info.held_out["psnr"])
    assert "held-out images: PSNR" in log(folder)
    assert f"sgan encode IMAGE --encoder {folder} --model {model.path}\n" in describe_next(config, folder)
    assert f"sgan encoder fit --resume {folder} --kimg 0.128" in describe_next(config, folder)
    grid = Image.open(folder / "reconstructions-000000.png")
    assert grid.size == (8 * 64, 64) and grid.mode == "RGB"  # four pairs, enlarged


def test_held_out_images_are_not_trained_on(make_engine):
    engine = make_engine(held_out=8, latent_weight=0.0)
    recipe, seen = engine.recipe, set()
    for _ in range(12):  # four epochs
        indices, _ = recipe.loader.sampler.next(8)
        seen |= set(indices.tolist())
    assert len(seen) == 24 and not seen & set(recipe.held_out.tolist())
    images = torch.cat([x for x, *_ in recipe.reconstructions()])
    expected = recipe.dataset.images(recipe.held_out).float() / 127.5 - 1
    assert torch.equal(images, expected)
    assert set(make_engine(held_out=8, seed=1).recipe.held_out.tolist()) != set(recipe.held_out.tolist())


def test_without_held_out_images(fit):
    """It is measured on images that it was trained on; their number is recorded."""
    folder, _ = fit(held_out=0)
    assert ENCODER_FILE.read_info(latest_snapshot(folder)).held_out["images"] == 0
    assert (folder / "reconstructions-000000.064.png").is_file()


def test_weights_start_from_the_discriminator(make_engine, model):
    engine = make_engine()
    own, given = engine.recipe.E.state_dict(), model.D.state_dict()
    assert torch.equal(own["fromrgb.weight"], given["b16.fromrgb.weight"])
    assert torch.equal(own["b8.conv0.weight"], given["b8.conv0.weight"])
    before = {name: t.clone() for name, t in model.D.state_dict().items()}
    engine.step()
    assert all(torch.equal(before[name], t) for name, t in model.D.state_dict().items())


def test_the_generator_does_not_change(make_engine):
    engine = make_engine(**EVERYTHING)
    before = {name: t.clone() for name, t in engine.recipe.G.state_dict().items()}
    for _ in range(3):
        engine.step()
    assert all(torch.equal(before[name], t) for name, t in engine.recipe.G.state_dict().items())
    assert all(p.grad is None for p in engine.recipe.G.parameters())


def test_it_learns(make_engine):
    """The latents of generated images, in a run that is long enough for a fall of the error."""
    engine = make_engine(kimg=1.0, lr=0.01, seed=2, latent_interval=1, latent_weight=0.3)
    for _ in range(10):
        engine.step()
    first = engine.means.take()
    for _ in range(90):
        engine.step()
    engine.means.take()
    for _ in range(20):
        engine.step()
    last = engine.means.take()
    assert last["loss/latent"] < 0.9 * first["loss/latent"] and last["loss/pixel"] < first["loss/pixel"]


@pytest.mark.parametrize("family", ["rgba", "stylegan3"])
def test_other_families_and_shapes(fit, tiny_run, moving_generator, rgb_set, tmp_path, family):
    """A rectangle of four channels, and a family without a discriminator of its own here."""
    if family == "rgba":
        folder, config = fit(snapshot=load_snapshot(latest_snapshot(tiny_run)), loss="pixel", mirror=None)
        assert (config.data.height, config.data.width, config.data.channels) == (24, 48, 4)
    else:
        G = moving_generator(16, 64, 8)
        save_snapshot(tmp_path / "g.safetensors", G, None, SnapshotInfo(G.config))
        snapshot = load_snapshot(tmp_path / "g.safetensors")
        folder, config = fit(snapshot=snapshot, data=str(rgb_set), space="w")
        assert config.loss == "pixel" and isinstance(snapshot.info.generator, StyleGAN3Config)
    assert ENCODER_FILE.read_info(latest_snapshot(folder)).encoder == config.encoder


def test_a_task(fit, make_engine):
    """The encoder sees the image with a hole, and the hole."""
    folder, config = fit(task="inpaint", loss="pixel")
    assert config.encoder.inputs == 4 and config.task == "inpaint"
    assert Image.open(folder / "reconstructions-000000.png").size == (9 * 64, 2 * 64)  # three images each
    engine = make_engine(task="inpaint")
    assert [phase.name for phase in engine.recipe.phases] == ["E", "E latents"]
    batch = engine.recipe.next_batch()
    assert engine.recipe.task(batch.images, 0, batch.index).shape == (8, 4, 16, 16)


def test_what_is_judged(make_engine):
    """In super-resolution also the reduced image; from a sketch, outlines more than colors."""
    for task, fidelity in (("superres", 1.0), ("sketch", 0.1), ("inpaint", 1.0)):
        engine = make_engine(task=task, loss="pixel", loss_weight=0.0, spread_weight=0.0)
        recipe, batch = engine.recipe, engine.recipe.next_batch()
        with torch.no_grad():
            loss = recipe._reconstruct(batch)
            inputs = recipe.task(batch.images, recipe.config.seed, batch.index)
            images = recipe.G.synthesis(encode(recipe.E, recipe.G, inputs))
            expected = fidelity * (images - batch.images).square().mean((1, 2, 3))
            if task != "inpaint":
                seen = recipe.task.judged(images) - recipe.task.judged(batch.images)
                expected = expected + 2 * seen.square().mean((1, 2, 3))
        assert torch.allclose(loss, expected.sum(), rtol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_tensor_cores(model, tmp_path, monkeypatch, precision):
    """They are used as the settings of the run say, not as those of the process do."""
    flags, module = [], "stylegan_cli.training.recipes.encoder_run.run_training"
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", precision == "fp32")
    before = torch.backends.cuda.matmul.allow_tf32
    monkeypatch.setattr(
        module, lambda *_: flags.extend([torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32])
    )
    plan = plan_new_encoder(model, None, precision=precision, **SHORT)
    fit_encoder(plan.config, tmp_path, "cpu", QUIET, plan.dataset)
    assert flags == [precision == "tf32"] * 2
    assert torch.backends.cuda.matmul.allow_tf32 == before and torch.backends.cudnn.allow_tf32 == (precision == "fp32")


def test_faces_are_compared(make_engine):
    engine = make_engine(loss="pixel", loss_weight=0.0, spread_weight=0.0, pixel_weight=0.0)
    recipe, batch = engine.recipe, engine.recipe.next_batch()
    with torch.no_grad():
        assert recipe._reconstruct(batch) == 0
        recipe.identity = loss = PixelLoss()
        images = recipe.G.synthesis(encode(recipe.E, recipe.G, batch.images))
        expected = 0.1 * loss.distance(loss.features(images), loss.features(batch.images)).sum()
        assert torch.allclose(recipe._reconstruct(batch), expected, rtol=1e-4)


def test_a_run_with_a_network_of_faces(fit, face_api, make_set, tmp_path):
    """Recorded, measured, and resumed to the bit; also in the folder of the file that was named."""
    torch.manual_seed(0)
    config = StyleGAN2Config(64, 64, z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=4)
    save_snapshot(tmp_path / "g.safetensors", build_generator(config), None, SnapshotInfo(config))
    file = os.path.relpath(face_api / "face_recognition_model.bin")
    options = {"kimg": 0.004, "snap": 0.002, "batch": 2, "held_out": 1, "identity": file}
    options |= {"channel_base": 256, "channel_max": 8, "pyramid_channels": 8}
    data = make_set(tmp_path / "faces.zip", (64, 64, 3), 8)
    folder, config = fit(snapshot=load_snapshot(tmp_path / "g.safetensors"), data=str(data), **options)
    assert config.identity == os.path.abspath(file) and "loss pixel + identity" in describe_fit(config, folder)
    assert ENCODER_FILE.read_info(latest_snapshot(folder)).held_out["identity"] > 0
    assert read_stats(folder)[-1]["loss/identity"] > 0 and "identity" in log(folder)
    expected = final_state(folder)
    list_states(folder)[0].unlink()
    resume(folder)
    assert same(final_state(folder), expected)


def test_faces_that_are_too_small(model, tmp_path):
    assert "no identity below 64 pixels: the model's are 16x16" in refused(model, None, MisuseError, identity="face")


# ------------------------------------------------------------------------------------------- learning rate


def test_the_rate_rises_and_falls(make_engine):
    engine = make_engine(kimg=4.0, lr=0.01, batch=8)
    rate, (group,) = engine.recipe.rate, engine.recipe.phases[0].optimizer.param_groups
    values = []
    for _ in range(500):
        rate.step(8)
        values.append(group["lr"])
    top = values.index(max(values))
    assert 100 < top < 150 and values == [*sorted(values[:top]), *sorted(values[top:], reverse=True)]
    assert values[0] < 1e-4 and values[250] == pytest.approx(0.005, rel=0.02) and values[-1] == 0
    assert isinstance(rate, Rate)


@pytest.fixture
def poison(monkeypatch):
    """Make images nan from a step on, while fewer rollbacks than a limit have been made: poison(step, rollbacks)."""
    engines = []
    step = Engine.step
    monkeypatch.setattr(Engine, "step", lambda self: engines.append(self) or step(self))

    def make(start, rollbacks):
        next_batch = EncoderRecipe.next_batch

        def poisoned(self):
            batch = next_batch(self)
            if engines and engines[-1].clock.step >= start and engines[-1].guard.rollbacks < rollbacks:
                batch.images.fill_(float("nan"))
            return batch

        monkeypatch.setattr(EncoderRecipe, "next_batch", poisoned)

    return make


def test_bad_steps_roll_back_with_half_the_learning_rate(fit, poison):
    expected = read_stats(fit("plain", kimg=0.2, snap=0.04)[0])
    poison(10, rollbacks=2)
    folder, _ = fit(kimg=0.2, snap=0.04)
    assert "Continuing from kimg 0.08 with the learning rate divided by 2 (1 of 3)" in log(folder)
    assert "with the learning rate divided by 4 (2 of 3)" in log(folder)
    state, _ = read_state(list_states(folder)[0])
    assert state["guard"]["rollbacks"] == 2 and state["clock"]["shown"] == 200
    lines = {line["kimg"]: line["lr"] for line in read_stats(folder) if "lr" in line}
    plain = {line["kimg"]: line["lr"] for line in expected if "lr" in line}
    assert lines[0.12] == pytest.approx(plain[0.12] / 4, rel=0.03)
    assert lines[0.16] == pytest.approx(plain[0.16] / 4, rel=0.03)  # the log rounds
    assert lines[0.04] == plain[0.04] > 0


def test_halved_rates_survive_a_resume(fit, poison):
    poison(10, rollbacks=1)
    folder, _ = fit(kimg=0.2, snap=0.04)
    expected = final_state(folder)
    list_states(folder)[0].unlink()
    resume(folder)
    assert same(final_state(folder), expected) and expected[".guard.rollbacks"] == 1


def test_divergence_is_explained(fit, poison, tmp_path):
    poison(2, rollbacks=99)
    with pytest.raises(SganError, match="diverged at kimg .* reduced to 1/8") as e:
        fit(kimg=1, snap=0.024)
    assert "--lr" in e.value.hint and "sgan train" not in e.value.hint
    assert "diverged" in (tmp_path / "run" / "failure.txt").read_text()


# ------------------------------------------------------------------------------------- killed and resumed


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["default", "everything"])
def test_resumed_from_any_state_it_ends_the_same(fit, options):
    folder, _ = fit(**options)
    expected, encoder = final_state(folder), load_file(latest_snapshot(folder))
    lines = read_stats(folder)
    for _ in range(2):
        list_states(folder)[0].unlink()
        latest_snapshot(folder).unlink()
        resume(folder)
        assert same(final_state(folder), expected) and same(load_file(latest_snapshot(folder)), encoder)
    without = {"seconds", "sec_per_kimg"}
    assert [{k: v for k, v in a.items() if k not in without} for a in read_stats(folder)] == [
        {k: v for k, v in a.items() if k not in without} for a in lines
    ]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_killed_while_training(fit, model, tmp_path):
    """A process dies in the middle of a step, and another one continues."""
    options = {"kimg": 0.12, "snap": 0.04, **EVERYTHING}
    expected = final_state(fit("uninterrupted", **options)[0])
    plan = plan_new_encoder(model, None, **SHORT | options)
    (tmp_path / "killed").mkdir()
    code = (
        "import os, signal, sys; from stylegan_cli.training.ema import EMA; import torch; torch.set_num_threads(1)\n"
        "from stylegan_cli.config import from_json; import json; from pathlib import Path\n"
        "from stylegan_cli.training.encoder_config import EncoderRunConfig\n"
        "from stylegan_cli.training.recipes.encoder_run import fit_encoder; from stylegan_cli.training.run import *\n"
        "update = EMA.update\n"
        "def dying(self, network, shown, batch):\n"
        "    if shown == 8 * batch: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    update(self, network, shown, batch)\n"
        "EMA.update = dying\n"
        "config = from_json(EncoderRunConfig, json.loads(sys.argv[1]))\n"
        "fit_encoder(config, Path(sys.argv[2]), 'cpu', RunOptions(quiet=True))\n"
    )
    from stylegan_cli.config import to_json

    arguments = [json.dumps(to_json(plan.config)), str(tmp_path / "killed")]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert result.returncode == -signal.SIGKILL, result.stderr
    resume(tmp_path / "killed")
    assert same(final_state(tmp_path / "killed"), expected)


def test_a_longer_run(fit):
    """Resumed with another length, the rate falls until the new end."""
    folder, _ = fit()
    with pytest.raises(SganError, match="complete at 0.064 kimg"):
        plan_resumed_encoder(folder)
    resume(folder, kimg=0.128)
    assert [p.name for p in snapshots(folder)][-1] == "snapshot-000000.128.safetensors"
    rates = {line["kimg"]: line["lr"] for line in read_stats(folder) if "lr" in line}
    assert rates[0.064] == rates[0.128] == 0 and rates[0.096] > 0.1 * max(rates.values())


def test_another_batch_gpu(fit):
    """The same run, except for rounding."""
    folder, _ = fit("whole")
    expected = read_state(list_states(folder)[0])[0]["E_ema"]
    parts, _ = fit("parts", batch_gpu=2)
    actual = read_state(list_states(parts)[0])[0]["E_ema"]
    assert all(torch.allclose(actual[name], expected[name], atol=1e-4) for name in expected)
    list_states(parts)[0].unlink()
    resume(parts, batch_gpu=8)
    assert json.loads((parts / "config.json").read_text())["batch_gpu"] == 8


def test_refused_resumes(fit, class_run, model, tmp_path):
    with pytest.raises(SganError, match="not a run folder"):
        plan_resumed_encoder(tmp_path)
    with pytest.raises(SganError, match="recipe 'gan'"):
        plan_resumed_encoder(class_run)
    folder, _ = fit()
    with pytest.raises(SganError, match="not a multiple"):
        plan_resumed_encoder(folder, kimg=1.0, gpus=3)
    config = json.loads((folder / "config.json").read_text())
    for content in ("{", "[" * 100_000, json.dumps(config | {"kimg": "x"}), json.dumps(config | {"lr": 0.5})):
        (folder / "config.json").write_text(content)
        with pytest.raises(SganError):
            plan_resumed_encoder(folder, kimg=1.0)
    (folder / "config.json").write_text(json.dumps(config))
    other = tmp_path / "model.safetensors"
    changed = copy.deepcopy(model.G)
    changed.mapping.w_avg.add_(1)
    save_snapshot(other, changed, model.D, model.info)
    (folder / "config.json").write_text(json.dumps(config | {"model": str(other)}))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    for path, words in ((other, "has changed since"), (tmp_path / "gone.safetensors", "does not exist")):
        (folder / "config.json").write_text(json.dumps(config | {"model": str(path)}))
        with pytest.raises(SganError, match=words):
            resume(folder, kimg=1.0)
    (folder / "config.json").write_bytes(before["config.json"])
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    for path in list_states(folder):
        path.unlink()
    with pytest.raises(SganError, match="no training state"):
        plan_resumed_encoder(folder)


def test_images_that_have_changed(model, make_set, tmp_path, fit):
    data = make_set(tmp_path / "a.zip")
    folder, _ = fit(data=str(data))
    make_set(data, num=16)
    with pytest.raises(SganError, match="have changed since this run"):
        plan_resumed_encoder(folder, kimg=1.0)


# ------------------------------------------------------------------------------------------------ ranks


@pytest.fixture(scope="module")
def ranks(class_run, tmp_path_factory):
    """Results of the same run on one rank, in this process, and on two ranks, in other processes."""
    script = str(Path(__file__).with_name("_encoder_ranks.py"))
    folder, file = tmp_path_factory.mktemp("ranks"), str(latest_snapshot(class_run))
    command = [sys.executable, script, file, str(folder / "2.pt"), "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    work = runpy.run_path(script)["work"]
    work(file, str(folder / "1.pt"), 1)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    one, two = (torch.load(folder / f"{k}.pt", weights_only=True) for k in (1, 2))
    assert (one["world"], two["world"]) == (1, 2)
    return one, two


def test_two_ranks_equal_one(ranks):
    flat = runpy.run_path(str(Path(__file__).parents[1] / "test_ranks.py"))["flat"]
    one, two = (flat(r["state"]) for r in ranks)
    assert one.keys() == two.keys()
    assert all(any(f".{name}" in k for k in one) for name in ("critic", "skips", "skips_ema", "D", "optimizer.D"))
    worst = {k: (one[k] - two[k]).abs().max().item() for k in one if one[k].numel()}
    assert max(worst.values()) < 1e-8, max(worst, key=worst.get)


def test_statistics_cover_all_ranks(ranks):
    one, two = (r["means"] for r in ranks)
    assert one.keys() == two.keys() >= {"loss/pixel", "loss/latent", "loss/critic", "loss/spread", "loss/G", "loss/D"}
    assert all(two[k] == pytest.approx(one[k], rel=1e-7) for k in one)


def test_all_ranks_have_the_same_weights(ranks):
    assert ranks[1]["same on all ranks"]


# ------------------------------------------------------------------------------------------------ critic


def test_the_critic_is_trained_and_obeyed(make_engine):
    plain, engine = make_engine(), make_engine(editable=True)
    assert [phase.name for phase in engine.recipe.phases] == ["E", "E latents", "critic"]
    assert (
        engine.recipe.phases[2].optimizer.param_groups[0]["lr"]
        < engine.recipe.phases[0].optimizer.param_groups[0]["lr"]
    )
    critic = [p.clone() for p in engine.recipe.critic.parameters()]
    for _ in range(2):
        plain.step()
        engine.step()
    assert not any(torch.equal(a, b) for a, b in zip(critic, engine.recipe.critic.parameters()))
    assert engine.means.take()["loss/critic"] > 0 and "loss/critic" not in plain.means.take()
    assert any(not torch.equal(a, b) for a, b in zip(plain.recipe.E.parameters(), engine.recipe.E.parameters()))
    assert {"critic", "optimizer.critic"} <= gather(engine.stateful).keys()


def test_the_critic_separates(make_engine):
    """Its loss falls while the encoder does not move."""
    engine = make_engine(editable=True, kimg=100.0, lr=0.05)
    recipe = engine.recipe
    recipe.rate.shown = 1000
    recipe.phases = [phase for phase in recipe.phases if phase.name == "critic"]
    recipe.phases[0].optimizer.param_groups[0]["lr"] = 0.01
    losses = []
    for _ in range(40):
        batch = recipe.next_batch()
        engine._update(recipe.phases[0], batch)
        losses.append(engine.means.take()["loss/critic"])
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


# ------------------------------------------------------------------------------------------------- skips


def test_what_skips_train(make_engine, model):
    """The encoder, the convolutions, and copies of the generator and the discriminator."""
    engine = make_engine(task="restore", skips=True, adversarial_weight=0.1, r1_interval=2)
    plain = make_engine(task="restore")
    recipe = engine.recipe
    assert [phase.name for phase in recipe.phases] == ["E", "E latents", "D", "D R1"]
    rates = [group["lr"] for group in recipe.phases[0].optimizer.param_groups]
    assert rates[0] == rates[1] > 2 * rates[2] > 0 and len(rates) == 3
    networks = {
        "E": recipe.E,
        "convs": recipe.skips.convs,
        "synthesis": recipe.skips.synthesis,
        "D": recipe.adversary.D,
    }
    before = {name: [p.clone() for p in network.parameters()] for name, network in networks.items()}
    own = [t.clone() for part in (recipe.G, model.D) for t in part.state_dict().values()]
    for _ in range(3):
        engine.step()
        plain.step()
    for name, network in networks.items():
        same_weights = [torch.equal(a, b) for a, b in zip(before[name], network.parameters(), strict=True)]
        assert not any(same_weights) if name == "convs" else sum(same_weights) < len(same_weights) / 2, name
    now = [t for part in (recipe.G, model.D) for t in part.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(own, now, strict=True))
    values = engine.means.take()
    assert {"loss/absolute", "loss/G", "loss/D", "r1/penalty"} <= values.keys()
    assert not {"loss/absolute", "loss/G", "loss/D"} & plain.means.take().keys()


def test_skips_do_not_learn_to_copy(make_engine):
    """With a hole, only what is in it counts."""
    recipe = make_engine(task="inpaint", skips=True).recipe
    batch = recipe.next_batch()
    given = recipe.task(batch.images, recipe.config.seed, batch.index)[:, -1:].expand_as(batch.images) > 0
    with torch.no_grad():
        ((ws, images, _),) = recipe._reconstructions(batch)
        assert given.any() and not given.all() and torch.equal(images[given], batch.images[given])
        assert torch.allclose(images[~given], recipe.G.synthesis(ws)[~given], atol=1e-5)
        for targets, _, _, found in recipe.reconstructions():
            assert (targets == found).any((1, 2, 3)).all()


def test_a_file_with_skips(fit, model):
    """It has only what differs from the model; held-out figures are those of the fine-tuned network."""
    folder, config = fit(task="inpaint", skips=True)
    encoder = load_encoder(latest_snapshot(folder), model.G, model.fingerprint)
    names = load_file(latest_snapshot(folder)).keys()
    assert encoder.info.skips and encoder.skips is not None and ", skips" in describe_fit(config, folder)
    assert any(name.startswith("skips.convs.") for name in names)
    assert "skips.synthesis.b16.conv1.weight" in names and "skips.synthesis.b16.conv1.noise_const" not in names
    state, _ = read_state(list_states(folder)[0])
    assert same(encoder.skips.state_dict(), dict(state["skips_ema"]))
    engine = Engine(EncoderRecipe(config, open_data_of(config), model.G, model.D, PixelLoss()))
    engine.restore({k: v for k, v in state.items() if k != "record"})
    errors = [(a - b.clamp(-1, 1)).square().mean((1, 2, 3)) for a, _, _, b in engine.recipe.reconstructions()]
    psnr = 10 * torch.log10(4 / torch.cat(errors)).mean().item()
    engine.close()
    assert encoder.info.held_out["psnr"] == pytest.approx(psnr, abs=0.05)


def test_skips_without_a_discriminator(fit, model, tmp_path):
    save_snapshot(tmp_path / "g.safetensors", model.G, None, dataclasses.replace(model.info, discriminator=None))
    without = load_snapshot(tmp_path / "g.safetensors")
    assert "has no discriminator" in refused(without, None, MisuseError, task="restore", adversarial_weight=0.1)
    folder, _ = fit(snapshot=without, task="restore", skips=True, kimg=0.016)
    assert "loss/absolute" in read_stats(folder)[-2] and "loss/D" not in read_stats(folder)[-2]


def test_skips_need_a_task(model):
    assert "--skips" in refused(model, None, MisuseError, skips=True)


# ------------------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize(("batch", "sizes"), [(8, [4, 2, 1]), (24, [12, 6, 3, 1]), (6, [3, 1])])
def test_less_memory(make_engine, batch, sizes):
    recipe = make_engine(batch=batch).recipe
    for size in sizes:
        recipe.halve_batch_gpu()
        assert recipe.batch_gpu == size
    with pytest.raises(SganError, match="one image at a time"):
        recipe.halve_batch_gpu()


# ---------------------------------------------------------------------------------------------- bad input


def refused(model, data=None, kind=SganError, **options):
    with pytest.raises(kind) as e:
        plan_new_encoder(model, data, **SHORT | options)
    assert "\n" not in str(e.value) and e.value.hint
    return f"{e.value} {e.value.hint}"


def test_other_images(model, make_set, tmp_path):
    small, gray = make_set(tmp_path / "small.zip", (8, 8, 3)), make_set(tmp_path / "gray.zip", (16, 16))
    alpha, wide = make_set(tmp_path / "alpha.zip", (16, 16, 4)), make_set(tmp_path / "wide.zip", (16, 32, 3))
    assert "8x8" in refused(model, str(small)) and "16x32" in refused(model, str(wide))
    assert "1 channel" in refused(model, str(gray)) and "4 channels" in refused(model, str(alpha))
    larger = make_set(tmp_path / "large.zip", (32, 32, 3))
    assert plan_new_encoder(model, str(larger), **SHORT).config.data.height == 16  # reduced, as in training
    few = make_set(tmp_path / "few.zip", num=3)
    assert "--held-out 4 leaves no image" in refused(model, str(few), MisuseError)
    assert plan_new_encoder(model, str(few)).config.held_out == 0
    assert "does not exist" in refused(model, str(tmp_path / "none.zip"))


def test_other_models(model, tmp_path):
    torch.manual_seed(0)
    config = ProGANConfig(16, 16, z_dim=8, channel_base=64, channel_max=8)
    save_snapshot(tmp_path / "p.safetensors", build_generator(config), None, SnapshotInfo(config, data=model.info.data))
    with pytest.raises(SganError, match="has no styles for an encoder") as caught:
        plan_new_encoder(load_snapshot(tmp_path / "p.safetensors"))
    assert "sgan train --recipe bigan" in caught.value.hint
    info = dataclasses.replace(model.info, discriminator=None)
    save_snapshot(tmp_path / "g.safetensors", model.G, None, info)
    without = load_snapshot(tmp_path / "g.safetensors")
    assert plan_new_encoder(without, **SHORT).config.loss == "pixel"
    assert "has no discriminator" in refused(without, loss="discriminator")
    save_snapshot(tmp_path / "n.safetensors", model.G, None, dataclasses.replace(info, data=None))
    assert "--data" in refused(load_snapshot(tmp_path / "n.safetensors"))


def test_a_discriminator_of_another_family(model, tmp_path):
    """Its features are a distance all the same."""
    D = build_discriminator(dataclasses.replace(model.info.discriminator, architecture="orig"))
    info = dataclasses.replace(model.info, discriminator=D.config)
    save_snapshot(tmp_path / "g.safetensors", model.G, D, info)
    plan = plan_new_encoder(load_snapshot(tmp_path / "g.safetensors"), **SHORT)
    assert plan.config.loss == "discriminator"
    (tmp_path / "run").mkdir()
    fit_encoder(plan.config, tmp_path / "run", "cpu", QUIET, plan.dataset)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"batch": 5, "batch_gpu": 2}, "not a multiple"), ({"gpus": 3}, "not a multiple"), ({"lr": -1.0}, "--lr")],
    ids=str,
)
def test_impossible_options(model, options, words):
    assert words in refused(model, None, MisuseError, **options)
