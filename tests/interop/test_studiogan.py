"""Files of PyTorch-StudioGAN: one network each, in NVIDIA's names."""

import math

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.interop.opening import open_model


def resampling_filters(network):
    """The filters that StudioGAN's modules keep, whether they resample or not."""
    taps = torch.tensor([1.0, 3, 3, 1])
    names = [name for name, _ in network.named_modules() if name.rpartition(".")[2] in ("conv0", "conv1", "skip")]
    levels = {name.rpartition(".")[0] for name in names}
    return {f"{name}.resample_filter": torch.outer(taps, taps) / 64 for name in (*names, *levels)}


def generator_file(G):
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 0.0025}]}
    return {"state_dict": G.state_dict() | resampling_filters(G), "optimizer": optimizer}


def generate(plain, t, z, label):
    """The image of a conditional generator of 16 x 16 with two mapping layers, by the definitions of its layers."""
    w = torch.cat(
        [plain.unit(z), plain.unit(plain.dense(label, t["mapping.embed.weight"], t["mapping.embed.bias"]))], 1
    )
    for i in range(2):
        w = plain.lrelu(plain.dense(w, t[f"mapping.fc{i}.weight"], t[f"mapping.fc{i}.bias"], lr=0.01))

    def style(name):
        return plain.dense(w, t[f"{name}.affine.weight"], t[f"{name}.affine.bias"])

    def conv(x, name, up=False):
        kernel = t[f"{name}.weight"]
        x = plain.modulated(x, kernel.flip(2, 3) if up else kernel, style(name), up)  # convolutions where it upsamples
        x = x + t[f"{name}.noise_strength"] * t[f"{name}.noise_const"]
        return plain.lrelu(x + t[f"{name}.bias"][:, None, None])

    def rgb(x, name):
        y = plain.modulated(x, t[f"{name}.weight"], style(name), demodulate=False)
        return y + t[f"{name}.bias"][:, None, None]

    x = conv(t["synthesis.b4.const"].repeat(len(z), 1, 1, 1), "synthesis.b4.conv1")
    image = rgb(x, "synthesis.b4.torgb")
    for level in (8, 16):
        x = conv(conv(x, f"synthesis.b{level}.conv0", up=True), f"synthesis.b{level}.conv1")
        image = plain.upsample(image) + rgb(x, f"synthesis.b{level}.torgb")
    return image


def test_a_generator_matches_its_definition(plain, networks, tmp_path):
    G, _ = networks(3, c_dim=4)
    tree = generator_file(G)
    torch.save(tree, tmp_path / "model=G_ema-best-weights-step=9000.pth")
    model, z, c = open_model(tmp_path / "model=G_ema-best-weights-step=9000.pth"), torch.randn(4, 6), torch.eye(4)
    assert model.D is None and math.isfinite(float(model.G(z, c).sum()))
    torch.testing.assert_close(model.G(z, c), generate(plain, tree["state_dict"], z, c), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.G(z, c, truncation_psi=0.5), G(z, c, truncation_psi=0.5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", ["linear1", "linear2"])
def test_a_discriminator_is_refused_by_name(networks, tmp_path, head):
    _, D = networks(3)
    state = {name.replace("b4.out", "linear1"): t for name, t in D.state_dict().items()}
    state |= {f"{head}.weight": torch.zeros(4, 8)} | resampling_filters(D)
    torch.save({"state_dict": state, "optimizer": {}, "run_name": "x", "step": 3}, tmp_path / "model=D.pth")
    with pytest.raises(SganError, match="cannot be used: it is a discriminator of StudioGAN"):
        open_model(tmp_path / "model=D.pth")
