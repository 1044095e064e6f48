"""The phases: parts of a batch, mixed latents, weights of the losses."""

import dataclasses

import pytest
import torch

from stylegan_cli.ops import append_minibatch_std
from stylegan_cli.sampling import counter
from stylegan_cli.sampling.latents import sample_noise
from stylegan_cli.training import losses
from stylegan_cli.training.recipes.gan_objective import GanBatch
from stylegan_cli.training.regularizers import gradient_penalty, path_lengths


def make_batch(n, offset=0):
    index = torch.arange(offset, offset + n)
    images = index.double()[:, None, None, None].expand(-1, 3, 16, 16) / 100
    return GanBatch(images, torch.zeros(n, 0), torch.zeros(n, 0), index)


def test_parts_are_split_round_robin():
    parts = make_batch(12).split(4)
    assert [p.index.tolist() for p in parts] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert all(torch.equal(p.images[:, 0, 0, 0], p.index.double() / 100) for p in parts)
    assert make_batch(4).split(4)[0].index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("size", [4, 8])
def test_parts_keep_the_groups_of_the_minibatch_deviation(group, ranks, size):
    """Ranks take every other image, then parts of their share; the deviations are those of the whole batch."""
    torch.manual_seed(0)
    x = torch.randn(16, 3, 16, 16).double()
    expected = append_minibatch_std(x, group)
    for rank in range(ranks):
        share = slice(rank, None, ranks)
        batch = dataclasses.replace(make_batch(16), images=x, index=torch.arange(16))
        own = GanBatch(batch.images[share], batch.labels[share], batch.fake_labels[share], batch.index[share])
        for part in own.split(size):
            assert torch.allclose(append_minibatch_std(part.images, group), expected[part.index])


def test_the_head_of_a_batch():
    assert make_batch(8).head(3).index.tolist() == [0, 1, 2]


def test_losses_and_gradients_in_bfloat16(make_config, make_trainer):
    """As docs/benchmarks.md says: 15 % of a gradient at most, which keeps its direction; and 3 % of a loss."""
    values = {}
    for precision in ("fp32", "bf16"):
        recipe = make_trainer(make_config(precision=precision, channel_max=32, channel_base=512)).recipe
        batch = dataclasses.replace(make_batch(8), images=torch.randn(8, 3, 16, 16, generator=torch.manual_seed(0)))
        for phase in recipe.phases:
            phase.network.requires_grad_(True)
            loss = phase.loss(batch)
            gradients = torch.autograd.grad(loss, list(phase.network.parameters()), allow_unused=True)
            phase.network.requires_grad_(False)
            flat = torch.cat([g.flatten() for g in gradients if g is not None])
            values.setdefault(phase.name, []).append((loss.detach(), flat))
    assert set(values) == {"G", "G path length", "D", "D R1"}
    for (exact, gradient), (loss, rounded) in values.values():
        assert 0 < (loss - exact).abs() < 0.03 * exact.abs()
        assert 0 < (rounded - gradient).norm() < 0.15 * gradient.norm()
        assert torch.cosine_similarity(rounded, gradient, dim=0) > 0.99


@pytest.fixture
def trainer(make_config, make_trainer):
    return make_trainer(make_config(), dtype=torch.float64)


def record_ws(trainer, phase, batch):
    """Return the latents that are synthesized in a phase."""
    seen = []
    handle = trainer.recipe.G.synthesis.register_forward_pre_hook(
        lambda m, args, kw: seen.append(args[0]), with_kwargs=True
    )
    getattr(trainer.recipe.objective, phase)(batch)
    handle.remove()
    return seen[0].detach()


def test_styles_are_mixed_from_a_random_layer_on(trainer):
    """w1 ... w1 w2 ... w2 in about 0.9 of the images, every cut between 1 and num_ws - 1 equally often."""
    batch = make_batch(600)
    with torch.no_grad():
        ws = record_ws(trainer, "generator_main", batch)
        z, z2 = (counter.normal(0, f"g.{name}", batch.index, (8,)).double() for name in ("z", "z2"))
        first, second = trainer.recipe.G.mapping(z), trainer.recipe.G.mapping(z2)
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
        ws = record_ws(trainer, "generator_main", make_batch(8))
    assert torch.equal(ws, ws[:, :1].expand_as(ws))


def test_phases_sample_different_latents(trainer):
    batch = make_batch(8)
    trainer.recipe.G.requires_grad_(True)
    phases = ("generator_main", "generator_path_length", "discriminator_main")
    a, b, c = (record_ws(trainer, phase, batch)[:4, 0] for phase in phases)
    assert not torch.allclose(a, b) and not torch.allclose(a, c) and not torch.allclose(b, c)
    later = record_ws(trainer, "generator_main", make_batch(8, offset=8))
    assert not torch.allclose(a, later[:4, 0])


def test_main_losses_are_sums_over_the_batch(trainer):
    batch = make_batch(4)
    loss = trainer.recipe.objective.discriminator_main(batch)
    means = trainer.means.take()
    assert loss.item() == pytest.approx(4 * means["loss/D"])
    real = trainer.recipe.D(batch.images, batch.labels)
    assert means["score/real"] == pytest.approx(real.mean().item())
    loss = trainer.recipe.objective.generator_main(batch)
    assert loss.item() == pytest.approx(4 * trainer.means.take()["loss/G"])
    assert losses.generator_logistic(torch.zeros(1, 1)).item() > 0


def input_gradient(D, images, labels):  # -> [N, C, H, W]
    x = images.detach().clone().requires_grad_(True)
    return torch.autograd.grad(D(x, labels).sum(), x)[0]


def random_batch():
    torch.manual_seed(0)
    return dataclasses.replace(make_batch(4), images=torch.randn(4, 3, 16, 16).double())


@pytest.mark.parametrize(("gamma", "r2_gamma"), [(2.0, 0.0), (0.0, 3.0), (2.0, 3.0)])
def test_r1_and_r2_are_weighted_by_half_their_gammas(make_config, make_trainer, gamma, r2_gamma):
    config = make_config(gamma=gamma, r2_gamma=r2_gamma, mixing_prob=0, aug="noaug")
    trainer, batch = make_trainer(config, dtype=torch.float64), random_batch()
    loss = trainer.recipe.objective.discriminator_penalties(batch)
    r1, r2 = (
        input_gradient(trainer.recipe.D, x, batch.labels).square().sum()
        for x in (batch.images, make_fakes(trainer, "r2", batch))
    )
    assert loss.item() == pytest.approx((gamma / 2 * r1 + r2_gamma / 2 * r2).item())
    means = trainer.means.take()
    assert set(means) == {name for name, weight in (("r1/penalty", gamma), ("r2/penalty", r2_gamma)) if weight}


def make_fakes(trainer, purpose, batch):
    with torch.no_grad():
        z = counter.normal(0, f"{purpose}.z", batch.index, (8,)).double()
        noise = sample_noise(trainer.recipe.G, 0, f"{purpose}.noise", batch.index)
        ws = trainer.recipe.G.mapping(z, batch.fake_labels)
        return trainer.recipe.G.synthesis(ws, noise=[n.double() for n in noise])


WGAN = {"loss": "wgan", "gamma": 0.0, "aug": "noaug"}


def test_the_gradient_penalty_is_between_reals_and_fakes(make_config, make_trainer):
    trainer, batch = (
        make_trainer(make_config(mixing_prob=0, gp_weight=5.0, **WGAN), dtype=torch.float64),
        random_batch(),
    )
    loss = trainer.recipe.objective.discriminator_penalties(batch)
    u = counter.uniform(0, "gp.mix", batch.index).double()[:, None, None, None]
    between = u * batch.images + (1 - u) * make_fakes(trainer, "gp", batch)
    norms = input_gradient(trainer.recipe.D, between, batch.labels).square().sum([1, 2, 3]).sqrt()
    assert loss.item() == pytest.approx(5.0 * (norms - 1).square().sum().item())
    assert trainer.means.take() == {"gp/penalty": pytest.approx((norms - 1).square().mean().item())}


def test_interpolated_images_have_the_label_of_the_real_image(make_config, make_trainer):
    trainer = make_trainer(make_config(label="labels", gp_weight=5.0, **WGAN), dtype=torch.float64)
    labels = []
    trainer.recipe.G.mapping.register_forward_pre_hook(lambda m, args: labels.extend(args[1].split(4)))
    eye = torch.eye(2).double()
    batch = dataclasses.replace(random_batch(), labels=eye[[0, 1, 1, 0]], fake_labels=eye[[1, 0, 0, 0]])
    trainer.recipe.objective.discriminator_penalties(batch)
    assert labels and all(torch.equal(c, batch.labels) for c in labels)


def test_drift_penalizes_outputs_on_reals(make_config, make_trainer):
    trainer = make_trainer(make_config(drift=0.5, **WGAN), dtype=torch.float64)
    batch = random_batch()
    loss = trainer.recipe.objective.discriminator_main(batch)
    means, real = trainer.means.take(), trainer.recipe.D(batch.images, batch.labels)
    expected = means["score/fake"] - means["score/real"] + 0.5 * real.square().mean().item()
    assert loss.item() / 4 == pytest.approx(expected) == means["loss/D"]


def test_adaptive_augmentation_uses_the_boundary_of_the_loss(make_config, make_trainer):
    trainer, batch = make_trainer(make_config(loss="lsgan"), dtype=torch.float64), random_batch()
    trainer.recipe.D.b4.out.weight.data.zero_()
    for output, sign in ((0.3, -1), (0.7, 1)):
        trainer.recipe.D.b4.out.bias.data.fill_(output)
        trainer.recipe.objective.discriminator_main(batch)
        assert trainer.recipe.objective.p._seen.tolist() == [4 * sign, 4]
        trainer.recipe.objective.p._seen.zero_()


def test_both_networks_have_a_classification_loss(make_config, make_trainer):
    """AC-GAN: aux_weight times the cross entropy, for D on real and generated images, for G on generated ones."""
    config = make_config(label="labels", aux_classifier=True, aux_weight=3.0, mixing_prob=0, aug="noaug")
    trainer = make_trainer(config, dtype=torch.float64)
    eye = torch.eye(2).double()
    batch = dataclasses.replace(random_batch(), labels=eye[[0, 1, 1, 0]], fake_labels=eye[[1, 0, 0, 0]])

    def entropy(images, c):
        return losses.classification(trainer.recipe.D.forward_with_classes(images)[1], c).sum().item()

    loss, means = trainer.recipe.objective.discriminator_main(batch).item(), trainer.means.take()
    aux = entropy(batch.images, batch.labels) + entropy(make_fakes(trainer, "d", batch), batch.fake_labels)
    assert means["loss/D aux"] == pytest.approx(aux / 4)
    assert loss == pytest.approx(4 * means["loss/D"] + 3.0 * aux)
    loss, means = trainer.recipe.objective.generator_main(batch).item(), trainer.means.take()
    aux = entropy(make_fakes(trainer, "g", batch), batch.fake_labels)
    assert means["loss/G aux"] == pytest.approx(aux / 4)
    assert loss == pytest.approx(4 * means["loss/G"] + 3.0 * aux)


GAMMAS = [(2, 0), (0, 3), (2, 3), (0, 0)]
ALL_OBJECTIVES = [
    {"loss": name, "gamma": gamma, "r2_gamma": r2}
    for name in losses.LOSSES
    for gamma, r2 in (GAMMAS if name != "wgan" else [])
]
ALL_OBJECTIVES += [{"gp_weight": weight, **WGAN} for weight in (10.0, 0.0)]
ALL_OBJECTIVES += [
    {"label": "labels", "aux_classifier": True, **options} for options in (ALL_OBJECTIVES[0], ALL_OBJECTIVES[-2])
]


@pytest.mark.parametrize("interval", [1, 2])
@pytest.mark.parametrize("options", ALL_OBJECTIVES, ids=lambda o: " ".join(map(str, o.values())))
def test_a_step_with_every_objective(make_config, make_trainer, options, interval):
    """All parameters of both networks have finite gradients, not all of them 0."""
    trainer = make_trainer(make_config(r1_interval=interval, **options))
    gradients_of = {}
    for phase in trainer.recipe.phases:
        step_unless = phase.optimizer.step_unless
        phase.optimizer.step_unless = lambda bad, phase=phase, step_unless=step_unless: (
            gradients_of.setdefault(phase.network, []).append([p.grad.clone() for p in phase.parameters]),
            step_unless(bad),
        )
    trainer.step()
    assert set(gradients_of) == {trainer.recipe.G, trainer.recipe.D}
    for gradients in (g for step in gradients_of.values() for g in step):
        assert all(g.isfinite().all() for g in gradients) and max(g.abs().max() for g in gradients) > 0
    assert trainer.guard.state_dict()["skipped"] == 0


def test_every_update_is_one_of_adam_with_a_zero_where_there_is_no_gradient(make_config, make_trainer):
    """Kingma and Ba 2015, algorithm 1, with the corrections for k + 1 updates in k steps: toRGB biases have no gradient
    in path length, the bias of the discriminator's output none in R1, yet their moments decay and they move."""
    config = dataclasses.replace(make_config(pl_interval=2, r1_interval=2, aug="noaug"), betas=(0.5, 0.9), lr=0.01)
    trainer = make_trainer(config, dtype=torch.float64)
    G, D = trainer.recipe.G, trainer.recipe.D
    b1, b2, lr = 0.5 ** (2 / 3), 0.9 ** (2 / 3), 0.01 * 2 / 3
    states = {p: [p.clone(), 0, 0, 0] for p in (*G.parameters(), *D.parameters())}  # weight, m, v, t
    without = {}
    for phase in trainer.recipe.phases:

        def loss(batch, phase=phase, own=phase.loss):
            value, parameters = own(batch), phase.parameters
            weighted = value * (phase.interval / config.batch)
            gradients = torch.autograd.grad(weighted, parameters, retain_graph=True, allow_unused=True)
            without[phase.name] = [p for p, g in zip(parameters, gradients) if g is None or not g.any()]
            for p, gradient in zip(parameters, gradients):
                x, m, v, t = states[p]
                g = torch.zeros_like(p) if gradient is None else gradient
                m, v, t = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g, t + 1
                step = lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + config.eps)
                states[p] = [x - step, m, v, t]
            return value

        object.__setattr__(phase, "loss", loss)
    for _ in range(4):
        trainer.step()
    assert any(p is G.synthesis.b16.torgb.bias for p in without["G path length"])
    assert any(p is D.b4.out.bias for p in without["D R1"])
    for p, (x, *_) in states.items():
        assert torch.allclose(p, x, rtol=1e-11, atol=1e-13)
    assert all(t == 6 for *_, t in states.values())


def test_path_length_uses_half_of_the_batch_with_the_weight_of_all(trainer):
    trainer.recipe.G.requires_grad_(True)
    loss = trainer.recipe.objective.generator_path_length(make_batch(8))
    means = trainer.means.take()
    assert loss.item() == pytest.approx(8 * 2.0 * means["path/penalty"])  # pl_weight 2
    moved = trainer.recipe.objective.path_length.mean.item()
    assert moved == pytest.approx(0.01 * means["path/length"])  # the mean starts at 0
    assert means["path/penalty"] >= (means["path/length"] - moved) ** 2


def path_length_gradients(trainer, batch):
    """The gradients of a path-length phase, and the mean path length after it."""
    phase = next(phase for phase in trainer.recipe.phases if phase.name == "G path length")
    phase.optimizer.step_unless = lambda bad: None
    trainer._update(phase, batch)
    return [p.grad for p in phase.parameters], trainer.recipe.objective.path_length.mean


def defined_path_length_gradients(trainer, batch, before, config):
    """StyleGAN2's code, by plain autograd: the mean path length moves first, the penalty is against the moved one."""
    G, index = trainer.recipe.G, batch.index[: len(batch.index) // 2]
    parameters = [p.requires_grad_(True) for p in G.parameters()]
    z = counter.normal(0, "pl.z", index, (8,)).double()
    noise = [n.double() for n in sample_noise(G, 0, "pl.noise", index)]
    ws = G.mapping(z)
    images = G.synthesis(ws, noise=noise)
    y = counter.normal(0, "pl.direction", index, images.shape[1:]).double() / 16
    (pulled,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    lengths = pulled.square().sum(2).mean(1).sqrt()
    mean = torch.lerp(before, lengths.mean(), config.pl_decay)
    loss = config.pl_weight * (lengths - mean).square().mean() * config.pl_interval
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients)], mean.detach()


@pytest.mark.parametrize("batch_gpu", [8, 4, 2])
def test_path_length_is_penalized_against_the_moved_mean(make_config, make_trainer, batch_gpu):
    """One mean for all parts of a batch, gradients through it included."""
    config = make_config(batch_gpu=batch_gpu, mixing_prob=0)
    config = dataclasses.replace(config, pl_decay=0.3)  # so that the gradient through the mean is large
    trainer = make_trainer(config, dtype=torch.float64)
    before = torch.tensor(0.05).double()
    trainer.recipe.objective.path_length.load_state_dict({"mean": before})
    gradients, mean = path_length_gradients(trainer, make_batch(8))
    expected, moved = defined_path_length_gradients(trainer, make_batch(8), before, config)
    assert mean.item() == pytest.approx(moved.item(), rel=1e-12)
    assert max(g.abs().max() for g in expected) > 1e-3
    for actual, by_definition in zip(gradients, expected, strict=True):
        assert torch.allclose(actual, by_definition, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("batch_gpu", "pl_weight"), [(8, 2.0), (2, 2.0), (8, 0.0)])
def test_the_mean_of_w_moves_with_every_pass_of_the_generator(make_config, make_trainer, batch_gpu, pl_weight):
    """In StyleGAN2-ADA, those of G's loss, path length (half of the images, every pl_interval steps) and D's loss."""
    config = make_config(batch_gpu=batch_gpu, pl_weight=pl_weight, r1_interval=1, r2_gamma=1.0, mirror=False)
    trainer = make_trainer(config, dtype=torch.float64)
    mapping, expected, moves = trainer.recipe.G.mapping, torch.zeros(8).double(), 0
    with torch.no_grad():
        for phase in trainer.recipe.phases:  # the weights stay as they are
            phase.optimizer.step_unless = lambda bad: None
        for step in range(4):
            passes = [("g", 8), *([("pl", 4)] if pl_weight and step % 2 == 0 else []), ("d", 8)]
            for purpose, count in passes:
                index = torch.arange(8 * step, 8 * step + count)
                w = mapping(counter.normal(config.seed, f"{purpose}.z", index, (8,)).double())[:, 0]
                expected, moves = expected + 0.005 * (w.mean(0) - expected), moves + 1
    for _ in range(4):
        trainer.step()
    assert moves == (10 if pl_weight else 8)
    assert torch.allclose(mapping.w_avg, expected, rtol=1e-12, atol=1e-15)
    assert torch.equal(mapping.w_avg, trainer.recipe.ema.network.mapping.w_avg)


def test_gradients_of_both_penalties_are_complete(trainer):
    """Compare with plain autograd: the weight gradients that the penalties skip are not needed for their own."""
    torch.manual_seed(0)
    G, D = trainer.recipe.G.requires_grad_(True), trainer.recipe.D.requires_grad_(True)
    ws, y = torch.randn(2, G.num_ws, 8).double().requires_grad_(True), torch.randn(2, 3, 16, 16).double()
    x = torch.randn(4, 3, 16, 16).double().requires_grad_(True)
    images, logits = G.synthesis(ws), D(x)
    (pulled,) = torch.autograd.grad((images * y / 16).sum(), ws, create_graph=True)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    expected = pulled.square().sum(2).mean(1).sqrt().square().sum(), gradient.square().sum()
    actual = path_lengths(images, ws, y).square().sum(), gradient_penalty(logits, x).sum()
    for network, penalty, reference in zip((G, D), actual, expected):
        assert penalty.item() == pytest.approx(reference.item())
        parameters = list(network.parameters())
        a = torch.autograd.grad(penalty, parameters, allow_unused=True, retain_graph=True)
        b = torch.autograd.grad(reference, parameters, allow_unused=True, retain_graph=True)
        assert [g is None for g in a] == [g is None for g in b]
        assert all(torch.allclose(p, q, rtol=1e-9, atol=1e-12) for p, q in zip(a, b) if p is not None)
        assert sum(g is not None and g.abs().max() > 0 for g in a) > 10


@pytest.mark.parametrize("group, std_channels, passes", [(2, 1, 1), (4, 1, 1), (8, 1, 2), (None, 1, 2), (4, 0, 1)])
def test_fakes_and_reals_share_a_pass_but_no_group(make_config, make_trainer, group, std_channels, passes):
    """The logits are those of a pass for each kind; the group of 8 is larger than the batch."""
    config = make_config(label="hat", aug="ada", aug_p=0.5, batch=8)
    networks = dataclasses.replace(config.discriminator, mbstd_group=2, mbstd_channels=std_channels)
    trainer = make_trainer(dataclasses.replace(config, discriminator=networks), dtype=torch.float64)
    objective, D = trainer.recipe.objective, trainer.recipe.D
    D.b4.group = group
    networks = dataclasses.replace(networks, mbstd_group=group)
    objective.config = dataclasses.replace(objective.config, batch_gpu=8, batch=8, discriminator=networks)
    batch = random_batch()
    batch = dataclasses.replace(batch, labels=torch.eye(3).double()[[0, 1, 2, 0]])
    batch = dataclasses.replace(batch, fake_labels=batch.labels.flip(0))
    fakes, sizes = batch.images.flip(0).square(), []
    forward = D.forward_with_classes
    D.forward_with_classes = lambda images, *a, **k: sizes.append(len(images)) or forward(images, *a, **k)
    fake, real, *_ = objective._discriminate_both(fakes, batch)
    assert sizes == ([8] if passes == 1 else [4, 4])
    for logits, images, labels, purpose in (
        (fake, fakes, batch.fake_labels, "d.fake.aug"),
        (real, batch.images, batch.labels, "d.real.aug"),
    ):
        assert torch.allclose(logits, objective._discriminate(images, labels, batch, purpose)[0], rtol=1e-10)
