"""Pickles of the StyleGAN of 2018, written here from scratch, and its networks by their definitions."""

import functools
import math
import pickle
import random

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.errors import SganError
from stylegan_cli.interop.checkpoint import FormatError
from stylegan_cli.interop.opening import open_model
from stylegan_cli.interop.tensorflow import read_tensorflow
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.pickled import Part, PickleError


def make_pair(side=16, d=None, **common):
    """Networks without weights of zero."""
    torch.manual_seed(1)
    common = {
        "channel_base": max(64, side),
        "channel_max": 8,
        "fir": (1.0, 1.0),
        "blur": (1.0, 2.0, 1.0),
        "half_levels": 0,
    } | common
    shape = {"z_dim": 6, "w_dim": 6, "mapping_layers": 2, "truncated": 8}
    labels = ("concat", "dot") if common.get("c_dim") else ("embed", "projection")
    G = build_generator(StyleGANConfig(side, side, labels=labels[0], **shape, **common))
    d_settings = {"architecture": "orig", "conv_clamp": None, "labels": labels[1], "mbstd_group": 2}
    D = build_discriminator(LevelsDiscriminatorConfig(side, side, **d_settings, **common, **(d or {})))
    for network in (G, D):
        for tensor in network.state_dict().values():
            tensor.add_(torch.randn_like(tensor) * 0.2)
        network.eval().requires_grad_(False)
    return G, D


# Our networks in TensorFlow's format


def array(tensor):
    return tensor.detach().contiguous().numpy()


def dense(target, name, state, gain=1.0):
    bias = array(state[f"{name}.bias"] * gain)
    return {f"{target}/weight": array(state[f"{name}.weight"].t()), f"{target}/bias": bias}


def convolution(target, name, state, gain=1.0, flip=False):  # [O, I, k, k] -> [k, k, I, O]
    w = state[f"{name}.weight"]
    w = (w.flip(2, 3) if flip else w).permute(2, 3, 1, 0)
    return {f"{target}/weight": array(w), f"{target}/bias": array(state[f"{name}.bias"] * gain)}


def levels_of(network):
    return [4 << k for k in range(int(math.log2(network.config.height)) - 1)]


def generator_variables(G, fused=lambda level: level >= 128, lod=0.0):
    """The variables of the generator itself, of the mapping network and of the synthesis network."""
    state, config, mapping = G.state_dict(), G.config, {}
    if config.c_dim:
        mapping["LabelConcat/weight"] = array(state["mapping.embed.weight"].t() / math.sqrt(config.c_dim))
    for i in range(config.mapping_layers):
        mapping |= dense(f"Dense{i}", f"mapping.fc{i}", state, math.sqrt(2))
    state = {k.removeprefix("synthesis."): v for k, v in state.items()}
    synthesis, levels = {"lod": np.float32(lod), "4x4/Const/const": array(state["const"][None])}, levels_of(G)
    for i, noise in enumerate(G.stored_noise()):
        synthesis[f"noise{i}"] = array(noise[None, None])
    for r in levels:
        for layer, target in (("conv0", "Const" if r == 4 else "Conv0_up"), ("conv1", "Conv" if r == 4 else "Conv1")):
            name, target = f"b{r}.{layer}", f"{r}x{r}/{target}"
            synthesis |= dense(f"{target}/StyleMod", f"{name}.affine", state)
            synthesis[f"{target}/Noise/weight"] = array(state[f"{name}.noise_strength"])
            synthesis[f"{target}/bias"] = array(state[f"{name}.bias"])
            if f"{name}.weight" in state:
                synthesis |= convolution(target, name, state, flip="_up" in target and not fused(r))
    synthesis |= convolution("ToRGB_lod0", f"pictures.torgb{levels[-1]}", state)
    for k, r in enumerate(reversed(levels[:-1]), 1):
        channels = len(synthesis[f"{r}x{r}/{'Conv' if r == 4 else 'Conv1'}/bias"])
        synthesis[f"ToRGB_lod{k}/weight"] = array(torch.randn(1, 1, channels, config.channels))
        synthesis[f"ToRGB_lod{k}/bias"] = array(torch.randn(config.channels))
    return {"dlatent_avg": array(G.mapping.w_avg)}, mapping, synthesis


def discriminator_variables(D, lod=0.0):
    state, levels, gain = D.state_dict(), levels_of(D), math.sqrt(2)
    variables = {"lod": np.float32(lod)} | convolution("FromRGB_lod0", f"b{levels[-1]}.fromrgb", state, gain)
    for r in levels[1:]:
        variables |= convolution(f"{r}x{r}/Conv0", f"b{r}.conv0", state, gain)
        variables |= convolution(f"{r}x{r}/Conv1_down", f"b{r}.conv1", state, gain)
    variables |= convolution("4x4/Conv", "b4.conv", state, gain)
    variables |= dense("4x4/Dense0", "b4.fc", state, gain) | dense("4x4/Dense1", "b4.out", state)
    for k, r in enumerate(reversed(levels[:-1]), 1):
        channels = len(variables["4x4/Conv/bias" if r == 4 else f"{r}x{r}/Conv0/bias"])
        variables[f"FromRGB_lod{k}/weight"] = array(torch.randn(1, 1, D.config.channels, channels))
        variables[f"FromRGB_lod{k}/bias"] = array(torch.randn(channels))
    return variables


def tree(Network, G, D, lod=0.0, version=3, **g_extra):
    """(G, D, Gs)"""
    network = functools.partial(Network, version)
    config, fused = G.config, g_extra.get("fused_scale", "auto")
    arguments = {"num_channels": config.channels, "resolution": config.height, "label_size": config.c_dim}
    is_fused = (lambda r: r >= 128) if fused == "auto" else lambda r: fused
    variables, *parts = generator_variables(G, is_fused, lod)
    mapping, synthesis = (network(part, arguments) for part in parts)
    generator = network(variables, arguments | g_extra, mapping=mapping, synthesis=synthesis)
    return generator, network(discriminator_variables(D, lod), arguments | {"mbstd_group_size": 2}), generator


def save(path, content):
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


def read(path):
    with open(path, "rb") as f:
        return read_tensorflow(Part(f))


# TensorFlow's networks, from their variables and in double precision


def numbers(network):
    return {name: torch.as_tensor(value).double() for name, value in network.variables}


def scaled_dense(x, v, name, gain, lr=1.0):
    w = v[f"{name}/weight"]
    return x @ (w * (gain / math.sqrt(len(w)) * lr)) + v[f"{name}/bias"] * lr


def scaled_conv(x, v, name, gain=2**0.5):
    """A 'same' correlation without bias."""
    w = v[f"{name}/weight"]
    k, _, in_channels, _ = w.shape
    return F.conv2d(x, w.permute(3, 2, 0, 1) * (gain / math.sqrt(in_channels * k * k)), padding=k // 2)


def fused_conv(x, v, name):
    """The transposed convolution: each input pixel adds its multiple of a 4 x 4 kernel, at every second position."""
    w = v[f"{name}/weight"]
    w = F.pad(w.permute(2, 3, 0, 1) * math.sqrt(2 / (w.shape[2] * 9)), (1, 1, 1, 1))
    w = w[:, :, 1:, 1:] + w[:, :, :-1, 1:] + w[:, :, 1:, :-1] + w[:, :, :-1, :-1]
    n, _, height, width = x.shape
    y = x.new_zeros(n, w.shape[1], 2 * height + 2, 2 * width + 2)
    for i in range(height):
        for j in range(width):
            y[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += torch.einsum("nc,cokl->nokl", x[:, :, i, j], w)
    return y[:, :, 1:-1, 1:-1]


def add_bias(x, v, name):
    return x + v[f"{name}/bias"][:, None, None]


def lrelu(x):
    return torch.where(x > 0, x, 0.2 * x)


def enlarge(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def halve(x):
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def blur(x):
    x = F.pad(x, (1, 1, 1, 1))
    x = (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 4
    return (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4


def blend(new, old, t):
    return new + (old - new) * min(max(t, 0.0), 1.0)


def latent(networks, z, c=None):
    m, x = numbers(networks[2].components["mapping"]), z.double()
    if c is not None:
        x = torch.cat([x, c.double() @ m["LabelConcat/weight"]], 1)
    x = x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(2):
        x = lrelu(scaled_dense(x, m, f"Dense{i}", math.sqrt(2), 0.01))
    return x


def generate(networks, w, fused=lambda level: level >= 128):
    """The images of Gs, at full size whatever its lod."""
    v = numbers(networks[2].components["synthesis"])

    def finish(x, name, i):
        x = lrelu(add_bias(x + v[f"{name}/Noise/weight"][:, None, None] * v[f"noise{i}"], v, name))
        x = x - x.mean([2, 3], keepdim=True)
        x = x / (x.square().mean([2, 3], keepdim=True) + 1e-8).sqrt()
        scale, shift = scaled_dense(w, v, f"{name}/StyleMod", 1.0).chunk(2, 1)
        return x * (scale + 1)[..., None, None] + shift[..., None, None]

    top = sum("ToRGB" in name for name in v) // 2 - 1  # number of doublings
    x = finish(v["4x4/Const/const"].repeat(len(w), 1, 1, 1), "4x4/Const", 0)
    x = finish(scaled_conv(x, v, "4x4/Conv"), "4x4/Conv", 1)
    image = add_bias(scaled_conv(x, v, f"ToRGB_lod{top}", 1.0), v, f"ToRGB_lod{top}")
    for k in range(1, top + 1):
        r, name = 4 << k, f"{4 << k}x{4 << k}"
        up = f"{name}/Conv0_up"
        x = fused_conv(x, v, up) if fused(r) else scaled_conv(enlarge(x), v, up)
        x = finish(blur(x), up, 2 * k)
        x = finish(scaled_conv(x, v, f"{name}/Conv1"), f"{name}/Conv1", 2 * k + 1)
        to_rgb = f"ToRGB_lod{top - k}"
        rgb = add_bias(scaled_conv(x, v, to_rgb, 1.0), v, to_rgb)
        image = blend(rgb, enlarge(image), float(v["lod"]) - (top - k))
    return image


def discriminate(networks, image, c=None):
    """The logits of D for images of full size."""
    v, image = numbers(networks[1]), image.double()

    def convolve(x, name, resample=lambda x: x):
        return lrelu(add_bias(resample(scaled_conv(x, v, name)), v, name))

    top = sum("FromRGB" in name for name in v) // 2 - 1
    x = convolve(image, "FromRGB_lod0")
    for lod in range(top):
        name = f"{4 << (top - lod)}x{4 << (top - lod)}"
        x = convolve(blur(convolve(x, f"{name}/Conv0")), f"{name}/Conv1_down", halve)
        image = halve(image)
        x = blend(x, convolve(image, f"FromRGB_lod{lod + 1}"), float(v["lod"]) - lod)
    pairs = x.reshape(2, len(x) // 2, *x.shape[1:])
    spread = (pairs.var(0, unbiased=False) + 1e-8).sqrt().mean([1, 2, 3])
    x = torch.cat([x, spread.repeat(2)[:, None, None, None].expand(-1, 1, 4, 4)], 1)
    x = lrelu(scaled_dense(convolve(x, "4x4/Conv").flatten(1), v, "4x4/Dense0", math.sqrt(2)))
    x = scaled_dense(x, v, "4x4/Dense1", 1.0)
    return x if c is None else (x * c.double()).sum(1, keepdim=True)


CASES = {
    "plain": {},
    "32": {"side": 32},
    "classes": {"c_dim": 3},
    "gray": {"channels": 1},
    "another base": {"channel_base": 144, "channel_max": 16},
    "128": {"side": 128},
}


def inputs(G):
    side, c_dim = G.config.height, G.config.c_dim
    c = torch.eye(c_dim)[torch.arange(4) % c_dim] if c_dim else None
    return torch.randn(4, 6), torch.randn(4, G.config.channels, side, side), c


@pytest.mark.parametrize("case", CASES)
def test_round_trip(Network, tmp_path, case):
    G, D = make_pair(**CASES[case])
    model = open_model(save(tmp_path / "x.pkl", tree(Network, G, D)))
    z, x, c = inputs(G)
    assert (model.G.config, model.D.config) == (G.config, D.config)
    torch.testing.assert_close(model.G(z, c, truncation_psi=0.5), G(z, c, truncation_psi=0.5), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.D(x, c), D(x, c), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_networks_match_their_definitions(Network, tmp_path, case):
    G, D = make_pair(**CASES[case])
    networks = tree(Network, G, D)
    model = open_model(save(tmp_path / "x.pkl", networks))
    z, x, c = inputs(G)
    torch.testing.assert_close(model.G(z, c).double(), generate(networks, latent(networks, z, c)), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.D(x, c).double(), discriminate(networks, x, c), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_fused_upsampling_flips_the_kernel(Network, tmp_path, fused):
    networks = tree(Network, *make_pair(), fused_scale=fused)
    z = torch.randn(2, 6)
    images = open_model(save(tmp_path / "x.pkl", networks)).G(z).double()
    expected, other = (generate(networks, latent(networks, z), lambda level, f=f: f) for f in (fused, not fused))
    torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)
    assert (images - other).abs().max() > 0.01


@pytest.mark.parametrize(("lod", "side", "alpha"), [(1.25, 16, 0.75), (0.5, 32, 0.5), (1.0, 16, None), (3.0, 4, None)])
def test_a_network_that_was_growing(Network, tmp_path, lod, side, alpha):
    G, D = make_pair(32)
    networks = tree(Network, G, D, lod)
    path = save(tmp_path / "x.pkl", networks)
    model, (z, x, _) = open_model(path), inputs(G)
    assert (model.G.config.height, model.D.config.height) == (side, side)
    for network, name in ((model.G, "synthesis.pictures.alpha"), (model.D, "alpha")):
        assert network.config.fade == (alpha is not None)
        assert alpha is None or float(network.state_dict()[name]) == alpha
    image, x = model.G(z).double(), x[:, :, :side, :side]
    full_size = x
    for _ in range(int(math.log2(32 / side))):
        image, full_size = enlarge(image), enlarge(full_size)
    torch.testing.assert_close(image, generate(networks, latent(networks, z)), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.D(x).double(), discriminate(networks, full_size), atol=1e-4, rtol=1e-5)
    assert any(f"levels above {side}," in note for note in read(path).notes) == (side < 32)


def test_the_truncation_cutoff_defaults_to_eight(Network, tmp_path):
    G, D = make_pair(64)
    z, counts = torch.randn(3, 6), {}
    for arguments in ({}, {"truncation_cutoff": None}, {"truncation_cutoff": 2}):
        read_G = open_model(save(tmp_path / "x.pkl", tree(Network, G, D, **arguments))).G
        w, ws = read_G.mapping(z)[:, :1], read_G.mapping(z, truncation_psi=0.5)
        is_truncated = [not torch.equal(ws[:, i], w[:, 0]) for i in range(10)]
        assert is_truncated == sorted(is_truncated, reverse=True)
        torch.testing.assert_close(ws[:, :1], (w + read_G.mapping.w_avg) / 2)
        counts[arguments.get("truncation_cutoff", "missing")] = sum(is_truncated)
    assert counts == {"missing": 8, None: 10, 2: 2}


def test_the_generator_is_read_if_the_discriminator_is_unsupported(Network, tmp_path):
    networks = tree(Network, *make_pair())
    networks[1].variables.append(("16x16/Conv0/weight_sn", np.zeros((1, 4), np.float32)))
    path = save(tmp_path / "x.pkl", networks)
    assert open_model(path).D is None
    assert any("weight_sn" in note for note in read(path).notes)


def change(name, value):
    """Replace a variable of the synthesis network; None removes it."""

    def apply(networks):
        synthesis = networks[2].components["synthesis"]
        others = [pair for pair in synthesis.variables if pair[0] != name]
        synthesis.variables = others if value is None else [*others, (name, value)]

    return apply


DAMAGE = {
    "use_styles": (
        lambda t: t[2].static_kwargs.update(use_styles=False),
        FormatError,
        "use_styles is a different value",
    ),
    "traditional": (lambda t: t[2].static_kwargs.update(const_input_layer=False), FormatError, "const_input_layer"),
    "activation": (lambda t: t[2].static_kwargs.update(nonlinearity="relu"), FormatError, "relu, which"),
    "another layer": (change("8x8/Attention/weight", np.ones(1, "f4")), FormatError, "8x8/Attention/weight"),
    "fused_scale": (lambda t: t[2].static_kwargs.update(fused_scale=[1]), PickleError, "fused_scale"),
    "blur_filter": (lambda t: t[2].static_kwargs.update(blur_filter="121"), PickleError, "blur_filter"),
    "cutoff": (lambda t: t[2].static_kwargs.update(truncation_cutoff="8"), PickleError, "truncation_cutoff"),
    "lod nan": (change("lod", float("nan")), PickleError, "lod is not one of its levels"),
    "lod infinite": (change("lod", float("inf")), PickleError, "lod is not one of its levels"),
    "D's lod": (
        lambda t: t[1].variables.insert(0, t[1].variables.pop(0)[:1] + (float("nan"),)),
        PickleError,
        "lod is not one",
    ),
    "lod below": (change("lod", -1.0), PickleError, "lod is not one of its levels"),
    "lod beyond": (change("lod", 3.0), PickleError, "lod is not one of its levels"),
    "no noise": (change("noise3", None), PickleError, "no synthesis/noise3"),
    "no style": (change("8x8/Conv1/StyleMod/bias", None), PickleError, "no synthesis/8x8/Conv1/StyleMod/bias"),
    "no image": (change("ToRGB_lod0/bias", None), PickleError, "no synthesis/ToRGB_lod0/bias"),
    "noise of one side": (change("noise3", np.ones(3, "f4")), PickleError, "shape"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files_are_refused(Network, tmp_path, case):
    damage, kind, words = DAMAGE[case]
    networks = tree(Network, *make_pair())
    damage(networks)
    path = save(tmp_path / "x.pkl", networks)
    with pytest.raises(kind, match=words):
        read(path)
    with pytest.raises(SganError, match=words) as refusal:
        open_model(path)
    assert "\n" not in str(refusal.value)


def test_mutations(Network, tmp_path):
    """Each is opened, or refused in one sentence."""
    data = save(tmp_path / "x.pkl", tree(Network, *make_pair(8, channel_base=16, channel_max=2))).read_bytes()
    rng, refused, path = random.Random(0), 0, tmp_path / "y.pkl"
    for _ in range(300):
        mutation = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            mutation[rng.randrange(len(mutation))] = rng.randrange(256)
        path.write_bytes(mutation[: rng.randrange(len(mutation))] if rng.random() < 0.1 else mutation)
        try:
            open_model(path)
        except SganError as e:
            refused += 1
            assert "\n" not in str(e) and len(str(e)) < 1000
    assert 0 < refused < 300


@pytest.mark.parametrize("name", ["4x4/Const/const", "8x8/Conv0_up/weight", "noise2", "8x8/Conv1/Noise/weight"])
def test_wrong_shapes_are_detected_before_tensors_are_read(Network, tmp_path, monkeypatch, name):
    networks = tree(Network, *make_pair())
    value = dict(networks[2].components["synthesis"].variables)[name]
    change(name, np.concatenate([value, value], -1))(networks)
    path = save(tmp_path / "x.pkl", networks)
    loaded = []
    monkeypatch.setattr("stylegan_cli.tensors.Array.load", lambda self: loaded.append(self.size) or torch.zeros([]))
    with pytest.raises(SganError, match="does not match its own configuration"):
        open_model(path)
    assert set(loaded) <= {()}  # lod
