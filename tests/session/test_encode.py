"""Session.encode: latents of images, whatever their number and source; and as the start of a projection."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import stylegan_cli
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import MisuseError, SganError
from stylegan_cli.inversion.projector import Projector
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.dcgan.config import DCGANConfig
from stylegan_cli.models.encoders.pyramid import PyramidEncoder, z_encoder_config
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.sampling.encoders import EncoderInfo, load_encoder, save_encoder
from stylegan_cli.session import EncodeRequest
from stylegan_cli.snapshot import SnapshotInfo, save_snapshot

SMALL = {"channel_base": 64, "channel_max": 8}


@pytest.fixture(scope="module")
def session(class_run):
    return stylegan_cli.open(class_run)


@pytest.fixture(scope="module")
def images(rgb_set, tmp_path_factory):
    """Three images of the dataset as files."""
    folder = tmp_path_factory.mktemp("images")
    for i, pixels in enumerate(open_dataset(rgb_set).images(range(3))):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{'cab'[i]}.png")
    return sorted(folder.iterdir())


def test_it_is_the_encoder_of_the_file(session, encoder_run, images):
    result = session.encode(images=images, encoder=encoder_run)
    encoder = load_encoder(result.encoder.path, session.G, session.fingerprint)
    pixels = np.stack([np.asarray(Image.open(path)) for path in images])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = session.G.mapping.w_avg + encoder.network(x)
    assert torch.allclose(result.ws, expected, atol=1e-5) and result.names == ["a", "b", "c"]
    shown = session.G.synthesis(result.ws)
    assert (result.images.float() - ((shown + 1) * 127.5).clamp(0, 255)).abs().max() <= 1
    error = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - result.images.float()).square().mean((1, 2, 3))
    assert result.psnr == pytest.approx((10 * (255**2 / error).log10()).tolist(), abs=0.1)


def test_batches_do_not_matter(session, encoder_run, images):
    together = session.encode(images=images, encoder=encoder_run)
    for batch in (1, 2):
        parts = session.encode(EncodeRequest(images, encoder_run, batch=batch))
        assert torch.allclose(parts.ws, together.ws, atol=1e-4)
    (alone,) = session.encode(images=images[1:2], encoder=encoder_run).ws
    assert torch.allclose(alone, together.ws[1], atol=1e-4)


def test_a_folder_and_a_zip(session, encoder_run, images, tmp_path):
    expected = session.encode(images=images, encoder=encoder_run)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        for path in images:
            z.write(path, f"deep/{path.name}")
        z.writestr("readme.txt", "hello")
    done = []
    for source in (images[0].parent, tmp_path / "a.zip"):
        result = session.encode(
            EncodeRequest([source], encoder_run, batch=2), lambda what, n, of: done.append((what, n, of))
        )
        assert torch.allclose(result.ws, expected.ws, atol=1e-4)
        assert result.psnr == pytest.approx(expected.psnr, abs=0.05)
        assert [name.rpartition("/")[2] for name in result.names] == ["a.png", "b.png", "c.png"]
        with pytest.raises(SganError, match="not kept"):
            _ = result.images
        (file,) = result.save(tmp_path / "out")
        with np.load(file, allow_pickle=False) as f:
            assert f["w"].shape == tuple(result.ws.shape) and f["names"].tolist() == result.names
    assert done[:3] == [("images", 0, 3), ("images", 2, 3), ("images", 3, 3)]
    assert not result.warnings or "readme" in result.warnings[0]


def test_it_starts_a_projection(session, encoder_run, images, monkeypatch):
    """The first step sees the latents of the encoder; in W, their mean."""
    starts, init = [], Projector.__init__

    def spy(self, *arguments, **options):
        init(self, *arguments, **options)
        starts.append(self)

    monkeypatch.setattr(Projector, "__init__", spy)
    expected = session.encode(images=images[:2], encoder=encoder_run).ws
    for space in ("w+", "w"):
        task = session.prepare_projection(
            images=images[:2], init="encoder", encoder=encoder_run, space=space, loss="pixel", steps=2
        )
        start = expected if space == "w+" else expected.mean(1, keepdim=True).expand_as(expected)
        assert torch.allclose(task.task.start.ws, start, atol=1e-4)
        assert session.project(task).ws.shape == expected.shape


@pytest.mark.parametrize("config", [DCGANConfig, StyleGAN2Config])
def test_an_encoder_to_z_starts_a_search_in_z(config, images, tmp_path):
    torch.manual_seed(0)
    G, D = build_generator(config(16, 16, z_dim=12, **SMALL)), LevelsDiscriminatorConfig(16, 16, **SMALL)
    save_snapshot(tmp_path / "g.safetensors", G, None, SnapshotInfo(G.config))
    session = stylegan_cli.open(tmp_path / "g.safetensors")
    E = PyramidEncoder(z_encoder_config(G.config, D))
    save_encoder(tmp_path / "e.safetensors", E, EncoderInfo(E.config, session.fingerprint))
    request = {"images": images[:2], "init": "encoder", "encoder": tmp_path / "e.safetensors", "loss": "pixel"}
    task = session.prepare_projection(space="z", steps=1, noise="const", **request)
    ws = session.encode(images=images[:2], encoder=request["encoder"]).ws
    assert task.task.start.z.shape == (2, 12) and torch.allclose(session.G.mapping(task.task.start.z), ws, atol=1e-5)
    found = session.project(task)
    assert torch.allclose(found.finding.latents.path[0], ws, atol=1e-5) and found.metadata["space"] == "z"


def test_an_encoder_to_w_starts_no_search_in_z(session, encoder_run, images):
    request = {"images": images[:1], "init": "encoder", "encoder": encoder_run, "loss": "pixel"}
    with pytest.raises(MisuseError, match="predicts latents in W, which --space z cannot start from"):
        session.prepare_projection(space="z", **request)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"images": []}, "images cannot be"),
        ({"images": "a.png"}, "images"),
        ({"images": ["a.png"], "batch": 0}, "batch"),
        ({"images": ["a.png"], "crop": "top"}, "crop"),
        ({"images": ["a.png"], "pad": "red"}, "no effect"),
        ({"images": ["a.zip", "b.png"]}, "named alone"),
        ({"images": ["a.zip", "b.zip"]}, "named alone"),
        ({"images": ["a.png"], "encoder": 3}, "encoder"),
    ],
    ids=str,
)
def test_invalid_requests(fields, words):
    with pytest.raises(SganError, match=words):
        EncodeRequest(**fields)


def test_without_an_encoder(session, images, tmp_path):
    with pytest.raises(SganError, match="has an encoder for this model") as e:
        session.encode(images=images, runs=tmp_path)
    assert "sgan encoder fit" in e.value.hint


def test_the_newest_encoder_of_the_model(session, encoder_run, images):
    assert session.encode(images=images, runs=encoder_run.parent).encoder.path.parent == encoder_run


def test_another_model(encoder_run, images, tiny_run, rgba_set, tmp_path):
    other = stylegan_cli.open(tiny_run)
    with pytest.raises(SganError, match="belongs to the model with fingerprint"):
        other.encode(images=images, encoder=encoder_run)


def test_weights_that_were_changed_in_memory(class_run, encoder_run, images):
    """The encoder belongs to those of the file; these count as another snapshot of the run."""
    session = stylegan_cli.open(class_run)
    with torch.no_grad():
        session.G.synthesis.b4.const.add_(1)
    session.encode(images=images, encoder=encoder_run)
    assert "another snapshot of this run" in session.model_notes[0]
