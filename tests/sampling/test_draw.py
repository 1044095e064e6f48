"""Drawing in batches, the record in a picture, latents in a file."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_cli.config import GeneratorConfig
from stylegan_cli.errors import SganError
from stylegan_cli.models import build_generator
from stylegan_cli.sampling.draw import Sampling, draw, load_latents, map_seeds, picture_record, save_latents
from stylegan_cli.snapshot import Snapshot, SnapshotInfo, fingerprint


@pytest.fixture(scope="module")
def G():
    torch.manual_seed(0)
    config = GeneratorConfig(16, 16, c_dim=3, z_dim=8, w_dim=8, channel_base=64, channel_max=8, mapping_layers=2)
    G = build_generator(config).eval().requires_grad_(False)
    G.mapping.w_avg.normal_()
    for row in G.layers:
        if row.noise:
            G.get_submodule(row.name).noise_strength.fill_(0.3)
    return G


def test_seeds_become_latents(G):
    ws = map_seeds(G, [5, 6], Sampling(trunc=0.5, trunc_cutoff=2, class_index=1))
    z = torch.from_numpy(np.stack([np.random.RandomState(s).randn(8) for s in (5, 6)])).float()
    c = torch.tensor([[0.0, 1, 0]] * 2)
    assert torch.equal(ws, G.mapping(z, c, 0.5, 2))


@pytest.mark.parametrize("noise_mode", ["const", "random", "none"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_batch_does_not_change_the_pictures(G, noise_mode, precision):
    seeds = [3, 1, 4, 15, 9]
    how = Sampling(noise_mode=noise_mode, precision=precision)
    ws = map_seeds(G, seeds, how)
    whole = torch.stack(list(draw(G, lambda i, j: ws[i:j], seeds, how, quiet=True)))
    assert whole.dtype == torch.uint8 and whole.shape == (5, 3, 16, 16)
    for batch in (1, 2, 3):
        parts = torch.stack(
            list(draw(G, lambda i, j: ws[i:j], seeds, dataclasses.replace(how, batch=batch), quiet=True))
        )
        assert (whole.int() - parts.int()).abs().max() <= (1 if precision == "fp32" else 4)


def test_pictures_are_bytes_of_what_the_network_gives(G):
    ws = map_seeds(G, [2], Sampling())
    image = G.synthesis(ws, noise="const")[0]
    (picture,) = draw(G, lambda i, j: ws[i:j], [2], Sampling(), quiet=True)
    assert torch.equal(picture, (image * 127.5 + 128).clamp(0, 255).to(torch.uint8))


def test_random_noise_is_of_the_seed(G):
    ws = map_seeds(G, [2], Sampling()).expand(3, -1, -1)
    a, b, c = draw(G, lambda i, j: ws[i:j], [7, 8, 7], Sampling(noise_mode="random"), quiet=True)
    assert torch.equal(a, c) and not torch.equal(a, b)


def test_record(G):
    model = Snapshot(G, None, SnapshotInfo(G.config), Path("x"))
    record = picture_record(model, Sampling(trunc=0.7), ["sgan", "generate", "--model", "a b"], seed=3)
    assert record["model"] == fingerprint(G)
    assert record["command"] == "sgan generate --model 'a b'"
    assert record["seed"] == "3" and record["trunc"] == "0.7" and "trunc_cutoff" not in record
    assert record["Software"].startswith("stylegan_cli ")


# ----------------------------------------------------------------------------------- latents in a file


def test_latents_come_back(G, tmp_path):
    ws = map_seeds(G, [5, 6], Sampling())
    save_latents(tmp_path / "w.npz", ws, [5, 6])
    assert torch.equal(load_latents(tmp_path / "w.npz", G, Sampling())[0], ws)
    assert np.load(tmp_path / "w.npz")["seeds"].tolist() == [5, 6]


def test_one_w_for_all_layers(G, tmp_path):
    np.savez(tmp_path / "w.npz", w=np.ones((2, 8)))
    assert torch.equal(load_latents(tmp_path / "w.npz", G, Sampling())[0], torch.ones(2, 6, 8))


def test_latents_of_another_model(G, tmp_path):
    for bad in (np.ones((2, 5, 8)), np.ones((2, 6, 9)), np.ones(8), np.full((1, 6, 8), np.nan), np.ones((1, 1, 6, 8))):
        np.savez(tmp_path / "w.npz", w=bad)
        with pytest.raises(SganError):
            load_latents(tmp_path / "w.npz", G, Sampling())


def test_files_that_are_no_latents(G, tmp_path):
    np.savez(tmp_path / "other.npz", z=np.ones(3))
    np.savez(tmp_path / "words.npz", w=np.array(["a"]))
    np.save(tmp_path / "bare.npy", np.ones((1, 6, 8)))
    np.savez(tmp_path / "pickled.npz", w=np.array([{}], dtype=object))
    np.savez(tmp_path / "whole.npz", w=np.ones((1, 6, 8)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:100])
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("other.npz", "words.npz", "bare.npy", "pickled.npz", "cut.npz", "empty.npz", "missing.npz"):
        with pytest.raises(SganError, match=name):
            load_latents(tmp_path / name, G, Sampling())
    with pytest.raises(SganError):
        load_latents(tmp_path, G, Sampling())


def test_a_file_of_no_latents_at_all(G, tmp_path):
    np.savez(tmp_path / "w.npz", w=np.zeros((0, 6, 8)))
    with pytest.raises(SganError):
        load_latents(tmp_path / "w.npz", G, Sampling())
