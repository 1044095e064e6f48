"""Randomness by counter: every number is a pure function of (seed, purpose, index, position).

Nothing is drawn from a stream, so what image number 1000 gets does not depend on the batch it is in, on the rank
that makes it, or on what was drawn before. The same integers come out on every device.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor


def uniform(
    seed: int,
    purpose: str,  # names the use; each purpose has numbers of its own
    index: Tensor,  # [N] int64, global number of each image
    shape: tuple[int, ...] = (),  # of what each image gets
) -> Tensor:  # [N, *shape] float32 in (0, 1)
    """Uniform numbers on the device of `index`."""
    n, count = index.shape[0], math.prod(shape)
    low, high = _keys(seed, purpose, index)
    x = torch.arange(count, dtype=torch.int32, device=index.device).mul_(_signed(0x9E3779B9))
    x = x[None, :] + low[:, None]
    x = _mix_(_mix_(x).bitwise_xor_(high[:, None]))
    x = x.bitwise_right_shift_(9).bitwise_and_(0x7FFFFF)  # 23 bits: with the half added still exact in float32
    return x.to(torch.float32).add_(0.5).mul_(2.0**-23).reshape(n, *shape)


def normal(
    seed: int,
    purpose: str,
    index: Tensor,  # [N] int64
    shape: tuple[int, ...] = (),
) -> Tensor:  # [N, *shape] float32, N(0, 1)
    """Normally distributed numbers, by the inverse of their distribution function."""
    return uniform(seed, purpose, index, shape).mul_(2).sub_(1).erfinv_().mul_(math.sqrt(2))


def integers(
    seed: int,
    purpose: str,
    index: Tensor,  # [N] int64
    high: int,  # exclusive, far below 2^23
) -> Tensor:  # [N] int64 in 0 ... high - 1
    """Whole numbers, equally likely."""
    return (uniform(seed, purpose, index).double() * high).long()


def _keys(seed: int, purpose: str, index: Tensor) -> tuple[Tensor, Tensor]:  # two [N] int32
    """A 64-bit key for each image: the index through one round of SplitMix64, offset by the seed and the purpose."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    x = index * _signed(0x9E3779B97F4A7C15, 64) + int.from_bytes(digest[:8], "little", signed=True)
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9, 64)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB, 64)
    x = x ^ _shift_right(x, 31)
    return x.to(torch.int32), (x >> 32).to(torch.int32)


def _mix_(x: Tensor) -> Tensor:  # [...] int32, in place
    """A 32-bit finalizer: every bit of the input changes about half the bits of the output (Wellons, lowbias32)."""
    x.bitwise_xor_((x >> 16) & 0xFFFF).mul_(0x7FEB352D)
    x.bitwise_xor_((x >> 15) & 0x1FFFF).mul_(_signed(0x846CA68B))
    return x.bitwise_xor_((x >> 16) & 0xFFFF)


def _shift_right(x: Tensor, bits: int) -> Tensor:  # [...] int64, zeros come in from the left
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int, bits: int = 32) -> int:
    return x - (1 << bits) if x >> (bits - 1) else x
