"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from stylegan_cli.training.ema import EMA


class Net(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.full([3], float(value), dtype=torch.float64))
        self.register_buffer("mean", torch.full([2], float(value), dtype=torch.float64))


def test_beta():
    ema = EMA(Net(0), half_life=1000)
    assert ema.beta(shown=0, batch=10) == pytest.approx(0.5**0.01)
    assert ema.beta(shown=10**9, batch=1000) == pytest.approx(0.5)


def test_half_of_the_old_weight_remains_after_the_half_life():
    ema = EMA(Net(1), half_life=640)
    for step in range(20):
        ema.update(Net(0), shown=32 * step, batch=32)
    assert ema.network.weight.tolist() == pytest.approx([0.5] * 3)


def test_rampup():
    ema = EMA(Net(1), half_life=1000, rampup=0.05)
    assert ema.beta(shown=4000, batch=100) == pytest.approx(0.5 ** (100 / 200))
    assert ema.beta(shown=20_000, batch=100) == ema.beta(shown=10**9, batch=100) == pytest.approx(0.5**0.1)
    assert ema.beta(shown=0, batch=100) == 0
    ema.update(Net(5), shown=0, batch=100)
    assert ema.network.weight.tolist() == [5] * 3


def test_buffers_are_copied():
    ema = EMA(Net(1), half_life=1e9)
    ema.update(Net(7), shown=0, batch=1)
    assert ema.network.mean.tolist() == [7, 7]
    assert ema.network.weight.tolist() == pytest.approx([1] * 3)


def test_the_average_is_a_copy_without_gradients():
    net = Net(1)
    ema = EMA(net, half_life=10)
    net.weight.data.fill_(9)
    assert ema.network.weight.tolist() == [1] * 3
    assert not ema.network.weight.requires_grad and not ema.network.training and net.weight.requires_grad
