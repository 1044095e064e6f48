"""Summaries of run folders, including incomplete and broken ones."""

import json
import os

import pytest

from stylegan_cli.runs import lock_run, summarize_run, unit_of
from stylegan_cli.runs.records import read_config, read_metrics, read_stats


def append(path, text):
    with open(path, "a") as f:
        f.write(text)


def test_complete_run(tmp_path, make_run):
    run = make_run(tmp_path / "00003-faces-auto", metrics={"fid50k_full": [300.0, 8.5, 9.0], "kid50k": [1, 0.5]})
    os.utime(run / "metric-kid50k.jsonl", (2e9, 2e9))
    summary = summarize_run(run)
    assert (summary.name, summary.path, summary.state) == ("00003-faces-auto", str(run), "complete")
    assert (summary.kimg, summary.of_kimg, summary.sec_per_kimg) == (100.0, 100.0, 17.0)
    assert (summary.metric, summary.best, summary.best_kimg) == ("fid50k_full", 8.5, 10.0)
    assert summary.failure is None and summary.changed == 2e9


def test_states(tmp_path, make_run):
    run = make_run(tmp_path / "00000-a", lines=20)
    assert summarize_run(run).state == "stopped"
    with lock_run(run):
        assert summarize_run(run).state == "running"
    (run / "failure.txt").write_text("Training diverged.\nLower --lr.\n")
    summary = summarize_run(run)
    assert (summary.state, summary.failure) == ("failed", "Training diverged.\nLower --lr.")
    with lock_run(run):
        assert summarize_run(run).state == "running"


def test_run_without_files(tmp_path):
    run = tmp_path / "00000-a"
    run.mkdir()
    summary = summarize_run(run)
    assert (summary.state, summary.kimg, summary.of_kimg, summary.metric) == ("stopped", 0.0, None, None)


def test_kimg_from_a_snapshot_without_statistics(tmp_path):
    run = tmp_path / "old"
    run.mkdir()
    (run / "snapshot-000012.500.safetensors").touch()
    assert summarize_run(run).kimg == 12.5


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\x00\xff", "[" * 100_000])
def test_broken_settings(tmp_path, make_run, text):
    run = make_run(tmp_path / "00000-a", lines=3, config=None, config_json=text)
    assert read_config(run) == {}
    assert summarize_run(run).kimg == 30.0  # of a snapshot


@pytest.mark.parametrize(
    ("configured", "metric", "best"),
    [
        (None, "fid50k", 7.0),
        (["pr50k3_recall", "fid50k"], "pr50k3_recall", 0.5),
        ("is50k", "is50k", 9.0),
        (["absent"], "fid50k", 7.0),
        ({"x": 1}, "fid50k", 7.0),
    ],
)
def test_main_metric_and_its_best_value(tmp_path, make_run, configured, metric, best):
    metrics = {"fid50k": [9.0, 7.0, 8.0], "pr50k3_recall": [0.1, 0.5, 0.2], "is50k": [2.0, 9.0, 3.0]}
    run = make_run(tmp_path / "00000-a", config={"kimg": 1, "metrics": configured}, metrics=metrics)
    for i, name in enumerate(metrics):
        os.utime(run / f"metric-{name}.jsonl", (i, i))
    summary = summarize_run(run)
    assert (summary.metric, summary.best, summary.best_kimg) == (metric, best, 10.0)


def test_incomplete_and_invalid_lines(tmp_path, make_run):
    run = make_run(tmp_path / "00000-a", lines=3)
    append(
        run / "stats.jsonl", '[]\n"x"\n\n{"kimg": "7"}\n{"kimg": NaN}\n{"kimg": true}\n{"loss/G": 1}\n{"kimg": 8, "lo'
    )
    assert [line["kimg"] for line in read_stats(run)] == [2, 4, 6]
    (run / "stats.jsonl").write_bytes(b"\xff\xfe\n" + (run / "stats.jsonl").read_bytes())
    assert [line["kimg"] for line in read_stats(run)] == [2, 4, 6]


def test_lines_after_a_rollback_replace_earlier_ones(tmp_path, make_run):
    """As when a killed run is resumed from its last state."""
    run = make_run(tmp_path / "00000-a", lines=5)
    append(run / "stats.jsonl", "".join(json.dumps({"kimg": k, "again": 1}) + "\n" for k in (5, 7, 9)))
    assert [(line["kimg"], "again" in line) for line in read_stats(run)] == [(2, 0), (4, 0), (5, 1), (7, 1), (9, 1)]


def test_lines_with_the_same_kimg_are_merged(tmp_path, make_run):
    """Diversity has a line of its own, after the line of the losses."""
    run = make_run(tmp_path / "00000-a", lines=2)
    append(run / "stats.jsonl", '{"kimg": 4, "diversity": 0.5}\n')
    first, last = read_stats(run)
    assert "diversity" not in first and (last["kimg"], last["diversity"], last["loss/D"]) == (4, 0.5, 0.9)
    assert summarize_run(run).sec_per_kimg == 17.0


def test_tail_of_a_long_file(tmp_path, make_run):
    run = make_run(tmp_path / "00000-a", lines=5000)
    tail = read_stats(run, tail=True)
    assert 100 < len(tail) < 1000 and tail[-1]["kimg"] == 10_000


def test_repeated_and_unordered_metrics(tmp_path, make_run):
    run = make_run(tmp_path / "00000-a", metrics={"fid": [5.0, 4.0]})
    append(run / "metric-fid.jsonl", '{"value": 3, "kimg": 40}\n{"value": 2, "kimg": 20}\n{"value": 1, "kimg": 0}\n')
    append(run / "metric-fid.jsonl", '{"value": null, "kimg": 1}\n{"value": 1}\n{"value": Infinity, "kimg": 2}\n{"val')
    assert read_metrics(run) == {"fid": [(0, 1), (10, 4), (20, 2), (40, 3)]}


def test_a_run_that_fits_an_encoder(tmp_path, make_run):
    """Its quality is that of the held-out images, of which the best is the largest."""
    run = make_run(tmp_path / "00000-a-encoder", lines=3, config={"recipe": "encoder", "kimg": 6.0})
    assert summarize_run(run).metric is None
    values = (2, 18.0), (4, 21.0), (6, 20.5), (8, float("nan"))
    append(run / "stats.jsonl", "".join(json.dumps({"kimg": k, "held_out/psnr": v}) + "\n" for k, v in values))
    summary = summarize_run(run)
    assert (summary.metric, summary.best, summary.best_kimg) == ("psnr", 21.0, 4.0)
    assert unit_of("psnr") == " dB"
