"""Encoders in memory and in files: loaded as saved, and any other file is refused in one sentence."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from stylegan_cli.config import to_json
from stylegan_cli.data.dataset import DataSpec
from stylegan_cli.errors import SganError
from stylegan_cli.layers import to_memory_format
from stylegan_cli.models.dcgan.config import DCGANConfig
from stylegan_cli.models.encoders.passes import encode, encode_in_passes
from stylegan_cli.models.encoders.pyramid import PyramidEncoder, encoder_config
from stylegan_cli.models.encoders.skips import SkipSynthesis
from stylegan_cli.models.registry import build_generator
from stylegan_cli.runs import PACKAGED_MODEL
from stylegan_cli.sampling import encoders
from stylegan_cli.sampling.bound_files import Owner, owned_by
from stylegan_cli.sampling.encoders import (
    ENCODER_FILE,
    RUN_ENCODER,
    EncoderInfo,
    find_encoder,
    how_to_make,
    load_encoder,
    save_encoder,
)
from stylegan_cli.snapshot import ENCODER_FORMAT, SnapshotInfo, load_snapshot, save_snapshot

TINY = {"channel_base": 64, "channel_max": 8, "pyramid_channels": 6, "reduced_channels": 4}
MODEL = "0123456789abcdef"
SPEC = DataSpec("a.zip", "abc", 40, 16, 16, 3, 16, 16)


@pytest.fixture(scope="module")
def G(small_model):
    return small_model()


def make_network(G, **options):
    torch.manual_seed(1)
    network = to_memory_format(PyramidEncoder(encoder_config(G.config, G.layers, **TINY | options)))
    network.requires_grad_(False)
    for head in network.heads:
        head.weight.normal_()
    return network


@pytest.fixture(scope="module")
def network(G):
    return make_network(G)


@pytest.fixture
def saved(network, tmp_path):
    info = EncoderInfo(network.config, MODEL, data=SPEC, kimg=1.5, held_out={"psnr": 20.0})
    save_encoder(tmp_path / "a.safetensors", network, info)
    return tmp_path / "a.safetensors"


def test_round_trip(G, network, saved):
    encoder = load_encoder(saved, G, MODEL)
    state, expected = encoder.network.state_dict(), network.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)
    assert encoder.info == ENCODER_FILE.read_info(saved) and encoder.network.passes == 1 and encoder.path == saved
    assert (encoder.info.data, encoder.info.kimg, encoder.info.held_out) == (SPEC, 1.5, {"psnr": 20.0})
    assert not encoder.network.training and not any(p.requires_grad for p in encoder.network.parameters())
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(encoder.network(x), network(x))


def test_half_precision(G, network, saved, tmp_path):
    """The file is half as large; the network computes in float32 with rounded weights."""
    half = tmp_path / "half.safetensors"
    save_encoder(half, network, ENCODER_FILE.read_info(saved), torch.float16)
    assert half.stat().st_size < 0.7 * saved.stat().st_size
    state = load_encoder(half, G, MODEL).network.state_dict()
    assert all(t.dtype == torch.float32 for t in state.values())
    assert all(torch.equal(state[name], t.half().float()) for name, t in network.state_dict().items())
    x = torch.randn(2, 3, 16, 16)
    assert (load_encoder(half, G, MODEL).network(x) - network(x)).abs().max() < 0.02


def test_passes(G):
    """From the second on, each sees the image of the latents so far, and adds to them."""
    network = make_network(G, passes=3)
    network.latent_avg.normal_()
    x = torch.randn(2, 3, 16, 16)
    synthesized = []
    results = encode_in_passes(network, x, lambda ws: synthesized.append(ws) or G.synthesis(ws), 3)
    assert torch.equal(synthesized[0], network.latent_avg[None])
    assert torch.equal(synthesized[1], results[0]) and torch.equal(synthesized[2], results[1])
    expected = results[1] + network(torch.cat([x, G.synthesis(results[1])], 1))
    assert torch.allclose(results[2], expected, atol=1e-5)
    assert torch.allclose(encode(network, G, x), results[2], atol=1e-4)
    trained = make_network(G, passes=3).requires_grad_(True)
    first, _, last = encode_in_passes(trained, x, G.synthesis, 3)
    assert first.requires_grad and last.requires_grad


# ---------------------------------------------------------------------------------------- invalid files


def message(path, G, model=MODEL):
    with pytest.raises(SganError) as e:
        load_encoder(path, G, model)
    assert str(path) in str(e.value) and "\n" not in str(e.value) and len(str(e.value)) < 600
    return str(e.value)


def rewrite(path, info, tensors=None):
    tensors = safetensors.torch.load_file(path) if tensors is None else tensors
    header = {"format": ENCODER_FORMAT, "info": info if isinstance(info, str) else json.dumps(info)}
    safetensors.torch.save_file(tensors, path, header)
    return path


def test_another_model(G, saved):
    assert re.search(f"fingerprint {MODEL}, not to this one, other", message(saved, G, "other"))
    with owned_by(owner := Owner(any_model=True)):
        load_encoder(saved, G, "other")
    assert "belongs to another model" in owner.notes[str(saved)]


def test_a_model_of_another_shape(G, small_model, saved, tmp_path):
    with owned_by(Owner(any_model=True)):
        assert "does not fit this model" in message(saved, small_model(channels=1), "other")
        info = to_json(ENCODER_FILE.read_info(saved))
        rewrite(saved, info | {"encoder": info["encoder"] | {"w_dim": 4}})
        assert "does not fit this model" in message(saved, G, "other")
    other = make_network(G, inputs=4)
    save_encoder(saved, other, EncoderInfo(other.config, MODEL))
    assert "does not fit this model" in message(saved, G)
    save_encoder(saved, other, EncoderInfo(other.config, MODEL, task="inpaint"))
    load_encoder(saved, G, MODEL)


def test_a_missing_file(G, tmp_path):
    assert "does not exist" in message(tmp_path / "none.safetensors", G)


@pytest.mark.parametrize("keep", [0, 4, 8, 200, 0.5, 0.999])
def test_a_cut_file(G, saved, keep):
    data = saved.read_bytes()
    saved.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    assert "damaged" in message(saved, G)
    with pytest.raises(SganError):
        ENCODER_FILE.read_info(saved)


def test_files_of_other_kinds(G, tmp_path):
    assert "not an encoder" in message(PACKAGED_MODEL, G)
    (tmp_path / "a.pt").write_bytes(b"\x80\x04}q\x00.")
    assert "not an encoder" in message(tmp_path / "a.pt", G)
    safetensors.torch.save_file({"w": torch.zeros(2)}, tmp_path / "b.safetensors")
    assert "not an encoder" in message(tmp_path / "b.safetensors", G)


def test_an_encoder_is_not_a_model(saved):
    with pytest.raises(SganError, match="is an encoder"):
        load_snapshot(saved)


def test_invalid_headers(G, saved):
    info = json.loads(json.dumps(to_json(ENCODER_FILE.read_info(saved))))
    network = info["encoder"]
    fields = [{"height": 31}, {"height": "x"}, {"levels": []}, {"levels": [0] * 10_000}, {"levels": [99] * G.num_ws}]
    fields += [{"space": "z"}, {"passes": 10**9}, {"channel_max": -1}, {"channel_base": 10**12}, {"inputs": 0}]
    fields += [{"inputs": 1000}, {"w_dim": 10**9}, {"pyramid_channels": 65536}, {"from the future": 1}]
    bad = ["{", "[]", "7", "[" * 100_000, {}, {"encoder": 3}, info | {"model": 7}, info | {"held_out": [1]}]
    bad += [info | {"held_out": {"psnr": "x"}}, info | {"held_out": {"psnr": None}}]
    bad += [info | {"owner": "x"}, info | {"task": 3}, {k: v for k, v in info.items() if k != "encoder"}]
    bad += [info | {"encoder": network | change} for change in fields]
    for content in bad:
        message(rewrite(saved, content), G)


def test_weights_that_do_not_match(G, network, saved):
    info, weights = to_json(ENCODER_FILE.read_info(saved)), safetensors.torch.load_file(saved)
    name = "E.common.weight"
    missing = {k: v for k, v in weights.items() if k != name}
    for tensors in (missing, weights | {name: torch.zeros(3)}, weights | {"E.extra": torch.zeros(1)}):
        assert "does not match its own configuration" in message(rewrite(saved, info, tensors), G)
    for value in (torch.nan, torch.inf):
        tensors = {k: v.clone() for k, v in weights.items()}
        tensors[name][0, 0] = value
        assert "not finite" in message(rewrite(saved, info, tensors), G)


@pytest.fixture
def with_skips(G, network, tmp_path):
    """A file with skips of which one layer was fine-tuned."""
    skips = SkipSynthesis(network.config, G.synthesis).requires_grad_(False)
    for conv in skips.convs:
        conv.weight.normal_()
    skips.synthesis.b8.conv1.weight.mul_(1.1)
    info = EncoderInfo(network.config, MODEL, task="restore", skips=True)
    save_encoder(tmp_path / "s.safetensors", network, info, skips=skips.differences(G.synthesis))
    return tmp_path / "s.safetensors", skips


def test_round_trip_with_skips(G, with_skips, saved):
    path, skips = with_skips
    names = {name for name in safetensors.torch.load_file(path) if name.startswith("skips.")}
    convs = {f"skips.convs.{k}.{kind}" for k in range(len(skips.convs)) for kind in ("weight", "bias")}
    assert names == convs | {"skips.synthesis.b8.conv1.weight"}
    before = {name: t.clone() for name, t in G.synthesis.state_dict().items()}
    found, x, features = load_encoder(path, G, MODEL), torch.randn(2, 3, 16, 16), []
    ws = encode(found.network, G, x, skips=found.skips, features=features)
    assert torch.equal(found.skips(ws, features[0]), skips(ws, features[0]))
    assert not any(p.requires_grad for p in found.skips.parameters()) and not found.skips.training
    found.skips.synthesis.b8.conv1.weight.zero_()
    assert all(torch.equal(t, before[name]) for name, t in G.synthesis.state_dict().items())
    assert load_encoder(saved, G, MODEL).skips is None


def test_skips_that_do_not_match(G, with_skips):
    path, _ = with_skips
    info, weights = to_json(ENCODER_FILE.read_info(path)), safetensors.torch.load_file(path)
    changes = [{"skips.convs.0.weight": torch.zeros(3)}, {"skips.convs.9.weight": torch.zeros(1)}]
    changes += [{"skips.synthesis.b8.conv1.weight": torch.zeros(2, 2)}, {"skips.synthesis.extra": torch.zeros(1)}]
    missing = {k: v for k, v in weights.items() if k != "skips.convs.1.bias"}
    for tensors in (missing, *(weights | change for change in changes)):
        assert "does not match its own configuration: skips." in message(rewrite(path, info, tensors), G)
    broken = weights | {"skips.convs.0.bias": torch.full_like(weights["skips.convs.0.bias"], torch.nan)}
    assert "not finite" in message(rewrite(path, info, broken), G)
    message(rewrite(path, info | {"skips": "x"}, weights), G)


# --------------------------------------------------------------------------------------- finding them


@pytest.fixture
def runs(tmp_path, saved):
    """Three runs of encoders, of which the newest is of another model, and one without a snapshot."""
    for number, model, has_file in ((0, MODEL, True), (1, MODEL, True), (2, "other", True), (3, MODEL, False)):
        folder = tmp_path / "runs" / f"0000{number}-a-encoder"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"recipe": "encoder", "fingerprint": model, "task": "invert"}))
        if has_file:
            for kimg in (1, 20):
                (folder / f"snapshot-{kimg:06d}.safetensors").write_bytes(saved.read_bytes())
    return tmp_path / "runs"


def test_the_newest_of_the_model(runs, tmp_path):
    assert find_encoder(None, runs, MODEL) == runs / "00001-a-encoder" / "snapshot-000020.safetensors"
    assert find_encoder(None, runs, "other").parent.name == "00002-a-encoder"
    for runs_folder, model, task in (
        (runs, "third", "invert"),
        (runs, MODEL, "sketch"),
        (tmp_path / "no", "x", "invert"),
    ):
        with pytest.raises(SganError, match="has an encoder for this model") as e:
            find_encoder(None, runs_folder, model, task, hint="Make one")
        assert e.value.hint == "Make one"


def test_the_one_beside_the_model(runs, saved, tmp_path):
    """In a folder outside `runs`, where an encoder that was fitted to the model goes before it."""
    folder = tmp_path / "elsewhere" / "00000-a-dcgan"
    folder.mkdir(parents=True)
    own = saved.rename(folder / RUN_ENCODER)
    file = folder / "snapshot-000001.safetensors"
    assert find_encoder(None, tmp_path / "no", MODEL, file=file) == own
    assert find_encoder(None, runs, MODEL, file=file).parent.name == "00001-a-encoder"
    for model, task, advice in (("later", "invert", f"--encoder {own}"), (MODEL, "sketch", "Make one")):
        with pytest.raises(SganError, match="has an encoder for this model") as e:
            find_encoder(None, runs, model, task, file, "Make one")
        assert advice in e.value.hint


def test_how_to_make_one(small_model):
    file = Path("a run") / "m.safetensors"
    assert how_to_make(small_model(), file) == "Make one: sgan encoder fit --model 'a run/m.safetensors'"
    assert "sgan translate fit --task sketch --model" in how_to_make(small_model(), file, "sketch")
    of_one_latent = build_generator(DCGANConfig(16, 16, channel_base=64, channel_max=8))
    assert how_to_make(of_one_latent, file).endswith("sgan train --recipe bigan")
    assert how_to_make(of_one_latent, file, None).endswith("sgan train")


def test_a_file_or_a_folder(runs, saved):
    assert find_encoder(saved, runs, "any") == saved
    assert find_encoder(str(runs / "00000-a-encoder"), runs, "any").name == "snapshot-000020.safetensors"
    with pytest.raises(SganError, match="no snapshot of an encoder"):
        find_encoder(runs / "00003-a-encoder", runs, "any")


def test_the_bundled_one(runs, network, tmp_path, monkeypatch):
    bundled = tmp_path / "bundled.safetensors"
    monkeypatch.setattr(encoders, "BUNDLED_ENCODER", bundled)
    with pytest.raises(SganError):
        find_encoder(None, runs, "bundled")
    save_encoder(bundled, network, EncoderInfo(network.config, "bundled"))
    assert find_encoder(None, runs, "bundled") == bundled
    with pytest.raises(SganError):
        find_encoder(None, runs, "bundled", "sketch")


def test_a_failed_save_keeps_the_old_file(network, saved, monkeypatch):
    before = saved.read_bytes()

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(SganError, match="No space left"):
        save_encoder(saved, network, dataclasses.replace(ENCODER_FILE.read_info(saved), kimg=2.0))
    monkeypatch.undo()
    assert saved.read_bytes() == before and [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_of_a_model_in_a_file(G, network, tmp_path):
    """The fingerprint binds the two files."""
    save_snapshot(tmp_path / "g.safetensors", G, None, SnapshotInfo(G.config))
    model = load_snapshot(tmp_path / "g.safetensors")
    save_encoder(tmp_path / "e.safetensors", network, EncoderInfo(network.config, model.fingerprint))
    assert load_encoder(tmp_path / "e.safetensors", model.G, model.fingerprint).info.model == model.fingerprint
