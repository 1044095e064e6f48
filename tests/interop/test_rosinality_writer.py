"""Files for rosinality's program: the names, shapes and kernels that its strict load_state_dict requires."""

import dataclasses
import re

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.interop import rosinality_writer
from stylegan_cli.interop.opening import open_model
from stylegan_cli.interop.rosinality_writer import check_layers, check_widths, write_rosinality, write_unchecked
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config

SHAPE = {"channel_base": 128, "channel_max": 12, "half_levels": 0, "conv_clamp": None}


@pytest.fixture(scope="module")
def pair():
    """A generator and a discriminator at 16 x 16 without weights of zero."""
    torch.manual_seed(5)
    G = build_generator(StyleGAN2Config(16, 16, z_dim=10, w_dim=10, mapping_layers=3, **SHAPE))
    D = build_discriminator(LevelsDiscriminatorConfig(16, 16, **SHAPE))
    with torch.no_grad():
        for p in (*G.parameters(), *D.parameters()):
            p.add_(0.3 * torch.randn_like(p))
        G.mapping.w_avg.normal_()
    return G.eval().requires_grad_(False), D.eval().requires_grad_(False)


def write_and_load(path, G, D):
    write_unchecked(path, G, D)
    return torch.load(path, weights_only=True)


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_round_trip(pair, tmp_path):
    G, D = pair
    write_unchecked(tmp_path / "model.pt", G, D)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
    model = open_model(tmp_path / "model.pt")
    assert (model.G.config, model.D.config) == (G.config, D.config)
    assert same(model.G, G) and same(model.D, D)


def modulated(name, rows, columns, side):
    return {
        f"{name}.conv.weight": (1, rows, columns, side, side),
        f"{name}.conv.modulation.weight": (columns, 10),
        f"{name}.conv.modulation.bias": (columns,),
    }


def styled(name, rows, columns):
    return modulated(name, rows, columns, 3) | {f"{name}.noise.weight": (1,), f"{name}.activate.bias": (rows,)}


def test_every_name_and_shape_of_the_generator(pair, tmp_path):
    expected = {"input.input": (1, 12, 4, 4)} | styled("conv1", 12, 12)
    expected |= {f"style.{i}.weight": (10, 10) for i in (1, 2, 3)} | {f"style.{i}.bias": (10,) for i in (1, 2, 3)}
    for i, (rows, columns) in enumerate([(12, 12), (12, 12), (8, 12), (8, 8)]):
        expected |= styled(f"convs.{i}", rows, columns)
    for name, columns in (("to_rgb1", 12), ("to_rgbs.0", 12), ("to_rgbs.1", 8)):
        expected |= modulated(name, 3, columns, 1) | {f"{name}.bias": (1, 3, 1, 1)}
    expected |= {f"noises.noise_{i}": (1, 1, side, side) for i, side in enumerate([4, 8, 8, 16, 16])}
    kernels = ["convs.0.conv.blur", "convs.2.conv.blur", "to_rgbs.0.upsample", "to_rgbs.1.upsample"]
    expected |= {f"{name}.kernel": (4, 4) for name in kernels}

    tree = write_and_load(tmp_path / "g.pt", pair[0], None)
    assert tree.keys() == {"g_ema", "g", "latent_avg"}
    assert {name: tuple(t.shape) for name, t in tree["g_ema"].items()} == expected
    assert all(tree["g"][name] is t for name, t in tree["g_ema"].items())
    assert torch.equal(tree["latent_avg"], pair[0].mapping.w_avg)


def test_every_name_and_shape_of_the_discriminator(pair, tmp_path):
    expected = {"convs.0.0.weight": (8, 3, 1, 1), "convs.0.1.bias": (8,)}
    for i, columns in ((1, 8), (2, 12)):
        expected |= {f"convs.{i}.conv1.0.weight": (columns, columns, 3, 3), f"convs.{i}.conv1.1.bias": (columns,)}
        expected |= {f"convs.{i}.conv2.1.weight": (12, columns, 3, 3), f"convs.{i}.conv2.2.bias": (12,)}
        expected |= {f"convs.{i}.skip.1.weight": (12, columns, 1, 1)}
        expected |= {f"convs.{i}.conv2.0.kernel": (4, 4), f"convs.{i}.skip.0.kernel": (4, 4)}
    expected |= {"final_conv.0.weight": (12, 13, 3, 3), "final_conv.1.bias": (12,)}
    expected |= {"final_linear.0.weight": (12, 192), "final_linear.0.bias": (12,)}
    expected |= {"final_linear.1.weight": (1, 12), "final_linear.1.bias": (1,)}
    weights = write_and_load(tmp_path / "d.pt", *pair)["d"]
    assert {name: tuple(t.shape) for name, t in weights.items()} == expected


def test_kernels_preserve_the_mean(pair, tmp_path):
    # Upsampling inserts three zeros for each pixel, so its kernel is multiplied by 4
    tree = write_and_load(tmp_path / "m.pt", *pair)
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    for part, gain in (("g_ema", 4), ("d", 1)):
        kernels = [t for name, t in tree[part].items() if name.endswith(".kernel")]
        assert len(kernels) == 4
        assert all(torch.equal(kernel, row[:, None] * row * gain / 64) for kernel in kernels)


def test_the_file_is_reproducible_and_contains_only_the_weights(pair, tmp_path):
    G, D = pair
    write_unchecked(tmp_path / "a.pt", G, D)
    write_unchecked(tmp_path / "b.pt", G, D)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()

    large = torch.randn(1 << 20)
    G.mapping.w_avg, original = large[:10], G.mapping.w_avg  # a view of a tensor of 4 MB
    try:
        write_unchecked(tmp_path / "c.pt", G, D.double())
    finally:
        G.mapping.w_avg = original
        D.float()
    assert (tmp_path / "c.pt").stat().st_size < 1 << 20
    assert torch.load(tmp_path / "c.pt", weights_only=True)["d"]["convs.0.0.weight"].dtype == torch.float32


G64, D64 = StyleGAN2Config(64, 64), LevelsDiscriminatorConfig(64, 64)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (G64, {"c_dim": 3}, "generators support no classes, not 3"),
        (D64, {"c_dim": 3}, "discriminators support no classes, not 3"),
        (G64, {"channels": 1}, "only RGB, not 1 channels"),
        (D64, {"channels": 4}, "only RGB, not 4 channels"),
        (G64, {"width": 128}, "squares .* 64x128"),
        (G64, {"height": 48, "width": 48}, "squares .* 48x48"),
        (D64, {"height": 96}, "squares .* 96x64"),
        (G64, {"height": 2048, "width": 2048}, "1024 pixels, not 2048x2048"),
        (G64, {"fir": (1.0, 2.0, 1.0)}, "filter 1,3,3,1, not 1,2,1"),
        (D64, {"fir": (1.0, 2.0, 2.0, 1.0)}, "not 1,2,2,1"),
        (G64, {"architecture": "resnet"}, "'skip', not 'resnet'"),
        (G64, {"architecture": "orig"}, "'skip', not 'orig'"),
        (D64, {"architecture": "skip"}, "'resnet', not 'skip'"),
        (StyleGANConfig(64, 64), {}, "support only StyleGAN2, not the family 'stylegan'"),
        (G64, {"input": "fourier"}, "a constant input, not 'fourier'"),
        (G64, {"noise": False}, "only layers with noise"),
        (G64, {"mapping_lr": 0.1}, "mapping_lr of 0.01, not 0.1"),
        (G64, {"z_dim": 256}, "not 256 and 512"),
        (D64, {"mbstd_channels": 4}, "standard deviation, not 4"),
    ],
)
def test_unsupported_networks_are_refused(config, changes, message):
    with pytest.raises(SganError, match=message) as e:
        check_layers(dataclasses.replace(config, **changes))
    assert ("--drop-discriminator" in e.value.hint) == (config is D64)


def test_settings_that_are_lost_are_accepted():
    check_layers(dataclasses.replace(G64, conv_clamp=256.0, w_avg_beta=0.5, mapping_layers=2, fir=(2.0, 6.0, 6.0, 2.0)))
    check_layers(dataclasses.replace(D64, mbstd_group=None, mapping_lr=0.5))


@pytest.mark.parametrize(
    ("size", "base", "most", "multipliers"),
    [
        (8, 32768, 512, {1, 2}),
        (32, 16384, 512, {1, 2}),
        (64, 16384, 512, {1}),
        (64, 32768, 512, {2}),
        (64, 1 << 20, 512, {2}),
        (1024, 16384, 512, {1}),
        (1024, 32768, 512, {2}),
        (32, 8192, 512, None),
        (64, 32768, 256, None),
        (64, 24576, 512, None),
        (128, 65536, 512, None),
        (64, 65536, 1024, None),
    ],
)
@pytest.mark.parametrize("kind", [StyleGAN2Config, LevelsDiscriminatorConfig])
def test_widths(kind, size, base, most, multipliers):
    config = kind(size, size, channel_base=base, channel_max=most)
    if multipliers is not None:
        assert check_widths(config) == multipliers
        return
    with pytest.raises(SganError, match=rf"512 feature maps .*, not {min(base // 4, most)} at 4, .* at {size}\."):
        check_widths(config)


def fake_network(config):
    """A network with nothing but a configuration, which is all that the checks use."""
    network = torch.nn.Module()
    network.config = config
    return network


def test_both_networks_need_the_same_multiplier(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(rosinality_writer, "write_unchecked", lambda *arguments: calls.append(arguments))
    G = fake_network(dataclasses.replace(G64, channel_base=16384))
    with pytest.raises(SganError, match="one channel_multiplier"):
        write_rosinality(tmp_path / "m.pt", G, fake_network(D64))
    assert not calls
    write_rosinality(tmp_path / "m.pt", G, fake_network(dataclasses.replace(D64, channel_base=16384)))
    write_rosinality(tmp_path / "m.pt", G, None)
    assert len(calls) == 2


def test_nothing_is_written_for_unsupported_networks(pair, tmp_path):
    with pytest.raises(SganError, match="12 at 4, 12 at 8, 8 at 16"):
        write_rosinality(tmp_path / "m.pt", *pair)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_old_file(pair, tmp_path):
    resource = pytest.importorskip("resource")
    (tmp_path / "m.pt").write_bytes(b"the old one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(SganError, match=re.escape(f"Cannot write {tmp_path / 'm.pt'}: ")):
            write_unchecked(tmp_path / "m.pt", *pair)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("m.pt", b"the old one")]
