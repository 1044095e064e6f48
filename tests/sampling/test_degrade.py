"""What an encoder sees: of the right shape and range, and a function of (seed, index of the image) alone."""

import pytest
import torch

from stylegan_cli.errors import MisuseError, SganError
from stylegan_cli.sampling.degrade import TASKS, Invert, holes, make_task, reduce

SEED = 3
OWN = [name for name, task in TASKS.items() if not task.needs_source]


def images(channels=3, height=24, width=48, n=4):
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.randn(n, channels, 4, 6), (height, width), mode="bicubic")
    return (smooth / 2).clamp(-1, 1)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 48)])
def test_shape_and_range(name, channels, height, width):
    task = make_task(name, {})
    x = images(channels, height, width)
    before = x.clone()
    seen = task(x, SEED, torch.arange(4))
    assert seen.shape == (4, task.inputs(channels), height, width) and seen.dtype == torch.float32
    assert seen.min() >= -1 and seen.max() <= 1 and torch.equal(x, before)


@pytest.mark.parametrize("name", OWN)
def test_each_image_has_its_own_numbers(name):
    """The same in any batch, others with another index or seed, except where nothing is random."""
    task, x = make_task(name, {}), images()
    index = torch.tensor([5, 70, 2**40, 9])
    seen = task(x, SEED, index)
    assert torch.equal(task(x, SEED, index), seen)
    for i in range(4):
        alone = task(x[i : i + 1], SEED, index[i : i + 1])
        assert torch.allclose(alone, seen[i : i + 1], atol=2 / 255), "rounding may change a pixel before compression"
    if name in ("inpaint", "restore"):
        same = x[:1].expand(16, -1, -1, -1)
        many = task(same, SEED, torch.arange(16))
        assert not torch.equal(many[:1].expand_as(many), many)
        assert not torch.equal(task(same, SEED + 1, torch.arange(16)), many)


def test_blur_does_not_depend_on_the_other_images():
    """The filter is as wide for a slight blur as for the strongest, which may be in the same batch or not."""
    x, index = images(height=128, width=128), torch.tensor([5, 70, 2**40, 9])
    task = make_task("restore", {"noise": (0.0, 0.0), "reduction": (1.0, 1.0), "quality": (100, 100)})
    seen = task(x, SEED, index)
    for i in range(4):
        alone = task(x[i : i + 1], SEED, index[i : i + 1])
        assert (alone != seen[i : i + 1]).float().mean() < 0.01, "only rounding before compression may differ"


def test_invert_changes_nothing():
    x = images()
    assert make_task("invert", {}) == Invert() and Invert()(x, SEED, torch.arange(4)) is x


def test_super_resolution_keeps_the_means_of_blocks():
    """Of smooth images, as far as the enlargement does."""
    x = images(height=32, width=32)
    seen = make_task("superres", {"factor": 2})(x, SEED, torch.arange(4))
    assert (reduce(seen, 2) - reduce(x, 2)).abs().mean() < 0.02 and not torch.allclose(seen, x, atol=0.01)
    assert torch.equal(make_task("superres", {"factor": 1})(x, SEED, torch.arange(4)), x)


def test_holes():
    """Given pixels are unchanged, the hole is gray, and the last channel says which is which."""
    x = images()
    seen = make_task("inpaint", {})(x, SEED, torch.arange(4))
    given = holes((24, 48), SEED, torch.arange(4))
    assert torch.equal(seen[:, 3:], given * 2 - 1) and torch.equal(seen[:, :3], x * given)
    fractions = holes((32, 32), SEED, torch.arange(500)).mean((1, 2, 3))
    assert fractions.min() > 0 and fractions.max() < 1 and 0.4 < fractions.mean() < 0.9


def test_outlines():
    """White where nothing changes, dark at an edge, also at the border of the image and in gray images. What is
    transparent is white."""
    for channels in (1, 3, 4):
        x = torch.full((1, channels, 16, 16), -0.5)
        x[:, :3, :, 8:], x[:, 3:] = 0.9, 1.0
        (seen,) = make_task("sketch", {})(x, SEED, torch.arange(1))
        assert (seen[0, :, 7:9] < 0).all() and torch.allclose(seen[0, :, :6], torch.ones(16, 6))
    x[:, 3:] = -1
    assert (make_task("sketch", {})(x, SEED, torch.arange(1)) == 1).all()


def test_restoring_keeps_alpha_apart():
    x = images(4)
    x[:, 3] = 1
    seen = make_task("restore", {"noise": (0.0, 0.0)})(x, SEED, torch.arange(4))
    assert (seen[:, 3] > 0.98).all(), "an opaque image stays opaque"


@pytest.mark.parametrize("name", ["superres", "restore"])
def test_transparent_colors_do_not_bleed_in(name):
    """What is hidden under transparent pixels changes nothing, and edges are not darker than the image."""
    x = torch.ones(4, 4, 32, 32)
    x[:, :, :, 13:] = -1
    other = x.clone()
    other[:, :3, :, 13:] = 1
    task = make_task(name, {"noise": (0.0, 0.0), "quality": (100, 100)} if name == "restore" else {})
    seen, again = (task(y, SEED, torch.arange(4)) for y in (x, other))
    assert torch.allclose(seen, again, atol=0.02)
    edge = (seen[:, 3:] > -0.5) & (seen[:, 3:] < 0.9)
    assert edge.any() and (seen[:, :3][edge.expand(-1, 3, -1, -1)] > 0.9).all()


def test_settings():
    """As from JSON: lists are tuples again."""
    task = make_task("restore", {"sigma": [1.0, 2.0], "gray": 0.0})
    assert task.sigma == (1.0, 2.0) and task == make_task("restore", {"sigma": (1.0, 2.0), "gray": 0.0})
    with pytest.raises(MisuseError, match="no task 'invrt'") as e:
        make_task("invrt", {})
    assert "superres" in e.value.hint
    with pytest.raises(MisuseError, match="superres has no option 'facter'"):
        make_task("superres", {"facter": 2})


@pytest.mark.parametrize(
    ("size", "factor"), [((32, 32), 3), ((32, 32), 32), ((32, 32), 64), ((24, 48), 16), ((24, 48), 24)]
)
def test_a_factor_that_does_not_fit(size, factor):
    with pytest.raises(MisuseError, match=f"cannot be reduced by the factor {factor}") as e:
        make_task("superres", {"factor": factor}).check(size)
    assert "--factor 2, 4, 8" in e.value.hint or "--factor 2, 3, 4" in e.value.hint
    make_task("superres", {"factor": 8}).check(size)


def test_another_image_follows_the_channels_of_the_image():
    x = torch.cat([images(4), images(1) / 2], 1)
    task = make_task("pairs", {"channels": 1})
    seen = task(x, SEED, torch.arange(4))
    assert torch.equal(seen, x[:, 4:]) and task.inputs(4) == 1 and task.shown(seen) is seen


def test_classes():
    """One channel for each, and shown in their colors."""
    task = make_task("mask", {"classes": ["#000000", "#0080ff", "#ffffff"]})
    index = torch.randint(0, 3, (4, 24, 48))
    x = torch.cat([images(3), index[:, None] / 127.5 - 1], 1)
    seen = task(x, SEED, torch.arange(4))
    assert task.inputs(3) == 3 and torch.equal(seen, torch.nn.functional.one_hot(index).permute(0, 3, 1, 2) * 2.0 - 1)
    colors = ((task.shown(seen) + 1) * 127.5).round()
    assert colors[index[:, None].expand(-1, 3, -1, -1) == 1].unique().tolist() == [0, 128, 255]
    assert torch.equal(colors[:, 0] == 255, index == 2)
    for wrong in (["ffffff"], ["#fff"], ["#00000g"], [3], "#000000", ["#ffffff", "#000000"], ["#ffffff", "#ffffff"]):
        with pytest.raises(SganError, match="must be sorted colors"):
            make_task("mask", {"classes": wrong})
    for name, options in (("mask", {"classes": 3}), ("pairs", {"channels": 7})):
        with pytest.raises(SganError, match="not valid|must be one of"):
            make_task(name, options)


def test_what_is_shown_has_no_channel_of_the_hole():
    task, x = make_task("inpaint", {}), images(4)
    assert torch.equal(task.shown(task(x, SEED, torch.arange(4))), x * holes((24, 48), SEED, torch.arange(4)))
