"""Fitting of segmenters to a few annotated images, see sampling/segmenter.py.

linear    logistic regression of all layers' features, each of mean 0 and variance 1 (DatasetGAN, Zhang et al. 2021, has
          networks with hidden layers in its place)
nearest   the mean feature of each class, averaged over images; the largest cosine wins (Endo and Kanamori 2021,
          "Few-shot Semantic Image Synthesis", section 3.2, with the features of one layer). Of sparse annotations, the
          class of each annotated pixel is also that of its three most similar pixels

Where most pixels are not annotated, nobody knows how frequent a class is: all are equal in the regression, and their
frequencies are then estimated from the pixels without annotation (Saerens et al. 2002, "Adjusting the Outputs of a
Classifier to New a Priori Probabilities"). That fits the annotated pixels alone; to spread their classes to similar
pixels first was worse, at every threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.generator import Generator
from ..optimizers import LBFGS
from ..progress import Progress, silent
from ..sampling.segmenter import Linear, class_maps, features_at, split_by_layer

METHODS = ("linear", "nearest")
UNKNOWN = -1  # label of pixels that are not annotated

_PIXELS = 4096  # of one image, at most
_NUMBERS = 5e7  # features of all pixels together, at most: 200 MB
_BALANCE = 0.75  # a class of n pixels weighs n^0.75: small classes more than by their pixels
_L2 = 0.02  # for 5000 pixels; more for fewer
_STEPS = 60
_FLOOR = 0.1  # frequency of a class: at least this fraction of that if all were equal
_ALIKE = 3  # pixels that get the class of one that is most similar to them
_SHARPNESS = 20.0  # a difference in cosine of 0.05 is a factor of e between the probabilities of class means
_ABSENT = -1e4  # bias of a class that does not occur
_FOLDS = 8


@dataclass(frozen=True, eq=False)
class Example:
    """An annotated image."""

    ws: Tensor  # [1, num_ws, w_dim]
    labels: Tensor  # [H, W] int64; UNKNOWN: not annotated
    options: dict[str, Any] = field(default_factory=dict)  # of `Synthesis.forward`


@dataclass(frozen=True, eq=False)
class Samples:
    """Pixels of one image."""

    features: Tensor  # [M, D]
    labels: Tensor  # [M]; UNKNOWN: not annotated
    counts: Tensor  # [M] the number of pixels of the image that each stands for


def read_samples(
    G: Generator,
    examples: Sequence[Example],
    seed: int = 0,
) -> list[Samples]:
    """Read the features of pixels of each image: all of them, or as many of each class as there is room for."""
    size = G.config.height, G.config.width
    width = sum(row.channels for row in G.layers if row.kind == "conv")
    limit = int(min(_PIXELS, max(_NUMBERS / width / len(examples), 64)))
    samples = []
    for i, example in enumerate(examples):
        labels = example.labels.flatten()
        chosen, counts = _choose_pixels(labels, limit, torch.Generator().manual_seed(seed + i))
        found = features_at(G.synthesis, example.ws, chosen[None].to(G.device), size, **example.options)[0]
        samples.append(Samples(found, labels[chosen].to(G.device), counts.to(G.device)))
    return samples


def _choose_pixels(labels: Tensor, limit: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of at most `limit` pixels, of small classes all, and the number of pixels that each stands for."""
    order = torch.randperm(len(labels), generator=generator)
    groups = sorted((order[labels[order] == k] for k in labels.unique()), key=len)
    chosen, counts = [], []
    for i, group in enumerate(groups):
        share = max((limit - sum(map(len, chosen))) // (len(groups) - i), 1)
        chosen.append(group[:share])
        counts.append(torch.full((len(chosen[-1]),), len(group) / len(chosen[-1])))
    return torch.cat(chosen), torch.cat(counts)


def fit(
    G: Generator,
    samples: Sequence[Samples],
    num_classes: int,
    method: str = "linear",  # of METHODS
    threshold: float = 0.5,  # cosine of pixels that get the class of a similar one, of sparse annotations by 'nearest'
) -> Linear:
    """Fit a segmenter."""
    weight, bias = _regress(samples, num_classes) if method == "linear" else _match(samples, num_classes, threshold)
    return Linear(split_by_layer(G.synthesis, weight), bias)


def _regress(samples: Sequence[Samples], num_classes: int) -> tuple[Tensor, Tensor]:  # [K, D], [K]
    features, labels, counts = (
        torch.cat([getattr(s, name) for s in samples]) for name in ("features", "labels", "counts")
    )
    known = labels != UNKNOWN
    frequency = counts / counts.sum()
    mean = frequency @ features
    parts = zip(frequency.split(256), features.split(256), strict=True)  # all squares would take much memory
    square = torch.stack([share @ part.square() for share, part in parts]).sum(0)
    scale = (square - mean.square()).clamp_min(1e-12).sqrt().clamp_min(1e-4)
    features.sub_(mean).div_(scale)
    given, target = (features, labels) if known.all() else (features[known], labels[known])
    per_class = torch.zeros(num_classes, device=labels.device).index_add_(0, target, counts[known])
    is_sparse = bool(counts[~known].sum() > counts[known].sum())
    importance = counts[known] * per_class.clamp_min(1).pow(-1 if is_sparse else _BALANCE - 1)[target]
    weight, bias = _descend(given, target, importance / importance.sum(), num_classes)
    if is_sparse:
        bias = bias + _BALANCE * _frequencies(features @ weight.t() + bias, frequency).log()
    bias = torch.where(per_class > 0, bias, torch.full_like(bias, _ABSENT))
    weight = weight / scale
    return weight, bias - weight @ mean


def _descend(features: Tensor, labels: Tensor, importance: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Logistic regression of features of mean 0 and variance 1."""
    weight = features.new_zeros(num_classes, features.shape[1], requires_grad=True)
    bias = features.new_zeros(num_classes, requires_grad=True)
    decay = _L2 * max(5000 / len(labels), 1) ** 0.7
    options = {"max_iter": _STEPS, "history_size": 10, "line_search_fn": "strong_wolfe"}
    optimizer = LBFGS([weight, bias], **options)

    def closure() -> float:
        optimizer.zero_grad()
        errors = F.cross_entropy(features @ weight.t() + bias, labels, reduction="none")
        loss = (errors * importance).sum() + decay / 2 * weight.square().sum()
        loss.backward()
        return loss.item()

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach(), bias.detach()


def _frequencies(
    logits: Tensor,  # [M, K] of a classifier for which all classes are equally frequent
    frequency: Tensor,  # [M] of the pixels
) -> Tensor:  # [K]
    """The frequency of each class by expectation maximization."""
    count = logits.shape[1]
    result = logits.new_full((count,), 1 / count)
    for _ in range(30):
        found = frequency @ (logits + _BALANCE * result.log()).softmax(1) + _FLOOR / count
        result = found / found.sum()
    return result


def _match(
    samples: Sequence[Samples], num_classes: int, threshold: float
) -> tuple[Tensor, Tensor]:  # [K, D] of one length, [K]
    means: list[list[Tensor]] = [[] for _ in range(num_classes)]
    for sample in samples:
        labels = sample.labels
        if (sample.counts * (labels == UNKNOWN)).sum() > (sample.counts * (labels != UNKNOWN)).sum():
            labels = propagate(sample.features, labels, threshold)
        for k in labels[labels != UNKNOWN].unique().tolist():
            chosen = labels == k
            share = sample.counts[chosen] / sample.counts[chosen].sum()
            means[k].append(share @ sample.features[chosen])
    absent = samples[0].features.new_zeros(samples[0].features.shape[1])
    weight = torch.stack([F.normalize(torch.stack(m).mean(0), dim=0) if m else absent for m in means])
    norm = torch.cat([sample.features for sample in samples]).norm(dim=1).mean()
    weight = weight * (_SHARPNESS / norm)  # for those who need probabilities
    return weight, weight.new_tensor([0.0 if m else _ABSENT for m in means])


def propagate(
    features: Tensor,  # [M, D]
    labels: Tensor,  # [M]
    threshold: float,
) -> Tensor:  # [M]
    """Give the class of each annotated pixel to its most similar ones, if their cosine is above the threshold; the
    largest cosine wins."""
    known, unit = labels != UNKNOWN, F.normalize(features, dim=1)
    cosine = unit @ unit[known].t()
    least = cosine.topk(min(_ALIKE + 1, len(cosine)), 0).values[-1]  # it is itself one of them
    best, nearest = torch.where(cosine >= least, cosine, -torch.ones_like(cosine)).max(1)
    found = torch.where(best > threshold, labels[known][nearest], torch.full_like(labels, UNKNOWN))
    return torch.where(known, labels, found)


@dataclass
class Overlap:
    """Intersection over union of class maps, over all their pixels together."""

    num_classes: int

    def __post_init__(self) -> None:
        self.shared, self.either = torch.zeros(2, self.num_classes, dtype=torch.float64)

    def add(
        self,
        found: Tensor,  # [...] integers
        given: Tensor,  # [...] int64; UNKNOWN does not count
    ) -> None:
        for k in range(self.num_classes):
            a, b = (found == k) & (given != UNKNOWN), given == k
            self.shared[k] += (a & b).sum().item()
            self.either[k] += (a | b).sum().item()

    @property
    def values(self) -> list[float | None]:  # [K]; None: the class does not occur
        pairs = zip(self.shared.tolist(), self.either.tolist(), strict=True)
        return [a / b if b else None for a, b in pairs]

    @property
    def mean(self) -> float:
        values = [v for v in self.values if v is not None]
        return sum(values) / max(len(values), 1)


@torch.no_grad()
def hold_out(
    G: Generator,
    examples: Sequence[Example],
    samples: Sequence[Samples],
    num_classes: int,
    method: str,
    threshold: float = 0.5,
    progress: Progress = silent,
) -> Overlap:
    """Fit to all images but one, or of many but some, and compare its prediction with its annotation."""
    folds, overlap = min(len(examples), _FOLDS), Overlap(num_classes)
    for fold in range(folds):
        progress("held out", fold, folds)
        linear = fit(G, [s for i, s in enumerate(samples) if i % folds != fold], num_classes, method, threshold)
        for example in examples[fold::folds]:
            found = class_maps(linear.read(G.synthesis, example.ws, **example.options)[1])
            overlap.add(found[0].cpu(), example.labels)
    progress("held out", folds, folds)
    return overlap
