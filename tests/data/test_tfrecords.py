"""TFRecords as sources of datasets. The records are written by _records.py, by their definition."""

import io
import json
import shutil

import numpy as np
import pytest
from _records import crc32c as crc32c_by_bytes
from _records import example, frame, pixels_example, write_records
from PIL import Image

from stylegan_cli.data.crc32c import crc32c
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.example import parse_example
from stylegan_cli.data.opening import open_source
from stylegan_cli.data.pack import pack
from stylegan_cli.errors import SganError


def make_pixels(count, channels=3, height=32, width=32):
    return np.random.default_rng(height).integers(0, 256, (count, channels, height, width), dtype=np.uint8)


def halves(pixels):
    """NVIDIA's next level: averages of 2x2, rounded."""
    x = pixels.astype(np.float32)
    return np.rint((x[..., ::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, ::2] + x[..., 1::2, 1::2]) / 4).astype(np.uint8)


def write_levels(folder, pixels, labels=None, name="faces"):
    """The folder of NVIDIA's dataset_tool: one file per level down to 4x4."""
    levels = [pixels]
    while levels[-1].shape[-1] > 4:
        levels.append(halves(levels[-1]))
    for level in levels:
        path = folder / f"{name}-r{level.shape[-1].bit_length() - 1:02d}.tfrecords"
        write_records(path, map(pixels_example, level))
    if labels is not None:
        np.save(folder / "x.npy", labels)
        (folder / "x.npy").rename(folder / f"{name}-rxx.labels")
    return folder


def packed(src, tmp_path, **options):
    report = pack(src, tmp_path / "out.zip", **options)
    return report, open_dataset(report.path).images(range(report.num)).numpy()


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 511, 512, 513, 1024, 70_000])
def test_crc32c(length):
    assert crc32c(b"123456789") == 0xE3069283  # the usual check value
    assert crc32c(b"\0" * 32) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43  # RFC 3720, B.4
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == crc32c_by_bytes(data)


@pytest.mark.parametrize("is_packed", [True, False])
def test_parsing(is_packed):
    data = example(is_packed, a=[1, -1, 300, 2**62], b=[0.5, -2.0], c=b"xyz", image__label=[7])
    features = parse_example(lambda position, count: data[position : position + count], len(data))
    ((start, stop),) = features.pop("c")
    assert data[start:stop] == b"xyz"
    assert features == {"a": [1, -1, 300, 2**62], "b": [0.5, -2.0], "image/label": [7]}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(32, 32), (16, 24)])
@pytest.mark.parametrize("name", ["a.tfrecords", "a.tfrecord", "train-00000-of-00001"])
def test_pixels_are_equal_to_the_byte(tmp_path, channels, size, name):
    pixels = make_pixels(5, channels, *size)
    path = write_records(tmp_path / name, map(pixels_example, pixels))
    report, result = packed(path, tmp_path)
    assert (report.num, report.skipped, report.channels) == (5, (), channels)
    assert np.array_equal(result, pixels)
    assert np.array_equal(open_dataset(path).images(range(5)).numpy(), pixels)


@pytest.mark.parametrize("nested", [False, True])
def test_the_largest_level_unless_the_size_is_stored(tmp_path, nested):
    pixels = make_pixels(3)
    folder = write_levels(tmp_path / "src" / ("faces" * nested), pixels)
    report, result = packed(tmp_path / "src", tmp_path, strict=True)
    assert np.array_equal(result, pixels)
    prefix = "faces/" * nested + "faces"
    assert dict(report.skipped) == {f"{prefix}-r0{k}.tfrecords": "another size of the same images" for k in (2, 3, 4)}
    report, result = packed(tmp_path / "src", tmp_path, size=(16, 16), strict=True)
    assert np.array_equal(result, halves(pixels)) and f"{prefix}-r05.tfrecords" in dict(report.skipped)
    assert open_dataset(report.path).provenance["filter"] == "none"
    assert packed(tmp_path / "src", tmp_path, size=(24, 24))[1].shape == (3, 3, 24, 24)
    assert np.array_equal(packed(folder / "faces-r02.tfrecords", tmp_path)[1], halves(halves(halves(pixels))))


def test_a_dataset_opens_again_as_it_was(tmp_path):
    """Reading at another size never changes which file is meant."""
    folder = write_levels(tmp_path / "src", make_pixels(3))
    whole = open_dataset(folder)
    assert (whole.spec.source_height, whole.spec.num) == (32, 3)
    small = whole.resized(16, 16)
    assert small.spec.open().images([0, 1, 2]).equal(small.images([0, 1, 2]))
    chosen = open_dataset(folder, size=(16, 16))
    assert chosen.spec.source_height == 16 and chosen.spec.content_hash != whole.spec.content_hash
    assert chosen.spec.open().images([0]).equal(chosen.images([0]))
    assert chosen.spec.open(size=(8, 8)).spec.source_height == 16
    path = folder / "faces-r05.tfrecords"
    write_records(path, map(pixels_example, make_pixels(3)[::-1]))
    with pytest.raises(SganError, match="have changed"):
        whole.spec.open()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.eye(3, dtype=np.float32)[[2, 0, 1]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
        (np.array([1, 0, 2]), [[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
        (np.array([[1.0, 1.0], [0.0, 0.5], [0.0, 0.0]], np.float32), [[1, 1], [0, 0.5], [0, 0]]),
        (np.zeros((3, 0), np.float32), None),
        (None, None),
    ],
)
@pytest.mark.parametrize("single", [False, True])
def test_labels_beside_the_records(tmp_path, labels, expected, single):
    src = write_levels(tmp_path / "src", make_pixels(3), labels)
    src = src / "faces-r05.tfrecords" if single else src
    report, _ = packed(src, tmp_path, strict=True)
    for path in (src, report.path):
        data = open_dataset(path, label="labels" if expected else None)
        assert data.labels([0, 1, 2]).tolist() == (expected or [[]] * 3)
    assert not any(name.endswith(".labels") for name, _ in report.skipped)


def test_labels_and_images_stay_together(tmp_path):
    """A bad record has a label too, and labels may be more than images."""
    folder = write_levels(tmp_path / "src", make_pixels(4), np.array([3, 1, 0, 2, 1]))
    damage(folder / "faces-r05.tfrecords", 1, 500)
    report, result = packed(folder, tmp_path)
    assert np.array_equal(result, make_pixels(4)[[0, 2, 3]])
    assert open_dataset(report.path, label="labels").class_index.tolist() == [3, 0, 2]
    assert "labels for 1 missing file: faces-r05.tfrecords record 00000004" in report.notes[0]
    np.save(tmp_path / "l.npy", np.array([0, 1]))
    shutil.move(tmp_path / "l.npy", folder / "faces-rxx.labels")
    with pytest.raises(SganError, match=r"no label for 2 images: .*record 00000002"):
        pack(folder, tmp_path / "out.zip")
    assert pack(folder, tmp_path / "out.zip", labels="none").num == 3


@pytest.mark.parametrize(
    ("labels", "classes", "index"),
    [
        ([[2], [0], [1]], ("0", "1", "2"), [2, 0, 1]),
        ([b"dog", b"cat", b"dog"], ("cat", "dog"), [1, 0, 1]),
        ([[0, 1], [1, 0], [0, 1]], ("0", "1"), [1, 0, 1]),
    ],
)
@pytest.mark.parametrize("key", ["label", "image__class__label"])
def test_labels_in_the_records(tmp_path, labels, classes, index, key):
    records = [pixels_example(p, **{key: label}) for p, label in zip(make_pixels(3), labels, strict=True)]
    report, _ = packed(write_records(tmp_path / "a.tfrecords", records), tmp_path)
    assert report.classes == classes
    assert open_dataset(report.path, label="labels").class_index.tolist() == index


@pytest.mark.parametrize("key", ["data", "img", "image__encoded"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_encoded_images(tmp_path, key, format):
    records, expected = [], []
    for pixels in make_pixels(3):
        file = io.BytesIO()
        Image.fromarray(pixels.transpose(1, 2, 0)).save(file, format)
        records.append(example(shape=[3, 32, 32], **{key: file.getvalue()}))
        expected.append(np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1))
    path = write_records(tmp_path / "a.tfrecords", records)
    assert np.array_equal(packed(path, tmp_path)[1], expected)
    assert np.array_equal(open_dataset(path).images([0, 1, 2]).numpy(), expected)


def test_parts_of_one_dataset(tmp_path):
    """In the order of their numbers; with one folder for each class."""
    pixels = make_pixels(12)
    for i in range(12):
        write_records(tmp_path / "src" / f"part-{i}.tfrecord", [pixels_example(pixels[i])])
    assert np.array_equal(packed(tmp_path / "src", tmp_path)[1], pixels)
    for name in ("cat", "dog"):
        write_records(tmp_path / "classes" / name / "a.tfrecord", map(pixels_example, pixels[:2]))
    assert packed(tmp_path / "classes", tmp_path, labels="folders")[0].classes == ("cat", "dog")


def damage(path, record, offset):
    """Flip a bit `offset` bytes behind the start of a record's frame."""
    data, position = bytearray(path.read_bytes()), 0
    for _ in range(record):
        position += 16 + int.from_bytes(data[position : position + 8], "little")
    data[position + offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("offset", "num", "reason"),
    [
        (500, 5, "its data do not match their checksum"),
        (12, 5, "its data do not match their checksum"),  # the first byte of the Example
        (30, 5, "its data do not match their checksum"),  # the shape
        (-2, 5, "its data do not match their checksum"),  # the checksum itself, of the record before
        (2, 2, "its length does not match its checksum, so the records after it cannot be found either"),
        (9, 2, "its length does not match its checksum, so the records after it cannot be found either"),
    ],
)
def test_damaged_records_are_listed(tmp_path, offset, num, reason):
    pixels = make_pixels(6)
    path = write_records(tmp_path / "a.tfrecords", map(pixels_example, pixels))
    damage(path, 2, offset)
    bad = 1 if offset < 0 else 2
    name = f"a.tfrecords record {bad:08d}"
    report, result = packed(path, tmp_path)
    assert report.skipped == ((name, reason),) and report.num == num
    assert np.array_equal(result, np.delete(pixels, bad, 0)[:num])
    with pytest.raises(SganError, match=f"1 file that cannot be read as images: {name}"):
        pack(path, tmp_path / "strict.zip", strict=True)
    with pytest.raises(SganError, match=name):
        open_dataset(path)
    assert not (tmp_path / "strict.zip").exists()


@pytest.mark.parametrize("cut", [1, 4, 5, 3000, 3116, 3126])
def test_truncated_file(tmp_path, cut):
    path = write_records(tmp_path / "a.tfrecords", map(pixels_example, make_pixels(6)))
    size = path.stat().st_size // 6
    path.write_bytes(path.read_bytes()[:-cut])
    assert cut < size
    report = pack(path, tmp_path / "o.zip")
    assert report.skipped == (("a.tfrecords record 00000005", "the file is truncated"),) and report.num == 5


@pytest.mark.parametrize("cut", [0, 40])
def test_every_missing_record_is_listed(tmp_path, cut):
    """The smaller files of a folder say how many there are."""
    folder = write_levels(tmp_path / "src", make_pixels(6))
    path = folder / "faces-r05.tfrecords"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 - cut])
    report = pack(folder, tmp_path / "o.zip")
    records = [(name, reason) for name, reason in report.skipped if " record " in name]
    assert len(records) + report.num == 6 and report.num == 3 - bool(cut)
    assert records[-1] == ("faces-r05.tfrecords record 00000005", "it is missing, but faces-r02.tfrecords has it")
    with pytest.raises(SganError, match="unreadable image"):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (example(shape=[3, 32, 31], data=bytes(3072)), r"its shape \[3, 32, 31\] does not fit its 3072 bytes"),
        (example(shape=[32, 32, 3], data=bytes(3072)), r"its shape \[32, 32, 3\] is not \[channels, height, width\]"),
        (example(shape=[2, 32, 32], data=bytes(2048)), r"its shape \[2, 32, 32\] is not \[channels, height, width\]"),
        (example(shape=[-3, -32, 32], data=bytes(3072)), r"its shape .* is not"),
        (example(shape=[3072], data=bytes(3072)), r"its shape \[3072\] does not fit"),
        (example(shape=[3, 32, 32]), "it has no image; its features are shape"),
        (example(data=bytes(3072)), "it has no image; its features are data"),
        (example(), "it has no image; its features are none"),
        (b"", "it has no image"),
        (b"hello, world", "it is not a tf.train.Example"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "it is not a tf.train.Example"),
        (b"\x0a\x80", "it is not a tf.train.Example"),
    ],
)
def test_records_without_an_image(tmp_path, record, reason):
    good = pixels_example(make_pixels(1)[0])
    path = write_records(tmp_path / "a.tfrecords", [good, record, good])
    report = pack(path, tmp_path / "o.zip")
    assert report.num == 2 and report.skipped[0][0] == "a.tfrecords record 00000001"
    with pytest.raises(SganError, match=f"a.tfrecords record 00000001 .*{reason}"):
        pack(path, tmp_path / "o.zip", strict=True)


def test_random_damage(tmp_path):
    """Whatever is damaged: files not taken and images packed are all, and the images are right or the error is ours."""
    pixels, path = make_pixels(4, 3, 8, 8), tmp_path / "a.tfrecords"
    records = [frame(pixels_example(p)) for p in pixels]
    whole, rng = b"".join(records), np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(whole)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            data[position] = rng.integers(256)
        path.write_bytes(data)
        source = open_source(path)
        report = pack(path, tmp_path / "o.zip", workers=1) if len(source.names) > 1 else None
        if report:
            assert len(report.skipped) + report.num == len(source.names)
            result = open_dataset(report.path).images(range(report.num)).numpy()
            bad = [int(name[-8:]) for name, _ in report.skipped]
            assert np.array_equal(result, np.delete(pixels[: len(source.names)], bad, 0))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.tfrecords", b"", "contains no images"),
        ("a.tfrecords", b"\x1f\x8b\x08\0" + bytes(50), "compressed; unpack it with gunzip"),
        ("a.tfrecords", b"nothing of the kind", "its length does not match its checksum"),
        ("a.tfrecords", b"short", "the file is truncated"),
    ],
)
@pytest.mark.parametrize("folder", [False, True])
def test_files_that_are_no_records(tmp_path, name, content, words, folder):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / name).write_bytes(content)
    with pytest.raises(SganError) as e:
        pack(tmp_path / "src" if folder else tmp_path / "src" / name, tmp_path / "o.zip")
    assert words in str(e.value) and name in str(e.value)


def test_several_datasets(tmp_path):
    write_levels(tmp_path / "src" / "a", make_pixels(2), name="a")
    write_levels(tmp_path / "src" / "b", make_pixels(2), name="b")
    with pytest.raises(SganError, match="TFRecords of more than one dataset"):
        pack(tmp_path / "src", tmp_path / "o.zip")
    assert pack(tmp_path / "src" / "a", tmp_path / "o.zip").num == 2
    Image.new("RGB", (8, 8)).save(tmp_path / "src" / "a" / "x.png")
    report = pack(tmp_path / "src" / "a", tmp_path / "o.zip")
    assert report.num == 1 and dict(report.skipped)["a-r05.tfrecords"] == "TFRecords: pass the file itself"


@pytest.mark.parametrize("content", [b"junk", b"", "pickled"])
def test_unreadable_labels(tmp_path, content):
    folder = write_levels(tmp_path / "src", make_pixels(2))
    path = folder / "faces-rxx.labels"
    if content == "pickled":
        with open(path, "wb") as f:
            np.save(f, np.array([object()]), allow_pickle=True)
    else:
        path.write_bytes(content)
    with pytest.raises(SganError, match="faces-rxx.labels cannot be read"):
        pack(folder, tmp_path / "o.zip")


def test_arrays_are_datasets_too(tmp_path):
    """`open_dataset` reads whatever `pack` reads."""
    images = make_pixels(3)
    np.savez(tmp_path / "a.npz", images=images, labels=[2, 0, 1])
    data = open_dataset(tmp_path / "a.npz", label="labels")
    assert np.array_equal(data.images([0, 1, 2]).numpy(), images) and data.class_index.tolist() == [2, 0, 1]
    assert data.spec.open().spec == data.spec


def test_commands(sgan, tmp_path):
    folder = write_levels(tmp_path / "src", make_pixels(8), np.arange(8) % 2)
    info = json.loads(sgan("data", "info", folder, "--json").stdout)
    assert (info["num"], info["height"], info["classes"]) == (8, 32, {"0": 4, "1": 4})
    line = ["train", "--data", folder, "--runs", tmp_path / "runs", "--batch", "4", "--cbase", "64", "--cmax", "8"]
    line += ["--map-depth", "2", "--aug", "noaug", "--kimg", "0.008", "--snap", "0.008", "--cond", "--size", "16"]
    sgan(*line)
    run = next((tmp_path / "runs").iterdir())
    sgan("train", "--resume", run, "--kimg", "0.016")
    assert (run / "snapshot-000000.016.safetensors").exists()
