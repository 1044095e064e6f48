"""The script in notebook.py runs and writes its files."""

import runpy
from pathlib import Path

from stylegan_cli.data.images import read_metadata


def test_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    runpy.run_path(str(Path(__file__).with_name("notebook.py")))
    output = capsys.readouterr().out
    assert "torch.Size([3, 3, 32, 32])" in output and "steps" in output and "done" in output
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if "cache" not in path.parts}
    images = {f"images/seed000{i}.png" for i in (1, 2, 3)}
    assert (
        images | {"images/w.npz", "mixed/mix.png", "projection/projected.npz", "edited/edited.npz", "video.gif"}
        <= files
    )
    assert read_metadata(tmp_path / "images/seed0001.png")["trunc"] == "0.7"
