"""Optimizers that equal PyTorch's, without importing its compiler."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import stylegan_cli
from stylegan_cli import optimizers

OPTIONS = {
    "Adam": {"lr": 0.1, "fused": True},
    "AdamW": {"lr": 0.1, "weight_decay": 0.1},
    "LBFGS": {"line_search_fn": "strong_wolfe"},
}


def optimize(cls, steps, options, state=None):
    """Minimize a function of two groups of parameters. Returns the parameters and the optimizer's state."""
    a, b = torch.linspace(-1, 1, 12).requires_grad_(), torch.ones(3, 4, requires_grad=True)
    optimizer = cls([a, b], **options)
    if state is not None:
        for parameter, value in zip((a, b), state[0]):
            parameter.data.copy_(value)
        optimizer.load_state_dict(copy.deepcopy(state[1]))

    def closure():
        optimizer.zero_grad()
        loss = ((a.reshape(3, 4) * b - 2) ** 2).sum() + (a**4).sum()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return (a.detach(), b.detach()), optimizer.state_dict()


@pytest.mark.parametrize("name", OPTIONS)
def test_they_equal_those_of_pytorch(name):
    ours, original = getattr(optimizers, name), getattr(torch.optim, name)
    expected = optimize(original, 6, OPTIONS[name])
    found = optimize(ours, 6, OPTIONS[name])
    resumed = optimize(ours, 3, OPTIONS[name], optimize(original, 3, OPTIONS[name]))
    for values, state in (found, resumed):
        assert all(torch.equal(x, y) for x, y in zip(values, expected[0]))
        assert state["param_groups"] == expected[1]["param_groups"]
        assert state["state"].keys() == expected[1]["state"].keys()
        for i, slots in expected[1]["state"].items():
            assert slots.keys() == state["state"][i].keys()
            assert all(torch.equal(x, state["state"][i][k]) for k, x in slots.items() if torch.is_tensor(x))
    assert not torch.equal(found[0][0], optimize(ours, 5, OPTIONS[name])[0][0])


def scheduled(cls):
    x, rates = torch.ones(2, requires_grad=True), []
    optimizer = cls([x], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    for _ in range(5):
        x.sum().backward()
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return x.detach(), rates


def test_schedules_and_copies():
    (x, rates), (expected, original) = (scheduled(cls) for cls in (optimizers.AdamW, torch.optim.AdamW))
    assert torch.equal(x, expected) and rates == original and len(set(rates)) > 3
    copied = copy.deepcopy(optimizers.Adam([x.requires_grad_()], lr=0.3))
    assert copied.param_groups[0]["lr"] == 0.3 and torch.equal(copied.param_groups[0]["params"][0], x)


def test_hooks_are_called_once():
    x, calls = torch.ones(1, requires_grad=True), []
    for cls in (optimizers.Adam, torch.optim.Adam, optimizers.Adam):
        optimizer = cls([x])
        optimizer.register_step_post_hook(lambda *_: calls.append(1))
        x.sum().backward()
        optimizer.step()
    assert len(calls) == 3


def test_a_second_group_of_parameters():
    a, b = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = optimizers.Adam([a], lr=0.1)
    optimizer.add_param_group({"params": [b], "lr": 0.2})
    (a.sum() + b.sum()).backward()
    optimizer.step()
    assert torch.allclose(a, torch.tensor(0.9)) and torch.allclose(b, torch.tensor(0.8))


CODE = """
import sys, torch
from stylegan_cli import optimizers
from stylegan_cli.training.optimizer import lazy_adam, GuardedAdamW

x = torch.ones(2, requires_grad=True)
for optimizer in (lazy_adam([x], 4, 0.1, (0.0, 0.9)), GuardedAdamW([x]), optimizers.LBFGS([x])):
    def closure():
        optimizer.zero_grad()
        loss = (x ** 2).sum()
        loss.backward()
        return loss
    closure()
    optimizer.step(closure) if isinstance(optimizer, optimizers.LBFGS) else optimizer.step_unless(torch.zeros([]))
    optimizer.load_state_dict(optimizer.state_dict())
assert x.max() < 1
print(*(name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules))
"""


def test_no_other_part_makes_optimizers_of_pytorch():
    files = Path(stylegan_cli.__file__).parent.rglob("*.py")
    assert not [path.name for path in files if re.search(r"torch\.optim\.[A-Z]\w*\(", path.read_text(encoding="utf-8"))]


def test_the_compiler_is_not_imported():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")
