"""The layer of pix2pix against PyTorch's convolution and instance normalization, in float64."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from stylegan_cli.layers import NormConv2d


@pytest.mark.parametrize(
    ("options", "size"), [({}, (3, 2)), ({"stride": 1}, (5, 3)), ({"up": True}, (12, 8)), ({"norm": False}, (3, 2))]
)
def test_against_its_definition(options, size):
    torch.manual_seed(2)
    layer = NormConv2d(2, 3, **options).double()
    for p in layer.parameters():
        p.data.normal_()
    x = torch.randn(2, 2, 6, 4, dtype=torch.float64, requires_grad=True)
    if layer.up:
        y = F.conv_transpose2d(x, layer.weight, layer.bias, stride=2, padding=1)
    else:
        y = F.conv2d(x, layer.weight, layer.bias, stride=layer.stride, padding=1)
    if layer.style is not None:
        scale, shift = layer.style.chunk(2)
        y = F.instance_norm(y, weight=scale + 1, bias=shift, eps=1e-5)
    assert (layer.bias is None) == (layer.style is not None)
    assert layer(x).shape[2:] == size and torch.allclose(layer(x), y, rtol=1e-9)
    assert gradcheck(lambda x, *parameters: layer(x), (x, *layer.parameters()))
