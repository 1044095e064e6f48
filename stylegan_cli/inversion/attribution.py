"""Was this image made by this model? (Karras et al. 2020, StyleGAN2, section 5, figures 9 and 10)

Projected, an image that a model drew comes out nearer than one that it did not. How near images of both kinds come
is measured once for a model and its data; an image's own distance is then likelier in the one than in the other:

    ratio(d) = p(d | drawn) / p(d | real)

Nothing is taken for granted about the two but that the ratio falls with the distance: the line of all distances is cut
into the parts that make it fall (Ayer et al. 1955, pool adjacent violators), and in each, images of both kinds are
counted, plus half of one. So it is never said to be more than there were images to learn it from.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import cache
from ..data.dataset import Dataset, DataSpec
from ..data.images import to_uint8
from ..detectors.distances import Loss
from ..errors import SganError
from ..models.generator import Generator
from ..progress import Progress, silent
from ..sampling import counter
from ..sampling.latents import sample_noise
from .linear import auc
from .projector import ProjectionOptions, batch_size, project

_PROTOCOL = 2  # rises when the same settings come to give other distances
_LEAST = 8  # images of a kind, below which nothing can be said


@dataclass(frozen=True)
class Part:
    """Distances of which the same is said."""

    end: float  # the farthest; half way, by ratio, to the next that was seen
    drawn: int  # how many of each kind were there
    real: int
    sides: tuple[int, int]  # of how many of each kind

    @property
    def log_ratio(self) -> float:
        drawn, real = ((k + 0.5) / (n + 1) for k, n in zip((self.drawn, self.real), self.sides, strict=True))
        return math.log(drawn / real)


@dataclass(frozen=True)
class Calibration:
    """How near projections come, of both kinds of images."""

    drawn: tuple[float, ...]  # distances of the model's own
    real: tuple[float, ...]  # of its data's
    warnings: tuple[str, ...] = field(default=(), compare=False)  # of how it was measured

    def log_ratio(
        self,
        distance: float,
    ) -> float:  # natural logarithm of p(distance | drawn) / p(distance | real)
        part = next((part for part in self.parts() if distance <= part.end), self.parts()[-1])
        return part.log_ratio

    def parts(self) -> list[Part]:
        """From near to far; the ratio falls from each to the next."""
        sides = (len(self.drawn), len(self.real))
        marked = sorted([(d, 1, 0) for d in self.drawn] + [(d, 0, 1) for d in self.real])
        ends = [math.sqrt(d * after) for (d, *_), (after, *_) in itertools.pairwise(marked)] + [math.inf]
        single = [Part(end, drawn, real, sides) for end, (_, drawn, real) in zip(ends, marked, strict=True)]
        pooled = _pool(single, lambda a, b: a.drawn * b.real <= b.drawn * a.real)  # as counted
        return _pool(pooled, lambda a, b: a.log_ratio <= b.log_ratio)  # with the halves, which weigh more in few

    @property
    def auc(self) -> float:
        """The part of pairs, one of each kind, in which the drawn image is nearer."""
        distances = torch.tensor([*self.drawn, *self.real], dtype=torch.float64)
        return auc(distances, torch.arange(len(distances)) >= len(self.drawn))


def _pool(
    parts: list[Part],  # from near to far
    wrong: Callable[[Part, Part], bool],  # the nearer one does not say more
) -> list[Part]:
    """Neighbors in the wrong order become one, until none are."""
    pooled: list[Part] = []
    for part in parts:
        while pooled and wrong(pooled[-1], part):
            last = pooled.pop()
            part = Part(part.end, last.drawn + part.drawn, last.real + part.real, part.sides)
        pooled.append(part)
    return pooled


def calibrate(
    G: Generator,
    dataset: Dataset,
    loss: Loss,
    options: ProjectionOptions,
    num: int,  # images of each kind
    key: str,  # what the distances are kept under
    anew: bool = False,  # not going on from what is there
    progress: Progress = silent,
) -> Calibration:
    """Project the model's images and its data's, a batch at a time, each kept: after Ctrl-C it goes on from there.
    Where nothing can be kept there is a warning.

    Raises SganError if that is too few, or the sizes differ, and KeyboardInterrupt if it did not come to its end.
    """
    spec, config = dataset.spec, G.config
    if (spec.channels, spec.height, spec.width) != (config.channels, config.height, config.width):
        raise SganError(f"The images in {spec.path} have another size or other channels than the model's.")
    num = min(num, spec.num)
    if num < _LEAST:
        raise SganError(f"{num} images of a kind say nothing; it takes {_LEAST} at least.")
    device = G.device
    chosen = counter.uniform(options.seed, "attribute.real", torch.arange(spec.num)).argsort()[:num]
    drawers = (lambda index: _drawn(G, options.seed, index), lambda index: dataset.images(chosen[index]).to(device))
    batch = options.batch or batch_size(torch.empty(0, config.channels, config.height, config.width))
    with cache.claim("calibrations", key):
        kept = [list(side) for side in (_load(key) if not anew else None) or ((), ())]
        warnings: tuple[str, ...] = ()
        progress("images projected", sum(map(len, kept)), 2 * num)
        for side, draw in zip(kept, drawers, strict=True):
            while len(side) < num:
                index = torch.arange(len(side), min(len(side) + batch, num))
                found = project(G, _as_target(draw(index)), loss, options)
                if found.interrupted:
                    raise KeyboardInterrupt
                side += found.distance.tolist()
                warnings = _store(key, kept)
                progress("images projected", sum(map(len, kept)), 2 * num)
    return Calibration(*(tuple(side) for side in kept), warnings=warnings)


def calibration_key(
    model: str,  # fingerprint
    data: DataSpec,
    loss: Loss,
    options: ProjectionOptions,
    num: int,
) -> str:
    """What the two distributions are kept under in the folder of caches."""
    size = [data.height, data.width, data.channels, data.filter]
    settings = {name: value for name, value in dataclasses.asdict(options).items() if name != "batch"}
    return cache.key(_PROTOCOL, model, data.content_hash, size, loss.name, settings, num)


def load_calibration(
    key: str,
    num: int,  # images of each kind
) -> Calibration | None:
    """None if it is not kept, or not all of it."""
    drawn, real = _load(key) or ((), ())
    return Calibration(tuple(drawn), tuple(real)) if len(drawn) == len(real) == num > 0 else None


def _load(key: str) -> list[list[float]] | None:
    """The distances of both kinds, as many as were measured."""
    kept = cache.load("calibrations", key)
    sides = [kept.tensors[name].tolist() for name in ("drawn", "real")] if kept else []
    return sides if sides and all(0 < d < math.inf for side in sides for d in side) else None


def _store(key: str, sides: list[list[float]]) -> tuple[str, ...]:
    """Keep them; or say why that cannot be done."""
    drawn, real = (torch.tensor(side, dtype=torch.float64) for side in sides)
    try:
        cache.store("calibrations", key, {"drawn": drawn, "real": real})
    except SganError as error:
        return (f"What was measured cannot be kept, and will be measured again: {error}",)
    return ()


@torch.no_grad()
def _drawn(G: Generator, seed: int, index: Tensor) -> Tensor:  # [N] -> uint8 [N, C, H, W]
    """Images with noise of their own: the search does not begin with it."""
    config, index = G.config, index.to(G.device)
    z, c = counter.normal(seed, "attribute.z", index, (config.z_dim,)), None
    if config.c_dim:
        drawn = counter.integers(seed, "attribute.c", index, config.c_dim)
        c = torch.nn.functional.one_hot(drawn, config.c_dim).float()
    noise = sample_noise(G, seed, "attribute.noise", index)
    return to_uint8(G.synthesis(G.mapping(z, c), noise=noise))


def _as_target(images: Tensor) -> Tensor:  # uint8 [N, C, H, W] -> [-1, 1]
    return (images.float() - 127.5) / 127.5
