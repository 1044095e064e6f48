"""The kernels that only training needs, on the CPU: under the sanitizers, and as operators with their derivatives."""

import pytest
import torch

from stylegan_cli.sampling import counter

# ---------------------------------------------------------------------------------------------------------------------
# Random numbers by counter

SHAPES = {"z": (5,), "cut": (), "map": (1, 37, 31), "none": (0,), "other map": (1, 64, 80)}
INDEX = torch.tensor([0, 1, 123456789012, -7])


def counter_fields(index, counts, centered):
    keys = [(0x9E3779B97F4A7C15 * (s + 1)) % 2**63 - 2**62 for s in range(len(counts))]
    starts = [len(index) * sum(counts[:s]) for s in range(len(counts))]
    rest = [0] * (32 - len(counts))
    out = torch.empty(len(index) * sum(counts))
    fields = {"index": index, "out": out, "n": len(index), "segments": len(counts), "centered": centered}
    return fields | {"key": keys + rest, "count": counts + rest, "start": starts + rest}


@pytest.mark.parametrize("centered", [0, 1])
def test_counter_under_sanitizers(emulator, centered):
    fields = counter_fields(INDEX, [1, 1025, 0, 2500], centered)
    emulator.call("counter_uniform", **fields)
    assert fields["out"].abs().max() < 1 and (fields["out"].min() < 0) == bool(centered)
    assert len(fields["out"].unique()) > 0.99 * len(fields["out"])


def test_counter_refuses_too_many_segments(emulator):
    with pytest.raises(RuntimeError, match="between 1 and 32"):
        emulator.call("counter_uniform", **counter_fields(INDEX, [1], 0) | {"segments": 33})


@pytest.mark.parametrize("sample", [counter.uniforms, counter.normals])
def test_counter_makes_the_same_bits(device, sample):
    many = {f"{name} {i}": shape for i in range(7) for name, shape in SHAPES.items()}  # more than one launch takes
    found, index = sample(3, many, INDEX.to(device)), INDEX.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counter, "_has_kernel", lambda index: False)
        expected = sample(3, many, INDEX.to(device))
    assert len(found) == len(many) and torch.equal(INDEX, index)
    for numbers, exact, shape in zip(found, expected, many.values()):
        assert numbers.shape == exact.shape == (4, *shape) and torch.equal(numbers, exact)


def test_counter_refuses(device):
    for index, keys, counts, message in [
        (INDEX.to(device).int(), [1], [1], "int64"),
        (INDEX.to(device), [1], [1, 2], "a count for each"),
        (INDEX.to(device), [1], [-1], "negative"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            torch.ops.sgan.counter_uniform(index, keys, counts, False)


def test_opcheck_of_counter(device):
    torch.library.opcheck(torch.ops.sgan.counter_uniform.default, (INDEX.to(device), [1, -2], [3, 4], True))
