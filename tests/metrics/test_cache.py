"""Statistics that are kept: never mistaken for others."""

import dataclasses

import pytest

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.metrics.passes import statistics_key


@pytest.fixture
def key(rgb_set):
    return statistics_key(open_dataset(rgb_set).spec, False, 32, "moments pool", "inception-2015 01234567")


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
