"""Pickles of 2018's StyleGAN, written here from scratch, and its networks by their definition."""

import functools
import math
import pickle
import random

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.errors import SganError
from stylegan_cli.interop.foreign import FormatError
from stylegan_cli.interop.opening import open_model
from stylegan_cli.interop.tensorflow import read_tensorflow
from stylegan_cli.models.config import DiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.pickled import Part, PickleError


def make_pair(side=16, d=None, **both):
    """Networks in which nothing is zero."""
    torch.manual_seed(1)
    both = {
        "channel_base": max(64, side),
        "channel_max": 8,
        "fir": (1.0, 1.0),
        "blur": (1.0, 2.0, 1.0),
        "half_levels": 0,
    } | both
    shape = {"z_dim": 6, "w_dim": 6, "mapping_layers": 2, "truncated": 8}
    labels = ("concat", "dot") if both.get("c_dim") else ("embed", "projection")
    G = build_generator(StyleGANConfig(side, side, labels=labels[0], **shape, **both))
    judge = {"architecture": "orig", "conv_clamp": None, "labels": labels[1], "mbstd_group": 2}
    D = build_discriminator(DiscriminatorConfig(side, side, **judge, **both, **(d or {})))
    for network in (G, D):
        for tensor in network.state_dict().values():
            tensor.add_(torch.randn_like(tensor) * 0.2)
        network.eval().requires_grad_(False)
    return G, D


# Our networks in their form


def array(tensor):
    return tensor.detach().contiguous().numpy()


def dense(their, our, state, gain=1.0):
    return {f"{their}/weight": array(state[f"{our}.weight"].t()), f"{their}/bias": array(state[f"{our}.bias"] * gain)}


def convolution(their, our, state, gain=1.0, turned=False):  # [O, I, k, k] -> [k, k, I, O]
    w = state[f"{our}.weight"]
    w = (w.flip(2, 3) if turned else w).permute(2, 3, 1, 0)
    return {f"{their}/weight": array(w), f"{their}/bias": array(state[f"{our}.bias"] * gain)}


def levels_of(network):
    return [4 << k for k in range(int(math.log2(network.config.height)) - 1)]


def generator_variables(G, fused=lambda level: level >= 128, lod=0.0):
    """Of the whole, of the mapping and of the synthesis network."""
    state, config, mapping = G.state_dict(), G.config, {}
    if config.c_dim:
        mapping["LabelConcat/weight"] = array(state["mapping.embed.weight"].t() / math.sqrt(config.c_dim))
    for i in range(config.mapping_layers):
        mapping |= dense(f"Dense{i}", f"mapping.fc{i}", state, math.sqrt(2))
    state = {k.removeprefix("synthesis."): v for k, v in state.items()}
    found, levels = {"lod": np.float32(lod), "4x4/Const/const": array(state["const"][None])}, levels_of(G)
    for i, noise in enumerate(G.stored_noise()):
        found[f"noise{i}"] = array(noise[None, None])
    for r in levels:
        for our, their in (("conv0", "Const" if r == 4 else "Conv0_up"), ("conv1", "Conv" if r == 4 else "Conv1")):
            our, their = f"b{r}.{our}", f"{r}x{r}/{their}"
            found |= dense(f"{their}/StyleMod", f"{our}.affine", state)
            found[f"{their}/Noise/weight"] = array(state[f"{our}.noise_strength"])
            found[f"{their}/bias"] = array(state[f"{our}.bias"])
            if f"{our}.weight" in state:
                found |= convolution(their, our, state, turned="_up" in their and not fused(r))
    found |= convolution("ToRGB_lod0", f"pictures.torgb{levels[-1]}", state)
    for k, r in enumerate(reversed(levels[:-1]), 1):
        channels = len(found[f"{r}x{r}/{'Conv' if r == 4 else 'Conv1'}/bias"])
        found[f"ToRGB_lod{k}/weight"] = array(torch.randn(1, 1, channels, config.channels))
        found[f"ToRGB_lod{k}/bias"] = array(torch.randn(config.channels))
    return {"dlatent_avg": array(G.mapping.w_avg)}, mapping, found


def discriminator_variables(D, lod=0.0):
    state, levels, both = D.state_dict(), levels_of(D), math.sqrt(2)
    found = {"lod": np.float32(lod)} | convolution("FromRGB_lod0", f"b{levels[-1]}.fromrgb", state, both)
    for r in levels[1:]:
        found |= convolution(f"{r}x{r}/Conv0", f"b{r}.conv0", state, both)
        found |= convolution(f"{r}x{r}/Conv1_down", f"b{r}.conv1", state, both)
    found |= convolution("4x4/Conv", "b4.conv", state, both)
    found |= dense("4x4/Dense0", "b4.fc", state, both) | dense("4x4/Dense1", "b4.out", state)
    for k, r in enumerate(reversed(levels[:-1]), 1):
        channels = len(found["4x4/Conv/bias" if r == 4 else f"{r}x{r}/Conv0/bias"])
        found[f"FromRGB_lod{k}/weight"] = array(torch.randn(1, 1, D.config.channels, channels))
        found[f"FromRGB_lod{k}/bias"] = array(torch.randn(channels))
    return found


def tree(Network, G, D, lod=0.0, version=3, **g_more):
    """(G, D, Gs)."""
    network = functools.partial(Network, version)
    config, fused = G.config, g_more.get("fused_scale", "auto")
    told = {"num_channels": config.channels, "resolution": config.height, "label_size": config.c_dim}
    whole, mapping, synthesis = generator_variables(
        G, (lambda r: r >= 128) if fused == "auto" else lambda r: fused, lod
    )
    of_g = network(whole, told | g_more, mapping=network(mapping, told), synthesis=network(synthesis, told))
    return of_g, network(discriminator_variables(D, lod), told | {"mbstd_group_size": 2}), of_g


def save(path, found):
    path.write_bytes(pickle.dumps(found, protocol=4))
    return path


def read(path):
    with open(path, "rb") as f:
        return read_tensorflow(Part(f))


# Their networks, from their variables and in double precision


def numbers(network):
    return {name: torch.as_tensor(value).double() for name, value in network.variables}


def scaled_dense(x, v, name, gain, lr=1.0):
    w = v[f"{name}/weight"]
    return x @ (w * (gain / math.sqrt(len(w)) * lr)) + v[f"{name}/bias"] * lr


def scaled_conv(x, v, name, gain=2**0.5):
    """A correlation that keeps the size; the bias comes later."""
    w = v[f"{name}/weight"]
    k, _, fan, _ = w.shape
    return F.conv2d(x, w.permute(3, 2, 0, 1) * (gain / math.sqrt(fan * k * k)), padding=k // 2)


def fused_conv(x, v, name):
    """Their transposed convolution: each input pixel is put down times a kernel of 4 x 4, at every second place."""
    w = v[f"{name}/weight"]
    w = F.pad(w.permute(2, 3, 0, 1) * math.sqrt(2 / (w.shape[2] * 9)), (1, 1, 1, 1))
    w = w[:, :, 1:, 1:] + w[:, :, :-1, 1:] + w[:, :, 1:, :-1] + w[:, :, :-1, :-1]
    n, _, height, width = x.shape
    y = x.new_zeros(n, w.shape[1], 2 * height + 2, 2 * width + 2)
    for i in range(height):
        for j in range(width):
            y[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += torch.einsum("nc,cokl->nokl", x[:, :, i, j], w)
    return y[:, :, 1:-1, 1:-1]


def biased(x, v, name):
    return x + v[f"{name}/bias"][:, None, None]


def lrelu(x):
    return torch.where(x > 0, x, 0.2 * x)


def enlarged(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def halved(x):
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def blurred(x):
    x = F.pad(x, (1, 1, 1, 1))
    x = (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 4
    return (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4


def blended(new, old, t):
    return new + (old - new) * min(max(t, 0.0), 1.0)


def latent(networks, z, c=None):
    m, x = numbers(networks[2].components["mapping"]), z.double()
    if c is not None:
        x = torch.cat([x, c.double() @ m["LabelConcat/weight"]], 1)
    x = x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(2):
        x = lrelu(scaled_dense(x, m, f"Dense{i}", math.sqrt(2), 0.01))
    return x


def draw(networks, w, fused=lambda level: level >= 128):
    """What Gs draws, at full size whatever its lod."""
    v = numbers(networks[2].components["synthesis"])

    def finished(x, name, i):
        x = lrelu(biased(x + v[f"{name}/Noise/weight"][:, None, None] * v[f"noise{i}"], v, name))
        x = x - x.mean([2, 3], keepdim=True)
        x = x / (x.square().mean([2, 3], keepdim=True) + 1e-8).sqrt()
        scale, shift = scaled_dense(w, v, f"{name}/StyleMod", 1.0).chunk(2, 1)
        return x * (scale + 1)[..., None, None] + shift[..., None, None]

    top = sum("ToRGB" in name for name in v) // 2 - 1  # doublings
    x = finished(v["4x4/Const/const"].repeat(len(w), 1, 1, 1), "4x4/Const", 0)
    x = finished(scaled_conv(x, v, "4x4/Conv"), "4x4/Conv", 1)
    image = biased(scaled_conv(x, v, f"ToRGB_lod{top}", 1.0), v, f"ToRGB_lod{top}")
    for k in range(1, top + 1):
        r, name = 4 << k, f"{4 << k}x{4 << k}"
        up = f"{name}/Conv0_up"
        x = fused_conv(x, v, up) if fused(r) else scaled_conv(enlarged(x), v, up)
        x = finished(blurred(x), up, 2 * k)
        x = finished(scaled_conv(x, v, f"{name}/Conv1"), f"{name}/Conv1", 2 * k + 1)
        seen = f"ToRGB_lod{top - k}"
        image = blended(biased(scaled_conv(x, v, seen, 1.0), v, seen), enlarged(image), float(v["lod"]) - (top - k))
    return image


def judge(networks, image, c=None):
    """What D says about images of full size."""
    v, image = numbers(networks[1]), image.double()

    def convolved(x, name, change=lambda x: x):
        return lrelu(biased(change(scaled_conv(x, v, name)), v, name))

    top = sum("FromRGB" in name for name in v) // 2 - 1
    x = convolved(image, "FromRGB_lod0")
    for lod in range(top):
        name = f"{4 << (top - lod)}x{4 << (top - lod)}"
        x = convolved(blurred(convolved(x, f"{name}/Conv0")), f"{name}/Conv1_down", halved)
        image = halved(image)
        x = blended(x, convolved(image, f"FromRGB_lod{lod + 1}"), float(v["lod"]) - lod)
    pairs = x.reshape(2, len(x) // 2, *x.shape[1:])
    spread = (pairs.var(0, unbiased=False) + 1e-8).sqrt().mean([1, 2, 3])
    x = torch.cat([x, spread.repeat(2)[:, None, None, None].expand(-1, 1, 4, 4)], 1)
    x = lrelu(scaled_dense(convolved(x, "4x4/Conv").flatten(1), v, "4x4/Dense0", math.sqrt(2)))
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
def test_a_pickle_gives_its_networks_back(Network, tmp_path, case):
    G, D = make_pair(**CASES[case])
    model = open_model(save(tmp_path / "x.pkl", tree(Network, G, D)))
    z, x, c = inputs(G)
    assert (model.G.config, model.D.config) == (G.config, D.config)
    torch.testing.assert_close(model.G(z, c, truncation_psi=0.5), G(z, c, truncation_psi=0.5), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.D(x, c), D(x, c), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_networks_are_what_the_definitions_say(Network, tmp_path, case):
    G, D = make_pair(**CASES[case])
    theirs = tree(Network, G, D)
    model = open_model(save(tmp_path / "x.pkl", theirs))
    z, x, c = inputs(G)
    torch.testing.assert_close(model.G(z, c).double(), draw(theirs, latent(theirs, z, c)), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.D(x, c).double(), judge(theirs, x, c), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_fused_upsampling_turns_the_kernel(Network, tmp_path, fused):
    theirs = tree(Network, *make_pair(), fused_scale=fused)
    z = torch.randn(2, 6)
    found = open_model(save(tmp_path / "x.pkl", theirs)).G(z).double()
    wanted, other = (draw(theirs, latent(theirs, z), lambda level, how=how: how) for how in (fused, not fused))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert (found - other).abs().max() > 0.01


@pytest.mark.parametrize(("lod", "side", "alpha"), [(1.25, 16, 0.75), (0.5, 32, 0.5), (1.0, 16, None), (3.0, 4, None)])
def test_a_network_that_was_growing(Network, tmp_path, lod, side, alpha):
    G, D = make_pair(32)
    theirs = tree(Network, G, D, lod)
    path = save(tmp_path / "x.pkl", theirs)
    model, (z, x, _) = open_model(path), inputs(G)
    assert (model.G.config.height, model.D.config.height) == (side, side)
    for network, name in ((model.G, "synthesis.pictures.alpha"), (model.D, "alpha")):
        assert network.config.fade == (alpha is not None)
        assert alpha is None or float(network.state_dict()[name]) == alpha
    image, x = model.G(z).double(), x[:, :, :side, :side]
    whole = x
    for _ in range(int(math.log2(32 / side))):
        image, whole = enlarged(image), enlarged(whole)
    torch.testing.assert_close(image, draw(theirs, latent(theirs, z)), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.D(x).double(), judge(theirs, whole), atol=1e-4, rtol=1e-5)
    assert any(f"levels above {side}," in note for note in read(path).notes) == (side < 32)


def test_truncation_is_of_the_first_eight(Network, tmp_path):
    G, D = make_pair(64)
    z, counts = torch.randn(3, 6), {}
    for told in ({}, {"truncation_cutoff": None}, {"truncation_cutoff": 2}):
        found = open_model(save(tmp_path / "x.pkl", tree(Network, G, D, **told))).G
        w, ws = found.mapping(z)[:, :1], found.mapping(z, truncation_psi=0.5)
        changed = [not torch.equal(ws[:, i], w[:, 0]) for i in range(10)]
        assert changed == sorted(changed, reverse=True)
        torch.testing.assert_close(ws[:, :1], (w + found.mapping.w_avg) / 2)
        counts[told.get("truncation_cutoff", "left out")] = sum(changed)
    assert counts == {"left out": 8, None: 10, 2: 2}


def test_the_generator_is_kept_where_the_discriminator_is_another(Network, tmp_path):
    theirs = tree(Network, *make_pair())
    theirs[1].variables.append(("16x16/Conv0/weight_sn", np.zeros((1, 4), np.float32)))
    path = save(tmp_path / "x.pkl", theirs)
    assert open_model(path).D is None
    assert any("weight_sn" in note for note in read(path).notes)


def change(name, value):
    """Of the synthesis network: None takes a variable out."""

    def changed(networks):
        synthesis = networks[2].components["synthesis"]
        kept = [pair for pair in synthesis.variables if pair[0] != name]
        synthesis.variables = kept if value is None else [*kept, (name, value)]

    return changed


DAMAGE = {
    "use_styles": (lambda t: t[2].static_kwargs.update(use_styles=False), FormatError, "use_styles is another"),
    "traditional": (lambda t: t[2].static_kwargs.update(const_input_layer=False), FormatError, "const_input_layer"),
    "activation": (lambda t: t[2].static_kwargs.update(nonlinearity="relu"), FormatError, "relu, which"),
    "another layer": (change("8x8/Attention/weight", np.ones(1, "f4")), FormatError, "8x8/Attention/weight"),
    "fused_scale": (lambda t: t[2].static_kwargs.update(fused_scale=[1]), PickleError, "fused_scale"),
    "blur_filter": (lambda t: t[2].static_kwargs.update(blur_filter="121"), PickleError, "blur_filter"),
    "cutoff": (lambda t: t[2].static_kwargs.update(truncation_cutoff="8"), PickleError, "truncation_cutoff"),
    "lod nan": (change("lod", float("nan")), PickleError, "lod is no level"),
    "lod infinite": (change("lod", float("inf")), PickleError, "lod is no level"),
    "D's lod": (lambda t: t[1].variables.insert(0, t[1].variables.pop(0)[:1] + (float("nan"),)), PickleError, "lod is"),
    "lod below": (change("lod", -1.0), PickleError, "lod is no level"),
    "lod beyond": (change("lod", 3.0), PickleError, "lod is no level"),
    "no noise": (change("noise3", None), PickleError, "no synthesis/noise3"),
    "no style": (change("8x8/Conv1/StyleMod/bias", None), PickleError, "no synthesis/8x8/Conv1/StyleMod/bias"),
    "no image": (change("ToRGB_lod0/bias", None), PickleError, "no synthesis/ToRGB_lod0/bias"),
    "noise of one side": (change("noise3", np.ones(3, "f4")), PickleError, "shape"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_sentence(Network, tmp_path, case):
    damage, kind, words = DAMAGE[case]
    theirs = tree(Network, *make_pair())
    damage(theirs)
    path = save(tmp_path / "x.pkl", theirs)
    with pytest.raises(kind, match=words):
        read(path)
    with pytest.raises(SganError, match=words) as refusal:
        open_model(path)
    assert "\n" not in str(refusal.value)


def test_mutations(Network, tmp_path):
    """Each opens, or is refused in one sentence."""
    data = save(tmp_path / "x.pkl", tree(Network, *make_pair(8, channel_base=16, channel_max=2))).read_bytes()
    chance, refused, path = random.Random(0), 0, tmp_path / "y.pkl"
    for _ in range(300):
        other = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            other[chance.randrange(len(other))] = chance.randrange(256)
        path.write_bytes(other[: chance.randrange(len(other))] if chance.random() < 0.1 else other)
        try:
            open_model(path)
        except SganError as e:
            refused += 1
            assert "\n" not in str(e) and len(str(e)) < 1000
    assert 0 < refused < 300


@pytest.mark.parametrize("name", ["4x4/Const/const", "8x8/Conv0_up/weight", "noise2", "8x8/Conv1/Noise/weight"])
def test_wrong_shapes_are_found_before_anything_is_read(Network, tmp_path, monkeypatch, name):
    theirs = tree(Network, *make_pair())
    value = dict(theirs[2].components["synthesis"].variables)[name]
    change(name, np.concatenate([value, value], -1))(theirs)
    path = save(tmp_path / "x.pkl", theirs)
    loaded = []
    monkeypatch.setattr(
        "stylegan_cli.interop.tensors.Array.load", lambda self: loaded.append(self.size) or torch.zeros([])
    )
    with pytest.raises(SganError, match="does not fit its own configuration"):
        open_model(path)
    assert set(loaded) <= {()}  # lod
