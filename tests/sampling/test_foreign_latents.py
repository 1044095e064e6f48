"""Latents of other programs: the formats, and the rules by which numbers are z, w or w+."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.models.registry import build_generator
from stylegan_cli.sampling.generate import SamplingOptions
from stylegan_cli.sampling.labels import class_labels
from stylegan_cli.sampling.latent_files import collect_latents

RNG = np.random.default_rng(3)
W = RNG.normal(size=8).astype(np.float32)
WP = RNG.normal(size=(6, 8)).astype(np.float32)
MANY = RNG.normal(size=(3, 6, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def G(small_model):
    return small_model()


def save(path, content):
    if path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=path.suffix == ".pt")
    return str(path)


def collect(G, path, content, **options):
    return collect_latents(G, [save(path, content)], SamplingOptions(**options))


def t(array):
    return torch.from_numpy(np.asarray(array))


def expected(array):  # -> [N, 6, 8]
    array = t(array)
    return array.reshape(1, 1, -1).expand(1, 6, -1) if array.ndim == 1 else array.reshape(-1, 6, 8)


CASES = {
    "npy w+": ("a.npy", WP),
    "npy [N, L, D]": ("a.npy", MANY),
    "npy float64": ("a.npy", MANY.astype(np.float64)),
    "npy half": ("a.npy", MANY.astype(np.float16)),
    "npz w": ("a.npz", {"w": MANY}),
    "npz dlatents": ("a.npz", {"dlatents": MANY}),
    "npz latents": ("a.npz", {"latents": MANY, "names": np.array(["x"])}),
    "npz arr_0": ("a.npz", {"arr_0": WP}),
    "npz one other name": ("a.npz", {"codes": MANY}),
    "npz w_plus, z": ("a.npz", {"z": W, "w_plus": MANY}),
    "pt tensor": ("a.pt", t(MANY)),
    "pt parameter": ("a.pt", torch.nn.Parameter(t(WP)[None])),
    "pt not contiguous": ("a.pt", t(MANY).transpose(1, 2).contiguous().transpose(1, 2)),
    "pt bfloat16": ("a.pt", t(np.round(MANY)).bfloat16()),
    "old torch.save": ("a.pth", t(MANY)),
    "pt list": ("a.pt", [t(w) for w in MANY]),
    "pt names": ("a.pt", {"a.png": t(MANY[0]), "b.png": t(MANY[1])[None], "c": t(MANY[2])}),
    "pt latent": ("a.pt", {"latent": t(MANY), "latent_avg": torch.zeros(8), "step": 3}),
    "pt numpy in a dictionary": ("a.pt", {"a": MANY[0], "b": MANY[1]}),
    "restyle npy": ("a.npy", np.array({"a.jpg": [MANY[0], MANY[1]], "b.jpg": [MANY[2], MANY[0]]}, dtype=object)),
    "npy of tensors": ("a.npy", np.array({"a.jpg": t(MANY[0])}, dtype=object)),
    "npy of arrays": ("a.npy", np.array([{"latent": MANY[0]}, {"latent": MANY[1]}], dtype=object)),
    "pickle": ("a.pkl", {"a": MANY[0], "b": MANY[1]}),
    "old pickle of an array": ("a.pkl", MANY),
}


def flat(content):
    if isinstance(content, dict):
        names = ("w", "w_plus", "dlatents", "latents", "arr_0", "codes", "latent")
        picked = [content[name] for name in names if name in content][:1] or list(content.values())
        return torch.cat([flat(item) for item in picked])
    if isinstance(content, list):
        return torch.cat([flat(item) for item in content])
    if isinstance(content, np.ndarray) and content.dtype == object:
        return flat(content.item() if content.ndim == 0 else list(content))
    return expected(content.detach().float().numpy() if isinstance(content, torch.Tensor) else content.astype("f4"))


@pytest.mark.parametrize("case", CASES)
def test_formats(G, tmp_path, case):
    name, content = CASES[case]
    latents = collect(G, tmp_path / name, content)
    torch.testing.assert_close(latents.ws, flat(content), rtol=0, atol=0)
    assert len(set(latents.names)) == len(latents.ws) == len(latents.seeds)


@pytest.mark.parametrize("shape", [(8,), (1, 8), (1, 1, 8)])
@pytest.mark.parametrize("suffix", ["npy", "pt", "pkl"])
def test_one_vector_is_z_or_w_by_the_option(G, tmp_path, shape, suffix):
    path, content = tmp_path / f"a.{suffix}", W.reshape(shape) if suffix != "pt" else t(W.reshape(shape))
    with pytest.raises(SganError, match="does not say whether its 8 numbers per image are z or w") as e:
        collect(G, path, content)
    assert e.value.hint == "Add --latent-space z or --latent-space w."
    w = collect(G, path, content, latent_space="w", trunc=0.6)
    assert torch.equal(w.ws, G.mapping.truncate(expected(W), 0.6))
    z = collect(G, path, content, latent_space="z", trunc=0.6)
    torch.testing.assert_close(z.ws, G.mapping(t(W)[None], None, 0.6))
    fallback = collect_latents(G, [str(path)], SamplingOptions(), fallback="w")
    assert torch.equal(fallback.ws, expected(W))


def test_names_of_arrays_decide(G, tmp_path):
    z = G.mapping(t(W)[None])
    assert torch.equal(collect(G, tmp_path / "a.npz", {"dlatents": W}).ws, expected(W))
    assert torch.equal(collect(G, tmp_path / "b.pt", {"face.png": {"latent": t(W)}}).ws, expected(W))
    torch.testing.assert_close(collect(G, tmp_path / "c.npz", {"z": W[None]}).ws, z)
    torch.testing.assert_close(collect(G, tmp_path / "d.pt", {"z": [t(W)]}).ws, z)
    rows = RNG.normal(size=(4, 8)).astype(np.float32)
    torch.testing.assert_close(collect(G, tmp_path / "e.npz", {"z": rows}).ws, G.mapping(t(rows)))
    for name in ("latents", "arr_0"):  # z in some programs, w in others
        with pytest.raises(SganError, match="z or w"):
            collect(G, tmp_path / "f.npz", {name: W[None]})


def test_the_dimension_decides_if_z_and_w_differ(small_model, tmp_path):
    config = dataclasses.replace(small_model().config, z_dim=5)
    G = build_generator(config).eval().requires_grad_(False)
    z = torch.randn(1, 5)
    torch.testing.assert_close(collect(G, tmp_path / "z.pt", z).ws, G.mapping(z))
    assert torch.equal(collect(G, tmp_path / "w.npy", W).ws, expected(W))
    with pytest.raises(SganError, match="have 7 numbers per layer; this model needs 8"):
        collect(G, tmp_path / "x.npy", W[:7])


def test_classes_of_z(small_model, tmp_path):
    G = small_model(c_dim=3)
    z, path = torch.randn(2, 8), tmp_path / "z.pt"
    chosen = collect(G, path, {"z": z}, class_index=2)
    torch.testing.assert_close(chosen.ws, G.mapping(z, torch.eye(3)[[2, 2]]))
    sampled = collect(G, path, {"z": z}).ws  # by the seeds 0 and 1, as for random images
    torch.testing.assert_close(sampled, G.mapping(z, class_labels(None, [0, 1], G.label_space)))
    with pytest.raises(SganError, match="--class has no effect"):
        collect(G, tmp_path / "w.npy", WP, class_index=2)


def test_rows(G, tmp_path):
    """As many as the model has layers: one image. Otherwise the user says what they are."""
    rows = RNG.normal(size=(4, 8)).astype(np.float32)
    with pytest.raises(SganError, match="has 4 rows of 8 numbers, but this model has 6 layers") as e:
        collect(G, tmp_path / "a.npy", rows)
    assert "--latent-space z or --latent-space w" in e.value.hint
    assert torch.equal(collect(G, tmp_path / "a.npy", rows, latent_space="w").ws, t(rows)[:, None].expand(-1, 6, -1))
    torch.testing.assert_close(collect(G, tmp_path / "a.npy", rows, latent_space="z").ws, G.mapping(t(rows)))
    assert len(collect(G, tmp_path / "b.npy", WP, latent_space="w").ws) == 6
    assert len(collect(G, tmp_path / "b.npy", WP, latent_space="w+").ws) == 1
    assert len(collect(G, tmp_path / "c.npz", {"w": WP}).ws) == 6  # this program's own format


WRONG = {
    "layers": ("a.npy", np.ones((1, 18, 8)), {}, "have 18 layers; this model has 6, for images of 16 x 16"),
    "layers of one": ("a.npy", np.ones((18, 8)), {}, "has 18 rows of 8 numbers, but this model has 6 layers"),
    "layers w+": ("a.npy", np.ones((18, 8)), {"latent_space": "w+"}, "have 18 layers; this model has 6"),
    "layers of a name": ("a.pt", {"x": torch.ones(18, 8)}, {}, "have 18 layers; this model has 6"),
    "layers in npz": ("a.npz", {"w": np.ones((1, 5, 8))}, {}, "have 5 layers; this model has 6"),
    "width": ("a.npy", np.ones((1, 6, 512)), {}, "have 512 numbers per layer; this model needs 8"),
    "width of z": ("a.npz", {"z": np.ones(512)}, {}, "latents z in .* have 512 numbers; this model needs 8"),
    "z with layers": ("a.npy", WP[None], {"latent_space": "z"}, "have 6 layers, but z has none"),
    "w+ of rows": ("a.npz", {"w": WP}, {"latent_space": "w+"}, "6 latents in .* have one layer each"),
    "image": ("a.npy", np.ones((1, 3, 16, 16)), {}, r"shape \[1, 3, 16, 16\]"),
    "number": ("a.npy", np.ones(()), {}, r"shape \[\]"),
    "none": ("a.npy", np.ones((0, 6, 8)), {}, r"shape \[0, 6, 8\]"),
    "text": ("a.npy", np.array(["a"]), {}, "real numbers"),
    "complex": ("a.npy", WP.astype(complex), {}, "real numbers"),
    "nan": ("a.npy", np.full((6, 8), np.nan), {}, "not finite"),
    "overflow": ("a.pt", torch.full((6, 8), 1e300, dtype=torch.float64), {}, "not finite"),
    "mixed": ("a.pt", {"a": t(WP), "b": t(W)}, {}, "latents of one kind, but has"),
    "empty": ("a.pt", {}, {}, "latents of one kind, but has none"),
    "no array": ("a.pt", {"face": "x"}, {}, "the entry face is not an array"),
    "weights": ("a.pt", {"g_ema": {"input.input": torch.ones(1, 8, 4, 4)}}, {}, "checkpoint with the weights g_ema"),
    "noise": ("a.pt", {"x": {"latent": t(WP), "noise": [torch.ones(1, 1, 4, 4)]}}, {}, "noise .* does not match"),
    "two arrays": ("a.npz", {"left": WP, "right": W}, {}, "latents of one kind"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_content(G, tmp_path, case):
    name, content, options, words = WRONG[case]
    with pytest.raises(SganError, match=words) as e:
        collect(G, tmp_path / name, content, **options)
    assert "a." + name.rpartition(".")[2] in str(e.value) and "\n" not in str(e.value)


def test_files_of_rosinalitys_projector(G, tmp_path):
    noise = [[torch.randn(1, 1, row.height, row.width) for row in G.noise_layers] for _ in range(2)]
    tree = {
        f"faces/{name}.png": {"img": torch.zeros(3, 16, 16), "latent": t(w), "noise": maps}
        for name, w, maps in zip("ab", MANY, noise, strict=False)
    }
    latents = collect(G, tmp_path / "a.pt", tree)
    assert latents.names == ["a", "b"] and torch.equal(latents.ws, t(MANY[:2]))
    assert all(torch.equal(maps, torch.cat(pair)) for maps, *pair in zip(latents.noise, *noise, strict=True))


def test_names_of_images(G, tmp_path):
    tree = {"/data/one.png": t(MANY[0]), "C:\\x\\two.JPG": t(MANY), "v1.5": t(MANY[1])}
    latents = collect(G, tmp_path / "a.pt", tree)
    assert latents.names == ["one", "two-0", "two-1", "two-2", "v1.5"]
    assert collect(G, tmp_path / "b.npy", MANY).names == ["b-0", "b-1", "b-2"]


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("suffix", ["pt", "pth", "pkl", "npy"])
def test_code_is_never_run(G, tmp_path, capsys, suffix):
    content = np.array([Evil()], dtype=object) if suffix == "npy" else {"a": Evil()}
    with pytest.raises(SganError, match=r"cannot be read as latents: it uses .*builtin.*\.print"):
        collect(G, tmp_path / f"a.{suffix}", content)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", ["pt", "pth", "pkl", "npy", "npz"])
def test_damaged_files(G, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    content = {"dlatents": MANY} if suffix == "npz" else MANY if suffix in ("npy", "pkl") else t(MANY)
    save(path, content)
    data = path.read_bytes()
    for share in (0, 0.05, 0.3, 0.7, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(SganError, match=path.name):
            collect_latents(G, [str(path)], SamplingOptions())
    for position in range(0, min(len(data), 600), 7):
        changed = bytearray(data)
        changed[position] ^= 255
        path.write_bytes(changed)
        try:
            collect_latents(G, [str(path)], SamplingOptions())
        except SganError as e:
            assert path.name in str(e)


def test_one_large_storage_is_not_multiplied(G, tmp_path):
    numbers = torch.zeros(100, 6, 8)
    with pytest.raises(SganError, match="larger than the file"):
        collect(G, tmp_path / "a.pt", [numbers] * 100)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 an image", b"<html>", b'{"w": [1]}', b"\x80"])
def test_other_files(G, tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(SganError, match="x.npy (is not a file of latents, or it is damaged|cannot be read as latents)"):
        collect_latents(G, [str(tmp_path / "x.npy")], SamplingOptions())
