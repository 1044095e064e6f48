"""Files for rosinality's program: names, sides and kernels as its strict load_state_dict wants them, and back."""

import dataclasses
import re

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.interop import rosinality_writer
from stylegan_cli.interop.opening import open_model
from stylegan_cli.interop.rosinality_writer import check_layers, check_widths, write_rosinality, write_unchecked
from stylegan_cli.models.config import DiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config

SHAPE = {"channel_base": 128, "channel_max": 12, "half_levels": 0, "conv_clamp": None}


@pytest.fixture(scope="module")
def pair():
    """A generator and a discriminator at 16 x 16 in which nothing is zero."""
    torch.manual_seed(5)
    G = build_generator(StyleGAN2Config(16, 16, z_dim=10, w_dim=10, mapping_layers=3, **SHAPE))
    D = build_discriminator(DiscriminatorConfig(16, 16, **SHAPE))
    with torch.no_grad():
        for p in (*G.parameters(), *D.parameters()):
            p.add_(0.3 * torch.randn_like(p))
        G.mapping.w_avg.normal_()
    return G.eval().requires_grad_(False), D.eval().requires_grad_(False)


def written(path, G, D):
    write_unchecked(path, G, D)
    return torch.load(path, weights_only=True)


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_there_and_back(pair, tmp_path):
    G, D = pair
    write_unchecked(tmp_path / "model.pt", G, D)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
    back = open_model(tmp_path / "model.pt")
    assert (back.G.config, back.D.config) == (G.config, D.config)
    assert same(back.G, G) and same(back.D, D)


def modulated(name, rows, columns, side):
    return {
        f"{name}.conv.weight": (1, rows, columns, side, side),
        f"{name}.conv.modulation.weight": (columns, 10),
        f"{name}.conv.modulation.bias": (columns,),
    }


def styled(name, rows, columns):
    return modulated(name, rows, columns, 3) | {f"{name}.noise.weight": (1,), f"{name}.activate.bias": (rows,)}


def test_every_name_and_shape_of_the_generator(pair, tmp_path):
    wanted = {"input.input": (1, 12, 4, 4)} | styled("conv1", 12, 12)
    wanted |= {f"style.{i}.weight": (10, 10) for i in (1, 2, 3)} | {f"style.{i}.bias": (10,) for i in (1, 2, 3)}
    for i, (rows, columns) in enumerate([(12, 12), (12, 12), (8, 12), (8, 8)]):
        wanted |= styled(f"convs.{i}", rows, columns)
    for name, columns in (("to_rgb1", 12), ("to_rgbs.0", 12), ("to_rgbs.1", 8)):
        wanted |= modulated(name, 3, columns, 1) | {f"{name}.bias": (1, 3, 1, 1)}
    wanted |= {f"noises.noise_{i}": (1, 1, side, side) for i, side in enumerate([4, 8, 8, 16, 16])}
    kernels = ["convs.0.conv.blur", "convs.2.conv.blur", "to_rgbs.0.upsample", "to_rgbs.1.upsample"]
    wanted |= {f"{name}.kernel": (4, 4) for name in kernels}

    tree = written(tmp_path / "g.pt", pair[0], None)
    assert tree.keys() == {"g_ema", "g", "latent_avg"}
    assert {name: tuple(t.shape) for name, t in tree["g_ema"].items()} == wanted
    assert all(tree["g"][name] is t for name, t in tree["g_ema"].items())
    assert torch.equal(tree["latent_avg"], pair[0].mapping.w_avg)


def test_every_name_and_shape_of_the_discriminator(pair, tmp_path):
    wanted = {"convs.0.0.weight": (8, 3, 1, 1), "convs.0.1.bias": (8,)}
    for i, columns in ((1, 8), (2, 12)):
        wanted |= {f"convs.{i}.conv1.0.weight": (columns, columns, 3, 3), f"convs.{i}.conv1.1.bias": (columns,)}
        wanted |= {f"convs.{i}.conv2.1.weight": (12, columns, 3, 3), f"convs.{i}.conv2.2.bias": (12,)}
        wanted |= {f"convs.{i}.skip.1.weight": (12, columns, 1, 1)}
        wanted |= {f"convs.{i}.conv2.0.kernel": (4, 4), f"convs.{i}.skip.0.kernel": (4, 4)}
    wanted |= {"final_conv.0.weight": (12, 13, 3, 3), "final_conv.1.bias": (12,)}
    wanted |= {"final_linear.0.weight": (12, 192), "final_linear.0.bias": (12,)}
    wanted |= {"final_linear.1.weight": (1, 12), "final_linear.1.bias": (1,)}
    weights = written(tmp_path / "d.pt", *pair)["d"]
    assert {name: tuple(t.shape) for name, t in weights.items()} == wanted


def test_kernels_keep_the_mean(pair, tmp_path):
    # Upsampling puts three zeros beside each pixel, and so multiplies by 4; downsampling does not
    tree = written(tmp_path / "m.pt", *pair)
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    for part, gain in (("g_ema", 4), ("d", 1)):
        kernels = [t for name, t in tree[part].items() if name.endswith(".kernel")]
        assert len(kernels) == 4
        assert all(torch.equal(kernel, row[:, None] * row * gain / 64) for kernel in kernels)


def test_the_file_is_small_plain_and_always_the_same(pair, tmp_path):
    G, D = pair
    write_unchecked(tmp_path / "a.pt", G, D)
    write_unchecked(tmp_path / "b.pt", G, D)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()

    whole = torch.randn(1 << 20)
    G.mapping.w_avg, kept = whole[:10], G.mapping.w_avg  # a part of a tensor of 4 MB
    try:
        write_unchecked(tmp_path / "c.pt", G, D.double())
    finally:
        G.mapping.w_avg = kept
        D.float()
    assert (tmp_path / "c.pt").stat().st_size < 1 << 20
    assert torch.load(tmp_path / "c.pt", weights_only=True)["d"]["convs.0.0.weight"].dtype == torch.float32


G64, D64 = StyleGAN2Config(64, 64), DiscriminatorConfig(64, 64)


@pytest.mark.parametrize(
    ("config", "changes", "why"),
    [
        (G64, {"c_dim": 3}, "generators take no classes: this one knows 3"),
        (D64, {"c_dim": 3}, "discriminators take no classes"),
        (G64, {"channels": 1}, "RGB: this one has 1 channels"),
        (D64, {"channels": 4}, "RGB: this one has 4 channels"),
        (G64, {"width": 128}, "squares .* 64x128"),
        (G64, {"height": 48, "width": 48}, "squares .* 48x48"),
        (D64, {"height": 96}, "squares .* 96x64"),
        (G64, {"height": 2048, "width": 2048}, "to 1024 pixels"),
        (G64, {"fir": (1.0, 2.0, 1.0)}, "by 1,3,3,1: this one by 1,2,1"),
        (D64, {"fir": (1.0, 2.0, 2.0, 1.0)}, "this one by 1,2,2,1"),
        (G64, {"architecture": "resnet"}, "'skip': this one has 'resnet'"),
        (G64, {"architecture": "orig"}, "'skip': this one has 'orig'"),
        (D64, {"architecture": "skip"}, "'resnet': this one has 'skip'"),
        (StyleGANConfig(64, 64), {}, "are StyleGAN2s: this one is of the family 'stylegan'"),
        (G64, {"mapping_lr": 0.1}, "mapping_lr of 0.01: this one has 0.1"),
        (G64, {"z_dim": 256}, "256 and 512 numbers"),
        (D64, {"mbstd_channels": 4}, "this one has 4"),
    ],
)
def test_what_they_lack_is_refused(config, changes, why):
    with pytest.raises(SganError, match=why) as refusal:
        check_layers(dataclasses.replace(config, **changes))
    assert ("--drop-discriminator" in refusal.value.hint) == (config is D64)


def test_what_is_lost_is_not_refused():
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
@pytest.mark.parametrize("kind", [StyleGAN2Config, DiscriminatorConfig])
def test_widths(kind, size, base, most, multipliers):
    config = kind(size, size, channel_base=base, channel_max=most)
    if multipliers is not None:
        assert check_widths(config) == multipliers
        return
    with pytest.raises(
        SganError, match=rf"512 feature maps .* this one has {min(base // 4, most)} at 4, .* at {size}\."
    ):
        check_widths(config)


def configured(config):
    """As much of a network as is looked at before anything is written."""
    network = torch.nn.Module()
    network.config = config
    return network


def test_one_multiplier_for_both(monkeypatch, tmp_path):
    reached = []
    monkeypatch.setattr(rosinality_writer, "write_unchecked", lambda *given: reached.append(given))
    G = configured(dataclasses.replace(G64, channel_base=16384))
    with pytest.raises(SganError, match="one channel_multiplier"):
        write_rosinality(tmp_path / "m.pt", G, configured(D64))
    assert not reached
    write_rosinality(tmp_path / "m.pt", G, configured(dataclasses.replace(D64, channel_base=16384)))
    write_rosinality(tmp_path / "m.pt", G, None)
    assert len(reached) == 2


def test_a_refusal_leaves_nothing_behind(pair, tmp_path):
    with pytest.raises(SganError, match="12 at 4, 12 at 8, 8 at 16"):
        write_rosinality(tmp_path / "m.pt", *pair)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(pair, tmp_path):
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
