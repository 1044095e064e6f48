"""Pivotal tuning (Roich et al. 2021, "Pivotal Tuning for Latent-based Editing of Real Images"): small changes of the
generator so that the images of projected latents, the pivots, match their targets.

    minimize over the weights of synthesis:  d(G(w_pivot), target) + mean |G(w_pivot) - target|^2
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..detectors.distances import Loss
from ..models.generator import Generator
from ..optimizers import Adam
from ..progress import Progress, silent
from .projector import ProjectedLatents, batch_size

_LR = 3e-4


def tune(
    G: Generator,
    targets: Tensor,  # [N, C, H, W] in [-1, 1]
    pivots: ProjectedLatents,  # of the targets
    loss: Loss,
    steps: int,
    mask: Tensor | None = None,  # [1, 1, H, W]: 1 counts, 0 does not
    batch: int | None = None,  # pivots at a time, all in each step; None: depends on their size
    progress: Progress = silent,
) -> tuple[Generator, Tensor, int]:  # copy with tuned synthesis, distances [N] of its images, steps done
    """Tune one generator for all targets. Ctrl-C stops early and returns the result so far."""
    batch = batch or batch_size(targets)
    tuned = copy.deepcopy(G)
    tuned.synthesis.requires_grad_(True)
    weights = list(tuned.synthesis.parameters())
    optimizer = Adam(weights, lr=_LR)
    parts = [slice(i, i + batch) for i in range(0, len(targets), batch)]
    with torch.no_grad():
        features = [loss.features(targets[part]) for part in parts]

    def distances(part: slice, target_features: list[Tensor]) -> tuple[Tensor, Tensor]:  # [n] loss, [n] squared error
        noise = "const" if pivots.noise is None else [maps[part] for maps in pivots.noise]
        images = tuned.synthesis(pivots.ws[part], noise=noise)
        if mask is not None:
            images = torch.where(mask.bool(), images, targets[part])
        return loss.distance(loss.features(images), target_features), (images - targets[part]).square().mean((1, 2, 3))

    done, figure = 0, ""
    progress("tuning", 0, steps)
    try:
        while done < steps:
            total = torch.zeros([], device=targets.device)
            for part, target_features in zip(parts, features, strict=True):
                distance, squared_error = distances(part, target_features)
                (distance + squared_error).sum().backward()
                total += distance.detach().sum()
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done % 10 == 0:
                figure = f", distance={total / len(targets):.4f}"
            progress(f"tuning{figure}", done, steps)
    except KeyboardInterrupt:
        if not done:
            raise
    tuned.requires_grad_(False)
    with torch.no_grad():
        final = torch.cat([distances(part, target)[0] for part, target in zip(parts, features, strict=True)])
    return tuned, final, done
