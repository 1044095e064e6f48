"""Upsampling, an operation on every sample, and downsampling, tile by tile.

The upsampled signal exists only in tiles of a few channels, which stay in the cache of a CPU. Tiles are channels-last
and their convolutions depthwise: vector instructions then compute one channel per lane. Transposed convolutions skip
the inserted zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .dispatch import layout_of

LANES = 16  # channels of a tile are a multiple of it: float32 numbers of a 512-bit register
SAMPLES = 1 << 19  # upsampled samples of a tile: 2 MiB in float32


class Resampling(NamedTuple):
    """Upsampling followed by downsampling, apart from the filters: u = x with zeros, padded; h = gain (fu * u);
    y = every down-th sample of (fd * h). Both filters keep only the samples that they cover completely."""

    up: int
    down: int
    padding: tuple[int, int, int, int]  # left, right, top, bottom, in upsampled pixels
    flip: bool  # False: convolution, True: correlation
    gain: float
    offset: tuple[int, int] = (0, 0)  # what belongs to h[i, j] is stored at this row and column plus i, j

    def output_size(
        self,
        x: Tensor,  # [N, C, H, W]
        fu: Tensor,  # [K] or [KH, KW]
        fd: Tensor,  # [K] or [KH, KW]
    ) -> tuple[int, int]:  # H', W'; below one: the filters do not fit
        left, right, top, bottom = self.padding
        h = x.shape[2] * self.up + top + bottom - fu.shape[0] - fd.shape[0] + 1
        w = x.shape[3] * self.up + left + right - fu.shape[-1] - fd.shape[-1] + 1
        return h // self.down + 1, w // self.down + 1

    def activated_size(self, x: Tensor, fu: Tensor, fd: Tensor) -> tuple[int, int]:  # rows and columns of h in use
        h, w = self.output_size(x, fu, fd)
        return (h - 1) * self.down + fd.shape[0], (w - 1) * self.down + fd.shape[-1]

    def adjoint(self, x: Tensor, fu: Tensor, fd: Tensor) -> Resampling:
        """The resampling of the gradient of x. Its filters are fd and fu."""
        (h, w), (oh, ow), (left, _, top, _) = x.shape[2:], self.output_size(x, fu, fd), self.padding
        kh, kw = fu.shape[0], fu.shape[-1]
        padding = (
            kw + fd.shape[-1] - 2 - left,
            w * self.up - ow * self.down + left - self.up + 1,
            kh + fd.shape[0] - 2 - top,
            h * self.up - oh * self.down + top - self.up + 1,
        )
        offset = self.offset[0] + top - kh + 1, self.offset[1] + left - kw + 1
        return Resampling(self.down, self.up, padding, not self.flip, self.gain, offset)


class _Span(NamedTuple):
    """The part of one axis that a tile covers. Ranges are (first, one behind the last)."""

    outputs: tuple[int, int]  # of y
    activated: tuple[int, int]  # of h
    inputs: tuple[int, int]  # of x; zero beyond its edges
    crop: int  # samples that the transposed convolution drops on both sides
    extra: int  # of those, the samples on the right that are needed


class Tile(NamedTuple):
    samples: slice
    channels: slice
    rows: _Span
    columns: _Span

    def overlap(
        self,
        size: Sequence[int],  # rows and columns of stored values
        offset: tuple[int, int],  # of h[0, 0] in them
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Rows and columns of the stored values that belong to the tile, and those of the tile that they belong to."""
        stored, own = [], []
        for span, side, first in zip((self.rows, self.columns), size, offset):
            start = max(span.activated[0] + first, 0)
            stop = max(min(span.activated[1] + first, side), start)
            stored.append(slice(start, stop))
            own.append(slice(start - span.activated[0] - first, stop - span.activated[0] - first))
        return tuple(stored), tuple(own)


def map_tiles(
    x: Tensor,  # [N, C, H, W]
    b: Tensor | None,  # [C], added to x before the padding
    fu: Tensor,  # [K] or [KH, KW]
    fd: Tensor,  # [K] or [KH, KW]
    resampling: Resampling,
    change: Callable[[Tensor, Tile], None],  # changes a tile of h [n, h, w, c] in place
) -> Tensor:  # [N, C, H', W']
    """Upsample, change and downsample. Half precision is computed in single precision."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    up, down = resampling.up, resampling.down
    y = x.new_empty((*x.shape[:2], *resampling.output_size(x, fu, fd))).to(memory_format=layout_of(x))
    tiles = list(_tiles(x, fu, fd, resampling))
    lanes = _round_up(tiles[0].channels.stop, dtype)
    upward = _passes(fu.to(x.device, dtype), resampling.flip, resampling.gain, lanes)
    downward = _passes(fd.to(x.device, dtype), not resampling.flip, 1.0, lanes)[::-1]
    for tile in tiles:
        q = _window(x, b, tile, dtype)
        c = q.shape[1]
        for weight, axes in upward:
            crop, extra = ([getattr(s, n) * a for s, a in zip(tile[2:], axes)] for n in ("crop", "extra"))
            q = F.conv_transpose2d(q, weight[:c], None, [up**a for a in axes], crop, extra, c)
        change(q.permute(0, 2, 3, 1), tile)
        for weight, axes in downward:
            q = F.conv2d(q, weight[:c], None, [down**a for a in axes], groups=c)
        part = y[tile.samples, tile.channels, slice(*tile.rows.outputs), slice(*tile.columns.outputs)]
        part.copy_(q[:, : part.shape[1], : part.shape[2], : part.shape[3]])
    return y


def _passes(
    f: Tensor,  # [K] or [KH, KW]
    flip: bool,
    gain: float,
    channels: int,
) -> list[tuple[Tensor, tuple[int, int]]]:  # [C, 1, K, 1], [C, 1, 1, K] or [C, 1, KH, KW]; whether it is along y, x
    f = f.flip(list(range(f.ndim))) if flip else f
    kernels = [(f * gain, (1, 1))] if f.ndim == 2 else [(f[:, None] * gain, (1, 0)), (f[None], (0, 1))]
    return [(kernel.repeat(channels, 1, 1, 1), axes) for kernel, axes in kernels]


def _round_up(channels: int, dtype: torch.dtype) -> int:
    lanes = 4 if dtype == torch.float64 else LANES  # PyTorch has no vector instructions for it: the bits need quads
    return -(-channels // lanes) * lanes


def _tiles(x: Tensor, fu: Tensor, fd: Tensor, resampling: Resampling) -> Iterator[Tile]:
    n, c = x.shape[:2]
    up, down, (left, _, top, _), *_ = resampling
    size, whole = resampling.output_size(x, fu, fd), resampling.activated_size(x, fu, fd)
    samples, lanes, sides = n, c, size
    if x.device.type == "cpu":
        side = math.isqrt(SAMPLES // LANES)
        sides = [-(-out // -(-full // side)) for out, full in zip(size, whole)]
        area = math.prod(min(s * down, full) for s, full in zip(sides, whole))
        samples, lanes = 1, LANES * max(SAMPLES // (LANES * area), 1)
    rows = _spans(size[0], sides[0], fu.shape[0], fd.shape[0], up, down, top)
    columns = _spans(size[1], sides[1], fu.shape[-1], fd.shape[-1], up, down, left)
    for i in range(0, n, samples):
        for j in range(0, c, lanes):
            for r in rows:
                for s in columns:
                    yield Tile(slice(i, min(i + samples, n)), slice(j, min(j + lanes, c)), r, s)


def _spans(outputs: int, length: int, taps_up: int, taps_down: int, up: int, down: int, pad: int) -> list[_Span]:
    """Divide an axis of y into spans of a length. Sample j of x is at up * j + pad in u, of which h[i] uses taps_up
    samples from the i-th."""
    spans = []
    for start in range(0, outputs, length):
        stop = min(start + length, outputs)
        first, last = start * down, (stop - 1) * down + taps_down
        left, right = -((pad - first) // up), (last + taps_up - 2 - pad) // up + 1
        crop = first + taps_up - 1 - pad - up * left
        extra = last - first - ((right - left - 1) * up + taps_up - 2 * crop)
        spans.append(_Span((start, stop), (first, last), (left, right), crop, max(extra, 0)))
    return spans


def _window(x: Tensor, b: Tensor | None, tile: Tile, dtype: torch.dtype) -> Tensor:  # [n, c, h, w] channels-last
    """x + b for a tile, with zeros beyond the edges and as further channels."""
    (top, bottom), (left, right) = tile.rows.inputs, tile.columns.inputs
    part = x[tile.samples, tile.channels, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    size = part.shape[0], _round_up(part.shape[1], dtype), bottom - top, right - left
    window = torch.empty(size, dtype=dtype, device=x.device, memory_format=torch.channels_last)
    if part.shape != size:
        window.zero_()
    y0, x0 = max(-top, 0), max(-left, 0)
    inside = window[:, : part.shape[1], y0 : y0 + part.shape[2], x0 : x0 + part.shape[3]]
    inside.copy_(part)
    if b is not None:
        inside.add_(b[tile.channels].to(dtype)[:, None, None])
    return window
