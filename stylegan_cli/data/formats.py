"""Which files are images: their first bytes decide, not their names."""

from __future__ import annotations

import contextlib
import functools

from PIL import Image

from .crc32c import masked_crc32c

SUFFIXES = (  # files of these are taken for images; others, if their content is one
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif"),
    *(".avif", ".avifs", ".heic", ".heif", ".hif"),
)
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "HEIF")  # Pillow's decoders to use
NOT_AN_IMAGE = "not a PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF or HEIC image"
TFRECORDS, LMDB = "TFRecords: pass the file itself", "LMDB: pass the file itself"  # said of them beside image files
SNIFF = 32  # bytes that decide
CONTAINER_SNIFF = 512  # bytes that tell containers apart

_STARTS = {"PNG": (b"\x89PNG",), "JPEG": (b"\xff\xd8\xff",), "GIF": (b"GIF8",), "TIFF": (b"II*\0", b"MM\0*", b"II+\0")}
_ARCHIVES = {  # name -> (place, bytes)
    "a zip": (0, b"PK\3\4"),
    "a tar archive": (257, b"ustar"),
    "a gzip archive": (0, b"\x1f\x8b"),
    "an xz archive": (0, b"\xfd7zXZ\0"),
    "a bzip2 archive": (0, b"BZh"),
    "a Zstandard archive": (0, b"\x28\xb5\x2f\xfd"),
    "a 7z archive": (0, b"7z\xbc\xaf\x27\x1c"),
    "a RAR archive": (0, b"Rar!"),
}
_OTHERS = {
    "an HDF5 file": (0, b"\x89HDF\r\n"),
    "a Parquet file": (0, b"PAR1"),
    "a NumPy file": (0, b"\x93NUMPY"),
    "a video": (4, b"ftyp"),
}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # lengths of the header after that of the file
_AVIF, _HEIC = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Return those of FORMATS that this installation of Pillow reads."""
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports] (an extra)

        register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def format_of(
    head: bytes,  # the first SNIFF bytes of a file, or more
) -> str | None:
    """Return which of FORMATS a file has by its content; None: none of them."""
    for name, starts in _STARTS.items():
        if head.startswith(starts):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, len(head), 4))}
        return "AVIF" if brands & set(_AVIF) else "HEIF" if brands & set(_HEIC) else None
    return None


def kind_of(
    head: bytes,  # the first CONTAINER_SNIFF bytes of a file, or more
) -> tuple[str, bool] | None:
    """Return what another file is, such as 'a tar archive', and whether it is an archive; None: unknown."""
    if not head:
        return "empty", False
    if format_of(head):
        return "one image", False
    known = [*((kind, True) for kind in _ARCHIVES.items()), *((kind, False) for kind in _OTHERS.items())]
    return next(((name, is_archive) for (name, (at, magic)), is_archive in known if head.startswith(magic, at)), None)


def container_of(
    name: str,
    head: bytes,  # the first SNIFF bytes of a file, or more
) -> str | None:
    """Return TFRECORDS or LMDB if a file is one of these; TFRecords also by their name, as they may be damaged."""
    length, crc = head[:8], int.from_bytes(head[8:12], "little")
    if name.lower().endswith((".tfrecords", ".tfrecord")) or len(head) >= 16 and crc == masked_crc32c(length):
        return TFRECORDS
    return LMDB if head[16:20] == b"\xde\xc0\xef\xbe" else None


def why_unreadable(
    head: bytes,  # the first SNIFF bytes of a file, or more
) -> str | None:
    """Say why a file cannot be decoded whatever follows; None: it may be possible."""
    if not head:
        return "the file is empty"
    if format_of(head) == "AVIF" and "AVIF" not in readable_formats():
        return "AVIF images need pip install 'pillow>=11.3'"
    if format_of(head) == "HEIF" and "HEIF" not in readable_formats():
        return "HEIC images need pip install 'stylegan-cli[heic]'"
    return None
