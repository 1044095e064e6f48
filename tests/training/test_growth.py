"""Growing: the schedule, transfer between stages, resuming in the middle of a fade."""

import copy
import dataclasses

import pytest
import torch
from PIL import Image

from stylegan_cli.config import from_json, to_json
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import SganError
from stylegan_cli.snapshot import load_snapshot
from stylegan_cli.training.config import GrowthConfig
from stylegan_cli.training.growth import Growth, fade_reals
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes import gan_plan
from stylegan_cli.training.recipes.gan import make_engine, train
from stylegan_cli.training.run import RunOptions
from stylegan_cli.training.state import gather


@pytest.fixture
def make_config(rgba_set, rgb_set):
    """Settings of a tiny growing run: levels 4, 8 and 16 on 16 x 16 images."""

    def make(data=rgb_set, **options):
        tiny = {"batch": 8, "channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8, "mapping_layers": 2}
        frequent = {"mbstd_group": 2, "mbstd_channels": 1, "gamma": 2.0, "r1_interval": 2, "ema_kimg": 0.05}
        growth = {"grow_from": 4, "grow_kimg": 0.032, "fade_kimg": 0.032, "kimg": 0.192, "snap": 0.032}
        return make_train_config("demo-stylegan", open_dataset(data).spec, **tiny | frequent | growth | options)

    return make


@pytest.fixture
def make_trainer():
    trainers = []

    def make(config):
        trainers.append(make_engine(config, open_dataset(config.data.path)))
        return trainers[-1]

    yield make
    for trainer in trainers:
        trainer.close()


def stage_table(config):
    return [
        (s.level, s.config.generator.fade, s.start, s.config.batch, s.config.lr, s.config.data.height)
        for s in Growth(config).stages
    ]


def test_stages(make_config):
    config = make_config(grow_batch={4: 32, 8: 16}, grow_lr={16: 0.001}, lr=0.002)
    assert stage_table(config) == [
        (4, False, 0, 32, 0.002, 4),
        (8, True, 32, 16, 0.002, 8),
        (8, False, 64, 16, 0.002, 8),
        (16, True, 96, 8, 0.001, 16),
        (16, False, 128, 8, 0.001, 16),
    ]
    assert [row[:3] for row in stage_table(make_config(grow_from=8, fade_kimg=0.0))] == [(8, False, 0), (16, False, 32)]
    assert make_train_config("demo-stylegan", config.data, grow_from=16).growth is None
    with pytest.raises(SganError, match="starts at level 16"):
        make_config(grow_from=16)
    assert from_json(GrowthConfig, to_json(config.growth)) == config.growth


def test_stages_are_whole_batches_and_every_level_has_one(make_config):
    """With any batch, a run ends at the size of its images, or is refused."""
    config = make_config(grow_batch={4: 256, 8: 128}, grow_kimg=0.03, fade_kimg=0.03, kimg=0.6)
    assert [row[:3] for row in stage_table(config)] == [
        (4, False, 0),
        (8, True, 256),
        (8, False, 384),
        (16, True, 512),
        (16, False, 544),
    ]
    with pytest.raises(SganError, match="Growing reaches 16x16 at 0.544 kimg, but the run ends at 0.3"):
        Growth(dataclasses.replace(config, kimg=0.3))
    short = [row[:3] for row in stage_table(make_config(grow_kimg=0.0001, fade_kimg=0.0001))]
    assert short == [(4, False, 0), (8, False, 8), (16, False, 16)]


def test_the_published_schedule():
    """Karras et al. 2019, appendix C: 8 to 1024, batch 256 to 32 on 8 GPUs, higher learning rates from 128 on."""
    spec = dataclasses.replace(open_dataset(None).spec, height=1024, width=1024)
    stages = [s for s in Growth(make_train_config("stylegan", spec, gpus=8)).stages if not s.config.generator.fade]
    assert [(s.level, s.config.batch) for s in stages] == [
        *((8, 256), (16, 128), (32, 64), (64, 32), (128, 32), (256, 32), (512, 32), (1024, 32))
    ]
    assert [s.config.lr for s in stages] == [0.001] * 4 + [0.0015, 0.002, 0.003, 0.003]
    assert [s.start for s in stages] == pytest.approx([1_200_000 * i for i in range(8)], abs=500)  # whole batches
    one = Growth(make_train_config("progan", spec)).stages
    assert [s.config.batch for s in one if not s.config.generator.fade] == [128, 128, 128, 64, 32, 16, 8, 4, 4]


def test_alpha_and_fading_of_reals(make_config):
    growth = Growth(make_config())
    assert growth.alpha(31) == 1 and not growth.is_due(31) and growth.is_due(32)
    growth.index = 1
    assert [growth.alpha(n) for n in (32, 40, 64)] == [0, 0.25, 1]
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    low = torch.tensor([[2.5, 4.5], [10.5, 12.5]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(fade_reals(x, 0.0)[0, 0], low) and torch.equal(fade_reals(x, 1.0), x)
    assert torch.allclose(fade_reals(x, 0.25), 0.25 * x + 0.75 * low)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kimg": 0.128}, "Growing reaches 16x16 at 0.128 kimg, but the run ends at 0.128"),
        ({"grow_from": 32}, "cannot start at level 32: images of 16x16 have the levels 4, 8, 16"),
        ({"grow_from": 5}, "cannot start at level 5"),
        ({"grow_batch": {32: 8}}, "does not grow through level 32"),
        ({"grow_batch": {4: 6}, "batch_gpu": 2, "mbstd_group": 2}, "The batch of 6 at level 4 cannot be divided"),
        ({"grow_batch": {8: 7}}, "The batch of 7 at level 8 cannot be divided"),
        ({"freezed": 2}, "--freezed cannot be combined"),
    ],
)
def test_invalid_schedules(make_config, options, message):
    with pytest.raises(SganError, match=message):
        Growth(make_config(**options))


def test_networks_that_do_not_grow(rgb_set):
    spec = open_dataset(rgb_set).spec
    with pytest.raises(SganError, match="The networks of --cfg auto do not support growing"):
        Growth(make_train_config("auto", spec, grow_from=4, mbstd_group=4))
    with pytest.raises(SganError, match="--fade-kimg has no effect"):
        make_train_config("auto", spec, fade_kimg=3.0)


def steps(trainer, count):
    for _ in range(count):
        trainer.step()


def test_transfer_to_the_next_stage(make_config, make_trainer):
    trainer = make_trainer(make_config(lr=1e-12))  # only growing changes weights
    steps(trainer, 4)
    before = {k: v.clone() for k, v in trainer.recipe.G.state_dict().items()}
    ema = {k: v.clone() for k, v in trainer.recipe.ema.network.state_dict().items()}
    w_avg = trainer.recipe.G.mapping.w_avg.clone()
    steps(trainer, 1)  # a level is added: weights and w_avg are kept, Adam starts over
    assert trainer.recipe.config.generator.height == 8 and trainer.recipe.config.generator.fade
    for name, tensor in before.items():
        if name != "mapping.w_avg":
            assert torch.allclose(trainer.recipe.G.state_dict()[name], tensor, atol=1e-6), name
            assert torch.allclose(trainer.recipe.ema.network.state_dict()[name], ema[name], atol=1e-6), name
    assert w_avg.any() and torch.allclose(trainer.recipe.G.mapping.w_avg, w_avg, atol=0.1)
    assert {int(s["step"]) for s in trainer.recipe.phases[0].optimizer.state.values()} == {1}
    steps(trainer, 4)  # the level has faded in: no new weights, and Adam continues
    assert trainer.recipe.config.generator.height == 8 and not trainer.recipe.config.generator.fade
    assert {int(s["step"]) for s in trainer.recipe.phases[0].optimizer.state.values()} == {5}
    assert trainer.clock.shown == 72 and trainer.recipe.loader.state_dict() == {"position": 72}


def test_a_fade_starts_where_the_level_below_ended(make_config, make_trainer):
    """With alpha 0, the new G generates the same images, enlarged, and the new D gives the same outputs."""
    trainer = make_trainer(make_config())
    steps(trainer, 4)
    z, old, D = torch.randn(4, 8), trainer.recipe.G, trainer.recipe.D
    trainer.hooks["growth"].before_step(trainer)
    small, large = old(z), trainer.recipe.G(z)
    assert torch.allclose(large, small.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-6)
    assert torch.allclose(trainer.recipe.D(large), D(small), atol=1e-5)


def train_run(config, folder, **options):
    folder.mkdir(exist_ok=True)
    train(config, folder, "cpu", options=RunOptions(quiet=True, **options))


@pytest.mark.parametrize("kimg", [0.040, 0.072, 0.104, 0.136])  # in a fade, after it, in the last fade, after it
def test_a_run_resumed_in_any_stage_continues_bit_exactly(make_config, make_trainer, kimg):
    config = make_config()
    uninterrupted = make_trainer(config)
    steps(uninterrupted, 24)
    part = make_trainer(config)
    steps(part, round(kimg * 1000) // 8)
    other = make_trainer(config)
    other.restore(copy.deepcopy(gather(part.stateful)))
    steps(other, 24 - round(kimg * 1000) // 8)
    for name in ("G", "D", "G_ema"):
        for key, tensor in gather(uninterrupted.stateful)[name].items():
            assert torch.equal(tensor, gather(other.stateful)[name][key]), key
    assert uninterrupted.hooks["growth"].state_dict() == other.hooks["growth"].state_dict() == {"stage": 4}


def test_snapshots_of_every_stage_generate_at_their_level(make_config, tmp_path):
    train_run(make_config(snap=0.024), tmp_path / "run")
    sizes = {}
    for path in sorted((tmp_path / "run").glob("snapshot-*.safetensors")):
        model = load_snapshot(path)
        image = model.G(torch.randn(2, 8))
        assert image.shape[2:] == (model.info.data.height, model.info.data.width)
        assert model.D(image).shape == (2, 1)
        alpha = model.G.synthesis.pictures.alpha.item() if model.info.generator.fade else None
        assert alpha is None or model.D.alpha.item() == alpha
        sizes[model.info.kimg] = (image.shape[2], alpha)
    assert sizes == {0.024: (4, None), 0.048: (8, 0.5), 0.072: (8, None), 0.096: (8, None)} | {
        0.120: (16, 0.75),
        0.144: (16, None),
        0.168: (16, None),
        0.192: (16, None),
    }
    with Image.open(tmp_path / "run" / "phases.png") as rows, Image.open(tmp_path / "run" / "reals.png") as reals:
        assert rows.size == (8 * 68 + 4, 3 * 72) and reals.width == 8 * 64
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "8x8 fades in, batch 8" in log and "16x16 has faded in" in log and "left  >" in log


class Measure:
    higher_is_better = False

    def __init__(self):
        self.sizes = []

    def __call__(self, G, data, device):
        self.sizes.append(G.config.height)
        return {"far": 1.0}


def test_metrics_are_measured_at_full_size_only(make_config, tmp_path):
    measure = Measure()
    train_run(make_config(), tmp_path / "run", measure=measure)
    assert measure.sizes == [16, 16, 16]


def test_rollback_to_an_earlier_stage(make_config, make_trainer):
    """Return to the state of an earlier stage, with half the learning rate in all later ones."""
    trainer = make_trainer(make_config())
    steps(trainer, 6)
    state = copy.deepcopy(gather(trainer.stateful))
    steps(trainer, 12)
    assert trainer.hooks["growth"].index == 4
    trainer.restore(state)
    trainer.recipe.apply_settings(1)
    trainer.guard.reset_streaks(1)
    rate = trainer.recipe.phases[0].optimizer.param_groups[0]["lr"]
    steps(trainer, 12)
    assert trainer.hooks["growth"].index == 4 and trainer.clock.shown == 144
    assert trainer.recipe.phases[0].optimizer.param_groups[0]["lr"] == rate == trainer.recipe.config.lr / 2


def test_rectangles_with_alpha(make_config, make_trainer, rgba_set):
    trainer = make_trainer(make_config(rgba_set, kimg=0.256))
    assert (trainer.recipe.config.data.height, trainer.recipe.config.data.width) == (3, 6)
    steps(trainer, 29)
    assert trainer.recipe.G(torch.zeros(1, 8)).shape == (1, 4, 24, 48)


def test_models_of_another_family(make_config, rgb_set, tmp_path):
    train_run(make_config(kimg=0.136), tmp_path / "run")
    snapshot = str(next((tmp_path / "run").glob("snapshot-000000.136*")))
    with pytest.raises(
        SganError, match=r"has the networks of StyleGAN \(2018\), but --cfg progan trains those of ProGAN"
    ):
        gan_plan.plan_new_run(str(rgb_set), "progan", snapshot)
    assert gan_plan.plan_new_run(str(rgb_set), "auto", snapshot, batch=8).config.growth is None, (
        "at full size, with auto's settings"
    )


def test_progan_with_labels_and_path_length(make_config, make_trainer, rgb_set, tmp_path):
    tiny = {
        "batch": 8,
        "channel_base": 64,
        "channel_max": 8,
        "z_dim": 8,
        "w_dim": 8,
        "mbstd_group": 2,
    }
    spec = open_dataset(rgb_set).spec
    config = make_train_config(
        "progan", spec, grow_from=16, kimg=0.016, snap=0.016, pl_weight=2.0, pl_interval=1, **tiny
    )
    train_run(config, tmp_path / "run")
    snapshot = str(next((tmp_path / "run").glob("snapshot-000000.016*")))
    plan = gan_plan.plan_new_run(str(rgb_set), "progan", snapshot, cond="hat", grow_from=16, batch=8)
    assert (plan.config.generator.c_dim, plan.config.generator.w_dim) == (3, 16)
    with pytest.raises(SganError, match="--map-depth has no effect on ProGAN models"):
        make_train_config("progan", spec, mapping_layers=2)


def test_a_model_continues_growing_from_its_level(make_config, rgb_set, tmp_path):
    """--resume FILE with a growing preset does not train the levels of the model again."""
    train_run(make_config(snap=0.008), tmp_path / "run")
    snapshot = str(tmp_path / "run" / "snapshot-000000.064.safetensors")
    options = {"grow_kimg": 0.032, "fade_kimg": 0.032, "kimg": 0.192, "mbstd_group": 2, "batch": 8}
    for number, start in (("056", 4), ("096", 8)):  # in a fade, the level below counts
        resumed = gan_plan.plan_new_run(str(rgb_set), "demo-stylegan", snapshot.replace("064", number), **options)
        assert resumed.config.growth.start == start
    plan = gan_plan.plan_new_run(str(rgb_set), "demo-stylegan", snapshot.replace("064", "096"), **options)
    assert plan.config.growth.start == 8 and not plan.config.generator.fade and plan.config.generator.height == 16
    folder = tmp_path / "resumed"
    folder.mkdir()
    train(plan.config, folder, "cpu", plan.start, RunOptions(quiet=True))
    assert load_snapshot(next(folder.glob("snapshot-000000.192*"))).G(torch.zeros(1, 8)).shape[2] == 16
