"""p follows the discriminator's outputs: step, sign, limits, state."""

import pytest
import torch

from stylegan_cli.training.augment import AdaptiveP, adaptive


def logits(positive, negative):
    return torch.cat([torch.full((positive, 1), 0.3), torch.full((negative, 1), -7.0)])


@pytest.mark.parametrize(("positive", "r", "sign"), [(10, 1.0, 1), (9, 0.8, 1), (7, 0.4, -1), (0, -1.0, -1)])
def test_update_of_p(positive, r, sign):
    control = AdaptiveP(0.5, target=0.6, kimg=100, interval=2)
    for _ in range(2):
        assert control.p == 0.5
        control.observe(logits(positive, 10 - positive))
        control.update(batch=10)
    assert control.r_t.item() == pytest.approx(r)
    assert control.p.item() == pytest.approx(0.5 + sign * 10 * 2 / 100_000)


def test_r_is_the_mean_over_the_images_since_the_last_update():
    control = AdaptiveP(0.5, target=0.0, interval=2)
    for steps in ([(4, 0), (0, 8)], [(3, 1), (3, 1)]):
        for step in steps:
            control.observe(logits(*step))
            control.update(batch=4)
        r = sum(a - b for a, b in steps) / sum(a + b for a, b in steps)
        assert control.r_t.item() == pytest.approx(r)


@pytest.mark.parametrize(("start", "positive"), [(0.0, 0), (1.0, 4)])
def test_p_stays_a_probability(start, positive):
    control = AdaptiveP(start, target=0.6, kimg=0.01, interval=1)
    for _ in range(3):
        control.observe(logits(positive, 4 - positive))
        control.update(batch=4)
    assert control.p == start


def test_p_goes_from_0_to_1_in_kimg_thousand_images():
    control, steps = AdaptiveP(0.0, target=0.6, kimg=6.4), 0
    while control.p < 0.9999:
        control.observe(logits(64, 0))
        control.update(batch=64)
        steps += 1
    assert steps == 100


def test_r_is_measured_for_a_fixed_p():
    control = AdaptiveP(0.2, target=None, interval=1)
    control.observe(logits(4, 0))
    control.update(batch=4)
    assert control.p.item() == pytest.approx(0.2) and control.r_t == 1


def test_non_finite_outputs_are_ignored():
    control = AdaptiveP(0.5, target=0.6, interval=1)
    control.observe(torch.tensor([[1.0], [float("nan")], [float("inf")], [-float("inf")], [-1.0], [2.0], [0.0]]))
    control.update(batch=7)
    assert control.r_t.item() == pytest.approx(1 / 4)  # 1, -1, 1 and a 0
    before = control.p.item()
    control.observe(torch.full((3, 1), float("nan")))
    control.update(batch=3)
    assert control.p == before and control.r_t.item() == pytest.approx(1 / 4)


def test_sums_are_over_all_ranks(monkeypatch):
    """As if another rank had as many images, all with negative outputs."""
    calls = []

    def two_ranks(sums):
        calls.append(sums.clone())
        return sums.add_(torch.tensor([-1.0, 1.0]) * sums[1])

    monkeypatch.setattr(adaptive, "sum_over_ranks", two_ranks)
    control = AdaptiveP(0.5, target=0.6, interval=3)
    for step in range(1, 4):
        control.observe(logits(3, 1))
        control.update(batch=8)
        state = control.state_dict()["sums"].tolist()  # of both ranks, so that either can load it
        assert state == ([-2 * step, 8 * step] if step < 3 else [0, 0])
    assert [c.tolist() for c in calls] == [[2, 4]] * 3
    assert control.r_t.item() == pytest.approx(-1 / 4)


def test_a_restored_controller_continues_bit_exactly():
    """From any step, in the same tensor objects."""

    def run(control, steps):
        for step in steps:
            control.observe(logits(step % 5, 2))
            control.update(batch=8)

    uninterrupted, first, second = (AdaptiveP(0.5, target=0.1, kimg=1) for _ in range(3))
    run(uninterrupted, range(11))
    run(first, range(6))
    tensors = second.p, second.r_t
    second.load_state_dict({k: v.clone() if torch.is_tensor(v) else v for k, v in first.state_dict().items()})
    run(first, range(9))  # the state was a copy
    second.observe(logits(9, 9))  # of an unfinished step
    second.load_state_dict(second.state_dict())
    run(second, range(6, 11))
    assert second.p is tensors[0] and second.r_t is tensors[1]
    assert second.p == uninterrupted.p != 0.5 and second.r_t == uninterrupted.r_t
    a, b = uninterrupted.state_dict(), second.state_dict()
    assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def test_tensors_are_updated_in_place_without_synchronization():
    """Tensors on the device 'meta' have no values: reading one fails."""
    control = AdaptiveP(0.5, target=0.6, interval=1)
    addresses = [t.data_ptr() for t in (control.p, control.r_t)]
    control.observe(logits(1, 2))
    control.update(batch=3)
    assert addresses == [t.data_ptr() for t in (control.p, control.r_t)]
    control = AdaptiveP(0.5, target=0.6, interval=1, device="meta")
    control.observe(logits(1, 2).to("meta"))
    control.update(batch=3)
