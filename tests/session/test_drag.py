"""Drags in a session: steps, results and their files, the next drag, bad input."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stylegan_cli
from stylegan_cli.data.images import read_metadata
from stylegan_cli.errors import SganError
from stylegan_cli.inversion.annotations import recorded_options
from stylegan_cli.sampling.latent_files import load_latent_file
from stylegan_cli.session import DragRequest

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters

POINTS = [(16.0, 12.0, 19.0, 12.0)]


@pytest.fixture(scope="module")
def session():
    return stylegan_cli.open(MODEL)


def states(drag, count=None):
    return [(s.index, s.points, s.ws) for s in itertools.islice(drag.steps(), count)]


def assert_same(a, b):
    assert [x[:2] for x in a] == [x[:2] for x in b]
    assert all(torch.equal(x[2], y[2]) for x, y in zip(a, b, strict=True))


def test_stop_and_go_on(session):
    """A drag that stops by a break and goes on is one that was never stopped."""
    whole, parts = (session.prepare_drag(start=3, points=POINTS, steps=6, tolerance=0) for _ in range(2))
    found = states(parts, 2)
    assert parts.result().interrupted and not parts.state.done
    assert len(session.generate(seeds=[1]).images) == 1  # something else in between
    assert_same(states(whole), [*found, *states(parts)])
    assert whole.state.index == 6 and states(whole) == [] and len(whole.path) == 7
    assert not whole.result().interrupted


def test_run(session):
    calls = []
    result = session.drag(start=3, points=POINTS, progress=lambda *call: calls.append(call))
    assert max(result.distance) <= 1 and not result.interrupted
    what, done, total = calls[-1]
    assert what.startswith("steps, distance=") and done == len(calls) == result.path[-1].index and total == 300
    before = session.generate(seeds=[3]).images[0]
    assert torch.equal(result.drag.image(result.path[0].ws), before) and not torch.equal(result.image, before)


def test_ctrl_c_keeps_the_steps(session):
    def interrupt(what, done, total):
        if done == 3:
            raise KeyboardInterrupt

    result = session.drag(start=3, points=POINTS, tolerance=0, progress=interrupt)
    assert result.interrupted and len(result.path) == 4


def test_files(session, tmp_path):
    result = session.drag(start=3, points=POINTS, steps=4, trunc=0.8)
    files = result.save(tmp_path / "a", "moved")
    assert [f.name for f in files] == ["moved.npz", "moved.png", "moved-points.png"]
    assert sorted(f.name for f in (tmp_path / "a").iterdir()) == sorted(f.name for f in files)
    again = session.generate(from_w=files[0])
    assert torch.equal(again.images[0], result.image)
    assert np.array_equal(np.asarray(Image.open(files[1])), result.image.permute(1, 2, 0).numpy())
    record = read_metadata(files[1])
    assert (record["start"], record["points"], record["steps"]) == ("3", "16,12:19,12", "4")
    assert record["trunc"] == "0.8"
    assert "seed" not in record  # it is not seed 3's image
    assert recorded_options(files[1], session.fingerprint, session.G.label_space) is None
    assert load_latent_file(files[0]).settings["points"] == "16,12:19,12"
    sheet = np.asarray(Image.open(files[2])).astype(int)
    red, blue = ((abs(sheet - color).sum(2) == 0).sum() for color in ((230, 50, 50), (50, 110, 230)))
    assert red > 30 and blue > 15


def test_start_from_a_file_and_from_latents(session, tmp_path):
    latents = session.drag(start=3, points=POINTS, steps=2).save(tmp_path)[0]
    ws = load_latent_file(latents).ws
    by_file, by_tensor = (session.prepare_drag(start=s, points=POINTS, steps=3) for s in (latents, ws))
    assert_same(states(by_file), states(by_tensor))
    with pytest.raises(SganError, match=r"drag\.npz would be overwritten by its own edit"):
        by_file.result().save(tmp_path)
    assert torch.equal(load_latent_file(latents).ws, ws)
    session.generate(seeds=[1, 2]).save(tmp_path, latents=True)
    with pytest.raises(SganError, match=r"w\.npz has 2 images, but a drag is of one"):
        session.prepare_drag(start=tmp_path / "w.npz", points=POINTS)
    with pytest.raises(SganError, match=r"have shape \[1, 2, 3\]"):
        session.prepare_drag(start=torch.zeros(1, 2, 3), points=POINTS)


def test_noise_and_tuned_weights_go_along(session, tmp_path):
    targets = session.generate(seeds=[5]).save(tmp_path)
    projected = session.project(images=targets, loss="pixel", steps=3)
    latents = session.tune(projected, 2, lambda *_: None).save(tmp_path)
    latents = next(f for f in latents if f.suffix == ".npz")
    drag = session.prepare_drag(start=latents, points=POINTS, steps=2)
    first = drag.image(drag.state.ws)
    assert torch.equal(first, session.generate(from_w=latents).images[0])
    assert any("tuned" in note for note in drag.result().notes)
    states(drag)
    files = drag.result().save(tmp_path / "b")
    assert (tmp_path / "b" / load_latent_file(files[0]).tuned.name).is_file()
    assert torch.equal(session.generate(from_w=files[0]).images[0], drag.image(drag.state.ws))


def test_again(session, tmp_path):
    """The next drag starts where this one ended, or at one of its steps, and the files tell of both."""
    first = session.prepare_drag(start=3, points=POINTS, steps=3)
    states(first)
    second = first.again([(10, 20, 8, 20)])
    assert torch.equal(second.state.ws, first.state.ws) and second.state.points == [(10, 20)]
    states(second)
    files = second.result().save(tmp_path)
    assert read_metadata(files[1])["points"] == "16,12:19,12 then 10,20:8,20"
    undone = first.again([(10, 20, 8, 20)], ws=first.path[1].ws)
    assert torch.equal(undone.state.ws, first.path[1].ws)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[10:30] = True
    masked = first.again([(10, 20, 8, 20)], mask)
    assert not torch.equal(states(masked)[-1][2], second.state.ws)
    with pytest.raises(SganError, match="outside of the image"):
        first.again([(10, 20, 8, 33)])


def test_mask(session, tmp_path):
    mask = np.zeros((32, 32), bool)
    mask[6:20, 8:28] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    starts = [session.prepare_drag(start=3, points=POINTS, steps=30, tolerance=0, mask=m) for m in (mask, None)]
    from_file = session.prepare_drag(start=3, points=POINTS, steps=2, mask=str(tmp_path / "mask.png"))
    assert_same(states(from_file), states(starts[0], 2))
    change = []
    for drag in starts:
        states(drag)
        a, b = (drag.image(s.ws).float() for s in (drag.path[0], drag.state))
        change.append((a - b).abs().mean(0)[torch.from_numpy(~mask)].mean())
    assert change[0] < 0.8 * change[1]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"points": []}, "There are no points to drag"),
        ({"points": 3}, "points cannot be 3"),
        ({"points": [(1, 2, 3)]}, "An item of points"),
        ({"points": [(1, 2, 3, float("nan"))]}, "An item of An item of points"),
        ({"points": POINTS, "start": -1}, "start cannot be -1|An item of start"),
        ({"points": POINTS, "mask": 3}, "mask cannot be 3"),
        ({"points": [(1, 2, 33, 4)]}, r"The point 33,4 is outside of the image, which is 32x32"),
        ({"points": [(1, -2, 3, 4)]}, r"The point 1,-2 is outside"),
        ({"points": POINTS, "mask": torch.ones(8, 32)}, r"The mask is 8x32, but the image is 32x32"),
        ({"points": POINTS, "mask": torch.ones(32)}, r"The mask is 32, but the image is 32x32"),
        ({"points": POINTS, "mask": np.zeros((32, 32), bool)}, "lets nothing move"),
        ({"points": POINTS, "layer": "b7"}, "no layer 'b7'"),
        ({"points": POINTS, "translate": (0.1, 0.0)}, "--translate needs a model with an input transform"),
        ({"points": POINTS, "class_index": 1}, "This model has no classes"),
    ],
)
def test_bad_input(session, fields, message):
    with pytest.raises(SganError, match=message):
        session.prepare_drag(**fields)


def test_without_points(session):
    with pytest.raises(SganError, match="There are no points to drag"):
        session.prepare_drag(DragRequest(start=3))


def test_video(session, tmp_path):
    result = session.drag(start=3, points=POINTS, steps=4, tolerance=0)
    for name, marks in (("marked.webp", True), ("plain.webp", False)):
        path = result.save_video(tmp_path / name, marks)
        with Image.open(path) as video:
            assert video.n_frames == 5 and video.size == (256, 256)
        assert json.dumps(read_metadata(path)["points"]) == '"16,12:19,12"'
    frames = [np.asarray(Image.open(tmp_path / n).convert("RGB")).astype(int) for n in ("marked.webp", "plain.webp")]
    difference = abs(frames[0] - frames[1]).sum(2)
    assert difference[90:102, 120:160].max() > 100 and difference[150:].max() < 30
    with pytest.raises(SganError, match="not a supported video format"):
        result.save_video(tmp_path / "x.avi")
