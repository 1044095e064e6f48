"""Growing: the schedule, what crosses from one stage to the next, runs that stop in the middle of a fade."""

import copy
import dataclasses

import pytest
import torch
from PIL import Image

from stylegan_cli.config import GrowthConfig, from_json, to_json
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import SganError
from stylegan_cli.presets import make_train_config
from stylegan_cli.snapshot import load_snapshot
from stylegan_cli.training import plan
from stylegan_cli.training.growth import Growth, faded_reals
from stylegan_cli.training.loop import Trainer
from stylegan_cli.training.run import Manner, train
from stylegan_cli.training.state import gather
from stylegan_cli.training.state_files import list_states, read_state


@pytest.fixture
def make_config(rgba_set, rgb_set):
    """A tiny run that grows: 4, 8 and 16 on 16 x 16 pictures, 8 steps a stage."""

    def make(data=rgb_set, **overrides):
        tiny = {"batch": 8, "channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8, "mapping_layers": 2}
        often = {"mbstd_group": 2, "mbstd_channels": 1, "gamma": 2.0, "r1_interval": 2, "ema_kimg": 0.05}
        growth = {"grow_from": 4, "grow_kimg": 0.032, "fade_kimg": 0.032, "kimg": 0.192, "snap": 0.032}
        return make_train_config("demo-stylegan", open_dataset(data).spec, **tiny | often | growth | overrides)

    return make


@pytest.fixture
def make_trainer():
    made = []

    def make(config):
        made.append(Trainer(config, open_dataset(config.data.path)))
        return made[-1]

    yield make
    for trainer in made:
        trainer.close()


def table(config):
    return [
        (s.level, s.config.generator.fade, s.start, s.config.batch, s.config.lr, s.config.data.height)
        for s in Growth(config).stages
    ]


def test_the_stages(make_config):
    config = make_config(grow_batch={4: 32, 8: 16}, grow_lr={16: 0.001}, lr=0.002)
    assert table(config) == [
        (4, False, 0, 32, 0.002, 4),
        (8, True, 32, 16, 0.002, 8),
        (8, False, 64, 16, 0.002, 8),
        (16, True, 96, 8, 0.001, 16),
        (16, False, 128, 8, 0.001, 16),
    ]
    assert [row[:3] for row in table(make_config(grow_from=8, fade_kimg=0.0))] == [(8, False, 0), (16, False, 32)]
    assert make_config(grow_from=16).growth is None
    assert from_json(GrowthConfig, to_json(config.growth)) == config.growth


def test_the_published_schedule():
    """Karras et al. 2019, appendix C: 8 to 1024, batch 256 down to 32 on 8 GPUs, the rate raised from 128 on."""
    spec = dataclasses.replace(open_dataset(None).spec, height=1024, width=1024)
    stages = [s for s in Growth(make_train_config("stylegan", spec, gpus=8)).stages if not s.config.generator.fade]
    assert [(s.level, s.config.batch) for s in stages] == [
        *((8, 256), (16, 128), (32, 64), (64, 32), (128, 32), (256, 32), (512, 32), (1024, 32))
    ]
    assert [s.config.lr for s in stages] == [0.001] * 4 + [0.0015, 0.002, 0.003, 0.003]
    assert [s.start for s in stages] == [1_200_000 * i for i in range(8)]
    one = Growth(make_train_config("progan", spec)).stages
    assert [s.config.batch for s in one if not s.config.generator.fade] == [128, 128, 128, 64, 32, 16, 8, 4, 4]


def test_alpha_and_what_reals_lose(make_config):
    growth = Growth(make_config())
    assert growth.alpha(31) == 1 and not growth.is_over(31) and growth.is_over(32)
    growth.index = 1
    assert [growth.alpha(n) for n in (32, 40, 64)] == [0, 0.25, 1]
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    low = torch.tensor([[2.5, 4.5], [10.5, 12.5]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(faded_reals(x, 0.0)[0, 0], low) and torch.equal(faded_reals(x, 1.0), x)
    assert torch.allclose(faded_reals(x, 0.25), 0.25 * x + 0.75 * low)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"kimg": 0.128}, "Growing reaches 16x16 at 0.128 kimg, and the run ends at 0.128"),
        ({"grow_from": 32}, "cannot start at level 32: pictures of 16x16 have the levels 4, 8, 16"),
        ({"grow_from": 5}, "cannot start at level 5"),
        ({"grow_batch": {32: 8}}, "does not grow through level 32"),
        ({"grow_batch": {4: 6}, "batch_gpu": 2, "mbstd_group": 2}, "divide"),
        ({"freezed": 2}, "cannot be frozen"),
    ],
)
def test_schedules_that_fit_nothing(make_config, overrides, message):
    with pytest.raises(SganError, match=message):
        Growth(make_config(**overrides))


def test_networks_that_do_not_grow(rgb_set):
    spec = open_dataset(rgb_set).spec
    with pytest.raises(SganError, match="The networks of auto do not grow"):
        Growth(make_train_config("auto", spec, grow_from=4, mbstd_group=4))
    with pytest.raises(SganError, match="--fade-kimg has no effect"):
        make_train_config("auto", spec, fade_kimg=3.0)


def steps(trainer, count):
    for _ in range(count):
        trainer.step()


def test_what_crosses_to_the_next_stage(make_config, make_trainer):
    trainer = make_trainer(make_config(lr=1e-12))  # nothing moves but by growing
    steps(trainer, 4)
    before = {k: v.clone() for k, v in trainer.G.state_dict().items()}
    ema = {k: v.clone() for k, v in trainer.ema.state_dict().items()}
    w_avg = trainer.G.mapping.w_avg.clone()
    steps(trainer, 1)  # a level is added: what was there stays, also the mean of w; Adam begins anew
    assert trainer.config.generator.height == 8 and trainer.config.generator.fade
    for name, tensor in before.items():
        if name != "mapping.w_avg":
            assert torch.allclose(trainer.G.state_dict()[name], tensor, atol=1e-6), name
            assert torch.allclose(trainer.ema.state_dict()[name], ema[name], atol=1e-6), name
    assert w_avg.any() and torch.allclose(trainer.G.mapping.w_avg, w_avg, atol=0.1)
    assert {int(s["step"]) for s in trainer.phases[0].optimizer.state.values()} == {1}
    steps(trainer, 4)  # the level is there: nothing is added, and Adam goes on
    assert trainer.config.generator.height == 8 and not trainer.config.generator.fade
    assert {int(s["step"]) for s in trainer.phases[0].optimizer.state.values()} == {5}
    assert trainer.clock.shown == 72 and trainer.loader.state_dict() == {"position": 72}


def test_a_fade_begins_where_the_level_below_ended(make_config, make_trainer):
    """With alpha 0 the new network draws what the old one drew, twice as large, and D judges it as before."""
    trainer = make_trainer(make_config())
    steps(trainer, 4)
    z, old, D = torch.randn(4, 8), trainer.G, trainer.D
    trainer._grow()
    trainer._fade()
    small, large = old(z), trainer.G(z)
    assert torch.allclose(large, small.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-6)
    assert torch.allclose(trainer.D(large), D(small), atol=1e-5)


def begun(config, folder, kimg=None):
    folder.mkdir(exist_ok=True)
    train(dataclasses.replace(config, kimg=kimg or config.kimg), folder, "cpu", manner=Manner(quiet=True))
    return read_state(list_states(folder)[0])[0]


@pytest.mark.parametrize("at", [0.040, 0.072, 0.104, 0.136])  # in a fade, in a level, in the last fade, in the last
def test_stopped_anywhere_and_gone_on_with(make_config, make_trainer, at):
    config = make_config()
    whole = make_trainer(config)
    steps(whole, 24)
    part = make_trainer(config)
    steps(part, round(at * 1000) // 8)
    other = make_trainer(config)
    other.restore(copy.deepcopy(gather(part.memory)))
    steps(other, 24 - round(at * 1000) // 8)
    for name in ("G", "D", "G_ema"):
        for key, tensor in gather(whole.memory)[name].items():
            assert torch.equal(tensor, gather(other.memory)[name][key]), key
    assert whole.growth.state_dict() == other.growth.state_dict() == {"stage": 4}


def test_snapshots_of_every_stage_draw_at_their_level(make_config, tmp_path):
    config = make_config()
    begun(config, tmp_path / "run")
    sizes = {}
    for path in sorted((tmp_path / "run").glob("snapshot-*.safetensors")):
        model = load_snapshot(path)
        picture = model.G(torch.randn(2, 8))
        assert picture.shape[2:] == (model.info.data.height, model.info.data.width)
        assert model.D(picture).shape == (2, 1)
        sizes[model.info.kimg] = (picture.shape[2], model.info.generator.fade)
    assert sizes == {
        0.032: (4, False),
        0.064: (8, True),
        0.096: (8, False),
        0.128: (16, True),
        0.16: (16, False),
        0.192: (16, False),
    }
    with Image.open(tmp_path / "run" / "phases.png") as strip, Image.open(tmp_path / "run" / "reals.png") as reals:
        assert strip.height > 3 * 96 and strip.width > 8 * 96 and reals.width == 8 * 64
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "8x8 fades in, batch 8" in log and "16x16 is there" in log and "left  >" in log


def test_rectangles_with_alpha(make_config, make_trainer, rgba_set):
    trainer = make_trainer(make_config(rgba_set, kimg=0.256))
    assert (trainer.config.data.height, trainer.config.data.width) == (3, 6)
    steps(trainer, 29)
    assert trainer.G(torch.zeros(1, 8)).shape == (1, 4, 24, 48)


def test_a_model_grows_on_from_its_own_level(make_config, rgb_set, tmp_path):
    """--resume FILE of a level, with a preset that grows: the levels below are not trained again."""
    begun(make_config(), tmp_path / "run")
    snapshot = str(tmp_path / "run" / "snapshot-000000.064.safetensors")
    options = {"grow_kimg": 0.032, "fade_kimg": 0.032, "kimg": 0.192, "mbstd_group": 2, "batch": 8}
    run = plan.fresh(str(rgb_set), "demo-stylegan", snapshot, **options)
    assert run.config.growth.start == 8 and not run.config.generator.fade and run.config.generator.height == 16
    folder = tmp_path / "on"
    folder.mkdir()
    train(run.config, folder, "cpu", run.start, Manner(quiet=True))
    assert load_snapshot(next(folder.glob("snapshot-000000.192*"))).G(torch.zeros(1, 8)).shape[2] == 16
