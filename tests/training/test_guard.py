"""Steps that are skipped on the device, the optimizer, and the collapse alarm."""

import copy

import pytest
import torch

from stylegan_cli.training.collapse import FRACTION, CollapseAlarm, advice, mean_pairwise_distance
from stylegan_cli.training.guard import Guard, finite_or
from stylegan_cli.training.optimizer import FusedAdam


def weights(dtype=torch.float32):
    torch.manual_seed(0)
    return [
        torch.nn.Parameter(torch.randn(4, 3, 5, 5, dtype=dtype).to(memory_format=torch.channels_last)),
        torch.nn.Parameter(torch.randn(7, dtype=dtype)),
    ]


def set_gradients(parameters, step):
    torch.manual_seed(step)
    for p in parameters:
        p.grad = torch.randn_like(p)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_gradient_changes_nothing(bad):
    parameters, guard = weights(), Guard(["D"])
    optimizer = FusedAdam(parameters, lr=0.1)
    for step in range(3):
        set_gradients(parameters, step)
        if step == 1:
            parameters[1].grad[3] = bad
        before = [p.detach().clone() for p in parameters], copy.deepcopy(optimizer.state_dict()["state"])
        result = guard.check("D", [p.grad for p in parameters])
        optimizer.step_unless(result)
        guard.tick()
        same = [torch.equal(a, b) for a, b in zip(before[0], parameters)]
        assert same == [step == 1] * 2 and result.item() == (step == 1)
        if step == 1:
            after = optimizer.state_dict()["state"]
            assert all(torch.equal(before[1][i][k], after[i][k]) for i in after for k in after[i])
    assert (guard.skipped.item(), guard.streak()) == (1, 0)


def test_steps_in_a_row_are_counted_by_phase():
    """R1 fails every time that it runs, the main phase in between never does: that is a streak."""
    guard = Guard(["D", "R1"])
    good, bad = [torch.ones(3)], [torch.full([3], float("nan"))]
    for step in range(6):
        guard.check("D", bad if step == 0 else good)
        if step % 2 == 0:
            guard.check("R1", bad)
        guard.tick()
    assert (guard.skipped.item(), guard.streak()) == (3, 3)
    other = Guard(["D", "R1"])
    other.load_state_dict(copy.deepcopy(guard.state_dict()))
    other.check("R1", good)
    assert (other.skipped.item(), other.streak(), guard.streak()) == (3, 0, 3)
    guard.reset_streaks(2)
    assert (guard.streak(), guard.rollbacks) == (0, 2)


def test_nothing_is_trained_on_hold():
    guard = Guard(["D"])
    guard.hold.fill_(1)
    assert guard.check("D", [torch.ones(3)]).item() == 1


def test_execution_options_are_not_loaded_from_a_state():
    """The state of a GPU run has capturable set, that of a CPU run does not."""
    optimizer = FusedAdam(weights(), lr=0.1)
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0] |= {"capturable": True, "fused": False, "lr": 0.5}
    optimizer.load_state_dict(state)
    (group,) = optimizer.param_groups
    assert (group["capturable"], group["fused"], group["lr"]) == (False, True, 0.5)


def test_finite_or_keeps_the_old_value():
    assert finite_or(torch.tensor(float("nan")), torch.tensor(2.0)).item() == 2
    new = torch.tensor([1.0, float("inf")])
    assert finite_or(new, torch.zeros(2)).tolist() == [0, 0] and finite_or(new[:1], torch.zeros(1)).tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fused_adam_equals_adam(dtype):
    actual, expected = weights(dtype), weights(dtype)
    a = FusedAdam(actual, lr=0.1, betas=(0.0, 0.99))
    b = torch.optim.Adam(expected, lr=0.1, betas=(0.0, 0.99), foreach=False)
    for step in range(5):
        for parameters in (actual, expected):
            set_gradients(parameters, step)
        a.step_unless(torch.zeros([]))
        b.step()
    assert all(torch.allclose(p, q, rtol=1e-5, atol=1e-6) for p, q in zip(actual, expected))


def test_moments_keep_the_memory_format_of_their_parameters():
    """A state from a file is contiguous, which the fused kernel cannot use for channels-last weights."""
    expected, actual = weights(), weights()
    uninterrupted, resumed = FusedAdam(expected, lr=0.1), FusedAdam(actual, lr=0.1)
    for step in range(4):
        if step == 2:
            state = copy.deepcopy(resumed.state_dict())
            for slots in state["state"].values():
                for name in slots:
                    slots[name] = slots[name].contiguous()
            resumed = FusedAdam(actual, lr=0.1)
            resumed.load_state_dict(state)
        for parameters, optimizer in ((expected, uninterrupted), (actual, resumed)):
            set_gradients(parameters, step)
            optimizer.step_unless(torch.zeros([]))
    assert all(torch.equal(p, q) for p, q in zip(expected, actual))


# ------------------------------------------------------------------------------------------ collapse


def noise(n, seed=0):
    return torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_mean_pairwise_distance():
    black, white = torch.zeros(1, 1, 64, 64, dtype=torch.uint8), torch.full((1, 1, 64, 64), 255, dtype=torch.uint8)
    assert mean_pairwise_distance(torch.cat([black, white])) == pytest.approx(255)
    assert mean_pairwise_distance(torch.cat([black, black, white])) == pytest.approx(255 * 2 / 3)
    assert mean_pairwise_distance(black.repeat(5, 1, 1, 1)) == 0 == mean_pairwise_distance(black)


def test_the_alarm_is_armed_by_diverse_images():
    alarm = CollapseAlarm(noise(16), advice("lsgan", True))
    same = noise(1).repeat(16, 1, 1, 1)
    assert alarm.check(same) == (0, None)
    ratio, warning = alarm.check(noise(16, 1))
    assert ratio == pytest.approx(1, abs=0.05) and warning is None
    ratio, warning = alarm.check(same)
    assert ratio < FRACTION and "collapsing" in warning and "--mode-regularize" in warning
    other = CollapseAlarm(noise(16))
    other.load_state_dict(alarm.state_dict())
    assert other.check(same)[1] is not None
    assert "--gamma" in advice("logistic", True) and "--gamma" in advice("lsgan", False) and not advice("wgan", False)
