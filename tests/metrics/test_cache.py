"""Statistics that are kept: found again, never mistaken for others."""

import dataclasses

import pytest
import torch

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.metrics.cache import load_statistics, save_statistics, statistics_key

TENSORS = {"mean": torch.arange(5.0).double(), "cov": torch.eye(5).double(), "count": torch.tensor([9])}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def key(rgb_set):
    return statistics_key(open_dataset(rgb_set).spec, False, 32, "moments pool", "inception-2015 01234567")


def test_found_again(key):
    assert load_statistics(key) is None
    save_statistics(key, TENSORS)
    found = load_statistics(key)
    assert found.keys() == TENSORS.keys() and all(torch.equal(found[k], TENSORS[k]) for k in found)


def test_everything_that_matters_is_in_the_key(rgb_set, key):
    spec = open_dataset(rgb_set).spec
    usual = (spec, False, 32, "moments pool", "inception-2015 01234567")
    assert statistics_key(*usual) == key
    others = {"content_hash": "0", "height": 8, "width": 8, "channels": 1, "filter": "box"}
    specs = [dataclasses.replace(spec, **{name: value}) for name, value in others.items()]
    keys = [statistics_key(s, *usual[1:]) for s in specs]
    for i, value in enumerate((True, 31, "features pool", "inception-2015 76543210"), start=1):
        keys.append(statistics_key(*usual[:i], value, *usual[i + 1 :]))
    assert len({*keys, key}) == 10
    assert statistics_key(dataclasses.replace(spec, path="elsewhere.zip"), *usual[1:]) == key


def test_a_folder_that_cannot_be_written_is_no_mistake(tmp_path, key):
    (tmp_path / "cache").write_text("a file")
    save_statistics(key, TENSORS)
    assert load_statistics(key) is None
