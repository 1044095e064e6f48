"""Directions that move one attribute and leave the others, found from labels of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..detectors.image_classifier import ImageClassifier
from ..errors import SganError
from ..models.generator import Generator
from ..progress import Progress, silent
from ..snapshot import fingerprint
from .directions import DEFAULT_STRENGTH, Directions, concatenate, sample_w, std_along, unit_vectors
from .evaluate_directions import classify_latents, evaluate_directions, to_all_layers
from .linear import White, auc, held_out, logistic, orthogonalize, whiten
from .seed_labels import SeedLabels

TEST_STRENGTH = 6.0  # standard deviations at which directions are tried
MOVED = 0.85  # of the images tried must move towards the value: then of others four in five do
RARE = 0.03  # a value that fewer seeds have, or that so few lack, gives no direction
_SKILL = 0.3  # an attribute that is told worse than this on real images is not used
_SAME = 0.7  # correlation of two values from which on they are taken for one thing with two names
_WEIGHTS = (60.0, 20.0, 10.0)  # of the others, see `orthogonalize`: the first with which enough images move
_UNTRIED = 20.0  # where there is no image to try directions on
_TRIED = 200  # seeds, those after the ones that directions were found from

_NONE = "No value of these attributes is had by some seeds, and lacked by some."


@dataclass(frozen=True)
class _Known:
    """What labeled seeds tell of K values."""

    values: list[list[str]]  # [K] name of the attribute, value
    names: list[str]  # [K] of the directions
    normals: Tensor  # [K, w_dim] in white coordinates
    aside: Tensor  # [K, K] bool: which values each one shall leave alone
    white: White
    every: Tensor  # [M, w_dim] that say how w is spread
    figures: dict[str, list[float]]  # name -> [K]
    model: str  # fingerprint

    def directions(
        self,
        which: Sequence[int],
        weight: float,  # see `orthogonalize`
        layers: Sequence[int],
    ) -> Directions:
        z = [orthogonalize(self.normals[k], self.normals[self.aside[k]], weight) for k in which]
        vectors = unit_vectors(self.white.back(torch.stack(z)))
        return Directions(
            vectors=vectors,
            scales=std_along(self.every, vectors),
            names=[self.names[k] for k in which],
            layers=list(layers),
            method="labels",
            model=self.model,
            strength=TEST_STRENGTH,
            figures={name: [values[k] for k in which] for name, values in self.figures.items()},
            settings={"values": [self.values[k] for k in which]},
        )


def find_from_images(
    G: Generator,
    classifier: ImageClassifier,
    layers: Sequence[int],  # indices of w that the directions are meant for
    num: int,  # seeds, from 0 on
    wanted: Sequence[str] | None = None,  # attributes; None: all. The others are left alone in any case
    class_index: int | None = None,
    settings: dict | None = None,  # for the file
    model: str | None = None,  # fingerprint of G, where it is known
    progress: Progress = silent,
) -> Directions:
    """A direction for each value that the classifier knows, that the model draws, and that other seeds move towards:
    of several the one that leaves the other attributes most alone.

    The rest stands in the settings as `left_out`. Raises SganError if no value is left.
    """
    unknown = [name for name, r in classifier.recognition.items() if r.skill < _SKILL]
    left_out = {name: "not recognized on real images" for name in unknown if wanted is None or name in wanted}
    w = sample_w(G, range(num), class_index)
    told = classify_latents(G, to_all_layers(G, w), classifier, progress)
    shares = {name: logs.exp() for name, logs in told.items() if name not in unknown}
    labels = [SeedLabels(name, classifier.attributes[name], share) for name, share in shares.items()]
    known = _learn(labels, w, w, left_out, model or fingerprint(G))
    pending = [k for k, (name, _) in enumerate(known.values) if wanted is None or name in wanted]
    tried = to_all_layers(G, sample_w(G, range(num, num + _TRIED), class_index))
    found: dict[int, Directions] = {}
    for weight in _WEIGHTS if pending else ():
        some = known.directions(pending, weight, layers)
        figures = evaluate_directions(G, some, classifier, tried, TEST_STRENGTH, progress)
        some = replace(some, figures={**some.figures, "weight": [weight] * len(some), **figures})
        found |= {k: some.only([i]) for i, k in enumerate(pending)}
        pending = [k for k in pending if found[k].figures["moved"][0] < MOVED]
        if not pending:
            break
    left_out |= {known.names[k]: f"moves {found[k].figures['moved'][0]:.0%}" for k in pending}
    good = [found[k] for k in sorted(found) if k not in pending]
    if not good:
        raise SganError(f"No value of these attributes moves {MOVED:.0%} of the images towards it.")
    return _with_settings(concatenate(good), num, class_index, left_out, settings)


def find_from_table(
    G: Generator,
    seeds: Sequence[int],  # [N]
    labels: Sequence[SeedLabels],  # of these seeds
    layers: Sequence[int],  # indices of w that the directions are meant for
    num: int,  # seeds, from 0 on, that say how w is spread
    wanted: Sequence[str] | None = None,  # attributes; None: all. The others are left alone in any case
    class_index: int | None = None,
    settings: dict | None = None,  # for the file
    model: str | None = None,  # fingerprint of G, where it is known
) -> Directions:
    """A direction for each value of a table. Raises SganError if all are too rare."""
    left_out: dict[str, str] = {}
    w, every = (sample_w(G, some, class_index) for some in (seeds, range(num)))
    known = _learn(labels, w, every, left_out, model or fingerprint(G))
    which = [k for k, (name, _) in enumerate(known.values) if wanted is None or name in wanted]
    if not which:
        raise SganError(_NONE)
    found = known.directions(which, _UNTRIED, layers)
    return _with_settings(replace(found, strength=DEFAULT_STRENGTH), num, class_index, left_out, settings)


def _learn(
    labels: Sequence[SeedLabels],  # of N seeds
    w: Tensor,  # [N, w_dim] where they are
    every: Tensor,  # [M, w_dim] that say how w is spread
    left_out: dict[str, str],  # value -> why: what is too rare is added
    model: str,  # fingerprint
) -> _Known:
    """A linear classifier for each value that is not too rare, measured on seeds that are held out."""
    chosen = _frequent(labels, left_out)
    white, held = whiten(every), held_out(len(w))
    z = white.of(w)
    has = torch.stack([one.hard()[:, k] for one, k in chosen], 1)
    normals = logistic(z[~held], torch.stack([one.shares[:, k] for one, k in chosen], 1)[~held])
    alike = torch.corrcoef(has.T).reshape(len(chosen), -1).abs() >= _SAME
    elsewhere = torch.tensor([[one.name != other.name for other, _ in chosen] for one, _ in chosen])
    scores = z[held] @ normals.T
    figures = {
        "share": has.mean(0).tolist(),  # of the seeds that have it
        "auc": [auc(scores[:, k], has[held, k] > 0) for k in range(len(chosen))],  # of the linear classifier
    }
    values, names = [[one.name, one.values[k]] for one, k in chosen], [one.direction_name(k) for one, k in chosen]
    return _Known(values, names, normals, elsewhere & ~alike, white, every, figures, model)


def _frequent(
    labels: Sequence[SeedLabels],
    left_out: dict[str, str],  # value -> why
) -> list[tuple[SeedLabels, int]]:  # an attribute, and which of its values
    """The values that enough seeds have, and enough lack. Of two values one is enough: the other is its opposite."""
    chosen = []
    for one in labels:
        shares = one.hard().mean(0).tolist()
        for k in range(1 if len(shares) == 2 else 0, len(shares)):
            if RARE <= shares[k] <= 1 - RARE:
                chosen.append((one, k))
            else:
                left_out[one.direction_name(k)] = f"{shares[k]:.1%} of the seeds have it"
    if not chosen:
        raise SganError(_NONE)
    return chosen


def _with_settings(
    found: Directions, num: int, class_index: int | None, left_out: dict[str, str], settings: dict | None
) -> Directions:
    more = {"num": num, "class": class_index, "left_out": left_out, **(settings or {})}
    return replace(found, settings={**found.settings, **more})
