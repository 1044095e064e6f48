"""The discriminator: its size, its equations, invalid inputs."""

import math

import pytest
import torch

from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator
from stylegan_cli.models.summary import parameter_count
from stylegan_cli.ops import append_minibatch_std, conv2d_resample, downsample2d, fir_filter, use

ARCHITECTURES = ["resnet", "skip", "orig"]
FIR = fir_filter([1, 3, 3, 1])


def test_parameter_count():
    with torch.device("meta"):
        D = build_discriminator(LevelsDiscriminatorConfig(256, 256, channel_base=16384))
    assert parameter_count(D) == 24_001_089


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 48)])
@pytest.mark.parametrize(("c_dim", "labels"), [(0, "projection"), (3, "projection"), (3, "dot"), (3, "classifier")])
def test_shapes(make_d, randn, architecture, channels, height, width, c_dim, labels):
    D = make_d(height, width, architecture=architecture, channels=channels, c_dim=c_dim, labels=labels)
    c = torch.eye(3).double()[[0, 2, 1, 1]] if c_dim else None
    logits = D(randn(4, channels, height, width), c)
    assert logits.shape == (4, 1) and logits.dtype == torch.float64
    assert logits.std() > 1e-4


def test_a_classifier_also_predicts_the_class(make_d, randn):
    """The first output is the logit, the others are class logits; the label is not an input."""
    D, x = make_d(8, 8, c_dim=3, labels="classifier"), randn(4, 3, 8, 8)
    logits, classes = D.forward_with_classes(x)
    assert logits.shape == (4, 1) and classes.shape == (4, 3)
    assert torch.equal(D(x, torch.eye(3).double()[[0, 1, 2, 0]]), logits) and torch.equal(D(x), logits)
    assert D.b4.out.weight.shape[0] == 4 and not hasattr(D, "mapping")
    assert make_d(8, 8, c_dim=3).forward_with_classes(x, torch.eye(3).double()[[0, 1, 2, 0]])[1] is None


def epilogue(D, x):
    x = append_minibatch_std(x, D.config.mbstd_group)
    return D.b4.out(D.b4.fc(D.b4.conv(x).flatten(1)))


def test_resnet(make_d, randn):
    D, x = make_d(16, 8), randn(4, 3, 16, 8)
    image, x = x, D.b8.fromrgb(x)
    with use("reference"):
        shortcut = conv2d_resample(x, D.b8.skip.weight / math.sqrt(8), FIR, down=2)
    x = (shortcut + D.b8.conv1(D.b8.conv0(x))) * math.sqrt(0.5)
    assert torch.allclose(D(image), epilogue(D, x))


def test_skip_has_an_image_pyramid(make_d, randn):
    D, image = make_d(8, 8, architecture="skip"), randn(4, 3, 8, 8)
    x = D.b8.conv1(D.b8.conv0(D.b8.fromrgb(image)))
    with use("reference"):
        half = downsample2d(image, FIR)
    x = x + D.b4.fromrgb(half)
    assert torch.allclose(D(image), epilogue(D, x))


def test_orig(make_d, randn):
    D, image = make_d(16, 16, architecture="orig"), randn(4, 3, 16, 16)
    x = D.b16.conv1(D.b16.conv0(D.b16.fromrgb(image)))
    assert not hasattr(D.b8, "fromrgb")
    x = D.b8.conv1(D.b8.conv0(x))
    assert torch.allclose(D(image), epilogue(D, x))


def last_features(D, image):
    """The output of the last layer, before it is combined with the label."""
    outputs = []
    handle = D.b4.register_forward_hook(lambda m, i, y: outputs.append(y))
    D(image, torch.eye(3).double()[[0] * len(image)])
    handle.remove()
    return outputs[0]


def test_projection_of_the_label(make_d, randn):
    D, image, c = make_d(8, 8, c_dim=3), randn(4, 3, 8, 8), torch.eye(3).double()[[0, 2, 1, 2]]
    x = last_features(D, image)
    mapped = D.mapping(None, c)
    assert x.shape == mapped.shape == (4, 8)
    assert torch.allclose(D(image, c), (x * mapped).sum(1, keepdim=True) / math.sqrt(8))


def test_dot_with_the_label(make_d, randn):
    D, image = make_d(8, 8, c_dim=3, labels="dot"), randn(4, 3, 8, 8)
    x = last_features(D, image)
    assert x.shape == (4, 3)
    for k in range(3):
        assert torch.allclose(D(image, torch.eye(3).double()[[k] * 4]), x[:, k : k + 1])


def test_minibatch_std_can_be_off(make_d, randn):
    D, image = make_d(8, 8, mbstd_channels=0), randn(4, 3, 8, 8)
    batched = D(image)
    assert torch.allclose(torch.cat([D(image[i : i + 1]) for i in range(4)]), batched)
    assert not torch.allclose(make_d(8, 8)(image)[:1], make_d(8, 8)(image[:1]))


def test_minibatch_groups_are_independent(make_d, randn):
    D, image = make_d(8, 8, mbstd_group=2), randn(4, 3, 8, 8)
    changed = image.clone()
    changed[1] += 1
    differs = (D(changed) != D(image))[:, 0].tolist()
    assert differs == [False, True, False, True]  # image n is in group n mod 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_half_precision_is_close(make_d, randn, dtype, architecture):
    D, image = make_d(architecture=architecture).float(), randn(4, 3, 16, 16).float()
    exact, half = D(image), D(image, dtype=dtype)
    assert half.dtype == torch.float32
    assert (exact - half).abs().max() < (0.02 if dtype == torch.float16 else 0.1) * exact.abs().max()
    assert not torch.equal(exact, half)


@pytest.mark.parametrize("shape", [(2, 3, 8, 16), (2, 1, 16, 16), (2, 3, 32, 32), (3, 16, 16)])
def test_images_of_the_wrong_size(make_d, shape):
    with pytest.raises(ValueError, match=r"images must be \[N, 3, 16, 16\]"):
        make_d()(torch.zeros(shape).double())


@pytest.mark.parametrize("labels", ["projection", "dot"])
def test_a_conditional_network_needs_labels(make_d, randn, labels):
    with pytest.raises(ValueError, match=r"needs c of shape \[N, 3\]"):
        make_d(c_dim=3, labels=labels)(randn(2, 3, 16, 16))
