"""Runs: resumed, guarded, damaged, on a full disk, in use, measured."""

import errno
import json
import os
import re
import signal
import threading
from pathlib import Path

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.runs import lock_run
from stylegan_cli.training import state_files, stats
from stylegan_cli.training.folders import FAILURE
from stylegan_cli.training.recipes import gan_plan, gan_report, gan_resume
from stylegan_cli.training.recipes.gan import Gan, train
from stylegan_cli.training.run import RunOptions
from stylegan_cli.training.state_files import list_states, read_about, read_state

QUIET = RunOptions(quiet=True)


def resume(folder, options=QUIET, **changes):
    plan = gan_resume.plan_resumed_run(folder, changes)
    train(plan.config, folder, "cpu", plan.start, options)


def weights(folder):
    state, _ = read_state(list_states(folder)[0])
    return {f"{part}.{name}": value for part in ("G", "D", "G_ema") for name, value in state[part].items()}


def log(folder):
    return (folder / "log.txt").read_text()


def settings(folder):
    return json.loads((folder / "config.json").read_text())


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------- resuming


def test_contents_of_a_state(train_run):
    folder, config = train_run()
    assert [p.name.split("-")[1] for p in list_states(folder)] == ["000000.048", "000000.024"]
    about = read_about(list_states(folder)[0])
    assert about["recipe"] == json.loads((folder / "config.json").read_text())["recipe"] == "gan"
    assert about["kimg"] == 0.048 and about["ranks"] == 1 and about["config"]["batch"] == config.batch
    state, _ = read_state(list_states(folder)[0])
    expected = {"G", "D", "G_ema", "optimizer.G", "optimizer.D", "path_length", "augment", "guard", "data", "clock"}
    assert state.keys() == expected | {"record"}


def test_the_log_has_only_losses_that_were_measured(train_run):
    """With two steps of D for one of G, every other line is of a step without G."""
    folder, _ = train_run(d_steps=2, pl_weight=0, gamma=0)
    losses = [line.split("   loss ")[1] for line in log(folder).splitlines() if "   loss " in line]
    assert [re.sub(r"-?\d+\.\d+", "#", text) for text in losses] == ["G # D #   p #", "D #   p #"] * 3


def test_resume_continues_bit_exactly(train_run):
    uninterrupted, _ = train_run(name="uninterrupted", kimg=0.072)
    folder, _ = train_run(kimg=0.048)
    resume(folder, kimg=0.072)
    assert same(weights(uninterrupted), weights(folder))
    kimg = [json.loads(line)["kimg"] for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert kimg == sorted(kimg) and kimg[-1] == 0.072
    assert "Resuming from kimg 0.048." in log(folder)
    seconds = [json.loads(line).get("seconds", 0) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert sorted(s for s in seconds if s) == [s for s in seconds if s]


def test_a_damaged_state_is_reported_and_the_previous_one_used(train_run, capsys):
    folder, _ = train_run(kimg=0.072)
    newest, previous = list_states(folder)
    expected = weights(folder)
    newest.write_bytes(newest.read_bytes()[:-100])
    resume(folder, RunOptions(), kimg=0.072 + 1e-9)
    stderr = capsys.readouterr().err
    assert f"{newest.name}. Using {previous.name} instead" in stderr and "Traceback" not in stderr
    assert same(expected, weights(folder))


def test_edited_settings_are_reported(train_run):
    folder, _ = train_run()
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"gamma": 99.0, "seed": 5}))
    with pytest.raises(SganError, match="gamma: 2.0 then, 99.0 now|seed: 0 then, 5 now"):
        resume(folder, kimg=1.0)


def test_a_folder_without_states(train_run):
    folder, _ = train_run()
    for path in list_states(folder):
        path.unlink()
    with pytest.raises(SganError, match="no training state") as e:
        resume(folder, kimg=1.0)
    assert "snapshot-000000.048.safetensors" in e.value.hint


def test_another_number_of_ranks_keeps_the_batch(make_config):
    config = make_config(batch=8)
    two = gan_resume._redistributed(config, {"gpus": 2})
    assert (two.batch, two.batch_gpu, two.gpus) == (8, 4, 2)
    one = gan_resume._redistributed(two, {"gpus": 1})
    assert (one.batch, one.batch_gpu, one.gpus) == (8, 4, 1)
    with pytest.raises(SganError, match="is not a multiple of"):
        gan_resume._redistributed(config, {"gpus": 3})


def test_too_many_ranks_for_the_groups(make_config):
    with pytest.raises(SganError, match="smaller than a minibatch-deviation group of 2"):
        gan_resume._redistributed(make_config(batch=8, mbstd_group=2), {"gpus": 8})


def test_a_moved_dataset(train_run, rgb_set, tmp_path, make_set):
    folder, _ = train_run(aug="noaug")
    moved = tmp_path / "moved.zip"
    moved.write_bytes(rgb_set.read_bytes())
    plan = gan_resume.plan_resumed_run(folder, {"kimg": 0.056}, str(moved))
    train(plan.config, folder, "cpu", options=QUIET)
    assert read_about(list_states(folder)[0])["config"]["data"]["path"] == str(moved)
    assert "history" not in settings(folder)
    before = contents(folder)
    make_set(moved, num=8)
    with pytest.raises(SganError, match="have changed since this run was started"):
        resume(folder, kimg=0.064)
    assert contents(folder) == before


def test_leftovers_of_a_kill_are_removed(train_run):
    folder, _ = train_run(aug="noaug")
    (folder / ".snapshot-000000.048.safetensors.abc.tmp.safetensors").touch()
    resume(folder, kimg=0.056)
    assert not list(folder.glob(".*.tmp*"))


def test_stopping_while_steps_are_skipped(train_run, poison, monkeypatch):
    """Nothing is saved, as the weights may be invalid, but the command to resume is printed."""
    poison(2, until_rate_below=0)
    monkeypatch.setattr("stylegan_cli.training.run.StopFlag.requested_on_any_rank", lambda self: next(steps) == 6)
    steps = iter(range(99))
    folder, config = train_run(kimg=1)
    assert "Not saved: the last 5 steps had to be skipped" in log(folder)
    assert [p.name[:12] for p in list_states(folder)] == ["state-000000"]
    assert f"sgan train --resume {folder}" in gan_plan.describe_next_steps(config, folder)


def test_a_folder_in_use(train_run):
    folder, _ = train_run()
    with lock_run(folder), pytest.raises(SganError, match=f"in use by process {os.getpid()}"):
        resume(folder, kimg=1.0)


# -------------------------------------------------------------------------------------------- guards


@pytest.fixture
def poison(monkeypatch):
    """Make images nan from a step on, while the learning rate is above a limit: poison(step, until_rate_below)."""

    def make(step, until_rate_below):
        next_batch = Gan.next_batch

        def poisoned(self):
            batch = next_batch(self)
            if (
                int(batch.index[0]) // self.batch >= step
                and self.phases[0].optimizer.param_groups[0]["lr"] > until_rate_below
            ):
                batch.images.fill_(float("nan"))
            return batch

        monkeypatch.setattr(Gan, "next_batch", poisoned)

    return make


def test_persistent_bad_steps_roll_back_with_a_lower_learning_rate(train_run, poison):
    poison(10, until_rate_below=0.3 * 0.0025)
    folder, _ = train_run(kimg=0.2, snap=0.04, pl_weight=0)
    assert "Continuing from kimg 0.08 with the learning rate divided by 2 (1 of 3)" in log(folder)
    # Nothing was saved while steps were skipped, and the state that failed again is replaced by the previous one.
    assert "from kimg 0.04 with the learning rate divided by 4 (2 of 3)" in log(folder)
    assert [p.name[:16] for p in folder.glob("*.abandoned")] == ["state-000000.080"]
    state, _ = read_state(list_states(folder)[0])
    assert state["guard"]["rollbacks"] == 2 and state["clock"]["shown"] == 200
    assert state["optimizer.G"]["param_groups"][0]["lr"] == pytest.approx(0.0025 / 4)
    last = json.loads((folder / "stats.jsonl").read_text().splitlines()[-2])
    assert last["guard/skipped"] == 0  # since the state of the rollback
    assert not (folder / FAILURE).exists()


def test_training_ends_after_three_rollbacks(train_run, poison, tmp_path):
    poison(5, until_rate_below=0)
    with pytest.raises(SganError, match="diverged at kimg .* reduced to 1/8") as e:
        train_run(kimg=1, snap=0.024)
    assert "--lr" in e.value.hint
    assert "diverged" in (tmp_path / "run" / FAILURE).read_text()
    assert log(tmp_path / "run").count("with the learning rate divided by") == 3
    assert "Continuing from kimg 0 with the learning rate divided by 4" in log(tmp_path / "run")
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run").values())


def test_resuming_removes_the_failure_file(train_run):
    folder, _ = train_run()
    (folder / FAILURE).write_text("x")
    resume(folder, kimg=0.056)
    assert not (folder / FAILURE).exists()


def test_collapse_is_reported(train_run, monkeypatch, capsys):
    ratios = iter([1.0, 0.1])
    monkeypatch.setattr(gan_report.CollapseAlarm, "check", lambda self, fakes: (next(ratios), "WARNING: alike"))
    folder, _ = train_run(RunOptions(), kimg=0.024)
    assert "WARNING: alike" in log(folder) and "WARNING: alike" in capsys.readouterr().err
    lines = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert [line["diversity"] for line in lines if "diversity" in line] == [1.0, 0.1]


# ------------------------------------------------------------------------------------------ full disk


def test_a_full_disk_pauses_training_and_loses_nothing(train_run, monkeypatch, capsys):
    uninterrupted, _ = train_run(name="uninterrupted")
    put, tries = state_files._put, []

    def full(f, chunk):
        tries.append(len(chunk))
        if 3 < len(tries) < 7:
            f.write(bytes(chunk[:10]))
            raise OSError(errno.ENOSPC, "No space left on device")
        put(f, chunk)

    monkeypatch.setattr(state_files, "_put", full)
    monkeypatch.setattr(state_files.StateWriter, "every", 0.05)
    folder, _ = train_run(RunOptions())
    stderr = capsys.readouterr().err
    assert stderr.count("No disk space for the training state") == 1 and "continues" in stderr
    assert same(weights(uninterrupted), weights(folder)) and len(list_states(folder)) == 2


def test_a_full_disk_at_a_snapshot(train_run, monkeypatch, capsys):
    """At a snapshot, and at the first line of the log."""
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
    folder, _ = train_run(RunOptions(), kimg=0.024)
    assert capsys.readouterr().err.count("No disk space for the files in") == 2
    assert lines[1] == lines[2] and len((folder / "stats.jsonl").read_text().splitlines()) == 5
    assert (folder / "snapshot-000000.024.safetensors").is_file()


class FastClock:
    """A second passes with every call."""

    now = 0.0

    def monotonic(self):
        self.now += 1
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_a_full_disk_and_ctrl_c(train_run, monkeypatch, tmp_path):
    """The previous state is kept."""
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
        train_run()
    assert [p.name.split("-")[1] for p in list_states(tmp_path / "run")] == ["000000"]


# -------------------------------------------------------------------------------------------- metrics


class FallingThenRising:
    """A metric that falls, then rises, and uses the global random generator."""

    higher_is_better = False

    def __init__(self):
        self.values = iter([5.0, 3.0, 4.0])

    def __call__(self, G, data, device):
        torch.rand(100)
        assert not G.training and G(torch.zeros(1, G.config.z_dim)).shape[1] == 3
        return {"fid": next(self.values), "second": 1.0}


def test_metrics_at_snapshots(train_run):
    plain, _ = train_run(name="plain", kimg=0.072)
    folder, _ = train_run(RunOptions(quiet=True, measure=FallingThenRising()), kimg=0.072)
    lines = [json.loads(line) for line in (folder / "metric-fid.jsonl").read_text().splitlines()]
    assert [(line["kimg"], line["value"]) for line in lines] == [(0.024, 5.0), (0.048, 3.0), (0.072, 4.0)]
    assert lines[1]["snapshot"] == "snapshot-000000.048.safetensors"
    best = (folder / "best.safetensors").read_bytes()
    assert best == (folder / "snapshot-000000.048.safetensors").read_bytes()
    state, _ = read_state(list_states(folder)[0])
    assert state["record"]["best"] == {"metric": "fid", "value": 3.0, "kimg": 0.048}
    assert same(weights(plain), weights(folder))


def test_training_continues_if_a_metric_fails(train_run, capsys):
    class Broken:
        higher_is_better = False

        def __call__(self, G, data, device):
            raise SganError("The images are gone.")

    folder, _ = train_run(RunOptions(measure=Broken()), aug="noaug")
    assert "could not be measured: The images are gone." in capsys.readouterr().err
    assert list_states(folder)[0].name.startswith("state-000000.048")


def test_profile_writes_a_trace(train_run):
    folder, _ = train_run(RunOptions(quiet=True, profile=1), kimg=0.1, r1_interval=1, pl_weight=0)
    assert json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
