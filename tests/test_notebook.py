"""The cells in notebook.py run as a script, and in a notebook, where results show themselves."""

import base64
import re
import runpy
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from stylegan_cli.data.images import read_metadata

TOUR = Path(__file__).with_name("notebook.py")


def test_script_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    runpy.run_path(str(TOUR))
    output = capsys.readouterr().out
    assert "torch.Size([3, 3, 64, 64])" in output and "steps" in output and "done" in output
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if "cache" not in path.parts}
    images = {f"images/seed000{i}.png" for i in (1, 2, 3)}
    assert (
        images | {"images/w.npz", "mixed/mix.png", "projection/projected.npz", "edited/edited.npz", "video.gif"}
        <= files
    )
    assert read_metadata(tmp_path / "images/seed0001.png")["trunc"] == "0.7"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Outputs of cells in a notebook after `session` is open: executed('session') -> the cell's outputs."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook()
    folder = tmp_path_factory.mktemp("notebook")
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():

        def run(source):
            cell = nbformat.v4.new_code_cell(source)
            notebook.cells.append(cell)
            client.execute_cell(cell, len(notebook.cells) - 1)
            return cell.outputs

        run("import stylegan_cli\nsession = stylegan_cli.open()")
        run("session.generate(seeds=[5]).save('images')")
        yield run


def shown(outputs, kind):
    """The data of this kind that a cell shows."""
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


def size_of(png):
    return Image.open(BytesIO(base64.b64decode(png))).size


def test_results_show_their_images(executed):
    (png,) = shown(executed("session.generate(seeds=range(6))"), "image/png")
    assert size_of(png) == (2 * 64, 3 * 64)
    (png,) = shown(executed("next(iter(session.generate(seeds=[1])))"), "image/png")
    assert size_of(png) == (64, 64)
    assert shown(executed("session.mix(rows=[1], cols=[2, 3])"), "image/png")
    project = "session.project(images=['images/seed0005.png'], loss='pixel', steps=3, candidates=2)"
    assert shown(executed(project), "image/png")
    assert shown(executed("session.encode(images=['images/seed0005.png'])"), "image/png")


def test_a_long_result_shows_the_first_images(executed):
    (png,) = shown(executed("session.generate(seeds=range(10**9, 10**9 + 500))"), "image/png")
    assert size_of(png) == (8 * 64, 8 * 64)


def test_a_video_plays(executed):
    text = shown(executed("session.interpolate(seeds=[1, 2], frames=3)"), "text/html")[-1]  # after the bar
    content = base64.b64decode(re.search('data:image/webp;base64,([^"]+)', text)[1])
    assert Image.open(BytesIO(content)).n_frames == 6


def test_a_session_shows_its_model(executed):
    (text,) = shown(executed("session"), "text/html")
    assert "critters.safetensors" in text and "StyleR3GAN" in text
    assert size_of(re.search('data:image/png;base64,([^"]+)', text)[1]) == (4 * 64, 2 * 64)


def test_long_work_shows_a_bar_that_ends_full(executed):
    bars = shown(executed("session.project(images=['images/seed0005.png'], loss='pixel', steps=5);"), "text/html")
    (steps,) = [bar for bar in bars if "steps" in bar]
    assert '<progress value="5" max="5">' in steps and "5/5" in steps


def test_a_callback_replaces_the_bar(executed):
    code = "session.project(images=['images/seed0005.png'], loss='pixel', steps=2, progress=lambda *a: None);"
    assert not shown(executed(code), "text/html")
