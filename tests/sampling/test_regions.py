"""What is seen of sparse class maps."""

import torch
from torch.nn import functional as F

from stylegan_cli.sampling.degrade import Mask
from stylegan_cli.sampling.regions import UNKNOWN_LEVEL, class_levels, revealed


def maps(n=400, size=32):
    rows = torch.zeros(n, size, size, dtype=torch.int64)
    rows[:, :, size // 2 :] = 2
    rows[:, 3, 3:9] = 1
    return rows


def test_points_of_each_class_strokes_or_all():
    seen = revealed(maps(), 4, 0, torch.arange(400))
    counts = F.one_hot(torch.where(seen, maps(), 4), 5)[..., :4].sum((1, 2))
    assert (counts[:, :3] > 0).all() and (counts[:, 3] == 0).all()
    whole = seen.flatten(1).all(1)
    points = (counts[:, 0] <= 10) & (counts[:, 0] == counts[:, 2])
    assert 0.12 < whole.float().mean() < 0.28 and 0.5 < points.float().mean() < 0.7
    few = counts[points]
    assert (few[:, 1] == few[:, 0].clamp(max=6)).float().mean() > 0.98
    assert few[:, 0].unique().tolist() == list(range(1, 11))


def test_each_image_by_itself():
    index = torch.arange(50)
    seen = revealed(maps(50), 3, 1, index)
    assert torch.equal(seen[7:9], revealed(maps(2), 3, 1, index[7:9]))
    assert not torch.equal(seen, revealed(maps(50), 3, 2, index))


def test_points_of_large_maps_are_disks_within_their_class():
    large = maps(40, 200)
    seen = revealed(large, 3, 0, torch.arange(40))
    counts = F.one_hot(torch.where(seen, large, 3), 4)[..., :3].sum((1, 2))
    points = counts[:, 2] < 300
    assert points.any() and (counts[points, 2] > 9).all() and (counts[:, 1] <= 6).all()


def test_channels():
    task = Mask(("#000000", "#ff0000", "#ffffff"), sparse=True)
    levels = torch.tensor([[[0, 1], [2, UNKNOWN_LEVEL]]]).float()[None] / 127.5 - 1
    assert class_levels(levels)[0].tolist() == [[0, 1], [2, UNKNOWN_LEVEL]]
    inputs = task.channels_of(class_levels(levels))
    assert inputs[0].flatten(1).T.tolist() == [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [0, 0, 0]]
    assert task.shown(inputs)[0].flatten(1).T.tolist() == [[-1, -1, -1], [1, -1, -1], [1, 1, 1], [0, 0, 0]]
    whole = Mask(task.classes)
    image = torch.cat([torch.zeros(1, 3, 16, 16), (maps(1, 16)[:, None].float() / 127.5 - 1)], 1)
    assert (whole(image, 0, torch.tensor([0])) != 0).all()
    seen = torch.cat([task(image, 0, torch.tensor([i])) for i in range(20)])
    assert (seen == 0).any() and task.inputs(4) == 3
