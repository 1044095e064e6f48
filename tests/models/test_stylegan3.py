"""StyleGAN3: the schedule's published tables, the network beside a plain definition, statistics, bad settings."""

import math

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.models.frozen import frozen_synthesis
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan3.checkpoints import arguments_of
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.models.stylegan3.schedule import layer_specs
from stylegan_cli.models.summary import parameter_count

from .plain_stylegan3 import mapping, synthesize

R_KIND = {"kernel": 1, "radial": True}
R_PUBLISHED = R_KIND | {"channel_base": 65536, "channel_max": 1024}
SMALL = {"channel_base": 512, "channel_max": 16, "z_dim": 32, "w_dim": 32}


@pytest.mark.parametrize(
    ("size", "base", "t", "r"),
    [
        (64, 32768, 37_768_199, 24_153_095),
        (128, 32768, 32_833_523, 21_366_701),
        (256, 32768, 28_472_133, 18_816_387),
        (512, 32768, 24_873_519, 16_665_594),
        (1024, 32768, 22_313_167, 15_093_151),
        (64, 16384, 32_300_555, 21_076_940),
        (256, 16384, 23_320_443, 15_779_565),
        (1024, 16384, 18_144_449, 12_616_713),
    ],
)
def test_parameter_counts(size, base, t, r):
    with torch.device("meta"):
        assert parameter_count(build_generator(StyleGAN3Config(size, size, channel_base=base))) == t
        wide = StyleGAN3Config(size, size, channel_base=2 * base, channel_max=1024, **R_KIND)
        assert parameter_count(build_generator(wide)) == r


# Names, up factors and padding of published networks.
T_256 = (
    "L0_36_512 L1_36_512 L2_36_512 L3_52_512 L4_52_512 L5_84_512 L6_84_512 L7_148_512 L8_148_512 L9_148_362 "
    "L10_276_256 L11_276_181 L12_276_128 L13_256_128 L14_256_3"
)
R_256 = (
    "L0_36_1024 L1_36_1024 L2_36_1024 L3_52_1024 L4_52_1024 L5_84_1024 L6_84_1024 L7_148_1024 L8_148_1024 L9_148_724 "
    "L10_276_512 L11_276_362 L12_276_256 L13_256_256 L14_256_3"
)
T_1024 = (
    "L0_36_512 L1_36_512 L2_52_512 L3_52_512 L4_84_512 L5_148_512 L6_148_512 L7_276_323 L8_276_203 L9_532_128 "
    "L10_1044_81 L11_1044_51 L12_1044_32 L13_1024_32 L14_1024_3"
)
R_1024 = (
    "L0_36_1024 L1_36_1024 L2_52_1024 L3_52_1024 L4_84_1024 L5_148_1024 L6_148_1024 L7_276_645 L8_276_406 L9_532_256 "
    "L10_1044_161 L11_1044_102 L12_1044_64 L13_1024_64 L14_1024_3"
)


@pytest.mark.parametrize(
    ("size", "kind", "names", "doubling", "pads"),
    [
        (256, {}, T_256, (3, 5, 7, 10), ((9, 8), (-6, -9), (-11, -12))),
        (256, R_PUBLISHED, R_256, (3, 5, 7, 10), ((11, 10), (-2, -5), (-9, -10))),
        (1024, {}, T_1024, (2, 4, 5, 7, 9, 10), ((9, 8), (-6, -9), (-11, -12))),
        (1024, R_PUBLISHED, R_1024, (2, 4, 5, 7, 9, 10), ((11, 10), (-2, -5), (-9, -10))),
    ],
)
def test_schedule_tables(size, kind, names, doubling, pads):
    specs = layer_specs(StyleGAN3Config(size, size, **kind))
    assert " ".join(spec.name for spec in specs) == names
    for i, spec in enumerate(specs[:14]):
        assert (spec.up, spec.down) == (4 if i in doubling else 2, 2)
        assert spec.up_filter and spec.down_filter
        assert (spec.up_filter.taps, spec.down_filter.taps) == (6 * spec.up, 12)
        assert spec.down_filter.radial == (bool(kind) and i < 12)
        expected = pads[2] if i == 13 else pads[1] if i in doubling else pads[0]
        assert spec.padding == expected * 2
    torgb = specs[14]
    assert torgb.is_torgb and torgb.up_filter is None and torgb.down_filter is None and torgb.padding == (0,) * 4
    assert (torgb.up, torgb.down, torgb.kernel) == (1, 1, 1)


def test_sampling_of_a_table():
    """Rates, cutoffs and half widths of T at 256 x 256, to the four digits that are printed."""
    rows = [(s.target.rate, s.target.cutoff, s.target.half_width) for s in layer_specs(StyleGAN3Config(256, 256))]
    rates = [16, 16, 16, 32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 256, 256]
    cutoffs = [2.0, 2.8284, 4.0, 5.6569, 8.0, 11.3137, 16.0, 22.6274, 32.0, 45.2548, 64.0, 90.5097, *[128.0] * 3]
    widths = [6.0, 5.1716, 4.0, 10.3431, 8.0, 20.6863, 16.0, 41.3726, 32.0, 18.7452, 64.0, 37.4903, *[29.5865] * 3]
    assert [row[0] for row in rows] == rates
    assert [round(row[1], 4) for row in rows] == cutoffs
    assert [round(row[2], 4) for row in rows] == widths
    half = [spec.half for spec in layer_specs(StyleGAN3Config(256, 256))]
    assert half == [False] * 3 + [True] * 12


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (48, 48), (96, 64), (64, 160)])
@pytest.mark.parametrize("kind", [{}, R_KIND], ids=["T", "R"])
def test_any_base_size(size, kind):
    G = build_generator(StyleGAN3Config(*size, channels=4, **SMALL | kind))
    with torch.no_grad():
        image = G(torch.randn(2, 32))
    assert image.shape == (2, 4, *size) and image.isfinite().all()
    assert G.num_ws == 16 and not G.noise_layers and G.synthesis.takes_transform
    table = {row.name: row for row in G.layers}
    seen = {}
    for row in G.layers:
        G.get_submodule(row.name).register_forward_hook(
            lambda module, inputs, output, name=row.name: seen.update({name: tuple(output.shape[1:])})
        )
    G(torch.randn(1, 32))
    assert seen == {name: (row.channels, row.height, row.width) for name, row in table.items()}


def random_generator(config, seed=0):
    """A generator whose every parameter and statistic matters."""
    torch.manual_seed(seed)
    G = build_generator(config).double()
    with torch.no_grad():
        for name, tensor in [*G.named_parameters(), *G.named_buffers()]:
            if name.endswith("magnitude_ema"):
                tensor.copy_(torch.rand([]) + 0.5)
            elif name.endswith("bias") and "affine" not in name:
                tensor.copy_(torch.randn(tensor.shape) * (10 if "mapping" in name else 0.3))
            elif name == "synthesis.input.affine.weight":
                tensor.copy_(torch.randn(tensor.shape) * 0.3)
            elif name == "mapping.w_avg":
                tensor.copy_(torch.randn(tensor.shape) * 0.1)
    return G


ROTATED = torch.tensor([[math.cos(0.4), -math.sin(0.4), 0.1], [math.sin(0.4), math.cos(0.4), -0.2], [0, 0, 1]])
ZOOMED_OUT = torch.tensor([[3.0, 0.5, 0.2], [-0.5, 3.0, 0.1], [0, 0, 1]])  # moves frequencies out of the band


@pytest.mark.parametrize(
    ("size", "kind", "c_dim", "transform", "clamp"),
    [
        (16, {}, 0, None, 256.0),
        (32, {}, 3, ROTATED, 256.0),
        (32, {}, 0, ZOOMED_OUT, None),
        (32, R_KIND, 0, ROTATED, 0.9),
        (16, R_KIND, 3, None, 256.0),
    ],
)
def test_network_equals_its_plain_definition(size, kind, c_dim, transform, clamp):
    config = StyleGAN3Config(size, size, c_dim=c_dim, conv_clamp=clamp, **SMALL | kind)
    G = random_generator(config)
    state = dict(G.state_dict())
    z = torch.randn(2, 32).double()
    c = torch.eye(3, dtype=torch.float64)[[0, 2]] if c_dim else None
    w = mapping(state, z, c)
    ws = G.mapping(z, c)
    assert ws.shape == (2, 16, 32)
    torch.testing.assert_close(ws, w[:, None].repeat(1, 16, 1))
    transform = None if transform is None else transform.double()
    expected = synthesize(state, ws, size, kind == R_KIND, transform, clamp)
    assert expected.std() > 0.05
    with torch.no_grad():
        image = G.synthesis(ws, transform=transform)
    torch.testing.assert_close(image, expected, atol=2e-6, rtol=0)  # filters are stored in float32


# Rate, cutoff and half width of each layer before the schedule of StyleGAN3, and its size: two layers of each rate.
_HALF = math.sqrt(2) - 1
CRITICAL = [(rate, rate / 2, _HALF * rate / 2, rate + 20) for rate in (4, 8, 8, 16, 16, 32)]
OCTAVES = [(rate, cutoff * (1 - _HALF if rate < 32 else 1), half, size) for rate, cutoff, half, size in CRITICAL]
BEFORE = {
    "E": ({"critical": 7, "lrelu_upsampling": 1, "moves": False}, CRITICAL, 1),
    "F": ({"critical": 7, "moves": False}, CRITICAL, 2),
    "G": ({"moves": False}, OCTAVES, 2),
    "H": ({}, OCTAVES, 2),
}


@pytest.mark.parametrize("name", BEFORE)
def test_configurations_before_the_published_networks(name):
    """Karras et al. 2021, figure 3 left: E to H."""
    settings, rows, upsampling = BEFORE[name]
    config = StyleGAN3Config(32, 32, octaves=True, num_layers=7, **SMALL | settings)
    rows = [*rows, (32, 16.0, _HALF * 16, 32)]
    found = [(s.target.rate, s.target.cutoff, s.target.half_width, s.target.height) for s in layer_specs(config)[:-1]]
    assert found == [pytest.approx(row) for row in rows]
    G = random_generator(config)
    state, ws = dict(G.state_dict()), torch.randn(2, G.num_ws, 32).double()
    if not config.moves:
        state |= {"synthesis.input.affine.weight": torch.zeros(4, 32).double()}
        state |= {"synthesis.input.affine.bias": torch.tensor([1.0, 0, 0, 0]).double()}
    expected = synthesize(state, ws, 32, False, ROTATED.double(), rows=rows, upsampling=upsampling)
    with torch.no_grad():
        image = G.synthesis(ws, transform=ROTATED.double())
        frozen = frozen_synthesis(G)(ws, transform=ROTATED.double())
    torch.testing.assert_close(image, expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(frozen, image)
    with pytest.raises(SganError, match="NVIDIA's StyleGAN3 has no layers whose rates double"):
        arguments_of(config)


def test_transform_of_each_image():
    G = random_generator(StyleGAN3Config(16, 16, **SMALL))
    ws = G.mapping(torch.randn(2, 32).double())
    both = torch.stack([ROTATED, torch.eye(3)]).double()
    with torch.no_grad():
        together = G.synthesis(ws, transform=both)
        torch.testing.assert_close(together[:1], G.synthesis(ws[:1], transform=both[0]))
        torch.testing.assert_close(together[1:], G.synthesis(ws[1:]))


def test_statistics_move_with_the_images_of_a_batch():
    """v <- beta v + (1 - beta) mean(x^2), beta = 0.5^(batch / half-life), whatever the parts of the batch."""
    config = StyleGAN3Config(16, 16, magnitude_kimg=0.004, **SMALL)
    parts, whole = (random_generator(config) for _ in range(2))
    z, inputs = torch.randn(4, 32).double(), {}
    layers = [row.name for row in whole.layers if row.kind != "input"]
    for name in layers:
        whole.get_submodule(name).register_forward_hook(lambda m, args, y, name=name: inputs.update({name: args[0]}))
    before = {name: whole.get_buffer(f"{name}.magnitude_ema").item() for name in layers}
    with torch.no_grad():
        for G, split in ((whole, 4), (parts, 1)):
            with G.collect_statistics():
                for part in z.split(split):
                    G(part)
            G.commit_statistics(4, lambda total: total)
    for name in layers:
        mean = inputs[name].square().mean().item()
        v = whole.get_buffer(f"{name}.magnitude_ema").item()
        assert v == pytest.approx(0.5 * before[name] + 0.5 * mean, rel=1e-9)  # a batch of 4, a half-life of 4 images
        assert parts.get_buffer(f"{name}.magnitude_ema").item() == pytest.approx(v, rel=1e-9)


def test_statistics_ignore_what_is_not_finite():
    G = random_generator(StyleGAN3Config(16, 16, **SMALL))
    before = {name: buffer.clone() for name, buffer in G.named_buffers()}
    with G.collect_statistics(), torch.no_grad():
        G(torch.full([2, 32], math.nan).double())
    G.commit_statistics(2, lambda total: total)
    for name, buffer in G.named_buffers():
        torch.testing.assert_close(buffer, before[name])


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 3e-3), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.parametrize("kind", [{}, R_KIND], ids=["T", "R"])
def test_half_precision_of_the_highest_rates_is_close(kind, dtype, error):
    """Layers run in half precision where rate * 2^half_levels > level, and the image is float32."""
    torch.manual_seed(0)
    G = build_generator(StyleGAN3Config(64, 64, half_levels=1, **SMALL | kind)).requires_grad_(False)
    z, seen = torch.randn(2, 32), {}
    full = G(z)
    for row in G.layers[1:]:
        G.get_submodule(row.name).register_forward_pre_hook(
            lambda module, inputs, name=row.name: seen.update({name: inputs[0].dtype})
        )
    half = G(z, dtype=dtype)
    rates = {spec.name: spec.target.rate for spec in layer_specs(G.config)}
    assert sorted(set(rates.values())) == [16, 32, 64]
    assert seen == {f"synthesis.{name}": dtype if 2 * rate > 64 else torch.float32 for name, rate in rates.items()}
    assert half.dtype == torch.float32 and (full - half).square().mean().sqrt() < error * full.std()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 4, "width": 4}, "cannot be halved"),
        ({"kernel": 5}, "kernel"),
        ({"channel_base": 16}, "leaves no channels"),
        ({"first_cutoff": 5.0}, "cutoff"),
        ({"critical": 14}, "critical"),
        ({"octaves": True}, "octaves need 9 layers, not 14"),
        ({"octaves": True, "num_layers": 9, "critical": 10}, "critical"),
        ({"first_cutoff": 4.0, "height": 8, "width": 8}, "highest frequency"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(SganError, match=message):
        StyleGAN3Config(**{"height": 64, "width": 64, **settings})


def test_transform_needs_a_network_that_takes_one():
    from stylegan_cli.models.stylegan2.config import StyleGAN2Config

    G = build_generator(StyleGAN2Config(16, 16, channel_base=128, channel_max=16))
    with pytest.raises(ValueError, match="cannot be transformed"):
        G.synthesis(torch.zeros(1, G.num_ws, 512), transform=torch.eye(3))
