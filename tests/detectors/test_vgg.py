"""VGG16 for precision and recall, and the names of tensors in NVIDIA's file."""

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.detectors import vgg
from stylegan_cli.detectors.frozen import expected_shapes, load_weights
from stylegan_cli.detectors.resize import resize_like_tensorflow

TORCHVISION_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


@pytest.fixture(scope="module")
def empty():
    with torch.device("meta"):
        return vgg.Vgg16()


def test_names_are_those_of_torchvision(empty):
    shapes = expected_shapes(empty)
    convs = {f"features.{i}" for i in TORCHVISION_CONVS}
    assert {name.rpartition(".")[0] for name in shapes} == convs | {"classifier.0", "classifier.3"}
    assert shapes["features.28.weight"] == (512, 512, 3, 3)
    assert shapes["classifier.0.weight"] == (4096, 25088) and shapes["classifier.3.weight"] == (4096, 4096)


def test_features(empty, random_weights, make_images, tmp_path):
    """With fully connected layers that only select features, the output follows from the convolutions alone."""
    convolutions = torch.nn.ModuleDict({"features": vgg.convolutions()})
    tensors = random_weights(convolutions)
    selected = torch.arange(4096) * 6
    first, second = torch.zeros(4096, 25088), torch.eye(4096).flip(0)
    first[torch.arange(4096), selected] = 1
    zero = torch.zeros(4096)
    tensors |= {"classifier.0.weight": first, "classifier.0.bias": zero}
    tensors |= {"classifier.3.weight": second, "classifier.3.bias": zero}
    network = load_weights(empty, tensors, tmp_path)
    images = make_images(1, 50, 30)

    x = resize_like_tensorflow(images, 224) / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    for i in TORCHVISION_CONVS:
        x = F.relu(F.conv2d(x, tensors[f"features.{i}.weight"], tensors[f"features.{i}.bias"], padding=1))
        if i in (2, 7, 14, 21, 28):
            x = F.max_pool2d(x, 2)
    with torch.no_grad():
        features = network(images)["fc2"]
    assert features.std() > 0.01
    torch.testing.assert_close(features, x.flatten(1)[:, selected].flip(1), rtol=1e-5, atol=1e-5)


def test_nvidia_names():
    tensors = {f"layers.conv{n}.{field}": torch.tensor(n) for n in range(1, 14) for field in ("weight", "bias")}
    tensors |= {f"layers.fc{n}.weight": torch.tensor(n) for n in (1, 2, 3)} | {"lpips4": torch.ones(512, 1, 1)}
    named = vgg.from_nvidia(tensors)
    assert [named[f"features.{i}.weight"].item() for i in TORCHVISION_CONVS] == list(range(1, 14))
    assert (named["classifier.0.weight"].item(), named["classifier.3.weight"].item()) == (1, 2)
    assert named["lin4"].shape == (512,) and len(named) == 2 * 13 + 2 + 1
    assert vgg.from_nvidia({"features.0.weight": tensors}) == {"features.0.weight": tensors}
