"""Fits the same encoder on a number of ranks in float64 and saves the results; a script for test_encoder.py.

python _encoder_ranks.py MODEL.safetensors OUT.pt RANKS
"""

import dataclasses
import sys

import torch

from stylegan_cli import distributed
from stylegan_cli.sampling import counter
from stylegan_cli.snapshot import load_snapshot
from stylegan_cli.training.engine import Engine
from stylegan_cli.training.recipes.encoder import EncoderRecipe
from stylegan_cli.training.recipes.encoder_run import _load_losses, plan_new_encoder
from stylegan_cli.training.state import gather

OPTIONS = {"kimg": 0.4, "batch": 8, "held_out": 4, "passes": 2, "editable": True, "lr": 0.002}
OPTIONS |= {"task": "restore", "skips": True, "adversarial_weight": 0.1, "r1_interval": 4}


class Double(EncoderRecipe):
    """In float64, so that sums in another order are equal."""

    def next_batch(self):
        batch = super().next_batch()
        return dataclasses.replace(batch, images=batch.images.double())


def make_engine(path, ranks):
    snapshot = load_snapshot(path)
    plan = plan_new_encoder(snapshot, gpus=ranks, **OPTIONS)
    for network in (snapshot.G, snapshot.D):
        network.double()
    recipe = Double(plan.config, plan.dataset, snapshot.G, snapshot.D, _load_losses(plan.config, snapshot)[0])
    for network in recipe.networks.values():
        network.double()
    return Engine(recipe)


def work(path, out, ranks):
    normal = counter.normal
    counter.normal = lambda *arguments: normal(*arguments).double()
    try:
        engine = make_engine(path, ranks)
        for _ in range(12):
            engine.step()
    finally:
        counter.normal = normal
    results = {"state": gather(engine.stateful), "means": engine.means.take(), "world": distributed.world_size()}
    flat = torch.cat([p.flatten() for p in engine.recipe.E.parameters()])
    total = distributed.sum_over_ranks(flat.clone())
    results["same on all ranks"] = bool(torch.allclose(total, flat * ranks, rtol=1e-12))
    engine.close()
    if distributed.rank() == 0:
        torch.save(results, out)


if __name__ == "__main__":
    distributed.launch(work, (sys.argv[1], sys.argv[2], int(sys.argv[3])), int(sys.argv[3]))
