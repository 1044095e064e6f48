"""Keys of cached statistics."""

import dataclasses

import pytest

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.metrics.passes import statistics_key


@pytest.fixture
def key(rgb_set):
    return statistics_key(open_dataset(rgb_set).spec, False, 32, "moments pool", "inception-2015 01234567")


def test_key_depends_on_everything_that_affects_statistics(rgb_set, key):
    spec = open_dataset(rgb_set).spec
    arguments = (spec, False, 32, "moments pool", "inception-2015 01234567")
    assert statistics_key(*arguments) == key
    others = {"content_hash": "0", "height": 8, "width": 8, "channels": 1, "filter": "box"}
    specs = [dataclasses.replace(spec, **{name: value}) for name, value in others.items()]
    keys = [statistics_key(s, *arguments[1:]) for s in specs]
    for i, value in enumerate((True, 31, "features pool", "inception-2015 76543210"), start=1):
        keys.append(statistics_key(*arguments[:i], value, *arguments[i + 1 :]))
    assert len({*keys, key}) == 10
    assert statistics_key(dataclasses.replace(spec, path="elsewhere.zip"), *arguments[1:]) == key
