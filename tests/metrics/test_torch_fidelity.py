"""Values agree with torch-fidelity's functions of features, in float64, if it is installed."""

import importlib
import sys
from unittest.mock import MagicMock

import pytest
import torch

from stylegan_cli.metrics.frechet import frechet_distance
from stylegan_cli.metrics.inception_score import inception_score
from stylegan_cli.metrics.kernel import kernel_distance
from stylegan_cli.metrics.precision_recall import precision_recall
from stylegan_cli.metrics.statistics import Moments, Splits

TORCHVISION = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional")


@pytest.fixture(scope="module")
def load_module():
    """Import a module of torch-fidelity by name. The parts that need torchvision are not used."""
    pytest.importorskip("scipy")
    with pytest.MonkeyPatch.context() as patch:
        for name in TORCHVISION:
            patch.setitem(sys.modules, name, MagicMock())
        try:
            importlib.import_module("torch_fidelity")
        except ImportError as e:
            pytest.skip(f"torch-fidelity cannot be imported: {e}")
        yield lambda name: importlib.import_module(f"torch_fidelity.{name}")
        for name in [m for m in sys.modules if m.split(".")[0] == "torch_fidelity"]:
            del sys.modules[name]


def features(n, d=64, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=torch.Generator().manual_seed(9))
    return (mixed / d**0.5 * scale + 0.4).relu()


def test_fid(load_module):
    module, moments, statistics = load_module("metric_fid"), [], []
    for x in (features(700), features(500, seed=1, scale=1.2)):
        stream = Moments("pool", len(x))
        stream.add(torch.arange(len(x)), {"pool": x})
        moments.append(stream.result())
        statistics.append(module.fid_features_to_statistics(x.double()))
    actual = frechet_distance(*(m[name] for m in moments for name in ("mean", "cov")))
    expected = module.fid_statistics_to_metric(*statistics, False)
    assert actual == pytest.approx(expected["frechet_inception_distance"], rel=1e-9)


def test_kid(load_module):
    x, y = features(700), features(500, seed=1, scale=1.2)
    options = {"kid_subsets": 10, "kid_subset_size": 200, "rng_seed": 3, "verbose": False}
    expected = load_module("metric_kid").kid_features_to_metric(x.double(), y.double(), **options)
    actual, _ = kernel_distance(x, y, seed=3, subsets=10, size=200)
    assert actual == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)


@pytest.mark.parametrize("n", [1000, 37])
def test_inception_score(load_module, n):
    logits = torch.randn(n, 1008, generator=torch.Generator().manual_seed(0)) * 2
    splits = Splits("logits", n)
    splits.add(torch.arange(n), {"logits": logits})
    expected = load_module("metric_isc").isc_features_to_metric(logits, 10, False, 0)
    actual = inception_score(**splits.result())
    assert actual == pytest.approx((expected["inception_score_mean"], expected["inception_score_std"]), rel=1e-9)


def test_precision_and_recall(load_module):
    real, fake = features(400), features(300, seed=1, scale=1.2)
    options = {"prc_neighborhood": 3, "prc_batch_size": 100, "save_cpu_ram": False, "verbose": False}
    expected = load_module("metric_prc").prc_features_to_metric(fake.double(), real.double(), **options)
    actual = precision_recall(real, fake, block=128)
    assert min(actual) > 0 and max(actual) < 1
    assert actual == pytest.approx(
        (expected["precision"], expected["recall"]), abs=1e-7
    )  # torch-fidelity's mean is in float32
