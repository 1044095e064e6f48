"""A full run of `sgan train` without options. Takes minutes: pytest -m slow tests/training/test_demo.py"""

import pytest
import torch
from click.testing import CliRunner

from stylegan_cli.cli import main
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.images import to_uint8
from stylegan_cli.runs import latest_snapshot
from stylegan_cli.sampling.latents import latents_from_seeds
from stylegan_cli.snapshot import load_snapshot


def edge_distance(images):  # uint8 [N, C, H, W]
    """Mean pairwise cosine distance of edge maps: absolute gray differences in x plus y."""
    gray = images.float().mean(1)
    edges = torch.zeros_like(gray)
    edges[:, :, 1:] += (gray[:, :, 1:] - gray[:, :, :-1]).abs()
    edges[:, 1:, :] += (gray[:, 1:, :] - gray[:, :-1, :]).abs()
    maps = torch.nn.functional.normalize(edges.flatten(1))
    n = len(maps)
    return 1 - ((maps @ maps.t()).sum() - n).item() / (n * (n - 1))


def test_edge_distance():
    one = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    one[:, :, 2:4, 2:4] = 255
    assert edge_distance(one.repeat(5, 1, 1, 1)) == pytest.approx(0, abs=1e-5)
    assert edge_distance(torch.cat([one, one.roll(4, 3)])) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_creatures_differ_in_shape(tmp_path):
    result = CliRunner().invoke(main, ["train", "--runs", str(tmp_path), "-q"])
    assert result.exit_code == 0, result.output
    (run,) = tmp_path.iterdir()
    G = load_snapshot(latest_snapshot(run)).G
    with torch.inference_mode():
        fakes = to_uint8(G(latents_from_seeds(range(64), G.config.z_dim)))
    reals = open_dataset(None, size=(32, 32)).images(range(64))
    assert edge_distance(fakes) >= 0.5 * edge_distance(reals)
