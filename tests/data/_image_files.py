"""Image files and ICC profiles that Pillow cannot write. Sections refer to ICC.1:2001-04."""

import io
import struct
import zlib

import numpy as np

# Columns of the matrix: XYZ of the primaries, adapted to D50
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
WIDE_GAMUT = ((0.71610, 0.25819, 0.0), (0.10093, 0.72494, 0.05178), (0.14719, 0.01687, 0.77343))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
D50 = (0.96420, 1.0, 0.82491)


def rgb_profile(matrix=DISPLAY_P3, gamma=2.2, padding=0):
    """A matrix profile with one gamma; ``padding`` bytes of another tag make it large."""
    tags = {name: _xyz(xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))
    if padding:
        tags[b"pad "] = b"data\0\0\0\0" + bytes(i * i % 251 for i in range(padding))
    return _profile(b"RGB ", b"XYZ ", tags)


def gray_profile(gamma=1.0):
    return _profile(b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile():
    """A table (section 6.5.9) of two values per ink to Lab: each ink darkens, and moves the color its own way."""
    corners = b""
    for i in range(16):  # the last ink varies fastest
        c, m, y, k = (i >> shift & 1 for shift in (3, 2, 1, 0))
        lightness = max(0, 255 - 60 * c - 70 * m - 20 * y - 200 * k)
        corners += bytes((lightness, 128 - 30 * c + 50 * m, 128 - 35 * c + 70 * y))
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(0x10000 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + corners + ramp * 3
    return _profile(b"CMYK", b"Lab ", {b"A2B0": table}, b"prtr")


def _xyz(values):
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def _curve(gamma):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _profile(space, connection, tags, kind=b"mntr"):
    tags = {b"desc": _description(), b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(D50), **tags}
    table, content, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(content), len(data))
        content += data + bytes(-len(data) % 4)
    size = start + len(content)
    header = struct.pack(">I4sI4s4s4s", size, b"test", 0x02400000, kind, space, connection)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", *(round(v * 65536) for v in D50))
    return header.ljust(128, b"\0") + table + content


def _description():
    return b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(12 + 67)


def encoded(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunks(png, gamma=None, primaries=None, intent=None):
    """A PNG with the chunks gAMA, cHRM (x and y of white, red, green and blue) and sRGB."""
    chunks = b"" if gamma is None else chunk(b"gAMA", struct.pack(">I", round(gamma * 1e5)))
    if primaries is not None:
        chunks += chunk(b"cHRM", struct.pack(">8I", *(round(v * 1e5) for v in primaries)))
    chunks += b"" if intent is None else chunk(b"sRGB", bytes([intent]))
    return png[:33] + chunks + png[33:]


def png16(pixels):
    """A PNG with 16 bits per channel, from uint16 [H, W, C]."""
    h, w, c = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", w, h, 16, {1: 0, 3: 2, 4: 6}[c], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16(pixels):
    """An uncompressed TIFF with 16 bits per channel, from uint16 [H, W, 3]."""
    h, w, c = pixels.shape
    data = pixels.astype("<u2").tobytes()
    after = 8 + len(data)
    bits = struct.pack("<HHH", 16, 16, 16)
    tags = [
        (256, 4, 1, w),
        (257, 4, 1, h),
        (258, 3, 3, after),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, c),
        (278, 4, 1, h),
        (279, 4, 1, len(data)),
        (284, 3, 1, 1),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags) + b"\0\0\0\0"
    return b"II*\0" + struct.pack("<I", after + len(bits)) + data + bits + directory


def tiff_gray(values, bits, photometric=1, sample_format=1):
    """An uncompressed TIFF of one channel; ``values`` [H, W] are stored as they are."""
    data, (h, w) = values.tobytes(), values.shape
    tags = [(256, 4, w), (257, 4, h), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, h), (279, 4, len(data)), (339, 3, sample_format)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def tiff_12_bit(values):
    """A TIFF of gray values [H, W] below 4096, with an even W: three bytes for two pixels."""
    a, b = values[:, ::2], values[:, 1::2]
    data = tiff_gray(np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], -1).astype(np.uint8).reshape(len(a), -1), 12)
    stored, real = (struct.pack("<HHII", 256, 4, 1, w) for w in (values.shape[1] * 3 // 2, values.shape[1]))
    return data.replace(stored, real)


def png_gray(rows, bits, key):
    """A PNG of gray values [H, W] below 2^bits, one of which is transparent."""
    h, w = rows.shape
    packed = np.packbits(((rows[..., None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).reshape(h, -1), axis=1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, 0, 0, 0, 0)) + chunk(b"tRNS", struct.pack(">H", key))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")
