"""The StyleGAN2 generator: its size, its layer table, its equations, invalid inputs."""

import math

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.layers import normalize_2nd_moment
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.summary import parameter_count, summarize
from stylegan_cli.ops import conv2d_resample, fir_filter, upsample2d, use
from stylegan_cli.sampling.view import view_transform

ARCHITECTURES = ["skip", "resnet", "orig"]


@pytest.mark.parametrize(
    ("size", "base", "millions"), [(64, 16384, 23.819544), (256, 16384, 24.767458), (1024, 32768, 30.370060)]
)
def test_parameter_counts(size, base, millions):
    with torch.device("meta"):
        G = build_generator(StyleGAN2Config(size, size, channel_base=base))
    assert parameter_count(G) == round(millions * 1e6)


def test_channels_follow_the_level():
    with torch.device("meta"):
        G = build_generator(StyleGAN2Config(256, 256, channel_base=16384))
    widths = {row.height: row.channels for row in G.layers if row.kind == "conv"}
    assert widths == {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64}


# ------------------------------------------------------------------------------------- layer table


def test_the_layer_table_of_a_square_image(make_g):
    G = make_g(32, 32)
    rows = [(row.name.removeprefix("synthesis."), row.w_index, row.height, row.height, row.width) for row in G.layers]
    assert rows == [
        ("b4.conv1", 0, 4, 4, 4),
        ("b4.torgb", 1, 4, 4, 4),
        ("b8.conv0", 1, 8, 8, 8),
        ("b8.conv1", 2, 8, 8, 8),
        ("b8.torgb", 3, 8, 8, 8),
        ("b16.conv0", 3, 16, 16, 16),
        ("b16.conv1", 4, 16, 16, 16),
        ("b16.torgb", 5, 16, 16, 16),
        ("b32.conv0", 5, 32, 32, 32),
        ("b32.conv1", 6, 32, 32, 32),
        ("b32.torgb", 7, 32, 32, 32),
    ]
    assert G.num_ws == 8


@pytest.mark.parametrize("size", [8, 16, 64, 256, 1024])
def test_num_ws_follows_the_convention(size):
    with torch.device("meta"):
        G = build_generator(StyleGAN2Config(size, size, channel_base=1024))
    assert G.num_ws == 2 * int(math.log2(size)) - 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("height", "width", "top"), [(24, 48, 32), (10, 6, 8), (48, 32, 32)])
def test_the_layer_table_is_correct(make_g, architecture, height, width, top):
    """Names are those of modules, sizes are those of their outputs, every w is used."""
    levels = [level for level in (4, 8, 16, 32) if level <= top]
    G = make_g(height, width, architecture=architecture, channels=4)
    outputs = {}
    for name, module in G.named_modules():
        module.register_forward_hook(lambda m, i, y, name=name: outputs.setdefault(name, y))
    assert G(torch.randn(2, 8).double()).shape == (2, 4, height, width)
    for row in G.layers:
        assert outputs[row.name].shape == (2, row.channels, row.height, row.width)
        assert row.noise == (row.kind == "conv") == hasattr(G.get_submodule(row.name), "noise_const")
    assert sorted({row.height for row in G.layers}) == [height * level // top for level in levels]
    groups = {row.w_index: row.group for row in G.layers}
    assert list(groups.values()) == sorted(groups.values()) and set(groups.values()) == set(range(len(levels)))
    assert sorted({row.w_index for row in G.layers}) == list(range(G.num_ws))
    modulated = {name for name, m in G.synthesis.named_modules(prefix="synthesis") if hasattr(m, "affine")}
    assert {row.name for row in G.layers} == modulated
    torgb = [row.height * top // height for row in G.layers if row.kind == "torgb"]
    assert torgb == (levels if architecture == "skip" else levels[-1:])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_w_affects_only_its_layers(make_g, randn, architecture):
    G = make_g(16, 16, architecture=architecture)
    ws = G.mapping(randn(1, 8))
    names = [row.name for row in G.layers]
    outputs = {}
    for name in names:
        G.get_submodule(f"{name}.affine").register_forward_hook(lambda m, i, y, name=name: outputs.update({name: y}))
    G.synthesis(ws)
    before = dict(outputs)
    for k in range(G.num_ws):
        changed = ws.clone()
        changed[:, k] += 1
        G.synthesis(changed)
        affected = {name for name in names if not torch.equal(outputs[name], before[name])}
        assert affected == {row.name for row in G.layers if row.w_index == k}


# ------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 48)])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_shapes(make_g, randn, architecture, channels, height, width, c_dim):
    G = make_g(height, width, architecture=architecture, channels=channels, c_dim=c_dim)
    c = torch.eye(3).double()[[0, 2]] if c_dim else None
    image = G(randn(2, 8), c)
    assert image.shape == (2, channels, height, width) and image.dtype == torch.float64
    assert G.synthesis.b4.const.shape[1:] == ((4, 4) if height == 8 else (3, 6))
    assert image[0].sub(image[1]).abs().max() > 1e-3


# ---------------------------------------------------------------------------------------- equations


def block_input(G, ws, level):
    """The input of a level: the output of all convolutions of lower levels."""
    x = G.synthesis.b4.const.expand(len(ws), -1, -1, -1)
    for row in G.layers:
        if row.kind == "conv" and row.height < level:
            x = G.get_submodule(row.name)(x, ws[:, row.w_index], None)
    return x


def test_skip_sums_the_images_of_all_levels(make_g, randn):
    G = make_g(16, 16)
    ws = randn(2, G.num_ws, 8)
    f, image = fir_filter([1, 3, 3, 1]), None
    for row in G.layers:
        if row.kind == "torgb":
            rgb = G.get_submodule(row.name)(block_input(G, ws, row.height * 2), ws[:, row.w_index])
            with use("reference"):
                image = rgb if image is None else rgb + upsample2d(image, f)
    assert torch.allclose(G.synthesis(ws, noise="none"), image, rtol=1e-10)


def test_orig_has_one_torgb_at_the_end(make_g, randn):
    G = make_g(16, 16, architecture="orig")
    ws = randn(2, G.num_ws, 8)
    image = G.synthesis.b16.torgb(block_input(G, ws, 32), ws[:, -1])
    assert torch.allclose(G.synthesis(ws, noise="none"), image, rtol=1e-10)


def test_resnet_adds_a_resampled_shortcut(make_g, randn):
    G = make_g(8, 8, architecture="resnet")
    ws = randn(2, G.num_ws, 8)
    x = block_input(G, ws, 8)
    block = G.synthesis.b8
    f = fir_filter([1, 3, 3, 1])
    with use("reference"):
        shortcut = conv2d_resample(x, block.skip.weight / math.sqrt(x.shape[1]), f, up=2)
    y = block.conv1(block.conv0(x, ws[:, 1], None), ws[:, 2], None)
    image = block.torgb((shortcut + y) * math.sqrt(0.5), ws[:, 3])
    assert torch.allclose(G.synthesis(ws, noise="none"), image, rtol=1e-10)


def test_initial_weights_depend_on_the_seed():
    networks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        networks.append(build_generator(StyleGAN2Config(8, 8, channel_base=64, z_dim=8, w_dim=8)).state_dict())
    assert all(torch.equal(networks[0][k], networks[1][k]) for k in networks[0])
    assert not torch.equal(networks[0]["synthesis.b4.const"], networks[2]["synthesis.b4.const"])


# -------------------------------------------------------------------------------------------- noise


def test_constant_noise_comes_from_the_buffers(make_g, randn):
    G, z = make_g(), randn(2, 8)
    maps = [G.get_submodule(row.name).noise_const[None, None] for row in G.layers if row.noise]
    assert torch.equal(G(z, noise="const"), G(z, noise=maps))
    assert torch.equal(G(z, noise="const"), G(z))
    assert not torch.allclose(G(z, noise="const"), G(z, noise="none"))


def test_no_noise_equals_zero_noise(make_g, randn):
    G, z = make_g(), randn(2, 8)
    zeros = [torch.zeros(1, 1, row.height, row.width).double() for row in G.layers if row.noise]
    assert torch.allclose(G(z, noise="none"), G(z, noise=zeros))


def test_random_noise_differs_between_calls_and_images(make_g, randn):
    G, z = make_g(), randn(1, 8).expand(2, -1)
    first, second = G(z, noise="random"), G(z, noise="random")
    assert not torch.equal(first, second) and not torch.allclose(first[0], first[1])
    torch.manual_seed(1)
    a = G(z, noise="random")
    torch.manual_seed(1)
    assert torch.equal(a, G(z, noise="random"))


def test_noise_scales_with_its_strength(make_g, randn):
    G, z = make_g(), randn(2, 8)
    for row in G.layers:
        if row.noise:
            G.get_submodule(row.name).noise_strength.zero_()
    assert torch.equal(G(z, noise="random"), G(z, noise="const"))


@pytest.mark.parametrize("noise", ["Const", [], "two too many"])
def test_invalid_noise(make_g, randn, noise):
    G = make_g()
    with pytest.raises(ValueError, match="noise must be 'const', 'random', 'none' or 5 tensors"):
        G(randn(1, 8), noise=[torch.zeros(1)] * 7 if noise == "two too many" else noise)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 3, 3), (3, 1, None, None), (2, 4, None, None)])
def test_noise_maps_of_the_wrong_shape(make_g, randn, shape):
    G = make_g()
    maps = [
        torch.zeros(*shape[:2], shape[2] or row.height, shape[3] or row.width).double() for row in G.layers if row.noise
    ]
    with pytest.raises(ValueError):
        G(randn(2, 8), noise=maps)


@pytest.mark.parametrize("shape", [(2, 8), (2, 5, 8), (2, 7, 8), (2, 6, 9), (6, 8)])
def test_ws_of_the_wrong_shape(make_g, shape):
    G = make_g()
    assert G.num_ws == 6
    with pytest.raises(ValueError, match=r"ws must have shape \[N, 6, 8\]"):
        G.synthesis(torch.zeros(shape).double())


# ----------------------------------------------------------------------------------- half precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_half_precision_is_close(make_g, randn, dtype, architecture):
    G, z = make_g(architecture=architecture, half_levels=2).float(), randn(4, 8).float()
    exact, half = G(z), G(z, dtype=dtype)
    assert half.dtype == torch.float32
    tolerance = 0.01 if dtype == torch.float16 else 0.06
    assert (exact - half).abs().max() < tolerance * exact.abs().max()
    assert not torch.equal(exact, half)


def test_only_the_highest_levels_run_in_half_precision(make_g, randn):
    G, dtypes = make_g(half_levels=1).float(), {}
    for row in G.layers:
        hook = G.get_submodule(row.name).register_forward_hook
        hook(lambda m, inputs, y, name=row.name: dtypes.update({name: inputs[0].dtype}))
    G(randn(1, 8).float(), dtype=torch.bfloat16)
    for row in G.layers:
        assert dtypes[row.name] == (torch.bfloat16 if row.height == 16 else torch.float32)


# ------------------------------------------------------------------------------------------ summary


def test_summary_counts_every_parameter_once(make_g, make_d, randn):
    for title, network, inputs in (
        ("Generator", make_g(c_dim=3), (randn(1, 8), torch.eye(3).double()[:1])),
        ("Discriminator", make_d(c_dim=3), (randn(1, 3, 16, 16), torch.eye(3).double()[:1])),
    ):
        lines = summarize(title, network, *inputs).splitlines()
        counts = [int(line.split()[-1].replace(",", "")) for line in lines[1:]]
        assert counts[-1] == parameter_count(network) == sum(p.numel() for p in network.parameters())
        assert sum(counts[:-1]) == counts[-1]
        assert lines[0].startswith(title)
        assert any("x 16 x 16" in line for line in lines)


def test_the_generator_is_mapping_then_synthesis(make_g, randn):
    G, z = make_g(), randn(3, 8)
    assert torch.equal(G(z), G.synthesis(G.mapping(z)))
    assert torch.equal(G.mapping(z)[:, 0], G.mapping(z)[:, -1])
    assert torch.allclose(G(z), G(z * 7), atol=1e-6)  # z is normalized
    assert torch.allclose(normalize_2nd_moment(z).square().mean(1), torch.ones(3).double())


# ------------------------------------------------------------------- StyleGAN3's configurations B and C


def test_a_fourier_input_moves_with_its_transform(make_g, randn):
    """Its frequencies are at most 2 cycles per image, all that 4 pixels can have; a quarter of the image is a pixel."""
    G = make_g(32, 64, input="fourier")
    block, ws = G.synthesis.b4, G.mapping(randn(2, G.config.z_dim))
    assert not hasattr(block, "const") and block.input.freqs.norm(dim=1).amax() < 2
    still, moved = (block(ws, view_transform(offset, None)) for offset in ((0.0, 0.0), (0.125, 0.25)))
    assert still.shape == (2, block.input.freqs.shape[0], 4, 8)
    torch.testing.assert_close(moved[:, :, 1:, 1:], still[:, :, :-1, :-1])
    assert not torch.allclose(moved, still, atol=0.1)
    assert not torch.allclose(*(G.synthesis(ws, transform=view_transform(t, None)) for t in ((0.0, 0.0), (0.1, 0.0))))


def test_only_a_fourier_input_takes_a_transform(make_g, randn):
    G = make_g(32, 32)
    assert not G.config.takes_transform
    with pytest.raises(ValueError, match="cannot be transformed"):
        G.synthesis(G.mapping(randn(1, G.config.z_dim)), transform=torch.eye(3))


def test_without_noise(make_g, randn):
    G = make_g(32, 32, noise=False)
    assert not G.noise_layers and not any("noise" in name for name in G.state_dict())
    ws = G.mapping(randn(2, G.config.z_dim))
    torch.testing.assert_close(G.synthesis(ws, noise="random"), G.synthesis(ws, noise="none"), rtol=0, atol=0)


def test_an_unknown_input():
    with pytest.raises(SganError, match="input"):
        StyleGAN2Config(32, 32, input="latent")
