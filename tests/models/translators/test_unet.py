"""The networks of pix2pix against plain ones of PyTorch's own layers, wired by hand."""

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.errors import SganError
from stylegan_cli.models.translators.pix2pix import PatchDiscriminator, TranslatorConfig, UNet


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def networks(*size, **fields):
    config = TranslatorConfig(*size, **{"base": 4, **fields})
    return config, UNet(config).double(), PatchDiscriminator(config).double()


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def block(layer, x, stride=2):
    """Convolution and instance normalization of one layer."""
    if layer.up:
        x = F.conv_transpose2d(x, layer.weight, layer.bias, 2, 1)
    else:
        x = F.conv2d(x, layer.weight, layer.bias, stride, 1)
    if layer.style is None:
        return x
    scale, shift = layer.style.chunk(2)
    return F.instance_norm(x, weight=scale + 1, bias=shift)


def test_the_u_net():
    """C4-C8-C16-C32, and CD16-CD8-CD4-C3 on features beside those of the way down (section 6.1.1)."""
    _, G, _ = networks(16, 16, inputs=1)
    x = randn(2, 1, 16, 16)
    assert G.dropout_shapes == [(16, 2, 2), (8, 4, 4), (4, 8, 8)]
    kept = [(torch.rand(2, *shape) < 0.5).double() * 2 for shape in G.dropout_shapes]
    d1, d2, d3, d4 = G.down
    a = block(d1, x)
    b = block(d2, F.leaky_relu(a, 0.2))
    c = block(d3, F.leaky_relu(b, 0.2))
    d = block(d4, F.leaky_relu(c, 0.2))
    u1, u2, u3, u4 = G.up
    e = block(u1, F.relu(d)) * kept[0]
    f = block(u2, F.relu(torch.cat([e, c], 1))) * kept[1]
    g = block(u3, F.relu(torch.cat([f, b], 1))) * kept[2]
    assert torch.allclose(G(x, kept), block(u4, F.relu(torch.cat([g, a], 1))).tanh(), rtol=1e-9)
    assert torch.allclose(G(x), G(x, [torch.ones_like(m) for m in kept]), rtol=1e-12)
    # Neither the first nor the last layer is normalized, nor the bottleneck, of which nothing would be left.
    assert [layer.style is None for layer in (*G.down, *G.up)] == [True, False, False, True, False, False, False, True]
    assert [layer.weight.shape[1] for layer in G.up] == [16, 8, 4, 3]


def test_the_patch_discriminator():
    """C4-C8-C16-C32-C1, of which the last two do not halve (section 6.1.2)."""
    _, _, D = networks(256, 256)
    source, images = randn(1, 3, 256, 256), randn(1, 3, 256, 256)
    x = torch.cat([source, images], 1)
    for k, layer in enumerate(D.layers):
        x = block(layer, F.leaky_relu(x, 0.2) if k else x, 2 if k < 3 else 1)
    assert torch.allclose(D(source, images), x, rtol=1e-9) and x.shape == (1, 1, 30, 30)
    assert [layer.style is None for layer in D.layers] == [True, False, False, False, True]


@pytest.mark.parametrize(("side", "patch"), [(32, 16), (64, 16), (128, 34), (192, 34), (256, 70), (512, 70)])
def test_a_logit_sees_a_patch(side, patch):
    """The convolutions alone: normalization looks at everything."""
    config, _, D = networks(side, side, base=1)
    for layer in D.layers:
        layer.style = None
        layer.weight.data.abs_().add_(1)
    images = randn(1, 3, side, side).abs().requires_grad_(True)
    logits = D(torch.ones_like(images), images)
    i, j = logits.shape[2] // 2, logits.shape[3] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, i, j], images)
    seen = gradient[0, 0] != 0
    assert config.patch == patch and max(seen.any(1).sum(), seen.any(0).sum()) == patch


def test_sizes():
    """256 becomes one pixel, as in the paper; a rectangle is halved while both sides are even."""
    assert TranslatorConfig(256, 256).widths == [64, 128, 256, 512, 512, 512, 512, 512]
    config, G, D = networks(24, 48, channels=4, inputs=1)
    assert config.halvings == 3 and G(randn(1, 1, 24, 48)).shape == (1, 4, 24, 48)
    assert D(randn(1, 1, 24, 48), randn(1, 4, 24, 48)).shape[:2] == (1, 1)
    assert TranslatorConfig(1024, 1024).halvings == 8


def test_images_do_not_depend_on_others():
    _, G, D = networks(16, 16)
    x = randn(3, 3, 16, 16)
    assert torch.allclose(G(x)[1:2], G(x[1:2]), rtol=1e-9) and torch.allclose(
        D(x, x)[1:2], D(x[1:2], x[1:2]), rtol=1e-9
    )


def test_initial_weights():
    """From N(0, 0.02), the scales of the normalization from N(1, 0.02) (section 6.2)."""
    G = UNet(TranslatorConfig(64, 64, base=32))
    assert G.down[3].weight.std().item() == pytest.approx(0.02, rel=0.02)
    scale, shift = G.down[3].style.chunk(2)
    assert scale.std().item() == pytest.approx(0.02, rel=0.2) and not shift.any()


@pytest.mark.parametrize("size", [(8, 8), (36, 36), (64, 20), (250, 256), (0, 0)])
def test_sizes_that_are_refused(size):
    with pytest.raises(SganError):
        TranslatorConfig(*size)


@pytest.mark.parametrize("fields", [{"inputs": 2}, {"channels": 5}, {"base": 0}])
def test_fields_that_are_refused(fields):
    with pytest.raises(SganError):
        TranslatorConfig(64, 64, **fields)
