"""The metrics by name, and what each is measured on. Imports no PyTorch."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import SganError

if TYPE_CHECKING:
    from ..data.dataset import Dataset

ALL = 1 << 62  # more pictures than any set has
STANDARD = "inception-2015"
FEATURES = {STANDARD: "", "efficientnet-lite0": "_efficientnet"}  # families of features -> how names tell
OUTPUT = {STANDARD: "pool", "efficientnet-lite0": "pool", "vgg16": "fc2"}  # detector -> what distances are taken of
DIMENSIONS = {STANDARD: 2048, "efficientnet-lite0": 1280, "vgg16": 4096}  # of that


@dataclass(frozen=True)
class Path:
    """Where perceptual path length is measured."""

    space: str  # 'z' or 'w'
    full: bool  # t ~ U(0, 1); else 0
    crop: bool  # the centre of an aligned face


@dataclass(frozen=True)
class Metric:
    """One protocol."""

    template: str  # of the name
    kind: str  # 'fid', 'kid', 'pr', 'dc', 'is' or 'ppl'
    detector: str  # what looks at the pictures
    about: str  # one line for the help text
    outputs: tuple[tuple[str, bool], ...]  # (what the name of each value ends with, whether higher is better)
    reals: int = 0  # at most so many of the data set
    mirror: bool = False  # reals also flipped, where training did so
    least: int = 2  # pictures it takes, of each side
    path: Path | None = None  # of 'ppl'
    num: int = 50_000  # pictures, or pairs, of the model
    features: str = STANDARD  # which family the detector stands for

    @property
    def statistic(self) -> str:
        """What has to be known of the pictures, a name of `statistics.KINDS`."""
        return {"fid": "moments", "is": "splits"}.get(self.kind, "features")

    @property
    def key(self) -> str:
        """Which output of the detector that is about."""
        return "logits" if self.kind == "is" else OUTPUT[self.detector]

    def mirrors(self, data: Dataset | None) -> bool:
        """Whether this set's pictures are also taken flipped."""
        return self.mirror and data is not None and data.spec.mirror

    def reals_of(self, data: Dataset | None) -> int:
        """How many real pictures are taken."""
        return 0 if data is None else min(self.reals, len(data) * (2 if self.mirrors(data) else 1))

    def name(
        self,
        ending: str = "",
    ) -> str:
        """'fid50k_full', 'fid_efficientnet5k_full', 'ppl2_wend_500', 'pr50k3_full_precision'."""
        usual = self.kind == "ppl" and self.num == 50_000  # whose names tell no number
        number = "" if usual else f"{self.num // 1000}k" if self.num % 1000 == 0 else str(self.num)
        return self.template.format(features=FEATURES[self.features], num=number).rstrip("_") + ending


def _metrics() -> dict[str, Metric]:
    lower, higher = (("", False),), (("", True),)
    precision = ("_precision", True), ("_recall", True)
    density = ("_density", True), ("_coverage", True)
    found = []
    for full, mirror, of_fid, of_kid, of_balls in (
        ("_full", False, ALL, 1_000_000, 200_000),
        ("", True, 50_000, 50_000, 50_000),
    ):
        reals = "at most 50,000 real pictures, mirrored as in training" if mirror else "the real pictures"
        fid, kid = f"Fréchet distance to {reals}", f"kernel distance to {reals}"
        pr, dc = f"improved precision and recall against {reals}", f"density and coverage of {reals}"
        found += [
            Metric("fid{features}{num}" + full, "fid", STANDARD, fid, lower, of_fid, mirror),
            Metric("kid{features}{num}" + full, "kid", STANDARD, kid, lower, of_kid, mirror, least=3),
            Metric("pr{features}{num}3" + full, "pr", "vgg16", pr, precision, of_balls, mirror, least=4),
            Metric("dc{features}{num}5" + full, "dc", "vgg16", dc, density, of_balls, mirror, least=6),
        ]
    found.append(Metric("is{num}", "is", STANDARD, "Inception score", higher, least=10))
    for name, about, path in (
        ("ppl2_wend", "perceptual path length in W, at the ends of paths", Path("w", False, False)),
        ("ppl_zfull", "... along paths in Z, the centre of a face", Path("z", True, True)),
        ("ppl_wfull", "... along paths in W, the centre of a face", Path("w", True, True)),
        ("ppl_zend", "... at the ends of paths in Z, the centre of a face", Path("z", False, True)),
        ("ppl_wend", "... at the ends of paths in W, the centre of a face", Path("w", False, True)),
    ):
        found.append(Metric(name + "_{num}", "ppl", "lpips-vgg", about, lower, path=path))
    return {metric.name(): metric for metric in found}


METRICS = _metrics()
SHORT = {
    "fid": "fid50k_full",
    "kid": "kid50k_full",
    "pr": "pr50k3_full",
    "dc": "dc50k5_full",
    "is": "is50k",
    "ppl": "ppl2_wend",
}


def resolve(
    names: Sequence[str],  # of METRICS or SHORT; the number in a name may be another: fid5k_full
    num: int | None = None,  # pictures of the model, whatever the names say; None: as they say
    features: str = STANDARD,  # a name of FEATURES
) -> list[Metric]:
    """The protocols meant, each once. Raises SganError for a name that there is not, or that the features rule out."""
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
            raise SganError(f"{metric.name()} takes {metric.least} pictures at least, not {metric.num}.")
        found[metric.name()] = metric
    return list(found.values())


def _without_features(name: str) -> tuple[str, str | None]:
    """A name as it is printed, 'fid_efficientnet5k_full', as the plain one and its features."""
    for features, infix in FEATURES.items():
        if infix and infix in name:
            return name.replace(infix, "", 1), features
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
    near = difflib.get_close_matches(name, [*SHORT, *METRICS], 1)
    hint = (f"Did you mean {near[0]}? " if near else "") + "There are: " + ", ".join([*SHORT, *METRICS]) + "."
    raise SganError(f"No metric is called {name!r}.", hint=hint)


def _with_features(metric: Metric, features: str) -> Metric:
    if features == STANDARD or metric.kind == "ppl":
        return metric
    if metric.kind == "is":
        raise SganError(
            f"{metric.name()} is made of the Inception network's classes, which {features} does not have.",
            hint="Leave it out, or leave out --features.",
        )
    return dataclasses.replace(metric, detector=features, features=features)
