"""`sgan equivariance` end to end: what a frame shows, numbers, refusals."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import stylegan_cli
from stylegan_cli.data.images import read_metadata, to_uint8
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan3 import network
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.snapshot import SnapshotInfo, save_snapshot

CELL = 128  # pixels of an image in a frame


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with random weights, and magnitudes as one batch sets them."""
    torch.manual_seed(0)
    fields = {"kernel": 1, "radial": True, "channel_base": 256, "channel_max": 16, "output_scale": 1.0}
    G = build_generator(StyleGAN3Config(16, 16, z_dim=8, w_dim=8, **fields)).requires_grad_(False)

    def settle(layer, args):
        layer.magnitude_ema.copy_(args[0].square().mean())

    layers = [m for m in G.modules() if isinstance(m, network.Layer)]
    hooks = [layer.register_forward_pre_hook(settle) for layer in layers]
    G(torch.randn(4, 8))
    for hook in hooks:
        hook.remove()
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_snapshot(path, G, None, SnapshotInfo(G.config, None))
    return path


def frames(path):
    with Image.open(path) as image:
        return np.stack([np.asarray(f.convert("RGB")).astype(int) for f in ImageSequence.Iterator(image)])


def cells(frame, rows=1):
    """The images of a frame, from its right end, bottom row last: [rows][columns]."""
    gap, columns = CELL // 32, []
    right = frame.shape[1] - 2 * gap
    for k in range(2 if frame.shape[1] < 4 * CELL else 4):
        x = right - (k + 1) * CELL - k * gap - (k // 2) * 3 * gap
        columns.insert(0, x)
    tops = [frame.shape[0] - gap - (rows - r) * (CELL + gap) for r in range(rows)]
    return [[frame[y : y + CELL : 8, x : x + CELL : 8] for x in columns] for y in tops]


def test_a_frame_shows_the_moved_image_and_the_motion_undone(sgan, model, tmp_path):
    line = ["--model", model, "--frames", "4", "--motion", "translate", "--seeds", "5", "--outdir", tmp_path]
    answer = json.loads(sgan("equivariance", *line, "--out", "a.webp", "--json", "-q").stdout)
    assert answer["frames"] == 4 and answer["files"] == [str(tmp_path / "a.webp")]
    shown = frames(tmp_path / "a.webp")
    G = stylegan_cli.load(model)
    ws = G.mapping(torch.from_numpy(np.random.RandomState(5).randn(1, 8)).float())
    angle = 2 * math.pi * 0.25 / 4
    x, y = math.sin(angle) / 8, math.sin(2 * angle) / 16
    transform = torch.tensor([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    ((moved, undone),) = cells(shown[0])
    expected = to_uint8(G.synthesis(ws, transform=transform))[0].permute(1, 2, 0).numpy().astype(int)
    still = to_uint8(G.synthesis(ws))[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(moved - expected).mean() < 4, "up to the compression of the video"
    inside = (slice(4, 11), slice(3, 10))
    assert 2 * np.abs(undone[inside] - still[inside]).mean() < np.abs(moved[inside] - still[inside]).mean()
    assert np.abs(undone[:, -1] - 245).max() < 6, "what comes from outside is empty"


def test_both_motions(sgan, model, tmp_path):
    result = sgan("equivariance", "--model", model, "--frames", "3", "--outdir", tmp_path)
    *values, file = result.stdout.splitlines()
    assert [value.split(":")[0] for value in values] == ["translate", "rotate"] and file.endswith("equivariance.gif")
    assert all(value.endswith(" dB") and float(value.split()[1]) > 20 for value in values)
    shown = frames(tmp_path / "equivariance.gif")
    assert len(shown) == 3 and shown.shape[2] > 4 * CELL and shown.shape[1] > 2 * CELL
    assert len({frame.tobytes() for frame in shown}) == 3
    record = read_metadata(tmp_path / "equivariance.gif")
    assert (record["motion"], record["frames"], record["seeds"]) == ("both", "3", "['0', '1']")


def test_session(model, tmp_path):
    """Numbers exist once frames do; batches of one give the same images."""
    with pytest.raises(TypeError):
        stylegan_cli.open(model).equivariance(motions="both")
    options = {"seeds": [1, 2], "motion": "rotate", "frames": 2}
    together = stylegan_cli.open(model).equivariance(**options)
    assert together.decibels == {} and together.names == ["1", "2"]
    one = stylegan_cli.open(model).equivariance(batch=1, **options)
    assert (together.images.int() - one.images.int()).abs().max() <= 1
    assert together.decibels["rotate"] == pytest.approx(one.decibels["rotate"], abs=0.1)


def test_refused(sgan, model, tiny_run, tmp_path):
    line = ["--outdir", tmp_path / "out", "-q"]
    result = sgan("equivariance", "--model", tiny_run, *line, code=1)
    assert "needs a model with an input transform, which this StyleGAN2 model does not have." in result.stderr
    sgan("equivariance", "--model", model, *line, "--frames", "1", code=2)
    sgan("equivariance", "--model", model, *line, "--out", "a.avi", code=2)
    sgan("equivariance", "--model", model, *line, "--seeds", "no.npz", code=1)
    assert not (tmp_path / "out").exists()
