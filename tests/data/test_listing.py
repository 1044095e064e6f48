"""Every file is an image, the labels, or listed with the reason why it is not taken. Content decides, not the name."""

import json
import os
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.formats import NOT_AN_IMAGE, format_of
from stylegan_cli.data.pack import pack
from stylegan_cli.errors import SganError


def encoded(format="PNG", seed=0, size=(16, 16)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64  # only the beginning of a file


@pytest.fixture(params=["folder", "zip"])
def source(request, tmp_path):
    """Write files: name -> bytes, and return the path of the folder or zip."""

    def write(files):
        if request.param == "zip":
            with zipfile.ZipFile(tmp_path / "src.zip", "w") as z:
                for name, data in files.items():
                    z.writestr(name, data)
            return tmp_path / "src.zip"
        for name, data in files.items():
            path = tmp_path / "src" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / "src"

    return write


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_content_decides(format):
    data = encoded(format)
    assert format_of(data[:32]) == format
    for other in (b"", b"BM is not a bitmap at all, of course", b"text", b"RIFF....WAVEfmt ", b"....ftypmp42....mp42"):
        assert format_of(other) is None


def test_every_file_is_packed_or_listed(source, tmp_path):
    files = {"a.png": encoded(), "noending": encoded(seed=1), "b.txt": encoded("JPEG"), "c.avif": encoded("AVIF")}
    others = {
        "readme.txt": (b"hello", NOT_AN_IMAGE),
        "empty": (b"", "the file is empty"),
        "empty.png": (b"", "the file is empty"),
        "bad.jpg": (b"text", "not a readable image"),
        "movie.mp4": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42", NOT_AN_IMAGE),
        ".DS_Store": (b"x", "hidden file"),
        "__MACOSX/._a.png": (b"x", "hidden file"),
        ".git/a.png": (encoded(), "hidden file"),
        "sub/thumbs.db": (b"x", "hidden file"),
        "more.zip": (b"PK\3\4", "a zip, which is not unpacked"),
        "more.tar": (bytes(257) + b"ustar", "a tar archive, which is not unpacked"),
    }
    path = source(files | {name: data for name, (data, _) in others.items()})
    report = pack(path, tmp_path / "o.zip")
    assert report.num == 4
    assert dict(report.skipped) == {name: reason for name, (_, reason) in others.items()}
    assert report.num + len(report.skipped) == len(files) + len(others)
    listed = [name for name, (_, reason) in others.items() if reason != "hidden file"]
    assert open_dataset(tmp_path / "o.zip").provenance["skipped"] == sorted(listed)
    with pytest.raises(SganError, match=r"has 7 files that cannot be read as images: bad.jpg \(not a readable image\)"):
        pack(path, tmp_path / "o.zip", strict=True)


def test_strict_accepts_hidden_files(source, tmp_path):
    assert pack(source({"a.png": encoded(), ".DS_Store": b"x"}), tmp_path / "o.zip", strict=True).num == 1


def test_dataset_lists_what_it_ignores(source):
    files = {"a.png": encoded(), "b": encoded(seed=1), "LICENSE": b"free"}
    data = open_dataset(source(files))
    assert data.names == ("a.png", "b") and data.ignored == {"LICENSE": NOT_AN_IMAGE}


def test_avif_is_read(source, tmp_path):
    data = encoded("AVIF")
    pack(source({"a.avif": data}), tmp_path / "o.zip")
    expected = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    assert np.array_equal(open_dataset(tmp_path / "o.zip").images([0])[0].permute(1, 2, 0).numpy(), expected)


def test_heic_without_the_extra_is_named(source, tmp_path, monkeypatch):
    monkeypatch.setattr("stylegan_cli.data.formats.readable_formats", lambda: ("PNG",))
    report = pack(source({"a.png": encoded(), "b.heic": HEIC, "c.jpg": HEIC, "d": HEIC}), tmp_path / "o.zip")
    reason = "HEIC images need pip install 'stylegan-cli[heic]'"
    assert dict(report.skipped) == {"b.heic": reason, "c.jpg": reason, "d": reason}


def test_heic(source, tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    image = Image.fromarray(np.full((16, 24, 3), (200, 100, 50), np.uint8))
    heif.from_pillow(image).save(tmp_path / "a.heic", quality=100)
    path = source({"photo": (tmp_path / "a.heic").read_bytes()})
    pack(path, tmp_path / "o.zip")
    image = open_dataset(tmp_path / "o.zip").images([0])[0].float()
    assert image.shape == (3, 16, 24)
    assert (image.mean((1, 2)) - image.new_tensor([200, 100, 50])).abs().max() < 2


def test_no_images_says_what_there_is(source):
    with pytest.raises(SganError, match=r"contains no images, only a.txt \(not a PNG"):
        open_dataset(source({"a.txt": b"x"}))


# ---------------------------------------------------------------------------------------------- links


@pytest.fixture
def links(tmp_path):
    if not hasattr(os, "symlink"):
        pytest.skip("needs symbolic links")
    for name, seed in (("src/a.png", 0), ("elsewhere/b.png", 1), ("elsewhere/deep/c.png", 2)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(seed=seed))
    return tmp_path / "src"


def test_linked_folders_are_followed(links, tmp_path):
    (links / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (links / "d.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    data = open_dataset(links)
    assert data.names == ("a.png", "d.png", "link/b.png", "link/deep/c.png") and data.ignored == {}


def test_circles_of_links_end(links, tmp_path):
    (links / "self").symlink_to(links, target_is_directory=True)
    (links / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(links, target_is_directory=True)
    (links / "x").symlink_to(links / "y")
    (links / "y").symlink_to(links / "x")
    (links / "gone.png").symlink_to(tmp_path / "gone.png")
    report = pack(links, tmp_path / "o.zip")
    assert report.num == 3
    reasons = dict(report.skipped)
    assert reasons["self"] == reasons["link/deep/back"] == "a link to a folder that it is in"
    assert reasons["gone.png"] == "a link to nothing"
    assert sorted(reasons) == ["gone.png", "link/deep/back", "self", "x", "y"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_opened(links, tmp_path):
    os.mkfifo(links / "pipe.png")
    (links / "null.png").symlink_to("/dev/null")
    expected = dict.fromkeys(("pipe.png", "null.png"), "not a regular file")
    assert dict(pack(links, tmp_path / "o.zip").skipped) == expected
    for path in (links / "pipe.png", "/dev/null"):
        with pytest.raises(SganError, match="is not a regular file"):
            pack(path, tmp_path / "o.zip")


@pytest.mark.parametrize(
    "path, message", [("", "The name of the file or folder is empty"), ("x" * 300, "Cannot read x")]
)
def test_paths_that_cannot_exist(tmp_path, path, message):
    for work in (open_dataset, lambda path: pack(path, tmp_path / "o.zip")):
        with pytest.raises(SganError, match=f"^{message}"):
            work(path)


def test_control_characters_in_names_are_escaped(links, tmp_path):
    (links / "a\n\x1b[31m.txt").write_bytes(b"text")
    (links / "b\n").mkdir()
    (links / "a.png").rename(links / "b\n" / "a\r.png")
    report = pack(links, tmp_path / "o.zip", labels="folders")
    assert report.classes == ("b\\n",) and report.skipped[0][0] == "a\\n\\x1b[31m.txt"
    with pytest.raises(SganError, match=r"files? .*: a\\n\\x1b\[31m.txt"):
        pack(links, tmp_path / "o.zip", strict=True)


def test_names_that_are_not_text_are_escaped(links, tmp_path):
    try:
        (links / os.fsdecode(b"\xff class")).mkdir()
    except OSError:
        pytest.skip("the file system only has names of text")
    (links / os.fsdecode(b"\xff class") / "a.png").write_bytes(encoded())
    (links / os.fsdecode(b"\xff class") / os.fsdecode(b"\xfe.txt")).write_bytes(b"text")
    (links / "a.png").rename(links / "elsewhere.txt")
    (links / "elsewhere.txt").write_bytes(b"")
    report = pack(links, tmp_path / "o.zip", labels="folders")
    assert report.classes == ("\\xff class",)
    assert report.skipped[1][0] == "\\xff class/\\xfe.txt"


# --------------------------------------------------------------------------------- where dataset.json is


LABELS = json.dumps({"labels": [["00000/img0.png", 1], ["00000/img1.png", 0]]}).encode()
IMAGES = {"00000/img0.png": encoded(), "00000/img1.png": encoded(seed=1)}


def test_dataset_json_in_the_only_top_folder(source, tmp_path):
    files = {f"mydata/{name}": data for name, data in (IMAGES | {"dataset.json": LABELS}).items()}
    path = source({**files, "__MACOSX/mydata/._x.png": b"x"})
    assert open_dataset(path, label="labels").class_index.tolist() == [1, 0]
    report = pack(path, tmp_path / "o.zip")
    assert report.classes == ("0", "1") and [name for name, _ in report.skipped] == ["__MACOSX/mydata/._x.png"]
    assert open_dataset(tmp_path / "o.zip", label="labels").class_index.tolist() == [1, 0]


@pytest.mark.parametrize(
    "files",
    [
        {f"00000/{name}": data for name, data in IMAGES.items()} | {"a/dataset.json": LABELS},
        {f"a/{name}": data for name, data in IMAGES.items()} | {"a/dataset.json": LABELS, "b.png": encoded()},
        {f"a/b/{name}": data for name, data in IMAGES.items()} | {"a/b/dataset.json": LABELS},
        IMAGES | {"dataset.json": LABELS, "00000/dataset.json": LABELS},
    ],
)
def test_dataset_json_elsewhere_is_an_error(source, tmp_path, files):
    path = source(files)
    (name,) = [n for n in files if n.endswith("/dataset.json")]
    for work in (lambda: open_dataset(path), lambda: pack(path, tmp_path / "o.zip")):
        with pytest.raises(SganError, match=f"does not belong to all images: {name}"):
            work()
    report = pack(path, tmp_path / "o.zip", labels="none")  # then it does not matter
    assert dict(report.skipped) == {name: "labels that do not belong to all images"}


def test_names_of_other_systems(tmp_path):
    """Windows writes backslashes, and `zip -r x.zip .` may write './'."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        for name, data in (IMAGES | {"dataset.json": LABELS}).items():
            entry = zipfile.ZipInfo("x")
            entry.filename = ("./" + name).replace("/", "\\") if name.endswith("img1.png") else "./" + name
            z.writestr(entry, data)
    data = open_dataset(tmp_path / "a.zip", label="labels")
    assert data.names == tuple(IMAGES) and data.class_index.tolist() == [1, 0]


def write_raw_names(path, names):
    """Write a zip with names that Python's writer would change."""
    with zipfile.ZipFile(path, "w") as z:
        for i, name in enumerate(names):
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            z.writestr(entry, encoded(seed=i))


def test_names_that_leave_the_zip_are_only_names(tmp_path):
    names = ("/etc/a.png", "../../b.png", "C:\\x\\c.png", "d//e.png", "/../f.png", "a/./g.png", "a/../h.png")
    write_raw_names(tmp_path / "a.zip", names)
    expected = ("../../b.png", "C:/x/c.png", "a/g.png", "d/e.png", "etc/a.png", "f.png", "h.png")
    assert open_dataset(tmp_path / "a.zip").names == expected
    report = pack(tmp_path / "a.zip", tmp_path / "o.zip")
    assert report.num == len(names) and report.skipped == ()
    write_raw_names(tmp_path / "b.zip", ["a/b.png", "a//b.png", "a/./b.png", "A/b.png"])
    with pytest.raises(SganError, match=r"more than one entry of the same name: a/b.png\."):
        open_dataset(tmp_path / "b.zip")


def test_accents_are_composed_differently_on_macos(source, tmp_path):
    """A zip from macOS has e + accent where the labels have one letter; two files that differ only in this stay two."""
    labels = [["\u00e9.png", 1], ["\u00e4.png", 0]]
    path = source(
        {"e\u0301.png": encoded(), "\u00e4.png": encoded(seed=1), "dataset.json": json.dumps(labels).encode()}
    )
    assert open_dataset(path, label="labels").class_index.tolist() == [1, 0]
    report = pack(path, tmp_path / "o.zip")
    assert report.classes == ("0", "1") and report.notes == ()
    path.rename(tmp_path / "old")
    path = source({"e\u0301.png": encoded(), "\u00e9.png": encoded(seed=1), "dataset.json": b'[["\xc3\xa9.png", 0]]'})
    with pytest.raises(SganError, match="has no label for 1 image: e\u0301.png"):
        open_dataset(path, label="labels")


def test_top_folder_is_no_class(source, tmp_path):
    names = ("photos/cat/a.png", "photos/cat/deep/b.png", "photos/dog/c.png")
    report = pack(source(dict.fromkeys(names, encoded())), tmp_path / "o.zip", labels="folders")
    assert report.classes == ("cat", "dog")


# ---------------------------------------------------------------------------------------- equal names


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_with_entries_of_one_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        for name in ("a.png", "a.png", "sub/b.png", "sub\\b.png"):
            z.writestr(name, encoded())
    for work in (open_dataset, lambda path: pack(path, tmp_path / "o.zip")):
        with pytest.raises(SganError, match=r"more than one entry of the same name: a.png, sub/b.png\."):
            work(tmp_path / "a.zip")


def test_png_without_ending_is_checked_to_its_end(source, monkeypatch):
    monkeypatch.setattr("stylegan_cli.data.dataset._CHECK_PIXELS", 0)
    with pytest.raises(SganError, match=r"has 1 unreadable image: a \("):
        open_dataset(source({"a": encoded()[:-60]}))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_refused(tmp_path):
    """Opening one would wait for a writer forever."""
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(SganError, match="is not a regular file"):
        open_dataset(tmp_path / "a.zip")
