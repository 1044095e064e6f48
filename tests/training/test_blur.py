"""The blur of the discriminator's images at the start of a StyleGAN3-R run."""

import copy
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import ndimage

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.ops import blur2d
from stylegan_cli.training.blur import blur_taps
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes.gan import make_engine


@pytest.fixture(scope="module")
def config():
    data = open_dataset(None, size=(16, 16)).spec
    small = {"channel_base": 128, "channel_max": 8, "batch": 4, "mbstd_group": 2, "aug": "noaug"}
    return make_train_config("stylegan3-r", data, **small)


def test_taps():
    """f_k = 2^-(k / sigma)^2 for |k| <= floor(3 sigma), normalized."""
    taps = blur_taps(1.4)
    k = np.arange(-4, 5)
    expected = 2.0 ** -((k / 1.4) ** 2)
    np.testing.assert_allclose(taps, expected / expected.sum(), rtol=1e-6)
    assert len(blur_taps(10)) == 61 and len(blur_taps(1 / 3)) == 3 and blur_taps(0.33) is None and blur_taps(0) is None


def test_images_are_blurred_along_both_axes_and_darken_at_the_edges():
    image = torch.rand(1, 2, 12, 9, dtype=torch.float64)
    taps = blur_taps(1.4)
    rows = ndimage.convolve1d(image.numpy(), taps.double().numpy(), axis=2, mode="constant")
    expected = ndimage.convolve1d(rows, taps.double().numpy(), axis=3, mode="constant")
    np.testing.assert_allclose(blur2d(image, taps), expected, atol=1e-9)


def test_schedule_follows_the_images_shown(config):
    assert (config.blur_sigma, config.blur_kimg) == (10.0, 25.0)  # batch * 200 / 32
    engine = make_engine(config, open_dataset(None, size=(16, 16)))
    (hook,) = engine.hooks.values()
    try:
        for shown, sigma in ((0, 10), (12_500, 5), (24_000, 0.4), (24_900, 0), (30_000, 0)):
            engine.clock.shown = shown
            hook.before_step(engine)
            if not sigma:
                assert engine.recipe.objective.blur is None
            else:
                torch.testing.assert_close(engine.recipe.objective.blur, blur_taps(sigma))
    finally:
        engine.close()


def test_graphs_are_captured_again_only_if_the_filter_changes_its_size(config):
    engine = make_engine(config, open_dataset(None, size=(16, 16)))
    (hook,) = engine.hooks.values()
    try:
        engine.clock.shown = 100
        hook.before_step(engine)
        first = engine.recipe.objective.blur
        engine._graphs["G"] = captured = object()
        engine.clock.shown = 104
        hook.before_step(engine)
        assert engine.recipe.objective.blur is first and engine._graphs == {"G": captured}
        torch.testing.assert_close(first, blur_taps(10 * (1 - 104 / 25_000)))
        engine.clock.shown = 12_500
        hook.before_step(engine)
        assert not engine._graphs
    finally:
        engine.close()


def test_penalty_is_taken_with_respect_to_the_image_before_the_blur(config):
    """Doubling the taps doubles the gradient with respect to the image, which a blur outside of it would not."""
    engine = make_engine(config, open_dataset(None, size=(16, 16)), dtype=torch.float64)
    objective = engine.recipe.objective
    try:
        batch = engine.recipe.next_batch()
        images = batch.images.clone().requires_grad_(True)
        objective.blur = blur_taps(2.0)
        logits = objective._discriminate(images, batch.labels, batch, "r1.aug")[0]
        (gradient,) = torch.autograd.grad(logits.sum(), images)
        blurred = blur2d(images.detach(), objective.blur).requires_grad_(True)
        objective.blur = None
        (inner,) = torch.autograd.grad(
            objective._discriminate(blurred, batch.labels, batch, "r1.aug")[0].sum(), blurred
        )
        torch.testing.assert_close(gradient, blur2d(inner, blur_taps(2.0)))  # the filter is symmetric
    finally:
        engine.close()


def test_published_settings(config):
    assert config.gamma == 2**-10 * 16 * 16 / 4
    assert (config.lr, config.d_lr, config.mixing_prob, config.pl_weight, config.ema_kimg) == (
        0.0025,
        0.002,
        0,
        0,
        1.25,
    )
    G, D = config.generator, config.discriminator
    assert (G.channel_base, G.channel_max, G.mapping_layers, G.kernel, G.radial) == (256, 16, 2, 1, True)
    assert (D.channel_base, D.channel_max, D.mapping_layers, D.architecture) == (128, 8, 8, "resnet")
    data = config.data
    t = make_train_config("stylegan3-t", data)
    assert (t.blur_sigma, t.generator.kernel, t.generator.channel_base, t.batch) == (0, 3, 32768, 32)
    assert math.isclose(t.gamma, 16 * 16 / 32768)
    assert make_train_config("stylegan3-t", data, lr=0.001).d_lr is None
    assert make_train_config("stylegan3-t", data, lr=0.001, d_lr=0.003).d_lr == 0.003


def test_learning_rates_of_both_networks(config):
    engine = make_engine(config, open_dataset(None, size=(16, 16)))
    try:
        rates = {phase.name: phase.optimizer.param_groups[0]["lr"] for phase in engine.recipe.phases}
        assert rates == {"G": 0.0025, "D": 0.002 * 16 / 17, "D R1": 0.002 * 16 / 17}
        assert engine.recipe.phases[0].optimizer.param_groups[0]["betas"] == (0.0, 0.99)
    finally:
        engine.close()


def test_a_run_resumes_exactly(config):
    """Blur, magnitudes and frequencies of the input are all part of the state."""
    from stylegan_cli.training.state import gather

    data = open_dataset(None, size=(16, 16))
    engines = [make_engine(config, data) for _ in range(2)]
    try:
        whole, resumed = engines
        for _ in range(2):
            whole.step()
        resumed.restore(copy.deepcopy(gather(whole.stateful)))
        for engine in engines:
            engine.step()
        a, b = (engine.recipe.G.state_dict() for engine in engines)
        for name in a:
            assert torch.equal(a[name], b[name]), name
        assert a["synthesis.L3_36_16.magnitude_ema"] != 1
    finally:
        for engine in engines:
            engine.close()


def test_a_run_resumes_exactly_from_its_files(sgan, tmp_path):
    line = ("--size", "16", "--cbase", "64", "--cmax", "4", "--batch", "4", "--aug", "ada", "--p", "0.3")
    line += ("--snap", "0.008", "--freezed", "2", "-q")
    for name, kimg in (("whole", "0.016"), ("stopped", "0.008")):
        sgan("train", "--cfg", "stylegan3-r", *line, "--kimg", kimg, "--runs", tmp_path / name)
    (whole,), (stopped,) = ((tmp_path / name).iterdir() for name in ("whole", "stopped"))
    sgan("train", "--resume", stopped, "--kimg", "0.016", "-q")
    a, b = (load_file(next(run.glob("state-000000.016-*"))) for run in (whole, stopped))
    assert a.keys() == b.keys() and {name for name in a if not torch.equal(a[name], b[name])} <= {"clock.seconds"}
    assert a["G.synthesis.L3_36_8.magnitude_ema"] != 1
