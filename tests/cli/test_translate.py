"""`sgan translate fit` and `sgan translate` end to end: every task, on tiny models; files, figures, errors."""

import io
import itertools
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import stylegan_cli
import stylegan_cli.session.translate as translate_module
from stylegan_cli.data.images import read_metadata
from stylegan_cli.models.progan.config import ProGANConfig
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.sampling.encoders import ENCODER_FILE
from stylegan_cli.session import TranslateRequest
from stylegan_cli.snapshot import SnapshotInfo, save_snapshot

SHORT = ["--kimg", "0.016", "--snap", "0.016", "--batch", "8", "--held-out", "4", "-q"]
TASKS = ("superres", "inpaint", "sketch", "restore", "mask", "pairs")
COLORS = np.array([[0, 0, 0], [255, 0, 0], [255, 255, 255]], np.uint8)


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def visible(rgba):
    return np.concatenate([rgba[..., :3] * (rgba[..., 3:] / 255), rgba[..., 3:]], -1)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture(scope="module")
def sources(rgba_set, tmp_path_factory):
    """Class maps and other images with the names of `rgba_set`."""
    folder, rng = tmp_path_factory.mktemp("sources"), np.random.default_rng(1)
    with zipfile.ZipFile(rgba_set) as z:
        stored = [name for name in z.namelist() if name.endswith(".png")]
    for kind in ("mask", "pairs"):
        with zipfile.ZipFile(folder / f"{kind}.zip", "w") as z:
            for name in stored:
                shape = (24, 48) if kind == "mask" else (48, 96)
                values = COLORS[rng.integers(0, 3, shape)] if kind == "mask" else rng.integers(0, 256, shape)
                buffer = io.BytesIO()
                Image.fromarray(values.astype(np.uint8)).save(buffer, "PNG")
                z.writestr(name, buffer.getvalue())
    return folder


@pytest.fixture(scope="module")
def alias_free(tmp_path_factory):
    """A model of another family, without a discriminator, for images of 24 x 48 with alpha."""
    torch.manual_seed(0)
    G = build_generator(StyleGAN3Config(24, 48, channels=4, z_dim=8, w_dim=8, channel_base=64, channel_max=4))
    path = tmp_path_factory.mktemp("models") / "alias-free.safetensors"
    save_snapshot(path, G, None, SnapshotInfo(G.config, None))
    return path


@pytest.fixture(scope="module")
def fit(sgan, rgba_set, sources):
    def run(task, model, runs, *more, code=0):
        source = ["--source", sources / f"{task}.zip"] if task in ("mask", "pairs") else []
        data = ["--data", rgba_set, "--model", model, "--runs", runs, *SHORT, *source, *more]
        return sgan("translate", "fit", "--task", task, *data, code=code)

    return run


@pytest.fixture(scope="module")
def fitted(fit, tiny_run, tmp_path_factory):
    """A folder with a run for each task, on a model of rectangles with alpha."""
    runs = tmp_path_factory.mktemp("fitted")
    for task in TASKS:
        fit(task, tiny_run, runs)
    return runs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """An image for each task, and a mask."""
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(2)
    for task in TASKS:
        values = COLORS[rng.integers(0, 3, (24, 48))] if task == "mask" else rng.integers(0, 256, (24, 48, 4))
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{task}.png")
    hole = np.full((24, 48), 255, np.uint8)
    hole[5:12, 8:30] = 0
    Image.fromarray(hole).save(folder / "hole.png")
    return folder


@pytest.fixture
def translate(sgan, inputs, tiny_run, tmp_path):
    def run(task, *more, model=tiny_run, runs=None, code=0, image=None):
        mask = ["--mask", inputs / "hole.png"] if task == "inpaint" and "--mask" not in more else []
        words = [image or inputs / f"{task}.png", "--model", model, "--runs", runs, "--outdir", tmp_path / "out", "-q"]
        return sgan("translate", *words, *mask, *more, code=code)

    return run


@pytest.mark.parametrize("task", TASKS)
def test_every_task(sgan, translate, fitted, inputs, tiny_run, tmp_path, task):
    answer = json.loads(translate(task, "--task", task, "--num", "3", "--json", runs=fitted).stdout)
    out = tmp_path / "out"
    assert answer["task"] == task and f"-{task}/snapshot-000000.016" in answer["encoder"]
    assert names(out) == sorted(["compare.png", "translated.npz", *(f"{task}-{k}.png" for k in (1, 2, 3))])
    assert answer["files"][-1] == str(out / "compare.png") and len(answer["files"]) == 5
    images = [pixels(out / f"{task}-{k}.png") for k in (1, 2, 3)]
    assert all(image.shape == (24, 48, 4) for image in images)
    assert not np.array_equal(images[0], images[1]) and not np.array_equal(images[1], images[2])
    with np.load(out / "translated.npz") as f:
        assert f["w"].shape[0] == 3 and list(f["names"]) == [f"{task}-{k}" for k in (1, 2, 3)]
    again = ["--from-w", out / "translated.npz", "--model", tiny_run, "--outdir", tmp_path / "again", "-q"]
    sgan("generate", *again)
    given = pixels(inputs / "hole.png") == 255 if task == "inpaint" else np.zeros((24, 48), bool)
    for k, image in enumerate(images):
        if task == "inpaint":
            assert np.array_equal(image[given], pixels(inputs / f"{task}.png")[given]), "given pixels are kept exactly"
        assert np.abs(image - pixels(tmp_path / "again" / f"w000{k}.png"))[~given].max() <= 1
    record = read_metadata(out / f"{task}-2.png")
    assert record["task"] == task and record["styles_seed"] == "0" and record["target"] == task
    (found,) = answer["found"]
    assert found["name"] == task and (len(found["rms"]) == 3 if task == "superres" else "rms" not in found)


def test_figures_of_super_resolution(translate, fitted, inputs, tmp_path):
    """Printed, and those of the files."""
    answer = json.loads(translate("superres", "--task", "superres", "--json", runs=fitted).stdout)
    (rms,) = answer["found"][0]["rms"]
    small = pixels(inputs / "superres.png").reshape(6, 4, 12, 4, 4).mean((1, 3))
    result = pixels(tmp_path / "out" / "superres-1.png").reshape(6, 4, 12, 4, 4).mean((1, 3))
    opaque = np.sqrt(((small - result)[..., 3] ** 2).mean()) / 255
    assert 0 < rms < 1 and opaque > 0
    Image.fromarray(result.round().astype(np.uint8)).save(tmp_path / "small.png")
    words = ("superres", "--task", "superres", "--json")
    answer = json.loads(translate(*words, runs=fitted, image=tmp_path / "small.png").stdout)
    reduced = visible(pixels(tmp_path / "out" / "small-1.png")).reshape(6, 4, 12, 4, 4).mean((1, 3))
    expected = np.sqrt(((reduced - visible(result.round())) ** 2).mean()) / 255
    assert answer["found"][0]["rms"][0] == pytest.approx(expected, abs=1e-5)


def test_another_family(fit, translate, alias_free, tmp_path):
    """Without a discriminator, and without options: the newest encoder of the model."""
    fit("inpaint", alias_free, tmp_path / "runs", "--batch", "2", "--kimg", "0.002", "--held-out", "1")
    translate("inpaint", "--num", "2", "--styles", "0-3", model=alias_free, runs=tmp_path / "runs")
    assert names(tmp_path / "out") == ["compare.png", "inpaint-1.png", "inpaint-2.png", "translated.npz"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_folder_or_zip(translate, fitted, inputs, tmp_path, kind):
    """In batches: the same files as of its images; a sheet of the first ones; others are omitted with a warning."""
    source, out, stored = tmp_path / "photos", tmp_path / "out", ("superres", "sketch", "restore")
    (source / "deep").mkdir(parents=True)
    for name in stored:
        (source / "deep" / f"{name}.png").write_bytes((inputs / f"{name}.png").read_bytes())
    (source / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    if kind == "zip":
        with zipfile.ZipFile(source := tmp_path / "photos.zip", "w") as z:
            for path in (tmp_path / "photos").rglob("*.png"):
                z.write(path, path.relative_to(tmp_path / "photos"))
    images = [inputs / f"{name}.png" for name in sorted(stored)]
    words = ("--task", "superres", "--num", "2", "--seed", "3", "--json")
    alone = json.loads(translate("superres", *images[1:], *words, image=images[0], runs=fitted).stdout)
    expected = {path.name: pixels(path) for path in out.glob("*-?.png")}
    with np.load(out / "translated.npz") as f:
        latents, order = f["w"], f["names"].tolist()
    for path in out.iterdir():
        path.unlink()
    result = translate("superres", *words, "--batch", "2", image=source, runs=fitted)
    assert "Not translated: broken.png" in result.stderr and result.stderr.count("Not translated") == 1
    assert names(out) == sorted([*expected, "compare.png", "translated.npz"])
    assert all(np.abs(pixels(out / name) - image).max() <= 1 for name, image in expected.items())
    answer = json.loads(result.stdout)
    assert [x["name"] for x in answer["found"]] == [x["name"] for x in alone["found"]] == sorted(stored)
    assert all(a["rms"] == pytest.approx(b["rms"], abs=1e-3) for a, b in zip(answer["found"], alone["found"]))
    with np.load(out / "translated.npz") as f:
        assert np.allclose(f["w"], latents, atol=1e-4) and f["names"].tolist() == order


def test_an_interrupted_folder_keeps_what_is_done(fitted, inputs, tiny_run, tmp_path):
    """The images, latents and sheet of the batches that were finished."""
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes((inputs / "sketch.png").read_bytes())
    session = stylegan_cli.open(str(tiny_run))
    stream = session.translate(TranslateRequest(images=[tmp_path], task="sketch", runs=fitted, batch=1))
    parts = stream.parts

    def two_of_them():
        yield from itertools.islice(parts(), 2)
        raise KeyboardInterrupt

    stream.parts = two_of_them
    with pytest.raises(KeyboardInterrupt):
        stream.save(tmp_path / "out")
    assert names(tmp_path / "out") == ["a-1.png", "b-1.png", "compare.png", "translated.npz"]
    with np.load(tmp_path / "out" / "translated.npz") as f:
        assert len(f["w"]) == 2 and f["names"].tolist() == ["a-1", "b-1"]


def test_other_results_of_a_hole_fit_what_is_around_it(translate, fitted, inputs, tmp_path, monkeypatch):
    """The completed image is encoded once more; results of other tasks are not."""
    seen = []
    real = translate_module.latents_of
    monkeypatch.setattr(translate_module, "latents_of", lambda m, e, x, *more: seen.append(x) or real(m, e, x, *more))
    translate("inpaint", "--task", "inpaint", "--num", "3", runs=fitted)
    first, *others = seen
    assert len(others) == 2 and (first[:, -1] < 0).any() and all((x[:, -1] == 1).all() for x in others)
    given = first[:, -1:] > 0
    assert all(torch.equal(torch.where(given, x[:, :-1], 0), torch.where(given, first[:, :-1], 0)) for x in others)
    seen.clear()
    translate("sketch", "--task", "sketch", "--num", "3", runs=fitted)
    assert len(seen) == 1


def test_a_folder_is_not_overwritten(sgan, fitted, inputs, tiny_run, tmp_path):
    """By the result of another image of the folder."""
    for name in ("a.png", "a-1.png"):
        (tmp_path / name).write_bytes((inputs / "sketch.png").read_bytes())
    words = ["--task", "sketch", "--model", tiny_run, "--runs", fitted, "-q"]
    result = sgan("translate", tmp_path, *words, "--outdir", tmp_path, code=1)
    assert "would be overwritten by its own result" in result.stderr and names(tmp_path) == ["a-1.png", "a.png"]


def test_skips(sgan, fit, translate, inputs, tiny_run, tmp_path):
    """The results are those of a fine-tuned copy of the model, not of the latents alone; styles vary as without."""
    runs = tmp_path / "runs"
    fit("inpaint", tiny_run, runs, "--skips", "--adversarial", "0.1", "--lr", "0.1")
    (folder,) = runs.iterdir()
    assert "skips to a fine-tuned generator" in sgan("model", "info", folder / "snapshot-000000.016.safetensors").stdout
    answer = json.loads(translate("inpaint", "--num", "3", "--styles", "0-3", "--json", runs=runs).stdout)
    assert answer["encoder"].startswith(str(folder))
    out = tmp_path / "out"
    images = [pixels(out / f"inpaint-{k}.png") for k in (1, 2, 3)]
    assert len({image.tobytes() for image in images}) == 3
    given = pixels(inputs / "hole.png") == 255
    assert all(np.array_equal(image[given], pixels(inputs / "inpaint.png")[given]) for image in images)
    sgan("generate", "--from-w", out / "translated.npz", "--model", tiny_run, "--outdir", tmp_path / "again", "-q")
    assert np.abs(images[0] - pixels(tmp_path / "again" / "w0000.png"))[~given].max() > 1
    assert "latents alone" in sgan("translate", "--help").stdout
    words = ["translate", "fit", "--resume", folder, "--skips", "-q"]
    assert "--skips cannot be changed" in sgan(*words, code=2).stderr


def test_results_depend_on_the_seed_alone(translate, fitted, inputs, tmp_path):
    """The first result is the same for any seed; the second with seed 6 is the third with seed 5."""
    images = {}
    for seed, num in ((5, 3), (6, 2), (5, 5)):
        words = ("--task", "sketch", "--seed", seed, "--num", num, "--styles", "coarse")
        translate("sketch", inputs / "restore.png", *words, runs=fitted)
        images[seed, num] = [pixels(tmp_path / "out" / f"sketch-{k + 1}.png") for k in range(num)]
    first, other, five = images.values()
    assert np.array_equal(first[0], other[0]) and np.abs(first[2] - other[1]).max() <= 1
    assert len({image.tobytes() for image in five}) == 5, "five results differ"
    assert "restore-5.png" in names(tmp_path / "out")


def test_resumed_to_the_bit(sgan, fit, tiny_run, sources, tmp_path):
    """Class maps are opened again with the classes of before, if they have not changed."""
    runs, maps = tmp_path / "runs", tmp_path / "maps.zip"
    maps.write_bytes((sources / "mask.zip").read_bytes())
    fit("mask", tiny_run, runs / "a", "--kimg", "0.032", "--source", maps)
    fit("mask", tiny_run, runs / "b", "--kimg", "0.032", "--source", maps)
    (whole,), (half,) = ([p for p in (runs / name).iterdir() if p.is_dir()] for name in "ab")
    for path in half.glob("*000000.032*"):  # as if it had been killed after half of its length
        path.unlink()
    sgan("translate", "fit", "--resume", half, "-q")
    name = "snapshot-000000.032.safetensors"
    expected, actual = (load_file(folder / name) for folder in (whole, half))
    assert expected.keys() == actual.keys() and all(torch.equal(expected[key], actual[key]) for key in expected)
    info = ENCODER_FILE.read_info(half / name)
    assert info == ENCODER_FILE.read_info(whole / name)
    assert info.task_options == {"classes": ["#000000", "#ff0000", "#ffffff"]}
    with zipfile.ZipFile(maps, "a") as z:
        z.writestr("more.png", z.read(z.namelist()[0]))
    result = sgan("translate", "fit", "--resume", half, "--kimg", "0.048", "-q", code=1)
    assert "no image of the same name" in result.stderr
    with zipfile.ZipFile(sources / "mask.zip") as old, zipfile.ZipFile(maps, "w") as z:
        first, second, *rest = old.namelist()
        for name, taken_from in ((first, second), (second, first), *zip(rest, rest, strict=True)):
            z.writestr(name, old.read(taken_from))
    result = sgan("translate", "fit", "--resume", half, "--kimg", "0.048", "-q", code=1)
    assert "have changed since this run was started" in result.stderr


def test_images_have_any_name(sgan, fitted, inputs, tiny_run, tmp_path, monkeypatch):
    """Also that of the command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fit").write_bytes((inputs / "restore.png").read_bytes())
    sgan("translate", "./fit", "--task", "restore", "--model", tiny_run, "--runs", fitted, "-q")
    assert names(tmp_path / "out") == ["compare.png", "fit-1.png", "translated.npz"]
    assert "--task" in sgan("translate", "--help").stdout and "fit " in sgan("translate", "--help").stdout


@pytest.mark.parametrize(
    ("task", "words", "message"),
    [
        ("superres", ["--factor", "5"], "cannot be reduced by the factor 5"),
        ("superres", ["--factor", "48"], "cannot be reduced by the factor 48"),
        ("sketch", ["--factor", "2"], "--factor has no effect on the task sketch"),
        ("sketch", ["--adversarial", "1"], "--adversarial has an effect with --skips only"),
        ("sketch", ["--source", "x.zip"], "--source has no effect on the task sketch"),
    ],
)
def test_settings_that_are_refused(fit, tiny_run, tmp_path, task, words, message):
    assert message in fit(task, tiny_run, tmp_path / "runs", *words, code=2).stderr
    assert not (tmp_path / "runs").exists()


def test_fits_that_are_refused(sgan, fit, inputs, tiny_run, tmp_path):
    words = ["--runs", tmp_path / "runs", "-q"]
    assert "Missing option --task" in sgan("translate", "fit", *words, code=2).stderr
    model = ["--model", tiny_run, *words]
    assert "needs a second source" in sgan("translate", "fit", "--task", "mask", *model, code=2).stderr
    assert "differ in" in fit("pairs", tiny_run, tmp_path / "runs", "--source", inputs, code=1).stderr
    (tmp_path / "others").mkdir()
    Image.open(inputs / "mask.png").save(tmp_path / "others" / "mask.png")
    for task in ("mask", "pairs"):
        other = ["--source", tmp_path / "others"]
        assert (
            "no image of the same name for 40 images" in fit(task, tiny_run, tmp_path / "runs", *other, code=1).stderr
        )
    G = build_generator(StyleGAN2Config(16, 16, z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=4))
    save_snapshot(tmp_path / "rgb.safetensors", G, None, SnapshotInfo(G.config, None))
    result = fit("sketch", tmp_path / "rgb.safetensors", tmp_path / "runs", code=1)
    assert "cannot be reduced to the model's 16x16" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_model_without_styles(fit, tmp_path):
    config = ProGANConfig(24, 48, channels=4, z_dim=8, channel_base=64, channel_max=8)
    save_snapshot(tmp_path / "progan.safetensors", build_generator(config), None, SnapshotInfo(config, None))
    assert "has no styles" in fit("sketch", tmp_path / "progan.safetensors", tmp_path / "runs", code=1).stderr


def test_uses_that_are_refused(sgan, fit, translate, fitted, inputs, alias_free, tiny_run, tmp_path):
    """In one sentence, and nothing is written."""
    runs = {task: fitted / f"0000{i}-rgba-{task}" for i, task in enumerate(TASKS)}

    def refused(task, *words, **options):
        return translate(task, *words, runs=options.pop("runs", fitted), code=None, **options).stderr

    assert "was fitted for the task sketch" in refused("restore", "--task", "restore", "--encoder", runs["sketch"])
    assert "belongs to the model" in refused("sketch", "--encoder", runs["sketch"], model=alias_free)
    assert "has an encoder for this model and the task sketch" in refused("sketch", "--task", "sketch", runs=tmp_path)
    assert "styles have no effect" in refused("sketch", "--task", "sketch", "--styles", "fine")
    assert "A mask has no effect" in refused("sketch", "--task", "sketch", "--mask", inputs / "hole.png")
    assert "no style 99" in refused("sketch", "--task", "sketch", "--styles", "99", "--num", "2")
    assert "only complete class maps" in refused("mask", "--task", "mask", image=inputs / "restore.png")
    Image.open(inputs / "restore.png").convert("RGB").save(tmp_path / "opaque.png")
    assert "which is not the color of a class" in refused("mask", "--task", "mask", image=tmp_path / "opaque.png")
    assert "has to be named alone" in refused("sketch", inputs / "mask.png", image=inputs)
    (tmp_path / "empty").mkdir()
    assert "contains no images" in refused("sketch", image=tmp_path / "empty")
    (tmp_path / "maps").mkdir()
    (tmp_path / "opaque.png").rename(tmp_path / "maps" / "a.png")
    message = refused("mask", "--task", "mask", image=tmp_path / "maps")
    assert "can be translated" in message and "not the color of a class" in message
    assert "does not exist" in refused("sketch", "--task", "sketch", image=tmp_path / "nothing.png")
    for level, message in ((255, "nothing is missing"), (0, "entirely black")):
        Image.new("L", (48, 24), level).save(tmp_path / "mask.png")
        assert message in refused("inpaint", "--task", "inpaint", "--mask", tmp_path / "mask.png")
    Image.new("L", (24, 48)).save(tmp_path / "mask.png")
    assert "is 48x24" in refused("inpaint", "--task", "inpaint", "--mask", tmp_path / "mask.png")
    assert "No image to translate" in sgan("translate", "--num", "2", code=2).stderr
    encode = sgan("encode", inputs / "sketch.png", "--model", tiny_run, "--encoder", runs["sketch"], "-q", code=1)
    assert "was fitted for the task sketch" in encode.stderr and "sgan translate --task sketch" in encode.stderr
    assert not (tmp_path / "out").exists()
