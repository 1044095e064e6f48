"""Two ranks give the same run as one."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent / "_ranks.py"


@pytest.fixture(scope="module")
def results(rgb_set, tmp_path_factory):
    """Results of the same run on one rank, in this process, and on two ranks, in other processes."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, str(SCRIPT), str(rgb_set), str(folder / "2.pt"), "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    runpy.run_path(str(SCRIPT))["work"](str(rgb_set), str(folder / "1.pt"), 1)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    one, two = (torch.load(folder / f"{ranks}.pt", weights_only=True) for ranks in (1, 2))
    assert (one["world"], two["world"]) == (1, 2)
    return one, two | {"stdout": stdout}


def flat(value, name=""):
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{name}.{key}").items()}
    if isinstance(value, (list, tuple)):
        return flat(dict(enumerate(value)), name)
    return {name: torch.as_tensor(value, dtype=torch.float64)} if value is not None else {}


def test_float64_for_50_steps_with_both_regularizers(results):
    """With adaptive augmentation, and a guide in both losses."""
    one, two = (flat(r["state"]) for r in results)
    assert 0.2 < one[".augment.p"] != pytest.approx(0.3)
    assert one.keys() == two.keys() and any("path_length" in k for k in one)
    worst = {k: (one[k] - two[k]).abs().max().item() for k in one if one[k].numel()}
    assert max(worst.values()) < 1e-9, max(worst, key=worst.get)


def test_a_growing_run(results):
    """With AC-GAN, R1 and R2. Instance norm makes some gradients almost 0, and Adam divides by their size."""
    one, two = (flat(r["growing"]) for r in results)
    assert one[".growth.stage"] == 2 and one.keys() == two.keys()
    worst = {k: (one[k] - two[k]).abs().max().item() for k in one if one[k].numel()}
    assert max(worst.values()) < 1e-6, max(worst, key=worst.get)


def test_a_run_with_pairs_of_images_and_moving_settings(results):
    one, two = (flat(r["relativistic"]) for r in results)
    assert one.keys() == two.keys() and one[".augment.p"] > 0.3
    worst = {k: (one[k] - two[k]).abs().max().item() for k in one if one[k].numel()}
    assert max(worst.values()) < 1e-9, max(worst, key=worst.get)


def test_a_run_with_batch_and_spectral_normalization(results):
    one, two = (flat(r["normalized"]) for r in results)
    assert one.keys() == two.keys() and any(name.endswith(".u") for name in one)
    worst = {k: (one[k] - two[k]).abs().max().item() for k in one if one[k].numel()}
    # Normalization divides by deviations that are almost 0, which enlarges rounding in the average's standing moments.
    moments = {k: x for k, x in worst.items() if k.startswith(".G_ema") and k.endswith((".mean", ".variance"))}
    assert max(moments.values()) < 1e-6, max(moments, key=moments.get)
    worst = {k: x for k, x in worst.items() if k not in moments}
    assert max(worst.values()) < 1e-9, max(worst, key=worst.get)


@pytest.mark.parametrize("cfg", ["demo-lapgan", "demo-stackgan"])
def test_chains_of_generators(results, cfg):
    """In turn, past the start of the second stage, and at once."""
    one, two = (flat(r[cfg]) for r in results)
    assert one.keys() == two.keys() and any("optimizer.G 8x8" in name for name in one)
    worst = {k: (one[k] - two[k]).abs().max().item() for k in one if one[k].numel()}
    assert max(worst.values()) < 1e-9, max(worst, key=worst.get)


def test_a_run_with_magnitudes_of_features(results):
    one, two = (flat(r["alias-free"]) for r in results)
    assert one.keys() == two.keys()
    worst = {k: (one[k] - two[k]).abs().max().item() for k in one if one[k].numel()}
    assert max(worst.values()) < 1e-9, max(worst, key=worst.get)
    magnitudes = [one[k] for k in one if k.startswith(".G.") and k.endswith("magnitude_ema")]
    assert len(magnitudes) == 9 and all(value != 1 for value in magnitudes)


def test_statistics_cover_all_ranks(results):
    one, two = (r["means"] for r in results)
    assert (
        one.keys()
        == two.keys()
        >= {"loss/G", "loss/D", "r1/penalty", "path/length", "score/real", "loss/guide hat=tall"}
    )
    assert all(two[k] == pytest.approx(one[k], rel=1e-8) for k in one)


def test_gradients_of_the_first_step_in_float32(results):
    one, two = (r["gradients"] for r in results)
    assert one.keys() == two.keys() == {"G0", "G1", "D0", "D1"}
    for phase in one:
        assert len(one[phase]) == len(two[phase]) > 5
        a, b = (torch.cat([g.flatten() for g in r[phase]]) for r in (one, two))
        assert (a - b).norm() <= 1e-4 * a.norm(), phase
        assert (a - b).abs().max() <= 1e-4 * a.abs().max(), phase


def test_memory_that_one_rank_lacks_halves_the_parts_of_all(results):
    """The gradients of the first step are those of two parts on each rank."""
    assert [r["batch_gpu"] for r in results] == [4, 2]


def test_all_ranks_have_the_same_weights(results):
    assert results[1]["same on all ranks"]


def test_an_error_on_a_rank_is_reported_as_on_a_single_one(results):
    assert results[1]["stdout"] == "SganError|The images are gone.|Bring them back.\n"
