"""The emulator itself: it behaves like CUDA, and detects the bugs that are planted in planted.cu."""

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def planted(harness):
    return harness.Emulator([HERE / "planted.cu", HERE / "planted_hopper.cu"], HERE / "planted.h")


def reverse(planted, plant="none", seed=None, rows=2, n=64):
    x = torch.arange(1.0, rows * n + 1).reshape(rows, n)
    y = torch.zeros(rows, n + 1)[:, :n]
    planted.call("reverse", seed, x=x, y=y, rows=rows, n=n, y_stride=n + 1, plant=plant)
    return y, x.flip(1)


def rotate(planted, plant="none", seed=None, n=128 * 7):
    x, y = torch.arange(1.0, n + 1), torch.zeros(n)
    planted.call("rotate", seed, x=x, y=y, n=n, plant=plant)
    return y, x.roll(128)


def swizzled(b, width):  # [steps, rows, k] of two bytes, bytes of a row
    """Byte i of memory moves to where bits 4 to 6 of i are combined with bits 7 to 9, as far as a row has such bits."""
    if width == 0:
        return b.unflatten(2, (-1, 8)).transpose(1, 2).contiguous()
    i = torch.arange(b[0].numel() * 2)
    moved = i ^ (i >> 7 & width // 16 - 1) << 4
    rows = b.view(torch.uint8).flatten(1)
    return torch.empty_like(rows).scatter_(1, moved.expand_as(rows), rows).view(b.dtype)


def product(planted, plant="none", seed=None, width=64, dtype=torch.float16):
    g, k = torch.Generator().manual_seed(0), width // 2 or 32
    a, b = torch.randn(5, 64, k, generator=g).to(dtype), torch.randn(5, 32, k, generator=g).to(dtype)
    y, mode = torch.zeros(64, 32), {0: "none"}.get(width, f"bytes{width}")
    fields = {"a": a, "b": swizzled(b, width), "y": y, "steps": 5, "k": k, "swizzle": mode, "plant": plant}
    planted.call("product", seed, **fields, bfloat16=dtype == torch.bfloat16)
    return y, (a.double() @ b.double().mT).sum(0).float()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kernel", [reverse, rotate])
def test_correct_kernels(planted, kernel, seed):
    y, expected = kernel(planted, seed=seed)
    assert torch.equal(y, expected)


def test_largest_block(planted):
    y, expected = reverse(planted, n=1024)
    assert torch.equal(y, expected)


def test_without_sanitizers(harness):
    planted = harness.Emulator([HERE / "planted.cu"], HERE / "planted.h", sanitize=False)
    assert torch.equal(*reverse(planted))
    with pytest.raises(harness.EmulatorError, match=r"emulator: deadlock[^\n]*\nin block \(0, 0, 0\), thread .*SEED=3"):
        reverse(planted, "deadlock", seed=3)


def test_off_by_one(planted):
    y, expected = reverse(planted, "off_by_one")
    assert not torch.equal(y, expected) and not y.isnan().any()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("kernel", "plant"),
    [
        (reverse, "missing_barrier"),
        *((rotate, plant) for plant in ("missing_wait", "late_group", "missing_sync")),
        *((product, plant) for plant in ("early_copy", "unpublished")),
    ],
)
def test_missing_synchronization_gives_nan(planted, kernel, plant, seed):
    assert kernel(planted, plant, seed)[0].isnan().any()


def test_unwritten_shared_memory_is_nan(planted):
    y, _ = reverse(planted, "unwritten")
    assert y.isnan().nonzero().tolist() == [[0, 56], [1, 56]]


@pytest.mark.parametrize(
    ("kernel", "plant", "report"),
    [
        (reverse, "read_global", r"(?s)heap-buffer-overflow.*READ of size 4.*reverse_kernel.*planted\.cu:\d+"),
        (reverse, "read_shared", "(?s)heap-buffer-overflow.*READ of size 4.*reverse_kernel"),
        (reverse, "early_return", "__shfl_xor_sync: waits for lanes 00000020, which have returned"),
        (reverse, "late_return", "returned, but thread .* waits for it in __shfl_xor_sync"),
        (reverse, "other_collective", r"__ballot_sync\(ffffffff\).*__shfl_xor_sync|__shfl_xor_sync.*__ballot_sync"),
        (reverse, "outside_mask", "__shfl_xor_sync: reads lane .*, which is not in its mask"),
        (reverse, "deadlock", r"(?s)0 to 15: __syncthreads\n.* 16 to 31: __syncwarp\n.*emulator: deadlock"),
        (reverse, "write_gap", "wrote between"),
        (rotate, "never_waits", "returned before 2 of its asynchronous copies arrived"),
        (rotate, "misaligned", r"(?s)misaligned address.*rotate_kernel"),
        (rotate, "misaligned_copy", "copy_async_16: .* is not aligned"),
        (product, "missing_phase", "the block ended before 2 bulk copies arrived"),
        (product, "wrong_parity", "the block ended before 2 bulk copies arrived"),
        (product, "wrong_bytes", r"(?s)0 to 127: mbarrier_wait\n.*deadlock"),
        (product, "uninitialized", "mbarrier_expect: the barrier is not initialized"),
        (product, "late_copy", "the block ended before 1 bulk copies arrived"),
        (product, "unfenced", "warpgroup_multiply_add: no warpgroup_fence"),
        (product, "unfinished", "returned before 10 of its matrix products ended"),
    ],
)
def test_bugs_are_reported(planted, harness, kernel, plant, report):
    with pytest.raises(harness.EmulatorError, match=report) as error:
        kernel(planted, plant, seed=7)
    if plant != "write_gap":
        assert "in block (" in str(error.value) and "SGAN_EMULATOR_SEED=7" in str(error.value)


def test_collectives(planted):
    x = torch.randint(-100, 90, (64,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    x[40] = 95
    y, wide = torch.zeros(9, 64, dtype=torch.int32), torch.zeros(64, dtype=torch.float64)
    planted.call("collectives", x=x, y=y, wide=wide)
    i = torch.arange(64)
    lane, half = i % 32, i // 16
    assert torch.equal(y[0], x[i - lane + 3])
    assert torch.equal(y[1], x[i // 8 * 8 + (i + 1) % 8])
    assert torch.equal(y[2], x[i ^ 5])
    assert torch.equal(y[3], torch.where(i % 16 < 13, x[(i + 3).clamp(max=63)], x))
    assert torch.equal(y[4], torch.where(i % 16 >= 3, x[i - 3], x))
    ballots = [sum(1 << b for b in range(32) if x[32 * w + b] > 0) for w in (0, 1)]
    assert (y[5].long() & 0xFFFFFFFF).tolist() == [ballots[0]] * 32 + [ballots[1]] * 32
    assert torch.equal(y[6] != 0, half == 2)
    assert torch.equal(y[7] != 0, half != 2)
    assert torch.equal(y[8], torch.where(i % 2 == 1, x[i ^ 2], -1))
    assert torch.equal(wide, x[i ^ 1].double() + 1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tensor_cores(planted, dtype):
    g = torch.Generator().manual_seed(0)
    a, b, y = torch.randn(16, 16, generator=g).to(dtype), torch.randn(8, 16, generator=g).to(dtype), torch.zeros(16, 8)
    planted.call("multiply", a=a, b=b, y=y, bfloat16=dtype == torch.bfloat16)
    torch.testing.assert_close(y.double(), a.double() @ b.double().T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [0, 32, 64, 128])
def test_warpgroups(planted, width, dtype):
    for seed in range(3):
        y, exact = product(planted, seed=seed, width=width, dtype=dtype)
        torch.testing.assert_close(y, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("plant", ["wrong_swizzle", "wrong_fragment"])
def test_wrong_layouts(planted, plant):
    y, exact = product(planted, plant)
    assert not y.isnan().any() and ((y - exact).abs() > 0.1).float().mean() > 0.4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_conversions(planted, dtype):
    every = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype)
    # Halfway between neighbors and next to it, both ends of the exponent range, and random bits.
    values = every.float()
    values = values[values.isfinite()].sort().values
    between = ((values[1:].double() + values[:-1].double()) / 2).float()
    bits = torch.randint(-(2**31), 2**31, (100_000,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    edges = torch.tensor([65519.996, 65520, -65520, 65504, 3.4028235e38, 2.0**-25, 2.0**-24 * 1.5, 1e-45])
    around = [between.nextafter(torch.tensor(s * torch.inf)) for s in (1, -1)]
    x = torch.cat([between, *around, bits.view(torch.float32), edges, every.float()])
    h = every.repeat(x.numel() // 65536 + 1)[: x.numel()]
    to, back = torch.empty_like(h), torch.empty_like(x)
    planted.call("convert", x=x, h=h, to=to, back=back, n=x.numel(), format=dtype)
    for result, expected in ((to, x.to(dtype)), (back, h.float())):
        assert torch.equal(result.isnan(), expected.isnan())
        size = torch.int16 if result.dtype == dtype else torch.int32
        assert torch.equal(result.view(size)[~result.isnan()], expected.view(size)[~result.isnan()])


def count(planted, grid, block, shared_bytes=32):
    sums, largest = torch.zeros(4, dtype=torch.int64), torch.zeros(1, dtype=torch.int32)
    planted.call("count", sums=sums, largest=largest, grid=grid, block=block, shared_bytes=shared_bytes)
    return sums.tolist(), largest.item()


def test_atomics_and_indices(planted):
    sums, largest = count(planted, grid=(3, 2, 2), block=(5, 3, 7))
    numbers = [105 * block + thread for block in range(12) for thread in range(105) if thread % 3 != 2]
    assert sums == [len(numbers), len(numbers), sum(numbers), len(numbers) << 40]
    assert largest == max(numbers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (0, 1, 1)}, "nothing to run"),
        ({"grid": (2**31, 1, 1)}, "grid too large"),
        ({"grid": (1, 65536, 1)}, "grid too large"),
        ({"block": (1025, 1, 1)}, "block too large"),
        ({"block": (1, 1, 65)}, "block too large"),
        ({"shared_bytes": 227 * 1024 + 1}, "more than 227 KB"),
    ],
)
def test_launch_limits(planted, change, message):
    with pytest.raises(RuntimeError, match=message):
        count(planted, **{"grid": (1, 1, 1), "block": (32, 1, 1), **change})


def test_many_calls_in_one_process(planted, harness):
    calls = []
    for plant in ("none", "none", "read_shared", "none"):
        fields = {"x": torch.rand(1, 64), "y": torch.zeros(1, 64), "rows": 1, "n": 64, "y_stride": 64, "plant": plant}
        calls.append(("reverse", fields))
    planted.run(calls[:2])
    assert all(torch.equal(fields["y"], fields["x"].flip(1)) for _, fields in calls[:2])
    with pytest.raises(harness.EmulatorError, match="exit code 1\ncall 2: reverse\n.*\n.*heap-buffer-overflow"):
        planted.run(calls)


def test_unknown_and_missing_fields(planted):
    with pytest.raises(TypeError, match="reverse: missing or unknown: n, rows, width, y_stride"):
        planted.call("reverse", plant="none", width=3)
