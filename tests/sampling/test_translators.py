"""Files of translators, and their dropout."""

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.models.translators.pix2pix import TranslatorConfig, UNet
from stylegan_cli.sampling.translators import (
    TRANSLATOR_FILE,
    TranslatorInfo,
    dropout,
    find_translator,
    load_translator,
    save_translator,
)

CONFIG = TranslatorConfig(16, 24, channels=1, inputs=4, base=2)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(1)
    G, path = UNet(CONFIG), tmp_path / "t.safetensors"
    save_translator(path, G, TranslatorInfo(CONFIG, kimg=3.0, held_out={"images": 4.0, "psnr": 20.5}))
    return G, path


def test_round_trip(saved):
    G, path = saved
    translator, x = load_translator(path), torch.randn(3, 4, 16, 24)
    assert translator.info.generator == CONFIG and "PSNR 20.5 dB" in translator.description
    assert torch.allclose(translator.translate(x), G(x), atol=1e-6)
    assert not any(p.requires_grad for p in translator.network.parameters())
    assert find_translator(path) == path and find_translator(None) is None


def test_dropout_of_a_seed(saved):
    """The same for all images whatever the batch; half of the features are omitted, the others doubled."""
    G, path = saved
    translator, x = load_translator(path), torch.randn(3, 4, 16, 24)
    first = translator.translate(x, seed=7)
    assert torch.allclose(first[1:2], translator.translate(x[1:2], seed=7), atol=1e-6)
    assert not torch.allclose(first, translator.translate(x, seed=8), atol=1e-3)
    assert not torch.allclose(first, translator.translate(x), atol=1e-3)
    masks = dropout(UNet(TranslatorConfig(64, 64, base=16)), 0, torch.arange(4))
    assert [tuple(m.shape[1:]) for m in masks] == [(128, 2, 2), (128, 4, 4), (64, 8, 8)]
    assert all(set(m.unique().tolist()) == {0, 2} for m in masks)
    assert masks[1].mean().item() == pytest.approx(1, abs=0.05)
    assert len({m[0, :64, :2, :2].numpy().tobytes() for m in masks}) == 3, "each layer has its own"


def test_files_that_are_refused(saved, tmp_path):
    _, path = saved
    with pytest.raises(SganError, match="does not exist"):
        load_translator(tmp_path / "nothing.safetensors")
    content = path.read_bytes()
    for broken in (content[:-10], b"x" * 100, b""):
        (tmp_path / "broken.safetensors").write_bytes(broken)
        with pytest.raises(SganError):
            load_translator(tmp_path / "broken.safetensors")
        assert find_translator(tmp_path / "broken.safetensors") is None
    other = TranslatorInfo(TranslatorConfig(16, 24, channels=1, inputs=4, base=3))
    save_translator(path, saved[0], other)
    with pytest.raises(SganError, match="does not match its own configuration"):
        load_translator(path)
    TRANSLATOR_FILE.save(path, {k: t * float("nan") for k, t in saved[0].state_dict(prefix="G.").items()}, other)
    with pytest.raises(SganError):
        load_translator(path)
