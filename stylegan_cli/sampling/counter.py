"""Counter-based random numbers: each is a pure function of (seed, purpose, index, position).

There is no stream, so the numbers of image 1000 do not depend on its batch, on the rank that makes it, or on what was
sampled before. The underlying integers are the same on every device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..ops import has_kernels


def uniform(
    seed: int,
    purpose: str,  # name of the use; each purpose has independent numbers
    index: Tensor,  # [N] int64, global index of each image
    shape: tuple[int, ...] = (),  # per image
) -> Tensor:  # [N, *shape] float32 in (0, 1)
    """Sample uniform numbers on the device of `index`."""
    return uniforms(seed, {purpose: shape}, index)[0]


def normal(
    seed: int,
    purpose: str,
    index: Tensor,  # [N] int64
    shape: tuple[int, ...] = (),
) -> Tensor:  # [N, *shape] float32, N(0, 1)
    """Sample normally distributed numbers by inverting their distribution function."""
    return normals(seed, {purpose: shape}, index)[0]


def uniforms(
    seed: int,
    shapes: Mapping[str, tuple[int, ...]],  # purpose -> shape
    index: Tensor,  # [N] int64
) -> list[Tensor]:  # [N, *shape] float32 each, in (0, 1)
    """The numbers of `uniform` for several purposes, made together: they share memory."""
    return _split(_numbers(seed, shapes, index, centered=False), shapes, len(index))


def normals(
    seed: int,
    shapes: Mapping[str, tuple[int, ...]],  # purpose -> shape
    index: Tensor,  # [N] int64
) -> list[Tensor]:  # [N, *shape] float32 each
    """The numbers of `normal` for several purposes, made together: they share memory."""
    numbers = _numbers(seed, shapes, index, centered=True).erfinv_().mul_(math.sqrt(2))
    return _split(numbers, shapes, len(index))


def integers(
    seed: int,
    purpose: str,
    index: Tensor,  # [N] int64
    high: int,  # exclusive; must be far below 2^23 for a uniform distribution
) -> Tensor:  # [N] int64 in 0 ... high - 1
    """Sample uniformly distributed integers."""
    return as_integers(uniform(seed, purpose, index), high)


def as_integers(
    u: Tensor,  # [...] from `uniform`
    high: int,
) -> Tensor:  # [...] int64, as from `integers`
    return ((u * 2**24).long() * high) >> 24  # exact: 2 k + 1 with k of 23 bits, times high


def _numbers(
    seed: int,
    shapes: Mapping[str, tuple[int, ...]],
    index: Tensor,  # [N]
    centered: bool,  # in (-1, 1) instead of (0, 1)
) -> Tensor:  # [sum of N * the numbers of each shape]
    keys, counts = [_purpose_key(seed, purpose) for purpose in shapes], [math.prod(shape) for shape in shapes.values()]
    if not shapes or not has_kernels(index.device):  # some are made on the CPU, whatever the networks run on
        return _composite(index, keys, counts, centered)
    starts = range(0, len(keys), _SEGMENTS)
    parts = [(keys[i : i + _SEGMENTS], counts[i : i + _SEGMENTS]) for i in starts]
    numbers = [torch.ops.sgan.counter_uniform(index, *part, centered) for part in parts]
    return numbers[0] if len(numbers) == 1 else torch.cat(numbers)


def _purpose_key(seed: int, purpose: str) -> int:  # 64 bits, signed
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "little", signed=True)


def _split(numbers: Tensor, shapes: Mapping[str, tuple[int, ...]], n: int) -> list[Tensor]:  # [N, *shape] each
    parts = numbers.split([n * math.prod(shape) for shape in shapes.values()])
    return [part.view(n, *shape) for part, shape in zip(parts, shapes.values(), strict=True)]


# The numbers in PyTorch's operations.


def _composite(index: Tensor, keys: list[int], counts: list[int], centered: bool) -> Tensor:  # [sum of N * counts]
    n = len(index)
    positions = torch.arange(max(counts, default=0), dtype=torch.int32, device=index.device).mul_(_signed(0x9E3779B9))
    x = torch.empty(n * sum(counts), dtype=torch.int32, device=index.device)
    parts = [part.view(n, count) for part, count in zip(x.split([n * c for c in counts]), counts, strict=True)]
    low, high = _image_keys(keys, index)
    for part, key in zip(parts, low, strict=True):
        torch.add(positions[: part.shape[1]], key[:, None], out=part)
    _mix_(x)
    for part, key in zip(parts, high, strict=True):
        part.bitwise_xor_(key[:, None])
    bits = _mix_(x).bitwise_right_shift_(9).bitwise_and_(0x7FFFFF)  # 23 bits: adding 0.5 stays exact in float32
    u = bits.to(torch.float32).add_(0.5).mul_(2.0**-23)
    return u.mul_(2).sub_(1) if centered else u


def _image_keys(keys: list[int], index: Tensor) -> tuple[Tensor, Tensor]:  # two [purposes, N] int32
    """Compute a 64-bit key for each image: one round of SplitMix64 of the index, offset by seed and purpose."""
    x = index * _signed(0x9E3779B97F4A7C15, 64) + torch.tensor(keys, dtype=torch.int64, device=index.device)[:, None]
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9, 64)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB, 64)
    x = x ^ _shift_right(x, 31)
    return x.to(torch.int32), (x >> 32).to(torch.int32)


def _mix_(x: Tensor) -> Tensor:  # [...] int32, in place
    """Apply a 32-bit finalizer: each input bit changes about half of the output bits (Wellons, lowbias32)."""
    x.bitwise_xor_((x >> 16) & 0xFFFF).mul_(0x7FEB352D)
    x.bitwise_xor_((x >> 15) & 0x1FFFF).mul_(_signed(0x846CA68B))
    return x.bitwise_xor_((x >> 16) & 0xFFFF)


def _shift_right(x: Tensor, bits: int) -> Tensor:  # [...] int64, filled with zeros
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int, bits: int = 32) -> int:
    return x - (1 << bits) if x >> (bits - 1) else x


# The kernel: csrc/counter.cu, bound by csrc/library_training.cpp. It makes the same bits, in one launch.

_SEGMENTS = 32  # of one launch, as in csrc/kernels.h

torch.library.define("sgan::counter_uniform", "(Tensor index, int[] keys, int[] counts, bool centered) -> Tensor")


@torch.library.register_fake("sgan::counter_uniform")
def _(index, keys, counts, centered):
    return index.new_empty(len(index) * sum(counts), dtype=torch.float32)
