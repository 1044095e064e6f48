"""The metrics by name, collected from their files. Does not import PyTorch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import MisuseError, suggest
from . import equivariance, frechet, inception_score, kernel, perceptual_path_length, precision_recall
from .metric import EFFICIENTNET, SEPARATOR, EvaluationProtocol, Features, Metric

DEFAULT_FEATURES = "inception-2015"
# Features by family; None: each metric's default
FEATURES: dict[str, Features | None] = {DEFAULT_FEATURES: None, "efficientnet-lite0": EFFICIENTNET}

_DEFINED = (
    *frechet.METRICS,
    *kernel.METRICS,
    *precision_recall.PRECISION_RECALL,
    *precision_recall.DENSITY_COVERAGE,
    *inception_score.METRICS,
    *perceptual_path_length.METRICS,
    *equivariance.METRICS,
)
# Metrics against real images come first, starting with those against all real images
METRICS = {m.name(): m for m in sorted(_DEFINED, key=lambda m: (not m.max_reals, m.mirror))}
ALIASES = {m.alias: name for name, m in METRICS.items() if m.alias}


def resolve(
    names: Sequence[str],  # keys of METRICS or ALIASES, possibly with another number, such as fid5k_full
    num: int | None = None,  # number of generated images; None: as in the names
    features: str = DEFAULT_FEATURES,  # key of FEATURES
    *,
    batch: int | None = None,  # see `EvaluationProtocol`
    seed: int = 0,
    truncation_psi: float = 1.0,
    detector_file: str | Path | None = None,
) -> EvaluationProtocol:
    """Resolve names into a protocol.

    Raises SganError if a name is unknown or not possible with these features, if there are too few images, or if one
    file of weights is passed for several detectors.
    """
    if features not in FEATURES:
        raise MisuseError(f"There are no features {features!r}.", hint="Choose from " + ", ".join(FEATURES) + ".")
    if not names:
        raise MisuseError("No metric was named.", hint="Choose from " + ", ".join([*ALIASES, *METRICS]) + ".")
    resolved = {}
    for name in names:
        plain, family = _split_features(name)
        metric = _by_name(plain)
        if num is not None:
            metric = dataclasses.replace(metric, num=num)
        metric = _with_features(metric, family or features)
        if metric.num < metric.min_images:
            raise MisuseError(
                f"{metric.name()} needs at least {metric.min_images} images, not {metric.num}.", hint="Use more images."
            )
        resolved[metric.name()] = metric
    metrics = tuple(resolved.values())
    detectors = list(dict.fromkeys(m.features.detector for m in metrics if m.motion is None))
    if detector_file is not None and len(detectors) > 1:
        raise MisuseError(
            f"These metrics use {' and '.join(detectors)}, but {detector_file} is one file of weights.",
            hint="Measure them separately, or put all files into a folder and set SGAN_DETECTORS to it.",
        )
    return EvaluationProtocol(metrics, batch, seed, truncation_psi, detector_file)


def _split_features(name: str) -> tuple[str, str | None]:
    """Split a name, such as fid_efficientnet5k_full, into the name without features and the features' family."""
    for family, features in FEATURES.items():
        if features and features.infix in name:
            return name.replace(features.infix, "", 1), family
    return name, None


def _by_name(name: str) -> Metric:
    name = ALIASES.get(name, name)
    if name in METRICS:
        return METRICS[name]
    for metric in METRICS.values():
        pattern = metric.template.format(features="", num="_?([1-9][0-9]{0,8}k?)", k=f"(?:{SEPARATOR})?")
        if match := re.fullmatch(pattern, name):
            number = match[1]
            return dataclasses.replace(metric, num=int(number.removesuffix("k")) * (1000 if number[-1] == "k" else 1))
    all_names = [*ALIASES, *METRICS]
    hint = f"{suggest(name, all_names)} Choose from {', '.join(all_names)}.".strip()
    raise MisuseError(f"There is no metric {name!r}.", hint=hint)


def _with_features(metric: Metric, family: str) -> Metric:
    features = FEATURES[family]
    if features is None or metric.needs_model:
        return metric
    if "{features}" not in metric.template:
        raise MisuseError(
            f"{metric.name()} needs the classes of the Inception network, which {family} does not have.",
            hint="Remove this metric, or --features.",
        )
    return dataclasses.replace(metric, features=features)
