"""Chains of generators: what each stage learns from and when, resumed to the bit, one and two stages' losses."""

import dataclasses

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import MisuseError
from stylegan_cli.ops import downsample2d, fir_filter, upsample2d
from stylegan_cli.runs import latest_snapshot
from stylegan_cli.sampling import counter
from stylegan_cli.snapshot import load_snapshot
from stylegan_cli.training.engine import Engine
from stylegan_cli.training.guard import Guard
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes import chain, gan_plan, gan_resume
from stylegan_cli.training.recipes.gan import Gan, train
from stylegan_cli.training.run import RunOptions
from stylegan_cli.training.state_files import list_states, read_state

SIZES = {"batch": 8, "channel_base": 64, "channel_max": 8, "kimg": 0.048, "snap": 0.016, "lr": 0.002}
CFGS = ("demo-lapgan", "demo-stackgan")


@pytest.fixture
def config_of(rgb_set):
    def make(cfg, label=None, **options):
        z_dim = {"z_dim": 10} if "lapgan" in cfg else {}
        return make_train_config(cfg, open_dataset(rgb_set, label=label).spec, **SIZES | z_dim | options)

    return make


@pytest.fixture
def recipe_of(config_of, make_trainer):
    return lambda *arguments, **options: make_trainer(config_of(*arguments, **options), dtype=torch.float64).recipe


def moved(before, after):
    """Names of the tensors that differ."""
    return {name for name in before if not torch.equal(before[name], after[name])}


def parameters(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def stages_of(names):
    return {part for name in names for part in name.split(".") if part.startswith("stage")}


# ------------------------------------------------------------------------------------- LAPGAN


def test_stages_of_lapgan_learn_from_real_images_of_the_size_below(recipe_of):
    """-log D_k(l + h) for G_k and -log D_k(I_k) - log(1 - D_k(l + h)) for D_k, l = up(down(I_k)) (Denton et al. 2015,
    algorithm 1), with the labels of the images."""
    recipe = recipe_of("demo-lapgan", "hat")
    batch, f = recipe.next_batch(), fir_filter((1, 3, 3, 1))
    lowest, highest = recipe.objective.stages
    assert (lowest.suffix, highest.suffix) == (" 8x8", "")
    small = downsample2d(batch.images, f)
    z = counter.normal(0, "g.z", batch.index, (10,)).double()
    ws = recipe.G.mapping(z, batch.labels)
    own = highest.batch_of_stage(batch)
    torch.testing.assert_close(own.below, small)
    assert torch.equal(own.fake_labels, batch.labels) and not torch.equal(batch.fake_labels, batch.labels)
    image = recipe.G.synthesis.stage1(ws[:, 1], small)
    residual = image - upsample2d(small, f)
    assert residual.std() > 0.01
    expected = F.softplus(-recipe.D(image, batch.labels)).sum()
    assert highest.generator_main(own).item() == pytest.approx(expected.item(), rel=1e-9)
    z = counter.normal(0, "d.z", batch.index, (10,)).double()
    image = recipe.G.synthesis.stage1(recipe.G.mapping(z, batch.labels)[:, 1], small)
    expected = F.softplus(-recipe.D(batch.images, batch.labels)) + F.softplus(recipe.D(image, batch.labels))
    assert highest.discriminator_main(own).item() == pytest.approx(expected.sum().item(), rel=1e-9)
    own = lowest.batch_of_stage(batch)
    assert own.below is None and torch.equal(own.fake_labels, batch.fake_labels)
    torch.testing.assert_close(own.images, small)


def test_stages_of_lapgan_learn_at_once_and_alone(config_of, make_trainer):
    engine = make_trainer(config_of("demo-lapgan"))
    assert [phase.name for phase in engine.recipe.phases] == ["G 8x8", "D 8x8", "D R1 8x8", "G", "D", "D R1"]
    g, d = parameters(engine.recipe.G), parameters(engine.recipe.D)
    for phase in engine.recipe.phases[:3]:  # the other stage does not move
        engine._run(phase, engine.recipe.next_batch())
    assert stages_of(moved(g, parameters(engine.recipe.G))) == {"stage0"}
    assert stages_of(moved(d, parameters(engine.recipe.D))) == {"stage0"}
    engine.step()
    assert moved(g, parameters(engine.recipe.G)) == g.keys() and moved(d, parameters(engine.recipe.D)) == d.keys()
    means = engine.means.take()
    assert {"loss/G", "loss/D", "loss/G 8x8", "loss/D 8x8", "score/real 8x8", "r1/penalty", "r1/penalty 8x8"} <= set(
        means
    )


# ----------------------------------------------------------------------------------- StackGAN


def test_stages_of_stackgan_learn_in_turn(config_of, make_trainer):
    """The first half of the run trains the first stage, which is frozen afterwards."""
    engine = make_trainer(config_of("demo-stackgan", gamma=0.0))
    recipe = engine.recipe
    assert engine.recipe.config.stage_kimg == 0.024
    assert [(p.name, p.start, p.stop) for p in recipe.phases] == [
        ("G 8x8", 0, 24),
        ("D 8x8", 0, 24),
        ("G", 24, None),
        ("D", 24, None),
    ]
    for stage in ("stage0", "stage0", "stage0", "stage1", "stage1"):
        g, d = parameters(recipe.G), parameters(recipe.D)
        is_shown = engine.shown + 8 > 24
        engine.step()
        for before, network in ((g, recipe.G), (d, recipe.D)):
            assert stages_of(moved(before, parameters(network))) == {stage}
        assert float(recipe.ema.network.synthesis.alpha) == is_shown
    means = engine.means.take()
    assert means["loss/G"] > 0 and means["loss/G 8x8"] > 0


def test_losses_of_stackgan_with_labels(recipe_of):
    """Zhang et al. 2017, equations 2 to 4; the second stage enlarges what the first makes of the same latents."""
    recipe = recipe_of("demo-stackgan", "hat")
    batch, D, G = recipe.next_batch(), recipe.D, recipe.G
    objective = recipe.objective.stages[1]
    own = objective.batch_of_stage(batch)
    assert own.below is None and torch.equal(own.images, batch.images)

    def fakes(purpose):
        z = counter.normal(0, f"{purpose}.z", batch.index, (128,)).double()
        return G.synthesis.image(G.mapping(z, batch.fake_labels), 1)

    mean, log_variance = G.synthesis.stage1.posterior(batch.fake_labels)
    prior = (mean.square() + log_variance.exp() - 1 - log_variance).mean(1) / 2
    loss = F.softplus(-D(fakes("g"), batch.fake_labels))[:, 0]
    expected = (loss + chain.PRIOR * prior).sum()
    assert objective.generator_main(own).item() == pytest.approx(expected.item(), rel=1e-9)
    fake, real = D(fakes("d"), batch.fake_labels), D(batch.images, batch.labels)
    wrong = D(batch.images, batch.fake_labels)
    mismatched = (batch.labels != batch.fake_labels).any(1, keepdim=True)
    assert 0 < mismatched.sum() < 8
    negative = (F.softplus(fake) + F.softplus(torch.where(mismatched, wrong, fake))) / 2
    expected = (F.softplus(-real) + negative).sum()
    assert objective.discriminator_main(own).item() == pytest.approx(expected.item(), rel=1e-9)
    G.requires_grad_(True)
    grads = torch.autograd.grad(objective.generator_main(own), list(G.parameters()), allow_unused=True)
    reached = {name for (name, _), g in zip(G.named_parameters(), grads) if g is not None and g.abs().sum() > 0}
    assert stages_of(reached) == {"stage1"} and any("condition" in name for name in reached)


def test_pairs_see_wrong_labels_too(recipe_of):
    """Although the generated image of a pair has the label of the real one."""
    recipe = recipe_of("demo-stackgan", "hat", loss="relativistic")
    stage, batch = recipe.objective.stages[0], recipe.next_batch()
    stage.discriminator_main(stage.batch_of_stage(batch))
    means = recipe.means.take()
    assert means["loss/D labels 8x8"] != means["loss/D 8x8"]


def test_without_labels_there_is_neither_a_prior_nor_a_wrong_label(recipe_of):
    recipe = recipe_of("demo-stackgan")
    batch = recipe.next_batch()
    for stage in recipe.objective.stages:
        stage.generator_main(stage.batch_of_stage(batch)), stage.discriminator_main(stage.batch_of_stage(batch))
    names = set(recipe.means.take())
    assert "loss/G 8x8" in names and not any("prior" in name or "labels" in name for name in names)


# --------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("cfg", CFGS)
@pytest.mark.parametrize("lost", [16, 24, 32])
def test_a_resumed_run_ends_with_the_same_bits(config_of, tmp_path, monkeypatch, cfg, lost):
    """It fails before, at and after the start of the second stage, and continues from the older of its two states."""
    config, states, step = dataclasses.replace(config_of(cfg), snap=0.008), [], Engine.step

    def fail(engine):
        if engine.shown == lost:
            raise MemoryError
        step(engine)

    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        if name == "parts":
            with monkeypatch.context() as patch, pytest.raises(MemoryError):
                patch.setattr(Engine, "step", fail)
                train(config, tmp_path / name, "cpu", options=RunOptions(quiet=True))
            for path in list_states(tmp_path / name)[:-1]:
                path.unlink()
        train(config, tmp_path / name, "cpu", options=RunOptions(quiet=True))
        states.append(read_state(list_states(tmp_path / name)[0])[0])
    a, b = states
    assert a.keys() == b.keys() and a["clock"] == b["clock"] == {"step": 6, "shown": 48}
    for part in ("G", "D", "G_ema"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    for part in (name for name in a if name.startswith("optimizer")):
        for key, slots in a[part]["state"].items():
            assert all(torch.equal(x, b[part]["state"][key][n]) for n, x in slots.items())


@pytest.mark.parametrize("skipped", [2, 5])  # the last step of the first stage, and of the run
def test_a_run_is_saved_although_the_last_step_of_a_stage_was_skipped(config_of, tmp_path, monkeypatch, skipped):
    """A phase that has ended is not waited for: it runs no good step any more."""
    next_batch, check = Gan.next_batch, Guard.check

    def one_is_bad(recipe):
        batch = next_batch(recipe)
        assert max(batch.index) < 64, "the run does not end"
        return dataclasses.replace(batch, images=batch.images * (torch.nan if 8 * skipped in batch.index else 1))

    monkeypatch.setattr(Gan, "next_batch", one_is_bad)
    checks = []
    monkeypatch.setattr(Guard, "check", lambda guard, name, *rest: checks.append(name) or check(guard, name, *rest))
    train(config_of("demo-stackgan", gamma=0.0, snap=0.024), tmp_path, "cpu", options=RunOptions(quiet=True))
    kimg = ["000000.032", "000000.048"] if skipped == 2 else ["000000.024", "000000.056"]
    assert {path.name for path in tmp_path.glob("fakes-*")} == {f"fakes-{k}.png" for k in ("000000", *kimg)}
    assert checks == ["G 8x8", "D 8x8"] * 3 + ["G", "D"] * (3 if skipped == 2 else 4)
    state, about = read_state(list_states(tmp_path)[0])
    assert about["kimg"] == float(kimg[-1]) and int(state["guard"]["skipped"]) == 1


@pytest.mark.parametrize("cfg", CFGS)
def test_a_run_and_what_can_be_done_with_its_model(sgan, rgb_set, tmp_path, cfg):
    sizes = ["--batch", "8", "--cbase", "64", "--cmax", "8", "--kimg", "0.032", "--snap", "0.016"]
    result = sgan("train", "--cfg", cfg, "--data", rgb_set, "--cond", "hat", "--runs", tmp_path / "runs", *sizes)
    (run,) = (tmp_path / "runs").iterdir()
    assert result.stdout.strip() == str(run) and "8x8 G " in (run / "log.txt").read_text()
    for kimg in ("000000", "000000.016", "000000.032"):
        with Image.open(run / f"stages-{kimg}.png") as strip:
            assert strip.size == (2 * (64 + 2) + 2, 8 * (64 + 2) + 2)  # 16 pixels, four times as large
    model, out = ["--model", run], ["--outdir", tmp_path / "out"]
    sgan("generate", *model, *out, "--seeds", "0-1", "--class", "1", "--trunc", "0.7")
    sgan("mix", *model, *out, "--rows", "0", "--cols", "1", "--styles", "1")
    sgan("interpolate", *model, *out, "--seeds", "1,2", "--frames", "2", "--class", "0")
    sgan("project", *model, *out, tmp_path / "out" / "seed0000.png", "--steps", "2", "--loss", "pixel")
    sgan("edit", "find", *model, *out, "--method", "sefa", "--count", "2")
    info = sgan("model", "info", run).stdout
    assert "stages 8x8 -> 16x16" in info
    snapshot = load_snapshot(latest_snapshot(run))
    assert snapshot.D is not None and snapshot.D.config.family == snapshot.G.config.family
    sgan("train", "--resume", run, "--kimg", "0.04", "-q")
    start = gan_plan.plan_new_run(str(rgb_set), None, str(latest_snapshot(run)), cond="hat")
    assert start.config.cfg.removeprefix("demo-") == snapshot.G.config.family
    sgan(
        "train",
        "--resume",
        latest_snapshot(run),
        "--cfg",
        cfg,
        "--runs",
        tmp_path / "more",
        "-q",
        *sizes[:2],
        *sizes[6:],
    )


# ------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("cfg", CFGS)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"info": 3}, "--info does not apply"),
        ({"info_continuous": 2}, "--info-continuous does not apply"),
        ({"label": "hat", "aux_classifier": True}, "--aux-classifier does not apply"),
        ({"mode_weight": 1.0}, "--mode-regularize does not apply"),
        ({"encoder": "vaegan"}, "--recipe vaegan does not apply"),
        ({"encoder": "bigan", "label": "hat"}, "--recipe bigan does not apply"),
        ({"pl_weight": 2.0}, "--pl-weight does not apply"),
        ({"mixing_prob": 0.5}, "--mixing-prob does not apply"),
        ({"freezed": 1}, "--freezed does not apply"),
        ({"aug": "ada"}, "--aug ada does not apply"),
        ({"precision": "bf16"}, "--precision bf16 does not apply"),
        ({"grow_from": 4}, "--grow-from does not apply"),
    ],
    ids=str,
)
def test_options_that_do_not_apply(config_of, cfg, options, words):
    with pytest.raises(MisuseError, match=words) as caught:
        config_of(cfg, **options)
    assert "Remove" in caught.value.hint


def test_where_stages_end(config_of, rgb_set, sgan, tmp_path):
    assert config_of("demo-stackgan", stage_kimg=0.01).stage_kimg == 0.01 and config_of("demo-lapgan").stage_kimg == 0
    with pytest.raises(MisuseError, match="second stage starts at 1 kimg, but the run ends at 0.048 kimg"):
        config_of("demo-stackgan", stage_kimg=1.0)
    with pytest.raises(MisuseError, match="--stage-kimg has no effect on LAPGAN models, whose stages learn at the"):
        config_of("demo-lapgan", stage_kimg=0.01)
    with pytest.raises(MisuseError, match="--stage-kimg has no effect on StyleGAN2 models"):
        make_train_config("auto", open_dataset(rgb_set).spec, stage_kimg=0.01)
    train_options = ["train", "--data", rgb_set, "--runs", tmp_path / "runs", "--kimg", "0.016", "-q"]
    result = sgan(*train_options, "--cfg", "demo-stackgan", "--stage-kimg", "1", code=2)
    assert "ends at 0.016 kimg" in result.stderr and not (tmp_path / "runs").exists()


def test_the_length_of_a_stage_cannot_change(config_of, tmp_path):
    (tmp_path / "run").mkdir()
    train(config_of("demo-stackgan"), tmp_path / "run", "cpu", options=RunOptions(quiet=True))
    with pytest.raises(MisuseError, match="--stage-kimg cannot be changed"):
        gan_resume.plan_resumed_run(tmp_path / "run", {"kimg": 1.0, "stage_kimg": 0.04})


def test_constant_augmentation_and_other_objectives(config_of, make_trainer):
    """Also settings that move, and penalties with every step."""
    options = {"aug": "fixed", "aug_p": 0.5, "loss": "relativistic", "gamma": 1.0, "schedule_kimg": 0.1}
    for cfg in CFGS:
        engine = make_trainer(config_of(cfg, **options))
        for _ in range(2):
            engine.step()
        stages = engine.recipe.objective.stages
        assert {stage.gamma_scale for stage in stages} == {engine.recipe.objective.gamma_scale} != {1.0}
        assert all(float(stage.p.p) == 0.5 for stage in stages) and engine.means.take()["r2/penalty 8x8"] > 0
    wasserstein = make_trainer(config_of("demo-lapgan", loss="wgan"))
    wasserstein.step()
    assert wasserstein.means.take()["gp/penalty 8x8"] >= 0
    with pytest.raises(MisuseError, match="the discriminator of StackGAN has batch normalization"):
        config_of("demo-stackgan", loss="wgan")


def test_parts_of_a_batch(config_of, make_trainer):
    """LAPGAN's images do not depend on each other, so its steps can be computed in parts; StackGAN's cannot."""
    engines = [make_trainer(config_of("demo-lapgan", batch_gpu=n), dtype=torch.float64) for n in (8, 4)]
    for engine in engines:
        engine.step()
    for a, b in zip(*(parameters(engine.recipe.G).values() for engine in engines)):
        torch.testing.assert_close(a, b)
    engines[0].recipe.halve_batch_gpu()
    assert {stage.config.batch_gpu for stage in engines[0].recipe.objective.stages} == {4}
    with pytest.raises(Exception, match="batch normalization sees them together"):
        make_trainer(config_of("demo-stackgan")).recipe.halve_batch_gpu()
