"""Packing converts images of any kind to one form, and never leaves a partial file."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.pack import pack
from stylegan_cli.errors import SganError


def make_image(h, w, seed=0, channels=3):
    x = np.random.default_rng(seed).integers(0, 256, (h, w, channels), dtype=np.uint8)
    return Image.fromarray(x[..., 0] if channels == 1 else x)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def photos(tmp_path):
    """A folder with two classes and many formats, sizes and modes."""
    src = tmp_path / "photos"
    save(src / "cat" / "a.jpg", make_image(40, 60))
    save(src / "cat" / "b.png", make_image(50, 50, 1).quantize(16))
    save(src / "cat" / "deep" / "c.webp", make_image(64, 48, 2))
    save(src / "dog" / "d.tif", make_image(33, 77, 3))
    save(src / "dog" / "e.bmp", make_image(20, 20, 4))
    save(src / "dog" / "f.png", make_image(40, 40, 5, 4))
    save(src / "dog" / "g.png", make_image(40, 40, 6, 1))
    return src


def read(path):
    with zipfile.ZipFile(path) as z:
        return {n: z.read(n) for n in z.namelist()}, z.infolist()


def test_mixed_folder_becomes_a_dataset(tmp_path, photos):
    report = pack(photos, tmp_path / "out.zip", size=(32, 32), labels="folders")
    assert (report.num, report.height, report.width, report.channels) == (7, 32, 32, 3)
    assert report.classes == ("cat", "dog")
    assert report.enlarged == 1 and report.skipped == () and report.warning is None
    data = open_dataset(tmp_path / "out.zip", label="labels")
    assert data.spec.classes == ("cat", "dog")
    assert data.class_index.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert data.spec.pack_filter == "lanczos"
    assert (
        data.provenance["source"] == "photos"
        and data.provenance["size"] == [32, 32]
        and data.provenance["crop"] == "center"
    )
    gray = data.images([6])[0]
    assert (gray[0] == gray[1]).all()


def test_zip_layout_is_that_of_stylegan2_ada(tmp_path, photos):
    pack(photos, tmp_path / "out.zip", size=(16, 16), labels="folders")
    content, infos = read(tmp_path / "out.zip")
    names = [f"00000/img{i:08d}.png" for i in range(7)]
    assert list(content) == [*names, "dataset.json"]
    assert all(i.compress_type == zipfile.ZIP_STORED for i in infos[:-1])
    labels = json.loads(content["dataset.json"])["labels"]
    assert labels == [[n, k] for n, k in zip(names, [0, 0, 0, 1, 1, 1, 1])]


def test_output_does_not_depend_on_the_number_of_workers(tmp_path):
    for i in range(60):
        save(tmp_path / "src" / f"{i:02d}.png", make_image(12, 16, i))
    for workers in (1, 3):
        pack(tmp_path / "src", tmp_path / f"{workers}.zip", size=(8, 8), workers=workers)
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "3.zip").read_bytes()
    assert open_dataset(tmp_path / "1.zip").spec.num == 60


def test_default_channels_are_those_of_all_images(tmp_path):
    for name, channels in (("gray", 1), ("color", 3), ("alpha", 4)):
        for i in range(2):
            save(tmp_path / name / f"{i}.png", make_image(8, 8, i, channels))
        assert pack(tmp_path / name, tmp_path / "o.zip").channels == channels
        for requested in (1, 3, 4):
            assert pack(tmp_path / name, tmp_path / "o.zip", channels=requested).channels == requested
            assert open_dataset(tmp_path / "o.zip").spec.channels == requested


def test_alpha_is_composited_onto_white(tmp_path):
    save(tmp_path / "src" / "a.png", Image.new("RGBA", (8, 8), (255, 0, 0, 0)))
    pack(tmp_path / "src", tmp_path / "o.zip", channels=3)
    assert (open_dataset(tmp_path / "o.zip").images([0]) == 255).all()


def test_images_of_one_size_are_kept_exactly(tmp_path):
    image = make_image(12, 20)
    save(tmp_path / "src" / "a.png", image)
    pack(tmp_path / "src", tmp_path / "o.zip")
    data = open_dataset(tmp_path / "o.zip")
    assert np.array_equal(data.images([0])[0].numpy(), np.asarray(image).transpose(2, 0, 1))
    assert (data.provenance["filter"], data.provenance["crop"]) == ("none", "none")


@pytest.mark.parametrize("filter", ["box", "lanczos"])
def test_filters(tmp_path, filter):
    image = make_image(32, 32)
    save(tmp_path / "src" / "a.png", image)
    pack(tmp_path / "src", tmp_path / "o.zip", size=(8, 8), filter=filter)
    data = open_dataset(tmp_path / "o.zip")
    expected = image.resize((8, 8), {"box": Image.Resampling.BOX, "lanczos": Image.Resampling.LANCZOS}[filter])
    assert np.array_equal(data.images([0])[0].numpy(), np.asarray(expected).transpose(2, 0, 1))
    assert data.spec.pack_filter == filter


@pytest.mark.parametrize(("pad", "color"), [(None, 0), ("white", 255), ("#808080", 128), ("blur", 200)])
def test_crop_pad(tmp_path, pad, color):
    save(tmp_path / "src" / "a.png", Image.new("RGB", (40, 20), (200, 200, 200)))
    pack(tmp_path / "src", tmp_path / "o.zip", size=(20, 20), crop="pad", pad=pad)
    data = open_dataset(tmp_path / "o.zip")
    rows = data.images([0])[0, 0, :, 7].tolist()
    assert rows == [color] * 5 + [200] * 10 + [color] * 5
    assert (data.provenance["crop"], data.provenance["pad"]) == ("pad", pad or "black")


def test_padding_that_has_no_effect_or_no_meaning(photos, dest):
    assert "'white' has no effect with --crop center" in error_of(photos, dest, size=(8, 8), pad="white")
    assert "'whitish' is not a color" in error_of(photos, dest, size=(8, 8), crop="pad", pad="whitish")
    assert "The crop must be one of center, pad, none, not 'middle'" in error_of(
        photos, dest, size=(8, 8), crop="middle"
    )


def test_crop_none_stretches(tmp_path):
    halves = Image.new("RGB", (40, 20), "black")
    halves.paste((255, 255, 255), (20, 0, 40, 20))
    save(tmp_path / "src" / "a.png", halves)
    pack(tmp_path / "src", tmp_path / "o.zip", size=(20, 20), crop="none", filter="box")
    columns = open_dataset(tmp_path / "o.zip").images([0])[0, 0, 0].tolist()
    assert columns == [0] * 10 + [255] * 10


def test_repacking_keeps_labels_and_attributes(tmp_path, photos):
    pack(photos, tmp_path / "a.zip", size=(32, 32), labels="folders")
    with zipfile.ZipFile(tmp_path / "a.zip") as z:
        z.extractall(tmp_path / "a")
    content = json.loads((tmp_path / "a" / "dataset.json").read_text())
    content["attributes"] = {"legs": [str(i) for i in range(7)]}
    (tmp_path / "a" / "dataset.json").write_text(json.dumps(content))
    broken = tmp_path / "a" / "00000" / "img00000001.png"
    broken.write_bytes(b"broken")
    report = pack(tmp_path / "a", tmp_path / "b.zip", size=(16, 16))
    assert [name for name, _ in report.skipped] == ["00000/img00000001.png"]
    data = open_dataset(tmp_path / "b.zip", label="labels")
    assert data.class_index.tolist() == [0, 0, 1, 1, 1, 1] and data.spec.classes == ("cat", "dog")
    assert data.attributes["legs"] == ["0", "2", "3", "4", "5", "6"]
    assert data.provenance["from"]["source"] == "photos" and data.provenance["skipped"] == ["00000/img00000001.png"]
    pack(tmp_path / "a", tmp_path / "c.zip", labels="none")
    assert open_dataset(tmp_path / "c.zip").stored_counts == {}


@pytest.mark.parametrize(
    "content",
    [
        {"labels": [["a.png", 1], ["b.png", 0]]},
        [["b.png", 0], ["a.png", 1]],
        {"a.png": 1, "b.png": 0},
        {"a.png": "zebra", "b.png": "ant"},
    ],
)
def test_labels_from_a_file(tmp_path, content):
    for name in "ab":
        save(tmp_path / "src" / f"{name}.png", make_image(8, 8))
    (tmp_path / "labels.json").write_text(json.dumps(content))
    report = pack(tmp_path / "src", tmp_path / "o.zip", labels=tmp_path / "labels.json")
    assert open_dataset(tmp_path / "o.zip", label="labels").class_index.tolist() == [1, 0]
    assert report.classes in (("0", "1"), ("ant", "zebra"))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_arrays(tmp_path, layout, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), dtype=np.uint8)
    stored = {"NHWC": pixels, "NCHW": pixels.transpose(0, 3, 1, 2), "NHW": pixels[..., 0]}[layout]
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, stored)
    else:
        np.savez(path, images=stored, labels=np.array([2, 0, 1, 2, 2]))
    report = pack(path, tmp_path / "o.zip")
    assert (report.num, report.channels) == (5, 1 if layout == "NHW" else 3)
    data = open_dataset(tmp_path / "o.zip", label="labels" if suffix == "npz" else None)
    expected = pixels.transpose(0, 3, 1, 2)[:, : report.channels]
    assert np.array_equal(data.images(range(5)).numpy(), expected)
    if suffix == "npz":
        assert data.class_index.tolist() == [2, 0, 1, 2, 2]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_column_of_class_numbers(tmp_path, dtype):
    """As in the NumPy files of CIFAR-10."""
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    numbers = np.arange(10)[::-1, None].astype(dtype)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=numbers, x_test=images[:2])
    report = pack(tmp_path / "a.npz", tmp_path / "o.zip", strict=False)
    assert report.skipped == (("x_test [2, 32, 32, 3]", "another array; the images are x_train, the labels y_train"),)
    data = open_dataset(tmp_path / "o.zip", label="labels")
    assert data.class_index.tolist() == list(range(10))[::-1] and data.spec.c_dim == 10


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array(["b", "a"]), [[0, 1], [1, 0]]),
        (np.array([b"b", b"a"]), [[0, 1], [1, 0]]),
        (np.array([True, False]), [[0, 1], [1, 0]]),
        (np.array([[True, True], [False, True]]), [[1, 1], [0, 1]]),
        (np.array([0.5, 1.0]), [[0.5], [1]]),
        (np.array([[0.5, 2], [3, 4]], np.float32), [[0.5, 2], [3, 4]]),
    ],
)
def test_labels_of_arrays(tmp_path, labels, expected):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8), np.uint8), labels=labels)
    pack(tmp_path / "a.npz", tmp_path / "o.zip")
    assert open_dataset(tmp_path / "o.zip", label="labels").labels([0, 1]).tolist() == expected


def test_class_folders_in_the_order_of_numbers(tmp_path):
    for i in range(12):
        save(tmp_path / "src" / str(i) / "a.png", make_image(8, 8, i))
    report = pack(tmp_path / "src", tmp_path / "o.zip", labels="folders")
    assert report.classes == tuple(map(str, range(12)))
    data = open_dataset(tmp_path / "o.zip", label="labels")
    for image, k in zip(data.images(range(12)), data.class_index, strict=True):
        assert np.array_equal(image.permute(1, 2, 0), np.asarray(make_image(8, 8, int(k))))


@pytest.mark.parametrize("labels", ["folders", "file", None])
def test_unreadable_files_need_no_label(tmp_path, photos, labels):
    names = sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.*"))
    save(photos / "whole.png", make_image(16, 16))
    (photos / "cut.png").write_bytes((photos / "whole.png").read_bytes()[:-60])  # seen only when it is decoded
    (photos / "whole.png").unlink()
    (photos / "bad.jpg").write_bytes(b"bad")
    (photos / "notes.txt").write_text("x")
    file = tmp_path / "l.json" if labels == "file" else photos / "dataset.json"
    file.write_text(json.dumps({"labels": [[n, n.split("/")[0]] for n in [*names, "gone.png"]]}))
    chosen = {"folders": "folders", "file": file, None: None}[labels]
    report = pack(photos, tmp_path / "o.zip", size=(16, 16), labels=chosen)
    assert report.num == 7 and report.classes == ("cat", "dog")
    assert [name for name, _ in report.skipped] == ["bad.jpg", "cut.png", "notes.txt"]
    assert open_dataset(tmp_path / "o.zip", label="labels").class_index.tolist() == [0, 0, 0, 1, 1, 1, 1]
    extra = f"{file if labels else photos} has labels for 1 missing file: gone.png."
    assert report.notes == (() if labels == "folders" else (extra,))


def test_repacking_keeps_vectors(tmp_path):
    for name in "ab":
        save(tmp_path / "src" / f"{name}.png", make_image(8, 8))
    vectors = {"a.png": [0.1, -2.5], "b.png": [1, 0]}
    content = {"labels": list(vectors.items()), "sgan": {"classes": ["age", "yaw"]}}
    (tmp_path / "src" / "dataset.json").write_text(json.dumps(content))
    pack(tmp_path / "src", tmp_path / "a.zip")
    pack(tmp_path / "a.zip", tmp_path / "b.zip")
    data = open_dataset(tmp_path / "b.zip", label="labels")
    assert data.spec.classes == ("age", "yaw") and data.stored.values.tolist() == [[0.1, -2.5], [1, 0]]


def test_opaque_alpha_is_reported(tmp_path):
    for i in range(3):
        save(tmp_path / "src" / f"{i}.png", make_image(8, 8, i).convert("RGBA"))
    report = pack(tmp_path / "src", tmp_path / "o.zip")
    assert report.channels == 4 and "--channels 3" in report.notes[0]
    assert pack(tmp_path / "src", tmp_path / "o.zip", channels=4).notes == ()  # as asked
    assert pack(tmp_path / "src", tmp_path / "o.zip", channels=3).notes == ()
    save(tmp_path / "src" / "3.png", make_image(8, 8, 3, 4))
    assert pack(tmp_path / "src", tmp_path / "o.zip").notes == ()


@pytest.mark.parametrize("text", ["{", "7", '{"attributes": {"hat": [1, 2]}}'])
def test_labels_of_unknown_form_matter_only_if_they_are_used(tmp_path, photos, dest, text):
    (photos / "dataset.json").write_text(text)
    message = error_of(photos, dest, size=(16, 16))
    for labels, classes in (("none", ()), ("folders", ("cat", "dog"))):
        report = pack(photos, tmp_path / "out.zip", size=(16, 16), labels=labels)
        assert report.num == 7 and report.classes == classes and report.notes == (message,)


def test_unused_labels_of_arrays_do_not_matter(tmp_path, dest):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.zeros(3))
    assert "labels of shape [3] for 2 images" in error_of(tmp_path / "a.npz", dest)
    assert pack(tmp_path / "a.npz", tmp_path / "out.zip", labels="none").num == 2


def test_attributes_that_do_not_fit_are_named(tmp_path):
    save(tmp_path / "src" / "a.png", make_image(8, 8))
    content = {"labels": None, "attributes": {"hat": ["x", "y"], "tie": ["z"]}}
    (tmp_path / "src" / "dataset.json").write_text(json.dumps(content))
    report = pack(tmp_path / "src", tmp_path / "o.zip")
    assert report.notes == ("Attributes without exactly one value for each image are omitted: hat.",)
    assert open_dataset(tmp_path / "o.zip").attributes == {"tie": ["z"]}


def test_size_that_no_model_supports_gives_a_warning(tmp_path):
    save(tmp_path / "src" / "a.png", make_image(40, 60))
    report = pack(tmp_path / "src", tmp_path / "o.zip", size=(31, 47))
    assert "31x47" in report.warning and "nearest sizes" in report.warning


# ----------------------------------------------------------------------------------------- bad input


def error_of(*args, **options):
    with pytest.raises(SganError) as e:
        pack(*args, **options)
    assert "\n" not in str(e.value)
    return str(e.value)


@pytest.fixture
def dest(tmp_path):
    """A destination whose folder must stay empty."""
    folder = tmp_path / "dest"
    folder.mkdir()
    yield folder / "out.zip"
    assert list(folder.iterdir()) == []


def test_mixed_sizes_without_a_size_are_rejected(photos, dest):
    message = error_of(photos, dest)
    assert "most have 40x40 (height x width), but not cat/a.jpg (40x60)" in message


def test_unreadable_files_are_skipped_and_named(tmp_path, photos):
    (photos / "cat" / "bad.png").write_bytes(b"bad")
    whole = (photos / "dog" / "d.tif").read_bytes()
    (photos / "dog" / "cut.tif").write_bytes(whole[: len(whole) // 2])
    report = pack(photos, tmp_path / "o.zip", size=(16, 16), labels="folders")
    assert report.num == 7
    assert [name for name, _ in report.skipped] == ["cat/bad.png", "dog/cut.tif"]
    assert open_dataset(tmp_path / "o.zip").provenance["skipped"] == ["cat/bad.png", "dog/cut.tif"]


def test_strict_rejects_unreadable_files(photos, dest):
    save(photos / "whole.png", make_image(16, 16))
    broken = (photos / "whole.png").read_bytes()[:-60]  # the header is valid, so it fails only while packing
    (photos / "whole.png").unlink()
    (photos / "cut.png").write_bytes(broken)
    assert "cut.png" in error_of(photos, dest, size=(16, 16), strict=True)
    (photos / "bad.jpg").write_bytes(b"bad")
    assert "bad.jpg" in error_of(photos, dest, size=(16, 16), strict=True)


def test_nothing_readable(tmp_path, dest):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.png").write_bytes(b"bad")
    assert "None of the images" in error_of(tmp_path / "src", dest)


def test_invalid_sources(tmp_path, dest):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    assert "contains no images" in error_of(tmp_path / "empty", dest)
    assert "does not exist" in error_of(tmp_path / "gone", dest)
    assert "does not exist" in error_of(tmp_path / "gone.npz", dest)
    assert "neither a folder nor a zip" in error_of(tmp_path / "a.zip", dest)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "is empty."),
        (bytes(257) + b"ustar\x0000", "is a tar archive."),
        (b"\x1f\x8b\x08", "is a gzip archive."),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file."),
        (b"\x89PNG\r\n\x1a\n", "is one image."),
        (b"a,b\n", "is neither a folder nor a zip."),
    ],
)
def test_other_files_are_named(tmp_path, dest, data, message):
    (tmp_path / "data").write_bytes(data)
    assert error_of(tmp_path / "data", dest).endswith(message)


def test_zip_of_other_files_is_no_array(tmp_path, photos, dest):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as z:
        z.write(photos / "dog" / "g.png", "g.png")
    assert error_of(tmp_path / "a.npz", dest).endswith("cannot be read: its g.png is not a NumPy array.")


def test_truncated_zip(tmp_path, photos, dest):
    pack(photos, tmp_path / "a.zip", size=(16, 16))
    whole = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(whole[: len(whole) // 2])
    assert "is truncated" in error_of(tmp_path / "b.zip", dest)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_member_of_a_compressed_zip_is_skipped(tmp_path, method):
    """Names may be written with backslashes, as some programs on Windows do."""
    save(tmp_path / "a.png", make_image(16, 16))
    with zipfile.ZipFile(tmp_path / "src.zip", "w", method) as z:
        for name in ("x\\a.png", "x\\b.png"):
            z.write(tmp_path / "a.png", name)
        damaged = z.getinfo("x\\b.png")
    data = bytearray((tmp_path / "src.zip").read_bytes())
    middle = damaged.header_offset + 30 + len(damaged.filename) + damaged.compress_size // 2
    data[middle : middle + 20] = bytes(20)
    (tmp_path / "src.zip").write_bytes(data)
    report = pack(tmp_path / "src.zip", tmp_path / "o.zip")
    assert report.num == 1 and [name for name, _ in report.skipped] == ["x/b.png"]


def test_pixel_bomb_counts_as_unreadable(tmp_path, photos):
    report = pack(photos, tmp_path / "o.zip", size=(16, 16), max_pixels=2500)
    assert (
        "dog/d.tif",
        "its 33x77 pixels (height x width) exceed the limit of 2500; `sgan data pack --max-pixels` raises it",
    ) in report.skipped


def test_labels_that_do_not_match_are_rejected(tmp_path, photos, dest):
    file = tmp_path / "l.json"
    file.write_text(json.dumps({"cat/a.jpg": 0, "gone.png": 1}))
    assert "has no label for 6 images: " in error_of(photos, dest, size=(8, 8), labels=file)
    file.write_text("{")
    assert "not valid JSON" in error_of(photos, dest, size=(8, 8), labels=file)
    file.write_text("{}")
    assert "has no labels" in error_of(photos, dest, size=(8, 8), labels=file)
    assert "Cannot read the labels folder" in error_of(photos, dest, size=(8, 8), labels="folder")
    save(photos / "loose.png", make_image(8, 8))
    assert "1 image outside its subfolders: loose.png" in error_of(photos, dest, size=(8, 8), labels="folders")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 8, 8, 3))}, "float64"),
        ({"images": np.zeros((2, 8, 8, 2), np.uint8)}, "has shape"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "is empty"),
        ({"images": np.array([{}, 1], object)}, "pickled objects"),
        ({"p": np.zeros((2, 8, 8), np.uint8), "q": np.zeros((2, 8, 8), np.uint8)}, "no image array"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": np.zeros(3, np.int64)}, "labels of shape"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": np.array([-1, 1])}, "neither class numbers"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": np.array([1j, 2])}, "labels of type complex128"),
    ],
)
def test_arrays_that_are_not_images(tmp_path, dest, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    assert message in error_of(tmp_path / "a.npz", dest)


def test_broken_array_files(tmp_path, dest):
    for name in ("a.npz", "a.npy"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not an array")
        assert "cannot be read" in error_of(tmp_path / name, dest)


def test_invalid_destinations(tmp_path, photos):
    assert "not a .zip file name" in error_of(photos, tmp_path / "out.tar", size=(8, 8))
    assert "not a .zip file name" in error_of(photos, tmp_path, size=(8, 8))
    (tmp_path / "file").write_text("")
    assert "Cannot write" in error_of(photos, tmp_path / "file" / "o.zip", size=(8, 8))
    (tmp_path / "self.zip").write_text("")
    assert "is the source itself" in error_of(tmp_path / "self.zip", tmp_path / "self.zip")


def test_full_disk_is_reported(photos, dest, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    assert "No space left on device" in error_of(photos, dest, size=(8, 8))


def test_failed_packing_keeps_the_existing_dataset(tmp_path, photos):
    dest = tmp_path / "o.zip"
    dest.write_bytes(b"old")
    (photos / "bad.png").write_bytes(b"bad")
    error_of(photos, dest, size=(8, 8), strict=True)
    assert dest.read_bytes() == b"old"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a process there")
def test_ctrl_c_leaves_no_files(tmp_path, dest):
    np.save(tmp_path / "a.npy", np.zeros((300, 700, 700, 3), np.uint8))
    run = subprocess.Popen(
        [sys.executable, "-m", "stylegan_cli", "data", "pack", tmp_path / "a.npy", dest, "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    deadline = time.monotonic() + 20
    while not list(dest.parent.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # to the workers too, like a terminal
    _, errors = run.communicate(timeout=20)
    assert run.returncode == 130, errors
    assert "Traceback" not in errors


def test_packing_does_not_import_torch():
    code = "import sys, stylegan_cli.data.pack, stylegan_cli.data.demo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
