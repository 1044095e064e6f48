"""Metrics end to end, with detectors without weights."""

import dataclasses
import itertools
import json
import os
import pickle
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.images import to_rgb
from stylegan_cli.data.pack import pack
from stylegan_cli.errors import SganError
from stylegan_cli.metrics import passes
from stylegan_cli.metrics.frechet import frechet_distance
from stylegan_cli.metrics.measure import TrainingMetrics, compare_images, measure
from stylegan_cli.metrics.registry import resolve
from stylegan_cli.metrics.requests import Request, measure_file
from stylegan_cli.metrics.stream import Fakes
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.snapshot import SnapshotInfo

QUICK = {"num": 40}
STYLEGAN2 = StyleGAN2Config(16, 16)


def measured(names, G, data, **options):
    return measure(resolve(names, **options), G, data, "cpu")


def compared(a, b, names, **options):
    return compare_images(resolve(names, **options), a, b)


@pytest.fixture
def data(rgb_set):
    return open_dataset(rgb_set, mirror=True)


def generated(G, batch, seed=0):
    """Generate 40 images, in batches as in the measurement: on some processors rounding depends on the batch size."""
    fakes = Fakes(G, None, torch.device("cpu"), seed)
    return torch.cat([fakes(index) for index in torch.arange(40).split(batch)])


def moments(detector, images):
    x = detector(to_rgb(images))["pool"].double()
    return x.mean(0), x.T.cov()


def test_metrics_share_passes(fakes, tiny_generator, data):
    names = ["fid", "kid", "pr", "is", "ppl", "dc", "fid50k"]
    results = measured(names, tiny_generator(), data, batch=9, **QUICK)
    assert list(results.values) == [
        *("fid40_full", "kid40_full", "pr40_k3_full_precision", "pr40_k3_full_recall", "is40", "ppl2_wend_40"),
        *("dc40_k5_full_density", "dc40_k5_full_coverage", "fid40"),
    ]
    assert all(np.isfinite(v) for v in results.values.values())
    inception, vgg = fakes.loaded
    assert (inception.name, sum(inception.seen)) == ("inception-2015", 32 + 64 + 40)  # reals, mirrored reals, fakes
    assert (vgg.name, sum(vgg.seen)) == ("vgg16", 32 + 40) and max(vgg.seen) == 9
    assert results.num_images["fid40_full"] == (32, 40) and results.num_images["fid40"] == (64, 40)
    assert results.num_images["ppl2_wend_40"] == (0, 40)
    assert results.deviations.keys() == {"kid40_full", "is40"} and results.seconds > 0
    higher = {name for name, up in results.higher_is_better.items() if up}
    assert higher == {name for name in results.values if name.startswith(("pr", "dc", "is"))}


def test_progress_is_reported_for_passes_and_computations(fakes, tiny_generator, data):
    calls = []
    measure(resolve(["kid", "ppl"], batch=9, **QUICK), tiny_generator(), data, "cpu", lambda *call: calls.append(call))
    reals, fakes = f"inception-2015, {data.name}", "inception-2015, images of the model"
    assert [what for what, done, _ in calls if done == 0] == [reals, fakes, "kid40_full", "ppl2_wend_40"]
    assert [call[1:] for call in calls if call[0] == fakes] == [(n, 40) for n in (0, 9, 18, 27, 36, 40)]
    assert calls[-1] == ("ppl2_wend_40", 40, 40) and ("kid40_full", 100, 100) in calls


def test_fid_equals_a_direct_computation(fakes, tiny_generator, data):
    G = tiny_generator()
    results = measured(["fid"], G, data, seed=4, batch=7, **QUICK)
    detector = fakes.detector("inception-2015")
    expected = frechet_distance(*moments(detector, data.images(range(32))), *moments(detector, generated(G, 7, seed=4)))
    assert results.values["fid40_full"] == pytest.approx(expected, rel=1e-9)
    assert "far too high with only 40 images for 2048 features" in results.notes[0]


def test_real_statistics_come_from_the_cache(fakes, tiny_generator, data):
    G = tiny_generator()
    first = measured(["fid", "kid"], G, data, **QUICK)
    again = measured(["fid", "kid"], G, data, **QUICK)
    assert sum(fakes.loaded[1].seen) == 40
    assert again.values == pytest.approx(first.values, rel=1e-9)
    measured(["pr"], G, data, **QUICK)
    assert sum(fakes.loaded[2].seen) == 32 + 40


def test_damaged_cache_entry_is_recomputed(fakes, tiny_generator, data, tmp_path):
    G = tiny_generator()
    first = measured(["fid"], G, data, **QUICK)
    (path,) = (tmp_path / "cache" / "statistics").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    assert measured(["fid"], G, data, **QUICK).values == first.values
    assert sum(fakes.loaded[1].seen) == 32 + 40


@pytest.mark.parametrize("private", [True, False])
def test_without_a_writable_cache(fakes, tiny_generator, data, tmp_path, monkeypatch, private):
    """The statistics are cached in the user's temporary folder, unless others can write to that."""
    (tmp_path / "cache").write_text("a file")
    temporary = tmp_path / f"stylegan_cli-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    temporary.mkdir(mode=0o700)
    temporary.chmod(0o700 if private else 0o777)
    first = measured(["fid"], tiny_generator(), data, **QUICK)
    again = measured(["fid"], tiny_generator(), data, **QUICK)
    assert again.values == first.values and sum(fakes.loaded[0].seen) == 32 + 40
    assert sum(fakes.loaded[1].seen) == (40 if private else 32 + 40)
    assert len(list(temporary.glob("statistics/*.safetensors"))) == private


def test_global_state_does_not_change(fakes, tiny_generator, data):
    torch.manual_seed(1)
    np.random.seed(1)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    seen = []
    G = tiny_generator()
    torch.manual_seed(1)
    synthesis = G.synthesis.forward
    G.synthesis.forward = lambda *a, **k: seen.append(flags()) or synthesis(*a, **k)
    measured(["fid", "kid", "pr", "dc", "is", "ppl"], G, data, **QUICK)
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()
    assert flags() == (True, True, True) and set(seen) == {(False, False, False)}
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def flags():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.is_grad_enabled()


def test_names_include_nonstandard_weights_and_truncation(fakes, tiny_generator, data):
    fakes.is_standard = False
    results = measured(["fid", "pr", "ppl"], tiny_generator(), data, truncation_psi=0.7, **QUICK)
    assert list(results.values) == [
        "fid40_full_trunc0.7@01234567",
        "pr40_k3_full_precision_trunc0.7@01234567",
        "pr40_k3_full_recall_trunc0.7@01234567",
        "ppl2_wend_40_trunc0.7@89abcdef",
    ]
    assert list(results.num_images) == list(results.higher_is_better) == list(results.values)


def test_other_features(fakes, tiny_generator, data):
    results = measured(["fid", "kid"], tiny_generator(), data, features="efficientnet-lite0", **QUICK)
    assert list(results.values) == ["fid_efficientnet_40_full", "kid_efficientnet_40_full"]
    assert [d.name for d in fakes.loaded] == ["efficientnet-lite0"]


def test_classes_are_sampled_from_the_dataset(fakes, tiny_generator, rgb_set):
    data = open_dataset(rgb_set, label="hat")
    G, seen = tiny_generator(c_dim=3), []
    mapping = G.mapping.forward
    G.mapping.forward = lambda z, c, *more: seen.append(c) or mapping(z, c, *more)
    results = measured(["fid", "ppl2_wend"], G, data, num=300)
    assert len(results.values) == 2
    assert torch.cat(seen).mean(0).tolist() == pytest.approx(np.bincount(data.class_index) / 32, abs=0.06)
    assert torch.cat(seen).sum(1).eq(1).all()
    with pytest.raises(SganError, match="has 3 classes, but .* is read with none"):
        measured(["fid"], G, open_dataset(rgb_set), **QUICK)
    with pytest.raises(SganError, match="read with 2"):
        measured(["fid"], G, open_dataset(rgb_set, label="labels"), **QUICK)
    with pytest.raises(SganError, match="conditional model needs its dataset"):
        measured(["ppl"], G, None, **QUICK)


def test_label_vectors_are_sampled_from_the_dataset(fakes, tiny_generator, make_set, tmp_path):
    make_set(tmp_path / "a.zip", num=12)
    with zipfile.ZipFile(tmp_path / "a.zip") as z:
        z.extractall(tmp_path / "a")
    names = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*.png"))
    vectors = [[i / 4, 1, 0] for i in range(12)]
    (tmp_path / "a" / "dataset.json").write_text(json.dumps(list(zip(names, vectors))))
    G, seen = tiny_generator(c_dim=3), []
    mapping = G.mapping.forward
    G.mapping.forward = lambda z, c, *more: seen.append(c) or mapping(z, c, *more)
    measured(["fid"], G, open_dataset(tmp_path / "a", label="labels"), num=100)
    assert sorted(torch.cat(seen).unique(dim=0).tolist()) == vectors


@pytest.mark.parametrize(
    ("channels", "note"), [(1, "Gray images were converted to RGB: "), (4, "composited onto white: ")]
)
def test_other_channels(fakes, tiny_generator, make_set, tmp_path, channels, note):
    path = make_set(tmp_path / "set.zip", (16, 16) if channels == 1 else (16, 16, 4))
    data = open_dataset(path)
    results = measured(["fid", "ppl"], tiny_generator((16, 16), channels), data, batch=7, **QUICK)
    assert any(note in n and n.endswith(f"the model, {path}.") for n in results.notes)
    mixed = measured(["fid"], tiny_generator((16, 16), 3), data, **QUICK)
    assert any(n.endswith(f": {path}.") for n in mixed.notes)
    detector = fakes.detector("inception-2015")
    fakes = generated(tiny_generator((16, 16), channels), 7)
    expected = frechet_distance(*moments(detector, data.images(range(32))), *moments(detector, fakes))
    assert results.values["fid40_full"] == pytest.approx(expected, rel=1e-9)


def test_metrics_without_real_images(fakes, tiny_generator):
    results = measured(["is", "ppl"], tiny_generator(), None, **QUICK)
    assert list(results.values) == ["is40", "ppl2_wend_40"] and results.num_images["is40"] == (0, 40)
    with pytest.raises(SganError, match="fid40_full needs real images"):
        measured(["is", "fid"], tiny_generator(), None, **QUICK)


def test_invalid_input_is_rejected(fakes, tiny_generator, make_set, data, tmp_path):
    G = tiny_generator()
    with pytest.raises(SganError, match=r"generates 32x16 .* read at 16x16") as e:
        measured(["fid"], tiny_generator((32, 16)), data, **QUICK)
    assert "--size 32x16" in e.value.hint
    few = open_dataset(make_set(tmp_path / "few.zip", num=3))
    with pytest.raises(SganError, match=r"pr40_k3_full needs at least 4 images, but gets 3 of .*few.zip"):
        measured(["pr"], G, few, **QUICK)
    with pytest.raises(SganError, match="is9 needs at least 10 images"):
        measured(["is"], G, data, num=9)
    with pytest.raises(SganError, match="ppl_zfull_40 needs at least 32 pixels per side, not 16x16"):
        measured(["ppl_zfull"], G, data, **QUICK)
    assert not fakes.loaded, "these errors are found before anything is computed"


def test_diverged_model_is_rejected_after_one_batch(fakes, tiny_generator, data):
    G = tiny_generator()
    G.synthesis.forward = lambda ws, noise: ws.new_full([len(ws), 3, 16, 16], torch.nan)
    with pytest.raises(SganError, match="8 of 8 generated images have pixels that are not finite"):
        measured(["fid"], G, data, batch=8, **QUICK)


def test_file_and_device_reach_the_detector(fakes, tiny_generator, data, monkeypatch):
    calls = []
    load = passes.load_detector
    monkeypatch.setattr(passes, "load_detector", lambda *options: calls.append(options) or load(*options))
    measured(["fid", "kid"], tiny_generator(), data, detector_file="weights.pt", **QUICK)
    ((name, device, file),) = calls
    assert (name, str(device), str(file)) == ("inception-2015", "cpu", "weights.pt")


# --------------------------------------------------------------------------------------- two datasets


def test_two_datasets(fakes, make_set, data, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    for i in range(20):
        pixels = np.random.RandomState(i).randint(0, 200, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    other = open_dataset(folder)
    results = compared(data, other, ["fid", "kid", "pr", "is"])
    assert list(results.values)[:2] == ["fid20_full", "kid20_full"] and results.num_images["fid20_full"] == (32, 20)
    detector = fakes.detector("inception-2015")
    sides = (moments(detector, d.images(range(len(d)))) for d in (data, other))
    assert results.values["fid20_full"] == pytest.approx(frechet_distance(*next(sides), *next(sides)), rel=1e-9)
    assert list(compared(data, other, ["fid"], num=12).values) == ["fid12_full"]
    again = compared(data, other, ["fid", "kid", "pr", "is"], batch=3)
    assert sum(len(d.seen) for d in fakes.loaded[-2:]) == 0 and again.values == pytest.approx(results.values)
    with pytest.raises(SganError, match="ppl2_wend_20 measures a model"):
        compared(data, other, ["ppl"])


def test_dataset_compared_with_itself(fakes, data):
    results = compared(data, data, ["fid", "pr", "dc"])
    values = results.values
    assert values["fid32_full"] == 0
    assert results.notes == ("fid32_full is 0 within rounding, 1e-12 of the variance of the features.",)
    assert values["pr32_k3_full_precision"] == values["pr32_k3_full_recall"] == values["dc32_k5_full_coverage"] == 1


def test_different_sizes_and_channels_are_noted(fakes, make_set, data, tmp_path):
    other = open_dataset(make_set(tmp_path / "x.zip", (24, 48, 4), 12))
    notes = compared(data, other, ["fid"]).notes
    assert "The datasets differ in image size: 16x16 and 24x48 (height x width)." in notes
    assert f"Transparent images were composited onto white: {tmp_path / 'x.zip'}." in notes


def test_different_filters_are_noted(fakes, make_set, tmp_path):
    """Also if the dataset was packed again, or is read at a smaller size."""
    source = make_set(tmp_path / "x.zip", (32, 32, 3), 12)
    for name, options in {"lanczos": {}, "box": {"filter": "box"}, "whole": {"size": (32, 32)}}.items():
        pack(source, tmp_path / f"{name}.zip", **{"size": (16, 16), **options})
    pack(tmp_path / "box.zip", tmp_path / "again.zip")
    sets = {name: open_dataset(tmp_path / f"{name}.zip") for name in ("x", "lanczos", "box", "whole", "again")}
    assert [sets[n].spec.pack_filter for n in sets] == [None, "lanczos", "box", "none", "box"]
    sets["read"] = sets["whole"].resized(16, 16)
    noted = {
        frozenset(pair)
        for pair in itertools.combinations(sets, 2)
        if any("different filters" in note for note in compared(*map(sets.get, pair), ["fid"]).notes)
    }
    assert noted == {frozenset(["lanczos", other]) for other in ("box", "again", "read")}
    (note,) = (n for n in compared(sets["box"], sets["lanczos"], ["fid"]).notes if "filters" in n)
    assert f"box ({tmp_path / 'box.zip'}), lanczos ({tmp_path / 'lanczos.zip'})" in note


def test_other_filters_than_those_of_the_training_data_are_noted(fakes, tiny_generator, data, make_set, tmp_path):
    pack(make_set(tmp_path / "x.zip", (32, 32, 3)), tmp_path / "lanczos.zip", size=(16, 16))
    reals = open_dataset(tmp_path / "lanczos.zip").spec
    G = tiny_generator()
    for filter, count in {"box": 1, "lanczos": 0, None: 0}.items():
        info = SnapshotInfo(G.config, None, data=dataclasses.replace(data.spec, pack_filter=filter))
        request = Request(resolve(["fid"], **QUICK), tmp_path / "G", info, reals)
        results = measure_file(request, lambda *_, info=info: SimpleNamespace(info=info, G=G), "cpu")
        assert sum("different filters" in note for note in results.notes) == count


# ------------------------------------------------------------------------------------------ in training


def test_in_training(fakes, tiny_generator, data):
    metrics = TrainingMetrics(resolve(["fid", "pr"], num=40))
    metrics.check(data, STYLEGAN2)
    assert metrics.higher_is_better is False and TrainingMetrics(resolve(["pr"])).higher_is_better is True
    G, cpu = tiny_generator(), torch.device("cpu")
    values = pickle.loads(pickle.dumps(metrics))(G, data, cpu)
    assert values == measured(["fid", "pr"], G, data, **QUICK).values
    assert metrics(G, data, cpu) == values


def test_problems_are_reported_before_training(fakes, make_set, tmp_path, monkeypatch, data):
    with pytest.raises(SganError, match="needs at least 4 images"):
        TrainingMetrics(resolve(["pr"])).check(open_dataset(make_set(tmp_path / "few.zip", num=3)), STYLEGAN2)
    with pytest.raises(SganError, match="at least 32 pixels per side, not 16x16"):
        TrainingMetrics(resolve(["ppl_wend"])).check(data, STYLEGAN2)

    def absent(name, device="cpu", file=None):
        raise SganError("No weights.")

    monkeypatch.setattr("stylegan_cli.metrics.passes.load_detector", absent)
    with pytest.raises(SganError, match="No weights"):
        TrainingMetrics(resolve(["fid"])).check(data, STYLEGAN2)
