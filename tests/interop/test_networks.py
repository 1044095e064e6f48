"""Networks are found wherever a PyTorch program put them: whole modules, tuples, state dictionaries, prefixes."""

import pickle
import sys
import types

import pytest
import safetensors.torch
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.interop.names import find_names
from stylegan_cli.interop.opening import checkpoint_info, open_model
from stylegan_cli.interop.rosinality_writer import write_unchecked

PREFIXES = ("module.", "generator.", "g_ema.", "decoder.", "netG.", "module.generator.")
WRAPPERS = ("g", "g_ema", "generator", "state_dict", "model", "params_ema", "G", "G_ema")
BOTH_FORMATS = pytest.mark.parametrize("old", [False, True])


@pytest.fixture
def opened(tmp_path):
    def make(content, old=False, name="x.pt"):
        if name.endswith(".pkl"):
            (tmp_path / name).write_bytes(pickle.dumps(content))
        else:
            torch.save(content, tmp_path / name, _use_new_zipfile_serialization=not old)
        return open_model(tmp_path / name)

    return make


@pytest.fixture
def notes(tmp_path):
    return lambda: " ".join(checkpoint_info(tmp_path / "x.pt")[1])


@pytest.fixture
def modules(networks, nvidia_bytes):
    """NVIDIA's modules of two generators and a discriminator, and the networks: (g, d, g_ema), G, D."""
    trees = []
    G, D = networks()
    for seed, d in ((1, None), (0, D)):
        nvidia_bytes(networks(seed)[0], d, change=lambda c: trees.extend((c["G_ema"], c["D"])))
    return (trees[0], trees[3], trees[2]), G, D


def assert_equal(actual, expected):
    assert actual.config == expected.config
    assert all(torch.equal(t, expected.state_dict()[n]) for n, t in actual.state_dict().items())


def in_other_forms(state):
    """A state dictionary with every prefix, in every wrapper, and in two of them."""
    prefixed = [{prefix + name: t for name, t in state.items()} for prefix in PREFIXES]
    return [state, *prefixed, *({key: state} for key in WRAPPERS), {"state_dict": {"G": prefixed[0]}}]


# Whole modules


@BOTH_FORMATS
def test_the_generator_that_pti_saves(modules, opened, old):
    (_, _, g_ema), G, _ = modules
    model = opened(g_ema, old)
    assert_equal(model.G, G)
    assert model.D is None


@pytest.mark.parametrize("name", ["x.pt", "x.pkl"])
@pytest.mark.parametrize("form", ["tuple", "list", "dictionary", "nested"])
def test_the_moving_average_is_taken(modules, opened, form, name):
    (g, d, g_ema), G, D = modules
    named = {"G": g, "D": d, "G_ema": g_ema}
    contents = {"tuple": (g, d, g_ema), "list": [g, d, g_ema], "dictionary": named, "nested": {"model": named}}
    model = opened(contents[form], name=name)
    assert_equal(model.G, G)
    assert_equal(model.D, D)


@pytest.mark.parametrize("name", ["x.pt", "x.pkl"])
def test_files_without_a_moving_average(modules, opened, name, tmp_path):
    (_, d, g_ema), G, D = modules
    for content in ({"G": g_ema, "D": d}, (g_ema, d), {"G_ema": g_ema}, g_ema):
        model = opened(content, name=name)
        assert_equal(model.G, G)
        assert model.D is None if content in (g_ema, {"G_ema": g_ema}) else model.D.config == D.config
    opened({"G": g_ema, "D": d}, name=name)
    assert "no moving average" in checkpoint_info(tmp_path / name)[1][0]


@pytest.fixture
def classes(monkeypatch):
    """Classes with the names of rosinality's, in a module `model` that only exists while a file is written."""
    module, made = types.ModuleType("model"), {}
    for name in ("Generator", "StyledConv"):
        made[name] = type(name, (torch.nn.Module,), {"__module__": "model", "__qualname__": name})
        setattr(module, name, made[name])
    with monkeypatch.context() as m:
        m.setitem(sys.modules, "model", module)
        yield made


def whole_module(classes, state):
    root = classes["Generator"]()
    root.size, root.channels, root.log_size = 8, {4: 512, 8: 512}, 3
    for name, tensor in state.items():
        *path, last = name.split(".")
        place = root
        for part in path:
            if part not in place._modules:
                place.add_module(part, classes["StyledConv"]())
            place = place._modules[part]
        if path[0] == "noises" or last == "kernel":
            place.register_buffer(last, tensor)
        else:
            place.register_parameter(last, torch.nn.Parameter(tensor))
    return root


@pytest.fixture
def rosinality(networks, tmp_path):
    """The state dictionaries of a generator and a discriminator with rosinality's names, its mean of w, and both."""
    common = {"channel_base": 64, "channel_max": 8, "conv_clamp": None}
    G, D = networks(**common)
    write_unchecked(tmp_path / "rosinality.pt", G, D)
    tree = torch.load(tmp_path / "rosinality.pt", weights_only=True)
    return tree["g_ema"], tree["d"], tree["latent_avg"], G, D


@BOTH_FORMATS
def test_a_whole_module_of_rosinality(rosinality, classes, opened, old, tmp_path):
    state, _, mean, G, _ = rosinality
    module = whole_module(classes, state)
    for content in ({"g_ema": module, "latent_avg": mean}, {"g": torch.nn.DataParallel(module), "latent_avg": mean}):
        assert_equal(opened(content, old).G, G)
    assert opened(module, old).G.mapping.w_avg.any()
    names = find_names(tmp_path / "x.pt")
    assert names.complete and names.known["model.StyledConv"] is False and names.known["collections.OrderedDict"]


@BOTH_FORMATS
def test_the_source_and_functions_of_a_module_are_not_run(modules, opened, old, tmp_path):
    class Evil:
        def __reduce__(self):
            return exec, ("open('EVIL', 'w')",)

    g_ema = modules[0][2]
    g_ema.attributes["hook"] = Evil()
    with pytest.raises(SganError, match=r"builtin.*\.exec"):
        opened(g_ema, old)
    assert not list(tmp_path.rglob("EVIL"))


# State dictionaries


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"c_dim": 3},
        {"architecture": "resnet", "d_architecture": "skip"},
        {"architecture": "orig", "d_architecture": "orig", "channels": 1},
        {"channel_base": 32, "channel_max": 4, "size": 32},
    ],
    ids=str,
)
def test_settings_of_a_state_dictionary_follow_from_its_shapes(networks, opened, settings):
    G, D = networks(**settings, conv_clamp=None)
    model = opened({"G_ema": G.state_dict(), "D": D.state_dict()})
    assert_equal(model.G, G)
    assert model.D.config == type(D.config)(**vars(D.config) | {"mbstd_group": 4})  # not in the file
    assert all(torch.equal(t, D.state_dict()[n]) for n, t in model.D.state_dict().items())


def test_prefixes_and_wrappers_of_nvidias_names(networks, opened, notes):
    G, _ = networks(conv_clamp=None, size=8)
    for content in in_other_forms(G.state_dict()):
        assert_equal(opened(content).G, G)
        assert "no settings" in notes()


def test_the_filter_of_a_state_dictionary(networks, opened):
    G, _ = networks(conv_clamp=None, fir=(1.0, 2.0, 1.0))
    taps = torch.tensor([1.0, 2, 1]) / 4
    filters = {f"synthesis.b{r}.conv0.resample_filter": taps.outer(taps) for r in (8, 16)}
    filters["synthesis.b16.conv1.resample_filter"] = torch.eye(4)  # a layer that does not resample
    assert_equal(opened(G.state_dict() | filters).G, G)


def test_parameters_without_buffers(networks, opened, notes):
    G, _ = networks(conv_clamp=None)
    model = opened(dict(G.named_parameters()))
    assert "10,000" in notes() and "noise was sampled" in notes()
    assert model.G.mapping.w_avg.any()
    assert 0.8 < float(model.G.synthesis.b16.conv1.noise_const.std()) < 1.2
    for name, parameter in G.named_parameters():
        assert torch.equal(model.G.get_parameter(name), parameter)


def test_prefixes_and_wrappers_of_rosinalitys_names(rosinality, opened, notes):
    state, d, mean, G, D = rosinality
    for content in in_other_forms(state):
        model = opened(content | {"latent_avg": mean})
        assert_equal(model.G, G)
        assert model.D is None and "10,000" not in notes()
    assert_equal(opened({"g": state, "d": d, "mean_latent": mean[None]}).G, G)
    without_noise = {k: v for k, v in state.items() if not k.startswith("noises")}
    model = opened({"model": {f"module.{k}": v for k, v in without_noise.items()}, "netD": d})
    assert "10,000" in notes() and "noise was sampled" in notes()
    assert all(torch.equal(t, D.state_dict()[n]) for n, t in model.D.state_dict().items())


def test_networks_beside_each_other_in_one_dictionary(networks, rosinality, opened):
    state, d, mean, G, D = rosinality
    other = {f"g.{k}": v * 2 for k, v in state.items()}
    flat = other | {f"d.{k}": v for k, v in d.items()} | {f"g_ema.{k}": v for k, v in state.items()}
    assert_equal(opened(flat | {"latent_avg": mean}).G, G)
    assert opened(flat).D.config.height == 16
    G, D = networks(conv_clamp=None)
    content = {
        f"{n}.{k}": v for n, x in (("D", D), ("G_ema", G), ("G", networks(5)[0])) for k, v in x.state_dict().items()
    }
    model = opened(content)
    assert_equal(model.G, G)
    assert torch.equal(model.D.b4.out.weight, D.b4.out.weight)


def test_state_dictionaries_in_safetensors(networks, rosinality, tmp_path):
    path = tmp_path / "x.safetensors"
    G, D = networks(conv_clamp=None)
    for prefix in ("", "G_ema.", "module."):
        tensors = {prefix + k: v for k, v in G.state_dict().items()} | {f"D.{k}": v for k, v in D.state_dict().items()}
        safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, path, {"format": "pt"})
        model = open_model(path)
        assert_equal(model.G, G)
        assert torch.equal(model.D.b4.out.weight, D.b4.out.weight)
        assert checkpoint_info(path)[0].generator == G.config
    state, _, mean, G, _ = rosinality
    safetensors.torch.save_file({k: v.half() for k, v in state.items()} | {"latent_avg": mean}, path)
    assert torch.equal(open_model(path).G.synthesis.b8.conv1.weight, G.synthesis.b8.conv1.weight.half().float())
    data = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(SganError, match="truncated"):
            open_model(path)


def test_an_incomplete_generator_is_refused(networks, rosinality, opened):
    state = networks(conv_clamp=None)[0].state_dict()
    state.pop("synthesis.b8.conv0.affine.weight")
    with pytest.raises(SganError, match=r"synthesis\.b8\.conv0\.affine\.weight"):
        opened({"G_ema": state})
    weights = {k: v for k, v in rosinality[0].items() if k != "conv1.noise.weight"}
    with pytest.raises(SganError, match=r"cannot be read: it has no conv1\.noise\.weight"):
        opened({"g": weights})
