"""Files of latents of other programs in every command that takes latents."""

import json

import numpy as np
import pytest
import torch
from PIL import Image


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture(scope="module")
def made(sgan, tiny_run, tmp_path_factory):
    """The folder with the images of two seeds, and their latents in several formats."""
    folder = tmp_path_factory.mktemp("made")
    sgan("generate", "--model", tiny_run, "--seeds", "5,6", "--save-w", "--outdir", folder, "-q")
    with np.load(folder / "w.npz") as f:
        w = f["w"]
    np.save(folder / "w.npy", w)
    np.savez(folder / "d.npz", dlatents=w)
    torch.save({"five.png": torch.from_numpy(w[0]), "six.png": torch.from_numpy(w[1])}, folder / "w.pt")
    np.save(folder / "vector.npy", w[0, 0])
    z = np.stack([np.random.RandomState(seed).randn(w.shape[-1]) for seed in (5, 6)])
    torch.save(torch.from_numpy(z), folder / "z.pt")
    return folder


@pytest.mark.parametrize("options", [["w.npy"], ["d.npz"], ["w.pt"], ["z.pt", "--latent-space", "z"]], ids=str)
def test_generate(sgan, tiny_run, made, tmp_path, options):
    sgan("generate", "--model", tiny_run, "--from-w", made / options[0], *options[1:], "--outdir", tmp_path, "-q")
    for name, seed in (("w0000", "seed0005"), ("w0001", "seed0006")):
        assert np.abs(pixels(tmp_path / f"{name}.png") - pixels(made / f"{seed}.png")).max() <= 1


def test_a_vector_after_from_w_is_w(sgan, tiny_run, made, tmp_path):
    sgan("generate", "--model", tiny_run, "--from-w", made / "vector.npy", "--outdir", tmp_path, "-q")
    assert np.abs(pixels(tmp_path / "w0000.png") - pixels(made / "seed0005.png")).max() <= 1


def test_other_commands(sgan, tiny_run, made, tmp_path):
    model = ["--model", tiny_run, "--outdir", tmp_path, "-q"]
    sgan("mix", "--rows", made / "w.pt", "--cols", f"{made / 'w.npy'},3", "--styles", "0", *model)
    assert {"mixfive-w-1.png", "mixsix-0003.png"} <= {path.name for path in tmp_path.iterdir()}
    sgan("interpolate", "--seeds", f"{made / 'w.pt'},{made / 'd.npz'}", "--frames", "2", *model)
    sgan("noise", "--seeds", made / "w.pt", *model)
    sgan("edit", "find", "--num", "40", "--count", "1", *model)
    sgan("edit", "apply", "--directions", tmp_path / "directions-pca.npz", "--seeds", made / "w.npy", *model)
    sgan("project", made / "seed0005.png", "--init", made / "vector.npy", "--loss", "pixel", *model, code=2)
    start = ["--init", made / "vector.npy", "--latent-space", "w", "--loss", "pixel", "--steps", "2"]
    result = sgan("project", made / "seed0005.png", *start, *model, "--json")
    assert json.loads(result.stdout)["found"][0]["psnr"] > 25


def test_misuse(sgan, tiny_run, made, tmp_path):
    model = ["--model", tiny_run, "--outdir", tmp_path, "-q"]
    ask = sgan("mix", "--rows", made / "vector.npy", *model, code=2).stderr
    assert "z or w" in ask and "--latent-space" in ask
    for command in (["generate"], ["mix"], ["project", made / "seed0005.png"]):
        assert "no effect without a file" in sgan(*command, "--latent-space", "w", *model, code=2).stderr
    np.save(tmp_path / "other.npy", np.zeros((1, 18, 512)))
    error = sgan("generate", "--from-w", tmp_path / "other.npy", *model, code=1).stderr
    assert "have 18 layers; this model has" in error
