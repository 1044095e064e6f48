"""Counter-based random numbers: statistics, and independence of batch, order and device."""

import math

import pytest
import torch

from stylegan_cli.sampling import counter

INDEX = torch.arange(1000)
GOLDEN_UNIFORM = [[881987, 4507639], [4324417, 7177147], [7968089, 13350361]]
GOLDEN_NORMAL = [-1.620425, -0.616822, -0.650281, -0.182, -0.06287, 0.826513]
GOLDEN_INTEGERS = [306, 794, 839, 503, 545, 470, 680, 263]


def test_golden_numbers():
    """The numbers must be the same in every version of the program."""
    index = torch.tensor([0, 1, 123456789012])
    u = counter.uniform(7, "test", index, (2,)).double()
    assert (u * 2**24).long().tolist() == GOLDEN_UNIFORM
    n = counter.normal(7, "test", index, (2,))
    assert n.flatten().tolist() == pytest.approx(GOLDEN_NORMAL, rel=1e-5)
    assert counter.integers(2**40, "another", torch.arange(8), 1000).tolist() == GOLDEN_INTEGERS


@pytest.mark.parametrize("sample", [counter.uniform, counter.normal])
def test_numbers_do_not_depend_on_batch_and_order(sample):
    whole = sample(3, "z", INDEX, (4, 5))
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample(3, "z", order, (4, 5)), whole[order])
    assert torch.equal(torch.cat([sample(3, "z", part, (4, 5)) for part in INDEX.split(7)]), whole)
    for rank in range(3):
        assert torch.equal(sample(3, "z", INDEX[rank::3], (4, 5)), whole[rank::3])


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("several, one", [(counter.uniforms, counter.uniform), (counter.normals, counter.normal)])
def test_numbers_of_several_purposes_are_those_of_each(several, one, count):
    shapes, index = {"a": (), "b": (0,), "c": (7, 5), "d": (3, 1, 2)}, INDEX[7 : 7 + count]
    results = several(3, shapes, index)
    for result, (purpose, shape) in zip(results, shapes.items(), strict=True):
        assert result.shape == (count, *shape) and torch.equal(result, one(3, purpose, index, shape))
    assert several(3, {}, index) == []


def test_the_global_generator_is_not_changed():
    state = torch.get_rng_state()
    counter.normal(0, "z", INDEX, (3,))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_index_is_not_changed():
    index = torch.arange(5)
    counter.uniform(0, "z", index, (3,))
    assert index.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (1, 8, 8)])
def test_shapes_and_types(shape):
    for sample in (counter.uniform, counter.normal):
        x = sample(0, "z", INDEX[:6], shape)
        assert x.shape == (6, *shape) and x.dtype == torch.float32
    assert counter.uniform(0, "z", INDEX[:0], shape).shape == (0, *shape)


def test_a_longer_row_starts_with_a_shorter_one():
    assert torch.equal(counter.uniform(0, "z", INDEX, (9,))[:, :4], counter.uniform(0, "z", INDEX, (4,)))


def test_uniform_is_inside_the_open_interval_and_normal_is_finite():
    u = counter.uniform(11, "many", torch.arange(1 << 12), (1 << 11,))  # 8 million
    assert u.min() > 0 and u.max() < 1
    n = counter.normal(11, "many", torch.arange(1 << 12), (1 << 11,))
    assert n.isfinite().all()
    assert 4.5 < n.max() < 6 and -6 < n.min() < -4.5


def test_the_ends_of_the_interval():
    """Test the smallest and the largest possible numbers."""
    smallest, largest = 0.5 * 2.0**-23, (2**23 - 0.5) * 2.0**-23
    ends = torch.tensor([smallest, largest])
    assert ends[0] > 0 and ends[1] < 1
    assert torch.special.erfinv(2 * ends - 1).isfinite().all()


@pytest.mark.parametrize("layout", [((1000000,), ()), ((1000,), (1000,)), ((1,), (1000000,))], ids=str)
def test_moments(layout):
    (n,), shape = layout
    u = counter.uniform(5, "moments", torch.arange(n), shape).double().flatten()
    for k in range(1, 5):  # the standard error of the k-th moment is below 0.0004
        assert u.pow(k).mean().item() == pytest.approx(1 / (k + 1), abs=0.0015)
    x = counter.normal(5, "moments", torch.arange(n), shape).double().flatten()
    for k, moment, tolerance in ((1, 0, 0.005), (2, 1, 0.007), (3, 0, 0.02), (4, 3, 0.05), (6, 15, 0.6)):
        assert x.pow(k).mean().item() == pytest.approx(moment, abs=tolerance)


def test_kolmogorov_smirnov():
    """Compare the largest distance of the distribution functions with its 99.9 % quantile, 1.95 / sqrt(n)."""
    n = 200_000
    for seed in range(3):
        u = counter.uniform(seed, "ks", torch.arange(n // 100), (100,)).double().flatten().sort().values
        grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        assert (u - grid).abs().max() < 1.95 / math.sqrt(n)
        x = counter.normal(seed, "ks", torch.arange(n // 100), (100,)).double().flatten().sort().values
        assert (torch.special.ndtr(x) - grid).abs().max() < 1.95 / math.sqrt(n)


def correlation(a, b):
    a, b = a.double().flatten() - 0.5, b.double().flatten() - 0.5
    return (a * b).mean().abs().item() * 12


LIMIT = 4.5 / math.sqrt(250_000)


def test_different_keys_are_uncorrelated():
    index, shape = torch.arange(500), (500,)
    base = counter.uniform(1, "g.z", index, shape)
    others = {
        "seed": counter.uniform(2, "g.z", index, shape),
        "purpose": counter.uniform(1, "g.z2", index, shape),
        "index": counter.uniform(1, "g.z", index + 1, shape),
        "step": counter.uniform(1, "g.z", index + 500, shape),
        "far": counter.uniform(1, "g.z", index + 2**32, shape),
        "position": base.roll(1, 1),
        "far position": base.roll(250, 1),
    }
    for name, other in others.items():
        assert not torch.equal(base, other), name
        assert correlation(base, other) < LIMIT, name


def test_rows_of_different_images_are_uncorrelated():
    """At every shift: positions are hashed with a constant stride, which could lead to correlations."""
    u = counter.uniform(1, "g.z", torch.arange(64), (4096,)).double() - 0.5
    spectrum = torch.fft.fft(u)
    cross = torch.fft.ifft(spectrum[:1].conj() * spectrum[1:]).real * 12 / 4096
    assert cross.abs().max() < 6 / math.sqrt(4096)


def test_seed_and_purpose_are_separated():
    a = counter.uniform(1, "2/x", INDEX)
    b = counter.uniform(12, "x", INDEX)
    assert correlation(a, b) < 4.5 / math.sqrt(1000)


def test_images_are_distinct():
    first = counter.uniform(0, "z", torch.arange(300_000), (3,))
    assert len(torch.unique(first, dim=0)) == 300_000


@pytest.mark.parametrize("high", [1, 2, 7, 1000])
def test_integers(high):
    x = counter.integers(4, "cut", torch.arange(100_000), high)
    assert x.dtype == torch.int64 and x.min() >= 0 and x.max() < high
    u = counter.uniform(4, "cut", torch.arange(100_000)).double()
    assert torch.equal(x, (u * high).long()), "as in float64, which not every device has"
    counts = torch.bincount(x, minlength=high).double()
    expected = 100_000 / high
    chi2 = ((counts - expected).square() / expected).sum().item()
    assert chi2 < high - 1 + 5 * math.sqrt(2 * high)


def test_large_and_negative_seeds():
    for seed in (2**32 - 1, 2**63, -1):
        assert counter.uniform(seed, "z", INDEX).std() == pytest.approx(12**-0.5, abs=0.02)
