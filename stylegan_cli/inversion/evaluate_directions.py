"""Evaluation of directions with a classifier: what changes in the images, and what does not."""

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
    """Use the same w in every layer."""
    return w.float()[:, None].expand(-1, G.num_ws, -1)


def classify_latents(
    G: Generator,
    ws: Tensor,  # [N, num_ws, w_dim]
    classifier: ImageClassifier,
    progress: Progress = silent,
) -> dict[str, Tensor]:  # attribute -> log-probabilities [N, values] float64
    """Classify the images of latents."""
    device = G.device
    images = generate_images(
        G,
        lambda i, j: ws[i:j].to(device),
        range(len(ws)),
        SamplingOptions().for_measuring(),
        lambda _, done, total: progress("classifying images", done, total),
    )
    return classifier.classify(torch.stack(list(images)))


def evaluate_directions(
    G: Generator,
    directions: Directions,  # from labels: their settings contain the value that each moves toward
    classifier: ImageClassifier,
    ws: Tensor,  # [N, num_ws, w_dim]
    strength: float,
    progress: Progress = silent,
) -> dict[str, list[float]]:  # figure -> one number per direction
    """Measure the effect of each direction on images, according to the classifier.

    `moved`: among the images without the value, the fraction whose odds of the value increase; `reached`: among the
    same, the fraction that has the value afterwards; `changed`: among all images, the fraction with another value of
    the attribute than before; `kept`: the fraction with the same value as before, averaged over the other attributes.
    """
    before = classify_latents(G, ws, classifier)
    figures: dict[str, list[float]] = {"moved": [], "reached": [], "changed": [], "kept": []}
    values = directions.settings["values"]
    for index, (name, value) in enumerate(track(values, "evaluating directions", progress)):
        after = classify_latents(G, directions.move(ws, index, strength), classifier)
        k = classifier.attributes[name].index(value)
        lacks_value = before[name].argmax(1) != k
        figures["moved"].append(_fraction(log_odds(after[name], k) > log_odds(before[name], k), lacks_value))
        figures["reached"].append(_fraction(after[name].argmax(1) == k, lacks_value))
        same = {a: (after[a].argmax(1) == before[a].argmax(1)).double().mean().item() for a in before}
        figures["changed"].append(1 - same.pop(name))
        figures["kept"].append(sum(same.values()) / len(same) if same else 1.0)
    return figures


def log_odds(
    log_probabilities: Tensor,  # [N, values]
    k: int,
) -> Tensor:  # [N]
    """Return the log-odds of value k. Does not compute 1 - p, which rounds to 0 where p is near 1."""
    others = torch.cat([log_probabilities[:, :k], log_probabilities[:, k + 1 :]], 1).logsumexp(1)
    return log_probabilities[:, k] - others


def _fraction(condition: Tensor, among: Tensor) -> float:  # [N] bool, [N] bool
    """Return the fraction that meets the condition; 1 if there are none."""
    return condition[among].double().mean().item() if among.any() else 1.0
