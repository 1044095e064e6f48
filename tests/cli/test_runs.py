"""sgan runs"""

import json
import sys
from pathlib import Path
from subprocess import run as call

import pytest


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """./runs with two runs: one at 40 of 100 kimg, and one that has just started."""
    monkeypatch.chdir(tmp_path)
    first = tmp_path / "runs" / "00000-faces-auto"
    first.mkdir(parents=True)
    (first / "config.json").write_text('{"kimg": 100, "cfg": "auto"}')
    (first / "stats.jsonl").write_text('{"kimg": 40, "sec_per_kimg": 12.345, "loss/G": 1}\n{"kimg": 41, "se')
    (first / "metric-fid50k_full.jsonl").write_text('{"metric": "fid50k_full", "value": 7.654321, "kimg": 40}\n')
    (tmp_path / "runs" / "00001-cats").mkdir()
    return tmp_path / "runs"


def test_list(sgan, runs):
    head, first, second = sgan("runs").stdout.splitlines()
    assert head.split() == ["run", "state", "kimg", "of", "sec/kimg", "best", "last", "change"]
    assert first.split()[:7] == ["00000-faces-auto", "stopped", "40", "100", "12.3", "fid50k_full", "7.6543"]
    assert second.split()[:6] == ["00001-cats", "stopped", "0", "-", "-", "-"]
    assert head.index("kimg") + 4 == first.index("40") + 2 and head.index("best") == first.index("fid50k")
    assert sgan("runs", "--runs", runs).stdout == sgan("runs", "-q").stdout == sgan("runs").stdout


def test_list_as_json(sgan, runs):
    first, second = json.loads(sgan("runs", "--json").stdout)
    assert (first["name"], first["state"], first["kimg"], first["of_kimg"]) == ("00000-faces-auto", "stopped", 40, 100)
    assert (first["metric"], first["best"]) == ("fid50k_full", 7.654321)
    assert second["best"] is None


def test_no_runs(sgan, tmp_path):
    result = sgan("runs", "--runs", tmp_path / "none")
    assert (
        result.stdout == ""
        and f"No runs in {tmp_path / 'none'} yet." in result.stderr
        and "sgan train" in result.stderr
    )
    assert sgan("runs", "--runs", tmp_path, "-q").stderr == ""
    assert sgan("runs", "--runs", tmp_path, "--json").stdout == "[]\n"
    result = sgan("runs", "show", "--runs", tmp_path, code=1)
    assert f"There are no runs in {tmp_path}." in result.stderr and "sgan train" in result.stderr


@pytest.mark.parametrize("which", ["0", "00000-faces-auto", "runs/00000-faces-auto"])
def test_show(sgan, runs, which):
    result = sgan("runs", "show", which)
    assert result.stdout.splitlines()[-1].endswith("00000-faces-auto/report.html")
    assert "fid50k_full 7.6543" in result.stderr
    assert "<h1>00000-faces-auto</h1>" in (runs / "00000-faces-auto" / "report.html").read_text()
    assert [line.split()[1] for line in sgan("runs").stdout.splitlines()[1:]] == ["stopped", "stopped"]


def test_show_newest_run_of_another_folder(sgan, runs, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    out = tmp_path / "page.html"
    for line in (["runs", "show", "--runs", runs, "--out", out], ["runs", "--runs", runs, "show", "--out", out]):
        result = sgan(*line, "-q")
        assert (result.stdout, result.stderr) == (f"{out}\n", "")
        assert "00001-cats" in out.read_text()
        out.unlink()


def test_show_outdir(sgan, runs, tmp_path):
    assert sgan("runs", "show", "0", "--outdir", "pages", "-q").stdout == "pages/report.html\n"
    assert sgan("runs", "show", "0", "--outdir", "pages", "--out", "a.html", "-q").stdout == "pages/a.html\n"
    assert sorted(p.name for p in (tmp_path / "pages").iterdir()) == ["a.html", "report.html"]
    result = sgan("runs", "show", "0", "--outdir", "pages", "--out", "./a.html", code=2)
    assert "--out ./a.html is not in --outdir pages. Use only one of the two options." in result.stderr


def test_show_as_json(sgan, runs):
    result = json.loads(sgan("runs", "show", "0", "--json").stdout)
    assert result["name"] == "00000-faces-auto" and result["page"].endswith("report.html")


def test_bad_input(sgan, runs, tmp_path):
    assert "sgan runs --runs ./runs" in sgan("runs", "show", "9", code=1).stderr
    assert "Did you mean runs/00001-cats?" in sgan("runs", "show", "00001-cat", code=1).stderr
    assert "Did you mean 'show'?" in sgan("runs", "shwo", code=2).stderr
    assert "Cannot write" in sgan("runs", "show", "0", "--out", tmp_path, code=1).stderr


def test_real_run(sgan, tiny_run):
    result = sgan("runs", "--runs", tiny_run.parent, "--json")
    (summary,) = json.loads(result.stdout)
    assert (summary["state"], summary["kimg"], summary["of_kimg"]) == ("complete", 0.032, 0.032)
    page = Path(sgan("runs", "show", tiny_run, "--out", tiny_run.parent / "page.html", "-q").stdout.strip())
    text = page.read_text()
    assert text.count("<svg") >= 4 and text.count("data-kimg=") == 3


def test_runs_do_not_import_torch(runs):
    code = (
        "import sys; from stylegan_cli.cli import main\n"
        "for line in (['runs'], ['runs', 'show', '0']):\n"
        "    try: main(line)\n    except SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = call([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
