"""StyleGAN3 in NVIDIA's formats: the images of a plain definition, and refusals that name the layer."""

import math
import pickle
import sys
import types

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.interop.nvidia_writer import write_nvidia
from stylegan_cli.interop.opening import checkpoint_info, open_model
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan3.checkpoints import infer_channels
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.models.stylegan3.schedule import layer_specs

R = {"kernel": 1, "radial": True}
KINDS = {
    "T": {},
    "R": R,
    "conditional T": {"c_dim": 3},
    "conditional R": {**R, "c_dim": 3},
    "full precision": {"half_levels": 0, "conv_clamp": None},
    "gray": {"channels": 1, "mapping_layers": 3, "channel_base": 768},
}
ROTATED = torch.tensor([[math.cos(0.4), -math.sin(0.4), 0.1], [math.sin(0.4), math.cos(0.4), -0.2], [0, 0, 1]])
ZOOMED_OUT = torch.tensor([[3.0, 0.5, 0.2], [-0.5, 3.0, 0.1], [0, 0, 1]])


def make(kind="T", size=32, **fields):
    """A generator whose every parameter and statistic matters."""
    torch.manual_seed(0)
    settings = {"channel_base": 256, "channel_max": 16, "z_dim": 8, "w_dim": 8} | KINDS[kind] | fields
    G = build_generator(StyleGAN3Config(size, size, **settings)).eval().requires_grad_(False)
    for name, tensor in G.state_dict().items():
        if name.endswith("magnitude_ema"):
            tensor.copy_(torch.rand([]) + 0.5)
        elif not name.endswith(("freqs", "phases")):
            tensor.add_(0.3 * torch.randn_like(tensor))
    return G


@pytest.fixture
def opened(tmp_path):
    def open_bytes(data):
        (tmp_path / "x.pkl").write_bytes(data)
        return open_model(tmp_path / "x.pkl")

    return open_bytes


def assert_equal(actual, expected):
    states = actual.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(t, states[1][n]) for n, t in states[0].items())


@pytest.mark.parametrize("kind", KINDS)
def test_images_equal_a_plain_definition(kind, nvidia_bytes, opened, plain3, monkeypatch):
    """With the mean squares that enter each layer, and with transforms."""
    G = make(kind)
    read = opened(nvidia_bytes(G)).G
    assert read.config == G.config
    assert_equal(read, G)
    state = {name: tensor.double() for name, tensor in G.state_dict().items()}
    z, c = torch.randn(2, 8), torch.eye(3)[[0, 2]] if G.config.c_dim else None
    w = plain3.mapping(state, z.double(), None if c is None else c.double(), G.config.mapping_layers)
    ws, expected_means, means = w[:, None].repeat(1, 16, 1), [], []
    plain_layer = plain3.layer

    def layer(state, name, x, *arguments):
        expected_means.append(x.square().mean().item())
        return plain_layer(state, name, x, *arguments)

    monkeypatch.setattr(plain3, "layer", layer)
    for row in read.layers[1:-1]:
        read.get_submodule(row.name).register_forward_hook(lambda m, x, y: means.append(x[0].square().mean().item()))
    for transform in (None, ROTATED, ZOOMED_OUT):
        plain_transform = None if transform is None else transform.double()
        expected = plain3.synthesize(state, ws, 32, G.config.radial, plain_transform, G.config.conv_clamp)
        image = read.synthesis(read.mapping(z, c), transform=transform)
        assert (image - expected).abs().max() < 1e-4 and expected.std() > 0.02
    assert len(means) == 3 * 14 and means == pytest.approx(expected_means, rel=1e-4)


@pytest.mark.parametrize("protocol", [2, 5])
def test_with_a_frozen_discriminator(networks, nvidia_bytes, opened, protocol):
    G, (_, D) = make(size=16), networks()
    model = opened(nvidia_bytes(G, D, protocol, frozen=("b16",)))
    assert_equal(model.G, G)
    assert_equal(model.D, D)
    assert all(text in model.info.origin for text in ("faces.zip", "p = 0.25"))


def layer(content, index=7):
    synthesis = content["G_ema"].modules["synthesis"]
    return synthesis.modules[synthesis.attributes["layer_names"][index]]


@pytest.mark.parametrize(
    ("message", "change"),
    {
        r"layer L7_52_16 has another filter \(down_filter\) than": (
            lambda c: layer(c).buffers["down_filter"][0].add_(1e-5)
        ),
        r"layer L5_\S+ has another filter \(up_filter\)": lambda c: layer(c, 5).buffers.update(up_filter=torch.ones(5)),
        r"layer L14_32_3 has another filter": lambda c: layer(c, 14).buffers.update(up_filter=torch.ones(1)),
        "layer L0_36_16 has another conv_kernel": lambda c: layer(c, 0).attributes.update(conv_kernel=1),
        r"layer L9_\S+ has another conv_clamp": lambda c: layer(c, 9).attributes.update(conv_clamp=None),
        r"layer L9_\S+ has another padding": lambda c: layer(c, 9).attributes.update(padding=[9, 8, 8, 9]),
        "another output_scale": lambda c: c["G_ema"].modules["synthesis"].attributes.update(output_scale=1.0),
        "input has another bandwidth": lambda c: change_input(c).attributes.update(bandwidth=3.0),
        r"no layer L\d+_52_\d+, which its settings": lambda c: settings(c).update(channel_base=270),
        "not as many": lambda c: settings(c).update(num_layers=10),
        "'noise_mode' is not supported": lambda c: settings(c).update(noise_mode=1),
        "arguments are invalid": lambda c: settings(c).update(margin_size=1 << 40),
        "expected int": lambda c: settings(c).update(margin_size=None),
        "num_layers or critical": lambda c: settings(c).update(num_layers=10**6),
        "not a similarity": lambda c: change_input(c).buffers.update(transform=torch.tensor([2.0, 1.0, 1.0]).diag()),
        "activation relu": lambda c: c["G_ema"].modules["mapping"].modules["fc0"].attributes.update(activation="relu"),
        "match its own configuration: G.synthesis.input.phases": lambda c: change_input(c).buffers.pop("phases"),
    }.items(),
)
def test_files_that_contradict_their_settings_are_refused(nvidia_bytes, opened, message, change):
    with pytest.raises(SganError, match=message) as e:
        opened(nvidia_bytes(make(), change=change))
    assert "x.pkl" in str(e.value) and "\n" not in str(e.value)


def settings(content):
    return content["G_ema"].modules["synthesis"].attributes["_init_kwargs"]


def change_input(content):
    return content["G_ema"].modules["synthesis"].modules["input"]


def test_a_transform_is_left_out_with_a_note(nvidia_bytes, opened, tmp_path):
    G = make()
    assert_equal(opened(nvidia_bytes(G, change=lambda c: change_input(c).buffers.update(transform=ROTATED))).G, G)
    assert "--rotate" in checkpoint_info(tmp_path / "x.pkl")[1][-1]


@pytest.mark.parametrize("kind", ["T", "R"])
def test_a_pickle_without_settings(nvidia_bytes, opened, kind, tmp_path):
    G = make(kind)
    assert_equal(opened(nvidia_bytes(G, change=lambda c: settings(c).clear())).G, G)
    assert "has no settings" in checkpoint_info(tmp_path / "x.pkl")[1][-1]


def test_a_pickle_without_settings_keeps_what_its_layers_have(nvidia_bytes, opened):
    G = make(conv_clamp=None, half_levels=0)
    read = opened(nvidia_bytes(G, change=lambda c: settings(c).clear())).G
    assert (read.config.conv_clamp, read.config.half_levels) == (None, 0)
    assert_equal(read, G)


def state_of(G):
    """NVIDIA's state_dict."""
    filters = {name: t for name, t in G.named_buffers() if name.endswith("_filter")}
    return {**G.state_dict(), **filters, "synthesis.input.transform": torch.eye(3)}


@pytest.mark.parametrize("form", ["bare", "g_ema", "decoder", "without filters"])
@pytest.mark.parametrize("kind", ["T", "conditional R"])
def test_state_dictionaries(kind, form, tmp_path):
    G, path = make(kind), tmp_path / "sg3.pt"
    state = G.state_dict() if form == "without filters" else state_of(G)
    contents = {"g_ema": {"g_ema": state}, "decoder": {"state_dict": {f"decoder.{n}": t for n, t in state.items()}}}
    torch.save(contents.get(form, state), path)
    read = open_model(path).G
    assert read.config == G.config
    assert_equal(read, G)
    assert "has no settings" in checkpoint_info(path)[1][-1]


def test_state_dictionaries_with_another_schedule(tmp_path):
    state = {name.replace("L5_52", "L5_36"): t for name, t in state_of(make()).items()}
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(SganError, match="it has no layer L5_52_16, which"):
        open_model(tmp_path / "x.pt")


@pytest.mark.parametrize("size", [16, 64, 256, 1024])
@pytest.mark.parametrize("base", [2048, 16384, 32768, 65536, 5000])
@pytest.mark.parametrize("maximum", [64, 512, 1024])
def test_channels_follow_from_names(size, base, maximum):
    config = StyleGAN3Config(size, size, channel_base=base, channel_max=maximum)
    widths = [spec.target.channels for spec in layer_specs(config)[:-1]]
    inferred = infer_channels(StyleGAN3Config(size, size), widths)
    assert layer_specs(inferred) == layer_specs(config)
    if len(set(widths)) > 1 and maximum in widths and base != 5000:
        assert inferred == config


class Generator(torch.nn.Module):
    """Replaces NVIDIA's class: it takes its arguments, and has the names of its state_dict."""

    def __init__(self, **arguments):
        super().__init__()
        self.arguments = arguments
        kind = "R" if arguments["use_radial_filters"] else "conditional T" if arguments["c_dim"] else "T"
        for name, tensor in state_of(make(kind)).items():
            *path, last = name.split(".")
            place = self
            for part in path:
                if not hasattr(place, part):
                    place.add_module(part, torch.nn.Module())
                place = getattr(place, part)
            place.register_buffer(last, torch.zeros_like(tensor))


@pytest.mark.parametrize("kind", ["T", "conditional T", "R"])
def test_written_files(kind, tmp_path, monkeypatch):
    for name in ("training", "training.networks_stylegan3"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["training.networks_stylegan3"].Generator = Generator
    G, path = make(kind), tmp_path / "m.pkl"
    write_nvidia(path, G, None, "sg3")
    loaded = pickle.loads(path.read_bytes())["G_ema"]
    assert all(torch.equal(t, loaded.state_dict()[name]) for name, t in state_of(G).items())
    arguments = loaded.arguments
    expected = {"z_dim": 8, "img_resolution": 32, "img_channels": 3, "channel_base": 256, "num_layers": 14}
    expected |= {"conv_kernel": G.config.kernel, "num_fp16_res": 4, "conv_clamp": 256.0, "margin_size": 10}
    assert arguments.items() >= expected.items()
    assert arguments["mapping_kwargs"] == {"num_layers": 2, "lr_multiplier": 0.01, "w_avg_beta": 0.998}
    assert arguments["magnitude_ema_beta"] == pytest.approx(0.9988916, abs=1e-7)  # the published one
    read = open_model(path).G
    assert read.config == G.config
    assert_equal(read, G)


def test_unsupported_generators_are_not_written(tmp_path):
    with pytest.raises(SganError, match="Only NVIDIA's repository stylegan3"):
        write_nvidia(tmp_path / "m.pkl", make(), None, "ada")
    wide = StyleGAN3Config(16, 32, z_dim=8, w_dim=8, channel_base=256, channel_max=16)
    with pytest.raises(SganError, match="only squares"):
        write_nvidia(tmp_path / "m.pkl", build_generator(wide), None, "sg3")
    assert not list(tmp_path.iterdir())
