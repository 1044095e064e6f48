"""Generated folders and zips, each packed by the command line and compared with a plain conversion.

`python tests/data/fuzz_datasets.py [COUNT] [FIRST]` runs the cases FIRST to FIRST + COUNT - 1. A case either packs to a
dataset that opens, and whose pixels are those of Pillow and LittleCMS within 1/255, or fails with one sentence. Files
that are not taken and images that are packed are together the files given.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import sys
import tempfile
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import _image_files as files
import numpy as np
from click.testing import CliRunner
from PIL import Image, ImageCms, ImageOps, features

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
PROFILES = {
    "RGB": [
        files.rgb_profile(),
        files.rgb_profile(files.ADOBE_RGB),
        SRGB.tobytes(),
        files.rgb_profile(padding=1_100_000),
    ],
    "L": [files.gray_profile(2.2), files.gray_profile(1.8), files.rgb_profile()],
    "CMYK": [files.cmyk_profile(), files.rgb_profile()],
}
MODES = {  # of each format
    "PNG": ["1", "L", "LA", "P", "P+", "RGB", "RGBA", "L16", "L16+", "RGB16", "RGBA16", "L2+"],
    "JPEG": ["L", "RGB", "CMYK"],
    "WEBP": ["RGB", "RGBA"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "L12", "L16", "white is 0", "I", "F"],
    "BMP": ["1", "L", "P", "RGB"],
    "GIF": ["P", "P+", "L", "frames"],
    **({"AVIF": ["RGB", "RGBA"]} if features.check("avif") else {}),
}
REFUSED = ("I", "F")  # whose range is unknown
STEMS = ["a", "b c", "é", "e\u0301", "名前", "🦋", "%41", "a'b\"c", "x" * 120, "-size", "con", "img.png", "😀.x"]
FOLDERS = ["", "0/", "1/", "2/", "10/", "cats/", "dogs/deep/", "ネコ/", ".hidden/", "__MACOSX/"]
JUNK = {"notes.txt": b"hello", "empty.png": b"", "text.jpg": b"no image", "video.mp4": b"\0\0\0 ftypisom" + bytes(40)}


@dataclass
class File:
    """A file of the case."""

    data: bytes
    reference: Image.Image | None = None  # in 8 bits, where Pillow does not convert as viewers do
    readable: bool | None = True  # None: either is fine


@dataclass
class Case:
    """A folder or zip, and what is known about it."""

    files: dict[str, File] = field(default_factory=dict)
    unreadable: int = 0  # links to nothing, or in circles: also listed
    labels: dict[str, object] | None = None  # valid ones, which must be kept
    must_fail: bool = False
    may_fail: bool = False  # the container or the labels are damaged
    options: list[str] = field(default_factory=list)


def make_image(rng: random.Random, format: str, mode: str, size: tuple[int, int], profiled: bool) -> File:
    """Encode a smooth image with noise."""
    h, w = size
    y, x = np.mgrid[:h, :w]
    noise = np.random.default_rng(rng.randrange(1 << 30))
    waves = [128 + 100 * np.sin(x / rng.uniform(2, 9) + y / rng.uniform(2, 9) + k) for k in range(4)]
    pixels = np.clip(np.stack(waves, -1) + noise.normal(0, 12, (h, w, 4)), 0, 255).astype(np.uint8)
    deep = pixels.astype(np.uint16) * 256 + noise.integers(0, 256, pixels.shape).astype(np.uint16)
    gray = Image.fromarray(pixels[..., 0])
    gray16 = Image.fromarray(np.round(deep[..., 0] / 257).astype(np.uint8))
    if mode == "L16":
        return File(files.encoded(Image.fromarray(deep[..., 0]), format), gray16)
    if mode in ("RGB16", "RGBA16"):
        return File(files.png16(deep[..., : 3 if mode == "RGB16" else 4]))
    if mode in ("L16+", "L2+"):
        bits = int(mode[1:-1])
        values = deep[..., 0].astype(int) >> 16 - bits
        key = int(values[h // 2, w // 2])
        reference = Image.fromarray(np.round(values * 255 / ((1 << bits) - 1)).astype(np.uint8)).convert("RGBA")
        reference.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
        return File(files.png_gray(values, bits, key), reference)
    if mode == "L12":
        even = deep[:, : w // 2 * 2, 0].astype(int) >> 4
        return File(files.tiff_12_bit(even), Image.fromarray(np.round(even * 255 / 4095).astype(np.uint8)))
    if mode == "white is 0":
        return File(files.tiff_gray(deep[..., 0], 16, photometric=0), ImageOps.invert(gray16))
    if mode in REFUSED:
        return File(files.encoded(gray.convert(mode), format), readable=False)
    return _encode(rng, format, mode, pixels, profiled)


def _encode(rng: random.Random, format: str, mode: str, pixels: np.ndarray, profiled: bool) -> File:
    """Encode with Pillow, with metadata at times."""
    color = Image.fromarray(pixels[..., :3])
    options: dict = {"JPEG": {"quality": rng.choice([75, 95])}, "WEBP": {"lossless": rng.random() < 0.5}}.get(
        format, {}
    )
    if mode in ("LA", "RGBA"):
        image = color.convert(mode)
        image.putalpha(Image.fromarray(pixels[..., 3]))
    elif mode in ("P", "P+", "frames"):
        image = color.quantize(rng.choice([4, 16, 256]))
        options |= {"transparency": 1} if mode == "P+" else {}
        options |= {"save_all": True, "append_images": [image.rotate(180)]} if mode == "frames" else {}
    elif mode == "LAB":
        image = ImageCms.profileToProfile(color, SRGB, ImageCms.createProfile("LAB"), outputMode="LAB")
    else:
        image = color.convert(mode)
    if profiled and format in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF") and mode != "LAB":
        kind = "L" if mode in ("1", "L", "LA") else "CMYK" if mode == "CMYK" else "RGB"
        options["icc_profile"] = rng.choice([*PROFILES[kind], b"damaged"])
    if format in ("PNG", "JPEG", "WEBP", "AVIF") and rng.random() < 0.2:
        exif = Image.Exif()
        exif[0x0112] = rng.randint(1, 8)
        exif[0x010E] = "x" * rng.choice([10, 30_000])
        options["exif"] = exif
    if format == "TIFF":
        options["compression"] = rng.choice(["raw", "tiff_lzw", "tiff_adobe_deflate"])
    return File(files.encoded(image, format, **options))


def make_case(seed: int) -> Case:
    """A random case."""
    rng = random.Random(seed)
    case = Case()
    size = rng.choice([(16, 16), (24, 32), (17, 30)])
    resized = rng.random() < 0.6
    if resized:
        case.options += [
            "--size",
            rng.choice(["16", "32", "12x24", "24x12"]),
            "--filter",
            rng.choice(["box", "lanczos"]),
        ]
        case.options += ["--crop", rng.choice(["center", "none", "pad"])]
    if rng.random() < 0.3:
        case.options += ["--channels", rng.choice("134")]
    for i in range(rng.randint(1, 6)):
        name = rng.choice(FOLDERS) + rng.choice(STEMS) + str(i)
        if rng.random() < 0.1:
            case.files[name + rng.choice(list(JUNK))] = File(rng.choice(list(JUNK.values())), readable=False)
            continue
        format = rng.choice(list(MODES))
        own = (rng.randint(5, 40), rng.randint(5, 40)) if resized else size
        file = make_image(rng, format, rng.choice(MODES[format]), own, rng.random() < 0.6)
        suffix = {"JPEG": ".jpg", "TIFF": ".tif"}.get(format, f".{format.lower()}")
        case.files[name + rng.choice([suffix, suffix, suffix.upper(), "", ".png", ".bin"])] = damaged(rng, file)
    if rng.random() < 0.15:  # the same content under another name
        name, file = rng.choice(list(case.files.items()))
        case.files["copy of " + name.replace("/", " ")] = file
    if all("/" in name for name in case.files) and rng.random() < 0.3:
        case.options += ["--labels", "folders"]
        case.labels = {name: name.split("/")[0] for name in case.files}
    elif rng.random() < 0.5:
        add_labels(rng, case)
    return case


def damaged(rng: random.Random, file: File) -> File:
    """Cut or change some files."""
    kind, data = rng.random(), file.data
    if kind < 0.85:
        return file
    if kind < 0.93:
        return File(data[: rng.randrange(len(data))], file.reference, None if file.readable else False)
    if kind < 0.96:
        return File(data + b"trailing", file.reference, file.readable)
    if file.reference or not file.readable:  # a changed header may mean another range
        return file
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return File(bytes(changed), None, None)


def add_labels(rng: random.Random, case: Case) -> None:
    """Add a dataset.json, at times with mistakes."""
    kind = rng.choice(["numbers", "words", "one-hot", "missing", "extra", "many", "text", "twice"])
    names = list(case.files)
    values = {
        name: rng.choice({"words": ["cat", "dog"], "one-hot": [[0, 1], [1, 0]]}.get(kind, [0, 1, 2])) for name in names
    }
    pairs = [[name, value] for name, value in values.items()]
    if kind in ("numbers", "words", "one-hot"):
        case.labels = {name: value.index(1) if isinstance(value, list) else value for name, value in values.items()}
    else:
        case.may_fail = True
        pairs = {
            "missing": pairs[1:],
            "extra": [*pairs, ["gone.png", 1]],
            "many": [[n, [1, 1, 0]] for n in names],
            "twice": [*pairs, pairs[0]],
        }.get(kind, pairs)
    text = b"{" if kind == "text" else json.dumps({"labels": pairs}).encode()
    case.files["dataset.json"] = File(text, readable=False)
    if rng.random() < 0.1:
        case.files["other/dataset.json"] = case.files.pop("dataset.json")
        case.may_fail, case.labels = True, None
        return
    if rng.random() < 0.3:
        case.options += ["--labels", "none"]
        case.labels, case.may_fail = None, kind == "text"


def write_folder(rng: random.Random, case: Case, path: Path) -> None:
    """Write the files, with some links and names that are not text."""
    for name, file in list(case.files.items()):
        if rng.random() < 0.05 and "dataset.json" not in case.files:
            case.files[name := name + os.fsdecode(b"\xff\xe9")] = case.files.pop(name)
            case.labels = None if case.labels is None else {n: n.split("/")[0] for n in case.files}
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(file.data)
    if rng.random() < 0.25:
        kind, link = rng.choice(["nothing", "circle", "itself", "file", "folder"]), path / "0-link"
        outside = path.parent / "outside"
        if kind in ("nothing", "itself"):
            link.symlink_to(link if kind == "itself" else "gone.png")
        elif kind == "circle":
            link.symlink_to(path)
        else:
            outside.mkdir()
            file = make_image(rng, "PNG", "RGB", (16, 16), True)
            (outside / "z.png").write_bytes(file.data)
            link.symlink_to(outside / "z.png" if kind == "file" else outside)
            case.files["0-link" if kind == "file" else "0-link/z.png"] = file
            case.may_fail, case.labels = True, None  # without a label, or of another size
        case.unreadable += kind in ("nothing", "itself", "circle")


def write_zip(rng: random.Random, case: Case, path: Path) -> None:
    """Write the files, compressed in several ways, with some damage."""
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", rng.choice(methods)) as z:
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, file in case.files.items():
            z.writestr(name.replace("/", "\\") if rng.random() < 0.05 else name, file.data)
        if rng.random() < 0.05:
            z.writestr(rng.choice(list(case.files)), b"another")
            case.must_fail = True
        if rng.random() < 0.2:
            z.mkdir("an empty folder")
    if rng.random() < 0.1:
        case.may_fail, data = True, bytearray(path.read_bytes())
        for file in case.files.values():
            file.readable = file.readable and None
        if rng.random() < 0.5:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        case.labels, known = None, [*case.files.values(), File(b"", readable=False)]
        with contextlib.suppress(Exception), zipfile.ZipFile(path) as z:  # names may have changed
            names = [i.filename.replace("\\", "/") for i in z.infolist() if not i.is_dir()]
            case.files = dict(zip(names, known))


def plain(data: bytes) -> Image.Image:
    """The plainest conversion: L, RGB or RGBA in sRGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata; the command line must show none
        opened = Image.open(io.BytesIO(data))
        opened.load()
        profile, image = opened.info.get("icc_profile"), ImageOps.exif_transpose(opened)
    has_alpha = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    is_gray = image.mode in ("1", "L", "LA")
    alpha = image.convert("RGBA").getchannel("A") if has_alpha else None
    with contextlib.suppress(OSError, ImageCms.PyCMSError):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        space = source.profile.xcolor_space.strip()
        mode = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(space)
        if mode and (space == "CMYK") == (image.mode == "CMYK") and (is_gray or space != "GRAY"):
            stored = image.convert("RGBA").convert("RGB") if mode == "RGB" else image
            image = ImageCms.profileToProfile(
                stored if stored.mode == mode else stored.convert(mode), source, SRGB, outputMode="RGB"
            )
    image = (image.convert("RGBA") if image.mode in ("P", "PA") else image).convert("RGB")
    if alpha:
        image.putalpha(alpha)
    return image.convert("L") if is_gray and not alpha else image


def expected(file: File, report: dict, options: list[str]) -> np.ndarray:
    """The pixels that a file must be packed to: [H, W] or [H, W, C]."""
    image = file.reference or plain(file.data)
    if report["channels"] != 4 and image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[report["channels"]])
    (h, w), (height, width) = image.size[::-1], (report["height"], report["width"])
    if "--size" in options and (h, w) != (height, width):
        crop, filter = options[options.index("--crop") + 1], options[options.index("--filter") + 1]
        resample, scale = Image.Resampling[filter.upper()], min(height / h, width / w)
        inner = max(1, round(h * scale)), max(1, round(w * scale))
        if crop == "pad" and inner != (height, width):
            canvas = Image.new(image.mode, (width, height), "black")
            small = image if inner == (h, w) else image.resize(inner[::-1], resample)
            canvas.paste(small, ((width - inner[1]) // 2, (height - inner[0]) // 2))
            return np.asarray(canvas)
        if crop == "center":
            ch, cw = min(h, max(1, round(w * height / width))), min(w, max(1, round(h * width / height)))
            top, left = (h - ch) // 2, (w - cw) // 2
            image = Image.fromarray(np.asarray(image)[top : top + ch, left : left + cw])
        image = image if image.size == (width, height) else image.resize((width, height), resample)
    return np.asarray(image)


def run(seed: int, work: Path) -> str:
    """Run a case; return 'packed', 'partly packed' or 'failed'. Raises AssertionError if it is at fault."""
    from stylegan_cli.cli import main

    rng, case = random.Random(-seed - 1), make_case(seed)
    source, dest = work / rng.choice(["src", "src.zip"]), work / "out" / "out.zip"
    dest.parent.mkdir()
    (write_zip if source.suffix else write_folder)(rng, case, source)
    strict = rng.random() < 0.1
    command = ["data", "pack", source, dest, *case.options, *["--strict"][:strict], "--workers", "1", "--json"]
    result = CliRunner().invoke(main, [str(a) for a in command])
    assert "Warning" not in result.stderr, result.stderr
    if result.exit_code:
        lines = result.stderr.strip().splitlines()
        assert result.exit_code == 1 and lines[0].startswith("Error: ") and len(lines) <= 2, result.output
        assert not re.match(r"Error: \w+(Error|Exception): ", lines[0]), lines[0]  # not expected by the program
        assert not list(dest.parent.iterdir()), "a file is left"
        is_fine = "--size" in case.options and any(f.readable and not is_hidden(n) for n, f in case.files.items())
        assert case.must_fail or case.may_fail or strict or not is_fine, result.stderr
        return "failed"
    assert not case.must_fail, "two entries of one name"
    check(case, json.loads(result.stdout), dest)
    return "packed" if len(case.files) == json.loads(result.stdout)["num"] else "partly packed"


def check(case: Case, report: dict, dest: Path) -> None:
    """Compare a dataset with the files that it was packed from."""
    from stylegan_cli.data.dataset import open_dataset

    given = {printable(name): file for name, file in case.files.items() if name != "dataset.json"}
    skipped = dict(report["skipped"])
    assert report["num"] + len(skipped) == len(given) + case.unreadable, (list(given), skipped)
    packed = [name for name in sorted(case.files) if printable(name) in given and printable(name) not in skipped]
    assert len(packed) == report["num"]
    data = open_dataset(dest, label="labels" if case.labels and report["classes"] else None)
    assert (data.spec.num, data.spec.channels) == (report["num"], report["channels"])
    images = data.images(range(len(data))).numpy()
    for name, pixels in zip(packed, images, strict=True):
        file = case.files[name]
        assert file.readable is not False, f"{name} was packed"
        difference = np.abs(
            pixels.transpose(1, 2, 0).squeeze(-1 if len(pixels) == 1 else ()).astype(int)
            - expected(file, report, case.options)
        )
        assert difference.max() <= 1, f"{name} is {difference.max()} levels off"
    for name in skipped:
        assert is_hidden(name) or name not in given or not given[name].readable, f"{name} was skipped: {skipped[name]}"
    if case.labels and report["classes"]:
        found = [data.spec.classes[k] for k in data.class_index]
        below = (
            "folders" in case.options
            and len({name.split("/")[0] for name in packed}) == 1
            and found[0] != packed[0].split("/")[0]
        )
        assert found == [name.split("/")[1] if below else str(case.labels[name]) for name in packed]


def is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def run_all(seeds: range) -> dict[str, int]:
    """Run cases, and return how many had which result. Raises AssertionError that names the seed."""
    counts: dict[str, int] = {}
    for seed in seeds:
        try:
            with tempfile.TemporaryDirectory(prefix="fuzz") as work:
                result = run(seed, Path(work))
        except Exception as e:
            raise AssertionError(f"case {seed}: {type(e).__name__}: {e}") from e
        counts[result] = counts.get(result, 0) + 1
    return counts


if __name__ == "__main__":
    count, first = (int(text) for text in (*sys.argv[1:], *("60", "0")[len(sys.argv) - 1 :]))
    print(run_all(range(first, first + count)))
