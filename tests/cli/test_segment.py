"""`sgan segment fit`, `sgan segment` and `sgan translate fit --segmenter` end to end, on tiny models."""

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
from stylegan_cli.sampling.encoders import ENCODER_FILE
from stylegan_cli.sampling.segmenter_files import SEGMENTER_FILE
from stylegan_cli.session import Session
from stylegan_cli.snapshot import SnapshotInfo, save_snapshot
from stylegan_cli.training.generated_pairs import GeneratedPairs

SHORT = ["--kimg", "0.016", "--snap", "0.016", "--batch", "8", "--held-out", "4", "-q"]
COLORS = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture(scope="module")
def annotated(sgan, tiny_run, tmp_path_factory):
    """Three images of seeds; class 1 is where an image is darker than its median."""
    folder = tmp_path_factory.mktemp("annotated")
    sgan("generate", "--model", tiny_run, "--seeds", "0-2", "--trunc", "0.7", "--outdir", folder, "-q")
    for path in sorted(folder.iterdir()):
        image = pixels(path)[..., :3].sum(2)
        Image.fromarray(COLORS[(image < np.median(image)).astype(int)]).save(path.with_suffix(".mask.png"))
    return folder


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
    assert 0 < info.iou["mean"] <= 1


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
    assert names(tmp_path) == ["changed", "own.png", "own.safetensors"]
    assert SEGMENTER_FILE.read_info(tmp_path / "own.safetensors").method == "nearest"


@pytest.fixture
def segment(sgan, fitted, tiny_run, tmp_path):
    def run(*words, code=0, segmenter=fitted[1], model=tiny_run):
        common = ["--segmenter", segmenter, "--model", model, "--outdir", tmp_path / "out"]
        return sgan("segment", *words, *common, code=code)

    return run


def test_a_dataset_of_seeds(sgan, segment, annotated, tiny_run, tmp_path):
    """Images and masks of the same names, as the commands for datasets read them; images as of `generate`."""
    answer = json.loads(segment("--seeds", "0-9", "--trunc", "0.7", "--batch", "4", "--json", "-q").stdout)
    out = tmp_path / "out"
    assert names(out) == ["images.zip", "masks.zip", "segmented.png"] and answer["images"] == 10
    dataset = open_dataset(out / "images.zip")
    pairs, classes = open_pairs(dataset, str(out / "masks.zip"), class_maps=True)
    assert len(pairs) == 10 and classes == ("#000000", "#ff0000") and pairs.images([0]).shape == (1, 5, 24, 48)
    for i in range(3):
        image = pixels(annotated / f"seed000{i}.png")
        assert np.abs(dataset.images([i])[0].permute(1, 2, 0).numpy() - image).max() <= 1
        right = pairs.images([i])[0, -1].numpy() == (pixels(annotated / f"seed000{i}.mask.png")[..., 0] == 255)
        assert right.mean() > 0.8
    with zipfile.ZipFile(out / "images.zip") as z, z.open(z.namelist()[3]) as f:
        assert Image.open(f).text["seed"] == "3"
    sgan("data", "info", out / "masks.zip")


def test_images(segment, annotated, tmp_path):
    answer = json.loads(
        segment(annotated / "seed0000.png", annotated / "seed0002.png", "--steps", "2", "--json", "-q").stdout
    )
    out = tmp_path / "out"
    assert names(out) == ["compare.png", "seed0000.mask.png", "seed0002.mask.png"]
    assert answer["files"][-1] == str(out / "compare.png") and answer["classes"] == ["#000000", "#ff0000"]
    mask = pixels(out / "seed0000.mask.png")
    assert mask.shape == (24, 48, 3) and {tuple(c) for c in mask.reshape(-1, 3)} <= {(0, 0, 0), (255, 0, 0)}
    assert read_metadata(out / "seed0000.mask.png")["segmenter"] == "segmenter.safetensors"


def test_another_family(sgan, moving_generator, tmp_path):
    """Whose layers have margins, and which has no discriminator."""
    G = moving_generator(16, 64, 8)
    save_snapshot(tmp_path / "m.safetensors", G, None, SnapshotInfo(G.config, None))
    model = ["--model", tmp_path / "m.safetensors", "-q"]
    masks, out = tmp_path / "masks", tmp_path / "out"
    sgan("generate", "--seeds", "0-2", "--outdir", masks, *model)
    for path in sorted(masks.iterdir()):
        image = pixels(path).sum(2)
        Image.fromarray(COLORS[(image < np.median(image)).astype(int)]).save(path.with_suffix(".mask.png"))
    answer = json.loads(sgan("segment", "fit", "--annotated", masks, "--outdir", out, "--json", *model).stdout)
    assert answer["iou"]["mean"] > 0.3 and set(answer["latents"].values()) == {"seed"}
    words = ["--segmenter", out / "segmenter.safetensors", "--outdir", out, *model]
    sgan("segment", "--seeds", "0-2", *words)
    pairs, _ = open_pairs(open_dataset(out / "images.zip"), str(out / "masks.zip"), class_maps=True)
    given = [pixels(masks / f"seed000{i}.mask.png")[..., 0] == 255 for i in range(3)]
    assert np.mean([given[i] == pairs.images([i])[0, -1].numpy() for i in range(3)]) > 0.75
    sgan("segment", masks / "seed0000.png", "--steps", "2", *words)


def test_in_python(fitted, annotated, tiny_run, tmp_path):
    from stylegan_cli.runs import find_model

    session = Session(find_model(tiny_run, "nowhere")[0])
    fit = session.fit_segmenter(annotated=annotated)
    result = session.segment(seeds=[0, 1, 2], segmenter=fit.segmenter, trunc=0.7)
    pairs = list(result)
    assert len(result) == 3 and pairs[0][0].shape == (4, 24, 48)
    assert torch.equal(torch.stack([m for _, m in pairs]), fit.maps)
    one = session.segment(images=[annotated / "seed0000.png"], segmenter=fitted[1], steps=2)
    assert one.maps.shape == (1, 24, 48) and one.images.shape == (1, 3, 24, 48)


def test_what_is_refused(sgan, segment, fitted, annotated, class_run, tmp_path):
    image, path = annotated / "seed0000.png", fitted[1]
    assert "There is nothing to segment" in segment(code=2).stderr
    assert "Both seeds and images" in segment(image, "--seeds", "1", code=2).stderr
    for option, value in (("--trunc", "0.5"), ("--class", "1")):
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
    """A function of the index alone, and the masks are those of the segmenter."""
    from stylegan_cli.runs import find_model

    session = Session(find_model(tiny_run, "nowhere")[0])
    pairs = GeneratedPairs(str(fitted[1]), session.G, session.fingerprint, 3)
    some, again = pairs.images([5, 9, 70]), pairs.images([9])
    assert some.shape == (3, 5, 24, 48) and (some[1:2].int() - again.int()).abs().float().mean() < 0.05
    assert set(some[:, -1].unique().tolist()) == {0, 1} and pairs.labels([1, 2]).shape == (2, 0)
    other = GeneratedPairs(str(fitted[1]), session.G, session.fingerprint, 4).images([9])
    assert not torch.equal(other, again) and len(pairs) == pairs.spec.num
