"""What tensor cores do to float32 levels, by rounding on the CPU: the operands of convolutions to TF32, to nearest;
products and sums stay in float32."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import stylegan_cli
from stylegan_cli.data.dataset import DataSpec
from stylegan_cli.data.images import to_uint8
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.ops import tensor_cores
from stylegan_cli.sampling.generate import SamplingOptions, generate_images
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes.gan import make_gan_phases
from stylegan_cli.training.recipes.gan_objective import GanBatch, Objective
from stylegan_cli.training.stats import Means

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters

SMALL = {"size": 32, "half_levels": 2, "channel_base": 512, "channel_max": 32, "batch": 4, "seeds": 5}
SMALL["allowed"] = 2  # times the error of half precision alone: a network of few numbers
LARGE = {
    "size": 256,
    "half_levels": 4,
    "channel_base": 16384,
    "channel_max": 512,
    "batch": 4,
    "seeds": 1,
    "allowed": 1.15,  # errors add up in squares: 1.41 would be as much again as half precision makes
}
PATH_LENGTH_ALLOWED = 1.05
SIZES = [pytest.param(SMALL, id="32"), pytest.param(LARGE, id="256", marks=pytest.mark.slow)]


def flags():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def round_to_tf32(x):
    if not isinstance(x, torch.Tensor) or x.dtype != torch.float32:
        return x
    bits = x.view(torch.int32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFF).view(torch.float32)


class TensorCores(TorchDispatchMode):
    """Rounds the operands of float32 convolutions where tensor cores are enabled. Depthwise ones are our own kernels on
    a GPU."""

    def __init__(self):
        super().__init__()
        self.rounded = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        name, enabled = op.overloadpacket.__name__, torch.backends.cudnn.allow_tf32
        if enabled and name.startswith("convolution") and args[8 if name == "convolution" else 9] == 1:
            self.rounded += any(isinstance(x, torch.Tensor) and x.dtype == torch.float32 for x in args)
            args = pytree.tree_map(round_to_tf32, args)
        return op(*args, **(kwargs or {}))


def test_rounding():
    x = torch.tensor([1 + 2.0**-10, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-11 + 2.0**-20, -3.0, 0.0])
    assert round_to_tf32(x).tolist() == [1 + 2.0**-10, 1, 1 + 2.0**-9, 1 + 2.0**-10, -3, 0]


def test_the_settings_are_restored_after_an_error():
    before = flags()
    for enabled in (True, False):
        with pytest.raises(KeyError), tensor_cores(enabled, not enabled):
            assert flags() == (not enabled, enabled)
            raise KeyError
        assert flags() == before


@pytest.mark.parametrize("precision, enabled", [("fp32", (False, False)), ("bf16", (False, True))])
def test_images_use_tensor_cores_in_half_precision_only(monkeypatch, precision, enabled):
    G, seen = stylegan_cli.load(), []
    network = type(G.synthesis)
    synthesize = network.synthesize
    monkeypatch.setattr(network, "synthesize", lambda *a: seen.append(flags()) or synthesize(*a))
    before = flags()
    options = SamplingOptions(precision=precision)
    list(generate_images(G, lambda i, j: G.mapping(torch.zeros(j - i, G.config.z_dim)), [0], options))
    assert seen == [enabled] and flags() == before


@pytest.mark.parametrize(
    "precision, enabled",
    [("fp32", (False, False)), ("tf32", (True, True)), ("fp16", (False, True)), ("bf16", (False, True))],
)
def test_a_run_uses_tensor_cores_unless_it_is_fp32(monkeypatch, make_config, tmp_path, precision, enabled):
    from stylegan_cli.training.recipes import gan

    seen, before = [], flags()
    monkeypatch.setattr(gan, "run_training", lambda *args: seen.append(flags()))
    gan.train(make_config(precision=precision), tmp_path, "cpu")
    assert seen == [enabled] and flags() == before


# ------------------------------------------------------------------------------------------- images


def share_within_one_step(G, z, dtype):
    """Of the 8-bit values, those that differ by at most 1 from float32 products."""
    images = []
    for context in (torch.no_grad(), TensorCores()):
        with torch.no_grad(), tensor_cores(True), context:
            images.append(to_uint8(G(z, dtype=dtype)).int())
    assert context.rounded > 0
    return ((images[0] - images[1]).abs() <= 1).float().mean().item()


@torch.no_grad()
def test_images_of_a_trained_model():
    G, z = stylegan_cli.load(MODEL), torch.randn(8, 128, generator=torch.Generator().manual_seed(0))
    for dtype in (None, torch.float16):
        assert share_within_one_step(G, z, dtype) >= 0.999


@pytest.mark.parametrize("setting", SIZES)
def test_images_of_a_random_model(setting):
    G, _ = networks(make_config_of(setting))
    z = torch.randn(4, G.config.z_dim, generator=torch.Generator().manual_seed(0))
    share = share_within_one_step(G, z, None)
    print(f"{setting['size']}x{setting['size']}: {share:.5%} of the values within 1/255")
    assert share >= 0.999


# ---------------------------------------------------------------------------------------- gradients


def make_config_of(setting, seed=0):
    size = setting["size"]
    spec = DataSpec("none", "", 1, size, size, 3, size, size)
    sizes = {name: setting[name] for name in ("channel_base", "channel_max", "batch")}
    config = make_train_config("auto", spec, aug="noaug", gamma=1.0, seed=seed, **sizes)
    halves = {
        name: dataclasses.replace(getattr(config, name), half_levels=setting["half_levels"])
        for name in ("generator", "discriminator")
    }
    return dataclasses.replace(config, **halves)


def networks(config):
    torch.manual_seed(config.seed)
    nets = build_generator(config.generator), build_discriminator(config.discriminator)
    for net in nets:
        for name, parameter in net.named_parameters():
            if name.endswith("noise_strength"):
                torch.nn.init.constant_(parameter, 0.1)
    return nets


def gradients(config, phase_name, precision, dtype=torch.float32):
    """All gradients of a phase, in float64."""
    config = dataclasses.replace(config, precision=precision)
    G, D = (net.to(dtype).requires_grad_(False) for net in networks(config))
    size, n = config.data.height, config.batch
    images = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))
    images = torch.nn.functional.avg_pool2d(images, 3, 1, 1).to(dtype)
    batch = GanBatch(images, images.new_zeros(n, 0), images.new_zeros(n, 0), torch.arange(n))
    phases = {phase.name: phase for phase in make_gan_phases(config, G, D, Objective(config, G, D, Means()))}
    phase = phases[phase_name]
    phase.network.requires_grad_(True)
    phase.loss(batch).backward()
    found = [p.grad for p in phase.network.parameters() if p.grad is not None]
    return torch.cat([g.double().flatten() for g in found])


@pytest.mark.parametrize("setting", SIZES)
@pytest.mark.parametrize("phase", ["G", "G path length", "D", "D R1"])
def test_gradients_are_no_worse_than_those_of_half_precision(setting, phase):
    """The relative error against float64, with half precision at the highest levels, without and with TF32 at the
    others, in the median of several networks. Rounding moves numbers across the kinks of activations, which in a small
    network changes much."""
    errors = []
    for seed in range(setting["seeds"]):
        config = make_config_of(setting, seed)
        exact = gradients(config, phase, "fp32", torch.float64)
        half = gradients(config, phase, "fp16")
        with tensor_cores(True), TensorCores() as cores:
            both = gradients(config, phase, "fp16")
        assert cores.rounded > 10
        errors.append([(g - exact).norm() / exact.norm() for g in (half, both)])
    half, both = torch.tensor(errors).median(0).values.tolist()
    print(f"{setting['size']}x{setting['size']} {phase}: half {half:.2e}, with TF32 {both:.2e}")
    assert both <= (PATH_LENGTH_ALLOWED if phase == "G path length" else setting["allowed"]) * half


@pytest.mark.parametrize("precision, enabled", [("fp16", False), ("bf16", False), ("tf32", True), ("fp32", False)])
def test_path_lengths_synthesize_without_tensor_cores(monkeypatch, precision, enabled):
    """The pass that decides on which side of the kinks numbers are; its gradients use them again."""
    config = dataclasses.replace(make_config_of(SMALL), precision=precision)
    G, D = networks(config)
    seen, synthesize = [], G.synthesis.forward
    monkeypatch.setattr(G.synthesis, "forward", lambda *a, **k: seen.append(flags()) or synthesize(*a, **k))
    images = torch.zeros(4, 3, 32, 32)
    batch = GanBatch(images, images.new_zeros(4, 0), images.new_zeros(4, 0), torch.arange(4))
    objective = Objective(config, G, D, Means())
    with tensor_cores(precision != "fp32", products=precision == "tf32"):
        before = flags()
        objective.generator_path_length(batch)
        assert flags() == before
        objective.generator_main(batch)
    assert seen == [(enabled, enabled), before]
