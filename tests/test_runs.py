"""Run folders: numbering, and finding runs, snapshots and models."""

import json
import os
import shutil
import threading

import pytest

from stylegan_cli import runs
from stylegan_cli.errors import SganError


def make_run(folder, *kimgs):
    folder.mkdir(parents=True)
    for kimg in kimgs:
        (folder / runs.snapshot_name(kimg)).touch()
    return folder


def test_numbers_are_consecutive(tmp_path):
    root = tmp_path / "deep" / "runs"
    assert runs.next_run_dir(root, "faces-auto").name == "00000-faces-auto"
    assert runs.next_run_dir(root, "cats-demo").name == "00001-cats-demo"
    (root / "00041-old").mkdir()
    (root / "00099-file").touch()  # not a run
    (root / "notes").mkdir()
    assert runs.next_run_dir(root, "x").name == "00042-x"
    assert not list(root.glob(".*"))


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("my faces/é.zip", "00000-my-faces-.zip"),
        ("../..", "00000-run"),
        ("", "00000-run"),
        ("a" * 300, "00000-" + "a" * 100),
    ],
)
def test_names_are_safe(tmp_path, description, name):
    assert runs.next_run_dir(tmp_path, description) == tmp_path / name


def test_concurrent_runs_get_different_numbers(tmp_path):
    created, start = [], threading.Barrier(8)

    def make(i):
        start.wait()
        created.extend(runs.next_run_dir(tmp_path, f"run{i}") for _ in range(5))

    threads = [threading.Thread(target=make, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path.name[:5] for path in created}) == len(created) == 40
    assert all(path.is_dir() for path in created)


def test_abandoned_claim_is_skipped(tmp_path):
    (tmp_path / ".00000").mkdir()
    assert runs.next_run_dir(tmp_path, "x").name == "00001-x"


def test_unwritable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SganError, match="Cannot create a run folder"):
        runs.next_run_dir(tmp_path / "file" / "runs", "x")


@pytest.mark.parametrize(
    ("kimg", "name"),
    [(0, "snapshot-000000"), (40.0, "snapshot-000040"), (0.05, "snapshot-000000.050"), (12.9996, "snapshot-000013")],
)
def test_snapshot_name(kimg, name):
    assert runs.snapshot_name(kimg) == name + ".safetensors"


def test_latest_snapshot_is_by_kimg(tmp_path):
    run = make_run(tmp_path / "00000-a", 9, 10, 0.5, 10.25, 1234567)
    for name in ("snapshot-final.safetensors", "snapshot-9999999.tmp", "snapshot-99999999.safetensors.part"):
        (run / name).touch()
    assert runs.latest_snapshot(run).name == "snapshot-1234567.safetensors"
    assert runs.latest_snapshot(make_run(tmp_path / "00001-b")) is None


def test_newest_run(tmp_path):
    assert runs.newest_run(tmp_path / "absent") is None
    make_run(tmp_path / "00002-a", 1)
    newest = make_run(tmp_path / "00010-b", 1)
    make_run(tmp_path / "00011-started")
    os.utime(newest, (0, 0))  # times do not matter
    assert runs.newest_run(tmp_path) == newest


def test_runs_of_other_recipes_have_no_models(tmp_path):
    recipes = {"00000-old": {}, "00001-new": {"recipe": "gan"}, "00002-other": {"recipe": "other"}}
    for name, recipe in recipes.items():
        (make_run(tmp_path / name, 1) / "config.json").write_text(json.dumps({"kimg": 1} | recipe))
    assert runs.newest_run(tmp_path).name == "00001-new"
    shutil.rmtree(tmp_path / "00001-new")
    assert runs.newest_run(tmp_path).name == "00000-old"
    (tmp_path / "00000-old" / "config.json").write_text("{")
    assert runs.newest_run(tmp_path).name == "00000-old"
    shutil.rmtree(tmp_path / "00000-old")
    assert runs.newest_run(tmp_path) is None


def test_list_runs(tmp_path):
    assert runs.list_runs(tmp_path / "absent") == []
    created = [make_run(tmp_path / name) for name in ("00002-b", "00010-a", "100000-c")]
    (tmp_path / "notes").mkdir()
    assert runs.list_runs(tmp_path) == created


def test_find_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, last = (make_run(tmp_path / "runs" / name, 1) for name in ("00003-a-auto", "00012-b-auto"))
    for run in ("3", "00003", 3, "00003-a-auto", "runs/00003-a-auto", first):
        assert runs.find_run(run, "runs").resolve() == first
    assert runs.find_run(None, "runs").resolve() == last
    elsewhere = make_run(tmp_path / "kept", 5)  # a renamed run
    assert runs.find_run("kept", "runs").resolve() == elsewhere
    monkeypatch.chdir(first)
    assert runs.find_run(".", "runs").resolve() == first


@pytest.mark.parametrize(
    ("run", "message", "hint"),
    [
        ("4", "There is no run '4' in runs", "sgan runs --runs runs"),
        ("00003-a-aut", "There is no run '00003-a-aut'", "Did you mean runs/00003-a-auto?"),
        ("notes", "The folder notes is not a run folder", "sgan runs --runs notes"),
        ("9" * 400, "There is no run '99", "sgan runs"),
    ],
)
def test_missing_run(tmp_path, monkeypatch, run, message, hint):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "00003-a-auto")
    (tmp_path / "notes").mkdir()
    with pytest.raises(SganError, match=message) as error:
        runs.find_run(run, "runs")
    assert hint in error.value.hint
    with pytest.raises(SganError, match="There are no runs in notes") as error:
        runs.find_run(None, "notes")
    assert error.value.hint == "Start one with `sgan train`, or use --runs."


def test_find_model(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    packaged = tmp_path / "critters.safetensors"
    monkeypatch.setattr(runs.folders, "PACKAGED_MODEL", packaged)
    with pytest.raises(SganError) as error:
        runs.find_model(None, root)
    assert error.value.hint == "Train a model with `sgan train`, or use --model."

    packaged.touch()
    path, description = runs.find_model(None, root)
    assert path == packaged and "the bundled one" in description

    run = make_run(root / "00000-a", 1, 2)
    newest = run / "snapshot-000002.safetensors"
    for model in (None, run, str(newest)):
        path, description = runs.find_model(model, root)
        assert path == newest and str(newest) in description


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        ("runs/00000-a/snapshot-000003.safetensors", "does not exist", "snapshot-000002.safetensors?"),
        ("runs/00000-b", "does not exist", "00000-a?"),
        ("runs/00001-empty", "contains no snapshot", "snapshot-000000.safetensors"),
        ("runs", "contains no snapshot", "--model runs/00000-a?"),
        ("nowhere/at/all", "does not exist", None),
    ],
)
def test_missing_model(tmp_path, monkeypatch, model, message, hint):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "00000-a", 2)
    make_run(tmp_path / "runs" / "00001-empty")
    with pytest.raises(SganError, match=message) as error:
        runs.find_model(model, "runs")
    assert error.value.hint is None if hint is None else hint in error.value.hint
