"""The remaining time is within 20 % of the truth after two minutes, on a simulated clock."""

import pytest

from stylegan_cli.training.pace import Pace

BATCH = 16
TWO_MINUTES, HOURS = 120.0, 2 * 3600.0


def plain(base):
    return lambda step, now: base


def lazy(base):
    """Every 4th step takes twice as long, every 16th four times."""
    return lambda step, now: base * (4 if step % 16 == 0 else 2 if step % 4 == 0 else 1)


def compiling(steps):
    return lambda step, now: 45.0 if step == 0 else steps(step, now)


def slowing(steps):
    return lambda step, now: steps(step, now) * (1.5 if now > 600 else 1)


def simulate(steps, total, snap=None, first=0.0, shown=0, pause=30.0):
    """Return [(time, images, seconds of the following pause)] of every step, and the end time."""
    now, events, snap = first, [], snap or total + 1
    for step in range(-(-(total - shown) // BATCH)):
        now += steps(step, now)
        before, shown = shown, shown + BATCH
        stop = pause if shown // snap > before // snap or (shown >= total and snap <= total) else 0.0
        events.append((now, shown, stop))
        now += stop
    return events, now


def check(steps, seconds, mean, longest, snap=None, first=0.0, shown=0, since=TWO_MINUTES, tolerance=0.2):
    """Compare `remaining` after every step and pause. An error of one step of `longest` seconds is allowed."""
    total = shown + int(seconds / mean) * BATCH
    events, end = simulate(steps, total, snap, first, shown)
    pace, num_compared = Pace(total, snap or total + 1, 0.0, shown), 0
    if first:
        pace.pause(first)
    for now, shown, stop in events:
        pace.step(now, shown)
        for passed in (0.0, stop) if stop else (0.0,):
            if passed:
                pace.pause(passed)
            truth, estimate = end - now - passed, pace.remaining(shown)
            if now >= since:
                num_compared += 1
                assert abs(estimate - truth) <= tolerance * truth + longest, (
                    f"at {now:.0f} s: {estimate:.0f} s instead of {truth:.0f} s"
                )
    assert num_compared > 5
    assert pace.remaining(total) == pytest.approx(0, abs=1e-6)


def every_200_seconds(mean):
    return max(int(200 / mean), 1) * BATCH


@pytest.mark.parametrize("base", [0.05, 0.2, 1.0, 4.0])
def test_compiling_kernels_and_lazy_regularizers(base):
    check(compiling(lazy(base)), HOURS, 1.375 * base, 4 * base, tolerance=0.1)


@pytest.mark.parametrize("base", [0.05, 0.2, 1.0, 4.0])
@pytest.mark.parametrize("first", [0.0, 20.0, 30.0])
def test_snapshots(base, first):
    """Before the first one, only the time of the initial images is known."""
    snap = every_200_seconds(1.375 * base)
    check(compiling(lazy(base)), HOURS, 1.375 * base, 4 * base, snap, first)


@pytest.mark.parametrize("base", [0.05, 0.2, 1.0, 4.0, 6.0])
def test_a_run_that_slows_down_permanently(base):
    snap = every_200_seconds(1.375 * base)
    check(slowing(compiling(lazy(base))), HOURS, 1.375 * base, 6 * base, snap, since=600 + TWO_MINUTES)


@pytest.mark.parametrize("base", [0.05, 1.0])
def test_a_resumed_run(base):
    snap = every_200_seconds(1.375 * base)
    check(compiling(lazy(base)), HOURS, 1.375 * base, 4 * base, snap, 25.0, shown=10 * snap + 7 * BATCH, tolerance=0.1)


def test_very_slow_steps():
    check(plain(60.0), HOURS, 60.0, 0, since=120, tolerance=0.01)
    check(compiling(plain(60.0)), HOURS, 60.0, 0, since=2 * 60, tolerance=0.01)
    check(plain(60.0), HOURS, 60.0, 0, snap=4 * BATCH, first=30.0, since=120, tolerance=0.01)


def test_very_fast_steps():
    check(compiling(lazy(0.001)), 600, 0.001375, 0.004, tolerance=0.01)


def test_several_slow_steps_at_the_start():
    """CUDA graphs, for example, are captured after a few eager steps."""
    check(lambda step, now: 30.0 if step < 4 else 0.1, 1200, 0.1, 0.1, since=TWO_MINUTES + 5, tolerance=0.05)


def test_a_suspended_machine():
    pace = Pace(10_000 * BATCH, 10**9, 0.0)
    times = [float(i) + (36000 if i > 500 else 0) for i in range(1, 700)]
    for i, now in enumerate(times):
        pace.step(now, (i + 1) * BATCH)
    assert pace.remaining(699 * BATCH) == pytest.approx(10_000 - 699, rel=0.05)
    assert pace.sec_per_kimg == pytest.approx(1000 / BATCH, rel=0.05)


def test_a_clock_with_coarse_resolution():
    pace = Pace(10**6 * BATCH, 10**9, 0.0)
    for i in range(1, 100_001):
        pace.step(i // 15 * 0.015, i * BATCH)
    assert pace.remaining(100_000 * BATCH) == pytest.approx(900, rel=0.02)


def test_there_is_no_estimate_before_the_second_step():
    pace = Pace(100 * BATCH, 10**9, 5.0)
    assert pace.remaining(0) is None and pace.sec_per_kimg is None
    pace.step(50.0, BATCH)
    assert pace.remaining(BATCH) is None and pace.sec_per_kimg is None
    pace.step(51.0, 2 * BATCH)
    assert pace.remaining(2 * BATCH) == pytest.approx(98) and pace.sec_per_kimg == pytest.approx(1000 / BATCH)
    assert pace.remaining(200 * BATCH) == 0


def test_pauses_left():
    pace = Pace(total=10, snap=3, now=0.0)
    pace.pause(1.0)
    for i in (1, 2):
        pace.step(float(i), i)
    left = [pace.remaining(shown) for shown in (2, 3)]  # before the pause that is due at 3, all four are left
    assert left == pytest.approx([8 + 4, 7 + 4])
    pace.step(3.0, 3)
    pace.pause(0.5)
    pace.pause(1.5)  # snapshot and metrics: one pause of 2 seconds
    assert pace.remaining(3) == pytest.approx(7 + 3 * 2)


def test_a_snapshot_after_every_step():
    pace = Pace(total=10 * BATCH, snap=1, now=0.0)
    now = 0.0
    for i in range(1, 5):
        pace.step(now := now + 1, i * BATCH)
        pace.pause(2.0)
        now += 2
    assert pace.remaining(4 * BATCH) == pytest.approx(6 * 3)


def test_a_rollback():
    pace, now, shown = Pace(1000 * BATCH, 10 * BATCH, 0.0), 0.0, 0
    for i in range(1, 60):
        shown = shown + BATCH if i != 35 else 20 * BATCH
        pace.step(now := now + 1, shown)
        if shown % (10 * BATCH) == 0 and i != 35:
            pace.pause(5.0)
            now += 5
        left = 1000 - shown / BATCH
        if i > 20:
            assert pace.remaining(shown) == pytest.approx(left * 1.5, rel=0.02)


def test_memory_is_constant():
    pace = Pace(10**6, 1000, 0.0)
    for i in range(1, 1000):
        pace.step(float(i), i)
        pace.pause(0.1)
    assert all(isinstance(value, (int, float)) for value in vars(pace).values())
