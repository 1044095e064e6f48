"""One record of a TFRecords file: tf.train.Example, a protobuf message, without TensorFlow.

Example {Features features = 1}    Features {map<string, Feature> feature = 1}
Feature {BytesList = 1, FloatList = 2 or Int64List = 3}    each of these lists {repeated value = 1}
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from .codec import ImageError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_LONGEST = 10  # bytes of a varint

Read = Callable[[int, int], bytes]  # (position, number of bytes) -> bytes of the record


def parse_example(
    read: Read,
    length: int,  # of the record in bytes
) -> dict[str, list[Any]]:
    """Return the features by name: lists of numbers, or of spans (start, stop) of bytes within the record.

    Reads only what describes the features, not the bytes in the spans. Raises ImageError if it is not an Example.
    """
    features: dict[str, list[Any]] = {}
    try:
        for field, _, example in _fields(read, (0, length)):
            for _, _, entry in _fields(read, example) if field == 1 else ():
                parts = {number: span for number, _, span in _fields(read, entry)}
                start, stop = parts[1]
                features[read(start, stop - start).decode()] = _values(read, parts.get(2, (0, 0)))
    except (LookupError, TypeError, ValueError, struct.error) as e:
        raise ImageError("it is not a tf.train.Example") from e
    return features


def _values(read: Read, feature: tuple[int, int]) -> list[Any]:
    values: list[Any] = []
    for kind, _, span in _fields(read, feature):  # 1 bytes, 2 floats, 3 integers
        for _, wire, value in _fields(read, span):
            if kind == 1 or wire != _BYTES:
                values.append(value)
                continue
            packed = read(value[0], value[1] - value[0])
            if kind == 2:
                values += struct.unpack(f"<{len(packed) // 4}f", packed)
            position = 0
            while kind == 3 and position < len(packed):
                number, position = _varint(packed, position)
                values.append(number)
    return values


def _fields(read: Read, span: tuple[int, int]) -> Iterator[tuple[int, int, Any]]:
    """Yield number, wire type and value of each field of a message; the value is a number or the span of bytes."""
    position, stop = span
    while position < stop:
        head = read(position, min(2 * _LONGEST, stop - position))
        tag, used = _varint(head, 0)
        wire = tag & 7
        if wire in (_FIXED32, _FIXED64):
            (value,) = struct.unpack_from("<f" if wire == _FIXED32 else "<d", head, used)
            end = position + used + (4 if wire == _FIXED32 else 8)
        elif wire in (_VARINT, _BYTES):
            value, used = _varint(head, used)
            end = position + used
            if wire == _BYTES:
                value, end = (end, end + value), end + value
        else:
            raise ValueError(f"wire type {wire}")
        if not position + used <= end <= stop:
            raise ValueError("a field ends after its message")
        yield tag >> 3, wire, value
        position = end


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number, signed 64-bit, and the position after it."""
    number = 0
    for i, byte in enumerate(data[position : position + _LONGEST]):
        number |= (byte & 127) << 7 * i
        if byte < 128:
            number &= (1 << 64) - 1
            return number - (number >> 63 << 64), position + i + 1
    raise ValueError("a number does not end")
