"""The metrics by name, collected from their files. Imports no PyTorch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import SganError, nearest
from . import frechet, inception_score, kernel, perceptual_path_length, precision_recall
from .metric import EFFICIENTNET, EvaluationProtocol, Features, Metric

STANDARD = "inception-2015"
# Families of features; None: each metric's own
FEATURES: dict[str, Features | None] = {STANDARD: None, "efficientnet-lite0": EFFICIENTNET}

_DEFINED = (
    *frechet.METRICS,
    *kernel.METRICS,
    *precision_recall.PRECISION_RECALL,
    *precision_recall.DENSITY_COVERAGE,
    *inception_score.METRICS,
    *perceptual_path_length.METRICS,
)
# Those against real images come first, and of these the ones against all of them
METRICS = {m.name(): m for m in sorted(_DEFINED, key=lambda m: (not m.reals, m.mirror))}
SHORT = {m.short: name for name, m in METRICS.items() if m.short}


def resolve(
    names: Sequence[str],  # of METRICS or SHORT; the number in a name may be another: fid5k_full
    num: int | None = None,  # images of the model, whatever the names say; None: as they say
    features: str = STANDARD,  # a name of FEATURES
    *,
    batch: int | None = None,  # see `EvaluationProtocol`
    seed: int = 0,
    truncation_psi: float = 1.0,
    detector_file: str | Path | None = None,
) -> EvaluationProtocol:
    """What these names mean. Raises SganError for a name that there is not, or that the features rule out, for too few
    images, and for one file of weights where the metrics use several detectors."""
    if features not in FEATURES:
        raise SganError(f"No features are called {features!r}.", hint="Choose from " + ", ".join(FEATURES) + ".")
    if not names:
        raise SganError("No metric is named.", hint="Choose from " + ", ".join([*SHORT, *METRICS]) + ".")
    found = {}
    for name in names:
        plain, family = _without_features(name)
        metric = _by_name(plain)
        if num is not None:
            metric = dataclasses.replace(metric, num=num)
        metric = _with_features(metric, family or features)
        if metric.num < metric.least:
            raise SganError(f"{metric.name()} takes {metric.least} images at least, not {metric.num}.")
        found[metric.name()] = metric
    metrics = tuple(found.values())
    detectors = list(dict.fromkeys(m.features.detector for m in metrics))
    if detector_file is not None and len(detectors) > 1:
        raise SganError(
            f"One file of weights, {detector_file}, cannot serve {' and '.join(detectors)}, which these metrics take.",
            hint="Ask for one of them at a time, or put all files into a folder and name it in SGAN_DETECTORS.",
        )
    return EvaluationProtocol(metrics, batch, seed, truncation_psi, detector_file)


def _without_features(name: str) -> tuple[str, str | None]:
    """A name as it is printed, 'fid_efficientnet5k_full', as the plain one and its features."""
    for family, features in FEATURES.items():
        if features and features.infix in name:
            return name.replace(features.infix, "", 1), family
    return name, None


def _by_name(name: str) -> Metric:
    name = SHORT.get(name, name)
    if name in METRICS:
        return METRICS[name]
    for metric in METRICS.values():
        pattern = metric.template.format(features="", num="([1-9][0-9]{0,8}k?)")
        if match := re.fullmatch(pattern, name):
            number = match[1]
            return dataclasses.replace(metric, num=int(number.removesuffix("k")) * (1000 if number[-1] == "k" else 1))
    known = [*SHORT, *METRICS]
    hint = f"{nearest(name, known)} There are: {', '.join(known)}.".strip()
    raise SganError(f"No metric is called {name!r}.", hint=hint)


def _with_features(metric: Metric, family: str) -> Metric:
    features = FEATURES[family]
    if features is None or metric.path is not None:
        return metric
    if "{features}" not in metric.template:
        raise SganError(
            f"{metric.name()} is made of the Inception network's classes, which {family} does not have.",
            hint="Leave it out, or leave out --features.",
        )
    return dataclasses.replace(metric, features=features)
