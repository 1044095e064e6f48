"""Statistics do not depend on how the stream is split into batches. (For ranks: test_ranks.py.)"""

import numpy as np
import pytest
import torch

from stylegan_cli import distributed
from stylegan_cli.metrics import statistics
from stylegan_cli.metrics.statistics import Features, Moments


def features(n, d=12, offset=0.0):
    return torch.from_numpy(np.random.RandomState(0).randn(n, d).cumsum(1) + offset).float()


def streamed(kind, x, batch, order=None):
    result, index = kind("pool", len(x)), torch.arange(len(x))
    x = x if order is None else x[order]
    for i in range(0, len(x), batch):
        result.add(index[i : i + batch], {"pool": x[i : i + batch]})
    return result.result()


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_mean_and_covariance_do_not_depend_on_batches_and_order(batch, offset):
    x = features(200, offset=offset)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    expected = {"mean": x.double().numpy().mean(0), "cov": np.cov(x.double().numpy(), rowvar=False)}
    for result in (streamed(Moments, x, batch), streamed(Moments, x, batch, order)):
        assert result["count"] == 200
        for name in ("mean", "cov"):
            error = np.abs(result[name].numpy() - expected[name]).max() / np.abs(expected[name]).max()
            assert error < 1e-13, name
    assert torch.equal(result["cov"], result["cov"].T)


def test_only_the_first_images_are_used():
    x = features(50)
    result = Moments("pool", 30)
    for i in range(0, 50, 8):
        result.add(torch.arange(i, min(i + 8, 50)), {"pool": x[i : i + 8]})
    assert result.result()["count"] == 30
    assert torch.allclose(result.result()["mean"], x[:30].double().mean(0))


def test_features_keep_order_and_precision():
    x = features(50)
    result = streamed(Features, x, 8)["features"]
    assert torch.equal(result, x) and result.dtype == torch.float32


@pytest.mark.parametrize("world", [2, 3, 7])
@pytest.mark.parametrize("count", [7, 20, 29])
def test_rows_of_all_ranks_are_gathered_in_order(monkeypatch, world, count):
    """Ranks are simulated one after the other, with pieces of three rows."""
    x = features(count)
    monkeypatch.setattr(statistics, "_ROWS", 3)
    monkeypatch.setattr(distributed, "world_size", lambda: world)

    def sent_pieces(rank):  # the pieces that a rank sends, in order
        pieces = []
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "gather_over_ranks", lambda t: pieces.append(t) or [t] * world)
        assert rank == 0 or len(statistics.gather_rows(x[rank::world], count)) == 0
        if rank == 0:
            statistics.gather_rows(x[rank::world], count)
        return pieces

    rounds = iter(zip(*[sent_pieces(r) for r in range(world)], strict=True))
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    monkeypatch.setattr(distributed, "gather_over_ranks", lambda t: list(next(rounds)))
    assert torch.equal(statistics.gather_rows(x[0::world], count), x)
