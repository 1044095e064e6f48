"""Datasets open unchanged, or raise one sentence that says what is wrong."""

import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli.data import dataset as module
from stylegan_cli.data.codec import png_bytes
from stylegan_cli.data.dataset import BUNDLED, open_dataset
from stylegan_cli.errors import SganError


def make_images(num=6, shape=(8, 12, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)


def write_zip(path, files, content=None, date=(2020, 1, 1, 0, 0, 0), method=zipfile.ZIP_STORED):
    """Write a zip as stylegan2-ada-pytorch's dataset_tool does; files: name -> bytes."""
    with zipfile.ZipFile(path, "w", method) as z:
        for name, data in files.items():
            z.writestr(zipfile.ZipInfo(name, date), data, method)
        if content is not None:
            z.writestr("dataset.json", content if isinstance(content, str) else json.dumps(content))
    return path


def named(pixels):
    return {f"{i // 1000:05d}/img{i:08d}.png": png_bytes(Image.fromarray(p)) for i, p in enumerate(pixels)}


@pytest.fixture
def files():
    return named(make_images())


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_zip_round_trip(tmp_path, files, method):
    data = open_dataset(write_zip(tmp_path / "a.zip", files, {"labels": None}, method=method))
    assert len(data) == 6
    spec = data.spec
    assert (spec.num, spec.height, spec.width, spec.channels, spec.filter) == (6, 8, 12, 3, "none")
    images = data.images([4, 0, 4])
    assert images.dtype == torch.uint8
    assert np.array_equal(images.numpy(), make_images()[[4, 0, 4]].transpose(0, 3, 1, 2))
    assert data.labels([0, 1]).shape == (2, 0)
    assert data.name == "a"


def test_folder_and_zip_are_the_same_dataset(tmp_path, files):
    content = {"labels": [[name, i % 2] for i, name in enumerate(files)]}
    a = open_dataset(write_zip(tmp_path / "a.zip", files, content), label="labels")
    zipfile.ZipFile(tmp_path / "a.zip").extractall(tmp_path / "folder")
    b = open_dataset(tmp_path / "folder", label="labels")
    assert a.spec.content_hash == b.spec.content_hash
    assert torch.equal(a.images(range(6)), b.images(torch.arange(6)))
    assert torch.equal(a.labels(range(6)), b.labels(range(6)))


def test_hash_depends_only_on_the_content(tmp_path, files):
    labels = {"labels": [[name, i % 2] for i, name in enumerate(files)]}
    expected = open_dataset(write_zip(tmp_path / "a.zip", files, labels)).spec.content_hash
    later = write_zip(tmp_path / "b.zip", dict(reversed(files.items())), labels, date=(2024, 5, 5, 5, 5, 4))
    assert open_dataset(later).spec.content_hash == expected
    assert open_dataset(write_zip(tmp_path / "c.zip", files)).spec.content_hash != expected
    assert open_dataset(write_zip(tmp_path / "d.zip", named(make_images(seed=1)), labels)).spec.content_hash != expected


def test_numbered_labels(tmp_path, files):
    numbers = [0, 3, 3.0, 0, 1, 0]  # class 2 has no image, but is a class
    content = {"labels": [[name, k] for name, k in zip(files, numbers)]}
    data = open_dataset(write_zip(tmp_path / "a.zip", files, content), label="labels")
    assert data.spec.classes == ("0", "1", "2", "3")
    assert torch.equal(data.labels(range(6)), torch.nn.functional.one_hot(torch.tensor(numbers).long(), 4).float())
    assert data.stored_counts == {"0": 3, "1": 1, "2": 0, "3": 2}


def test_one_hot_labels_are_classes(tmp_path, files):
    content = {"labels": [[name, [0.0, 1.0, 0.0] if i else [1, 0, 0]] for i, name in enumerate(files)]}
    data = open_dataset(write_zip(tmp_path / "a.zip", files, content), label="labels")
    assert data.class_index.tolist() == [0, 1, 1, 1, 1, 1]
    assert data.spec.c_dim == 3


def test_class_names_and_attributes(tmp_path, files):
    content = {
        "labels": [[name, i % 2] for i, name in enumerate(files)],
        "attributes": {"hat": ["none", "tall", "flat", "tall", "none", "flat"]},
        "sgan": {"classes": ["cat", "dog"], "filter": "lanczos"},
    }
    path = write_zip(tmp_path / "a.zip", files, content)
    assert open_dataset(path, label="labels").spec.classes == ("cat", "dog")
    data = open_dataset(path, label="hat", mirror=True)
    assert data.spec.classes == ("flat", "none", "tall")
    assert data.class_index.tolist() == [1, 2, 0, 2, 1, 0]
    assert (data.spec.pack_filter, data.spec.mirror, data.spec.label) == ("lanczos", True, "hat")
    with pytest.raises(SganError, match="no attribute 'hatt'") as e:
        open_dataset(path, label="hatt")
    assert e.value.hint == "Did you mean hat?"


def test_reading_at_a_smaller_size(tmp_path, files):
    data = open_dataset(write_zip(tmp_path / "a.zip", files), size=(4, 6))
    spec = data.spec
    assert (spec.height, spec.width, spec.source_height, spec.source_width, spec.filter) == (4, 6, 8, 12, "box")
    mean = make_images().astype(float).reshape(6, 4, 2, 6, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    assert np.array_equal(data.images(range(6)).numpy(), np.floor(mean + 0.5))
    with pytest.raises(SganError, match="cannot be enlarged"):
        open_dataset(tmp_path / "a.zip", size=(16, 24))
    with pytest.raises(SganError, match="not the aspect ratio of 4x4"):
        open_dataset(tmp_path / "a.zip", size=(4, 4))


@pytest.mark.parametrize("channels", [1, 4])
def test_gray_and_alpha(tmp_path, channels):
    pixels = make_images(shape=(8, 8) if channels == 1 else (8, 8, 4))
    data = open_dataset(write_zip(tmp_path / "a.zip", named(pixels)))
    assert data.spec.channels == channels
    assert np.array_equal(data.images([2]).numpy()[0], np.atleast_3d(pixels[2]).transpose(2, 0, 1))


def test_images_are_decoded_on_demand_without_a_cache(tmp_path):
    pixels = make_images(8, (128, 128, 3))  # large enough for threads
    data = open_dataset(write_zip(tmp_path / "a.zip", named(pixels)), cache_bytes=0)
    assert data._cache is None
    order = [7, 1, 1, 0, 5]
    assert np.array_equal(data.images(order).numpy(), pixels[order].transpose(0, 3, 1, 2))


def test_other_files_and_hidden_folders_are_ignored(tmp_path, files):
    more = {"readme.txt": b"x", "__MACOSX/._a.png": b"x", ".hidden/a.png": b"x"}
    assert len(open_dataset(write_zip(tmp_path / "a.zip", {**files, **more}))) == 6


def test_index_out_of_range_raises(tmp_path, files):
    data = open_dataset(write_zip(tmp_path / "a.zip", files))
    for bad in ([6], [-1]):
        with pytest.raises(IndexError):
            data.images(bad)


def test_bundled_dataset():
    data = open_dataset(None, size=(32, 32), label="bodyVariant")
    assert (len(data), data.spec.source_height, data.spec.channels, data.name) == (4000, 64, 3, "critters64")
    assert data.spec.path == BUNDLED
    assert open_dataset(BUNDLED).spec.content_hash == data.spec.content_hash
    assert set(data.attributes) >= {"bodyVariant", "topVariant", "eyesVariant", "bodyColor", "backgroundColor"}
    assert all(len(values) == 4000 for values in data.attributes.values())
    assert data.spec.c_dim == 14
    images = data.images(range(0, 4000, 100)).float()
    assert images.std((0, 2, 3)).min() > 30  # colors, in every channel
    assert module._BUNDLED_FILE.stat().st_size < 4_000_000


def test_spec_opens_the_dataset_as_recorded(tmp_path, files):
    content = {"labels": None, "attributes": {"hat": ["none", "tall", "flat", "tall", "none", "flat"]}}
    path = write_zip(tmp_path / "a.zip", files, content)
    spec = open_dataset(path, size=(4, 6), mirror=True, label="hat").spec
    assert spec.open().spec == spec
    assert torch.equal(spec.open().images(range(6)), open_dataset(path, size=(4, 6)).images(range(6)))
    other = spec.open(size=(8, 12), labels=False).spec
    assert (other.height, other.filter, other.mirror, other.label, other.classes) == (8, "none", True, None, ())


def test_resized_reads_at_another_size(tmp_path, files):
    data = open_dataset(write_zip(tmp_path / "a.zip", files))
    small = open_dataset(tmp_path / "a.zip", size=(4, 6))
    assert data.resized(4, 6).spec == small.spec and data.resized(4, 6).resized(8, 12).spec == data.spec
    assert torch.equal(data.resized(4, 6).images(range(6)), small.images(range(6)))
    with pytest.raises(SganError, match="cannot be enlarged"):
        data.resized(16, 24)


def test_progress_is_reported(tmp_path, files):
    calls = []
    open_dataset(write_zip(tmp_path / "a.zip", files), progress=lambda *step: calls.append(step))
    assert calls.count(("hashing", 6, 6)) == 1 and ("checking", 1, 6) in calls and ("checking", 6, 6) in calls


# ----------------------------------------------------------------------------------------- bad input


def test_spec_of_a_changed_or_missing_dataset_is_rejected(tmp_path, files):
    path = write_zip(tmp_path / "a.zip", files)
    spec = open_dataset(path).spec
    write_zip(path, named(make_images(seed=1)))
    with pytest.raises(SganError, match="The images or labels in .*a.zip have changed."):
        spec.open()
    with pytest.raises(SganError, match="^Not those.$") as e:
        spec.open(changed_message="Not those.", missing_message="Gone", hint="Look.")
    assert e.value.hint == "Look."
    path.unlink()
    with pytest.raises(SganError, match="^Gone: .*a.zip does not exist.$") as e:
        spec.open(missing_message="Gone", hint="Look.")
    assert e.value.hint == "Look."
    with pytest.raises(SganError, match="^.*a.zip does not exist.$"):
        spec.open(changed_message="Not those.", hint="Look.")


def error_of(path, **options):
    with pytest.raises(SganError) as e:
        open_dataset(path, **options)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_missing_path_suggests_a_similar_one(tmp_path, files):
    write_zip(tmp_path / "faces.zip", files)
    with pytest.raises(SganError, match="does not exist") as e:
        open_dataset(tmp_path / "face.zip")
    assert "faces.zip" in e.value.hint


def test_no_images(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    assert "contains no images" in error_of(tmp_path)
    assert "contains no images" in error_of(write_zip(tmp_path / "a.zip", {}))


def test_file_that_is_not_a_zip(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    assert "neither a folder nor a zip" in error_of(tmp_path / "a.zip")


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_zip(tmp_path, files, keep):
    whole = write_zip(tmp_path / "a.zip", files).read_bytes()
    (tmp_path / "b.zip").write_bytes(whole[: int(len(whole) * keep)])
    assert "is truncated" in error_of(tmp_path / "b.zip")


def test_damaged_zip_member(tmp_path, files):
    data = bytearray(write_zip(tmp_path / "a.zip", files).read_bytes())
    data[len(data) // 4] ^= 255
    (tmp_path / "b.zip").write_bytes(data)
    assert "do not match the checksum" in error_of(tmp_path / "b.zip")


def test_broken_images_are_named(tmp_path, files):
    names = list(files)
    files[names[1]] = files[names[1]][:-40]
    files[names[4]] = b"nothing"
    message = error_of(write_zip(tmp_path / "a.zip", {k: files[k] for k in names if k != names[4]}))
    assert f"{tmp_path / 'a.zip'} has 1 unreadable image: " in message and names[1] in message
    assert names[4] in error_of(write_zip(tmp_path / "b.zip", files))


def test_truncated_image_of_a_large_dataset_is_found_by_its_end(tmp_path, files, monkeypatch):
    monkeypatch.setattr(module, "_CHECK_PIXELS", 0)
    name = list(files)[3]
    files[name] = files[name][:-40]
    assert name in error_of(write_zip(tmp_path / "a.zip", files))


def test_image_with_broken_pixels_is_named_when_it_is_read(tmp_path, files, monkeypatch):
    monkeypatch.setattr(module, "_CHECK_PIXELS", 0)
    name = list(files)[3]
    broken = bytearray(files[name])
    broken[60:70] = b"xxxxxxxxxx"
    files[name] = bytes(broken)
    data = open_dataset(write_zip(tmp_path / "a.zip", files))
    data.images([0, 1])
    with pytest.raises(SganError, match=name):
        data.images([2, 3])


def test_mixed_sizes(tmp_path, files):
    others = named(make_images(5, (8, 8, 3)))
    files.update({f"z{k}": v for k, v in others.items()})
    message = error_of(write_zip(tmp_path / "a.zip", files))
    assert "differ in size: most have 8x12 (height x width)" in message
    assert message.count("(8x8)") == 3 and "and 2 more" in message


def test_mixed_channels(tmp_path, files):
    files["z.png"] = png_bytes(Image.fromarray(make_images(1, (8, 12))[0]))
    assert "differ in channels: most have 3, but not z.png (1)" in error_of(write_zip(tmp_path / "a.zip", files))


def test_image_without_label(tmp_path, files):
    content = {"labels": [[name, 0] for name in list(files)[:4]]}
    path = write_zip(tmp_path / "a.zip", files, content)
    message = error_of(path, label="labels")
    assert "has no label for 2 images: 00000/img00000004.png" in message
    unused = open_dataset(path)
    assert len(unused) == 6 and unused.stored_counts == {} and unused.label_problem == message


def test_label_without_image_does_not_matter(tmp_path, files):
    content = {"labels": [[name, i] for i, name in enumerate([*files, "gone.png"])]}
    data = open_dataset(write_zip(tmp_path / "a.zip", files, content), label="labels")
    assert data.class_index.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("value", [-1, 10**9, float("nan"), [], True, {"a": 1}, [[1]], [0.5, None], None])
def test_labels_that_cannot_be_used_matter_only_if_they_are(tmp_path, files, value):
    path = write_zip(tmp_path / "a.zip", files, {"labels": [[name, value] for name in files]})
    expected = "has no label for 6 images" if value is None else "neither class numbers"
    assert expected in error_of(path, label="labels")
    assert expected in open_dataset(path).label_problem


@pytest.mark.parametrize("content", ["{", "7", '{"labels": 3}', '{"labels": [[1, 2]]}', '{"attributes": {"a": 1}}'])
def test_dataset_json_of_unknown_form_matters_only_if_it_is_used(tmp_path, files, content):
    path = write_zip(tmp_path / "a.zip", files, content)
    message = error_of(path, label="labels")
    assert str(path) in message
    data = open_dataset(path)
    assert len(data) == 6 and data.label_problem == message and data.attributes == {}


def test_attribute_with_wrong_number_of_values(tmp_path, files):
    content = {"labels": None, "attributes": {"hat": ["none"], "tie": ["a", "b"] * 3}}
    path = write_zip(tmp_path / "a.zip", files, content)
    assert "1 values for 6 images" in error_of(path, label="hat")
    assert list(open_dataset(path, label="tie").attributes) == ["tie"]


def test_missing_labels_are_reported(tmp_path, files):
    assert "has no labels" in error_of(write_zip(tmp_path / "a.zip", files), label="labels")


def test_pixel_bomb(tmp_path, files):
    files["bomb.png"] = files.pop(next(iter(files)))
    message = error_of(write_zip(tmp_path / "a.zip", files), max_pixels=90)
    assert "exceed the limit" in message and "and 3 more" in message


def test_oversized_file(tmp_path, files, monkeypatch):
    monkeypatch.setattr("stylegan_cli.data.sources.MAX_FILE", 100)
    assert "larger than 1 GB" in error_of(write_zip(tmp_path / "a.zip", files))
