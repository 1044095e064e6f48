"""A model that is blended from two models of one ancestor."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import MisuseError, SganError
from ..models.blending import blend, layer_weights, level_units, style_units
from ..models.config import GeneratorConfig
from ..sampling import checks
from ..sampling.mixing import style_indices
from ..snapshot import Snapshot

# Fields of configurations that do not matter to weights.
_PRECISION = {"conv_clamp", "half_levels", "w_avg_beta", "magnitude_kimg"}


@dataclass(frozen=True)
class BlendRequest:
    """What to take from the second model."""

    layers: str | Sequence[int] | None = None  # its layers, see `style_indices`
    level: int | None = None  # or its layers up to this level, 4 * 2^k. Without both: all, with the mapping network
    weight: float | None = None  # of its weights in these layers; None: 1, or 0.5 of all
    smooth: float = 0.0  # width of the transition between the models, in layers or levels; 0: hard
    any_model: bool = False  # also accept models without a known ancestor in common, and with other classes

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            layers=checks.styles(),
            level=checks.integer(4),
            weight=checks.number(),
            smooth=checks.number(),
            any_model=checks.flag(),
        )
        if self.layers is not None and self.level is not None:
            raise MisuseError("--layers and --level both choose layers.", hint="Use only one of them.")
        if self.weight is not None and not 0 <= self.weight <= 1:
            raise MisuseError(f"--weight is {self.weight:g}.", hint="Use a number from 0 to 1.")
        if self.smooth < 0:
            raise MisuseError(f"--smooth is {self.smooth:g}.", hint="Use 0 or more, such as 1.")
        if self.smooth and self.layers is None and self.level is None:
            raise MisuseError("--smooth has no effect on all layers.", hint="Choose --layers or --level.")


def blend_models(
    a: Snapshot,
    b: Snapshot,
    request: BlendRequest,
) -> Snapshot:
    """Blend two models. The mapping network, the discriminator and the dataset are those of the first one; without
    chosen layers, the mapping network is interpolated too.

    Raises SganError if the models have other shapes, other classes or no ancestor in common, or no such layers.
    """
    _require_same_shape(a, b)
    if not request.any_model:
        _require_common_ancestor(a, b)
        _require_same_classes(a, b)
    layers, whole = a.G.layers, request.layers is None and request.level is None
    if request.layers is not None:
        units, chosen = style_units(layers), set(style_indices(layers, request.layers, "--layers"))
    else:
        units = level_units(layers, (a.G.config.height, a.G.config.width))
        chosen = {unit for unit in units if whole or unit <= (request.level or 0)}
        if not whole and (not chosen or chosen == set(units)):
            levels = ", ".join(map(str, sorted(set(units))[:-1]))
            hint = f"Choose from {levels}." if levels else "Interpolate all weights: --weight 0.5"
            raise SganError(f"--level {request.level} divides no layers of this model.", hint=hint)
    weight = request.weight if request.weight is not None else 0.5 if whole else 1.0
    weights = [weight * x for x in layer_weights(units, chosen, request.smooth)]
    G = blend(a.G, b.G, weights, weight if whole else 0.0)
    info = dataclasses.replace(
        a.info, origin=_describe(a, b, request, weight), metrics={}, run="", origins=_union(a.lineage, b.lineage)
    )
    return Snapshot(G, a.D, info, a.path)


def _require_same_shape(a: Snapshot, b: Snapshot) -> None:
    if a.fingerprint == b.fingerprint:
        raise SganError(f"{a.path} and {b.path} have the same weights.", hint="Choose two different models.")
    first, second = a.G.config, b.G.config
    if differences := _differences(first, second):
        raise SganError(
            f"{a.path} and {b.path} cannot be blended, because their generators differ: {'; '.join(differences[:3])}.",
            hint="Blend models that were fine-tuned from one model.",
        )


def _differences(first: GeneratorConfig, second: GeneratorConfig) -> list[str]:
    if first.family != second.family:
        return [f"family {first.title}, {second.title}"]
    names = [field.name for field in dataclasses.fields(first) if field.name not in _PRECISION]
    pairs: list[tuple[str, Any, Any]] = [(name, getattr(first, name), getattr(second, name)) for name in names]
    return [f"{name} {x}, {y}" for name, x, y in pairs if x != y]


def _require_common_ancestor(a: Snapshot, b: Snapshot) -> None:
    if set(a.lineage) & set(b.lineage):
        return
    raise SganError(
        f"{a.path} and {b.path} share no ancestor: they are of different runs, and the files name no model that both "
        "were fine-tuned from. Layers that were trained apart do not fit together.",
        hint="Fine-tune both from one model with sgan train --resume; or add --any-model if they are related.",
    )


def _require_same_classes(a: Snapshot, b: Snapshot) -> None:
    """Require that classes have the same names where both models have names, which are not only their numbers."""
    names = zip(a.G.label_space.names, b.G.label_space.names, strict=False)
    for k, (first, second) in enumerate(names):
        if first == second or str(k) in (first, second):
            continue
        raise SganError(
            f"{a.path} and {b.path} have other classes: class {k} is {first!r} in one and {second!r} in the other.",
            hint="Blend models of the same classes; or add --any-model, which keeps the names of the first model.",
        )


def _union(*lineages: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for lineage in lineages for name in lineage))


def _describe(a: Snapshot, b: Snapshot, request: BlendRequest, weight: float) -> str:
    """What the model was made of, for its file."""
    layers = request.layers if isinstance(request.layers, str) else ",".join(map(str, request.layers or ()))
    what = f"levels up to {request.level}" if request.level else f"layers {layers}" if layers else "all weights"
    smooth = f", smooth {request.smooth:g}" if request.smooth else ""
    return f"{a.path.name} ({a.fingerprint}) with {weight:g} of {what} from {b.path.name} ({b.fingerprint}){smooth}"
