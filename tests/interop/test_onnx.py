"""ONNX: onnxruntime generates the same images as the model, for any batch size, truncation and label."""

import json
import sys

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.interop import export_onnx as export
from stylegan_cli.interop import graphs
from stylegan_cli.interop.export_onnx import export_onnx
from stylegan_cli.models.growing import set_alpha
from stylegan_cli.models.registry import build_generator, read_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CONFIG = StyleGAN2Config(6, 12, z_dim=8, w_dim=10, c_dim=3, mapping_layers=2, channel_base=64, channel_max=12)


@pytest.fixture(scope="module")
def G():
    torch.manual_seed(0)
    G = build_generator(CONFIG).eval().requires_grad_(False)
    G.mapping.w_avg.normal_()
    for name, p in G.named_parameters():
        if p.ndim == 1 or name.endswith("noise_strength"):
            p.add_(0.3 * torch.randn_like(p))
    return G


@pytest.fixture(scope="module")
def exported(G, tmp_path_factory):
    """The path, and the measured difference."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return path, export_onnx(G, path)


@pytest.fixture(scope="module")
def generate(exported):
    session = onnxruntime.InferenceSession(exported[0], providers=["CPUExecutionProvider"])

    def run(z, c, psi):
        inputs = {"z": z.numpy(), "c": c.numpy(), "truncation_psi": torch.tensor(psi).numpy()}
        return torch.from_numpy(session.run(["image"], inputs)[0])

    return run


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("psi", [0.0, 0.6, 1.0])
def test_images_equal_those_of_the_model(G, exported, generate, batch, psi):
    z, c = torch.randn(batch, 8), torch.eye(3)[torch.arange(batch)]
    assert (generate(z, c, psi) - G(z, c, psi)).abs().max() < 1e-4
    assert exported[1] < 1e-4


def test_every_input_has_an_effect(generate):
    z, c = torch.randn(2, 8), torch.eye(3)[[0, 1]]
    images = generate(z, c, 1.0)
    assert (generate(z, c, 0.5) - images).abs().max() > 0.01
    assert (generate(z, c.flip(0), 1.0) - images).abs().max() > 0.01
    assert torch.equal(generate(z, c, 0.0)[0], generate(z, c, 0.0)[1])


def test_inputs_and_metadata(exported):
    model = onnx.load(exported[0])
    inputs = {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    assert inputs == {"z": ["batch", 8], "truncation_psi": [], "c": ["batch", 3]}
    metadata = {p.key: p.value for p in model.metadata_props}
    assert read_generator(json.loads(metadata["config"])) == CONFIG and metadata["part"] == "all"
    assert [p.name for p in exported[0].parent.iterdir()] == ["model.onnx"]


def test_weights_do_not_depend_on_inputs(exported):
    """Convolution weights that depended on a latent would need one group per image."""
    graph = onnx.load(exported[0]).graph
    dependent = {i.name for i in graph.input}
    convolutions = 0
    for node in graph.node:
        if node.op_type.startswith("Conv"):
            convolutions += 1
            assert node.input[1] not in dependent
        if dependent & set(node.input):
            dependent |= set(node.output)
    assert convolutions >= 5


def test_stylegan1(tmp_path):
    """With noise, styles, a fade, and truncation of the first ws only."""
    torch.manual_seed(0)
    settings = {"fir": (1.0, 1.0), "blur": (1.0, 2.0, 1.0), "truncated": 3}
    sizes = {"z_dim": 8, "w_dim": 10, "mapping_layers": 2, "channel_base": 64, "channel_max": 12}
    G = build_generator(StyleGANConfig(8, 8, **sizes, **settings, fade=True)).eval().requires_grad_(False)
    for tensor in G.state_dict().values():
        tensor.add_(0.2 * torch.randn_like(tensor))
    set_alpha(G, 0.3)
    path, z = tmp_path / "model.onnx", torch.randn(3, 8)
    assert export_onnx(G, path) < 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (image,) = session.run(["image"], {"z": z.numpy(), "truncation_psi": torch.tensor(0.5).numpy()})
    assert (torch.from_numpy(image) - G(z, truncation_psi=0.5)).abs().max() < 1e-4
    assert (torch.from_numpy(image) - G(z, truncation_psi=0.5, truncation_cutoff=8)).abs().max() > 0.01


@pytest.mark.parametrize(
    "kind",
    [pytest.param({"c_dim": 3}, id="T"), pytest.param({"kernel": 1, "radial": True}, id="R", marks=pytest.mark.slow)],
)
def test_stylegan3(tmp_path, kind):
    torch.manual_seed(0)
    sizes = {"z_dim": 8, "w_dim": 10, "channel_base": 128, "channel_max": 8}
    G = build_generator(StyleGAN3Config(16, 16, **sizes, **kind)).eval().requires_grad_(False)
    G.synthesis.input.affine.weight.normal_()
    for row in G.layers[1:]:  # as in a trained model, whose magnitudes do not shrink from layer to layer
        G.get_submodule(row.name).magnitude_ema.fill_(0.5)
    path, z, c = tmp_path / "model.onnx", torch.randn(3, 8), torch.eye(3) if G.config.c_dim else None
    assert export_onnx(G, path) < 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = {"z": z, "truncation_psi": torch.tensor(0.5)} | ({} if c is None else {"c": c})
    (image,) = session.run(["image"], {name: x.numpy() for name, x in inputs.items()})
    expected = G(z, c, 0.5)
    assert (torch.from_numpy(image) - expected).abs().max() < 1e-4 and expected.std() > 0.02


@pytest.mark.parametrize("name", ["mapping.onnx", "undecodable \udcff.onnx"])
def test_the_mapping_network_alone(G, tmp_path, name):
    export_onnx(G, tmp_path / name, "mapping")
    content = (tmp_path / name).read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    z, c = torch.randn(5, 8), torch.eye(3)[[0, 1, 2, 0, 1]]
    (ws,) = session.run(["ws"], {"z": z.numpy(), "c": c.numpy(), "truncation_psi": torch.tensor(0.3).numpy()})
    assert (torch.from_numpy(ws) - G.mapping(z, c, 0.3)).abs().max() < 1e-5


def test_a_file_that_differs_is_discarded(G, tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "TOLERANCE", -1.0)
    with pytest.raises(SganError, match="differs from the model"):
        export_onnx(G, tmp_path / "mapping.onnx", "mapping")
    assert not list(tmp_path.iterdir())


def test_misuse(G, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="all, mapping, synthesis"):
        export_onnx(G, tmp_path / "x.onnx", "discriminator")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError) as e:
        export_onnx(G, tmp_path / "x.onnx")
    assert e.value.name == "onnxscript"
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_too_large_is_refused(G, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MAX_BYTES", 1000)
    with pytest.raises(SganError, match="2 GB"):
        export_onnx(G, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
