"""The GPU path launches no more kernels and moves no more bytes than budgets.json allows."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.ops import bias_act, fir_filter, upsample2d

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported without it

import budgets
from launches import DEVICE, count


@pytest.mark.parametrize("quantity", budgets.quantities())
def test_budget(quantity):
    assert not budgets.excesses(quantity, budgets.figures(quantity), budgets.load_table())


def test_an_exceeded_budget_is_an_error():
    table = {"phase G": {"launches": {"budget": 100}, "megabytes": {"budget": 50.0}}}
    assert budgets.excesses("phase G", {"launches": 101, "megabytes": 49.0}, table) == []
    (message,) = budgets.excesses("phase G", {"launches": 103, "megabytes": 49.0}, table)
    assert message == "phase G: 103 launches, more than the budget of 100"


def counted(function):
    result = count(function)
    return result.launches, result.bytes


def zeros(*shape, dtype=torch.float32, layout=torch.contiguous_format):
    return torch.zeros(shape, dtype=dtype, device=DEVICE).to(memory_format=layout)


def test_views_and_allocations_are_free():
    x = zeros(4, 6)
    assert counted(lambda: (x.t().reshape(2, 12)[:, 1:], x.new_empty(5), x.expand(3, 4, 6), x.detach())) == (1, 192)


def test_bytes_of_elementwise_operations():
    x, column = zeros(4, 6), zeros(4, 1)
    assert counted(lambda: x * column) == (1, 96 + 16 + 96)
    assert counted(lambda: x + column.expand(4, 6)) == (1, 96 + 16 + 96)
    assert counted(lambda: x.mul_(2)) == (1, 192)
    assert counted(lambda: x.half()) == (1, 96 + 48)
    assert counted(lambda: torch.zeros(4, 6, device=DEVICE)) == (1, 96)
    assert counted(lambda: F.pad(x, (1, 1))) == (2, 128 + 2 * 96)


def test_our_kernels():
    x, b, f = zeros(2, 3, 8, 8, dtype=torch.float16), zeros(3), fir_filter((1, 3, 3, 1)).to(DEVICE)
    assert counted(lambda: bias_act(x, b, "lrelu")) == (1, 2 * 768 + 12)
    assert counted(lambda: upsample2d(x, f)) == (1, 5 * 768 + 16)


def test_convolutions_of_one_layout():
    x, w = zeros(2, 8, 4, 4, layout=torch.channels_last), zeros(6, 8, 3, 3)
    moved = 4 * (256 + 432 + 192)
    assert counted(lambda: F.conv2d(x, w, padding=1)) == (2, moved + 2 * 4 * 432)  # the weights are copied
    w = w.to(memory_format=torch.channels_last).requires_grad_(True)
    results = []
    count(lambda: results.append(F.conv2d(x, w, padding=1)))
    (y,) = results
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert counted(lambda: F.conv2d(x, w, padding=1)) == (1, moved)
    assert counted(lambda: torch.autograd.grad(y, w, y)) == (1, moved)  # dy, x -> dw


def test_numbers_that_the_host_waits_for():
    assert count(lambda: float(zeros(1))).synchronizations == 1
