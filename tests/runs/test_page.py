"""The report of a run: complete, self-contained, small, and safe with any path or name."""

import base64
import json
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.errors import SganError
from stylegan_cli.runs import lock_run, page
from stylegan_cli.runs.page import duration, make_page, write_page

VOID = {"meta", "img", "input", "link", "br", "path", "circle"}
EVIL = "</title></script><script>alert('x')</script><img src=x onerror=\"a\"> & ${title} $state"


class Reader(HTMLParser):
    """Elements with their attributes, visible text, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text, self.scripts = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open[-1:] == ["script"] else self.text).append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def rows(reader):
    words = [w for w in (t.strip() for t in reader.text) if w]
    return dict(zip(words, words[1:]))


def images(reader):
    """The embedded images, decoded."""
    data = [attrs["src"].partition("base64,")[2] for attrs in reader.all("img")]
    return [Image.open(BytesIO(base64.b64decode(d))) for d in data]


def test_complete_page(tmp_path, make_run):
    run = make_run(tmp_path / "00003-faces-auto", metrics={"fid50k_full": [300.0, 8.5, 9.0]})
    path = write_page(run)
    assert path == run / "report.html"
    reader = Reader(path.read_text(encoding="utf-8"))
    facts = rows(reader)
    assert facts["00003-faces-auto"] == "complete"
    assert (facts["progress"], facts["preset"], facts["dataset"]) == ("100 of 100 kimg", "auto", "faces.zip")
    assert (facts["time"], facts["images"]) == ("25m 00s", "40 of 32x48")
    assert (facts["generator.fir"], facts["generator.conv_clamp"]) == ("1.0, 3.0", "null")
    assert facts["data.classes"] == "a, b"
    charts = [json.loads(attrs["data-chart"]) for attrs in reader.all("figure") if "data-chart" in attrs]
    assert [len(c["lines"]) for c in charts] == [1, 2, 1]  # FID, losses, speed
    assert charts[0]["lines"][0] == [[0, 10, 20], [300, 8.5, 9], [300, 8.5, 9]]
    assert "best 8.5 at 10 kimg" in "".join(reader.text)
    assert [attrs["data-kimg"] for attrs in reader.all("img") if "data-kimg" in attrs] == ["0", "10", "20", "30"]
    assert all(p.format == "WEBP" and p.size == (96, 64) for p in images(reader))


def test_units(tmp_path, make_run):
    folder = make_run(tmp_path / "00000-faces-auto")
    lines = [{"kimg": kimg, "value": value} for kimg, value in ((4, 51.5), (8, 49.25))]
    (folder / "metric-eqt1k_int.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = write_page(folder).read_text()
    assert "best 51.5 dB at 4 kimg" in page and page.count(">dB</text>") == 1


def test_page_is_self_contained(tmp_path, make_run):
    reader = Reader(make_page(make_run(tmp_path / "00000-a")))
    assert not reader.all("link") and all(not attrs for attrs in reader.all("script"))
    assert all(attrs["src"].startswith("data:image/webp;base64,") for attrs in reader.all("img"))
    (policy,) = [a["content"] for a in reader.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML", "".join(reader.scripts))


def test_text_is_escaped(tmp_path, make_run):
    config = {"cfg": EVIL, "kimg": 9, "data": {"path": EVIL, "num": EVIL, "classes": [EVIL], EVIL: EVIL}}
    run = make_run(tmp_path / "00000-<b>&'$title", config=config, failure_txt=EVIL)
    with open(run / "stats.jsonl", "a") as f:
        f.write(json.dumps({"kimg": 1000, EVIL: 3}) + "\n" + json.dumps({"kimg": 1001, EVIL: 4}) + "\n")
    (run / "metric-<i>&.jsonl").write_text('{"value": 1, "kimg": 3}\n')
    text = make_page(run)
    plain = Reader(make_page(make_run(tmp_path / "00001-plain")))
    reader = Reader(text)
    assert len(reader.scripts) == len(plain.scripts) == 1 and reader.scripts == plain.scripts
    assert "onerror" not in {name for _, attrs in reader.elements for name in attrs}
    assert not {tag for tag, _ in reader.elements} - {tag for tag, _ in plain.elements} - {"circle", "p"}
    facts = rows(reader)
    assert facts["dataset"] == facts["data.classes"] == EVIL and EVIL in reader.text
    assert "00000-<b>&'$title" in reader.text


def test_next_commands(tmp_path, make_run):
    run = make_run(tmp_path / "my runs" / "00000-a")
    text = "".join(Reader(make_page(run)).text)
    assert f"sgan train --resume '{run}' --kimg 200\nsgan generate --model '{run}' --seeds 0-99" in text
    (run / "best.safetensors").touch()
    assert f"sgan generate --model '{run / 'best.safetensors'}'" in "".join(Reader(make_page(run)).text)
    half = make_run(tmp_path / "00001-half", lines=20, grids=0)
    text = "".join(Reader(make_page(half)).text)
    assert f"sgan train --resume {half}\n" in text and "sgan generate" not in text


def test_states(tmp_path, make_run):
    run = make_run(tmp_path / "00000-a", lines=20)
    with lock_run(run):
        facts = rows(Reader(make_page(run)))
    assert (facts["00000-a"], facts["time left"]) == ("running", "17m 00s")  # 60 kimg at 17 s
    facts = rows(Reader(make_page(run)))
    assert facts["00000-a"] == "stopped" and "time left" not in facts


@pytest.mark.parametrize("missing", ["empty", "one grid", "broken grid", "no reals", "only nan"])
def test_incomplete_runs(tmp_path, make_run, missing):
    run = make_run(tmp_path / "00000-a", grids=1 if missing == "one grid" else 3)
    if missing == "empty":
        for file in run.iterdir():
            file.unlink()
    elif missing == "broken grid":
        data = (run / "fakes-000010.png").read_bytes()
        (run / "fakes-000010.png").write_bytes(data[: len(data) // 2])
        (run / "fakes-000020.png").write_bytes(b"")
    elif missing == "no reals":
        (run / "reals.png").unlink()
    elif missing == "only nan":
        (run / "stats.jsonl").write_text('{"kimg": 1, "loss/G": NaN, "seconds": null}\n{"kim')
    reader = Reader(make_page(run))
    shown = {"empty": 0, "one grid": 2, "broken grid": 2, "no reals": 4, "only nan": 5}[missing]
    assert len(reader.all("img")) == shown
    assert bool(reader.all("svg")) == (missing not in ("empty", "only nan"))
    assert bool(reader.all("input")) == (missing in ("no reals", "only nan"))


def test_skipped_steps_are_shown_only_if_any(tmp_path, make_run):
    run = make_run(tmp_path / "00000-a", lines=0)
    for skipped, shown in ((0, False), (2, True)):
        lines = [{"kimg": k, "guard/skipped": skipped * (k == 3)} for k in range(1, 6)]
        (run / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert ("Skipped steps" in make_page(run)) == shown


def test_many_large_grids_are_subsampled_and_scaled_down(tmp_path, make_run, monkeypatch):
    run = make_run(tmp_path / "00000-a", grids=0)
    noise = np.random.default_rng(0).integers(0, 256, (300, 1200, 3), dtype=np.uint8)
    for i in range(131):
        Image.fromarray(noise[:, : 1200 - i % 2]).save(run / f"fakes-{i:06d}.png", compress_level=0)
    monkeypatch.setattr(page, "_BUDGET", 900_000)
    text = make_page(run)
    reader = Reader(text)
    kimgs = [float(attrs["data-kimg"]) for attrs in reader.all("img") if "data-kimg" in attrs]
    assert (len(kimgs), kimgs[0], kimgs[-1]) == (60, 0, 130)
    assert {b - a for a, b in zip(kimgs, kimgs[1:])} == {2, 3}
    assert len(text) < 900_000 * 4 / 3 * 62 / 60 + 60_000
    widths = {image.width for image in images(reader)}
    assert len(widths) == 1 and widths < set(page._WIDTHS)


def test_few_grids_are_at_most_1024_wide(tmp_path, make_run):
    run = make_run(tmp_path / "00000-a", grids=0)
    Image.new("RGBA", (2048, 1024), (255, 0, 0, 128)).save(run / "fakes-000000.png")
    Image.new("L", (640, 480), 77).save(run / "reals.png")
    fakes, reals = images(Reader(make_page(run)))
    assert (fakes.size, fakes.mode, reals.size) == ((1024, 512), "RGBA", (640, 480))


def test_output_path(tmp_path, make_run):
    run = make_run(tmp_path / "00000-a", grids=1)
    assert write_page(run, tmp_path / "deep" / "page.html").is_file()
    assert not (run / "report.html").exists()
    with pytest.raises(SganError, match="Cannot write"):
        write_page(run, tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0m 00s"), (59.9, "0m 59s"), (3599, "59m 59s"), (3600, "1h 00m"), (172799, "47h 59m"), (180000, "2d 02h")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def encoder_config(task="invert"):
    data = {"path": "faces.zip", "num": 40, "height": 32, "width": 48}
    return {"recipe": "encoder", "task": task, "model": "g.safetensors", "data": data, "kimg": 100.0}


def make_encoder_run(make_run, folder, task="invert"):
    """Lines as the recipe of encoders writes them, and its images in place of those of a GAN."""
    run = make_run(folder, lines=0, grids=2, config=encoder_config(task))
    (run / "reals.png").unlink()
    for path in run.glob("fakes-*"):
        path.rename(path.with_name(path.name.replace("fakes", "reconstructions")))
    lines = [{"kimg": k, "loss/pixel": 1 / k, "loss/discriminator": 2 / k, "lr": 0.01 / k} for k in range(10, 100, 5)]
    lines += [{"kimg": 20, "held_out/psnr": 18.0, "held_out/discriminator": 0.1}]
    lines += [{"kimg": 100, "held_out/psnr": 21.5, "held_out/discriminator": 0.05, "held_out/spread": 0.2}]
    (run / "stats.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in sorted(lines, key=lambda x: x["kimg"]))
    )
    return run


def test_a_run_that_fits_an_encoder(tmp_path, make_run):
    """Its charts have readable titles, the measured ones first; its commands use the encoder."""
    reader = Reader(make_page(make_encoder_run(make_run, tmp_path / "00001-faces-encoder")))
    facts = rows(reader)
    assert (facts["psnr"], facts["model"], facts["task"]) == ("21.5 dB at best, at 100 kimg", "g.safetensors", "invert")
    titles = [attrs["aria-label"] for attrs in reader.all("svg")]
    assert titles[:2] == ["PSNR of held-out images", "Distance of held-out images"]
    assert {"Loss of pixels", "Loss of features", "Learning rate"} <= set(titles) and not any("/" in t for t in titles)
    text = "".join(reader.text)
    assert "held-out images, each followed by its reconstruction at 10 kimg" in text and "generated images" not in text
    folder = (tmp_path / "00001-faces-encoder").resolve()
    assert f"sgan encoder fit --resume {folder} --kimg 200\nsgan encode IMAGE --encoder {folder}" in text
    text = "".join(Reader(make_page(make_encoder_run(make_run, tmp_path / "00002-a", "sketch"))).text)
    assert "sgan translate fit --resume" in text and "sgan translate IMAGE --encoder" in text
