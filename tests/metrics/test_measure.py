"""Everything together, with detectors that need no weights."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.images import to_rgb
from stylegan_cli.errors import SganError
from stylegan_cli.metrics import passes
from stylegan_cli.metrics.frechet import frechet_distance
from stylegan_cli.metrics.measure import TrainingMetrics, compare_images, measure
from stylegan_cli.metrics.registry import resolve
from stylegan_cli.metrics.stream import Fakes

QUICK = {"num": 40}


def measured(names, G, data, **how):
    return measure(resolve(names, **how), G, data, "cpu")


def compared(a, b, names, **how):
    return compare_images(resolve(names, **how), a, b)


@pytest.fixture
def data(rgb_set):
    return open_dataset(rgb_set, mirror=True)


def drawn(G, batch, seed=0):
    """40 images, in the batches of the measurement: on some processors another batch rounds otherwise, and then a
    byte differs here and there."""
    fakes = Fakes(G, None, torch.device("cpu"), seed)
    return torch.cat([fakes(index) for index in torch.arange(40).split(batch)])


def moments(detector, images):
    x = detector(to_rgb(images))["pool"].double()
    return x.mean(0), x.T.cov()


def test_everything_in_as_few_passes_as_can_be(fakes, tiny_generator, data):
    names = ["fid", "kid", "pr", "is", "ppl", "dc", "fid50k"]
    found = measured(names, tiny_generator(), data, batch=9, **QUICK)
    assert list(found.values) == [
        *("fid40_full", "kid40_full", "pr403_full_precision", "pr403_full_recall", "is40", "ppl2_wend_40"),
        *("dc405_full_density", "dc405_full_coverage", "fid40"),
    ]
    assert all(np.isfinite(v) for v in found.values.values())
    inception, vgg = fakes.made
    assert (inception.name, sum(inception.seen)) == ("inception-2015", 32 + 64 + 40)  # reals, mirrored reals, fakes
    assert (vgg.name, sum(vgg.seen)) == ("vgg16", 32 + 40) and max(vgg.seen) == 9
    assert found.num_images["fid40_full"] == (32, 40) and found.num_images["fid40"] == (64, 40)
    assert found.num_images["ppl2_wend_40"] == (0, 40)
    assert found.deviations.keys() == {"kid40_full", "is40"} and found.seconds > 0
    higher = {name for name, up in found.higher_is_better.items() if up}
    assert higher == {name for name in found.values if name.startswith(("pr", "dc", "is"))}


def test_progress_is_told_of_passes_and_of_computations(fakes, tiny_generator, data):
    told = []
    measure(resolve(["kid", "ppl"], batch=9, **QUICK), tiny_generator(), data, "cpu", lambda *news: told.append(news))
    reals, drawn = f"inception-2015, {data.name}", "inception-2015, images of the model"
    assert [what for what, done, _ in told if done == 0] == [reals, drawn, "kid40_full", "ppl2_wend_40"]
    assert [news[1:] for news in told if news[0] == drawn] == [(n, 40) for n in (0, 9, 18, 27, 36, 40)]
    assert told[-1] == ("ppl2_wend_40", 40, 40) and ("kid40_full", 100, 100) in told


def test_fid_is_what_one_gets_by_hand(fakes, tiny_generator, data):
    G = tiny_generator()
    found = measured(["fid"], G, data, seed=4, batch=7, **QUICK)
    detector = fakes.detector("inception-2015")
    truth = frechet_distance(*moments(detector, data.images(range(32))), *moments(detector, drawn(G, 7, seed=4)))
    assert found.values["fid40_full"] == pytest.approx(truth, rel=1e-9)
    assert "with 40 images for 2048 features it is far too high" in found.notes[0]


def test_real_statistics_come_from_the_cache(fakes, tiny_generator, data):
    G = tiny_generator()
    first = measured(["fid", "kid"], G, data, **QUICK)
    again = measured(["fid", "kid"], G, data, **QUICK)
    assert sum(fakes.made[1].seen) == 40
    assert again.values == pytest.approx(first.values, rel=1e-9)
    measured(["pr"], G, data, **QUICK)
    assert sum(fakes.made[2].seen) == 32 + 40


def test_a_damaged_cache_is_made_again(fakes, tiny_generator, data, tmp_path):
    G = tiny_generator()
    first = measured(["fid"], G, data, **QUICK)
    (path,) = (tmp_path / "cache" / "statistics").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    assert measured(["fid"], G, data, **QUICK).values == first.values
    assert sum(fakes.made[1].seen) == 32 + 40


def test_a_cache_that_cannot_be_written_is_no_mistake(fakes, tiny_generator, data, tmp_path):
    (tmp_path / "cache").write_text("a file")
    measured(["fid"], tiny_generator(), data, **QUICK)
    measured(["fid"], tiny_generator(), data, **QUICK)
    assert sum(fakes.made[1].seen) == 32 + 40, "nothing was kept"


def test_nothing_outside_changes(fakes, tiny_generator, data):
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


def test_names_tell_of_other_weights_and_of_truncation(fakes, tiny_generator, data):
    fakes.is_standard = False
    found = measured(["fid", "pr", "ppl"], tiny_generator(), data, truncation_psi=0.7, **QUICK)
    assert list(found.values) == [
        "fid40_full_trunc0.7@01234567",
        "pr403_full_precision_trunc0.7@01234567",
        "pr403_full_recall_trunc0.7@01234567",
        "ppl2_wend_40_trunc0.7@89abcdef",
    ]
    assert list(found.num_images) == list(found.higher_is_better) == list(found.values)


def test_other_features(fakes, tiny_generator, data):
    found = measured(["fid", "kid"], tiny_generator(), data, features="efficientnet-lite0", **QUICK)
    assert list(found.values) == ["fid_efficientnet40_full", "kid_efficientnet40_full"]
    assert [d.name for d in fakes.made] == ["efficientnet-lite0"]


def test_a_conditional_model_draws_classes_as_the_data_has_them(fakes, tiny_generator, rgb_set):
    data = open_dataset(rgb_set, label="hat")
    G, seen = tiny_generator(c_dim=3), []
    mapping = G.mapping.forward
    G.mapping.forward = lambda z, c, *more: seen.append(c) or mapping(z, c, *more)
    found = measured(["fid", "ppl2_wend"], G, data, num=300)
    assert len(found.values) == 2
    assert torch.cat(seen).mean(0).tolist() == pytest.approx(np.bincount(data.class_index) / 32, abs=0.06)
    with pytest.raises(SganError, match="knows 3 classes, but .* is read with none"):
        measured(["fid"], G, open_dataset(rgb_set), **QUICK)
    with pytest.raises(SganError, match="read with 2"):
        measured(["fid"], G, open_dataset(rgb_set, label="labels"), **QUICK)
    with pytest.raises(SganError, match="draws classes as often"):
        measured(["ppl"], G, None, **QUICK)


@pytest.mark.parametrize(("channels", "note"), [(1, "Gray images were repeated to RGB: "), (4, "laid on white: ")])
def test_other_channels(fakes, tiny_generator, make_set, tmp_path, channels, note):
    path = make_set(tmp_path / "set.zip", (16, 16) if channels == 1 else (16, 16, 4))
    data = open_dataset(path)
    found = measured(["fid", "ppl"], tiny_generator((16, 16), channels), data, batch=7, **QUICK)
    assert any(note in n and n.endswith(f"the model, {path}.") for n in found.notes)
    mixed = measured(["fid"], tiny_generator((16, 16), 3), data, **QUICK)
    assert any(n.endswith(f": {path}.") for n in mixed.notes)
    detector = fakes.detector("inception-2015")
    fakes = drawn(tiny_generator((16, 16), channels), 7)
    truth = frechet_distance(*moments(detector, data.images(range(32))), *moments(detector, fakes))
    assert found.values["fid40_full"] == pytest.approx(truth, rel=1e-9)


def test_models_that_need_no_data(fakes, tiny_generator):
    found = measured(["is", "ppl"], tiny_generator(), None, **QUICK)
    assert list(found.values) == ["is40", "ppl2_wend_40"] and found.num_images["is40"] == (0, 40)
    with pytest.raises(SganError, match="fid40_full compares with real images"):
        measured(["is", "fid"], tiny_generator(), None, **QUICK)


def test_bad_input(fakes, tiny_generator, make_set, data, tmp_path):
    G = tiny_generator()
    with pytest.raises(SganError, match=r"draws 32x16 .* read at 16x16") as e:
        measured(["fid"], tiny_generator((32, 16)), data, **QUICK)
    assert "--size 32x16" in e.value.hint
    few = open_dataset(make_set(tmp_path / "few.zip", num=3))
    with pytest.raises(SganError, match=r"pr403_full takes 4 images at least; of .*few.zip there are 3"):
        measured(["pr"], G, few, **QUICK)
    with pytest.raises(SganError, match="is9 takes 10 images at least"):
        measured(["is"], G, data, num=9)
    with pytest.raises(SganError, match="ppl_zfull_40 takes images of 32 pixels a side at least, not 16x16"):
        measured(["ppl_zfull"], G, data, **QUICK)
    assert not fakes.made, "all this is is_standard before anything is done"


def test_a_model_that_diverged_is_refused_after_one_batch(fakes, tiny_generator, data):
    G = tiny_generator()
    G.synthesis.forward = lambda ws, noise: ws.new_full([len(ws), 3, 16, 16], torch.nan)
    with pytest.raises(SganError, match="8 of 8 images of the model hold numbers that are not finite"):
        measured(["fid"], G, data, batch=8, **QUICK)


def test_file_and_device_reach_the_detector(fakes, tiny_generator, data, monkeypatch):
    asked = []
    load = passes.load_detector
    monkeypatch.setattr(passes, "load_detector", lambda *how: asked.append(how) or load(*how))
    measured(["fid", "kid"], tiny_generator(), data, detector_file="weights.pt", **QUICK)
    ((name, device, file),) = asked
    assert (name, str(device), str(file)) == ("inception-2015", "cpu", "weights.pt")


# --------------------------------------------------------------------------------------- images alone


def test_two_sets(fakes, make_set, data, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    for i in range(20):
        pixels = np.random.RandomState(i).randint(0, 200, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    other = open_dataset(folder)
    found = compared(data, other, ["fid", "kid", "pr", "is"])
    assert list(found.values)[:2] == ["fid20_full", "kid20_full"] and found.num_images["fid20_full"] == (32, 20)
    detector = fakes.detector("inception-2015")
    sides = (moments(detector, d.images(range(len(d)))) for d in (data, other))
    assert found.values["fid20_full"] == pytest.approx(frechet_distance(*next(sides), *next(sides)), rel=1e-9)
    assert list(compared(data, other, ["fid"], num=12).values) == ["fid12_full"]
    again = compared(data, other, ["fid", "kid", "pr", "is"], batch=3)
    assert sum(len(d.seen) for d in fakes.made[-2:]) == 0 and again.values == pytest.approx(found.values)
    with pytest.raises(SganError, match="ppl2_wend_20 measures a model"):
        compared(data, other, ["ppl"])


def test_a_set_and_itself(fakes, data):
    found = compared(data, data, ["fid", "pr", "dc"]).values
    assert abs(found["fid32_full"]) < 1e-6
    assert found["pr323_full_precision"] == found["pr323_full_recall"] == found["dc325_full_coverage"] == 1


def test_sets_of_different_sizes_are_told(fakes, make_set, data, tmp_path):
    other = open_dataset(make_set(tmp_path / "x.zip", (24, 48, 4), 12))
    notes = compared(data, other, ["fid"]).notes
    assert "The sets differ in size: 16x16 and 24x48 (height x width)." in notes
    assert f"Transparent images were laid on white: {tmp_path / 'x.zip'}." in notes


# ------------------------------------------------------------------------------------------ in training


def test_in_training(fakes, tiny_generator, data):
    metrics = TrainingMetrics(resolve(["fid", "pr"], num=40))
    metrics.check(data)
    assert metrics.higher_is_better is False and TrainingMetrics(resolve(["pr"])).higher_is_better is True
    G, cpu = tiny_generator(), torch.device("cpu")
    values = pickle.loads(pickle.dumps(metrics))(G, data, cpu)
    assert values == measured(["fid", "pr"], G, data, **QUICK).values
    assert metrics(G, data, cpu) == values


def test_what_is_missing_is_told_before_training(fakes, make_set, tmp_path, monkeypatch, data):
    with pytest.raises(SganError, match="takes 4 images at least"):
        TrainingMetrics(resolve(["pr"])).check(open_dataset(make_set(tmp_path / "few.zip", num=3)))
    with pytest.raises(SganError, match="32 pixels a side at least, not 16x16"):
        TrainingMetrics(resolve(["ppl_wend"])).check(data)

    def absent(name, device="cpu", file=None):
        raise SganError("No weights.")

    monkeypatch.setattr("stylegan_cli.metrics.passes.load_detector", absent)
    with pytest.raises(SganError, match="No weights"):
        TrainingMetrics(resolve(["fid"])).check(data)
