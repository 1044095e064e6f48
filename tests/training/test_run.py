"""A run in its folder: gone on with, guarded, damaged, on a full disk, in use, measured."""

import errno
import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.runs import lock_run
from stylegan_cli.training import state_files, stats
from stylegan_cli.training.folders import FAILURE
from stylegan_cli.training.recipes import gan_plan as plan
from stylegan_cli.training.recipes import gan_report
from stylegan_cli.training.recipes.gan import Gan, train
from stylegan_cli.training.run import RunOptions
from stylegan_cli.training.state_files import list_states, read_about, read_state

QUIET = RunOptions(quiet=True)


@pytest.fixture
def begin(make_config, tmp_path):
    """Train a new tiny run: begin(kimg=..., ...) -> its folder and configuration."""

    def make(options=QUIET, name="run", **settings):
        config = make_config(**{"kimg": 0.048, "snap": 0.024, "aug": "ada"} | settings)
        (tmp_path / name).mkdir()
        train(config, tmp_path / name, "cpu", options=options)
        return tmp_path / name, config

    return make


def go_on(folder, options=QUIET, **changes):
    run = plan.continued(folder, changes, list(changes))
    train(run.config, folder, "cpu", run.start, options)


def weights(folder):
    state, _ = read_state(list_states(folder)[0])
    return {f"{part}.{name}": value for part in ("G", "D", "G_ema") for name, value in state[part].items()}


def log(folder):
    return (folder / "log.txt").read_text()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------ going on


def test_what_a_state_tells(begin):
    folder, config = begin()
    assert [p.name.split("-")[1] for p in list_states(folder)] == ["000000.048", "000000.024"]
    about = read_about(list_states(folder)[0])
    assert about["recipe"] == json.loads((folder / "config.json").read_text())["recipe"] == "gan"
    assert about["kimg"] == 0.048 and about["ranks"] == 1 and about["config"]["batch"] == config.batch
    state, _ = read_state(list_states(folder)[0])
    expected = {"G", "D", "G_ema", "optimizer.G", "optimizer.D", "path_length", "augment", "guard", "data", "clock"}
    assert state.keys() == expected | {"record"}


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(begin):
    whole, _ = begin(name="whole", kimg=0.072)
    folder, _ = begin(kimg=0.048)
    go_on(folder, kimg=0.072)
    assert same(weights(whole), weights(folder))
    kimg = [json.loads(line)["kimg"] for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert kimg == sorted(kimg) and kimg[-1] == 0.072
    assert "Going on from kimg 0.048." in log(folder)
    seconds = [json.loads(line).get("seconds", 0) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert sorted(s for s in seconds if s) == [s for s in seconds if s]


def test_a_damaged_state_is_told_and_the_one_before_taken(begin, capsys):
    folder, _ = begin(kimg=0.072)
    newest, before = list_states(folder)
    expected = weights(folder)
    newest.write_bytes(newest.read_bytes()[:-100])
    go_on(folder, RunOptions(), kimg=0.072 + 1e-9)
    told = capsys.readouterr().err
    assert f"{newest.name}; {before.name} is taken instead" in told and "Traceback" not in told
    assert same(expected, weights(folder))


def test_settings_that_were_edited(begin):
    folder, _ = begin()
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"gamma": 99.0, "seed": 5}))
    with pytest.raises(SganError, match="seed: 0 then, 5 now; gamma: 2.0 then, 99.0 now"):
        go_on(folder, kimg=1.0)


def test_a_folder_without_states(begin):
    folder, _ = begin()
    for path in list_states(folder):
        path.unlink()
    with pytest.raises(SganError, match="no training state") as e:
        go_on(folder, kimg=1.0)
    assert "snapshot-000000.048.safetensors" in e.value.hint


def test_another_number_of_ranks_keeps_the_batch(make_config):
    config = make_config(batch=8)
    two = plan._dealt(config, {"gpus": 2})
    assert (two.batch, two.batch_gpu, two.gpus) == (8, 4, 2)
    one = plan._dealt(two, {"gpus": 1})
    assert (one.batch, one.batch_gpu, one.gpus) == (8, 4, 1)
    with pytest.raises(SganError, match="does not divide"):
        plan._dealt(config, {"gpus": 3})


def test_ranks_too_many_for_the_groups(make_config):
    with pytest.raises(SganError, match="groups of 2 would be broken up"):
        plan._dealt(make_config(batch=8, mbstd_group=2), {"gpus": 8})


def test_images_that_were_moved(begin, rgb_set, tmp_path, make_set):
    folder, _ = begin(aug="noaug")
    moved = tmp_path / "moved.zip"
    moved.write_bytes(rgb_set.read_bytes())
    run = plan.continued(folder, {"kimg": 0.056}, ["kimg"], str(moved))
    train(run.config, folder, "cpu", options=QUIET)
    assert read_about(list_states(folder)[0])["config"]["data"]["path"] == str(moved)
    run = plan.continued(folder, {"kimg": 0.064}, ["kimg"], str(make_set(tmp_path / "others.zip", num=8)))
    with pytest.raises(SganError, match="are not those that this run was started with"):
        train(run.config, folder, "cpu", options=QUIET)


def test_leftovers_of_a_kill_are_removed(begin):
    folder, _ = begin(aug="noaug")
    (folder / ".snapshot-000000.048.safetensors.abc.tmp.safetensors").touch()
    go_on(folder, kimg=0.056)
    assert not list(folder.glob(".*.tmp*"))


def test_stopped_while_steps_are_skipped(begin, poison, monkeypatch):
    """Nothing is saved that could be beyond repair, and the command that goes on is told all the same."""
    poison(2, until_rate_below=0)
    monkeypatch.setattr("stylegan_cli.training.run.StopFlag.heard", lambda self: next(steps) == 6)
    steps = iter(range(99))
    folder, config = begin(kimg=1)
    assert "Not saved, as the last 5 step(s) were skipped" in log(folder)
    assert [p.name[:12] for p in list_states(folder)] == ["state-000000"]
    assert f"sgan train --resume {folder}" in plan.farewell(config, folder)


def test_a_folder_in_use(begin):
    folder, _ = begin()
    with lock_run(folder), pytest.raises(SganError, match=f"in use by process {os.getpid()}"):
        go_on(folder, kimg=1.0)


# -------------------------------------------------------------------------------------------- guards


@pytest.fixture
def poison(monkeypatch):
    """Make images from a step on not a number, as long as the learning rate is what it was: poison(step, below)."""

    def make(step, until_rate_below):
        good = Gan.next_batch

        def bad(self):
            batch = good(self)
            if (
                int(batch.index[0]) // self.batch >= step
                and self.phases[0].optimizer.param_groups[0]["lr"] > until_rate_below
            ):
                batch.images.fill_(float("nan"))
            return batch

        monkeypatch.setattr(Gan, "next_batch", bad)

    return make


def test_steps_that_stay_bad_take_the_run_back_with_a_lower_rate(begin, poison):
    poison(10, until_rate_below=0.3 * 0.0025)
    folder, _ = begin(kimg=0.2, snap=0.04, pl_weight=0)
    assert "going on from kimg 0.08 with the learning rate divided by 2 (1 of 3)" in log(folder)
    # Nothing was saved while steps were skipped, and what led nowhere makes place for what was before it.
    assert "from kimg 0.04 with the learning rate divided by 4 (2 of 3)" in log(folder)
    assert [p.name[:16] for p in folder.glob("*.abandoned")] == ["state-000000.080"]
    state, _ = read_state(list_states(folder)[0])
    assert state["guard"]["rollbacks"] == 2 and state["clock"]["shown"] == 200
    assert state["optimizer.G"]["param_groups"][0]["lr"] == pytest.approx(0.0025 / 4)
    last = json.loads((folder / "stats.jsonl").read_text().splitlines()[-2])
    assert last["guard/skipped"] == 0  # those after the state that was gone back to
    assert not (folder / FAILURE).exists()


def test_three_times_is_enough(begin, poison, tmp_path):
    poison(5, until_rate_below=0)
    with pytest.raises(SganError, match="diverged at kimg .* down to 1/8") as e:
        begin(kimg=1, snap=0.024)
    assert "--lr" in e.value.hint
    assert "diverged" in (tmp_path / "run" / FAILURE).read_text()
    assert log(tmp_path / "run").count("with the learning rate divided by") == 3
    assert "going on from kimg 0 with the learning rate divided by 4" in log(tmp_path / "run")
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run").values())


def test_a_failure_is_forgotten_when_the_run_goes_on(begin):
    folder, _ = begin()
    (folder / FAILURE).write_text("x")
    go_on(folder, kimg=0.056)
    assert not (folder / FAILURE).exists()


def test_the_drawings_growing_alike_is_told(begin, monkeypatch, capsys):
    ratios = iter([1.0, 0.1])
    monkeypatch.setattr(gan_report.CollapseAlarm, "look", lambda self, fakes: (next(ratios), "WARNING: alike"))
    folder, _ = begin(RunOptions(), kimg=0.024)
    assert "WARNING: alike" in log(folder) and "WARNING: alike" in capsys.readouterr().err
    lines = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert [line["diversity"] for line in lines if "diversity" in line] == [1.0, 0.1]


# ------------------------------------------------------------------------------------------ full disk


def test_a_full_disk_pauses_training_and_loses_nothing(begin, monkeypatch, capsys):
    whole, _ = begin(name="whole")
    put, tries = state_files._put, []

    def full(f, chunk):
        tries.append(len(chunk))
        if 3 < len(tries) < 7:
            f.write(bytes(chunk[:10]))
            raise OSError(errno.ENOSPC, "No space left on device")
        put(f, chunk)

    monkeypatch.setattr(state_files, "_put", full)
    monkeypatch.setattr(state_files.StateWriter, "every", 0.05)
    folder, _ = begin(RunOptions())
    told = capsys.readouterr().err
    assert told.count("There is no room for the training state") == 1 and "going on" in told
    assert same(weights(whole), weights(folder)) and len(list_states(folder)) == 2


def test_a_full_disk_at_a_snapshot(begin, monkeypatch, capsys):
    """And at the first line of the log."""
    save, tries = gan_report.save_snapshot, []

    def full(*arguments):
        tries.append(1)
        if len(tries) == 1:
            raise SganError("Cannot write") from OSError(errno.ENOSPC, "No space left on device")
        save(*arguments)

    monkeypatch.setattr(gan_report, "save_snapshot", full)
    append, lines = stats.append_line, []

    def full_log(path, line):
        lines.append(line)
        if len(lines) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(path, line)

    monkeypatch.setattr(stats, "append_line", full_log)
    monkeypatch.setattr("stylegan_cli.files.time", FastClock())
    folder, _ = begin(RunOptions(), kimg=0.024)
    assert capsys.readouterr().err.count("There is no room for what is written to") == 2
    assert lines[1] == lines[2] and len((folder / "stats.jsonl").read_text().splitlines()) == 5
    assert (folder / "snapshot-000000.024.safetensors").is_file()


class FastClock:
    """A second passes whenever somebody looks or sleeps."""

    now = 0.0

    def monotonic(self):
        self.now += 1
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_a_full_disk_and_ctrl_c(begin, monkeypatch, tmp_path):
    """The state that was written before is still there."""
    put, tries = state_files._put, []

    def full(f, chunk):
        tries.append(1)
        if len(tries) > 2:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start() if len(tries) == 3 else None
            raise OSError(errno.ENOSPC, "No space left on device")
        put(f, chunk)

    monkeypatch.setattr(state_files, "_put", full)
    monkeypatch.setattr(state_files.StateWriter, "every", 0.05)
    with pytest.raises(SganError, match="training state"):
        begin()
    assert [p.name.split("-")[1] for p in list_states(tmp_path / "run")] == ["000000"]


# -------------------------------------------------------------------------------------------- metrics


class Count:
    """A metric that falls, then rises, and draws random numbers as it likes."""

    higher_is_better = False

    def __init__(self):
        self.values = iter([5.0, 3.0, 4.0])

    def __call__(self, G, data, device):
        torch.rand(100)
        assert not G.training and G(torch.zeros(1, G.config.z_dim)).shape[1] == 3
        return {"fid": next(self.values), "second": 1.0}


def test_metrics_at_snapshots(begin):
    plain, _ = begin(name="plain", kimg=0.072)
    folder, _ = begin(RunOptions(quiet=True, measure=Count()), kimg=0.072)
    lines = [json.loads(line) for line in (folder / "metric-fid.jsonl").read_text().splitlines()]
    assert [(line["kimg"], line["value"]) for line in lines] == [(0.024, 5.0), (0.048, 3.0), (0.072, 4.0)]
    assert lines[1]["snapshot"] == "snapshot-000000.048.safetensors"
    best = (folder / "best.safetensors").read_bytes()
    assert best == (folder / "snapshot-000000.048.safetensors").read_bytes()
    state, _ = read_state(list_states(folder)[0])
    assert state["record"]["best"] == {"metric": "fid", "value": 3.0, "kimg": 0.048}
    assert same(weights(plain), weights(folder))


def test_a_metric_that_fails_is_no_reason_to_stop(begin, capsys):
    class Broken:
        higher_is_better = False

        def __call__(self, G, data, device):
            raise SganError("The images are gone.")

    folder, _ = begin(RunOptions(measure=Broken()), aug="noaug")
    assert "could not be measured: The images are gone." in capsys.readouterr().err
    assert list_states(folder)[0].name.startswith("state-000000.048")


def test_a_trace(begin):
    folder, _ = begin(RunOptions(quiet=True, profile=1), kimg=0.1, r1_interval=1, pl_weight=0)
    assert json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
