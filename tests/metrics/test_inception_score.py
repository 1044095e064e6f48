"""The streamed Inception score, compared with its definition."""

import numpy as np
import pytest
import torch

from stylegan_cli.metrics.inception_score import inception_score
from stylegan_cli.metrics.statistics import Splits


def streamed(logits, batch=7):
    splits = Splits("logits", len(logits))
    for i in range(0, len(logits), batch):
        splits.add(torch.arange(len(logits))[i : i + batch], {"logits": logits[i : i + batch]})
    return inception_score(**splits.result())


def by_definition(logits, splits=10):
    p = torch.softmax(logits.double(), 1).numpy()
    n, scores = len(p), []
    for i in range(splits):
        part = p[i * n // splits : (i + 1) * n // splits]
        scores.append(np.exp((part * (np.log(part) - np.log(part.mean(0)))).sum(1).mean()))
    return np.mean(scores), np.std(scores)


@pytest.mark.parametrize("n", [10, 37, 1000])
def test_equals_the_definition(n):
    logits = torch.randn(n, 1008, generator=torch.Generator().manual_seed(0)) * 3
    assert streamed(logits) == pytest.approx(by_definition(logits), rel=1e-9, abs=1e-12)


def test_batch_size_does_not_matter():
    logits = torch.randn(100, 50, generator=torch.Generator().manual_seed(0))
    assert streamed(logits, 1) == pytest.approx(streamed(logits, 64), rel=1e-12)


def test_known_scores():
    """The number of classes for confident and varied predictions, 1 for a single class; logits may be large."""
    classes = torch.arange(200) % 20
    confident = torch.nn.functional.one_hot(classes, 20) * 1000.0
    assert streamed(confident) == pytest.approx((20, 0))
    assert streamed(torch.zeros(200, 20)) == pytest.approx((1, 0))
