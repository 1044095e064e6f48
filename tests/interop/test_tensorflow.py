"""Pickles in the format of the TensorFlow programs, written here from scratch."""

import functools
import math
import pickle

import numpy as np
import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.interop.checkpoint import FormatError
from stylegan_cli.interop.opening import open_model
from stylegan_cli.interop.tensorflow import read_tensorflow
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.pickled import Part, PickleError


def array(tensor):
    values = tensor.detach().contiguous().numpy()
    return values if values.ndim else np.float32(values)  # a number, as from tf.Session.run


def dense(target, name, state):
    return {f"{target}/weight": array(state[f"{name}.weight"].t()), f"{target}/bias": array(state[f"{name}.bias"])}


def kernel(w, flip=False):  # [O, I, k, k] -> [k, k, I, O]
    return array((w.flip(2, 3) if flip else w).permute(2, 3, 1, 0))


def modulated(target, name, state, flip=False, noise=True):
    variables = {
        f"{target}/weight": kernel(state[f"{name}.weight"], flip),
        f"{target}/mod_weight": array(state[f"{name}.affine.weight"].t()),
        f"{target}/mod_bias": array(state[f"{name}.affine.bias"] - 1),
        f"{target}/bias": array(state[f"{name}.bias"]),
    }
    return variables | ({f"{target}/noise_strength": array(state[f"{name}.noise_strength"])} if noise else {})


def generator_variables(G, grown=False):
    """The variables of the generator itself, of the mapping network and of the synthesis network."""
    config, state = G.config, G.state_dict()
    mapping = {}
    if config.c_dim and config.labels == "concat":
        mapping["LabelConcat/weight"] = array(state["mapping.embed.weight"].t() / math.sqrt(config.c_dim))
    elif config.c_dim:
        mapping |= dense("LabelEmbed", "mapping.embed", state)
    for i in range(config.mapping_layers):
        mapping |= dense(f"Dense{i}", f"mapping.fc{i}", state)
    state = {k.removeprefix("synthesis."): v for k, v in state.items()}
    synthesis = {"4x4/Const/const": array(state["b4.const"][None])} | modulated("4x4/Conv", "b4.conv1", state)
    for i, noise in enumerate(G.stored_noise()):
        synthesis[f"noise{i}"] = array(noise[None, None])
    levels = [8 << k for k in range(int(math.log2(config.height)) - 2)]
    for r in levels:
        synthesis |= modulated(f"{r}x{r}/Conv0_up", f"b{r}.conv0", state, flip=True)
        synthesis |= modulated(f"{r}x{r}/Conv1", f"b{r}.conv1", state)
        if config.architecture == "resnet":
            synthesis[f"{r}x{r}/Skip/weight"] = kernel(state[f"b{r}.skip.weight"])
    for r in (4, *levels):
        if f"b{r}.torgb.weight" in state:
            synthesis |= modulated("ToRGB_lod0" if grown else f"{r}x{r}/ToRGB", f"b{r}.torgb", state, noise=False)
    generator = {"dlatent_avg": array(G.mapping.w_avg)}
    if grown:
        generator["lod"] = synthesis["lod"] = np.float32(0)
        synthesis |= {name.replace("lod0", "lod1"): value for name, value in synthesis.items() if "lod0" in name}
    return generator, mapping, synthesis


def discriminator_variables(D, grown=False):
    state, config, variables = D.state_dict(), D.config, {}
    if config.c_dim and config.labels == "projection":
        variables |= dense("LabelEmbed", "mapping.embed", state)
        for i in range(config.mapping_layers):
            variables |= dense(f"Mapping{i}", f"mapping.fc{i}", state)
    names = {"b4.conv": "4x4/Conv"}
    for r in (4, *(level.name for level in D.levels)):
        names[f"b{r}.fromrgb"] = "FromRGB_lod0" if grown else f"{r}x{r}/FromRGB"
        names |= {f"b{r}.conv0": f"{r}x{r}/Conv0", f"b{r}.conv1": f"{r}x{r}/Conv1_down", f"b{r}.skip": f"{r}x{r}/Skip"}
    for name, target in names.items():
        if f"{name}.weight" in state:
            variables[f"{target}/weight"] = kernel(state[f"{name}.weight"])
        if f"{name}.bias" in state:
            variables[f"{target}/bias"] = array(state[f"{name}.bias"])
    return variables | dense("4x4/Dense0", "b4.fc", state) | dense("Output", "b4.out", state)


def arguments(config, **extra):
    common = {"num_channels": config.channels, "resolution": config.height, "label_size": config.c_dim}
    return common | {"fmap_base": config.channel_base // 2, "fmap_max": config.channel_max} | extra


def tree(Network, G, D, version=5, grown=False, g_extra=(), d_extra=()):
    """(G, D, Gs)"""
    network = functools.partial(Network, version)
    g_arguments = arguments(G.config, mapping_fmaps=G.config.w_dim, **dict(g_extra))
    variables, *parts = generator_variables(G, grown)
    mapping, synthesis = (network(part, g_arguments) for part in parts)
    generator = network(variables, g_arguments, mapping=mapping, synthesis=synthesis)
    d_arguments = arguments(D.config, mbstd_group_size=2, **dict(d_extra))
    return generator, network(discriminator_variables(D, grown), d_arguments), generator


def save(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def read(path):
    with open(path, "rb") as f:
        return read_tensorflow(Part(f))


def make_pair(g=None, d=None, **common):
    """Networks without weights of zero."""
    torch.manual_seed(1)
    common = {
        "height": 16,
        "width": 16,
        "channel_base": 64,
        "channel_max": 8,
        "half_levels": 0,
        "conv_clamp": None,
    } | common
    config = StyleGAN2Config(z_dim=6, w_dim=6, mapping_layers=2, **common, **(g or {}))
    G = build_generator(config)
    D = build_discriminator(LevelsDiscriminatorConfig(mbstd_group=2, mapping_lr=0.1, **common, **(d or {})))
    for network in (G, D):
        for tensor in network.state_dict().values():
            tensor.add_(torch.randn_like(tensor) * 0.2)
        network.eval().requires_grad_(False)
    return G, D


CASES = {
    "skip": {},
    "resnet": {"g": {"architecture": "resnet"}, "d": {"architecture": "skip"}},
    "orig": {"g": {"architecture": "orig"}, "d": {"architecture": "orig"}},
    "classes": {"c_dim": 3, "d": {"mapping_layers": 0}},
    "mapped classes": {"c_dim": 3, "d": {"mapping_layers": 2}},
    "classes beside z": {"c_dim": 3, "g": {"labels": "concat"}, "d": {"labels": "dot"}},
    "another base": {"channel_base": 150, "channel_max": 16, "height": 32, "width": 32},
    "gray": {"channels": 1, "d": {"mbstd_channels": 2}},
}


def labels(G, count):
    return torch.eye(G.config.c_dim)[torch.arange(count) % G.config.c_dim] if G.config.c_dim else None


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_round_trip(Network, tmp_path, case, protocol):
    G, D = make_pair(**CASES[case])
    model = open_model(save(tmp_path / "x.pkl", tree(Network, G, D), protocol))
    z, x = torch.randn(4, 6), torch.randn(4, G.config.channels, G.config.height, G.config.width)
    c = labels(G, 4)
    torch.testing.assert_close(model.G(z, c, truncation_psi=0.5), G(z, c, truncation_psi=0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.D(x, c), D(x, c), atol=1e-5, rtol=0)
    assert (model.G.config.architecture, model.D.config.architecture) == (G.config.architecture, D.config.architecture)


def generate(plain, networks, z, c=None):
    """The images of TensorFlow's generator of 16 x 16, by the definitions of its layers and from its own variables."""
    components = networks[0].components
    m, s = ({k: torch.as_tensor(v) for k, v in components[n].variables} for n in ("mapping", "synthesis"))
    if c is None:
        x = plain.unit(z)
    elif "LabelConcat/weight" in m:
        x = plain.unit(torch.cat([z, c @ m["LabelConcat/weight"]], 1))
    else:
        embedded = plain.dense(c, m["LabelEmbed/weight"].t(), m["LabelEmbed/bias"])
        x = torch.cat([plain.unit(z), plain.unit(embedded)], 1)
    for i in range(2):
        x = plain.lrelu(plain.dense(x, m[f"Dense{i}/weight"].t(), m[f"Dense{i}/bias"], lr=0.01))
    w = x

    def modulated(x, name, **options):
        style = plain.dense(w, s[f"{name}/mod_weight"].t(), s[f"{name}/mod_bias"]) + 1
        return plain.modulated(x, s[f"{name}/weight"].permute(3, 2, 0, 1), style, **options)

    def layer(x, name, noise, up=False):
        x = modulated(x, name, up=up) + s[f"{name}/noise_strength"] * s[f"noise{noise}"]
        return plain.lrelu(x + s[f"{name}/bias"][:, None, None])

    def to_rgb(x, name):
        return modulated(x, name, demodulate=False) + s[f"{name}/bias"][:, None, None]

    x = layer(s["4x4/Const/const"].repeat(len(z), 1, 1, 1), "4x4/Conv", 0)
    image = to_rgb(x, "4x4/ToRGB") if "4x4/ToRGB/bias" in s else None
    for k, r in enumerate(("8x8", "16x16")):
        y = layer(layer(x, f"{r}/Conv0_up", 2 * k + 1, up=True), f"{r}/Conv1", 2 * k + 2)
        if f"{r}/Skip/weight" in s:
            kernel = s[f"{r}/Skip/weight"].permute(3, 2, 0, 1)
            y = (y + plain.correlate(x, kernel / math.sqrt(kernel.shape[1]), up=True)) / math.sqrt(2)
        x = y
        image = plain.upsample(image) + to_rgb(x, f"{r}/ToRGB") if image is not None else None
    if image is not None:
        return image
    return to_rgb(x, "ToRGB_lod0" if "ToRGB_lod0/bias" in s else "16x16/ToRGB")


def discriminate(plain, networks, image, c=None):
    """The logits of TensorFlow's discriminator of 16 x 16."""
    t = {k: torch.as_tensor(v) for k, v in networks[1].variables}

    def convolution(x, name, down=False):
        return plain.convolution(x, t[f"{name}/weight"].permute(3, 2, 0, 1), t.get(f"{name}/bias"), down)

    x = None
    for r in ("16x16", "8x8"):
        if f"{r}/FromRGB/bias" in t:
            y = convolution(image, f"{r}/FromRGB")
            x = y if x is None else x + y
        elif x is None:
            x = convolution(image, "FromRGB_lod0")
        y = convolution(convolution(x, f"{r}/Conv0"), f"{r}/Conv1_down", down=True)
        x = (y + convolution(x, f"{r}/Skip", down=True)) / math.sqrt(2) if f"{r}/Skip/weight" in t else y
        image = plain.apply_filter(image, 1, 1)[:, :, ::2, ::2]
    if "4x4/FromRGB/bias" in t:
        x = x + convolution(image, "4x4/FromRGB")
    x = convolution(plain.append_deviation(x, 2), "4x4/Conv").flatten(1)
    x = plain.lrelu(plain.dense(x, t["4x4/Dense0/weight"].t(), t["4x4/Dense0/bias"]))
    x = plain.dense(x, t["Output/weight"].t(), t["Output/bias"])
    if c is None:
        return x
    if "LabelEmbed/weight" not in t:
        return (x * c).sum(1, keepdim=True)
    y = plain.unit(plain.dense(c, t["LabelEmbed/weight"].t(), t["LabelEmbed/bias"]))
    for i in range(sum(name.startswith("Mapping") for name in t) // 2):
        y = plain.lrelu(plain.dense(y, t[f"Mapping{i}/weight"].t(), t[f"Mapping{i}/bias"], lr=0.1))
    return (x * y).sum(1, keepdim=True) / math.sqrt(y.shape[1])


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("another base", "gray")])
def test_networks_match_their_definitions(plain, Network, tmp_path, case):
    """The differences from NVIDIA's own converter were at most 2e-5 in images and 3e-6 in logits."""
    G, D = make_pair(**CASES[case])
    networks = tree(Network, G, D, version=4 if case == "classes beside z" else 5)
    model = open_model(save(tmp_path / "x.pkl", networks))
    z, x, c = torch.randn(4, 6), torch.randn(4, 3, 16, 16), labels(G, 4)
    torch.testing.assert_close(model.G(z, c), generate(plain, networks, z, c), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.D(x, c), discriminate(plain, networks, x, c), atol=1e-4, rtol=0)


def test_a_fully_grown_network_has_the_architecture_orig(plain, Network, tmp_path):
    G, D = make_pair(g={"architecture": "orig"}, d={"architecture": "orig"})
    networks = tree(Network, G, D, version=4, grown=True)
    path = save(tmp_path / "x.pkl", networks)
    z, x = torch.randn(4, 6), torch.randn(4, 3, 16, 16)
    model = open_model(path)
    torch.testing.assert_close(model.G(z), generate(plain, networks, z), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.D(x), discriminate(plain, networks, x), atol=1e-4, rtol=0)
    assert any("growing" in note for note in read(path).notes)


def test_settings_are_read(Network, tmp_path):
    G, D = make_pair()
    extra = {"num_fp16_res": 2, "conv_clamp": 256, "resample_kernel": None}
    g_extra = extra | {"mapping_lrmul": 0.1, "dlatent_avg_beta": None}
    for version, group in ((4, 4), (5, None)):
        networks = tree(Network, G, D, version, g_extra=g_extra, d_extra=extra)
        del networks[1].static_kwargs["mbstd_group_size"]  # its default depends on the version
        checkpoint = read(save(tmp_path / "x.pkl", networks))
        assert checkpoint.discriminator.mbstd_group == group
        for config in (checkpoint.generator, checkpoint.discriminator):
            assert (config.half_levels, config.conv_clamp, config.fir) == (2, 256.0, (1.0, 1.0))
        assert (checkpoint.generator.mapping_lr, checkpoint.generator.w_avg_beta) == (0.1, 1.0)


def test_a_network_without_noise(Network, tmp_path):
    G, D = make_pair()
    networks = tree(Network, G, D)
    synthesis = networks[0].components["synthesis"]
    synthesis.variables = [(name, value) for name, value in synthesis.variables if "noise" not in name]
    path = save(tmp_path / "x.pkl", networks)
    z = torch.randn(2, 6)
    torch.testing.assert_close(open_model(path).G(z), G(z, noise="none"), atol=1e-5, rtol=0)


def test_a_pickle_of_python_2(Network, tmp_path):
    """The bytes of its arrays are strings."""

    class Text:
        """A str of Python 2: it is written as BINSTRING, which Python 3 can only read."""

        def __init__(self, raw):
            self.raw = raw

    class Pickler(pickle._Pickler):
        dispatch = dict(pickle._Pickler.dispatch)

        def save_text(self, text):
            raw = text.raw
            self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)

        def save_array(self, array):
            state = (1, array.shape, array.dtype, False, Text(array.tobytes()))
            self.save_reduce(np.zeros(0).__reduce__()[0], (np.ndarray, (0,), Text(b"b")), state, obj=array)

        dispatch[Text], dispatch[np.ndarray] = save_text, save_array

    G, D = make_pair(channel_max=32, channel_base=128)
    path = tmp_path / "x.pkl"
    with open(path, "wb") as f:
        Pickler(f, 2).dump(tree(Network, G, D))
    z = torch.randn(2, 6)
    torch.testing.assert_close(open_model(path).G(z), G(z), atol=1e-5, rtol=0)


def _unsupported_pickles(Network):
    """Pickles that are refused, and the words of the message."""
    G, D = make_pair()

    def changed(change):
        networks = tree(Network, G, D)
        change(networks[2])
        return networks

    def add(name, value):
        return lambda net: net.components["synthesis"].variables.append((name, np.asarray(value, dtype=np.float32)))

    return {
        "another layer": (changed(add("8x8/Attention/weight", [1.0])), "8x8/Attention/weight"),
        "activation": (changed(lambda net: net.static_kwargs.update(nonlinearity="relu")), "relu, which"),
        "growing": (changed(add("lod", 1.5)), "still growing"),
    }


@pytest.mark.parametrize("case", ["another layer", "activation", "growing"])
def test_unsupported_networks_are_refused_by_name(Network, tmp_path, case):
    networks, words = _unsupported_pickles(Network)[case]
    path = save(tmp_path / "x.pkl", networks)
    with pytest.raises(FormatError, match=words):
        read(path)
    with pytest.raises(SganError, match=f"cannot be used: .*{words}"):
        open_model(path)


def test_the_generator_is_read_if_the_discriminator_is_unsupported(Network, tmp_path):
    G, D = make_pair()
    networks = tree(Network, G, D)
    networks[1].variables.append(("16x16/Conv0/weight_sn", np.zeros((1, 4), np.float32)))
    path = save(tmp_path / "x.pkl", networks)
    assert open_model(path).D is None
    assert any("weight_sn" in note for note in read(path).notes)


def test_invalid_files_are_refused(Network, tmp_path):
    G, D = make_pair()
    generator, discriminator, _ = tree(Network, G, D)
    empty, stylegan1 = Network(5, {}, {}), tree(Network, G, D, version=3)
    for content in ((generator, discriminator), [1, 2, 3], (empty,) * 3, (discriminator,) * 3, stylegan1):
        with pytest.raises(PickleError):
            read(save(tmp_path / "x.pkl", content))
    path = save(tmp_path / "x.pkl", (generator, discriminator, generator))
    data = path.read_bytes()
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(SganError, match="cannot be read: the pickle is truncated"):
            open_model(path)
