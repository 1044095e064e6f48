"""The explorer's server: what its calls answer, and that the commands that it names make the same."""

import base64
import json
import shlex
import socket
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # as of the explorer


def pixels(path):
    """An image file as [H, W, 4]."""
    return np.asarray(Image.open(path).convert("RGBA")).astype(int)


def frame_of(video):
    """The present frame [32, 32, 3], which videos enlarge."""
    return np.asarray(video.convert("RGB")).astype(int)[1::4, 1::4]


def decoded(frame):
    data = np.frombuffer(base64.b64decode(frame["data"]), np.uint8)
    return data.reshape(frame["height"], frame["width"], 4).astype(int)


def run_commands(sgan, explorer, monkeypatch, commands, name):
    """Run command lines in the explorer's folder; return the image of this name that the last one writes."""
    monkeypatch.chdir(explorer.folder)
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "sgan"
        sgan(*words, "-q")
    outdir = words[words.index("--outdir") + 1] if "--outdir" in words else "out"
    return pixels(explorer.folder / outdir / name)


@pytest.fixture(scope="module")
def directions(explorer):
    found = explorer.events("/api/find", job="find", method="pca", count=4)[0]["result"]["file"]
    assert found["names"] == ["pca0", "pca1", "pca2", "pca3"]
    return found["file"]


def test_the_model_is_described(explorer):
    model = explorer.get("/api/model")
    assert (model["width"], model["height"], model["num_ws"]) == (32, 32, 8)
    assert [layer["index"] for layer in model["layers"]] == list(range(8))
    assert sorted(i for group in model["groups"].values() for i in group) == list(range(8))
    assert model["encoder"] and not model["run"] and not model["transform"] and model["classes"] is None


@pytest.mark.parametrize("options", [{}, {"trunc": 0.6}, {"trunc": 0.5, "trunc_cutoff": 3, "noise": "none"}])
def test_images_are_those_of_generate(explorer, sgan, monkeypatch, options):
    frames, commands = explorer.frames("/api/images", items=[4, 7], **options)
    assert len(commands) == 1 and len(frames) == 2
    for seed, frame in zip((4, 7), frames, strict=True):
        made = run_commands(sgan, explorer, monkeypatch, commands, f"seed{seed:04d}.png")
        assert abs(made - frame).max() <= 1


def test_images_are_reduced_to_what_is_shown(explorer):
    (whole,), _ = explorer.frames("/api/images", items=[4])
    (small,), _ = explorer.frames("/api/images", items=[4], size=16)
    assert small.shape == (16, 16, 4)
    assert abs(whole.reshape(16, 2, 16, 2, 4).mean((1, 3)) - small).max() <= 1


def test_a_mix_of_three_images_is_two_commands(explorer, sgan, monkeypatch):
    donors = [{"item": 2, "layers": [0, 1]}, {"item": 3, "layers": [5, 4]}]
    (frame,), commands = explorer.frames("/api/mix", base=1, donors=donors, blend=0.75, trunc=0.8)
    assert len(commands) == 2
    made = run_commands(sgan, explorer, monkeypatch, commands, "mixmix0001-0002-0003.png")
    assert abs(made - frame).max() <= 1
    (base,), _ = explorer.frames("/api/images", items=[1], trunc=0.8)
    assert abs(base.astype(int) - frame).mean() > 3


def test_a_mix_without_donors_is_the_image(explorer):
    (frame,), commands = explorer.frames("/api/mix", base=1)
    (image,), same = explorer.frames("/api/images", items=[1])
    assert np.array_equal(frame, image) and commands == same


def test_a_grid_has_rows_columns_and_cells(explorer, sgan, monkeypatch):
    frames, commands = explorer.frames("/api/grid", rows=[1, 2], cols=[3, 4, 5], layers=[0, 1, 2])
    assert len(frames) == 2 + 3 + 6
    made = run_commands(sgan, explorer, monkeypatch, commands, "mix0002-0004.png")
    assert abs(made - frames[5 + 3 + 1]).max() <= 1


def test_an_edit_is_that_of_the_command(explorer, sgan, monkeypatch, directions):
    edits = [{"file": directions, "index": 0, "strength": -2}, {"file": directions, "index": 3, "strength": 1.5}]
    (frame,), commands = explorer.frames("/api/edit", item=3, edits=edits, layers=[0, 1, 2, 3], trunc=0.9)
    made = run_commands(sgan, explorer, monkeypatch, commands, "edit0003.png")
    assert abs(made - frame).max() <= 1
    (other,), _ = explorer.frames("/api/edit", item=3, edits=edits, trunc=0.9)
    assert abs(other.astype(int) - frame).max() > 3  # of all layers


def test_a_kept_image_is_shown_as_it_was(explorer, sgan, monkeypatch, directions):
    """Truncation acts on seeds only, so that a kept image stays what it was."""
    call = {"item": 3, "edits": [{"file": directions, "index": 1, "strength": 2}], "trunc": 0.5}
    (frame,), _ = explorer.frames("/api/edit", **call)
    kept = explorer.post("/api/keep", kind="edit", **call)
    assert kept["item"] in explorer.get("/api/items")["items"]
    assert abs(pixels(explorer.out / kept["image"]) - frame).max() <= 1
    (shown,), commands = explorer.frames("/api/images", items=[kept["item"]], trunc=0.5)
    assert abs(shown.astype(int) - frame).max() <= 1
    made = run_commands(sgan, explorer, monkeypatch, commands, "w0000.png")
    assert abs(made - frame).max() <= 1
    donors = [{"item": kept["item"], "layers": [0, 1, 2]}]
    (mixed,), commands = explorer.frames("/api/mix", base=8, donors=donors, trunc=0.5)
    name = kept["item"].removesuffix(".npz")
    assert abs(run_commands(sgan, explorer, monkeypatch, commands, f"mixw-{name}.png") - mixed).max() <= 1


@pytest.mark.parametrize("kind", ["spline", "linear", "slerp"])
def test_the_frames_of_a_walk_are_those_of_the_video(explorer, sgan, monkeypatch, kind):
    walk = {"keys": [1, 2, 3], "kind": kind, "frames": 4, "loop": False, "trunc": 0.7}
    status, headers, _ = explorer.request("POST", "/api/walk", json.dumps(walk))
    assert status == 200 and headers["x-frames"] == "9"
    result = explorer.events("/api/export", job=f"export-{kind}", fps=10, format="gif", **walk)[0]["result"]
    content = explorer.request("GET", f"/api/files/{result['file']}")[2]
    with Image.open(BytesIO(content)) as video:
        assert video.n_frames == 9
        for index in (0, 3, 8):
            video.seek(index)
            (frame,), _ = explorer.frames("/api/walk", index=index, **walk)  # a GIF has 256 colors
            assert abs(frame_of(video) - frame[..., :3]).mean() < 6
    made = explorer.out / result["file"]
    before = made.read_bytes()
    made.unlink()
    monkeypatch.chdir(explorer.folder)
    for command in result["command"].splitlines():
        sgan(*shlex.split(command)[1:], "-q")
    with Image.open(BytesIO(before)) as a, Image.open(made) as b:
        assert a.n_frames == b.n_frames and abs(np.asarray(a.convert("RGB")) - np.asarray(b.convert("RGB"))).max() == 0


def test_a_walk_through_kept_images_and_truncated_seeds(explorer):
    kept = explorer.post("/api/keep", kind="image", items=[5])["item"]
    walk = {"keys": [1, kept], "frames": 3, "loop": False, "trunc": 0.4}
    result = explorer.events("/api/export", job="both", format="webp", **walk)[0]["result"]
    with Image.open(explorer.out / result["file"]) as video:
        for index, item in ((0, 1), (3, kept)):
            video.seek(index)
            (image,), _ = explorer.frames("/api/images", items=[item], trunc=0.4)
            assert abs(frame_of(video) - image[..., :3]).mean() < 8


def test_a_photo_is_encoded_and_projected(explorer):
    (image,), _ = explorer.frames("/api/images", items=[11])
    content = BytesIO()
    Image.fromarray(image[..., :3]).resize((80, 80), Image.Resampling.BICUBIC).save(content, "JPEG")
    photo = explorer.request("POST", "/api/photo", content.getvalue())
    assert photo[0] == 200
    photo = json.loads(photo[2])
    assert photo["restored"] is None and abs(decoded(photo["image"]) - image).mean() < 8
    encoded = explorer.post("/api/encode", photo=photo["photo"])
    assert encoded["psnr"] > 20 and abs(decoded(encoded["image"]) - image).mean() < 20
    last, *events = explorer.events("/api/project", job="p", photo=photo["photo"], steps=60, space="w+")
    found = last["result"]
    assert found["psnr"] > encoded["psnr"]
    assert any("image" in event for event in events) and {event["total"] for event in events} >= {60}
    (shown,), _ = explorer.frames("/api/images", items=[found["item"]])
    assert abs(decoded(found["image"]) - shown).max() <= 1


def test_a_generated_image_is_restored(explorer, sgan):
    options = ["--seeds", 21, "--trunc", 0.7, "--noise-mode", "none", "--outdir", explorer.folder / "g", "-q"]
    sgan("generate", "--model", MODEL, *options)
    content = (explorer.folder / "g" / "seed0021.png").read_bytes()
    restored = json.loads(explorer.request("POST", "/api/photo", content)[2])["restored"]
    assert restored["item"] == 21 and restored["trunc"] == 0.7 and restored["noise"] == "none"
    item = restored.pop("item")
    (frame,), _ = explorer.frames("/api/images", items=[item], **restored)
    assert abs(pixels(explorer.folder / "g" / "seed0021.png") - frame).max() <= 1


def test_an_edited_image_is_not_taken_for_its_seed(explorer, sgan, directions):
    options = ["--directions", explorer.out / directions, "--seeds", 3, "--outdir", explorer.folder / "e", "-q"]
    sgan("edit", "apply", "--model", MODEL, *options)
    content = (explorer.folder / "e" / "edit0003.png").read_bytes()
    assert json.loads(explorer.request("POST", "/api/photo", content)[2])["restored"] is None


def test_long_work_can_be_stopped_and_keeps_what_it_has(explorer):
    photo = upload(explorer)
    connection, answer = begin(explorer, "/api/project", job="long", photo=photo, steps=2000)
    first_step(answer)
    explorer.post("/api/stop", job="long")
    last = [json.loads(line) for line in answer.read().splitlines()][-1]
    connection.close()
    assert last["result"]["item"].endswith("projected.npz")


def test_a_closed_page_cancels_its_work(explorer):
    photo = upload(explorer)
    connection, answer = begin(explorer, "/api/project", job="gone", photo=photo, steps=2000)
    answer.readline()
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    until = time.monotonic() + 20
    while time.monotonic() < until:  # the name is free as soon as the work has ended
        status, _, content = explorer.request(
            "POST", "/api/find", json.dumps({"job": "gone", "method": "pca", "count": 2})
        )
        if status == 200:
            break
        time.sleep(0.1)
    assert status == 200, content
    assert not list(explorer.out.glob(f"{photo.removesuffix('.png')}-*"))


def test_who_gave_up_leaves_the_queue(explorer):
    """A job that waits for its turn, whose page has gone, holds no place."""
    connection, answer = begin(explorer, "/api/project", job="first", photo=upload(explorer), steps=2000)
    first_step(answer)
    for k in range(4):  # more than may go on at a time
        waiting = begin(explorer, "/api/export", job=f"waits-{k}", keys=[1, 2], frames=600)[0]
        waiting.sock.shutdown(socket.SHUT_RDWR)
        waiting.close()
        time.sleep(0.3)
    assert "result" in explorer.events("/api/find", job="after", method="sefa", count=2)[0]  # beside the projection
    explorer.post("/api/stop", job="first")
    answer.read()
    connection.close()


def test_a_result_never_replaces_another(explorer):
    photo = upload(explorer)
    items = [explorer.post("/api/encode", photo=photo)["item"] for _ in range(2)]
    files = [explorer.events("/api/find", job="twice", method="pca", count=2)[0]["result"]["file"] for _ in range(2)]
    assert items[0] != items[1] and files[0]["file"] != files[1]["file"]


def test_favorites_persist(explorer):
    assert explorer.get("/api/favorites")["items"] == []
    explorer.post("/api/favorites", items=[3, "edit-0001.npz"])
    assert explorer.get("/api/favorites")["items"] == [3, "edit-0001.npz"]
    explorer.post("/api/favorites", items=[])


def test_a_command_without_images(explorer):
    expected = shlex.join(["sgan", "generate", "--model", str(MODEL), "--seeds", "4-5,9", "--trunc", "0.5"])
    assert explorer.post("/api/command", items=[4, 5, 9], trunc=0.5) == {"command": expected}


def test_files_of_other_models_are_not_listed(explorer):
    np.savez(explorer.out / "other.npz", w=np.zeros((1, 3)), model=np.array("0123456789abcdef"))
    assert "other.npz" not in explorer.get("/api/items")["items"]
    status, _, content = explorer.request("POST", "/api/images", json.dumps({"items": ["other.npz"]}))
    assert status == 400 and "other.npz" in json.loads(content)["error"]


def test_a_large_photo_is_kept_reduced(explorer):
    content = BytesIO()
    Image.new("RGB", (5000, 4000), "orange").save(content, "JPEG")
    photo = json.loads(explorer.request("POST", "/api/photo", content.getvalue())[2])["photo"]
    with Image.open(explorer.out / photo) as image:
        assert max(image.size) == 2048


def test_a_mask_of_a_large_model_fits(explorer):
    """A million pixels in base64 are less than the limit; this model refuses it for its own size."""
    drag = {"points": [[16, 12, 16, 7]], "job": "large", "item": 1, "mask": base64.b64encode(bytes(2**20)).decode()}
    assert "1024 bytes" in explorer.events("/api/drag", **drag)[0]["error"]


def test_images_are_answered_while_work_goes_on(explorer):
    connection, answer = begin(explorer, "/api/project", job="slow", photo=upload(explorer), steps=2000)
    first_step(answer)
    started = time.monotonic()
    for seed in range(5):
        explorer.frames("/api/images", items=[seed])
    waited = time.monotonic() - started
    explorer.post("/api/stop", job="slow")
    events = [json.loads(line) for line in answer.read().splitlines()]
    connection.close()
    assert "result" in events[-1]
    assert waited < 20  # 2,000 steps take longer


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/images", {"items": []}, "items"),
        ("/api/images", {"items": [-1]}, "items"),
        ("/api/images", {"items": [0] * 65}, "items"),
        ("/api/images", {"items": [0], "trunc": "x"}, "trunc"),
        ("/api/images", {"items": [0], "trunk": 1}, "trunk"),
        ("/api/images", {"items": [0], "class": 1}, "no classes"),
        ("/api/images", {"items": [0], "rotate": 5}, "--rotate"),
        ("/api/images", {"items": ["missing.npz"]}, "missing.npz"),
        ("/api/images", {"items": ["../../etc/passwd.npz"]}, "passwd"),
        ("/api/images", {"items": [0], "snapshot": "snapshot-000001.safetensors"}, "snapshot"),
        ("/api/images", {}, "items"),
        ("/api/images", [1], "object"),
        ("/api/mix", {"base": 1, "donors": [{"item": 2, "layers": [99]}]}, "layer 99"),
        ("/api/mix", {"base": 1, "donors": [{"item": 2}]}, "layers"),
        ("/api/grid", {"rows": [1] * 9, "cols": [1], "layers": [0]}, "rows"),
        ("/api/edit", {"item": 1, "edits": [{"file": "no.npz", "index": 0, "strength": 1}]}, "no.npz"),
        ("/api/walk", {"keys": [1]}, "key image"),
        ("/api/walk", {"keys": [1, 2], "index": -1}, "index"),
        ("/api/walk", {"keys": [1, 2], "kind": "trunc"}, "kind"),
        ("/api/keep", {"kind": "all"}, "kind"),
        ("/api/keep", {"kind": "mix", "base": "x.npz"}, "x.npz"),
        ("/api/encode", {"photo": "photo-9999.png"}, "photo-9999"),
        ("/api/export", {"job": "a b", "keys": [1, 2]}, "job"),
        ("/api/find", {"job": "a", "count": 400}, "count"),
    ],
)
def test_bad_calls_get_a_sentence(explorer, path, body, words):
    status, _, content = explorer.request("POST", path, json.dumps(body))
    answer = json.loads(content)
    assert status == 400 and words in answer["error"]


def test_directions_of_a_method_that_the_model_lacks(explorer):
    event = explorer.events("/api/find", job="codes", method="codes")[0]
    assert "codes" in event["error"]


def upload(explorer):
    (image,), _ = explorer.frames("/api/images", items=[12])
    content = BytesIO()
    Image.fromarray(image[..., :3]).save(content, "PNG")
    return json.loads(explorer.request("POST", "/api/photo", content.getvalue())[2])["photo"]


def first_step(answer):
    """Wait until the search has something to keep."""
    while not (event := json.loads(answer.readline())).get("done") or event["what"] != "steps":
        pass


def begin(explorer, path, **body):
    """Start long work, whose events are read later."""
    connection = explorer.connect("POST", path, json.dumps(body))
    answer = connection.getresponse()
    assert answer.status == 200
    return connection, answer


def test_a_point_is_dragged(explorer):
    """The steps move the handle; the result is an item that later drags go on from."""
    (before,), _ = explorer.frames("/api/images", items=[1])
    drag = {"points": [[16, 12, 16, 7]], "steps": 60}
    last, *events = explorer.events("/api/drag", job="d", item=1, **drag)
    found = last["result"]
    assert found["distance"][0] < 3 and abs(found["points"][0][1] - 12) > 2
    steps = [event for event in events if event["what"] == "steps"]
    assert {"points", "distance"} <= steps[0].keys() and any("image" in event for event in steps)
    (after,), _ = explorer.frames("/api/images", items=[found["item"]])
    assert abs(decoded(found["image"]) - after).max() <= 1 and abs(after.astype(int) - before).mean() > 2
    again = explorer.events("/api/drag", job="d", item=found["item"], points=[[16, 7, 16, 10]], steps=5)[0]["result"]
    assert again["item"] != found["item"]


def test_a_mask_keeps_the_rest(explorer, sgan, monkeypatch):
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = 1
    drag = {"points": [[16, 12, 16, 7]], "steps": 40}
    free = explorer.events("/api/drag", job="m", item=1, **drag)[0]["result"]
    held = explorer.events("/api/drag", job="m", item=1, mask=base64.b64encode(mask).decode(), **drag)[0]["result"]
    (before,), _ = explorer.frames("/api/images", items=[1])
    change = [abs(decoded(x["image"]) - before)[16:, :, :3].mean() for x in (free, held)]
    assert change[1] < change[0]
    made = run_commands(sgan, explorer, monkeypatch, [held["command"]], "drag.png")
    assert abs(made - decoded(held["image"])).max() <= 2
    wrong = explorer.events("/api/drag", job="m", item=1, mask="AAAA", **drag)[0]
    assert "1024 bytes" in wrong["error"]
