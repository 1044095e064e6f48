"""`sgan project` and `sgan attribute` end to end: files, use in other commands, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.images import read_metadata
from stylegan_cli.inversion.projector import Projector

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters

QUICK = ["--loss", "pixel", "--steps", "6", "-q"]


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture(scope="module")
def images(sgan, tmp_path_factory):
    """Two files with images of a small StyleGAN2."""
    folder = tmp_path_factory.mktemp("images")
    sgan("generate", "--model", MODEL, "--seeds", "7,8", "--outdir", folder, "-q")
    return [folder / "seed0007.png", folder / "seed0008.png"]


@pytest.fixture
def project(sgan, tmp_path):
    def run(*args, into="out", code=0, quick=QUICK):
        return sgan("project", "--model", MODEL, *args, "--outdir", tmp_path / into, *quick, code=code)

    return run


def test_one_image(project, images, tmp_path):
    result = project(images[0])
    out = tmp_path / "out"
    assert names(out) == ["compare.png", "proj.png", "projected.npz"]
    assert result.stdout == f"{out / 'compare.png'}\n" and result.stderr == ""
    record = read_metadata(out / "proj.png")
    assert record["target"] == "seed0007" and record["loss"] == "pixel" and float(record["distance"]) > 0
    with np.load(out / "projected.npz", allow_pickle=False) as f:
        assert f["w"].shape == (1, 8, 128) and f["names"].tolist() == ["seed0007"]
        assert str(f["model"]) == record["model"] and f["distance"].shape == (1,)
        assert sum(name.startswith("noise.synthesis.") for name in f.files) == 7
        settings = json.loads(str(f["settings"]))
    assert settings["projection"]["steps"] == settings["steps_made"] == 6 and settings["loss"] == "pixel"


def test_several_images_and_other_commands(sgan, project, images, tmp_path):
    answer = json.loads(project(*images, "--noise", "const", "--space", "w+", "--json").stdout)
    out = tmp_path / "out"
    assert [f["name"] for f in answer["found"]] == ["seed0007", "seed0008"]
    assert names(out) == [
        "compare.png",
        *(f"seed000{i}-{end}" for i in (7, 8) for end in ("proj.png", "projected.npz")),
    ]
    a, b = out / "seed0007-projected.npz", out / "seed0008-projected.npz"
    with np.load(a) as f:
        assert not any(name.startswith("noise.") for name in f.files)
    sgan("generate", "--model", MODEL, "--from-w", a, "--outdir", tmp_path / "again", "-q")
    assert np.abs(pixels(tmp_path / "again" / "w0000.png") - pixels(out / "seed0007-proj.png")).max() <= 1
    sgan("mix", "--model", MODEL, "--rows", f"{a},3", "--cols", b, "--outdir", tmp_path / "mix", "-q")
    assert names(tmp_path / "mix") == ["mix.png", "mix0003-seed0008.png", "mixseed0007-seed0008.png"]
    all_styles = ["--styles", "0-7", "--outdir", tmp_path / "all", "-q"]
    sgan("mix", "--model", MODEL, "--rows", a, "--cols", b, *all_styles)
    assert np.abs(pixels(tmp_path / "all" / "mixseed0007-seed0008.png") - pixels(out / "seed0008-proj.png")).max() <= 1
    sgan("mix", "--model", MODEL, "--rows", a, "--cols", b, "--blend", "0", *all_styles)
    assert np.abs(pixels(tmp_path / "all" / "mixseed0007-seed0008.png") - pixels(out / "seed0007-proj.png")).max() <= 1
    sgan("mix", "--model", MODEL, "--rows", a, "--cols", b, "--blend", "0.5", *all_styles)
    half = pixels(tmp_path / "all" / "mixseed0007-seed0008.png")
    assert all(np.abs(half - pixels(out / f"seed000{i}-proj.png")).max() > 1 for i in (7, 8))


def test_tuned(sgan, project, images, tmp_path):
    project(*images, "--tune", "4")
    out = tmp_path / "out"
    mixed = ["--rows", out / "seed0007-projected.npz", "--cols", "3", "--outdir", tmp_path / "m"]
    assert "tuned weights" in sgan("mix", "--model", MODEL, *mixed).stderr
    assert read_metadata(tmp_path / "m" / "mix.png")["tuned"].startswith("tuned-")
    assert len(list(out.glob("tuned-*.safetensors"))) == 1
    sgan("generate", "--model", MODEL, "--from-w", out / "seed0007-projected.npz", "--outdir", tmp_path / "g", "-q")
    assert np.abs(pixels(tmp_path / "g" / "w0000.png") - pixels(out / "seed0007-proj.png")).max() <= 2
    compare = Image.open(out / "compare.png")
    project(*images, into="plain")
    assert compare.width > Image.open(tmp_path / "plain" / "compare.png").width  # a column more


def test_start_from_a_file(project, images, tmp_path):
    project(images[0], quick=["--loss", "pixel", "--steps", "40", "-q"])
    with np.load(tmp_path / "out" / "projected.npz") as f:
        before = float(f["distance"][0])
    more = ["--init", tmp_path / "out" / "projected.npz", "--json"]
    (projection,) = json.loads(project(images[0], *more, into="b").stdout)["found"]
    assert projection["distance"] <= before * 1.001


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_video(project, images, tmp_path, ending):
    project(*images, "--video", ending)
    video = Image.open(tmp_path / "out" / f"project.{ending}")
    assert video.size == (256, 256) and 2 <= video.n_frames <= 7  # a writer may join frames that are alike


def test_mask_and_gray_target(sgan, tiny_run, tmp_path):
    """The model has 24 x 48 pixels and an alpha channel."""
    Image.new("L", (100, 60), 90).save(tmp_path / "gray.png")
    mask = np.zeros((60, 100), np.uint8)
    mask[:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    more = ["--mask", tmp_path / "mask.png", "--model", tiny_run, "--outdir", tmp_path / "o", "--space", "z"]
    sgan("project", tmp_path / "gray.png", *more, *QUICK)
    assert Image.open(tmp_path / "o" / "proj.png").mode == "RGBA"


def test_conditional_model(sgan, class_run, images, tmp_path):
    for space in ("w", "z"):
        more = ["--class", "1", "--space", space, "--model", class_run, "--outdir", tmp_path, "--loss", "discriminator"]
        sgan("project", images[0], *more, "--steps", "3", "-q")
        assert read_metadata(tmp_path / "proj.png")["class"] == "1"


def test_interrupt_keeps_the_best_result(project, images, tmp_path, monkeypatch):
    real = Projector.step

    def step(self):
        if self.done == 4:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(Projector, "step", step)
    from stylegan_cli.cli import main

    args = ["project", str(images[0]), "--model", str(MODEL), "--outdir", str(tmp_path / "out"), *QUICK]
    with pytest.raises(SystemExit) as e:
        main(args)
    assert e.value.code == 130 and names(tmp_path / "out") == ["compare.png", "proj.png", "projected.npz"]


def test_targets_with_equal_names(project, images, tmp_path):
    """Targets with the same name, or whose results would have the same name, get files of their own."""
    for folder, name in (("x", "a.png"), ("y", "a.png"), ("y", "a-2.png"), ("y", "7.png"), ("y", "007.png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(images[0].read_bytes())
    files = [*tmp_path.glob("x/*.png"), *sorted(tmp_path.glob("y/*.png"))]
    project(*files, quick=["--loss", "pixel", "--steps", "1", "--candidates", "0", "-q"])
    files = names(tmp_path / "out")
    assert len([n for n in files if n.endswith("-projected.npz")]) == len([n for n in files if "proj.png" in n]) == 5


@pytest.mark.parametrize("crop", ["center", "none", "pad"])
def test_crop(project, tmp_path, monkeypatch, crop):
    from stylegan_cli.inversion import projection

    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, :16] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    seen, real = [], projection.project
    monkeypatch.setattr(
        projection, "project", lambda G, targets, *rest: seen.append(targets) or real(G, targets, *rest)
    )
    project(tmp_path / "wide.png", "--crop", crop, quick=["--loss", "pixel", "--steps", "1", "-q"])
    assert (seen[0].amax() > 0.9) == (crop != "center")  # the white side is cropped, or included


@pytest.mark.parametrize("command", ["project", "attribute"])
def test_padding(sgan, tmp_path, monkeypatch, command):
    """As `sgan data pack` pads: the target is the packed image."""
    from stylegan_cli.inversion import projection

    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    noise = np.random.default_rng(2).integers(0, 256, (40, 90, 3), np.uint8)
    (tmp_path / "src").mkdir()
    Image.fromarray(noise).save(tmp_path / "src" / "wide.png")
    seen, real = [], projection.project
    monkeypatch.setattr(
        projection, "project", lambda G, targets, *rest: seen.append(targets) or real(G, targets, *rest)
    )
    line = [command, tmp_path / "src" / "wide.png", "--crop", "pad", "--model", MODEL, "--outdir", tmp_path / "out"]
    line += ["--loss", "pixel", "--steps", "1", *(["--num", "8"] if command == "attribute" else [])]
    for pad in ((), ("--pad", "#20a0ff"), ("--pad", "blur")):
        sgan(*line, *pad, "-q")
        pack = ["data", "pack", tmp_path / "src", tmp_path / "set.zip", "--size", seen[-1].shape[2], "--crop", "pad"]
        sgan(*pack, *pad, "--filter", "box", "-q")
        expected = open_dataset(tmp_path / "set.zip").images([0])
        assert np.array_equal((seen[-1] * 127.5 + 127.5).round().numpy(), expected.numpy())
    metadata = read_metadata(tmp_path / "out" / ("proj.png" if command == "project" else "attribute.png"))
    assert (metadata["crop"], metadata["pad"]) == ("pad", "blur")
    for wrong, words in ((("--pad", "whitish"), "is not a color"), (("--crop", "none", "--pad", "red"), "no effect")):
        assert words in sgan(*line, *wrong, code=2).stderr


def test_unwritable_folder(sgan, images, tmp_path):
    (tmp_path / "file").write_text("x")
    result = sgan("project", images[0], "--model", MODEL, "--outdir", tmp_path / "file", *QUICK, code=1)
    assert "Cannot write" in result.stderr


def test_inputs_are_not_overwritten(sgan, images, tmp_path):
    (tmp_path / "proj.png").write_bytes(images[0].read_bytes())
    result = sgan("project", tmp_path / "proj.png", "--model", MODEL, "--outdir", tmp_path, *QUICK, code=1)
    assert "overwritten" in result.stderr and (tmp_path / "proj.png").read_bytes() == images[0].read_bytes()


def test_options_without_effect(project, images, tmp_path):
    project(images[0])
    file = tmp_path / "out" / "projected.npz"
    assert "--init" in project(images[0], "--init", file, "--candidates", "3", code=2).stderr
    assert "--detector" in project(images[0], "--detector", "x.ckpt", code=1).stderr


@pytest.mark.parametrize("spelling", ["optimize", "optimise"])
def test_spellings_of_optimize(project, images, tmp_path, spelling):
    project(images[0], "--noise", spelling)
    assert read_metadata(tmp_path / "out" / "proj.png")["noise_mode"] == "optimize"


def test_each_file_has_its_own_noise(sgan, project, images, tmp_path):
    project(*images)
    for name in ("seed0007", "seed0008"):
        file = tmp_path / "out" / f"{name}-projected.npz"
        sgan("generate", "--model", MODEL, "--from-w", file, "--outdir", tmp_path / name, "-q")
        again = pixels(tmp_path / name / "w0000.png")
        assert np.abs(again - pixels(tmp_path / "out" / f"{name}-proj.png")).max() <= 1


def test_refused(sgan, project, images, tiny_run, tmp_path):
    (tmp_path / "text.png").write_text("x")
    Image.new("RGB", (5000, 20)).save(tmp_path / "long.png")
    Image.new("L", (8, 8), 0).save(tmp_path / "black.png")
    cases = {
        "No image to project": [],
        "does not exist": [tmp_path / "missing.png"],
        "cannot be read": [tmp_path / "text.png"],
        "20x5000 (height x width)": [tmp_path / "long.png"],
        "black": [images[0], "--mask", tmp_path / "black.png"],
        "no classes": [images[0], "--class", "1"],
        "not a file of latents": [images[0], "--init", tmp_path / "text.png"],
    }
    for message, args in cases.items():
        result = project(*args, code=None)
        assert message in result.stderr and len(result.stderr.strip().splitlines()) <= 5, message
    project(images[0])
    file = tmp_path / "out" / "projected.npz"
    result = sgan("mix", "--model", tiny_run, "--rows", file, "--outdir", tmp_path / "m", "-q", code=1)
    assert "fingerprint" in result.stderr and "--model" in result.stderr and not (tmp_path / "m").exists()
    result = project(images[0], "--init", file, "--model", tiny_run, code=1)
    assert "fingerprint" in result.stderr


def test_missing_lpips_weights(project, images, tmp_path, monkeypatch):
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("SGAN_DETECTORS", raising=False)
    result = project(images[0], quick=["--loss", "lpips", "--steps", "2", "-q"], code=1)
    assert "--detector" in result.stderr and "--loss discriminator" in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 5
    result = project(images[0], quick=["--steps", "2"])
    assert "using --loss discriminator instead" in result.stderr and "\\n" not in result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("To use LPIPS: Put the file at "))
    assert line.endswith(", or put the file into the folder SGAN_DETECTORS, or pass it with --detector.")
    assert read_metadata(tmp_path / "out" / "proj.png")["loss"] == "discriminator"


# ---------------------------------------------------------------------------------------------- attribute


@pytest.fixture
def attribute(sgan, tmp_path, monkeypatch):
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))

    def run(*args, code=0, quiet=("-q",)):
        more = ["--model", MODEL, "--outdir", tmp_path / "out", "--loss", "pixel", "--steps", "3", "--num", "8"]
        return sgan("attribute", *args, *more, *quiet, code=code)

    return run


def test_attribute(attribute, images, tmp_path):
    first = attribute(*images, quiet=())
    assert "once" in first.stderr and "AUC" in first.stderr
    assert names(tmp_path / "out") == ["attribute-compare.png", "attribute.png"]
    *lines, last = first.stdout.splitlines()
    assert last == str(tmp_path / "out" / "attribute.png") and len(lines) == 2 and "distance" in lines[0]
    second = attribute(*images, quiet=())
    assert "once" not in second.stderr and second.stdout == first.stdout
    answer = json.loads(attribute(*images, "--json").stdout)
    assert [one["name"] for one in answer["judged"]] == ["seed0007", "seed0008"] and 0 <= answer["auc"] <= 1


def test_calibrate_without_images(attribute, tmp_path):
    attribute("--calibrate")
    assert names(tmp_path / "out") == ["attribute.png"]
    assert len(list((tmp_path / "cache" / "calibrations").glob("*.safetensors"))) == 1


def test_attribute_refused(attribute, images, tmp_path, sgan, tiny_run):
    assert "No image to attribute" in attribute(code=2).stderr
    assert "does not exist" in attribute(tmp_path / "missing.png", code=1).stderr
    assert not (tmp_path / "cache").exists()
    result = sgan("attribute", images[0], "--model", tiny_run, "--data", tmp_path / "none.zip", "-q", code=1)
    assert "none.zip" in result.stderr
