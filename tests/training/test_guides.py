"""Guides: their terms in the losses, what they see, and runs that are resumed with them or refused."""

import json

import pytest
import torch

from stylegan_cli.cache import sha256_of
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import SganError
from stylegan_cli.sampling.critics import Critic, CriticInfo, make_classifier, save_critic
from stylegan_cli.training.config import GuideConfig, read_config
from stylegan_cli.training.folders import find_kept, keep_copy
from stylegan_cli.training.guides import plan_guides
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes import gan_plan, gan_resume
from stylegan_cli.training.recipes.gan import train
from stylegan_cli.training.recipes.gan_objective import GanBatch
from stylegan_cli.training.run import RunOptions
from stylegan_cli.training.state_files import list_states, read_state

QUIET = RunOptions(quiet=True)


@pytest.fixture
def make_guide(tmp_path):
    """Save an untrained critic: make_guide(attribute, value, ...) -> its settings in a run."""

    def make(attribute="head", value="bald", weight=1.0, discriminator_weight=0.0, seed=0, shape=(3, 16, 16)):
        torch.manual_seed(seed)
        path = tmp_path / f"{attribute}-{value}-{seed}.safetensors"
        info = CriticInfo(attribute, value, *shape, True, accuracy=1, low=-0.1, high=-0.03)
        save_critic(path, Critic(info, make_classifier(attribute, value, shape[0], True)))
        return GuideConfig(str(path), sha256_of(path), attribute, value, weight, discriminator_weight)

    return make


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 16, 16, generator=g, dtype=torch.float64)
    return GanBatch(images, torch.zeros(8, 0), torch.zeros(8, 0), torch.arange(8))


def record(module, name, monkeypatch):
    """Record the images and the results of a module's method."""
    calls, method = [], getattr(module, name)

    def wrapped(images, *args, **options):
        result = method(images, *args, **options)
        calls.append((images, result[0] if isinstance(result, tuple) else result))
        return result

    monkeypatch.setattr(module, name, wrapped)
    return calls


def split_kinds(x, config):  # [2 N, ...] -> [N, ...] of generated and of real images
    """What D's one pass over both gets or gives: each group of the minibatch deviation has images of one kind."""
    return (part.flatten(0, 1) for part in x.unflatten(0, (config.discriminator.batch_group, 2, -1)).unbind(1))


def objective_of(make_trainer, config, monkeypatch):
    """The objective of a run in float64, and what D and each critic saw and said."""
    recipe = make_trainer(config, dtype=torch.float64).recipe
    seen = [record(recipe.D, "forward_with_classes", monkeypatch)]
    seen += [record(guide.critic, "forward", monkeypatch) for guide in recipe.objective.guides]
    return recipe.objective, seen


def test_least_squares_are_the_published_objective(make_config, make_trainer, make_guide, batch, monkeypatch):
    """(D(x) - 1)^2 + D(G(z))^2 + 0.1 f(C) (D(G(z)) - 1)^2, and 2 (D(G(z)) - 1)^2 + 30 (f(C) - 1)^2: a half and a
    quarter of them, which Adam does not notice."""
    guide = make_guide(weight=15, discriminator_weight=0.1)
    config = make_config(loss="lsgan", guides=(guide,), gamma=0.0, pl_weight=0.0)
    objective, (d, c) = objective_of(make_trainer, config, monkeypatch)
    critic = objective.guides[0].critic
    loss = objective.generator_main(batch)
    (_, logits), (_, judged) = d.pop(), c.pop()
    f = ((judged - critic.info.low) / (critic.info.high - critic.info.low)).clamp(max=1)
    assert 0 < (f < 1).sum() < 8  # both sides of the bound
    expected = (2 * (logits[:, 0] - 1) ** 2 + 30 * (f - 1) ** 2).sum()
    assert loss == pytest.approx(expected.item() / 4, rel=1e-12)
    loss = objective.discriminator_main(batch)
    (_, both), (_, judged) = *d, *c
    fake, real = split_kinds(both, config)
    f = ((judged - critic.info.low) / (critic.info.high - critic.info.low)).clamp(0, 1)
    expected = ((real[:, 0] - 1) ** 2 + fake[:, 0] ** 2 + 0.1 * f * (fake[:, 0] - 1) ** 2).sum()
    assert loss == pytest.approx(expected.item() / 2, rel=1e-12)


def test_several_guides_add_up(make_config, make_trainer, make_guide, batch, monkeypatch):
    guides = (make_guide(weight=3, discriminator_weight=0.5), make_guide("beard", "yes", 0.5, seed=1))
    plain, _ = objective_of(make_trainer, make_config(), monkeypatch)
    objective, (_, *critics) = objective_of(make_trainer, make_config(guides=guides), monkeypatch)
    difference = objective.generator_main(batch) - plain.generator_main(batch)
    terms = [torch.nn.functional.softplus(-calls.pop()[1]).sum() for calls in critics]
    assert difference.item() == pytest.approx((3 * terms[0] + 0.5 * terms[1]).item(), rel=1e-9)
    means = objective.means.take()
    assert means["loss/guide head=bald"] == pytest.approx(terms[0].item() / 8)
    assert means["loss/guide beard=yes"] == pytest.approx(terms[1].item() / 8)
    objective.discriminator_main(batch)
    assert [len(calls) for calls in critics] == [1, 0]  # the second has no weight there


def test_a_critic_sees_what_the_discriminator_sees(make_config, make_trainer, make_guide, batch, monkeypatch):
    guide = make_guide(discriminator_weight=0.5)
    config = make_config(guides=(guide,), aug="fixed", aug_p=0.8)
    objective, (d, c) = objective_of(make_trainer, config, monkeypatch)
    objective.generator_main(batch)
    assert torch.equal(d[0][0], c[0][0])
    objective.discriminator_main(batch)
    fakes, _ = split_kinds(d[1][0], config)
    assert torch.equal(fakes, c[1][0]) and not torch.equal(c[0][0], c[1][0])


def test_the_generator_follows_its_guide(make_config, make_trainer, make_guide):
    trainer = make_trainer(make_config(guides=(make_guide(weight=20),), aug="noaug", pl_weight=0.0, lr=0.01))
    values = []
    for _ in range(12):
        trainer.step()
        values.append(trainer.means.take()["loss/guide head=bald"])
    assert max(values[-3:]) < min(values[:3])


def test_in_float16_and_with_the_reward_of_every_objective(make_config, make_trainer, make_guide):
    guide = make_guide(discriminator_weight=0.2)
    for options in ({"precision": "fp16"}, {"loss": "hinge"}, {"loss": "wgan"}, {"loss": "saturating"}):
        trainer = make_trainer(make_config(guides=(guide,), **{"gamma": 0.0} | options))
        trainer.step()
        means = trainer.means.take()
        assert 0 < means["loss/guide head=bald"] < 10 and trainer.guard.streak() == 0


def test_a_growing_run(rgb_set, make_trainer, make_guide):
    """Smaller stages are enlarged to the critic's size."""
    config = make_train_config(
        *("demo-stylegan", open_dataset(rgb_set).spec),
        **{"batch": 8, "mbstd_group": 2, "channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8},
        **{"mapping_layers": 2, "grow_kimg": 0.008, "fade_kimg": 0.008, "kimg": 1.0, "guides": (make_guide(),)},
    )
    trainer = make_trainer(config)
    for _ in range(4):
        trainer.step()
        assert trainer.means.take()["loss/guide head=bald"] > 0
    assert trainer.recipe.config.generator.height == 16 and len(trainer.recipe.objective.guides) == 1


# ----------------------------------------------------------------------------------------------- runs


def resume(folder, kimg, **options):
    plan = gan_resume.plan_resumed_run(folder, {"kimg": kimg, **options})
    train(plan.config, folder, "cpu", plan.start, QUIET, plan.dataset)


def test_a_resumed_run_is_the_same_to_the_bit(train_run, make_guide):
    guides = (make_guide(discriminator_weight=0.1), make_guide("beard", "yes", seed=1))
    uninterrupted, _ = train_run(name="uninterrupted", kimg=0.072, guides=guides)
    folder, _ = train_run(guides=guides)
    stored = json.loads((folder / "config.json").read_text())
    assert read_config(stored).guides == guides and stored["guides"][0]["content_hash"] == guides[0].content_hash
    resume(folder, 0.072)
    a, b = (read_state(list_states(x)[0])[0] for x in (uninterrupted, folder))
    for name in ("G", "D", "G_ema"):
        assert all(torch.equal(a[name][k], b[name][k]) for k in a[name])
    plain, _ = train_run(name="plain", kimg=0.072)
    c = read_state(list_states(plain)[0])[0]
    assert any(not torch.equal(a["G"][k], c["G"][k]) for k in a["G"])


def test_a_run_does_not_continue_without_its_guide(train_run, make_guide, tmp_path):
    guide = make_guide()
    folder, _ = train_run(guides=(guide,))
    (copy,) = folder.glob("head-bald-0-*.safetensors")
    copy.unlink()
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    path = tmp_path / "head-bald-0.safetensors"
    content = path.read_bytes()
    make_guide(seed=1)
    path.write_bytes((tmp_path / "head-bald-1.safetensors").read_bytes())
    with pytest.raises(SganError, match="has changed since this run was started"):
        resume(folder, 0.072)
    path.unlink()
    with pytest.raises(SganError, match="does not exist"):
        resume(folder, 0.072)
    path.write_bytes(content)
    for options in ({"guide": ["x"]}, {"guide_weight": [2.0]}):
        with pytest.raises(SganError, match="cannot be changed when a run is resumed"):
            resume(folder, 0.072, **options)
    assert before == {p.name: p.read_bytes() for p in folder.iterdir()}
    stored = json.loads((folder / "config.json").read_text())
    for guides in ([], [{**stored["guides"][0], "weight": 0.5}]):
        (folder / "config.json").write_text(json.dumps({**stored, "guides": guides}))
        with pytest.raises(SganError, match="differs from the settings of the last state: guides"):
            resume(folder, 0.072)


def test_a_run_keeps_a_copy_of_its_guide(train_run, make_guide, tmp_path):
    """`sgan critic fit` writes the next critic to the same file."""
    guide = make_guide()
    whole, _ = train_run(name="whole", kimg=0.096, guides=(guide,))
    folder, _ = train_run(guides=(guide,))
    path = tmp_path / "head-bald-0.safetensors"
    (copy,) = folder.glob("head-bald-0-*.safetensors")
    assert copy.read_bytes() == path.read_bytes()
    path.write_bytes(b"another")
    resume(folder, 0.072)
    path.unlink()
    resume(folder, 0.096)
    a, b = (read_state(list_states(x)[0])[0] for x in (whole, folder))
    assert all(torch.equal(a["G"][name], b["G"][name]) for name in a["G"])
    assert read_config(json.loads((folder / "config.json").read_text())).guides[0].path == str(copy)


def test_only_the_file_of_the_run_is_kept(tmp_path):
    path, run = tmp_path / "critic.safetensors", tmp_path / "run"
    run.mkdir()
    path.write_bytes(b"first")
    content_hash = sha256_of(path)
    path.write_bytes(b"second")
    keep_copy(run, str(path), content_hash)
    assert not list(run.iterdir()) and find_kept(run, str(path), content_hash) == str(path)
    path.write_bytes(b"first")
    keep_copy(run, str(path), content_hash)
    (copy,) = run.iterdir()
    assert find_kept(run, str(path), content_hash) == str(path)
    path.unlink()
    assert find_kept(run, str(path), content_hash) == str(copy)
    keep_copy(run, str(copy), content_hash)
    assert list(run.iterdir()) == [copy]


def test_plans(rgb_set, make_guide):
    guides = [make_guide(), make_guide("beard", "yes", seed=1)]
    paths = [guide.path for guide in guides]

    def plan(**options):
        found = gan_plan.plan_new_run(str(rgb_set), "auto", guide=paths, channel_base=64, channel_max=8, **options)
        return [(g.weight, g.discriminator_weight) for g in found.config.guides], found.config

    assert plan()[0] == [(1, 0), (1, 0)]
    assert plan(loss="lsgan")[0] == [(15, 0), (15, 0)]
    weights, config = plan(guide_weight=[2.0, 3.0], guide_discriminator=[0.1])
    assert weights == [(2, 0.1), (3, 0.1)]
    assert [g.content_hash for g in config.guides] == [g.content_hash for g in guides]
    assert "guide head=bald 2 (discriminator 0.1), guide beard=yes 3 (" in gan_plan.describe_run(config, None)
    with pytest.raises(SganError, match="There are 2 --guide-weight for 1 --guide"):
        plan_guides(paths[:1], [1.0, 2.0], (), "logistic", config.data)
    with pytest.raises(SganError, match="--guide-discriminator has no effect without --guide"):
        plan_guides([], (), [1.0], "logistic", config.data)


def test_guides_that_do_not_fit(rgb_set, make_guide):
    data = gan_plan.plan_new_run(str(rgb_set), "auto").config.data
    bald = make_guide().path
    for other, words in (
        (make_guide("head", "hair", seed=1), "exclude each other"),
        (make_guide(seed=2), "Two guides are for head=bald"),
        (make_guide("beard", "yes", shape=(1, 16, 16)), "images with 1 channels"),
        (make_guide("hat", "yes", shape=(3, 16, 24)), "other proportions"),
    ):
        with pytest.raises(SganError, match=words):
            plan_guides([bald, other.path], (), (), "logistic", data)
    larger = make_guide("hat", "yes", shape=(3, 64, 64))
    assert plan_guides([larger.path], (), (), "logistic", data)[0].value == "yes"
    with pytest.raises(SganError, match="does not exist"):
        plan_guides(["missing.safetensors"], (), (), "logistic", data)
    with pytest.raises(SganError, match="not an attribute critic, or it is damaged"):
        plan_guides([str(rgb_set)], (), (), "logistic", data)
