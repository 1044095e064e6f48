"""Latents from seeds and files: names, noise, tuned weights and invalid files."""

import numpy as np
import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.sampling.generate import SamplingOptions, generate_images, map_seeds
from stylegan_cli.sampling.latent_files import collect_latents, filename_part, load_latent_file, save_latents
from stylegan_cli.sampling.tuned import apply_tuned, save_tuned
from stylegan_cli.snapshot import fingerprint


@pytest.fixture(scope="module")
def G(small_model):
    return small_model()


@pytest.fixture
def ws(G):
    return map_seeds(G, [5, 6], SamplingOptions())


def noise_for(G, n, value):
    rows = [row for row in G.layers if row.noise]
    return {row.name: torch.full((n, 1, row.height, row.width), float(value)) for row in rows}


def images(latents, options=None):
    options, noise = options or SamplingOptions(), latents.noise_of(range(len(latents)))
    generated = generate_images(latents.G, lambda i, j: latents.ws[i:j], latents.seeds, options, noise=noise)
    return torch.stack(list(generated))


def test_seeds_and_files_are_combined(G, ws, tmp_path):
    save_latents(tmp_path / "w.npz", ws, seeds=[5, 6])
    latents = collect_latents(G, [7, str(tmp_path / "w.npz"), 5], SamplingOptions())
    assert latents.names == ["7", "w-0", "w-1", "5"] and latents.seeds == [7, 5, 6, 5] and latents.items == [0, 1, 1, 2]
    assert torch.equal(latents.ws[1:3], ws) and torch.allclose(latents.ws[3], ws[0], atol=1e-6)
    assert latents.noise is None and latents.G is G


def test_truncation_applies_to_files(G, ws, tmp_path):
    save_latents(tmp_path / "w.npz", ws)
    latents = collect_latents(G, [str(tmp_path / "w.npz")], SamplingOptions(trunc=0.5, trunc_cutoff=3))
    assert torch.equal(latents.ws, G.mapping.truncate(ws, 0.5, 3))


def test_one_w_is_used_in_all_layers(G, tmp_path):
    np.savez(tmp_path / "w.npz", w=np.ones((2, 8)))
    latents = collect_latents(G, [str(tmp_path / "w.npz")], SamplingOptions(trunc=0.5, trunc_cutoff=2))
    assert torch.equal(latents.ws, G.mapping.truncate(torch.ones(2, 6, 8), 0.5, 2))


def test_each_image_has_its_own_noise(G, ws, tmp_path):
    save_latents(tmp_path / "a.npz", ws[:1], noise=noise_for(G, 1, 2))
    latents = collect_latents(G, [str(tmp_path / "a.npz"), 5], SamplingOptions())
    assert all((maps[0] == 2).all() for maps in latents.noise)
    assert all(torch.equal(maps[1, 0], own) for maps, own in zip(latents.noise, G.stored_noise(), strict=True))
    with_noise, plain = images(latents)  # the same w, with other noise
    assert not torch.equal(with_noise, plain)
    assert (plain.int() - images(collect_latents(G, [5], SamplingOptions()))[0].int()).abs().max() <= 1


def test_noise_of_a_file_is_unused_in_other_noise_modes(G, ws, tmp_path):
    save_latents(tmp_path / "a.npz", ws[:1], seeds=[9], noise=noise_for(G, 1, 2))
    save_latents(tmp_path / "b.npz", ws[:1], seeds=[9])
    for mode in ("none", "random"):
        options = SamplingOptions(noise_mode=mode)
        a, b = images(collect_latents(G, [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")], options), options)
        assert torch.equal(a, b)


def test_names_are_unique_and_safe(G, ws, tmp_path):
    (tmp_path / "x").mkdir()
    save_latents(tmp_path / "a.npz", ws[:1], names=["face"])
    save_latents(tmp_path / "x" / "a.npz", ws[:1], names=["face"])
    one, two = str(tmp_path / "a.npz"), str(tmp_path / "x" / "a.npz")
    assert collect_latents(G, [one, two, one], SamplingOptions()).names == ["face", "face-2", "face"]
    save_latents(tmp_path / "a.npz", ws[:1], names=["0007"])
    save_latents(tmp_path / "x" / "a.npz", ws[:1], names=["Image0007"])
    assert collect_latents(G, [7, one, two], SamplingOptions()).names == ["7", "image0007", "Image0007-2"]
    assert filename_part("85") == "0085" and filename_part("../a b") == "_._a_b" and "/" not in filename_part("/etc/x")
    assert (
        filename_part("") == "_"
        and filename_part("9" * 5000) == "9" * 120
        and len(filename_part("字" * 99).encode()) <= 120
    )
    assert filename_part("\udcff") == "_"


def test_a_file_of_another_model_is_rejected(small_model, G, ws, tmp_path):
    save_latents(tmp_path / "w.npz", ws, model=fingerprint(small_model(1)), settings={"model": "runs/1"})
    with pytest.raises(SganError, match="fingerprint") as e:
        collect_latents(G, [str(tmp_path / "w.npz")], SamplingOptions())
    assert "runs/1" in e.value.hint
    save_latents(tmp_path / "w.npz", ws, model=fingerprint(G))
    assert len(collect_latents(G, [str(tmp_path / "w.npz")], SamplingOptions())) == 2


def test_tuned_weights_of_a_file_are_applied(small_model, G, ws, tmp_path):
    other = small_model()
    other.get_submodule(G.layers[2].name).weight.add_(torch.randn(8, 8, 3, 3) * 0.05)
    path = save_tuned(tmp_path, G, other)
    again = apply_tuned(G, path)
    for name, tensor in again.state_dict().items():
        assert torch.allclose(tensor, other.state_dict()[name], atol=2e-4)
    assert path.stat().st_size < 4000
    save_latents(tmp_path / "w.npz", ws, tuned=path.name, model=fingerprint(G))
    latents = collect_latents(G, [5, str(tmp_path / "w.npz")], SamplingOptions())
    assert fingerprint(latents.G) == fingerprint(again) != fingerprint(G)


def test_invalid_tuned_weights(small_model, G, ws, tmp_path):
    save_latents(tmp_path / "w.npz", ws, tuned="tuned.safetensors")
    with pytest.raises(SganError, match="tuned"):
        collect_latents(G, [str(tmp_path / "w.npz")], SamplingOptions())
    save_tuned(tmp_path, small_model(1), small_model(2)).rename(tmp_path / "tuned.safetensors")
    with pytest.raises(SganError, match="fingerprint"):
        collect_latents(G, [str(tmp_path / "w.npz")], SamplingOptions())
    (tmp_path / "tuned.safetensors").write_bytes((tmp_path / "tuned.safetensors").read_bytes()[:200])
    with pytest.raises(SganError, match="damaged"):
        collect_latents(G, [str(tmp_path / "w.npz")], SamplingOptions())
    for elsewhere in ("../tuned.safetensors", "/etc/passwd"):
        save_latents(tmp_path / "w.npz", ws, tuned=elsewhere)
        with pytest.raises(SganError, match="same folder"):
            collect_latents(G, [str(tmp_path / "w.npz")], SamplingOptions())


def test_different_tuned_weights_cannot_be_combined(G, ws, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_latents(tmp_path / name / "w.npz", ws, tuned=f"tuned-{name}.safetensors")
    with pytest.raises(SganError, match="different tuned weights"):
        collect_latents(G, [str(tmp_path / name / "w.npz") for name in "ab"], SamplingOptions())


@pytest.mark.parametrize(
    "content",
    [
        {"w": np.ones((2, 5, 8))},
        {"w": np.ones((2, 6, 9))},
        {"w": np.full((1, 6, 8), np.nan)},
        {"w": np.ones((1, 1, 6, 8))},
        {"w": np.zeros((0, 6, 8))},
        {"w": np.array(["a"])},
        {"w": np.array([{}], dtype=object)},
        {"z": np.ones(3)},
        {"w": np.ones((1, 6, 8)), "seeds": np.array([-1])},
        {"w": np.ones((1, 6, 8)), "seeds": np.array([1, 2])},
        {"w": np.ones((1, 6, 8)), "names": np.array(["a", "b"])},
        {"w": np.ones((1, 6, 8)), "settings": np.array("{")},
        {"w": np.ones((1, 6, 8)), "settings": np.array("[" * 100000)},
        {"w": np.ones((1, 6, 8)), "noise.synthesis.b4.conv1": np.ones((1, 1, 4, 4))},
        {"w": np.ones((1, 6, 8)), "noise.synthesis.b4.conv1": np.ones((2, 1, 4, 4))},
        {"w": np.ones((1, 6, 8)), "noise.synthesis.b4.conv1": np.ones(())},
        {"w": np.full((1, 6, 8), 1e300)},
        {"w": np.ones((1, 6, 8)), "seeds": np.array([np.inf])},
    ],
)
def test_files_with_wrong_content(G, tmp_path, content):
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(SganError, match="bad.npz"):
        collect_latents(G, [str(tmp_path / "bad.npz")], SamplingOptions())


def test_files_that_are_not_latents(G, tmp_path):
    np.savez(tmp_path / "whole.npz", w=np.ones((1, 6, 8)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:100])
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("cut.npz", "empty.npz", "missing.npz"):
        with pytest.raises(SganError, match=name):
            load_latent_file(tmp_path / name)
    with pytest.raises(SganError):
        load_latent_file(tmp_path)


def test_a_class_is_rejected_for_latents(G, ws, tmp_path):
    save_latents(tmp_path / "w.npz", ws)
    with pytest.raises(SganError, match="class"):
        collect_latents(G, [str(tmp_path / "w.npz")], SamplingOptions(class_index=1))
