"""The session API: requests, results, errors, and several sessions side by side."""

import dataclasses
import math
import reprlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stylegan_cli
from stylegan_cli.data.images import read_metadata, to_uint8
from stylegan_cli.errors import SganError
from stylegan_cli.interop import conversion
from stylegan_cli.ops import use
from stylegan_cli.ops.dispatch import current_implementation
from stylegan_cli.sampling.latents import latents_from_seeds
from stylegan_cli.session import GenerateRequest, MixRequest, Session
from stylegan_cli.session import model as session_model
from stylegan_cli.snapshot import fingerprint, load_snapshot

MODEL = Path(__file__).parent / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters


@pytest.fixture(scope="module")
def session():
    return stylegan_cli.open(MODEL)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Watch:
    """A progress callback that records its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, what, done, total):
        self.calls.append((what.partition(", ")[0], done, total))

    def assert_complete(self, *names):
        """Exactly these descriptions were reported, each up to its total."""
        assert {what for what, _, _ in self.calls} == set(names)
        for name in names:
            done = [d for what, d, _ in self.calls if what == name]
            assert max(done) == next(total for what, _, total in self.calls if what == name)


def by_hand(G, seeds, **options):
    return to_uint8(G.synthesis(G.mapping(latents_from_seeds(seeds, G.config.z_dim), None, **options), noise="const"))


def test_generate(session, tmp_path):
    watch = Watch()
    result = session.generate(seeds=[3, 5], trunc=0.7, progress=watch)
    assert not watch.calls, "images are generated on demand"
    assert torch.equal(result.images, by_hand(session.G, [3, 5], truncation_psi=0.7))
    assert result.images.shape == (2, 3, 32, 32) and result.ws.shape == (2, session.G.num_ws, 128)
    assert [p.name for p in result] == result.names == ["seed0003", "seed0005"] and len(result) == 2
    watch.assert_complete("images")
    assert result.metadata[1]["seed"] == "5" and result.metadata[1]["model"] == session.fingerprint
    assert "command" not in result.metadata[0]
    files = result.save(tmp_path, "png", latents=True, grid=True)
    assert [f.name for f in files] == ["seed0003.png", "seed0005.png", "w.npz", "grid.png"]
    assert len(watch.calls) == 2, "cached images are not generated again"
    assert np.array_equal(np.asarray(Image.open(files[0])).transpose(2, 0, 1), result.images[0].numpy())
    assert read_metadata(files[0]) == result.metadata[0]
    again = session.generate(GenerateRequest(from_w=str(files[2])))
    assert torch.equal(again.images, result.images) and again.names == ["w0000", "w0001"]
    with pytest.raises(SganError, match="already"):
        again.save(tmp_path, latents=True)


@pytest.fixture
def slow_first(monkeypatch):
    """Encoding the first image takes longer than encoding the others."""
    encode = session_model.encode_image

    def slow(image, format, metadata):
        time.sleep(0.2 if metadata.get("seed") == "0" else 0)
        return encode(image, format, metadata)

    monkeypatch.setattr(session_model, "encode_image", slow)
    monkeypatch.setattr(session_model, "available_cores", lambda: 4)


def test_saving_on_threads_keeps_the_order(session, tmp_path, slow_first):
    result = session.generate(seeds=range(40))
    files = result.save(tmp_path, latents=True, grid=True)
    assert [f.name for f in files] == [*(f"seed{i:04d}.png" for i in range(40)), "w.npz", "grid.png"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    for i in (0, 1, 39):
        assert np.array_equal(np.asarray(Image.open(files[i])).transpose(2, 0, 1), result.images[i].numpy())
        assert read_metadata(files[i])["seed"] == str(i)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SganError])
def test_an_interrupted_save_leaves_whole_files_without_gaps(session, tmp_path, slow_first, interrupt):
    """As a signal does, between the images."""
    outputs = list(session.generate(seeds=range(12)))

    def interrupted():
        yield from outputs[:7]
        raise interrupt("enough")

    with pytest.raises(interrupt):
        list(session_model.save_outputs(interrupted(), tmp_path))
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == [f"seed{i:04d}.png" for i in range(7)]
    for file in files:
        Image.open(file).load()


def test_an_image_that_cannot_be_written_ends_the_saving(session, tmp_path):
    (tmp_path / "seed0002.png").mkdir()
    with pytest.raises(SganError, match=r"Cannot write .*seed0002.png"):
        session.generate(seeds=range(200)).save(tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"seed0000.png", "seed0001.png", "seed0002.png"}


def test_an_unknown_format(session, tmp_path):
    with pytest.raises(SganError, match="'bmp' is not a supported image format"):
        session.generate(seeds=[1]).save(tmp_path, "bmp")
    assert not list(tmp_path.iterdir())


def test_generating_imports_no_compiler(tmp_path):
    """PyTorch's compiler takes longer to import than PyTorch."""
    code = (
        "import sys, torch, stylegan_cli\n"
        "from stylegan_cli.models.config import ImageConfig\n"
        "from stylegan_cli.models.registry import FAMILIES, build_generator\n"
        f"session = stylegan_cli.open({str(MODEL)!r})\n"
        f"session.generate(seeds=[1]).save({str(tmp_path)!r})\n"
        "with torch.device('meta'):\n"
        "    for family in FAMILIES.values():\n"
        "        build_generator(family.config(32, 32))\n"
        "found = {'torch._dynamo', 'torch._inductor', 'sympy'} & sys.modules.keys()\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_request_or_its_fields(session):
    request = MixRequest(rows=[1], cols=[2], styles="fine", trunc=0.5)
    one, other = session.mix(request), session.mix(rows=[1], cols=[2], styles="fine", trunc=0.5)
    assert torch.equal(one.images, other.images)
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.trunc = 1.0
    with pytest.raises(TypeError, match="sedes"):
        session.generate(sedes=[1])


INVALID = {
    "generate": [
        ("seeds", [], "[0, 1, 2]"),
        ("seeds", 3, "[0, 1, 2]"),
        ("seeds", "0-3", "[0, 1, 2]"),
        ("seeds", ["a"], "an integer from 0"),
        ("seeds", [1.5], "an integer from 0"),
        ("seeds", [-1], "an integer from 0"),
        ("seeds", [0, 2**32], "to 4294967295"),
        ("seeds", range(-1, 3), "an integer from 0"),
        ("seeds", [True], "an integer from 0"),
        ("trunc", math.nan, "a number"),
        ("trunc", math.inf, "a number"),
        ("trunc", "0.7", "a number"),
        ("trunc", None, "a number"),
        ("trunc", 10**400, "a number"),
        ("from_w", 3, "a file name"),
        ("trunc_cutoff", -1, "0 or more"),
        ("class_index", 1.5, "an integer"),
        ("noise_mode", "loud", "const, random, none"),
        ("batch", 0, "1 or more"),
        ("precision", "x", "auto, fp32, bf32, bf16, fp16"),
    ],
    "mix": [
        ("rows", [], "projected.npz"),
        ("cols", [None], "an integer from 0"),
        ("styles", "foo", "coarse, middle, fine"),
        ("styles", ["1"], "an integer"),
        ("styles", [], "[0, 1, 2]"),
        ("blend", 7, "from 0 to 1"),
        ("blend", math.nan, "from 0 to 1"),
    ],
    "interpolate": [
        ("seeds", [], "projected.npz"),
        ("kind", "zigzag", "spline, linear, slerp, trunc, mix"),
        ("frames", 0, "1 or more"),
        ("fps", 0, "from 1 to 120"),
        ("loop", "no", "True or False"),
        ("grid", (2,), "(2, 3)"),
        ("grid", (3, 0), "1 or more"),
        ("sweep", (0, math.inf), "a number"),
    ],
    "noise_study": [("seeds", "1", "projected.npz"), ("draws", 1, "2 or more")],
    "find_directions": [
        ("method", "ica", "pca, sefa"),
        ("attributes", "hat", "['hat', "),
        ("count", 0, "1 or more"),
        ("num", 1, "2 or more"),
        ("layers", "foo", "coarse, middle, fine"),
    ],
    "show_directions": [
        ("direction", 1, "a string"),
        ("strengths", [math.nan], "a number"),
        ("strengths", [], "[-2, 0, 2]"),
        ("directions", 3, "a file name"),
    ],
    "edit": [
        ("direction", "12", "['0', "),
        ("direction", [0], "a string"),
        ("strength", 2.0, "[1.5]"),
        ("seeds", [], "npz"),
    ],
    "project": [
        ("images", (), "['face.png']"),
        ("images", "face.png", "['face.png']"),
        ("space", "x", "w, w+, z"),
        ("steps", 0, "1 or more"),
        ("candidates", -1, "0 or more"),
        ("noise", "random", "optimize, const"),
        ("lr", math.nan, "a number"),
        ("loss", "l2", "lpips, discriminator, efficientnet, pixel"),
        ("crop", "left", "center, pad, none"),
        ("init", 3, "a file name"),
        ("mask", [1], "a file name"),
    ],
    "attribute": [("images", "face.png", "['face.png']"), ("num", 0, "1 or more"), ("loss", "l2", "pixel")],
}


@pytest.mark.parametrize(
    ("method", "field", "value", "hint"), [(method, *row) for method, rows in INVALID.items() for row in rows]
)
def test_invalid_values(session, method, field, value, hint):
    """The message has the value, the hint says what is valid."""
    fields = {"images": ["face.png"], field: value} if method == "project" else {field: value}
    with pytest.raises(SganError, match="cannot be") as error:
        getattr(session, method)(**fields)
    message = str(error.value)
    item = value[-1] if isinstance(value, (list, tuple)) and value and repr(value) not in message else value
    assert field in message and (reprlib.repr(item) in message or isinstance(value, range))
    assert hint in error.value.hint


def test_valid_values(session):
    """NumPy numbers, None where it is the default, limits."""
    assert len(session.generate(seeds=tuple(np.arange(2)), trunc=np.float32(0.5), trunc_cutoff=0, batch=None)) == 2
    assert session.generate(seeds=[2**32 - 1], trunc=-1).images.shape[0] == 1
    request = MixRequest(rows=np.arange(2), cols=(np.int64(3), 4), trunc=np.float32(0.5), trunc_cutoff=np.int64(2))
    assert request == MixRequest(rows=[0, 1], cols=(3, 4), trunc=0.5, trunc_cutoff=2)
    assert type(request.rows[1]) is type(request.trunc_cutoff) is int and type(request.trunc) is float
    assert GenerateRequest(seeds=range(10**6)).seeds == range(10**6)
    assert session.mix(rows=[1], cols=(2,), styles=[0], blend=0).styles == [0]


def test_request_together_with_fields(session):
    for request, fields in ((GenerateRequest(), {"seeds": [1]}), ([1, 2], {})):
        with pytest.raises(TypeError, match="generate takes a GenerateRequest, or the fields"):
            session.generate(request, **fields)


def test_mix(session, tmp_path):
    watch = Watch()
    result = session.mix(rows=[1, 2], cols=[3], styles=range(session.G.num_ws), progress=watch)
    watch.assert_complete("images")
    assert torch.equal(result.images, result.col_images.expand(2, -1, -1, -1)), "all styles come from the column"
    assert torch.equal(result.row_images, by_hand(session.G, [1, 2]))
    assert [p.name for p in result.outputs] == ["mix0001-0003", "mix0002-0003"]
    assert [f.name for f in result.save(tmp_path, "webp")][-1] == "mix.webp"
    assert session.mix(rows=[1], cols=[2]).styles == [0, 1, 2] and result.notes == result.warnings == []


def test_interpolate(session, tmp_path):
    watch = Watch()
    video = session.interpolate(seeds=[1, 2], kind="linear", frames=2, loop=False, progress=watch)
    assert video.count == 3 and video.keys == [["1", "2"]]
    assert video.images.shape[0] == 3 and torch.equal(video.images[0, :, ::4, ::4], by_hand(session.G, [1])[0])
    watch.assert_complete("images")
    assert Image.open(video.save(tmp_path / "video.gif")).n_frames == 3
    with pytest.raises(SganError, match="One keyframe"):
        session.interpolate(seeds=[1])


def test_noise_study(session, tiny_run, tmp_path):
    watch = Watch()
    result = session.noise_study(seeds=[4], draws=3, progress=watch)
    watch.assert_complete("images")
    assert len(result.outputs) == 7 and result.std.shape == (1, 32, 32)
    assert result.means == {"4": pytest.approx(result.std.mean().item())} and result.white == result.std.max()
    assert torch.equal(result.outputs[0].image, by_hand(session.G, [4])[0])
    with torch.no_grad():
        quiet = stylegan_cli.open(MODEL)
        for row in quiet.G.layers:
            if row.noise:
                quiet.G.get_submodule(row.name).noise_strength.fill_(0.0)
    assert "has no effect" in quiet.noise_study(seeds=[4], draws=2).warnings[0]


def test_directions(session, tmp_path):
    directions = session.find_directions(num=60, count=2)
    assert directions.names == ["pca0", "pca1"] and directions.model == session.fingerprint
    watch = Watch()
    shown = session.show_directions(
        directions=directions, direction="1", strengths=[-1, 0, 1], seeds=[2], progress=watch
    )
    watch.assert_complete("images")
    assert [p.name for p in shown.outputs] == ["strip01-pca1"] and shown.sheet is None
    edited = session.edit(directions=directions, direction=["0", "pca1"], strength=[1.5], seeds=[2, 3])
    moved = directions.move(directions.move(edited.sources.ws, 0, 1.5), 1, 1.5)
    assert torch.equal(edited.ws, moved)
    files = edited.save(tmp_path)
    assert [f.name for f in files] == ["edit0002.png", "edit0003.png", "edited.npz", "edit.png"]
    again = session.generate(from_w=str(files[2]))
    assert torch.equal(again.images, edited.images)
    again = session.edit(directions=directions, seeds=[str(files[2])])
    with pytest.raises(SganError, match="would be overwritten"):
        again.save(tmp_path)
    for options in ({"from_labels": True, "method": "pca"}, {"csv": "x.csv", "count": 2}):
        with pytest.raises(SganError):
            session.find_directions(**options)


def test_a_projection_can_be_watched(session, tmp_path):
    """The best latents so far after each step: they get no worse, and the last are the result's."""
    session.generate(seeds=[7]).save(tmp_path)
    seen, target = [], torch.from_numpy(np.asarray(Image.open(tmp_path / "seed0007.png")).copy()).permute(2, 0, 1)
    request = {"images": [tmp_path / "seed0007.png"], "loss": "pixel", "steps": 6, "candidates": 3}
    result = session.project(watch=seen.append, **request)
    assert len(seen) == 6 and torch.equal(result.ws, session.project(**request).ws)
    with torch.no_grad():
        distance = [(session.G.synthesis(ws) * 127.5 + 127.5 - target).square().mean().item() for ws in seen]
    assert distance == sorted(distance, reverse=True) and distance[-1] < distance[0]


def test_project_and_tune(session, tmp_path):
    session.generate(seeds=[7]).save(tmp_path)
    watch = Watch()
    task = session.prepare_projection(images=[tmp_path / "seed0007.png"], loss="pixel", steps=4, candidates=6)
    assert [f.name for f in task.files(tmp_path)] == ["projected.npz", "proj.png", "compare.png"]
    result = session.project(task, watch)
    watch.assert_complete("steps", "candidates")
    assert result.names == ["seed0007"] and not result.interrupted and not result.missing
    assert result.distance[0] > 0 and result.psnr[0] > 5 and result.images.shape == (1, 3, 32, 32)
    assert torch.equal(session.project(task).ws, result.ws)
    files = result.save(tmp_path / "out")
    assert [f.name for f in files] == ["projected.npz", "proj.png", "compare.png"]
    watch = Watch()
    tuned = session.tune(result, 3, watch)
    watch.assert_complete("tuning")
    further = session.tune(tuned, 2)
    assert further.finding.tuned_steps == 5 and further.distance[0] < tuned.distance[0]
    with pytest.raises(SganError, match="steps cannot be 0"):
        session.tune(tuned, 0)
    assert tuned.distance[0] < result.distance[0] and not torch.equal(tuned.images, result.images)
    assert tuned.save(tmp_path / "out")[0].name.startswith("tuned-")
    again = session.generate(from_w=str(tmp_path / "out" / "projected.npz"))
    assert "tuned weights" in again.notes[0] and (again.images.int() - tuned.images.int()).abs().max() <= 2


def test_missing_lpips_weights_are_reported(session, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("SGAN_DETECTORS", raising=False)
    session.generate(seeds=[7]).save(tmp_path)
    result = session.project(images=[tmp_path / "seed0007.png"], steps=1, candidates=0)
    assert result.task.loss.name == "discriminator" and "LPIPS is not available" in result.warnings[0]


def test_attribute(session, cache, tmp_path):
    session.generate(seeds=[7]).save(tmp_path)
    request = {"images": [tmp_path / "seed0007.png"], "loss": "pixel", "steps": 2, "num": 8, "candidates": 2}
    assert session.prepare_attribution(**request).calibration is None
    watch = Watch()
    result = session.attribute(**request, progress=watch)
    watch.assert_complete("images projected", "steps", "candidates")
    assert len(result.calibration.generated) == len(result.calibration.real) == 8
    (attribution,) = result.attributions
    assert attribution.name == "seed0007" and attribution.log_ratio == result.calibration.log_ratio(
        attribution.distance
    )
    assert session.prepare_attribution(**request).calibration == result.calibration, "it is cached"
    assert [f.name for f in result.save(tmp_path)] == ["attribute-compare.png", "attribute.png"]


def test_calibration_without_cache(session, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    """The distances are kept in a private folder among the temporary files, where they are found again; if there is
    none, they are measured again."""
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "file"))
    (tmp_path / "temporary").mkdir()
    request = {"loss": "pixel", "steps": 1, "num": 8, "candidates": 0}
    for folder, words in (("temporary", "are cached in"), ("file", "cannot be cached")):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / folder))
        result = session.attribute(**request)
        assert len(result.calibration.real) == 8
        (warning,) = result.warnings
        assert words in warning and str(tmp_path / "file") in warning
        cached = session.prepare_attribution(**request, calibrate=False).calibration
        assert cached == (result.calibration if folder == "temporary" else None)


def test_metrics(class_run):
    results = stylegan_cli.open(class_run).metrics("fid", num=16, features="efficientnet-lite0")
    ((name, value),) = results.values.items()
    assert name.startswith("fid") and value > 0 and results.num_images[name] == (32, 16)


def test_two_sessions(session, class_run):
    other = stylegan_cli.open(class_run)
    images, others = iter(session.generate(seeds=[1, 2], batch=1)), iter(other.generate(seeds=[1, 2], batch=1))
    a, b, c, d = next(images), next(others), next(images), next(others)
    assert torch.equal(torch.stack([a.image, c.image]), by_hand(session.G, [1, 2]))
    assert b.image.shape == d.image.shape == (3, 16, 16) and b.metadata["model"] == other.fingerprint
    assert a.metadata["model"] == session.fingerprint != other.fingerprint and "class" in b.metadata


def test_files_of_another_model_are_refused(session, class_run, tmp_path):
    """Latents, directions and tuned weights give the same message."""
    from stylegan_cli.inversion.directions import save_directions
    from stylegan_cli.sampling.tuned import apply_tuned, save_tuned

    other = stylegan_cli.open(class_run)
    other.generate(seeds=[1]).save(tmp_path, latents=True)
    save_directions(tmp_path / "d.npz", other.find_directions(num=20, count=1))
    path = save_tuned(tmp_path, other.G, other.G)
    for call in (
        lambda: session.generate(from_w=str(tmp_path / "w.npz")),
        lambda: session.edit(directions=tmp_path / "d.npz"),
        lambda: apply_tuned(session.G, path, session.fingerprint),
    ):
        with pytest.raises(SganError, match=f"fingerprint {other.fingerprint}, not to this one, {session.fingerprint}"):
            call()


def test_fingerprint_is_cached(cache, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(MODEL.read_bytes())
    hashed, real = [], session_model.fingerprint
    monkeypatch.setattr(session_model, "fingerprint", lambda G: hashed.append(1) or real(G))
    expected = Session(path).fingerprint
    assert expected == fingerprint(load_snapshot(MODEL).G) and len(hashed) == 1
    assert Session(path).fingerprint == expected and len(hashed) == 1, "the file is unchanged"
    (entry,) = (cache / "fingerprints").iterdir()
    entry.write_text("damaged")
    assert Session(path).fingerprint == expected and len(hashed) == 2
    session = Session(path)
    path.write_bytes(path.read_bytes())
    assert session.fingerprint == expected and len(hashed) == 3, "replaced since it was opened"
    assert Session(path).fingerprint == expected and len(hashed) == 4, "it may be another file"


def test_unwritable_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "file"))
    assert len(Session(MODEL).fingerprint) == 16


def test_fingerprint_follows_the_weights(cache, tmp_path):
    session = Session(MODEL)
    of_file = session.fingerprint
    session.generate(seeds=[1]).save(tmp_path)
    assert session.fingerprint == of_file, "generating does not change it"
    weight = session.G.get_submodule(session.G.layers[0].name).weight
    for change in (
        lambda: weight.detach().mul_(2),
        lambda: setattr(weight, "data", weight.data * 2),
        lambda: session.G.mapping.w_avg.zero_(),
    ):
        before = session.fingerprint
        change()
        assert before != session.fingerprint == fingerprint(session.G)
    assert session.generate(seeds=[1]).metadata[0]["model"] == fingerprint(session.G)
    assert Session(MODEL).fingerprint == of_file, "the cache has the fingerprint of the file"
    session.generate(seeds=[1]).save(tmp_path, latents=True)
    with pytest.raises(SganError, match=of_file):
        stylegan_cli.open(MODEL).generate(from_w=tmp_path / "w.npz")


@pytest.mark.parametrize("opened", [stylegan_cli.open, stylegan_cli.load])
def test_open_url(cache, tmp_path, monkeypatch, opened):
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    with pytest.raises(SganError, match="downloaded from https://example.org/x.pkl, but SGAN_OFFLINE is set"):
        opened("https://example.org/x.pkl")
    monkeypatch.setattr(conversion, "fetch", lambda url, sha256, name: MODEL)
    assert opened("https://example.org/x.pkl") is not None


@pytest.mark.parametrize(
    ("kernels", "variable", "message"),
    [
        ("bogus", None, "kernels must be 'auto', .* not 'bogus'"),
        ("", None, "kernels must be"),
        ("cuda", None, "need a GPU, but the device is cpu"),
        ("fused", None, "need a GPU"),
        (None, "bogus", "SGAN_KERNELS must be"),
        (None, "cuda", "need a GPU"),
    ],
)
def test_kernels_are_checked_when_opening(monkeypatch, kernels, variable, message):
    if variable is not None:
        monkeypatch.setenv("SGAN_KERNELS", variable)
    with pytest.raises(SganError, match=message):
        stylegan_cli.open(MODEL, kernels=kernels)


def test_empty_environment_variable(monkeypatch):
    monkeypatch.setenv("SGAN_KERNELS", "")
    assert current_implementation() == "auto" and len(stylegan_cli.open(MODEL).generate(seeds=[1]).images) == 1


def test_open_missing_file(tmp_path):
    with pytest.raises(SganError, match="does not exist"):
        stylegan_cli.open(tmp_path / "missing.safetensors")


def test_package_does_not_import_torch():
    code = "import sys, stylegan_cli; stylegan_cli.open, stylegan_cli.load; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_session_uses_its_kernels():
    """Also while two sessions generate in turn; the choice of the calling code is kept."""
    one, other = (stylegan_cli.open(MODEL, kernels=kernels) for kernels in ("reference", "composite"))
    seen = []
    for session in (one, other):
        session.G.get_submodule(session.G.layers[0].name).register_forward_pre_hook(
            lambda *_: seen.append(current_implementation())
        )
    with use("auto"):
        a, b = (iter(session.generate(seeds=[1, 2], batch=1)) for session in (one, other))
        for images in (a, b, a, b):
            next(images)
            assert current_implementation() == "auto"
        assert seen == ["reference", "composite"] * 2
    one.mix(rows=[1], cols=[2])
    assert seen[-1] == "reference"


def test_images_of_different_channels_are_stacked_as_rgb(session):
    images = session.noise_study(seeds=[1], draws=2).images
    assert images.shape[1:] == (3, 32, 32)


def test_request_of_another_method(session):
    with pytest.raises(TypeError, match="generate takes a GenerateRequest"):
        session.generate(MixRequest(rows=[1], cols=[2]))


def test_files_may_be_paths(session, tmp_path):
    session.generate(seeds=[1]).save(tmp_path, latents=True)
    mixed = session.mix(rows=[tmp_path / "w.npz"], cols=[2], styles="coarse")
    assert mixed.images.shape == session.mix(rows=[1], cols=[2], styles="coarse").images.shape


@pytest.mark.parametrize("seeds", [np.array(3), range(2**70)], ids=["no dimensions", "too long"])
def test_invalid_lists(session, seeds):
    with pytest.raises(SganError, match="seeds cannot be"):
        session.generate(seeds=seeds)
