"""Directions tried on images: what moves, and what stays, as a classifier sees it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..detectors.image_classifier import ImageClassifier
from ..models.generator import Generator
from ..progress import Progress, silent, track
from ..sampling.generate import SamplingOptions, generate_images
from .directions import Directions


def to_all_layers(
    G: Generator,
    w: Tensor,  # [N, w_dim]
) -> Tensor:  # [N, num_ws, w_dim] float32
    """The same w at every layer."""
    return w.float()[:, None].expand(-1, G.num_ws, -1)


def classify_latents(
    G: Generator,
    ws: Tensor,  # [N, num_ws, w_dim]
    classifier: ImageClassifier,
    progress: Progress = silent,
) -> dict[str, Tensor]:  # by attribute [N, values] float64 log-probabilities
    """What the images of latents show."""
    device = G.device
    images = generate_images(
        G,
        lambda i, j: ws[i:j].to(device),
        range(len(ws)),
        SamplingOptions(),
        lambda what, done, total: progress("looking at seeds", done, total),
    )
    return classifier.classify(torch.stack(list(images)))


def evaluate_directions(
    G: Generator,
    directions: Directions,  # from labels: their settings say which values they go to
    classifier: ImageClassifier,  # that judges
    ws: Tensor,  # [N, num_ws, w_dim]
    strength: float,
    progress: Progress = silent,
) -> dict[str, list[float]]:
    """How far images go along, for each direction.

    `moved`: of the images judged not to have the value, the share in which its odds rise; `reached`: of the same, the
    share judged to have it then; `changed`: of all images, the share judged to have another value of the attribute
    than before; `kept`: the share judged as before, the mean over the other attributes.
    """
    before = classify_latents(G, ws, classifier)
    figures: dict[str, list[float]] = {"moved": [], "reached": [], "changed": [], "kept": []}
    values = directions.settings["values"]
    for which, (name, value) in enumerate(track(values, "trying directions", progress)):
        after = classify_latents(G, directions.move(ws, which, strength), classifier)
        k = classifier.attributes[name].index(value)
        was, now = before[name], after[name]
        without = was.argmax(1) != k
        figures["moved"].append(_share(log_odds(now, k) > log_odds(was, k), without))
        figures["reached"].append(_share(now.argmax(1) == k, without))
        same = {a: (after[a].argmax(1) == before[a].argmax(1)).double().mean().item() for a in before}
        figures["changed"].append(1 - same.pop(name))
        figures["kept"].append(sum(same.values()) / len(same) if same else 1.0)
    return figures


def log_odds(
    logs: Tensor,  # [N, values] log-probabilities
    k: int,
) -> Tensor:  # [N]
    """Of value k against all others. Not from 1 - p, which is rounded to 0 where p is near 1."""
    others = torch.cat([logs[:, :k], logs[:, k + 1 :]], 1).logsumexp(1)
    return logs[:, k] - others


def _share(good: Tensor, among: Tensor) -> float:  # [N] bool, [N] bool
    """1 where there are none."""
    return good[among].double().mean().item() if among.any() else 1.0
