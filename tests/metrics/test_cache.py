"""Statistics that are kept: found again, never mistaken for others, never trusted when damaged."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.metrics.cache import load_statistics, save_statistics, statistics_path

TENSORS = {"mean": torch.arange(5.0).double(), "cov": torch.eye(5).double(), "count": torch.tensor([9])}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def path(rgb_set):
    return statistics_path(open_dataset(rgb_set).spec, False, 32, "moments pool", "inception-2015 01234567")


def test_found_again(path):
    assert load_statistics(path) is None
    save_statistics(path, TENSORS)
    found = load_statistics(path)
    assert found.keys() == TENSORS.keys() and all(torch.equal(found[k], TENSORS[k]) for k in found)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_everything_that_matters_is_in_the_name(rgb_set, path):
    spec = open_dataset(rgb_set).spec
    usual = (spec, False, 32, "moments pool", "inception-2015 01234567")
    assert statistics_path(*usual) == path
    others = {"content_hash": "0", "height": 8, "width": 8, "channels": 1, "filter": "box"}
    specs = [dataclasses.replace(spec, **{name: value}) for name, value in others.items()]
    paths = [statistics_path(s, *usual[1:]) for s in specs]
    for i, value in enumerate((True, 31, "features pool", "inception-2015 76543210"), start=1):
        paths.append(statistics_path(*usual[:i], value, *usual[i + 1 :]))
    assert len({*paths, path}) == 10
    assert statistics_path(dataclasses.replace(spec, path="elsewhere.zip"), *usual[1:]) == path


@pytest.mark.parametrize("damage", ["cut", "bit", "header", "empty", "no checksum"])
def test_a_damaged_file_counts_as_none(path, damage):
    save_statistics(path, TENSORS)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-3]
    elif damage == "bit":
        content[-20] ^= 4
    elif damage == "header":
        content[:8] = b"\xff" * 8
    elif damage == "empty":
        content = b""
    else:
        from safetensors.torch import save

        content = save(TENSORS)
    path.write_bytes(content)
    assert load_statistics(path) is None
    save_statistics(path, TENSORS)
    assert load_statistics(path) is not None


def test_a_folder_that_cannot_be_written_is_no_mistake(monkeypatch, tmp_path, path):
    (tmp_path / "cache").write_text("a file")
    save_statistics(path, TENSORS)
    assert load_statistics(path) is None


def test_two_processes_write_while_a_third_reads(path):
    """Whoever reads gets nothing or everything."""
    code = f"""if 1:
        import torch
        from pathlib import Path
        from stylegan_cli.metrics.cache import save_statistics
        print("ready", flush=True)
        for _ in range(25):
            save_statistics(Path({str(path)!r}), {{"x": torch.ones(4000)}})
    """
    writers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    for writer in writers:
        writer.stdout.readline()
    seen = 0
    while any(writer.poll() is None for writer in writers):
        found = load_statistics(path)
        seen += found is not None
        assert found is not None or not seen
    assert [writer.wait() for writer in writers] == [0, 0] and seen
    assert torch.equal(load_statistics(path)["x"], torch.ones(4000))
    assert len(list(path.parent.iterdir())) == 1
