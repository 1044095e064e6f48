"""Files of attribute critics: the same judgment after loading, for images of any size; damaged files are refused."""

import dataclasses
import json

import pytest
import safetensors.torch
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.sampling.critics import (
    CRITIC_FILE,
    Critic,
    CriticInfo,
    fit_images,
    load_critic,
    make_classifier,
    save_critic,
)
from stylegan_cli.snapshot import read_info

INFO = CriticInfo("head", "bald", 3, 16, 24, True, accuracy=0.95, low=-3.0, high=5.0, held_out=40)


@pytest.fixture
def critic():
    torch.manual_seed(0)
    classifier = make_classifier("head", "bald", 3, True).eval().requires_grad_(False)
    classifier.body[1].running_mean.normal_()
    return Critic(INFO, classifier)


@pytest.fixture
def path(critic, tmp_path):
    save_critic(tmp_path / "critic.safetensors", critic)
    return tmp_path / "critic.safetensors"


def test_a_loaded_critic_is_the_same(critic, path):
    images = torch.randn(5, 3, 16, 24)
    loaded = load_critic(path)
    assert loaded.info == INFO == CRITIC_FILE.read_info(path) and CRITIC_FILE.is_kind_of(path)
    assert torch.equal(loaded(images), critic(images)) and loaded(images).shape == (5,)
    assert not any(p.requires_grad for p in loaded.parameters())
    assert INFO.skill == pytest.approx(0.9)


def test_images_of_any_size_have_gradients(path):
    critic = load_critic(path)
    for size in ((16, 24), (32, 48), (128, 192), (8, 12), (20, 30)):
        images = torch.randn(2, 3, *size, requires_grad=True)
        (gradient,) = torch.autograd.grad(critic(images).sum(), images)
        assert gradient.isfinite().all() and (gradient != 0).double().mean() > 0.3, size
    images = torch.randn(1, 3, 32, 48)
    assert torch.equal(fit_images(images, 16, 24), torch.nn.functional.avg_pool2d(images, 2))
    assert torch.equal(fit_images(images, 32, 48), images)


def test_in_float64(path):
    images = torch.randn(2, 3, 16, 24).double()
    exact = load_critic(path).to(torch.float64)(images)
    assert exact.dtype == torch.float64
    assert torch.allclose(load_critic(path)(images.float()).double(), exact, atol=1e-4)


def test_scores_are_those_of_least_squares(critic):
    assert critic.score(torch.tensor([-3.0, 1.0, 5.0, 13.0])).tolist() == [0, 0.5, 1, 2]


def test_it_is_not_a_model(path):
    with pytest.raises(SganError, match="is an attribute critic, not a snapshot"):
        read_info(path)


def rewritten(path, tensors=None, **info):
    """The file with other tensors, or other fields in its header."""
    header = {"format": "stylegan_cli/critic/1", "info": json.dumps({**dataclasses.asdict(INFO), **info})}
    path.write_bytes(safetensors.torch.save(tensors or safetensors.torch.load(path.read_bytes()), header))
    return path


def test_damaged_files_are_refused(path, tmp_path):
    content, tensors = path.read_bytes(), safetensors.torch.load(path.read_bytes())
    for damaged in (content[:-50], content[:100], b"", b"no critic"):
        path.write_bytes(damaged)
        with pytest.raises(SganError, match="damaged"):
            load_critic(path)
        assert not CRITIC_FILE.is_kind_of(path)
    with pytest.raises(SganError, match="does not exist"):
        load_critic(tmp_path / "missing.safetensors")
    path.write_bytes(safetensors.torch.save(tensors, {"format": "other"}))
    with pytest.raises(SganError, match="not an attribute critic"):
        load_critic(path)
    for fields in ({"channels": 4}, {"fine": 1}, {"height": 0}, {"accuracy": float("nan")}, {"more": 1}):
        with pytest.raises(SganError):
            load_critic(rewritten(path, tensors, **fields))
    broken = tensors | {"C.heads.0.bias": torch.full((2,), float("nan"))}
    with pytest.raises(SganError, match="not finite"):
        load_critic(rewritten(path, broken))
    with pytest.raises(SganError, match="does not match its own configuration"):
        load_critic(rewritten(path, {k: v for k, v in tensors.items() if "heads" not in k}))
