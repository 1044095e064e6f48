"""`sgan data`, end to end."""

import json
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from stylegan_cli.cli.data import command
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import SganError


def sgan_data(*args):
    """Run a command, which must succeed; return the lines of stdout, and stderr."""
    result = CliRunner().invoke(command, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines(), result.stderr


@pytest.fixture
def photos(tmp_path):
    for i in range(6):
        path = tmp_path / "photos" / ("cat" if i % 2 else "dog") / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "photos"


def test_pack_then_info(tmp_path, photos):
    (photos / "dog" / "bad.png").write_text("bad")
    dest = tmp_path / "out.zip"
    lines, errors = sgan_data("pack", photos, dest, "--size", "24x32", "--labels", "folders", "--filter", "box")
    assert lines == ["6 images of 24x32 (height x width), 3 channels, 2 classes", str(dest)]
    assert "Skipped 1 file:" in errors and "dog/bad.png: not a readable image" in errors
    lines, _ = sgan_data("info", dest)
    text = "\n".join(lines)
    for fact in ("images      6", "24x32", "3 (RGB)", "cat (3), dog (3)", "filter box", "skipped 1 file"):
        assert fact in text
    assert open_dataset(dest).spec.content_hash in text
    assert lines[-1] == str(tmp_path / "out-contact.png")
    with Image.open(lines[-1]) as sheet:
        assert sheet.size == (6 * (32 * 4 + 2) + 2, 24 * 4 + 4)


def test_padding_and_limit_of_pixels(tmp_path, photos):
    dest = tmp_path / "out.zip"
    options = ["--size", "48", "--crop", "pad", "--pad", "white"]
    _, errors = sgan_data("pack", photos, dest, *options, "--max-pixels", 42 * 60)
    assert "Skipped 3 files:" in errors
    assert "cat/3.jpg: its 43x60 pixels (height x width) exceed the limit of 2520" in errors
    images = open_dataset(dest).images(range(3))
    assert (images[..., :7, :] == 255).all() and images[..., 24, :].float().std() > 10
    assert "crop pad, filter lanczos, pad white" in "\n".join(sgan_data("info", dest)[0])


def test_json_and_quiet_output(tmp_path, photos):
    dest = tmp_path / "out.zip"
    lines, _ = sgan_data("pack", photos, dest, "--size", "32x48", "--channels", "1", "--workers", "2", "--json")
    (line,) = lines
    report = json.loads(line)
    assert (report["num"], report["channels"], report["path"]) == (6, 1, str(dest)) and not report["warning"]
    (line,), _ = sgan_data("info", dest, "--json", "--out", tmp_path / "sheet.png")
    facts = json.loads(line)
    assert (facts["num"], facts["height"], facts["width"], facts["classes"]) == (6, 32, 48, {})
    assert facts["contact_sheet"] == str(tmp_path / "sheet.png")
    assert sgan_data("pack", photos, dest, "--size", "16", "-q")[0] == [str(dest)]
    assert sgan_data("info", dest, "-q")[0] == [str(tmp_path / "out-contact.png")]


def test_info_outdir(tmp_path, photos):
    dest = tmp_path / "out.zip"
    sgan_data("pack", photos, dest, "--size", "32", "-q")
    assert sgan_data("info", dest, "-q", "--outdir", tmp_path / "a")[0] == [str(tmp_path / "a" / "out-contact.png")]
    assert sgan_data("info", dest, "-q", "--outdir", tmp_path / "a", "--out", "b.png")[0] == [str(tmp_path / "a/b.png")]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["b.png", "out-contact.png"]
    options = ["--outdir", str(tmp_path / "a"), "--out", str(tmp_path / "c.png")]
    result = CliRunner().invoke(command, ["info", str(dest), *options])
    assert result.exit_code == 2 and "is not in --outdir" in result.stderr


def test_info_of_the_bundled_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines, _ = sgan_data("info")
    assert "images      4000" in lines and lines[-1] == "critters64-contact.png"
    assert "bodyVariant (14)" in "\n".join(lines)
    with Image.open(lines[-1]) as sheet:
        assert sheet.size == (10 * 130 + 2, 8 * 130 + 2)


def test_info_of_large_images_with_alpha(tmp_path):
    (tmp_path / "src").mkdir()
    Image.new("RGBA", (400, 200), (255, 0, 0, 128)).save(tmp_path / "src" / "a.png")
    lines, _ = sgan_data("info", tmp_path / "src")
    assert lines[-1] == str(tmp_path / "src-contact.png")
    with Image.open(lines[-1]) as sheet:
        assert sheet.size == (132, 68) and sheet.getpixel((60, 30)) == (255, 0, 0, 128)


def test_info_says_what_the_labels_are(tmp_path, photos):
    dest, folder = tmp_path / "o.zip", tmp_path / "folder"
    sgan_data("pack", photos, dest, "--size", "16", "--labels", "none", "-q")
    with zipfile.ZipFile(dest) as z:
        z.extractall(folder)
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png"))
    (folder / "notes.txt").write_text("x")

    def info(values):
        content = {"labels": list(zip(names, values)), "sgan": {"classes": ["age", "yaw"]}}
        (folder / "dataset.json").write_text(json.dumps(content))
        return sgan_data("info", folder)

    lines, errors = info([[0.5, i] for i in range(6)])
    assert "labels      2 values per image (age, yaw)" in lines
    assert "Not part of the dataset (1 file):\n  notes.txt: not a PNG" in errors
    lines, _ = info([0, 0])
    assert any(line.startswith("labels      unusable: ") and "has no label for 4 images: " in line for line in lines)
    lines, _ = info([0, 0, 1, 1, 1, 1])
    assert "classes     age (2), yaw (4)" in lines
    for path in folder.rglob("*.png"):
        Image.open(path).convert("RGBA").save(path)
    lines, _ = info([0] * 6)
    assert any(line.startswith("note        All images are opaque") for line in lines)


def test_many_skipped_files_are_counted(tmp_path, photos):
    for i in range(150):
        (photos / f"{i:03d}.txt").write_text("x")
    _, errors = sgan_data("pack", photos, tmp_path / "o.zip", "--size", "16")
    assert errors.count("\n") == 102 and "Skipped 150 files:" in errors and "  and 50 more" in errors
    (line,), _ = sgan_data("pack", photos, tmp_path / "o.zip", "--size", "16", "--json")
    assert len(json.loads(line)["skipped"]) == 150


def test_demo(tmp_path):
    pytest.importorskip("dicebear", reason="needs the extra demo")
    dest = tmp_path / "d.zip"
    lines, _ = sgan_data("demo", dest, "--num", "8", "--size", "16", "--label", "bodyVariant", "--colors", "32")
    assert lines[0] == "8 images of 16x16 (height x width), CC0 1.0" and lines[-1] == str(dest)
    assert open_dataset(dest, label="labels").spec.c_dim > 1
    (line,), _ = sgan_data("demo", dest, "--num", "4", "--size", "16", "--json")
    assert json.loads(line)["num"] == 4


@pytest.mark.parametrize(
    "args",
    [
        ["pack", "src"],
        ["pack", "src", "o.zip", "--size", "x"],
        ["pack", "src", "o.zip", "--channels", "2"],
        ["pack", "src", "o.zip", "--crop", "left"],
        ["pack", "src", "o.zip", "--workers", "0"],
        ["demo", "o.zip", "--num", "0"],
        ["demo", "o.zip", "--colors", "1"],
        ["nothing"],
    ],
)
def test_invalid_options_exit_with_2(args):
    assert CliRunner().invoke(command, args).exit_code == 2


def test_user_errors_raise_sgan_error_and_write_nothing(tmp_path):
    for args in (["pack", tmp_path, tmp_path / "o.zip"], ["info", tmp_path], ["info", tmp_path / "gone.zip"]):
        result = CliRunner().invoke(command, [str(a) for a in args])
        assert isinstance(result.exception, SganError)
    assert list(tmp_path.iterdir()) == []


def test_size_that_no_model_supports_is_rejected(tmp_path, photos):
    result = CliRunner().invoke(command, ["pack", str(photos), str(tmp_path / "out.zip"), "--size", "31x47"])
    assert isinstance(result.exception, SganError) and "nearest sizes" in result.exception.hint
    assert not (tmp_path / "out.zip").exists()
