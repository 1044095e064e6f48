"""Projection: the latents whose image is nearest a target (Karras et al. 2020, StyleGAN2, section 5 and appendix D).

    minimize over w and noise n:  d(G(w + 0.05 sigma t^2 e, n), target) + 1e5 * sum of squared autocorrelations of n

e ~ N(0, 1) is drawn in each step, and t falls from 1 to 0 over the first three quarters of them. Where the paper begins
at the mean of W, this begins at the nearest of some random images: from the mean, one search in four got stuck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..detectors.distances import Loss
from ..errors import SganError
from ..models.generator import Generator
from ..progress import Progress, silent
from ..sampling import checks, counter
from ..sampling.latents import class_labels, sample_noise

_SAMPLES = 10_000  # whose mean and spread W has
_NOISE_WEIGHT = 1e5
_PATH = 100  # places kept on the way, at most


@dataclass(frozen=True)
class ProjectionOptions:
    """How to project."""

    space: str = "w"  # 'w': one w for all layers; 'w+': one for each; 'z'
    steps: int = 1000
    candidates: int | None = None  # random images, the nearest of which is the start; 0: the mean; None: steps / 2
    noise: str = "optimize"  # 'optimize': noise maps too; 'const': the model's own
    class_index: int | None = None  # of the samples; None: drawn, in a model with classes
    lr: float = 0.1  # at its highest
    seed: int = 0
    batch: int | None = None  # targets at a time; None: by their size

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            space=checks.choice("w", "w+", "z"),
            steps=checks.integer(1),
            candidates=checks.integer(0),
            noise=checks.choice("optimize", "const"),
            class_index=checks.integer(),
            lr=checks.number(0),
            seed=checks.integer(0),
            batch=checks.integer(1),
        )


@dataclass(frozen=True)
class ProjectedLatents:
    """What was found for N targets, the nearest image of all steps for each."""

    ws: Tensor  # [N, num_ws, w_dim]
    noise: list[Tensor] | None  # [N, 1, h, w] for each layer that takes noise; None: the model's own
    distance: Tensor  # [N] of the loss
    path: list[Tensor]  # each [N, num_ws, w_dim]: where it was on the way
    steps: int  # that were made of those asked for
    interrupted: bool = False  # some steps, or some targets, are missing


@dataclass(frozen=True)
class Start:
    """Where to begin: another projection, an encoder's answer."""

    ws: Tensor  # [N or 1, num_ws, w_dim]
    noise: list[Tensor] | None = None  # [N or 1, 1, h, w] for each layer that takes noise

    def of(
        self,
        part: slice,  # of the targets
    ) -> Start:
        if len(self.ws) == 1:
            return self
        return Start(self.ws[part], self.noise and [maps[part] for maps in self.noise])


def project(
    G: Generator,
    targets: Tensor,  # [N, C, H, W] in [-1, 1]
    loss: Loss,
    options: ProjectionOptions,
    mask: Tensor | None = None,  # [1, 1, H, W]: 1 counts, 0 does not
    start: Start | None = None,  # None: the nearest of the candidates
    progress: Progress = silent,
) -> ProjectedLatents:
    """All targets, some at a time. Ctrl-C ends it, and what was found so far comes back.

    Raises KeyboardInterrupt if nothing was found yet, SganError if the class or the start does not fit.
    """
    class_labels(options.class_index, [0], G.config.c_dim)  # refuses a class that is not there
    batch = options.batch or batch_size(targets)
    parts: list[ProjectedLatents] = []
    rounds = range(0, len(targets), batch)
    total = options.steps * len(rounds)
    progress("steps", 0, total)
    try:
        for k, i in enumerate(rounds):
            some = slice(i, i + batch)
            projector = Projector(G, targets[some], loss, options, mask, start and start.of(some), progress)
            parts.append(_run(projector, progress, k * options.steps, total))
            if parts[-1].interrupted:
                break
    except KeyboardInterrupt:  # where a batch had not come to anything yet
        if not parts:
            raise
    return _together(parts, len(targets))


def batch_size(
    targets: Tensor,  # [N, C, H, W]
) -> int:
    """Targets at a time: so many as a step has work with, no more than 8."""
    return min(max(2**21 // (targets.shape[2] * targets.shape[3]), 1), 8)


def _run(
    projector: Projector,
    progress: Progress,
    before: int,  # steps made for other targets
    total: int,  # steps for all
) -> ProjectedLatents:
    path, every, interrupted, figure = [], -(-projector.options.steps // _PATH), False, ""
    try:
        while projector.done < projector.options.steps:
            if projector.done % every == 0:
                path.append(projector.ws().detach())
            projector.step()
            if projector.done % 10 == 0:
                figure = f", distance={projector.best.distance.mean():.4f}"
            progress(f"steps{figure}", before + projector.done, total)
        projector.look()
    except KeyboardInterrupt:
        if projector.done == 0:
            raise
        interrupted = True
    best = projector.best
    return ProjectedLatents(best.ws, best.noise, best.distance, [*path, best.ws], projector.done, interrupted)


def _together(parts: list[ProjectedLatents], wanted: int) -> ProjectedLatents:
    paths = zip(*(part.path for part in parts), strict=False)
    maps = None if parts[0].noise is None else [torch.cat(m) for m in zip(*(part.noise for part in parts), strict=True)]
    ws = torch.cat([part.ws for part in parts])
    return ProjectedLatents(
        ws,
        maps,
        torch.cat([part.distance for part in parts]),
        [torch.cat(places) for places in paths],
        min(part.steps for part in parts),
        any(part.interrupted for part in parts) or len(ws) < wanted,
    )


@dataclass(frozen=True)
class _Best:
    """The nearest image so far of each target."""

    distance: Tensor  # [N]
    ws: Tensor  # [N, num_ws, w_dim]
    noise: list[Tensor] | None  # [N, 1, h, w] each


class Projector:
    """The projection of one batch, step by step. Targets do not touch each other: each gets what it gets alone."""

    def __init__(
        self,
        G: Generator,
        targets: Tensor,  # [N, C, H, W] in [-1, 1]
        loss: Loss,
        options: ProjectionOptions,
        mask: Tensor | None = None,  # [1, 1, H, W]
        start: Start | None = None,
        progress: Progress = silent,  # over the candidates
    ):
        self.G, self.targets, self.loss, self.options, self.mask = G, targets, loss, options, mask
        self.done, self.progress = 0, progress
        n, device = len(targets), targets.device
        with torch.no_grad():
            self.features = loss.features(targets)
            self.x, self.c, self.spread = self._start(start)
        self.x = self.x.detach().clone().requires_grad_(True)
        self.noise = None
        if options.noise == "optimize" and G.noise_layers:
            maps = (
                start.noise if start and start.noise else sample_noise(G, options.seed, "project.maps", self._index(0))
            )
            self.noise = [m.expand(n, -1, -1, -1).contiguous().clone() for m in maps]
            for m in self.noise:
                _normalize(m)
                m.requires_grad_(True)
        self.parameters = [self.x, *(self.noise or [])]
        self.optimizer = torch.optim.Adam(self.parameters, lr=options.lr, betas=(0.9, 0.999))
        far = torch.full([n], math.inf, device=device)
        self.best = _Best(far, self.ws().detach(), self.noise and [m.detach() for m in self.noise])
        if start:
            self.look()  # it may be better than anything that comes after

    def step(self) -> None:
        """One step of Adam on all targets."""
        t = self.done / self.options.steps
        self.optimizer.param_groups[0]["lr"] = self.options.lr * rate(t)
        e = counter.normal(self.options.seed, "project.noise", self._index(self.done), tuple(self.x.shape[1:]))
        distance = self._distance(self.ws(self.x + self.spread * 0.05 * max(0.0, 1 - t / 0.75) ** 2 * e))
        objective = distance.sum()
        if self.noise is not None:
            objective = objective + _NOISE_WEIGHT * roughness(self.noise)
        gradients = torch.autograd.grad(objective, self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        for maps in self.noise or []:
            _normalize(maps)
        self.done += 1

    @torch.no_grad()
    def look(self) -> None:
        """Look at where it is, without a step."""
        self._distance(self.ws())

    def ws(
        self,
        x: Tensor | None = None,  # [N, K, D] in the space; None: where it is
    ) -> Tensor:  # [N, num_ws, w_dim]
        x = self.x if x is None else x
        if self.options.space == "z":
            return self.G.mapping(x[:, 0], self.c)
        return x.expand(-1, self.G.num_ws, -1)

    def _distance(self, ws: Tensor) -> Tensor:  # [N]
        """Draw, compare, and keep what is nearer than all before."""
        images = self.G.synthesis(ws, noise="const" if self.noise is None else self.noise)
        if self.mask is not None:
            images = torch.where(self.mask.bool(), images, self.targets)
        distance = self.loss.distance(self.loss.features(images), self.features)
        with torch.no_grad():
            nearer = distance < self.best.distance
            maps = self.noise and [
                torch.where(nearer[:, None, None, None], m, best)
                for m, best in zip(self.noise, self.best.noise or [], strict=True)
            ]
            self.best = _Best(
                torch.where(nearer, distance, self.best.distance),
                torch.where(nearer[:, None, None], ws, self.best.ws),
                maps,
            )
        return distance

    def _index(self, i: int) -> Tensor:  # [1], the same for all targets: none depends on its place
        return torch.full([1], i, dtype=torch.int64, device=self.targets.device)

    def _start(self, start: Start | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """x [N, K, D], labels [N, c_dim] of the start in z, and the spread of the space []."""
        options, n = self.options, len(self.targets)
        z, c, w = self._samples()
        mean = w.mean(0)
        points = z if options.space == "z" else w
        spread = (points - points.mean(0)).square().sum(1).mean().sqrt()
        if start is not None:
            return _fitted(start.ws, options.space).expand(n, -1, -1), None, spread
        count = options.steps // 2 if options.candidates is None else options.candidates
        candidates = w[: min(count, len(w))]
        if options.space != "z":
            candidates = torch.cat([mean[None], candidates])
        elif not len(candidates):  # the sample whose w is nearest the mean
            nearest = (w - mean).square().sum(1).argmin()[None]
            z, c, candidates = z[nearest], None if c is None else c[nearest], w[nearest]
        chosen = self._nearest(candidates)
        if options.space == "z":
            return z[chosen][:, None], None if c is None else c[chosen], spread
        k = self.G.num_ws if options.space == "w+" else 1
        return candidates[chosen][:, None].expand(-1, k, -1), None, spread

    def _samples(self) -> tuple[Tensor, Tensor | None, Tensor]:  # z [S, z_dim], c [S, c_dim], w [S, w_dim]
        config, options = self.G.config, self.options
        index = torch.arange(_SAMPLES, device=self.targets.device)
        z = F.normalize(counter.normal(options.seed, "project.z", index, (config.z_dim,)), dim=1) * config.z_dim**0.5
        c = None
        if config.c_dim:
            drawn = counter.integers(options.seed, "project.c", index, config.c_dim)
            drawn = drawn if options.class_index is None else torch.full_like(drawn, options.class_index)
            c = F.one_hot(drawn, config.c_dim).float()
        parts = [(z[i : i + 1000], None if c is None else c[i : i + 1000]) for i in range(0, _SAMPLES, 1000)]
        return z, c, torch.cat([self.G.mapping(a, b)[:, 0] for a, b in parts])

    def _nearest(self, candidates: Tensor) -> Tensor:  # [M, w_dim] -> [N] which is nearest each target
        n = len(self.targets)
        if len(candidates) == 1:
            return torch.zeros(n, dtype=torch.int64, device=candidates.device)
        wanted = self.features if self.mask is None else self.loss.features(self.targets * self.mask)
        distances, looked_at = [], 0
        for some in candidates.split(self.options.batch or batch_size(self.targets)):
            images = self.G.synthesis(some[:, None].expand(-1, self.G.num_ws, -1))
            found = self.loss.features(images if self.mask is None else images * self.mask)
            each = [self.loss.distance(found, [f[i : i + 1] for f in wanted]) for i in range(n)]
            distances.append(torch.stack(each))
            looked_at += len(some)
            self.progress("images to begin at", looked_at, len(candidates))
        return torch.cat(distances, dim=1).argmin(1)


def _fitted(
    ws: Tensor,  # [N, num_ws, w_dim]
    space: str,
) -> Tensor:  # [N, K, w_dim]
    """A start in the space. Raises SganError if it is not in it."""
    if space == "z":
        raise SganError("A start is a w, and --space z looks for a z.", hint="Use --space w, or w+.")
    if space == "w+":
        return ws
    if not torch.allclose(ws, ws[:, :1], atol=1e-4):
        raise SganError("The start has another w at each layer, and --space w looks for one.", hint="Use --space w+.")
    return ws[:, :1]


def rate(
    t: float,  # part of the steps that is done, 0 to 1
) -> float:
    """The learning rate's course: up over the first twentieth, down by a cosine over the last quarter (appendix D)."""
    down = min(1.0, (1 - t) / 0.25)
    return min(1.0, t / 0.05) * (0.5 - 0.5 * math.cos(math.pi * down))


def roughness(
    noise: list[Tensor],  # [N, 1, h, w] each
) -> Tensor:  # []
    """Squared autocorrelation at one pixel's distance, over each map's pyramid down to 8 x 8, summed (appendix D).

    Halving averages 2 x 2 and doubles, which leaves white noise of unit variance what it is.
    """
    total = noise[0].new_zeros([])
    for maps in noise:
        while True:
            across, down = (maps * maps.roll(1, 3)).mean((1, 2, 3)), (maps * maps.roll(1, 2)).mean((1, 2, 3))
            total = total + (across.square() + down.square()).sum()
            if min(maps.shape[2:]) <= 8:
                break
            maps = 2 * F.avg_pool2d(maps, 2)
    return total


@torch.no_grad()
def _normalize(
    maps: Tensor,  # [N, 1, h, w], in place
) -> None:
    """Each map to mean 0 and variance 1."""
    maps.sub_(maps.mean((1, 2, 3), keepdim=True))
    maps.mul_(maps.square().mean((1, 2, 3), keepdim=True).add_(1e-12).rsqrt_())
