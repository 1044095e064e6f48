"""Whatever folder or zip is packed, the pixels are right and no file is lost: see fuzz_datasets.py."""

import fuzz_datasets
import pytest


def test_sample():
    counts = fuzz_datasets.run_all(range(60))
    assert sum(counts.values()) == 60 and min(counts.values()) >= 5 and len(counts) == 3


@pytest.mark.slow
def test_two_thousand():
    counts = fuzz_datasets.run_all(range(1000, 3000))
    assert sum(counts.values()) == 2000 and min(counts.values()) >= 200
