"""Settings that move along a cosine, and the training of the relativistic objective against its plain definition."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import MisuseError, SganError
from stylegan_cli.layers import BatchNorm
from stylegan_cli.models.presets import Schedule
from stylegan_cli.sampling import counter
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes import gan
from stylegan_cli.training.recipes.gan import STANDING, make_engine, train
from stylegan_cli.training.recipes.gan_plan import describe_next_steps, describe_run, plan_new_run
from stylegan_cli.training.recipes.gan_resume import plan_resumed_run
from stylegan_cli.training.run import RunOptions

SMALL = {"channel_base": 128, "channel_max": 16, "batch": 4, "z_dim": 8}


@pytest.fixture(scope="module")
def dataset():
    return open_dataset(None, size=(16, 16))


@pytest.fixture
def engine_of(dataset):
    engines = []

    def make(cfg="r3gan", dtype=torch.float32, **options):
        config = make_train_config(cfg, dataset.spec, **SMALL | options)
        engines.append(make_engine(config, dataset, dtype=dtype))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def cosine(start, end, t):
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * t))


def settings(engine):
    recipe = engine.recipe
    g = recipe.phases[0].optimizer.param_groups[0]
    objective = recipe.objective
    return [g["lr"], g["betas"][1], objective.gamma_scale, recipe.ema.half_life, float(objective.p.p)]


def test_settings_follow_the_images_shown(engine_of):
    """As released for CIFAR-10: learning rate, gamma, Adam's second beta, moving average and augmentation."""
    engine = engine_of()
    assert (engine.recipe.config.gamma, engine.recipe.config.r2_gamma) == (0.05, 0.05)
    assert engine.recipe.config.ema_kimg == 0
    for shown, t in ((0, 0), (10_000_000, 0.5), (15_000_000, 0.75), (20_000_000, 1), (30_000_000, 1)):
        engine.clock.shown = shown
        engine.hooks["schedule"].before_step(engine)
        ends = ((2e-4, 5e-5), (0.9, 0.99), (1, 0.1), (0, 5e6), (0, 0.55))
        assert settings(engine) == pytest.approx([cosine(a, b, t) for a, b in ends], rel=1e-6)


def test_graphs_are_captured_again_only_when_settings_move(engine_of, monkeypatch):
    engine, calls = engine_of(), []
    monkeypatch.setattr(engine, "recapture", lambda: calls.append(engine.shown))
    for shown in range(0, 200_000, 10_000):
        engine.clock.shown = shown
        engine.hooks["schedule"].before_step(engine)
    assert len(calls) == 3  # of 256 in 20 million images


@pytest.mark.parametrize(("kimg", "moves"), [(20_000.0, 256), (16.0, 62), (0.1, 16)])
def test_settings_move_rarely_in_a_short_schedule(engine_of, kimg, moves):
    """At intervals of 64 steps of 4 images, unless there are only few."""
    assert engine_of(schedule_kimg=kimg).hooks["schedule"].moves == moves


def test_a_rollback_and_a_schedule_act_together(engine_of):
    engine = engine_of()
    engine.clock.shown = 20_000_000
    engine.hooks["schedule"].before_step(engine)
    engine.recipe.apply_settings(2)
    assert settings(engine) == pytest.approx([5e-5 / 4, 0.99, 0.1, 5e6, 0.55])


def test_lazy_regularization_corrects_the_scheduled_beta(engine_of):
    engine = engine_of("demo-stylegan2", schedule_kimg=1.0)
    config = engine.recipe.config
    assert config.schedule == Schedule(1.0, lr=0.25, gamma=0.1)
    config = dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, beta2=0.999))
    other = make_engine(config, engine.recipe.full_dataset)
    other.clock.shown = 1000
    other.hooks["schedule"].before_step(other)
    d = other.recipe.phases[-1].optimizer.param_groups[0]
    share = config.r1_interval / (config.r1_interval + 1)
    assert d["betas"][1] == pytest.approx(0.999**share) and d["lr"] == pytest.approx(config.lr * share / 4)
    other.close()


def test_a_stage_of_a_growing_run_has_the_settings_of_its_time(dataset):
    config = make_train_config("demo-stylegan", dataset.spec, schedule_kimg=1.0, grow_kimg=0.1, fade_kimg=0.1, kimg=9.0)
    engine = make_engine(config, dataset)
    engine.clock.shown = 1000
    engine.hooks["schedule"].before_step(engine)
    engine.replace_recipe(engine.recipe.rebuild(engine.recipe.config))
    engine.hooks["schedule"].before_step(engine)
    assert (engine.recipe.lr_scale, engine.recipe.objective.gamma_scale) == pytest.approx((0.25, 0.1))
    engine.close()


def test_changed_settings_of_a_resumed_run_keep_the_proportions(dataset, tmp_path):
    config = make_train_config("r3gan", dataset.spec, kimg=0.008, snap=0.008, **SMALL)
    train(config, tmp_path, "cpu", options=RunOptions(quiet=True), dataset=dataset)
    changes = {"kimg": 0.016, "lr": 4e-4, "gamma": 0.5, "ema_kimg": 100.0, "aug_p": 0.2}
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    found = {(line["lr"], line["gamma"]) for line in lines if "gamma" in line}
    assert found == {(config.lr, config.gamma)}, "nothing has moved in 8 images"
    resumed = plan_resumed_run(tmp_path, changes).config
    assert (resumed.lr, resumed.gamma, resumed.ema_kimg, resumed.aug_p) == (4e-4, 0.5, 0.0, 0.2)
    found = resumed.schedule
    assert (found.lr, found.gamma, found.ema_kimg, found.aug_p) == (0.25, 0.1, 100.0, None)
    assert plan_resumed_run(tmp_path, {"kimg": 0.016}).config.schedule == config.schedule
    assert resumed.r2_gamma == 0.5, "both penalties have the same weight"
    unpenalized = plan_resumed_run(tmp_path, {"kimg": 0.016, "gamma": 0.0, "r2_gamma": 1.0}).config
    train(unpenalized, tmp_path, "cpu", options=RunOptions(quiet=True), dataset=dataset)


def test_options_scale_a_schedule(dataset):
    config = make_train_config("r3gan", dataset.spec, lr=4e-4, gamma=1.0, schedule_kimg=50.0, **SMALL)
    assert (config.schedule.lr, config.schedule.gamma, config.schedule.kimg) == (0.25, 0.1, 50)
    assert make_train_config("demo-stylegan2", dataset.spec, **SMALL).schedule is None
    still = make_train_config("r3gan", dataset.spec, schedule_kimg=0.0, **SMALL)
    assert (still.schedule, still.aug, still.aug_p, still.ema_rampup) == (None, "fixed", 0.55, 0.05)
    still = make_train_config("r3gan", dataset.spec, schedule_kimg=0.0, aug="noaug", ema_rampup=0.1, **SMALL)
    assert (still.aug_p, still.ema_rampup) == (0.0, 0.1)
    constant = make_train_config("r3gan", dataset.spec, aug="noaug", **SMALL)
    assert constant.schedule.aug_p is None and constant.aug == "noaug"
    with pytest.raises(SganError):
        Schedule(kimg=-1.0)


def test_the_average_of_an_encoder_follows_the_schedule(engine_of):
    engine = engine_of(encoder="vaegan")
    engine.clock.shown = 10_000_000
    engine.hooks["schedule"].before_step(engine)
    assert engine.recipe.E_ema.half_life == engine.recipe.ema.half_life == pytest.approx(2.5e6)


def test_a_run_whose_length_does_not_fit_its_schedule_says_so(dataset):
    short = make_train_config("r3gan", dataset.spec, kimg=1000.0, **SMALL)
    assert "hardly begins in 1000 kimg. To fit it to the run: --schedule-kimg 1000" in describe_run(short, None)
    assert "schedule" not in describe_run(dataclasses.replace(short, kimg=20000.0), None)
    text = describe_run(dataclasses.replace(short, kimg=40000.0), None)
    assert "of 20000 kimg ends long before 40000 kimg. To fit it to the run: --schedule-kimg 40000" in text


@pytest.mark.parametrize("cfg", ["dcgan", "sngan", "sagan", "biggan", "demo-lapgan", "demo-stackgan"])
def test_pairs_always_have_penalties(dataset, cfg):
    config = make_train_config(cfg, dataset.spec, loss="relativistic", batch=4)
    assert config.gamma == config.r2_gamma > 0
    assert make_train_config(cfg, dataset.spec, loss="relativistic", gamma=0.0, batch=4).r2_gamma == 0


def test_presets_by_size():
    from stylegan_cli.models.r3gan.presets import PRESETS

    found = {size: PRESETS["r3gan"].at(size, 8).gamma for size in (16, 32, 48, 64, 100, 256, 1024)}
    assert found == {16: 0.05, 32: 0.05, 48: 0.05, 64: 2.0, 100: 2.0, 256: 150.0, 1024: 150.0}
    assert isinstance(PRESETS["r3gan"].at(64, 64).schedule, Schedule)


def test_an_interval_without_penalties_is_refused(rgb_set):
    with pytest.raises(MisuseError, match="--penalty-interval has no effect without a penalty"):
        plan_new_run(str(rgb_set), "dcgan", r1_interval=4)
    assert plan_new_run(str(rgb_set), "dcgan", r1_interval=4, gamma=1.0).config.r1_interval == 4


def test_options_without_effect_are_refused(dataset):
    for options in ({"mapping_layers": 3}, {"mbstd_group": 2}):
        with pytest.raises(MisuseError, match="has no effect on R3GAN models"):
            make_train_config("r3gan", dataset.spec, **SMALL | options)


# ------------------------------------------------------------------------------------------- ten steps


def adam(parameters, gradients, moments, step, lr, beta2):
    """Kingma and Ba 2015, algorithm 1, with beta1 = 0."""
    for p, g, v in zip(parameters, gradients, moments, strict=True):
        v.mul_(beta2).add_((1 - beta2) * g * g)
        p.data -= lr * g / ((v / (1 - beta2**step)).sqrt() + 1e-8)


def squared_gradient(logits, images):
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum([1, 2, 3])


def test_ten_steps_against_the_plain_definition(engine_of):
    """Losses, gradients and weights: L_D = mean f(D(real) - D(fake)) + gamma / 2 (R1 + R2), L_G = mean f(D(fake) -
    D(real)), f(t) = log(1 + exp(-t)), with Adam, in float64 (Huang et al. 2024, equations 2 to 4)."""
    engine = engine_of(dtype=torch.float64, aug="noaug", gamma=0.7, schedule_kimg=0.0)
    recipe, lr, gamma = engine.recipe, 2e-4, 0.7
    G, D = (torch.nn.Module.requires_grad_(n, True) for n in map(copy.deepcopy, (recipe.G, recipe.D)))
    lists = {network: list(network.parameters()) for network in (G, D)}
    moments = {network: [torch.zeros_like(p) for p in lists[network]] for network in (G, D)}
    taken, step_of = [], type(recipe).next_batch
    recipe.next_batch = lambda: taken.append(step_of(recipe)) or taken[-1]
    for step in range(1, 11):
        recipe.means.clear()
        engine.step()
        batch, means = taken[-1], recipe.means.take()
        z = {p: counter.normal(0, f"{p}.z", batch.index, (8,)).double() for p in ("g", "d")}
        loss_G = F.softplus(D(batch.images).detach() - D(G(z["g"]))).mean()
        gradients = torch.autograd.grad(loss_G, lists[G])
        adam(lists[G], gradients, moments[G], step, lr, 0.9)
        real, fake = batch.images.clone().requires_grad_(), G(z["d"]).detach().requires_grad_()
        real_logits, fake_logits = D(real), D(fake)
        adversarial = F.softplus(fake_logits - real_logits)
        penalty = squared_gradient(real_logits, real) + squared_gradient(fake_logits, fake)
        gradients_D = torch.autograd.grad((adversarial[:, 0] + gamma / 2 * penalty).mean(), lists[D])
        adam(lists[D], gradients_D, moments[D], step, lr, 0.9)
        assert means["loss/G"] == pytest.approx(loss_G.item(), rel=1e-9)
        assert means["loss/D"] == pytest.approx(adversarial.mean().item(), rel=1e-9)
        assert means["r1/penalty"] + means["r2/penalty"] == pytest.approx(penalty.mean().item(), rel=1e-9)
        for ours, plain in ((recipe.G, G), (recipe.D, D)):
            for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cfg", ["r3gan", "style-r3gan", "dcgan", "sngan", "sagan", "biggan"])
def test_a_resumed_run_continues_to_the_bit(dataset, tmp_path, cfg):
    """In the middle of a schedule, between steps of G, with running moments and power iterations."""

    def run(name, *lengths):
        (tmp_path / name).mkdir()
        options = SMALL | ({"z_dim": 60} if cfg == "biggan" else {})
        for kimg in lengths:
            config = make_train_config(cfg, dataset.spec, kimg=kimg, snap=0.012, schedule_kimg=0.04, **options)
            train(config, tmp_path / name, "cpu", options=RunOptions(quiet=True), dataset=dataset)
        return load_file(next(tmp_path.glob(f"{name}/snapshot-*.032.safetensors")))

    whole, resumed = run("whole", 0.032), run("resumed", 0.012, 0.032)
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_resumed_run_can_have_a_schedule_of_another_length(dataset, tmp_path):
    """It goes on from where a run with this schedule would be, and says what to do next."""
    config = make_train_config("r3gan", dataset.spec, kimg=0.008, schedule_kimg=0.008, **SMALL)
    train(config, tmp_path, "cpu", options=RunOptions(quiet=True))
    assert "--kimg 0.016 --schedule-kimg 0.016" in describe_next_steps(config, tmp_path)
    plan = plan_resumed_run(tmp_path, {"kimg": 0.016, "schedule_kimg": 0.032, "ema_kimg": 2.0})
    schedule = dataclasses.replace(config.schedule, kimg=0.032, ema_kimg=2.0)
    assert plan.config == dataclasses.replace(config, kimg=0.016, schedule=schedule)
    train(plan.config, tmp_path, "cpu", plan.start, RunOptions(quiet=True))
    lines = map(json.loads, (tmp_path / "stats.jsonl").read_text().splitlines())
    *_, last = (line["lr"] for line in lines if "lr" in line)
    assert last == pytest.approx(cosine(2e-4, 5e-5, 6 / 16), abs=1e-6)  # of the last step, after 12 of 32 images
    assert "schedule-kimg" not in describe_next_steps(plan.config, tmp_path)
    (entry,) = json.loads((tmp_path / "config.json").read_text())["history"]
    assert entry["changes"] == {"schedule.kimg": [0.008, 0.032], "schedule.ema_kimg": [5000.0, 2.0]}
    with pytest.raises(MisuseError, match="--schedule-kimg is 0.016, but the run is at 0.016 kimg already"):
        plan_resumed_run(tmp_path, {"kimg": 0.032, "schedule_kimg": 0.016})
    with pytest.raises(MisuseError, match="A schedule cannot be removed from a run"):
        plan_resumed_run(tmp_path, {"kimg": 0.032, "schedule_kimg": 0.0})


def test_a_run_without_a_schedule_does_not_get_one_when_it_is_resumed(dataset, tmp_path):
    config = make_train_config("r3gan", dataset.spec, kimg=0.004, schedule_kimg=0.0, aug="noaug", **SMALL)
    train(config, tmp_path, "cpu", options=RunOptions(quiet=True))
    assert plan_resumed_run(tmp_path, {"kimg": 0.008, "schedule_kimg": 0.0}).config.schedule is None
    with pytest.raises(MisuseError, match="A schedule cannot be added to a run"):
        plan_resumed_run(tmp_path, {"kimg": 0.008, "schedule_kimg": 0.1})
    with pytest.raises(MisuseError, match="--mixing-prob has no effect on R3GAN models"):
        plan_resumed_run(tmp_path, {"kimg": 0.008, "mixing_prob": 0.5})


def test_a_schedule_as_long_as_the_run_of_its_preset_follows_its_length(dataset):
    def length(cfg, **options):
        return make_train_config(cfg, dataset.spec, channel_base=128, channel_max=16, batch=4, **options).schedule.kimg

    assert [length("demo"), length("demo", kimg=100.0), length("demo", kimg=100.0, schedule_kimg=50.0)] == [16, 100, 50]
    assert length("r3gan", kimg=100.0) == 20_000


@pytest.mark.parametrize(("batch", "batch_gpu", "passes"), [(8, 8, 128), (6, 3, 342), (256, 256, 16)])
def test_standing_statistics_are_those_of_enough_images(engine_of, monkeypatch, batch, batch_gpu, passes):
    """However few or many are normalized together."""
    monkeypatch.setattr(gan, "STANDING", STANDING)
    recipe = engine_of("dcgan", batch=batch, batch_gpu=batch_gpu, channel_base=16, channel_max=4).recipe
    norm = [module for module in recipe.ema.network.modules() if isinstance(module, BatchNorm)][-1]
    seen = []
    norm.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].double()))
    recipe.prepare_snapshot()
    assert [len(x) for x in seen] == [batch_gpu] * passes
    variance, mean = torch.var_mean(torch.cat(seen), (0, 2, 3), correction=0)
    torch.testing.assert_close(norm.mean.double(), mean, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(norm.variance.double(), variance, atol=1e-6, rtol=1e-4)


def test_penalties_with_batch_normalization_are_of_the_whole_batch(engine_of, dataset):
    """The squared gradient of the sum of all outputs, each of which depends on every image. A gradient penalty with a
    norm of 1 for each image would mean something else, and is refused."""
    recipe = engine_of("dcgan", torch.float64, gamma=2.0, r2_gamma=2.0, channel_base=64, channel_max=4).recipe
    batch = recipe.next_batch()
    expected = []
    for images in (batch.images, recipe.objective._fakes(batch, "r2")):
        jacobian = torch.autograd.functional.jacobian(recipe.D, images)[:, 0]  # [N of outputs, N of images, C, H, W]
        assert jacobian[0, 1].abs().max() > 1e-6
        expected.append(jacobian.sum(0).square().sum())
    assert recipe.objective.discriminator_penalties(batch).item() == pytest.approx(sum(expected).item(), rel=1e-9)
    means = recipe.means.take()
    assert [4 * means[f"{name}/penalty"] for name in ("r1", "r2")] == pytest.approx([x.item() for x in expected])
    with pytest.raises(MisuseError, match="each image by itself, but the discriminator of .* has batch normalization"):
        make_train_config("dcgan", dataset.spec, loss="wgan", **SMALL)


@pytest.mark.parametrize("loss", ["relativistic", "logistic"])
def test_pairs_have_the_same_class(loss):
    dataset = open_dataset(None, size=(16, 16), label="bodyVariant")
    engine = make_engine(make_train_config("r3gan", dataset.spec, loss=loss, **SMALL), dataset)
    batch = engine.recipe.next_batch()
    assert batch.labels.shape == (4, 14) and (batch.labels.sum(1) == 1).all()
    assert torch.equal(batch.labels, batch.fake_labels) == (loss == "relativistic")
    engine.close()


def test_as_many_images_are_normalized_together_in_a_resumed_run(dataset, tmp_path):
    config = make_train_config("dcgan", dataset.spec, kimg=0.008, snap=0.008, **SMALL)
    train(config, tmp_path, "cpu", options=RunOptions(quiet=True), dataset=dataset)
    two = plan_resumed_run(tmp_path, {"kimg": 0.016, "gpus": 2}).config
    assert (two.gpus, two.batch_gpu) == (2, 2)
    with pytest.raises(MisuseError, match="sees 4 images at a time in this run: --batch 6 is not a multiple"):
        plan_resumed_run(tmp_path, {"kimg": 0.016, "batch": 6})
    penalized = plan_resumed_run(tmp_path, {"kimg": 0.016, "gamma": 1.0}).config
    assert (penalized.gamma, penalized.r2_gamma) == (1, 0), "R2 is of pairs, although both weights were 0"
    larger = plan_resumed_run(tmp_path, {"kimg": 0.016, "batch": 8}).config
    assert (larger.batch, larger.batch_gpu) == (8, 4)
    with pytest.raises(SganError, match="seen 4 images at a time in this run; with --gpus 1 and --batch-gpu 2"):
        plan_resumed_run(tmp_path, {"kimg": 0.016, "batch_gpu": 2})


def test_steps_of_the_discriminator(engine_of):
    """Five for each of G, whose gradient has the weight of one batch."""
    engine = engine_of("sngan")
    g, d = (phase.optimizer for phase in engine.recipe.phases)
    for _ in range(10):
        engine.step()
    steps = [int(next(iter(o.state.values()))["step"]) for o in (g, d)]
    assert steps == [2, 10] and (engine.recipe.phases[0].interval, engine.recipe.phases[0].weight) == (5, 1.0)


def test_samples_have_the_statistics_of_the_moving_average(engine_of):
    """Not those of the trained weights; and the steps that follow are the same without samples."""
    (engine, other), weights = [engine_of("dcgan") for _ in range(2)], []
    for trainer in (engine, other):
        for _ in range(4):
            trainer.step()
    before = engine.recipe.ema.network.synthesis.norm.mean.clone()
    engine.recipe.prepare_snapshot()
    assert not torch.allclose(engine.recipe.ema.network.synthesis.norm.mean, before, atol=1e-3)
    for trainer in (engine, other):
        trainer.step()
        weights.append(trainer.recipe.ema.network.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
