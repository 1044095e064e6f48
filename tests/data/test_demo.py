"""Demo datasets: the same for the same seed, with attributes; the bundled one is reproducible."""

import builtins
import zipfile

import pytest
import torch

from stylegan_cli.data import dataset as dataset_module
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.demo import make_demo_dataset
from stylegan_cli.errors import SganError


@pytest.fixture
def dicebear():
    for name in ("dicebear", "dicebear_styles", "resvg_py"):
        pytest.importorskip(name, reason="needs the extra demo")


def test_dataset_depends_only_on_the_seed(tmp_path, dicebear):
    for name, seed, workers in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        make_demo_dataset(tmp_path / f"{name}.zip", num=20, size=(32, 32), seed=seed, workers=workers)
    a, b, c = ((tmp_path / f"{n}.zip").read_bytes() for n in "abc")
    assert a == b != c


def test_attributes_are_stored_and_can_serve_as_labels(tmp_path, dicebear):
    report = make_demo_dataset(tmp_path / "a.zip", num=40, size=(32, 32), label="bodyVariant")
    assert report.num == 40 and report.license == "CC0 1.0"
    data = open_dataset(tmp_path / "a.zip", label="labels")
    assert data.spec.classes == report.classes == tuple(sorted(set(data.attributes["bodyVariant"])))
    assert [data.spec.classes[k] for k in data.class_index] == data.attributes["bodyVariant"]
    assert {name: len(set(v)) for name, v in data.attributes.items()} == report.attributes
    assert all(count > 1 for count in report.attributes.values())
    assert data.provenance["source"] == "DiceBear critters"


def test_another_style_at_a_rectangular_size(tmp_path, dicebear):
    make_demo_dataset(tmp_path / "a.zip", style="open-peeps", num=3, size=(48, 32), colors=16)
    data = open_dataset(tmp_path / "a.zip")
    assert (data.spec.height, data.spec.width, data.spec.channels) == (48, 32, 3)
    for image in data.images(range(3)):
        assert len(torch.unique(image.flatten(1), dim=1).T) <= 16


def test_bundled_dataset_is_reproducible(tmp_path, dicebear):
    make_demo_dataset(tmp_path / "a.zip", style="critters", num=25, size=(64, 64), seed=0, colors=64)
    generated, bundled = open_dataset(tmp_path / "a.zip"), open_dataset(None)
    assert (generated.images(range(25)).int() - bundled.images(range(25)).int()).abs().float().mean() < 1
    assert generated.attributes["bodyVariant"] == bundled.attributes["bodyVariant"][:25]


def test_bundled_dataset_records_its_provenance():
    with zipfile.ZipFile(dataset_module._BUNDLED_FILE) as z:
        assert z.testzip() is None and len(z.namelist()) == 4001
    provenance = open_dataset(None).provenance
    assert (provenance["source"], provenance["license"], provenance["seed"], provenance["colors"]) == (
        "DiceBear critters",
        "CC0 1.0",
        0,
        64,
    )


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"style": "crittres"}, "no style 'crittres'", "Did you mean critters?"),
        ({"style": "zzz"}, "no style 'zzz'", "critters"),
        ({"label": "bodyVarian"}, "'bodyVarian'", "Did you mean bodyVariant?"),
        ({"num": 0}, "The number of images is 0", "at least 1"),
    ],
)
def test_invalid_options_are_rejected(tmp_path, dicebear, options, message, hint):
    with pytest.raises(SganError) as e:
        make_demo_dataset(tmp_path / "a.zip", **{"num": 4, **options})
    assert message in str(e.value)
    assert hint is None or hint in e.value.hint
    assert list(tmp_path.iterdir()) == []


def test_missing_dicebear_says_what_to_install(tmp_path, monkeypatch):
    original = builtins.__import__

    def import_without_dicebear(name, *args, **kwargs):
        if name.startswith(("dicebear", "resvg")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", import_without_dicebear)
    with pytest.raises(SganError) as e:
        make_demo_dataset(tmp_path / "a.zip", num=4)
    assert e.value.hint == "Run pip install 'stylegan-cli[demo]'."
