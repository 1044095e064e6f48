"""Steps: accumulation, reproducibility, phases, restored state."""

import copy
import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import SganError
from stylegan_cli.models.registry import build_generator
from stylegan_cli.snapshot import Snapshot, SnapshotInfo
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.state import gather, restore

BETAS = (0.0, 0.99)


def all_tensors(trainer):
    """Return all tensors of the state, by name."""
    tensors = {}

    def walk(name, value):
        if isinstance(value, torch.Tensor):
            tensors[name] = value.detach().clone()
        elif isinstance(value, dict):
            for k, v in value.items():
                walk(f"{name}.{k}", v)
        elif isinstance(value, (list, tuple)):
            for k, v in enumerate(value):
                walk(f"{name}.{k}", v)
        elif isinstance(value, (int, float)):
            tensors[name] = torch.tensor(value)

    walk("", gather(trainer.stateful))
    return tensors


def run(trainer, steps):
    for _ in range(steps):
        trainer.step()
    return all_tensors(trainer)


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert not [name for name in a if not torch.equal(a[name], b[name])]


@pytest.mark.parametrize("label", [None, "hat"])
def test_the_same_seed_is_bit_exact(make_config, make_trainer, label):
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
def test_gradient_accumulation_changes_nothing(make_config, make_trainer, label, batch_gpu, objective):
    """With all regularizers and groups of 2."""
    config = make_config(label=label, **objective)
    whole = run(make_trainer(config, dtype=torch.float64), 5)
    parts = run(make_trainer(dataclasses.replace(config, batch_gpu=batch_gpu), dtype=torch.float64), 5)
    assert whole.keys() == parts.keys()
    worst = max((whole[k].double() - parts[k].double()).abs().max().item() for k in whole if whole[k].numel())
    assert worst < 1e-9


def test_training_changes_every_parameter(make_config, make_trainer):
    trainer = make_trainer(make_config(label="hat"))
    before = all_tensors(trainer)
    after = run(trainer, 2)
    parameters = [
        f".{n}.{name}" for n in ("G", "D", "G_ema") for name, _ in getattr(trainer.recipe, n[0]).named_parameters()
    ]
    unchanged = [name for name in parameters if torch.equal(before[name], after[name])]
    assert not unchanged
    assert all(value.isfinite().all() for value in after.values())
    assert not any(p.requires_grad for p in trainer.recipe.ema.network.parameters())


def test_training_reduces_the_loss_of_a_discriminator_alone(make_config, make_trainer):
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
    runs = []
    trainer.recipe.phases = [
        dataclasses.replace(p, loss=lambda part, p=p: (runs.append((trainer.clock.step, p.name)), p.loss(part))[1])
        for p in trainer.recipe.phases
    ]
    for _ in range(steps):
        trainer.step()
    return runs


def test_intervals_of_regularizers(make_config, make_trainer):
    runs = count_phases(make_trainer(make_config(r1_interval=3, pl_interval=2)), 7)
    assert [s for s, name in runs if name == "G"] == [s for s, name in runs if name == "D"] == list(range(7))
    assert [s for s, name in runs if name == "D R1"] == [0, 3, 6]
    assert [s for s, name in runs if name == "G path length"] == [0, 2, 4, 6]


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
    """lr c and beta^c with c = k / (k + 1), if a regularizer has its own steps (Karras et al. 2020, appendix B)."""
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
    """One optimizer step, with the configured learning rate and betas."""
    trainer = make_trainer(make_config(lr=0.003, r1_interval=1, pl_weight=0, **options), dtype=torch.float64)
    assert [p.name for p in trainer.recipe.phases] == ["G", "D"]
    (phase,) = (p for p in trainer.recipe.phases if p.name == "D")
    (group,) = phase.optimizer.param_groups
    assert (group["lr"], group["betas"]) == (0.003, BETAS)
    batch, objective = trainer.recipe.next_batch(), trainer.recipe.objective
    expected = objective.discriminator_main(batch) + objective.discriminator_penalties(batch)
    assert phase.loss(batch).item() == pytest.approx(expected.item())


def test_gradients_of_a_lazy_regularizer_are_multiplied_by_its_interval(make_config, make_trainer):
    """Adam gets the interval times the gradient of gamma / 2 mean |dD/dx|^2."""
    trainer = make_trainer(make_config(r1_interval=4), dtype=torch.float64)
    seen, batches = [], []
    trainer.recipe.phases = [p for p in trainer.recipe.phases if p.name == "D R1"]
    (phase,) = trainer.recipe.phases
    phase.optimizer.step = lambda: seen.append([p.grad.clone() for p in trainer.recipe.D.parameters()])
    trainer.recipe.phases = [dataclasses.replace(phase, loss=lambda part: (batches.append(part), phase.loss(part))[1])]
    trainer.step()
    trainer.recipe.D.requires_grad_(True)
    x = batches[0].images.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(trainer.recipe.D(x, batches[0].labels).sum(), x, create_graph=True)
    loss = 4 * 2.0 / 2 * g.square().sum([1, 2, 3]).mean()
    expected = torch.autograd.grad(loss, list(trainer.recipe.D.parameters()), allow_unused=True)
    for a, b in zip(seen[0], expected, strict=True):
        assert torch.allclose(a, torch.zeros_like(a) if b is None else b, rtol=1e-9, atol=1e-12)


def test_a_phase_trains_only_one_network(make_config, make_trainer):
    trainer = make_trainer(make_config())
    g, d = ([p for p in trainer.recipe.phases if p.name == name] for name in "GD")
    trainer.recipe.phases = g
    before = all_tensors(trainer)
    after = run(trainer, 1)
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith(".D."))
    trainer.recipe.phases = d
    last = run(trainer, 1)
    weights = [f".G.{name}" for name, _ in trainer.recipe.G.named_parameters()]
    assert all(torch.equal(after[k], last[k]) for k in weights)


def test_batches_of_real_images(make_config, make_trainer):
    """Images are in [-1, 1], each once per epoch, about half of them mirrored."""
    trainer = make_trainer(make_config(label="hat"))
    seen = [trainer.recipe.next_batch() for _ in range(4)]  # 32 images, the whole dataset
    images, labels = torch.cat([b.images for b in seen]), torch.cat([b.labels for b in seen])
    assert torch.cat([b.index for b in seen]).tolist() == list(range(32))
    assert -1 <= images.min() < images.max() <= 1
    stored = trainer.recipe.dataset.images(range(32)) / 127.5 - 1
    straight = (images[:, None] - stored).abs().amax([2, 3, 4]) < 1e-6  # [shown, stored]
    flipped = (images[:, None] - stored.flip(3)).abs().amax([2, 3, 4]) < 1e-6
    matches = (straight | flipped).int()
    assert matches.sum(0).eq(1).all() and matches.sum(1).eq(1).all()
    assert 8 <= flipped.sum() <= 24
    assert torch.equal(labels, trainer.recipe.dataset.labels(matches.argmax(1)))
    fake = torch.cat([b.fake_labels for b in seen])
    assert fake.sum(1).eq(1).all() and not torch.equal(fake, labels)


def test_without_mirror_nothing_is_flipped(make_config, make_trainer):
    trainer = make_trainer(make_config(mirror=False))
    images = torch.cat([trainer.recipe.next_batch().images for _ in range(4)])
    stored = trainer.recipe.dataset.images(range(32)) / 127.5 - 1
    assert ((images[:, None] - stored).abs().amax([2, 3, 4]) < 1e-6).sum() == 32


# ----------------------------------------------------------------------------------- state, resuming


def test_restored_state_continues_bit_exactly(make_config, make_trainer):
    config = make_config(label="hat", r1_interval=3, pl_interval=2)
    trainer = make_trainer(config)
    run(trainer, 4)
    state = copy.deepcopy(gather(trainer.stateful))
    uninterrupted = run(trainer, 4)
    other = make_trainer(config)
    run(other, 1)  # so that anything that is not restored differs
    restore(other.stateful, state)
    assert other.shown == 32
    assert_equal(uninterrupted, run(other, 4))


def test_state_has_only_types_that_can_be_saved(make_config, make_trainer):
    """Only tensors, numbers, strings and containers: no pickle is needed."""

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
    check(gather(trainer.stateful))


def test_initial_weights(make_config, make_trainer):
    config = make_config()
    trainer = make_trainer(config)
    run(trainer, 3)
    info = SnapshotInfo(config.generator, config.discriminator)
    other = make_trainer(config, start=Snapshot(trainer.recipe.ema.network, trainer.recipe.D, info, Path("x")))
    assert other.shown == 0 and other.recipe.new_tensors == []
    assert_equal(dict(other.recipe.G.state_dict()), dict(trainer.recipe.ema.network.state_dict()))
    assert_equal(dict(other.recipe.D.state_dict()), dict(trainer.recipe.D.state_dict()))
    alone = make_trainer(config, start=Snapshot(trainer.recipe.ema.network, None, info, Path("x")))
    assert_equal(dict(alone.recipe.D.state_dict()), dict(make_trainer(config).recipe.D.state_dict()))


def test_initial_weights_that_partly_match(make_config, make_trainer):
    """Matching tensors are copied by name; the others are listed and initialized as in a new run."""
    old = make_trainer(make_config(label="hat"))
    info = SnapshotInfo(old.recipe.config.generator, old.recipe.config.discriminator)
    new = make_trainer(make_config(), start=Snapshot(old.recipe.G, old.recipe.D, info, Path("x")))
    assert {"G.mapping.fc0.weight", "D.b4.out.weight"} <= set(new.recipe.new_tensors)
    assert not [name for name in new.recipe.new_tensors if ".conv" in name]
    assert torch.equal(new.recipe.G.synthesis.b8.conv0.weight, old.recipe.G.synthesis.b8.conv0.weight)
    assert torch.equal(new.recipe.G.mapping.fc0.weight, make_trainer(make_config()).recipe.G.mapping.fc0.weight)
    new.step()


@pytest.mark.parametrize("size", [(32, 32), (16, 24)])
def test_initial_weights_of_another_size(rgb_set, make_trainer, size):
    """Layers whose names contain their size are those in the same place of the table. Where the shape differs, they are
    initialized."""
    networks = {"channel_base": 64, "channel_max": 8, "batch": 8}
    config = make_train_config("demo-stylegan3", open_dataset(rgb_set).spec, **networks)
    old = build_generator(dataclasses.replace(config.generator, height=size[0], width=size[1]))
    new = make_trainer(config, start=Snapshot(old, None, SnapshotInfo(old.config), Path("x")))
    fit = 0
    for (a, x), (b, y) in zip(old.state_dict().items(), new.recipe.G.state_dict().items(), strict=True):
        assert (x.shape == y.shape) == (f"G.{b}" not in new.recipe.new_tensors)
        fit += a != b and x.shape == y.shape and torch.equal(x, y)
    assert fit >= 9  # tensors of layers with other names
    new.step()


def test_frozen_layers_of_the_discriminator(make_config, make_trainer):
    assert make_trainer(make_config()).recipe.D.layers == (
        *("b16.fromrgb", "b16.conv0", "b16.conv1", "b16.skip", "b8.conv0", "b8.conv1", "b8.skip"),
        *("b4.conv", "b4.fc", "b4.out"),
    )
    trainer = make_trainer(make_config(freezed=4))
    before = {name: p.clone() for name, p in trainer.recipe.D.named_parameters()}
    run(trainer, 2)
    unchanged = {name for name, p in trainer.recipe.D.named_parameters() if torch.equal(before[name], p)}
    assert unchanged == {name for name in before if name.startswith("b16.")}
    with pytest.raises(SganError, match="--freezed is 10, but the discriminator has 10 layers"):
        make_trainer(make_config(freezed=10))


# -------------------------------------------------------------------------------------------- guards


def test_a_non_finite_step_is_skipped(make_config, make_trainer):
    """With one bad image, D's update is skipped, the state stays finite, and the next step trains again."""
    trainer = make_trainer(make_config(pl_weight=0, aug="ada"))
    run(trainer, 1)
    next_batch = trainer.recipe.next_batch

    def bad():
        batch = next_batch()
        batch.images[3, 0, 5, 5] = float("nan")
        return batch

    trainer.recipe.next_batch = bad
    before = {name: p.clone() for name, p in trainer.recipe.D.named_parameters()}
    trainer.step()
    assert all(torch.equal(before[name], p) for name, p in trainer.recipe.D.named_parameters())
    assert (trainer.guard.skipped.item(), trainer.guard.streak()) == (1, 1)
    trainer.recipe.next_batch = next_batch
    after = run(trainer, 3)
    assert trainer.guard.streak() == 0 and trainer.guard.skipped.item() == 1
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(before["b4.out.weight"], trainer.recipe.D.b4.out.weight)
    assert all(value == value for value in trainer.means.take().values())


def test_out_of_memory_halves_batch_gpu(make_config, make_trainer, monkeypatch):
    config = make_config(aug="ada", label="hat")
    expected = run(make_trainer(dataclasses.replace(config, batch_gpu=2)), 4)
    trainer = make_trainer(config)
    discriminate = trainer.recipe.objective._discriminate

    def small_memory(images, *rest):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return discriminate(images, *rest)

    trainer.recipe.objective._discriminate = small_memory
    trainer.fit_memory()
    assert trainer.recipe.config.batch_gpu == trainer.recipe.objective.config.batch_gpu == 2
    assert_equal(expected, run(trainer, 4))


def test_out_of_memory_with_the_smallest_batch_gpu(make_config, make_trainer):
    trainer = make_trainer(make_config(mbstd_group=8))

    def fail(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer.recipe.objective._discriminate = fail
    with pytest.raises(SganError, match="groups of 8 allow"):
        trainer.fit_memory()


ONE, TOGETHER = "with one image at a time", "and batch normalization sees them together"


@pytest.mark.parametrize(
    ("cfg", "options", "words", "hint"),
    [
        ("auto", {"mbstd_group": 4}, "4 images .* groups of 4 allow", "--mbstd-group, --size or --cbase, or {}fp16."),
        ("auto", {"mbstd_group": 1, "precision": "bf16"}, ONE, "--size or --cbase."),
        ("auto", {"batch": 1}, ONE, "--size or --cbase, or {}fp16."),
        ("r3gan", {"batch": 3}, ONE, "--size or --cbase, or {}bf16."),
        ("dcgan", {}, f"12 images .* {TOGETHER}", "--batch-gpu, --size or --cbase, or {}fp16."),
        ("sngan", {"batch": 1}, ONE, "--size or --cbase, or {}fp16."),
        ("demo-stackgan", {}, f"12 images .* {TOGETHER}", "--batch-gpu, --size or --cbase."),
        ("lapgan", {"z_dim": 10}, ONE, "--size or --cbase."),
    ],
)
def test_what_to_do_when_memory_does_not_suffice(make_trainer, rgb_set, cfg, options, words, hint):
    """As few images at a time as possible, then a hint with options that help and that the family takes."""
    small = {"batch": 12, "channel_base": 64, "channel_max": 8} | options
    recipe = make_trainer(make_train_config(cfg, open_dataset(rgb_set).spec, **small)).recipe
    with pytest.raises(SganError, match=words) as caught:
        for _ in range(5):
            recipe.halve_batch_gpu()
    assert caught.value.hint == "Choose a smaller " + hint.format("--precision ")


def test_steps_do_not_use_global_random_generators(make_config, make_trainer):
    """Otherwise random numbers would depend on ranks, on other code, and on where a run was interrupted."""
    trainer = make_trainer(make_config(label="hat", aug="ada", augpipe="bgcfnc"))
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    run(trainer, 2)
    after = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_half_precision_keeps_float32_weights(make_config, make_trainer):
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
    """Captured phases, including double backward and optimizer, equal eager ones as far as those equal themselves: some
    sums of cuDNN have no fixed order, and twelve steps amplify the difference."""
    config = make_config(label="hat", aug="ada", precision=precision)
    trainers = [make_trainer(config, device="cuda", graphs=graphs) for graphs in (False, False, True)]
    a, again, b = (run(trainer, 12) for trainer in trainers)
    for name in a:
        x, other, y = (result[name].double() for result in (a, again, b))
        unsteady = (x - other).abs().amax() if x.numel() else 0
        assert ((x - y).abs() <= 1e-3 * x.abs() + 1e-4 + 8 * unsteady).all(), name


def test_moving_average_of_the_generator(make_config, make_trainer):
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
