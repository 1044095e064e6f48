"""CRC-32C (Castagnoli), the checksum of TFRecords, with NumPy: zlib has another polynomial."""

from __future__ import annotations

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # bits reversed
_BLOCK = 512  # bytes that are looked up at once: the table of all positions, 512 kB, fits into the processor's cache
_BLOCKS = 64  # blocks at once


def crc32c(
    data: bytes,
) -> int:
    """Return the CRC-32C of the data, 32 bits.

    A CRC is linear: that of a block is the XOR of those of its bytes, each followed by the zeros of its position. The
    CRC of all before a block is added to the block's first four bytes.
    """
    flat, first, last = _tables()
    crc, start = 0xFFFFFFFF, len(data) % _BLOCK
    for byte in data[:start]:
        crc = last[(crc ^ byte) & 255] ^ crc >> 8
    if len(data) >= _BLOCK:
        blocks = np.frombuffer(data, np.uint8, offset=start).reshape(-1, _BLOCK)
        for i in range(0, len(blocks), _BLOCKS):
            looked_up = flat.take(blocks[i : i + _BLOCKS] + np.arange(0, 256 * _BLOCK, 256))
            for block in np.bitwise_xor.reduce(looked_up, axis=1).tolist():
                carried = first[0][crc & 255] ^ first[1][crc >> 8 & 255] ^ first[2][crc >> 16 & 255]
                crc = block ^ carried ^ first[3][crc >> 24]
    return crc ^ 0xFFFFFFFF


def masked_crc32c(
    data: bytes,
) -> int:
    """Return the CRC-32C as TFRecords store it: rotated by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _tables() -> tuple[np.ndarray, list[list[int]], list[int]]:
    """CRC (from 0) of each byte, followed by zeros up to the end of a block: for all positions, as a flat array,
    for the first four, and for the last."""
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, crc >> 1 ^ np.uint32(_POLYNOMIAL), crc >> 1)
    rows = [crc]
    for _ in range(_BLOCK - 1):
        rows.append(crc[rows[-1] & 255] ^ rows[-1] >> 8)
    table = np.stack(rows[::-1])
    return table.reshape(-1), table[:4].tolist(), table[-1].tolist()
