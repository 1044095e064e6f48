"""Files in the formats of rosinality's program and pSp, written here from scratch."""

import argparse
import io
import math
import random

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.interop.checkpoint import FormatError
from stylegan_cli.interop.networks import read_networks
from stylegan_cli.interop.opening import open_model
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.pickled import Part, PickleError

SHAPE = {"channel_base": 256, "channel_max": 16, "half_levels": 0, "conv_clamp": None}


@pytest.fixture(scope="module")
def pair():
    """A generator and a discriminator at 32 x 32 without weights of zero."""
    torch.manual_seed(3)
    G = build_generator(StyleGAN2Config(32, 32, z_dim=24, w_dim=24, mapping_layers=3, **SHAPE)).eval()
    D = build_discriminator(LevelsDiscriminatorConfig(32, 32, **SHAPE)).eval()
    with torch.no_grad():
        for name, p in [*G.named_parameters(), *D.named_parameters()]:
            if name.endswith(("bias", "strength")):
                p.add_(torch.randn_like(p) * (10 if "mapping" in name else 0.3))
        G.mapping.w_avg.normal_()
    return G.requires_grad_(False), D.requires_grad_(False)


def rosinality_generator(G):
    """Our weights with rosinality's names."""
    state = {k.removeprefix("synthesis."): v.clone().contiguous() for k, v in G.state_dict().items()}
    weights = {"input.input": state["b4.const"][None]}
    for i in range(G.config.mapping_layers):
        for tensor in ("weight", "bias"):
            weights[f"style.{i + 1}.{tensor}"] = state[f"mapping.fc{i}.{tensor}"]
    layers = [("b4.conv1", "conv1"), ("b8.conv0", "convs.0"), ("b8.conv1", "convs.1"), ("b16.conv0", "convs.2")]
    layers += [("b16.conv1", "convs.3"), ("b32.conv0", "convs.4"), ("b32.conv1", "convs.5")]
    to_rgbs = [
        ("b4.torgb", "to_rgb1"),
        ("b8.torgb", "to_rgbs.0"),
        ("b16.torgb", "to_rgbs.1"),
        ("b32.torgb", "to_rgbs.2"),
    ]
    for name, target in layers + to_rgbs:
        weights[f"{target}.conv.weight"] = state[f"{name}.weight"][None]
        for tensor in ("weight", "bias"):
            weights[f"{target}.conv.modulation.{tensor}"] = state[f"{name}.affine.{tensor}"]
    for i, (name, target) in enumerate(layers):
        weights[f"{target}.noise.weight"] = state[f"{name}.noise_strength"].reshape(1)
        weights[f"{target}.activate.bias"] = state[f"{name}.bias"]
        weights[f"noises.noise_{i}"] = state[f"{name}.noise_const"][None, None]
    for name, target in to_rgbs:
        weights[f"{target}.bias"] = state[f"{name}.bias"].reshape(1, -1, 1, 1)
    weights["convs.0.conv.blur.kernel"] = torch.zeros(4, 4)
    return weights


def rosinality_discriminator(D):
    state = {k: v.clone().contiguous() for k, v in D.state_dict().items()}
    rows = {"b32.fromrgb": ("convs.0", 0), "b4.conv": ("final_conv", 0)}
    for i, level in enumerate((32, 16, 8), 1):
        rows[f"b{level}.conv0"], rows[f"b{level}.conv1"] = (f"convs.{i}.conv1", 0), (f"convs.{i}.conv2", 1)
    weights = {f"convs.{i}.skip.1.weight": state[f"b{level}.skip.weight"] for i, level in enumerate((32, 16, 8), 1)}
    for name, (target, index) in rows.items():
        weights[f"{target}.{index}.weight"] = state[f"{name}.weight"]
        weights[f"{target}.{index + 1}.bias"] = state[f"{name}.bias"]
    for name, index in (("fc", 0), ("out", 1)):
        for tensor in ("weight", "bias"):
            weights[f"final_linear.{index}.{tensor}"] = state[f"b4.{name}.{tensor}"]
    return weights


def generate(plain, t, z, psi=1.0, mean=None):
    """The images of rosinality's generator of 32 x 32, by the definitions of its layers and from its own tensors."""
    w = plain.unit(z)
    for i in range(1, 4):
        w = plain.lrelu(plain.dense(w, t[f"style.{i}.weight"], t[f"style.{i}.bias"], lr=0.01))
    w = w if mean is None else mean + psi * (w - mean)

    def style(name):
        return plain.dense(w, t[f"{name}.conv.modulation.weight"], t[f"{name}.conv.modulation.bias"])

    def layer(x, name, noise, up=False):
        kernel = t[f"{name}.conv.weight"][0]
        kernel = kernel.flip(2, 3) if up else kernel  # a transposed correlation there, which flips the kernel
        x = plain.modulated(x, kernel, style(name), up)
        x = x + t[f"{name}.noise.weight"] * t[f"noises.noise_{noise}"]
        return plain.lrelu(x + t[f"{name}.activate.bias"][:, None, None])

    def to_rgb(x, name):
        return plain.modulated(x, t[f"{name}.conv.weight"][0], style(name), demodulate=False) + t[f"{name}.bias"]

    x = layer(t["input.input"].repeat(len(z), 1, 1, 1), "conv1", 0)
    image = to_rgb(x, "to_rgb1")
    for j in range(3):
        x = layer(layer(x, f"convs.{2 * j}", 2 * j + 1, up=True), f"convs.{2 * j + 1}", 2 * j + 2)
        image = plain.upsample(image) + to_rgb(x, f"to_rgbs.{j}")
    return image


def discriminate(plain, t, x):
    """The logits of rosinality's discriminator of 32 x 32."""
    x = plain.convolution(x, t["convs.0.0.weight"], t["convs.0.1.bias"])
    for i in (1, 2, 3):
        y = plain.convolution(x, t[f"convs.{i}.conv1.0.weight"], t[f"convs.{i}.conv1.1.bias"])
        y = plain.convolution(y, t[f"convs.{i}.conv2.1.weight"], t[f"convs.{i}.conv2.2.bias"], down=True)
        x = (y + plain.convolution(x, t[f"convs.{i}.skip.1.weight"], down=True)) / math.sqrt(2)
    x = plain.convolution(plain.append_deviation(x, 4), t["final_conv.0.weight"], t["final_conv.1.bias"])
    x = plain.lrelu(plain.dense(x.flatten(1), t["final_linear.0.weight"], t["final_linear.0.bias"]))
    return plain.dense(x, t["final_linear.1.weight"], t["final_linear.1.bias"])


def training_checkpoint(pair):
    """The content of a file that rosinality's training program writes."""
    G, D = rosinality_generator(pair[0]), rosinality_discriminator(pair[1])
    state = {"state": {0: {"step": 7, "exp_avg": torch.zeros(100_000)}}, "param_groups": [{"betas": (0.0, 0.99)}]}
    args = argparse.Namespace(path="/data/faces", size=32, latent=24, ckpt=None, iter=800000, channel_multiplier=2)
    g = torch.nn.Linear(3, 3).state_dict()  # an OrderedDict with the attribute _metadata
    return {"g": g, "d": D, "g_ema": G, "g_optim": state, "d_optim": state, "args": args, "ada_aug_p": 0.25}


def save(path, tree, old=False):
    torch.save(tree, path, _use_new_zipfile_serialization=not old)
    return path


def read(tree, old=False):
    buffer = io.BytesIO()
    save(buffer, tree, old)
    return read_networks(Part(buffer))


@pytest.mark.parametrize("old", [False, True])
def test_networks_of_a_converted_file(pair, tmp_path, old):
    G, D = pair
    tree = {"g_ema": rosinality_generator(G), "latent_avg": G.mapping.w_avg.clone(), "d": rosinality_discriminator(D)}
    model = open_model(save(tmp_path / "converted.pt", tree, old))
    z, x = torch.randn(4, 24), torch.randn(8, 3, 32, 32)
    assert model.G.config == G.config
    assert model.D.config == D.config
    torch.testing.assert_close(model.G(z, truncation_psi=0.5), G(z, truncation_psi=0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.D(x), D(x), atol=1e-5, rtol=0)


def test_networks_match_their_definitions(plain, pair, tmp_path):
    """The differences from the original program were at most 6e-5 in images and 3e-6 in logits."""
    G, D = rosinality_generator(pair[0]), rosinality_discriminator(pair[1])
    tree = {"g_ema": G, "latent_avg": torch.randn(24), "d": D}
    model = open_model(save(tmp_path / "converted.pt", tree))
    z, x = torch.randn(3, 24), torch.randn(8, 3, 32, 32)
    torch.testing.assert_close(model.G(z), generate(plain, tree["g_ema"], z), atol=1e-4, rtol=0)
    expected = generate(plain, tree["g_ema"], z, 0.6, tree["latent_avg"])
    torch.testing.assert_close(model.G(z, truncation_psi=0.6), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(model.D(x), discriminate(plain, tree["d"], x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("old", [False, True])
def test_the_mean_of_w_is_measured(pair, tmp_path, old):
    path = save(tmp_path / "000100.pt", training_checkpoint(pair), old)
    model, again = open_model(path), open_model(path)
    w = pair[0].mapping(torch.randn(20_000, 24, generator=torch.Generator().manual_seed(1)))[:, 0]
    assert (model.G.mapping.w_avg - w.mean(0)).abs().max() < 6 * float(w.std(0).max()) / 100
    assert torch.equal(model.G.mapping.w_avg, again.G.mapping.w_avg)
    assert "/data/faces" in model.info.origin


def test_metadata_and_notes(pair):
    checkpoint = read(training_checkpoint(pair))
    assert (checkpoint.aug_p, checkpoint.data, checkpoint.measure_w_avg) == (0.25, "/data/faces", True)
    assert any("optimizers" in note for note in checkpoint.notes)
    assert any("10,000" in note for note in checkpoint.notes)


class RecordingFile(io.BytesIO):
    """Records which bytes are read."""

    def __init__(self):
        super().__init__()
        self.reads = []  # (start, end)

    def read(self, size=-1):
        first = self.tell()
        data = super().read(size)
        self.reads.append((first, self.tell()))
        return data

    def readinto(self, buffer):
        first = self.tell()
        count = super().readinto(buffer)
        self.reads.append((first, self.tell()))
        return count


@pytest.mark.parametrize("old", [False, True])
def test_optimizer_states_are_not_read(pair, old):
    """None of their 400 kB is read, except for read-ahead; and weights are only read on demand."""
    tree, buffer = training_checkpoint(pair), RecordingFile()
    moments = tree["g_optim"]["state"][0]["exp_avg"].copy_(torch.arange(100_000)).numpy().tobytes()
    save(buffer, tree, old)
    start = buffer.getvalue().index(moments)
    buffer.reads.clear()
    checkpoint = read_networks(Part(buffer))
    assert 0 < sum(end - first for first, end in buffer.reads) < 100_000
    for tensor in [*checkpoint.G.values(), *checkpoint.D.values()]:
        tensor.load()
    assert sum(end - first for first, end in buffer.reads) > 100_000
    read = [min(end, start + len(moments)) - max(first, start) for first, end in buffer.reads]
    assert sum(n for n in read if n > 0) <= 512


@pytest.mark.parametrize("copies", [None, 1, 8])
def test_the_decoder_of_psp(pair, tmp_path, copies):
    G = pair[0]
    mean = G.mapping.w_avg.clone() if copies is None else G.mapping.w_avg.repeat(copies, 1)
    weights = {f"decoder.{k}": v for k, v in rosinality_generator(G).items()} | {
        "encoder.input_layer.0.weight": torch.zeros(3)
    }
    tree = {"state_dict": weights, "opts": {"device": "cuda:0", "learn_in_w": False}, "latent_avg": mean}
    model = open_model(save(tmp_path / "psp.pt", tree))
    z = torch.randn(2, 24)
    assert model.D is None
    torch.testing.assert_close(model.G(z, truncation_psi=0.7), G(z, truncation_psi=0.7), atol=1e-5, rtol=0)


def test_missing_noise_is_sampled(pair, tmp_path):
    weights = {k: v for k, v in rosinality_generator(pair[0]).items() if not k.startswith("noises.")}
    tree = {"g_ema": weights, "latent_avg": torch.zeros(24)}
    path = save(tmp_path / "early.pt", tree)
    noise, again = (open_model(path).G.stored_noise() for _ in range(2))
    assert [n.shape[0] for n in noise] == [4, 8, 8, 16, 16, 32, 32]
    assert 0.9 < float(noise[-1].std()) < 1.1
    assert not torch.equal(noise[-1], noise[-2])
    assert all(torch.equal(a, b) for a, b in zip(noise, again, strict=True))
    assert any("noise" in note for note in read(tree).notes)


def unsupported_trees(pair):
    weights = rosinality_generator(pair[0])
    wide = weights | {"convs.4.activate.bias": torch.zeros(40)}
    return {
        "lucidrains": ({"GAN": {}, "version": "1.8"}, "lucidrains"),
        "swagan": ({"g_ema": weights | {"to_rgbs.0.iwt.ll": torch.zeros(2, 2)}}, "SWAGAN"),
        "another layer": ({"g_ema": weights | {"attention.weight": torch.zeros(2)}}, "attention.weight"),
        "widths": ({"g_ema": wide}, "40 at 32"),
    }


@pytest.mark.parametrize("case", ["lucidrains", "swagan", "another layer", "widths"])
def test_unsupported_networks_are_refused_by_name(pair, tmp_path, case):
    tree, words = unsupported_trees(pair)[case]
    with pytest.raises(FormatError, match=words):
        read(tree)
    with pytest.raises(SganError, match=f"cannot be used: .*{words}"):
        open_model(save(tmp_path / "x.pt", tree))


def test_invalid_files_are_refused(pair, tmp_path):
    weights = rosinality_generator(pair[0])
    for tree in ([1, 2], {"model": {"inputs": weights["input.input"]}}, {"g_ema": {"input.input": 3}}):
        with pytest.raises(PickleError):
            read(tree)
    del weights["convs.3.noise.weight"]
    with pytest.raises(PickleError, match=r"convs\.3\.noise\.weight"):
        read({"g_ema": weights})
    weights = rosinality_generator(pair[0]) | {"to_rgb1.conv.weight": torch.zeros(1, 3, 5, 1, 1)}
    with pytest.raises(SganError, match=r"configuration: G\.synthesis\.b4\.torgb\.weight"):
        open_model(save(tmp_path / "shape.pt", {"g_ema": weights, "latent_avg": torch.zeros(24)}))


@pytest.mark.parametrize("old", [False, True])
def test_a_truncated_file_is_refused(pair, tmp_path, old):
    path = save(tmp_path / "whole.pt", training_checkpoint(pair), old)
    data = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(SganError):
            open_model(path)


@pytest.mark.parametrize("old", [False, True])
def test_a_damaged_file_is_refused(tmp_path, old):
    """In a small file, so that most damage affects the description."""
    path = save(
        tmp_path / "small.pt", {"g_ema": {"input.input": torch.ones(1, 2, 4, 4)}, "latent_avg": torch.ones(3)}, old
    )
    data, rng = path.read_bytes(), random.Random(7)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 2, 5))):
            damaged[rng.randrange(len(data))] = rng.choice((0, 127, 128, 255, rng.randrange(256)))
        path.write_bytes(damaged)
        with pytest.raises(SganError):
            open_model(path)


def test_code_in_a_file_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    for old in (False, True):
        with pytest.raises(SganError, match=r"builtin.*\.print"):
            open_model(save(tmp_path / "evil.pt", {"g_ema": Evil()}, old))
