"""The 2015 Inception network: its features, and the three kinds of file that it loads."""

import hashlib

import pytest
import torch
from torch import nn

from stylegan_cli.detectors import inception, load_detector
from stylegan_cli.errors import SganError

# For `make_images(2, 40, 56)` and `random_weights`. The features agree with torch-fidelity's.
POOL = [
    [0.09797, 4.49141, 0.0, 0.0, 3.93748, 0.04127, 2.25874, 0.93342],
    [0.07362, 4.34916, 0.0, 0.01074, 4.32271, 0.10045, 2.38063, 0.89637],
]
LOGITS = [
    [-1.15113, 6.78342, 5.59541, -5.25421, -6.55121, 1.99461, -2.67966, -4.47312],
    [-1.41518, 7.14802, 5.90393, -5.88701, -7.12275, 1.90284, -2.98691, -4.6197],
]


@pytest.fixture(scope="module")
def tensors(random_weights):
    with torch.device("meta"):
        network = inception.Inception()
    return random_weights(network)


@pytest.fixture(scope="module")
def weights(tensors, tmp_path_factory):
    """A file in the format of pytorch-fid and torch-fidelity."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    counters = {n.replace("running_var", "num_batches_tracked"): torch.tensor(0) for n in tensors if "_var" in n}
    torch.save(tensors | counters, path)
    return path


@pytest.fixture(scope="module")
def detector(weights):
    return load_detector("inception-2015", "cpu", weights)


def test_name_and_fingerprint(detector, weights):
    assert detector.name == "inception-2015" and not detector.is_standard
    assert detector.fingerprint == hashlib.sha256(weights.read_bytes()).hexdigest()[:8]


def test_recorded_features(detector, make_images):
    features = detector(make_images(2, 40, 56))
    assert {name: (list(x.shape), x.dtype) for name, x in features.items()} == {
        "pool": ([2, 2048], torch.float32),
        "logits": ([2, 1008], torch.float32),
    }
    torch.testing.assert_close(features["pool"][:, ::256], torch.tensor(POOL), rtol=0, atol=1e-4)
    torch.testing.assert_close(features["logits"][:, ::126], torch.tensor(LOGITS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(32, 32), (299, 299), (150, 400)])
def test_agrees_with_torch_fidelity(detector, weights, make_images, oracle, shape):
    module = oracle("torch_fidelity.feature_extractor_inceptionv3")
    names = ["2048", "logits_unbiased"]
    original = module.FeatureExtractorInceptionV3("x", names, feature_extractor_weights_path=weights)
    images = make_images(2, *shape)
    features = detector(images)
    pool, logits = original(images)
    assert pool.std(0).mean() > 0.02  # features differ between images
    torch.testing.assert_close(features["pool"], pool, rtol=0, atol=1e-4)
    torch.testing.assert_close(features["logits"], logits, rtol=0, atol=1e-4)


def test_images_do_not_affect_each_other(detector, make_images):
    images = make_images(3, 40, 56)
    together = detector(images)
    torch.testing.assert_close(detector(images[1:2])["pool"], together["pool"][1:2], rtol=0, atol=1e-5)


def test_weights_are_frozen_and_other_images_are_rejected(detector, make_images):
    assert not any(p.requires_grad for p in detector.network.parameters()) and not detector.network.training
    for invalid in (make_images(1, 8, 8).float(), make_images(1, 8, 8)[:, :1], make_images(1, 8, 8)[0]):
        with pytest.raises(SganError, match=r"takes images \[N, 3, H, W\] in uint8, not"):
            detector(invalid)


class Branch(nn.Module):
    """A module of a TorchScript file."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def save_torchscript(tensors, path):
    root = Branch()
    for name, tensor in tensors.items():
        *parents, last = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, Branch())
            module = getattr(module, parent)
        module.register_buffer(last, tensor)
    torch.jit.save(torch.jit.script(root), path)


def nvidia_names(tensors):
    """Rename as in NVIDIA's inception-2015-12-05.pt, which omits the scale of the batch norms, because it is one."""
    named = {"output.weight": tensors["fc.weight"], "output.bias": tensors["fc.bias"]}
    for name, tensor in tensors.items():
        for part, field in inception._FIELDS.items():
            if name.endswith(f".{part}"):
                named[f"layers.{inception._nvidia_name(name.removesuffix(f'.{part}'))}.{field}"] = tensor
    return named


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_reads_nvidia_file(tensors, make_images, tmp_path):
    named = nvidia_names(tensors)
    save_torchscript(named, tmp_path / "nvidia.pt")
    ones = {n: torch.ones_like(t) if n.endswith("bn.weight") else t for n, t in tensors.items()}
    torch.save(ones, tmp_path / "ones.pth")
    a, b = (load_detector("inception-2015", "cpu", tmp_path / name) for name in ("nvidia.pt", "ones.pth"))
    images = make_images(1, 32, 32)
    assert torch.equal(a(images)["logits"], b(images)["logits"])


def test_nvidia_names(tensors):
    """Names known from printouts of the file's code, for every kind of branch."""
    expected = {
        "Conv2d_1a_3x3": "conv",
        "Conv2d_4a_3x3": "conv_4",
        "Mixed_5b.branch1x1": "mixed.conv",
        "Mixed_5b.branch5x5_2": "mixed.tower.conv_1",
        "Mixed_5d.branch3x3dbl_3": "mixed_2.tower_1.conv_2",
        "Mixed_5d.branch_pool": "mixed_2.tower_2.conv",
        "Mixed_6a.branch3x3": "mixed_3.conv",
        "Mixed_6a.branch3x3dbl_1": "mixed_3.tower.conv",
        "Mixed_6b.branch7x7_3": "mixed_4.tower.conv_2",
        "Mixed_6e.branch7x7dbl_5": "mixed_7.tower_1.conv_4",
        "Mixed_7a.branch3x3_2": "mixed_8.tower.conv_1",
        "Mixed_7a.branch7x7x3_4": "mixed_8.tower_1.conv_3",
        "Mixed_7b.branch1x1": "mixed_9.conv",
        "Mixed_7b.branch3x3_1": "mixed_9.tower_conv",
        "Mixed_7b.branch3x3_2a": "mixed_9.tower_mixed_conv",
        "Mixed_7c.branch3x3_2b": "mixed_10.tower_mixed_conv_1",
        "Mixed_7c.branch3x3dbl_2": "mixed_10.tower_1_conv_1",
        "Mixed_7c.branch3x3dbl_3a": "mixed_10.tower_1_mixed_conv",
        "Mixed_7c.branch3x3dbl_3b": "mixed_10.tower_1_mixed_conv_1",
        "Mixed_7c.branch_pool": "mixed_10.tower_2_conv",
    }
    assert {name: inception._nvidia_name(name) for name in expected} == expected
    assert len(nvidia_names(tensors)) == 94 * 4 + 2


@pytest.mark.parametrize("change", ["another network", "another shape", "not finite", "html"])
def test_invalid_files_are_rejected(tensors, tmp_path, change):
    path, expected = tmp_path / "w.pth", "not have the weights of Inception: fc.weight is missing, expected"
    broken = {n: t for n, t in tensors.items() if n != "fc.weight"}
    if change == "another shape":  # torchvision's own Inception has 1000 classes
        broken["fc.weight"] = torch.zeros(1000, 2048)
        expected = r"fc.weight has shape \[1000, 2048\], expected \[1008, 2048\]"
    elif change == "not finite":
        broken["fc.weight"], expected = tensors["fc.weight"] / 0, "not finite, for example in fc.weight"
    torch.save(broken, path)
    if change == "html":
        path.write_text("<html>")
        expected = "cannot be read as a file of weights .it is neither a zip nor a pickle"
    with pytest.raises(SganError, match=expected):
        load_detector("inception-2015", "cpu", path)
