"""The order of images is complete, reproducible, independent of the number of ranks, and resumes from one number."""

from contextlib import closing

import numpy as np
import pytest
import torch

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.sampler import Loader, Sampler
from stylegan_cli.errors import SganError


def test_every_epoch_has_every_image_once():
    sampler = Sampler(10, seed=3)
    order = torch.cat([sampler.next(4)[0] for _ in range(10)])
    epochs = order.reshape(4, 10)
    assert all(sorted(e.tolist()) == list(range(10)) for e in epochs)
    assert len({tuple(e.tolist()) for e in epochs}) == 4


PINNED = [6, 1, 8, 5, 2, 7, 9, 4, 3, 0]


def test_order_is_pinned():
    """It must not change between releases of NumPy or of this package, so that runs can resume."""
    indices, positions = Sampler(10, seed=3).next(10)
    assert indices.tolist() == PINNED
    assert positions.tolist() == list(range(10))
    assert Sampler(10, seed=4).next(10)[0].tolist() != PINNED


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_one_order(world):
    whole = Sampler(7, seed=1)
    ranks = [Sampler(7, seed=1, rank=r, world=world) for r in range(world)]
    for _ in range(5):
        indices, positions = whole.next(12)
        for rank, sampler in enumerate(ranks):
            rank_indices, rank_positions = sampler.next(12)
            assert (rank_positions % world == rank).all()
            assert torch.equal(rank_positions, positions[positions % world == rank])
            assert torch.equal(rank_indices, indices[positions % world == rank])


@pytest.mark.parametrize("chosen", [None, np.arange(100, 110)])
def test_images_at_positions(chosen):
    """Of any epoch, on any rank, whatever the sampler is at."""
    whole, second = (Sampler(10, seed=3, rank=r, world=w, chosen=chosen) for r, w in ((0, 1), (1, 2)))
    order, _ = whole.next(40)
    for _ in range(5):
        indices, positions = second.next(8)
        assert torch.equal(second.at(positions), indices) and torch.equal(order[positions], indices)
        assert torch.equal(second.at(torch.tensor([39, 0, 12])), order[[39, 0, 12]])


def test_indivisible_batch_is_rejected():
    with pytest.raises(ValueError, match="not divisible"):
        Sampler(7, seed=1, world=2).next(3)


def test_position_is_the_whole_state():
    a = Sampler(9, seed=5)
    for _ in range(7):
        a.next(4)
    assert a.state_dict() == {"position": 28}
    b = Sampler(9, seed=5)
    b.load_state_dict(a.state_dict())
    assert torch.equal(a.next(4)[0], b.next(4)[0])


@pytest.fixture(scope="module")
def critters():
    return open_dataset(None, size=(16, 16), label="cheeksVariant")


def test_loader_follows_the_sampler(critters):
    plain = Sampler(4000, seed=1)
    with closing(Loader(critters, Sampler(4000, seed=1), 8)) as loader:
        for _ in range(3):
            indices, positions = plain.next(8)
            images, labels, rank_positions = loader.next()
            assert torch.equal(images, critters.images(indices))
            assert torch.equal(labels, critters.labels(indices))
            assert torch.equal(rank_positions, positions)
            assert loader.state_dict() == plain.state_dict()  # not that of the batch prepared in advance


def test_loader_resumes(critters):
    with closing(Loader(critters, Sampler(4000, seed=1), 8)) as loader:
        loader.next()
        state = loader.state_dict()
        expected = loader.next()[2]
        loader.next()
        loader.load_state_dict(state)
        assert torch.equal(loader.next()[2], expected)
    with closing(Loader(critters, Sampler(4000, seed=1), 8)) as loader:
        loader.load_state_dict(state)
        assert torch.equal(loader.next()[2], expected)


def test_closing_resets_the_sampler_position(critters):
    sampler = Sampler(4000, seed=1)
    with closing(Loader(critters, sampler, 8)) as loader:
        loader.next()
    assert sampler.position == 8


def test_exceptions_in_the_thread_are_raised(critters, monkeypatch):
    def fail(_):
        raise SganError("broken image")

    loader = Loader(critters, Sampler(4000, seed=1), 8)
    monkeypatch.setattr(critters, "images", fail)
    with pytest.raises(SganError, match="broken image"):
        loader.next()
    loader.close()
