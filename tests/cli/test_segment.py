"""`sgan segment fit`, `sgan segment` and `sgan translate fit --segmenter` end to end, on tiny models."""

import dataclasses
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.images import read_metadata, save_image
from stylegan_cli.data.pairs import open_pairs
from stylegan_cli.inversion.projector import Projector
from stylegan_cli.inversion.refine import refine
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.runs import find_model
from stylegan_cli.sampling.encoders import ENCODER_FILE
from stylegan_cli.sampling.segmenter import class_maps
from stylegan_cli.sampling.segmenter_files import SEGMENTER_FILE
from stylegan_cli.session import Session, fit_segmenter
from stylegan_cli.snapshot import SnapshotInfo, save_snapshot
from stylegan_cli.training.generated_pairs import GeneratedPairs

SHORT = ["--kimg", "0.016", "--snap", "0.016", "--batch", "8", "--held-out", "4", "-q"]
COLORS = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def dark(image):
    """Where an image [H, W] or [H, W, C] is darker than its median."""
    image = image if image.ndim == 2 else image[..., :3].sum(2)
    return image < np.median(image)


def annotate(folder):
    """Write masks whose class 1 is where an image is dark."""
    for path in sorted(folder.iterdir()):
        Image.fromarray(COLORS[dark(pixels(path)).astype(int)]).save(path.with_suffix(".mask.png"))
    return folder


def open_dataset_of(out):
    """The images [N, C, H, W] and the class maps [N, H, W] of `sgan segment --seeds`, as arrays."""
    dataset = open_dataset(out / "images.zip")
    pairs, classes = open_pairs(dataset, str(out / "masks.zip"), class_maps=True)
    assert classes == ("#000000", "#ff0000")
    found = pairs.images(range(len(pairs))).numpy()
    assert np.array_equal(found[:, :-1], dataset.images(range(len(pairs))).numpy())
    return found[:, :-1], found[:, -1]


def generated(folder):
    """The images [N, C, H, W] that `sgan generate` wrote, in the order of their seeds."""
    images = [pixels(path) for path in sorted(folder.glob("seed????.png"))]
    return np.stack([x[None] if x.ndim == 2 else x.transpose(2, 0, 1) for x in images])


@pytest.fixture(scope="module")
def annotated(sgan, tiny_run, tmp_path_factory):
    """Three images of seeds and their masks."""
    folder = tmp_path_factory.mktemp("annotated")
    sgan("generate", "--model", tiny_run, "--seeds", "0-2", "--trunc", "0.7", "--outdir", folder, "-q")
    return annotate(folder)


@pytest.fixture(scope="module")
def fitted(sgan, annotated, tiny_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted")
    words = ["--annotated", annotated, "--model", tiny_run, "--outdir", out, "--json"]
    return json.loads(sgan("segment", "fit", *words).stdout), out / "segmenter.safetensors"


def test_fit_to_annotated_seeds(fitted, annotated):
    """Their latents are exact, so that the segmenter knows the images as they are."""
    answer, path = fitted
    assert answer["latents"] == {f"seed000{i}": "seed" for i in range(3)}
    assert answer["classes"] == ["#000000", "#ff0000"] and set(answer["iou"]) == {"mean", "#000000", "#ff0000"}
    assert answer["files"] == [str(path), str(path.with_suffix(".png"))] and names(path.parent) == [
        "segmenter.png",
        "segmenter.safetensors",
    ]
    info = SEGMENTER_FILE.read_info(path)
    assert (info.examples, info.method, info.iou) == (3, "linear", answer["iou"])
    assert info.iou["mean"] == pytest.approx((info.iou["#000000"] + info.iou["#ff0000"]) / 2)
    assert info.iou["mean"] > 0.5, "halves by chance: 1/3"


def test_without_exact_latents(sgan, annotated, tiny_run, tmp_path):
    """A changed image is searched, though its metadata names a seed; sparse masks; class means."""
    folder = tmp_path / "changed"
    shutil.copytree(annotated, folder)
    text = read_metadata(folder / "seed0001.png")
    save_image(
        (255 - pixels(folder / "seed0001.png")).transpose(2, 0, 1).astype(np.uint8),
        folder / "seed0001.png",
        metadata=text,
    )
    mask = np.dstack([pixels(folder / "seed0002.mask.png"), np.zeros((24, 48), int)]).astype(np.uint8)
    mask[::6, ::5, 3] = 255
    Image.fromarray(mask).save(folder / "seed0002.mask.png")
    words = ["--annotated", folder, "--model", tiny_run, "--steps", "2", "--labels", "nearest", "--json"]
    result = sgan("segment", "fit", *words, "--out", tmp_path / "own.safetensors")
    answer = json.loads(result.stdout)
    assert answer["latents"] == {"seed0000": "seed", "seed0001": "projection", "seed0002": "seed"}
    assert f"{folder / 'seed0001.png'} are searched, although its metadata names a seed. This model" in result.stderr
    assert result.stderr.count("are searched") == 1
    assert names(tmp_path) == ["changed", "own.png", "own.safetensors"]
    assert SEGMENTER_FILE.read_info(tmp_path / "own.safetensors").method == "nearest"


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf32", "bf16", "fp16"])
def test_recorded_images_of_any_precision(sgan, tiny_run, tmp_path, precision):
    """Though bf16 moves them by more than the two levels that an image may differ."""
    words = ["--model", tiny_run, "--seeds", "0,7", "--noise-mode", "random", "--precision", precision, "-q"]
    sgan("generate", *words, "--outdir", tmp_path / "masks")
    words = ["--annotated", annotate(tmp_path / "masks"), "--model", tiny_run, "--outdir", tmp_path, "--json"]
    result = sgan("segment", "fit", *words)
    assert json.loads(result.stdout)["latents"] == {"seed0000": "seed", "seed0007": "seed"}
    assert "are searched" not in result.stderr


def test_images_are_searched_in_groups(annotated, tiny_run, monkeypatch):
    """On a CPU, as many as there is memory for, with the same result."""
    session, sizes = Session(find_model(tiny_run, "nowhere")[0]), []
    options = fit_segmenter.SearchOptions(steps=4, runs="nowhere")
    images = torch.from_numpy(generated(annotated)).float() / 127.5 - 1
    whole, _ = fit_segmenter.search_latents(session, options, images)
    step = Projector.step
    monkeypatch.setattr(Projector, "step", lambda self: (sizes.append(len(self.targets)), step(self)))
    monkeypatch.setattr(fit_segmenter, "_PIXELS", 2 * 24 * 48 + 1)
    found, source = fit_segmenter.search_latents(session, options, images)
    assert sizes == [2] * 4 + [1] * 4 and source == "projection"
    assert torch.allclose(found, whole, atol=1e-3) and not torch.allclose(found[0], found[1], atol=1e-2)


@pytest.fixture
def segment(sgan, fitted, tiny_run, tmp_path):
    def run(*words, code=0, segmenter=fitted[1], model=tiny_run):
        common = ["--segmenter", segmenter, "--model", model, "--outdir", tmp_path / "out"]
        return sgan("segment", *words, *common, code=code)

    return run


@pytest.mark.parametrize("options", [[], ["--batch", "4"], ["--precision", "bf16"], ["--precision", "fp16"]])
def test_a_dataset_of_seeds(sgan, segment, annotated, tiny_run, tmp_path, options):
    """Images and masks of the same names, as the commands for datasets read them; images as of `generate`, to the bit
    and with the same metadata."""
    words = ["--seeds", "0-9", "--trunc", "0.7", *options]
    answer = json.loads(segment(*words, "--json", "-q").stdout)
    sgan("generate", *words, "--model", tiny_run, "--outdir", tmp_path / "images", "-q")
    out = tmp_path / "out"
    assert names(out) == ["images.zip", "masks.zip", "segmented.png"] and answer["images"] == 10
    images, maps = open_dataset_of(out)
    assert images.shape == (10, 4, 24, 48) and np.array_equal(images, generated(tmp_path / "images"))
    for i in range(3):
        right = (maps[i] == 1) == (pixels(annotated / f"seed000{i}.mask.png")[..., 0] == 255)
        assert right.mean() > 0.8
    with zipfile.ZipFile(out / "images.zip") as z, z.open(z.namelist()[3]) as f:
        text = Image.open(f).text
    own = read_metadata(tmp_path / "images" / "seed0003.png")
    for name in ("seed", "trunc", "precision", "model", "noise_mode"):
        assert text[name] == own[name]
    assert json.loads(sgan("data", "info", out / "masks.zip", "--json").stdout)["made"]["colors"] == answer["classes"]


def test_images(segment, fitted, annotated, tiny_run, tmp_path):
    """Their masks are those of the latents that are found, moved to the edges of the image."""
    images = [annotated / "seed0000.png", annotated / "seed0002.png"]
    answer = json.loads(segment(*images, "--steps", "2", "--json", "-q").stdout)
    out = tmp_path / "out"
    assert names(out) == ["compare.png", "seed0000.mask.png", "seed0002.mask.png"]
    assert answer["files"][-1] == str(out / "compare.png") and answer["classes"] == ["#000000", "#ff0000"]
    assert read_metadata(out / "seed0000.mask.png")["segmenter"] == "segmenter.safetensors"
    session = Session(find_model(tiny_run, "nowhere")[0])
    found = session.segment(images=images, segmenter=fitted[1], steps=2, runs="nowhere")
    plain = session.segment(images=images, segmenter=fitted[1], steps=2, runs="nowhere", refine=False)
    with torch.no_grad():
        _, logits = found.segmenter.linear.read(session.G.synthesis, found.ws)
    targets = torch.from_numpy(np.stack([pixels(p).transpose(2, 0, 1) for p in images])).float() / 127.5 - 1
    assert torch.equal(plain.maps, class_maps(logits))
    assert torch.equal(found.maps, class_maps(refine(logits, targets))) and not torch.equal(found.maps, plain.maps)
    for name, classes in zip(("seed0000", "seed0002"), found.maps.numpy(), strict=True):
        assert np.array_equal(pixels(out / f"{name}.mask.png"), COLORS[classes])


def test_another_family(sgan, moving_generator, tmp_path):
    """Whose layers have margins, and which has no discriminator; images that were moved."""
    G = moving_generator(16, 64, 8)
    save_snapshot(tmp_path / "m.safetensors", G, None, SnapshotInfo(G.config, None))
    model = ["--model", tmp_path / "m.safetensors", "-q"]
    masks, out = tmp_path / "masks", tmp_path / "out"
    sgan("generate", "--seeds", "0-2", "--outdir", masks, *model)
    sgan("generate", "--seeds", "3", "--translate", "0.2,-0.1", "--rotate", "20", "--outdir", masks, *model)
    annotate(masks)
    answer = json.loads(sgan("segment", "fit", "--annotated", masks, "--outdir", out, "--json", *model).stdout)
    assert answer["iou"]["mean"] > 0.4 and set(answer["latents"].values()) == {"seed"}
    fit = Session(tmp_path / "m.safetensors").fit_segmenter(annotated=masks)
    assert np.abs(fit.found.numpy() - generated(masks)).max() <= 1, "the moved one too"
    words = ["--segmenter", out / "segmenter.safetensors", "--outdir", out, *model]
    sgan("segment", "--seeds", "0-2", *words)
    images, maps = open_dataset_of(out)
    assert np.array_equal(images, generated(masks)[:3])
    assert np.mean([dark(image.transpose(1, 2, 0)) == (k == 1) for image, k in zip(images, maps)]) > 0.75
    sgan("segment", masks / "seed0000.png", "--steps", "2", *words)
    assert pixels(out / "seed0000.mask.png").shape == (16, 16, 3)


def test_classes_of_a_model(sgan, class_run, tmp_path):
    """Images have the class that is chosen, or those of their seeds, and the dataset has them as labels."""
    model, masks, out = ["--model", class_run, "-q"], tmp_path / "masks", tmp_path / "out"
    sgan("generate", "--seeds", "0-3", "--outdir", masks, *model)
    assert len({read_metadata(path)["class"] for path in masks.iterdir()}) > 1
    words = ["--annotated", annotate(masks), "--outdir", out, "--json"]
    assert set(json.loads(sgan("segment", "fit", *words, *model).stdout)["latents"].values()) == {"seed"}
    words = ["--segmenter", out / "segmenter.safetensors", "--outdir", out, *model]
    sgan("segment", "--seeds", "0-3", *words)
    assert np.array_equal(open_dataset_of(out)[0], generated(masks))
    known = [int(read_metadata(path)["class"]) for path in sorted(masks.glob("seed????.png"))]
    found = open_dataset(out / "images.zip").stored
    assert found.values.tolist() == known and found.names == ("flat", "none", "tall")
    sgan("segment", "--seeds", "0-3", "--class", "tall", *words)
    sgan("generate", "--seeds", "0-3", "--class", "tall", "--outdir", tmp_path / "tall", *model)
    assert np.array_equal(open_dataset_of(out)[0], generated(tmp_path / "tall"))
    assert open_dataset(out / "images.zip").stored.values.tolist() == [2] * 4
    with zipfile.ZipFile(out / "images.zip") as z, z.open(z.namelist()[0]) as f:
        assert Image.open(f).text["class_name"] == "tall"
    shown = sgan("segment", "--seeds", "0-3", *[word for word in words if word != "-q"]).stderr
    assert "Classes: " in shown
    assert "no class 'short'" in sgan("segment", "--seeds", "0", "--class", "short", *words, code=1).stderr


def test_gray_images(sgan, tmp_path):
    torch.manual_seed(0)
    config = StyleGAN2Config(16, 16, channels=1, channel_base=128, channel_max=8, w_dim=8, z_dim=8)
    G = build_generator(config)
    save_snapshot(tmp_path / "m.safetensors", G, None, SnapshotInfo(config, None))
    model, masks, out = ["--model", tmp_path / "m.safetensors", "-q"], tmp_path / "masks", tmp_path / "out"
    sgan("generate", "--seeds", "0-2", "--outdir", masks, *model)
    words = ["--annotated", annotate(masks), "--outdir", out, "--json"]
    answer = json.loads(sgan("segment", "fit", *words, *model).stdout)
    assert set(answer["latents"].values()) == {"seed"} and answer["iou"]["mean"] > 0.5
    words = ["--segmenter", out / "segmenter.safetensors", "--outdir", out, *model]
    sgan("segment", "--seeds", "0-4", *words)
    images, maps = open_dataset_of(out)
    assert images.shape == (5, 1, 16, 16) and np.array_equal(images[:3], generated(masks))
    assert np.mean([dark(image[0]) == (k == 1) for image, k in zip(images, maps, strict=True)]) > 0.75
    sgan("segment", masks / "seed0001.png", "--steps", "40", *words)
    mask = pixels(out / "seed0001.mask.png")[..., 0] == 255
    assert (mask == dark(pixels(masks / "seed0001.png"))).mean() > 0.7


def test_in_python(fitted, annotated, tiny_run, tmp_path):
    session = Session(find_model(tiny_run, "nowhere")[0])
    fit = session.fit_segmenter(annotated=annotated)
    result = session.segment(seeds=[0, 1, 2], segmenter=fit.segmenter, trunc=0.7)
    pairs = list(result)
    assert len(result) == 3 and pairs[0][0].shape == (4, 24, 48)
    assert torch.equal(torch.stack([image for image, _ in pairs]), session.generate(seeds=[0, 1, 2], trunc=0.7).images)
    assert pairs[0][1].dtype == fit.maps.dtype == torch.uint8, "64 classes at most"
    assert torch.equal(torch.stack([m for _, m in pairs]), fit.maps)
    one = session.segment(images=[annotated / "seed0000.png"], segmenter=fitted[1], steps=2)
    assert one.maps.shape == (1, 24, 48) and one.images.shape == (1, 3, 24, 48)


def test_what_is_refused(sgan, segment, fitted, annotated, class_run, tmp_path):
    image, path = annotated / "seed0000.png", fitted[1]
    assert "There is nothing to segment" in segment(code=2).stderr
    assert "Both seeds and images" in segment(image, "--seeds", "1", code=2).stderr
    for option, value in (("--trunc", "0.5"), ("--class", "1"), ("--precision", "bf16")):
        assert f"{option} has no effect on image files" in segment(image, option, value, code=2).stderr
    for option in (["--no-refine"], ["--steps", "2"], ["--crop", "pad"]):
        assert f"{option[0]} has no effect on images of seeds" in segment("--seeds", "1", *option, code=2).stderr
    words = ["--annotated", annotated, "--threshold", "0.9", "--model", class_run]
    assert "--labels nearest only" in sgan("segment", "fit", *words, code=2).stderr
    assert "latents have to be searched" in segment(image, "--steps", "0", code=2).stderr
    assert "belongs to the model with fingerprint" in segment("--seeds", "1", model=class_run, code=1).stderr
    assert "does not exist" in segment("--seeds", "1", segmenter=tmp_path / "no", code=1).stderr
    assert "is not a segmenter" in segment("--seeds", "1", segmenter=image, code=1).stderr
    tensors = load_file(path)
    save_file(tensors, tmp_path / "plain.safetensors")
    assert "but not a segmenter" in segment("--seeds", "1", segmenter=tmp_path / "plain.safetensors", code=1).stderr
    assert not (tmp_path / "out").exists(), "nothing is left"
    assert "is a segmenter, not a snapshot" in sgan("generate", "--model", path, code=1).stderr
    words = [image, "--segmenter", path, "--outdir", annotated]
    assert "seed0000.mask.png would be overwritten" in sgan("segment", *words, code=1).stderr, "made by hand"
    words = ["--annotated", annotated, "--out", annotated / "seed0000.safetensors", "--model", class_run]
    assert "seed0000.png would be overwritten" in sgan("segment", "fit", *words, code=1).stderr


def test_model_info(sgan, fitted):
    shown = sgan("model", "info", fitted[1]).stdout
    assert "segmenter" in shown and "#000000, #ff0000" in shown and "linear" in shown
    assert json.loads(sgan("model", "info", fitted[1], "--json").stdout)["info"]["examples"] == 3


# ---------------------------------------------------------------------------------------------- translation


@pytest.fixture(scope="module")
def translator(sgan, fitted, tiny_run, tmp_path_factory):
    """A run of two steps that translates sparse masks."""
    runs = tmp_path_factory.mktemp("runs")
    words = ["--task", "mask", "--segmenter", fitted[1], "--sparse", "--model", tiny_run, "--runs", runs, *SHORT]
    sgan("translate", "fit", *words)
    (run,) = (p for p in runs.iterdir() if p.is_dir())
    return run


def test_translation_is_trained_on_generated_pairs(translator):
    info = ENCODER_FILE.read_info(translator / "snapshot-000000.016.safetensors")
    assert info.task == "mask" and info.encoder.inputs == 2
    assert info.task_options == {"classes": ["#000000", "#ff0000"], "sparse": True}
    stats = [json.loads(line) for line in (translator / "stats.jsonl").read_text().splitlines()]
    assert any(line.get("loss/segmenter", 0) > 0 for line in stats)


def test_resumed_to_the_bit(sgan, translator, fitted, tiny_run, tmp_path):
    """Also when the segmenter is gone: the run keeps a copy."""
    segmenter, runs = shutil.copy(fitted[1], tmp_path / "segmenter.safetensors"), tmp_path / "runs"
    words = ["--task", "mask", "--segmenter", segmenter, "--sparse", "--model", tiny_run, "--runs", runs, *SHORT]
    sgan("translate", "fit", *words, "--kimg", "0.032")
    (whole,) = (p for p in runs.iterdir() if p.is_dir())
    segmenter.unlink()
    half = tmp_path / "half"
    shutil.copytree(whole, half)
    for path in half.glob("*000000.032*"):
        path.unlink()
    sgan("translate", "fit", "--resume", half, "-q")
    expected, actual = (load_file(p / "snapshot-000000.032.safetensors") for p in (whole, half))
    assert all(torch.equal(expected[key], actual[key]) for key in expected)


def test_sparse_masks_are_translated(sgan, translator, tiny_run, tmp_path):
    mask = np.zeros((48, 96, 4), np.uint8)
    mask[4, 8], mask[30, 70:74] = (0, 0, 0, 255), (255, 0, 0, 255)
    Image.fromarray(mask).save(tmp_path / "m.png")
    words = [tmp_path / "m.png", "--task", "mask", "--model", tiny_run, "--encoder", translator, "-q"]
    sgan("translate", *words, "--outdir", tmp_path / "out")
    assert names(tmp_path / "out") == ["compare.png", "m-1.png", "translated.npz"]
    mask[..., 3] = 0
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert "no annotated pixel" in sgan("translate", *words, "--outdir", tmp_path / "out", code=1).stderr
    mask[4, 8] = (9, 9, 9, 255)
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert "not the color of a class" in sgan("translate", *words, "--outdir", tmp_path / "out", code=1).stderr


def test_options_that_do_not_go_together(sgan, fitted, rgba_set, tiny_run):
    def refused(*words):
        words = ["--model", tiny_run, "--segmenter", fitted[1], *words, *SHORT]
        return sgan("translate", "fit", *words, code=2).stderr

    assert "no effect on the task inpaint" in refused("--task", "inpaint")
    assert "--data has no effect with --segmenter" in refused("--task", "mask", "--data", rgba_set)
    assert "--source has no effect with --segmenter" in refused("--task", "mask", "--source", rgba_set)
    assert "--skips changes" in refused("--task", "mask", "--skips")
    assert "--sparse has no effect on the task sketch" in refused("--task", "sketch", "--sparse")


def test_generated_pairs(fitted, tiny_run):
    """A function of the index alone, whatever the neighbors are and how many."""
    session = Session(find_model(tiny_run, "nowhere")[0])
    pairs = GeneratedPairs(str(fitted[1]), session.G, session.fingerprint, 3)
    some = pairs.images(range(40))  # two batches
    assert some.shape == (40, 5, 24, 48) and some.dtype == torch.uint8 and pairs.labels([1, 2]).shape == (2, 0)
    assert set(some[:, -1].unique().tolist()) == {0, 1}
    for indices in ([9], [39, 9, 0, 31]):
        errors = (pairs.images(indices).int() - some[indices].int()).abs()
        assert errors.max() <= 1 and (errors == 0).float().mean() > 0.999
    assert len({image.numpy().tobytes() for image in some}) == 40
    other = GeneratedPairs(str(fitted[1]), session.G, session.fingerprint, 4).images([9])
    assert not torch.equal(other, some[9:10]) and len(pairs) == pairs.spec.num


def test_generated_maps_are_those_of_the_segmenter(fitted, tiny_run):
    """Which here finds class 1 everywhere in the end."""
    session = Session(find_model(tiny_run, "nowhere")[0])
    pairs = GeneratedPairs(str(fitted[1]), session.G, session.fingerprint, 3)
    bias = torch.tensor([0.0, 1e4])
    assert (pairs.images([1])[:, -1] == 0).any()
    pairs.segmenter = dataclasses.replace(pairs.segmenter, bias=bias)
    assert (pairs.images([1])[:, -1] == 1).all()
