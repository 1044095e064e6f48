"""Directions that change one attribute and preserve the others, derived from labels of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..detectors.image_classifier import ImageClassifier
from ..errors import SganError
from ..models.generator import Generator
from ..progress import Progress, silent
from ..sampling.labels import Choice
from ..snapshot import fingerprint
from .directions import DEFAULT_STRENGTH, Directions, concatenate, sample_w, std_along, unit_vectors
from .evaluate_directions import classify_latents, evaluate_directions, to_all_layers
from .linear import Whitening, auc, fit_logistic, fit_whitening, holdout_mask, orthogonalize
from .seed_labels import SeedLabels

TEST_STRENGTH = 6.0  # standard deviations at which directions are evaluated
MIN_MOVED = 0.85  # fraction of the test images that must move toward the value: then four in five others do
MIN_SHARE = 0.03  # values that fewer seeds have, or lack, give no direction
_MIN_SKILL = 0.3  # attributes that the classifier recognizes worse on real images are not used
_MAX_CORRELATION = 0.7  # values that correlate more are considered the same, under two names
_WEIGHTS = (60.0, 20.0, 10.0)  # see `orthogonalize`; the first with which enough images move is used
_UNTESTED_WEIGHT = 20.0  # if there is no classifier to test directions with
_NUM_TEST_SEEDS = 200  # seeds after those that directions are derived from

_NO_VALUES = "No value of these attributes is present for some seeds and absent for others."


@dataclass(frozen=True)
class _FittedValues:
    """K values of attributes, with linear classifiers fitted to labeled seeds."""

    values: list[list[str]]  # [K] name of the attribute, value
    names: list[str]  # [K] of the directions
    normals: Tensor  # [K, w_dim] in whitened coordinates
    preserved: Tensor  # [K, K] bool: the values that each direction should preserve
    whitening: Whitening
    reference: Tensor  # [M, w_dim] sample of w that defines the scales
    figures: dict[str, list[float]]  # name -> [K]
    model: str  # fingerprint

    def directions(
        self,
        indices: Sequence[int],
        weight: float,  # see `orthogonalize`
        layers: Sequence[int],
    ) -> Directions:
        z = [orthogonalize(self.normals[k], self.normals[self.preserved[k]], weight) for k in indices]
        vectors = unit_vectors(self.whitening.directions_to_w(torch.stack(z)))
        return Directions(
            vectors=vectors,
            scales=std_along(self.reference, vectors),
            names=[self.names[k] for k in indices],
            layers=list(layers),
            method="labels",
            model=self.model,
            strength=TEST_STRENGTH,
            figures={name: [values[k] for k in indices] for name, values in self.figures.items()},
            settings={"values": [self.values[k] for k in indices]},
        )


def find_from_images(
    G: Generator,
    classifier: ImageClassifier,
    layers: Sequence[int],  # w indices that the directions are for
    num: int,  # number of seeds, starting at 0
    attributes: Sequence[str] | None = None,  # to find directions for; None: all. The others are always preserved
    class_index: Choice | None = None,
    settings: dict | None = None,  # saved in the file
    model: str | None = None,  # fingerprint of G, if known
    progress: Progress = silent,
) -> Directions:
    """Find a direction for each value that the classifier recognizes and the model generates, if it also works for
    other seeds. Of the directions that do, choose the one that best preserves the other attributes.

    The setting `left_out` says why there is none for other values. Raises SganError if there are no directions.
    """
    unrecognized = [name for name, r in classifier.recognition.items() if r.skill < _MIN_SKILL]
    left_out = {
        name: "not recognized on real images" for name in unrecognized if attributes is None or name in attributes
    }
    w = sample_w(G, range(num), class_index)
    log_probabilities = classify_latents(G, to_all_layers(G, w), classifier, progress)
    labels = [
        SeedLabels(name, classifier.attributes[name], logs.exp())
        for name, logs in log_probabilities.items()
        if name not in unrecognized
    ]
    fitted = _fit_values(labels, w, w, left_out, model or fingerprint(G))
    undecided = [k for k, (name, _) in enumerate(fitted.values) if attributes is None or name in attributes]
    test_ws = to_all_layers(G, sample_w(G, range(num, num + _NUM_TEST_SEEDS), class_index))
    best: dict[int, Directions] = {}
    for weight in _WEIGHTS if undecided else ():
        candidates = fitted.directions(undecided, weight, layers)
        figures = evaluate_directions(G, candidates, classifier, test_ws, TEST_STRENGTH, progress)
        figures = {**candidates.figures, "weight": [weight] * len(candidates), **figures}
        candidates = replace(candidates, figures=figures)
        best |= {k: candidates.select([i]) for i, k in enumerate(undecided)}
        undecided = [k for k in undecided if best[k].figures["moved"][0] < MIN_MOVED]
        if not undecided:
            break
    left_out |= {fitted.names[k]: f"moves {best[k].figures['moved'][0]:.0%}" for k in undecided}
    accepted = [best[k] for k in sorted(best) if k not in undecided]
    if not accepted:
        raise SganError(
            f"No value of these attributes has a direction that moves {MIN_MOVED:.0%} of the images toward it."
        )
    return _with_settings(concatenate(accepted), num, class_index, left_out, settings)


def find_from_table(
    G: Generator,
    seeds: Sequence[int],  # [N]
    labels: Sequence[SeedLabels],  # of these seeds
    layers: Sequence[int],  # w indices that the directions are for
    num: int,  # number of seeds, starting at 0, that define the scales
    attributes: Sequence[str] | None = None,  # to find directions for; None: all. The others are always preserved
    class_index: Choice | None = None,
    settings: dict | None = None,  # saved in the file
    model: str | None = None,  # fingerprint of G, if known
) -> Directions:
    """Find a direction for each value in a table. Raises SganError if all values are too rare."""
    left_out: dict[str, str] = {}
    w, reference = (sample_w(G, chosen_seeds, class_index) for chosen_seeds in (seeds, range(num)))
    fitted = _fit_values(labels, w, reference, left_out, model or fingerprint(G))
    indices = [k for k, (name, _) in enumerate(fitted.values) if attributes is None or name in attributes]
    if not indices:
        raise SganError(_NO_VALUES)
    directions = fitted.directions(indices, _UNTESTED_WEIGHT, layers)
    return _with_settings(replace(directions, strength=DEFAULT_STRENGTH), num, class_index, left_out, settings)


def _fit_values(
    labels: Sequence[SeedLabels],  # of N seeds
    w: Tensor,  # [N, w_dim] of these seeds
    reference: Tensor,  # [M, w_dim] sample of w that defines the scales
    left_out: dict[str, str],  # value -> reason; values that are too rare are added
    model: str,  # fingerprint
) -> _FittedValues:
    """Fit a linear classifier for each value that is not too rare, and evaluate it on held-out seeds."""
    chosen = _choose_values(labels, left_out)
    whitening, is_held_out = fit_whitening(reference), holdout_mask(len(w))
    z = whitening.to_white(w)
    has_value = torch.stack([attribute.one_hot()[:, k] for attribute, k in chosen], 1)
    targets = torch.stack([attribute.probabilities[:, k] for attribute, k in chosen], 1)
    normals = fit_logistic(z[~is_held_out], targets[~is_held_out])
    same_value = torch.corrcoef(has_value.T).reshape(len(chosen), -1).abs() >= _MAX_CORRELATION
    other_attribute = torch.tensor([[a.name != b.name for b, _ in chosen] for a, _ in chosen])
    scores = z[is_held_out] @ normals.T
    figures = {
        "share": has_value.mean(0).tolist(),
        "auc": [auc(scores[:, k], has_value[is_held_out, k] > 0) for k in range(len(chosen))],
    }
    values = [[attribute.name, attribute.values[k]] for attribute, k in chosen]
    names = [attribute.direction_name(k) for attribute, k in chosen]
    return _FittedValues(values, names, normals, other_attribute & ~same_value, whitening, reference, figures, model)


def _choose_values(
    labels: Sequence[SeedLabels],
    left_out: dict[str, str],  # value -> reason
) -> list[tuple[SeedLabels, int]]:  # attribute, index of its value
    """Choose the values that enough seeds have, and enough lack; only one of two, as the other is its opposite."""
    chosen = []
    for attribute in labels:
        shares = attribute.one_hot().mean(0).tolist()
        for k in range(1 if len(shares) == 2 else 0, len(shares)):
            if MIN_SHARE <= shares[k] <= 1 - MIN_SHARE:
                chosen.append((attribute, k))
            else:
                left_out[attribute.direction_name(k)] = f"{shares[k]:.1%} of the seeds have it"
    if not chosen:
        raise SganError(_NO_VALUES)
    return chosen


def _with_settings(
    directions: Directions, num: int, class_index: Choice | None, left_out: dict[str, str], settings: dict | None
) -> Directions:
    more = {"num": num, "class": class_index, "left_out": left_out, **(settings or {})}
    return replace(directions, settings={**directions.settings, **more})
