"""Steps: the same numbers whatever the parts, the same bits with the same seed, phases in turn, state to go on from."""

import copy
import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.snapshot import Snapshot, SnapshotInfo
from stylegan_cli.training.state import gather, restore

BETAS = (0.0, 0.99)


def everything(trainer):
    """All tensors that a run remembers, by name."""
    found = {}

    def walk(name, value):
        if isinstance(value, torch.Tensor):
            found[name] = value.detach().clone()
        elif isinstance(value, dict):
            for k, v in value.items():
                walk(f"{name}.{k}", v)
        elif isinstance(value, (list, tuple)):
            for k, v in enumerate(value):
                walk(f"{name}.{k}", v)
        elif isinstance(value, (int, float)):
            found[name] = torch.tensor(value)

    walk("", gather(trainer.memory))
    return found


def run(trainer, steps):
    for _ in range(steps):
        trainer.step()
    return everything(trainer)


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert not [name for name in a if not torch.equal(a[name], b[name])]


@pytest.mark.parametrize("label", [None, "hat"])
def test_the_same_seed_gives_the_same_bits(make_config, make_trainer, label):
    config = make_config(label=label)
    torch.manual_seed(1)
    first = run(make_trainer(config), 4)
    torch.manual_seed(2)
    torch.rand(100)
    assert_equal(first, run(make_trainer(config), 4))


def test_another_seed_gives_another_run(make_config, make_trainer):
    runs = [run(make_trainer(make_config(seed=seed)), 1) for seed in (0, 1)]
    assert not torch.equal(runs[0][".G.synthesis.b4.const"], runs[1][".G.synthesis.b4.const"])


WGAN = {"loss": "wgan", "gamma": 0, "gp_weight": 10.0, "aug": "noaug"}


@pytest.mark.parametrize(
    ("label", "batch_gpu", "objective"),
    [
        (None, 2, {}),
        ("labels", 4, {}),
        ("labels", 4, {"loss": "hinge", "r2_gamma": 3.0, "aux_classifier": True}),
        ("labels", 2, {**WGAN, "r1_interval": 1}),
    ],
)
def test_parts_of_a_batch_add_up(make_config, make_trainer, label, batch_gpu, objective):
    """Gradient accumulation changes nothing, with all regularizers and groups of 2."""
    config = make_config(label=label, **objective)
    whole = run(make_trainer(config, dtype=torch.float64), 5)
    parts = run(make_trainer(dataclasses.replace(config, batch_gpu=batch_gpu), dtype=torch.float64), 5)
    assert whole.keys() == parts.keys()
    worst = max((whole[k].double() - parts[k].double()).abs().max().item() for k in whole if whole[k].numel())
    assert worst < 1e-9


def test_training_changes_every_parameter(make_config, make_trainer):
    trainer = make_trainer(make_config(label="hat"))
    before = everything(trainer)
    after = run(trainer, 2)
    parameters = [
        f".{n}.{name}" for n in ("G", "D", "G_ema") for name, _ in getattr(trainer.recipe, n[0]).named_parameters()
    ]
    still = [name for name in parameters if torch.equal(before[name], after[name])]
    assert not still
    assert all(value.isfinite().all() for value in after.values())
    assert not any(p.requires_grad for p in trainer.recipe.ema.network.parameters())


def test_learning_reduces_the_loss_of_a_discriminator_alone(make_config, make_trainer):
    trainer = make_trainer(make_config(gamma=0, lr=0.01, pl_weight=0))
    trainer.recipe.phases = [p for p in trainer.recipe.phases if p.name == "D"]
    losses = []
    for _ in range(3):
        for _ in range(8):
            trainer.step()
        losses.append(trainer.means.take()["loss/D"])
    assert losses[-1] < 0.6 * losses[0]


# -------------------------------------------------------------------------------------------- phases


def count_phases(trainer, steps):
    ran = []
    trainer.recipe.phases = [
        dataclasses.replace(p, loss=lambda part, p=p: (ran.append((trainer.clock.step, p.name)), p.loss(part))[1])
        for p in trainer.recipe.phases
    ]
    for _ in range(steps):
        trainer.step()
    return ran


def test_regularizers_take_turns(make_config, make_trainer):
    ran = count_phases(make_trainer(make_config(r1_interval=3, pl_interval=2)), 7)
    assert [s for s, name in ran if name == "G"] == [s for s, name in ran if name == "D"] == list(range(7))
    assert [s for s, name in ran if name == "D R1"] == [0, 3, 6]
    assert [s for s, name in ran if name == "G path length"] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["G", "G path length", "D", "D R1"]),
        ({"pl_weight": 0}, ["G", "D", "D R1"]),
        ({"gamma": 0}, ["G", "G path length", "D"]),
        ({"gamma": 0, "pl_weight": 0}, ["G", "D"]),
        ({"r2_gamma": 1.0}, ["G", "G path length", "D", "D R1 R2"]),
        (WGAN, ["G", "G path length", "D", "D GP"]),
    ],
)
def test_phases_and_the_correction_of_adam(make_config, make_trainer, options, names):
    """c = k / (k + 1): lr c, beta^c, where a regularizer has steps of its own (Karras et al. 2020, appendix B)."""
    trainer = make_trainer(make_config(lr=0.003, r1_interval=16, pl_interval=4, **options))
    assert [p.name for p in trainer.recipe.phases] == names
    for phase in trainer.recipe.phases:
        (group,) = phase.optimizer.param_groups
        interval = {"G": 4, "D": 16}[phase.name[0]]
        c = interval / (interval + 1) if sum(name[0] == phase.name[0] for name in names) == 2 else 1
        assert group["lr"] == pytest.approx(0.003 * c)
        assert group["betas"] == pytest.approx((BETAS[0] ** c, BETAS[1] ** c))
        assert group["eps"] == 1e-8
    assert len({id(p.optimizer) for p in trainer.recipe.phases}) == 2


@pytest.mark.parametrize("options", [{}, WGAN], ids=["r1", "gp"])
def test_penalties_of_every_step_are_part_of_its_loss(make_config, make_trainer, options):
    """One step of the optimizer, at the rate and the betas that were asked for."""
    trainer = make_trainer(make_config(lr=0.003, r1_interval=1, pl_weight=0, **options), dtype=torch.float64)
    assert [p.name for p in trainer.recipe.phases] == ["G", "D"]
    (phase,) = (p for p in trainer.recipe.phases if p.name == "D")
    (group,) = phase.optimizer.param_groups
    assert (group["lr"], group["betas"]) == (0.003, BETAS)
    batch, objective = trainer.recipe.next_batch(), trainer.recipe.objective
    whole = objective.discriminator_main(batch) + objective.discriminator_penalties(batch)
    assert phase.loss(batch).item() == pytest.approx(whole.item())


def test_gradients_of_a_lazy_regularizer_are_weighted_up(make_config, make_trainer):
    """The gradient that Adam sees is the interval times that of gamma / 2 mean |dD/dx|^2."""
    trainer = make_trainer(make_config(r1_interval=4), dtype=torch.float64)
    seen, batches = [], []
    trainer.recipe.phases = [p for p in trainer.recipe.phases if p.name == "D R1"]
    (phase,) = trainer.recipe.phases
    phase.optimizer.step = lambda: seen.append(
        [p.grad.clone() for p in trainer.recipe.D.parameters() if p.grad is not None]
    )
    trainer.recipe.phases = [dataclasses.replace(phase, loss=lambda part: (batches.append(part), phase.loss(part))[1])]
    trainer.step()
    trainer.recipe.D.requires_grad_(True)
    x = batches[0].images.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(trainer.recipe.D(x, batches[0].labels).sum(), x, create_graph=True)
    loss = 4 * 2.0 / 2 * g.square().sum([1, 2, 3]).mean()
    expected = torch.autograd.grad(loss, list(trainer.recipe.D.parameters()), allow_unused=True)
    for mine, theirs in zip(seen[0], (e for e in expected if e is not None), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_only_one_network_learns_in_a_phase(make_config, make_trainer):
    trainer = make_trainer(make_config())
    g, d = ([p for p in trainer.recipe.phases if p.name == name] for name in "GD")
    trainer.recipe.phases = g
    before = everything(trainer)
    after = run(trainer, 1)
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith(".D."))
    trainer.recipe.phases = d
    last = run(trainer, 1)
    weights = [f".G.{name}" for name, _ in trainer.recipe.G.named_parameters()]
    assert all(torch.equal(after[k], last[k]) for k in weights)


def test_what_the_discriminator_is_shown(make_config, make_trainer):
    """Images in -1 ... 1, each of an epoch once, about half of them mirrored."""
    trainer = make_trainer(make_config(label="hat"))
    seen = [trainer.recipe.next_batch() for _ in range(4)]  # 32 images, the whole set
    images, labels = torch.cat([b.images for b in seen]), torch.cat([b.labels for b in seen])
    assert torch.cat([b.index for b in seen]).tolist() == list(range(32))
    assert -1 <= images.min() < images.max() <= 1
    stored = trainer.recipe.dataset.images(range(32)) / 127.5 - 1
    straight = (images[:, None] - stored).abs().amax([2, 3, 4]) < 1e-6  # [shown, stored]
    flipped = (images[:, None] - stored.flip(3)).abs().amax([2, 3, 4]) < 1e-6
    which = (straight | flipped).int()
    assert which.sum(0).eq(1).all() and which.sum(1).eq(1).all()
    assert 8 <= flipped.sum() <= 24
    assert torch.equal(labels, trainer.recipe.dataset.labels(which.argmax(1)))
    fake = torch.cat([b.fake_labels for b in seen])
    assert fake.sum(1).eq(1).all() and not torch.equal(fake, labels)


def test_without_mirror_nothing_is_flipped(make_config, make_trainer):
    trainer = make_trainer(make_config(mirror=False))
    images = torch.cat([trainer.recipe.next_batch().images for _ in range(4)])
    stored = trainer.recipe.dataset.images(range(32)) / 127.5 - 1
    assert ((images[:, None] - stored).abs().amax([2, 3, 4]) < 1e-6).sum() == 32


# ----------------------------------------------------------------------------------- state, restarts


def test_a_restored_run_goes_on_as_if_it_had_not_stopped(make_config, make_trainer):
    config = make_config(label="hat", r1_interval=3, pl_interval=2)
    trainer = make_trainer(config)
    run(trainer, 4)
    state = copy.deepcopy(gather(trainer.memory))
    uninterrupted = run(trainer, 4)
    other = make_trainer(config)
    run(other, 1)  # so that whatever is not restored would differ
    restore(other.memory, state)
    assert other.shown == 32
    assert_equal(uninterrupted, run(other, 4))


def test_state_survives_safetensors_types_only(make_config, make_trainer):
    """Nothing but tensors, numbers, strings and containers: it can be written without a pickle."""

    def check(value):
        if isinstance(value, dict):
            for v in value.values():
                check(v)
        elif isinstance(value, (list, tuple)):
            for v in value:
                check(v)
        else:
            assert value is None or isinstance(value, (torch.Tensor, int, float, str, bool)), type(value)

    trainer = make_trainer(make_config())
    trainer.step()
    check(gather(trainer.memory))


def test_a_run_from_weights(make_config, make_trainer):
    config = make_config()
    trainer = make_trainer(config)
    run(trainer, 3)
    info = SnapshotInfo(config.generator, config.discriminator)
    other = make_trainer(config, start=Snapshot(trainer.recipe.ema.network, trainer.recipe.D, info, Path("x")))
    assert other.shown == 0 and other.recipe.fresh == []
    assert_equal(dict(other.recipe.G.state_dict()), dict(trainer.recipe.ema.network.state_dict()))
    assert_equal(dict(other.recipe.D.state_dict()), dict(trainer.recipe.D.state_dict()))
    alone = make_trainer(config, start=Snapshot(trainer.recipe.ema.network, None, info, Path("x")))
    assert_equal(dict(alone.recipe.D.state_dict()), dict(make_trainer(config).recipe.D.state_dict()))


def test_a_run_from_weights_of_another_shape(make_config, make_trainer):
    """What fits is taken over by name; the rest is listed and begins as in a fresh run."""
    old = make_trainer(make_config(label="hat"))
    info = SnapshotInfo(old.recipe.config.generator, old.recipe.config.discriminator)
    new = make_trainer(make_config(), start=Snapshot(old.recipe.G, old.recipe.D, info, Path("x")))
    assert {"G.mapping.fc0.weight", "D.b4.out.weight"} <= set(new.recipe.fresh)
    assert not [name for name in new.recipe.fresh if ".conv" in name]
    assert torch.equal(new.recipe.G.synthesis.b8.conv0.weight, old.recipe.G.synthesis.b8.conv0.weight)
    assert torch.equal(new.recipe.G.mapping.fc0.weight, make_trainer(make_config()).recipe.G.mapping.fc0.weight)
    new.step()


def test_frozen_layers_of_the_discriminator(make_config, make_trainer):
    assert make_trainer(make_config()).recipe.D.layers == (
        *("b16.fromrgb", "b16.conv0", "b16.conv1", "b16.skip", "b8.conv0", "b8.conv1", "b8.skip"),
        *("b4.conv", "b4.fc", "b4.out"),
    )
    trainer = make_trainer(make_config(freezed=4))
    before = {name: p.clone() for name, p in trainer.recipe.D.named_parameters()}
    run(trainer, 2)
    still = {name for name, p in trainer.recipe.D.named_parameters() if torch.equal(before[name], p)}
    assert still == {name for name in before if name.startswith("b16.")}
    with pytest.raises(SganError, match="has 10 layers; 10 of them"):
        make_trainer(make_config(freezed=10))


# -------------------------------------------------------------------------------------------- guards


def test_a_step_that_is_not_finite_is_skipped(make_config, make_trainer):
    """One bad image: D's step is left out, nothing that is kept is spoilt, and the next step learns again."""
    trainer = make_trainer(make_config(pl_weight=0, aug="ada"))
    run(trainer, 1)
    good = trainer.recipe.next_batch

    def bad():
        batch = good()
        batch.images[3, 0, 5, 5] = float("nan")
        return batch

    trainer.recipe.next_batch = bad
    before = {name: p.clone() for name, p in trainer.recipe.D.named_parameters()}
    trainer.step()
    assert all(torch.equal(before[name], p) for name, p in trainer.recipe.D.named_parameters())
    assert (trainer.guard.skipped.item(), trainer.guard.streak()) == (1, 1)
    trainer.recipe.next_batch = good
    after = run(trainer, 3)
    assert trainer.guard.streak() == 0 and trainer.guard.skipped.item() == 1
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(before["b4.out.weight"], trainer.recipe.D.b4.out.weight)
    assert all(value == value for value in trainer.means.take().values())


def test_out_of_memory_halves_what_is_looked_at_at_a_time(make_config, make_trainer, monkeypatch):
    config = make_config(aug="ada", label="hat")
    usual = run(make_trainer(dataclasses.replace(config, batch_gpu=2)), 4)
    trainer = make_trainer(config)
    judge = trainer.recipe.objective._judge

    def small_memory(images, *rest):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return judge(images, *rest)

    trainer.recipe.objective._judge = small_memory
    trainer.fit_memory()
    assert trainer.recipe.config.batch_gpu == trainer.recipe.objective.config.batch_gpu == 2
    assert_equal(usual, run(trainer, 4))


def test_out_of_memory_and_no_way_out(make_config, make_trainer):
    trainer = make_trainer(make_config(mbstd_group=8))
    trainer.recipe.objective._judge = lambda *args: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(SganError, match="groups of 8 allow"):
        trainer.fit_memory()


def test_a_step_draws_nothing_from_a_global_generator(make_config, make_trainer):
    """Else what is drawn would depend on ranks, on what other code draws, and on where a run was interrupted."""
    trainer = make_trainer(make_config(label="hat", aug="ada", augpipe="bgcfnc"))
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    run(trainer, 2)
    after = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_half_precision_keeps_its_weights_in_full(make_config, make_trainer):
    trainer = make_trainer(make_config(precision="bf16", aug="ada"))
    after = run(trainer, 2)
    for part in (trainer.recipe.G, trainer.recipe.D, trainer.recipe.ema.network):
        assert {p.dtype for p in part.parameters()} == {torch.float32}
    assert all(value.isfinite().all() for value in after.values())
    assert trainer.guard.skipped.item() == 0
    assert not torch.equal(
        after[".G.synthesis.b16.conv1.weight"], run(make_trainer(make_config()), 2)[".G.synthesis.b16.conv1.weight"]
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graphs_change_nothing(make_config, make_trainer, precision):
    """Phases captured, double backward and optimizer inside, against the same steps run eagerly."""
    config = make_config(label="hat", aug="ada", precision=precision)
    eager, captured = (make_trainer(config, device="cuda", graphs=graphs) for graphs in (False, True))
    a, b = run(eager, 12), run(captured, 12)
    for name in a:
        assert torch.allclose(a[name].double(), b[name].double(), rtol=1e-3, atol=1e-4), name


def test_the_generators_average_follows(make_config, make_trainer):
    config = make_config(ema_kimg=0.05, pl_weight=0, gamma=0)
    trainer = make_trainer(dataclasses.replace(config, ema_rampup=None), dtype=torch.float64)
    name = "synthesis.b8.conv0.weight"
    ema = trainer.recipe.G.get_parameter(name).clone()
    for _ in range(3):
        trainer.step()
        beta = 0.5 ** (8 / 50)
        ema = beta * ema + (1 - beta) * trainer.recipe.G.get_parameter(name)
    assert torch.allclose(trainer.recipe.ema.network.get_parameter(name), ema, rtol=1e-12)
    assert torch.equal(trainer.recipe.ema.network.mapping.w_avg, trainer.recipe.G.mapping.w_avg)
