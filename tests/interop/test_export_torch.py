"""torch.export: the file generates the same images as the model, for any batch size."""

import json

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.interop import graphs
from stylegan_cli.interop.export_torch import export_torch
from stylegan_cli.models.config import field_names
from stylegan_cli.models.progan.config import ProGANConfig
from stylegan_cli.models.registry import build_generator, read_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.ops.dispatch import current_implementation


def make(kind=StyleGAN2Config, **settings):
    torch.manual_seed(0)
    sizes = {"z_dim": 8, "w_dim": 10, "mapping_layers": 2, "channel_base": 64, "channel_max": 12}
    sizes = {name: size for name, size in sizes.items() if name in field_names(kind)}
    G = build_generator(kind(8, 8, **sizes | settings)).eval().requires_grad_(False)
    G.mapping.w_avg.normal_()
    return G


STYLEGAN1 = {"kind": StyleGANConfig, "fir": (1.0, 1.0), "truncated": 2}
PROGAN = {"kind": ProGANConfig, "fir": (1.0, 1.0)}
STYLEGAN3_T = {"kind": StyleGAN3Config, "c_dim": 3}
STYLEGAN3_R = {"kind": StyleGAN3Config, "kernel": 1, "radial": True}


@pytest.mark.parametrize(
    "settings",
    [{"architecture": "orig"}, {"architecture": "resnet", "c_dim": 3}, STYLEGAN1, PROGAN, STYLEGAN3_T, STYLEGAN3_R],
)
def test_graphs_generate_the_images_of_the_model(settings):
    G = make(**settings)
    graph = graphs.trace(graphs.extract_part(G, "all"), graphs.example_inputs(G, "all", 2)).module()
    for batch in (1, 3):
        z, c = torch.randn(batch, 8), torch.eye(3)[torch.arange(batch)] if G.config.c_dim else None
        images = graph(z, torch.tensor(0.6), *([c] if G.config.c_dim else []))
        assert (images - G(z, c, 0.6)).abs().max() < 1e-4
    assert current_implementation() == "auto"


@pytest.mark.parametrize("name", ["model.pt2", "undecodable \udcff.pt2"])
def test_file(tmp_path, name):
    G, metadata = make(), {"config": "", "part": ""}
    assert export_torch(G, tmp_path / name, "synthesis") < 1e-4
    assert [p.name for p in tmp_path.iterdir()] == [name]
    with open(tmp_path / name, "rb") as f:
        module = torch.export.load(f, extra_files=metadata).module()
    ws = torch.randn(5, G.num_ws, 10)
    assert (module(ws) - G.synthesis(ws)).abs().max() < 1e-4
    assert read_generator(json.loads(metadata["config"])) == G.config and metadata["part"] == "synthesis"


def test_a_file_that_differs_is_discarded(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "TOLERANCE", -1.0)
    with pytest.raises(SganError, match="differs from the model"):
        export_torch(make(), tmp_path / "mapping.pt2", "mapping")
    assert not list(tmp_path.iterdir())
