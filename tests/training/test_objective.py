"""What each phase trains on: parts of a batch, mixed latents, and weights of the losses."""

import dataclasses

import pytest
import torch

from stylegan_cli.layers import append_minibatch_std
from stylegan_cli.sampling import counter
from stylegan_cli.training import losses
from stylegan_cli.training.objective import Batch
from stylegan_cli.training.regularizers import path_lengths, r1_penalty


def batch_of(n, offset=0):
    index = torch.arange(offset, offset + n)
    images = index.double()[:, None, None, None].expand(-1, 3, 16, 16) / 100
    return Batch(images, torch.zeros(n, 0), torch.zeros(n, 0), index)


def test_parts_are_dealt_round_robin():
    parts = batch_of(12).split(4)
    assert [p.index.tolist() for p in parts] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert all(torch.equal(p.images[:, 0, 0, 0], p.index.double() / 100) for p in parts)
    assert batch_of(4).split(4)[0].index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("size", [4, 8])
def test_parts_keep_the_groups_of_the_minibatch_deviation(group, ranks, size):
    """Ranks take every other picture, then parts of their share: the deviations are those of the whole batch."""
    torch.manual_seed(0)
    x = torch.randn(16, 3, 16, 16).double()
    whole = append_minibatch_std(x, group)
    for rank in range(ranks):
        share = slice(rank, None, ranks)
        batch = dataclasses.replace(batch_of(16), images=x, index=torch.arange(16))
        mine = Batch(batch.images[share], batch.labels[share], batch.fake_labels[share], batch.index[share])
        for part in mine.split(size):
            assert torch.allclose(append_minibatch_std(part.images, group), whole[part.index])


def test_the_head_of_a_batch():
    assert batch_of(8).head(3).index.tolist() == [0, 1, 2]


@pytest.fixture
def trainer(make_config, make_trainer):
    return make_trainer(make_config(), dtype=torch.float64)


def recorded_ws(trainer, phase, batch):
    """The latents that reach synthesis in a phase."""
    seen = []
    handle = trainer.G.synthesis.register_forward_pre_hook(lambda m, args, kw: seen.append(args[0]), with_kwargs=True)
    getattr(trainer.objective, phase)(batch)
    handle.remove()
    return seen[0].detach()


def test_styles_are_mixed_from_a_random_layer_on(trainer):
    """w1 ... w1 w2 ... w2 in about 0.9 of the pictures, every cut between 1 and num_ws - 1 about as often."""
    batch = batch_of(600)
    with torch.no_grad():
        ws = recorded_ws(trainer, "generator_main", batch)
        z, z2 = (counter.normal(0, f"g.{name}", batch.index, (8,)).double() for name in ("z", "z2"))
        first, second = trainer.G.mapping(z), trainer.G.mapping(z2)
    is_second = (ws == second).all(2)
    assert ((ws == first).all(2) | is_second).all()
    cut = (~is_second).sum(1)
    layers = torch.arange(ws.shape[1])
    assert torch.equal(is_second, layers[None] >= cut[:, None])
    counts = torch.bincount(cut, minlength=7).tolist()
    assert counts[0] == 0 and 35 < counts[6] < 90  # about 60 are not mixed
    assert all(70 < n < 150 for n in counts[1:6])  # about 108 each


def test_without_mixing(make_config, make_trainer):
    trainer = make_trainer(make_config(mixing_prob=0), dtype=torch.float64)
    with torch.no_grad():
        ws = recorded_ws(trainer, "generator_main", batch_of(8))
    assert torch.equal(ws, ws[:, :1].expand_as(ws))


def test_phases_draw_different_latents(trainer):
    batch = batch_of(8)
    trainer.G.requires_grad_(True)
    phases = ("generator_main", "generator_path_length", "discriminator_main")
    a, b, c = (recorded_ws(trainer, phase, batch)[:4, 0] for phase in phases)
    assert not torch.allclose(a, b) and not torch.allclose(a, c) and not torch.allclose(b, c)
    later = recorded_ws(trainer, "generator_main", batch_of(8, offset=8))
    assert not torch.allclose(a, later[:4, 0])


def test_main_losses_are_sums_over_the_batch(trainer):
    batch = batch_of(4)
    loss = trainer.objective.discriminator_main(batch)
    means = trainer.means.take()
    assert loss.item() == pytest.approx(4 * means["loss/D"])
    real = trainer.D(batch.images, batch.labels)
    assert means["score/real"] == pytest.approx(real.mean().item())
    loss = trainer.objective.generator_main(batch)
    assert loss.item() == pytest.approx(4 * trainer.means.take()["loss/G"])
    assert losses.generator_logistic(torch.zeros(1, 1)).item() > 0


def test_r1_is_weighted_by_half_of_gamma(trainer):
    torch.manual_seed(0)
    batch = dataclasses.replace(batch_of(4), images=torch.randn(4, 3, 16, 16).double())
    loss = trainer.objective.discriminator_r1(batch)
    x = batch.images.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(trainer.D(x, batch.labels).sum(), x)
    assert loss.item() == pytest.approx(2.0 / 2 * g.square().sum().item())


def test_path_length_uses_half_of_the_batch_at_the_weight_of_all(trainer):
    trainer.G.requires_grad_(True)
    loss = trainer.objective.generator_path_length(batch_of(8))
    means = trainer.means.take()
    assert loss.item() == pytest.approx(8 * 2.0 * means["path/penalty"])  # pl_weight 2; the mean starts at 0
    assert means["path/penalty"] >= means["path/length"] ** 2
    trainer.objective.end_generator_path_length()
    assert trainer.objective.path_length.mean.item() == pytest.approx(0.01 * means["path/length"])


def test_the_mean_of_w_follows_the_batch(trainer):
    ws = recorded_ws(trainer, "generator_main", batch_of(8))
    trainer.objective.end_generator_main()
    assert torch.allclose(trainer.G.mapping.w_avg, 0.005 * ws[:, 0].mean(0))


def test_gradients_of_both_penalties_are_complete(trainer):
    """What the penalties leave out on the way is not what their own gradients need: plain autograd agrees."""
    torch.manual_seed(0)
    G, D = trainer.G.requires_grad_(True), trainer.D.requires_grad_(True)
    ws, y = torch.randn(2, G.num_ws, 8).double().requires_grad_(True), torch.randn(2, 3, 16, 16).double()
    x = torch.randn(4, 3, 16, 16).double().requires_grad_(True)
    images, logits = G.synthesis(ws), D(x)
    (pulled,) = torch.autograd.grad((images * y / 16).sum(), ws, create_graph=True)
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    plain = pulled.square().sum(2).mean(1).sqrt().square().sum(), slope.square().sum()
    ours = path_lengths(images, ws, y).square().sum(), r1_penalty(logits, x).sum()
    for network, mine, theirs in zip((G, D), ours, plain):
        assert mine.item() == pytest.approx(theirs.item())
        parameters = list(network.parameters())
        a = torch.autograd.grad(mine, parameters, allow_unused=True, retain_graph=True)
        b = torch.autograd.grad(theirs, parameters, allow_unused=True, retain_graph=True)
        assert [g is None for g in a] == [g is None for g in b]
        assert all(torch.allclose(p, q, rtol=1e-9, atol=1e-12) for p, q in zip(a, b) if p is not None)
        assert sum(g is not None and g.abs().max() > 0 for g in a) > 10
