"""Writes TFRecords by their definition: framing with CRC-32C, byte by byte, and protobuf."""

import struct


def _shifted(crc):
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


_SHIFTED = [_shifted(byte) for byte in range(256)]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _SHIFTED[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def checksum(data):
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32)


def frame(record):
    length = struct.pack("<Q", len(record))
    return length + checksum(length) + record + checksum(record)


def varint(number):
    number, out = number % 2**64, b""
    while number > 127:
        number, out = number >> 7, out + bytes([number & 127 | 128])
    return out + bytes([number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(value, packed=True):
    """A list of integers, a list of floats, or bytes."""
    if isinstance(value, bytes):
        return field(1, field(1, value))
    if isinstance(value[0], float):
        raw = [struct.pack("<f", v) for v in value]
        return field(2, field(1, b"".join(raw)) if packed else b"".join(b"\x0d" + v for v in raw))
    raw = [varint(v) for v in value]
    return field(3, field(1, b"".join(raw)) if packed else b"".join(b"\x08" + v for v in raw))


def example(packed=True, **features):
    entries = [
        field(1, field(1, k.replace("__", "/").encode()) + field(2, feature(v, packed))) for k, v in features.items()
    ]
    return field(1, b"".join(entries))


def pixels_example(pixels, **features):
    """As NVIDIA's TFRecordExporter writes an image [C, H, W]."""
    return example(shape=list(pixels.shape), data=pixels.tobytes(), **features)


def write_records(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(frame, records)))
    return path
