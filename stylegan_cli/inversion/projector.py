"""Projection: the latents whose image is closest to a target (Karras et al. 2020, StyleGAN2, section 5, appendix D).

    minimize over w and noise n:  d(G(w + 0.05 sigma t^2 e, n), target) + 1e5 * sum of squared autocorrelations of n

e ~ N(0, 1) is sampled in each step, and t decreases from 1 to 0 over the first three quarters of the steps. The paper
starts at the mean of W, from where one search in four got stuck; this starts at the closest of some random images.
From given latents it searches without e, which would first lead away from them: from those of an encoder, 100 steps
then end twice as close.

Where latents also move the image (Karras et al. 2021), its rotation and translation are variables of their own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..detectors.distances import Loss
from ..errors import SganError
from ..models.config import GeneratorConfig
from ..models.frozen import frozen_synthesis
from ..models.generator import Generator
from ..optimizers import Adam
from ..progress import Progress, silent
from ..sampling import checks, counter
from ..sampling.labels import Choice, class_labels, label_choice, sample_labels
from ..sampling.latents import sample_noise
from ..sampling.view import input_indices
from .view import View, without_view

Options = TypeVar("Options", bound="ProjectionOptions")
Watch = Callable[[Tensor], None]  # takes the best latents so far of a batch [N, num_ws, w_dim], after each step
_NUM_SAMPLES = 10_000  # for the mean and the standard deviation of W
_NOISE_WEIGHT = 1e5
_MAX_PATH_LENGTH = 100  # number of intermediate latents to keep


@dataclass(frozen=True)
class ProjectionOptions:
    """Options of a projection."""

    space: str | None = None  # 'w': one w for all layers; 'w+': one for each; 'z'; None: see `for_model`
    steps: int = 1000
    candidates: int | None = None  # random images, the closest of which is the start; 0: the mean; None: steps / 2
    noise: str = "optimize"  # 'optimize': also optimize noise; 'const': use the model's own noise
    view: str = "optimize"  # 'optimize': also the image's rotation and translation, if latents have them; 'const'
    class_index: Choice | None = None  # of the random images; None: sampled, if the model has classes
    lr: float = 0.1  # maximum learning rate
    seed: int = 0
    batch: int | None = None  # targets at a time; None: depends on their size

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            space=checks.choice("w", "w+", "z"),
            steps=checks.integer(1),
            candidates=checks.integer(0),
            noise=checks.choice("optimize", "const"),
            view=checks.choice("optimize", "const"),
            class_index=label_choice(),
            lr=checks.number(0),
            seed=checks.integer(0),
            batch=checks.integer(1),
        )

    def for_model(self: Options, config: GeneratorConfig) -> Options:
        """These options with the space that is searched by default: w. Without a mapping network that is z and the
        label, so z, which keeps the label and the range of z."""
        return self if self.space else dataclasses.replace(self, space="w" if config.has_mapping else "z")


@dataclass(frozen=True)
class ProjectedLatents:
    """Latents of N targets: for each the best of all steps."""

    ws: Tensor  # [N, num_ws, w_dim]
    noise: list[Tensor] | None  # [N, 1, h, w] for each layer with noise; None: the model's own noise
    distance: Tensor  # [N] according to the loss
    path: list[Tensor]  # intermediate latents, each [N, num_ws, w_dim]
    steps: int  # number of completed steps
    interrupted: bool = False  # some steps or some targets are missing


@dataclass(frozen=True)
class Start:
    """The initial latents, such as those of an earlier projection."""

    ws: Tensor  # [N or 1, num_ws, w_dim]
    noise: list[Tensor] | None = None  # [N or 1, 1, h, w] for each layer with noise
    z: Tensor | None = None  # [N or 1, z_dim] that these are mapped from, for a search in Z

    def select(
        self,
        part: slice,  # of the targets
    ) -> Start:
        if len(self.ws) == 1:
            return self
        z = None if self.z is None else self.z[part]
        return Start(self.ws[part], self.noise and [maps[part] for maps in self.noise], z)


def project(
    G: Generator,
    targets: Tensor,  # [N, C, H, W] in [-1, 1]
    loss: Loss,
    options: ProjectionOptions,
    mask: Tensor | None = None,  # [1, 1, H, W]: 1 counts, 0 does not
    start: Start | None = None,  # None: the closest of the candidates
    progress: Progress = silent,
    watch: Watch | None = None,
) -> ProjectedLatents:
    """Project targets in batches. Ctrl-C stops early and returns the results so far.

    Raises KeyboardInterrupt if there are no results yet, and SganError if the class or the start is not valid.
    """
    class_labels(options.class_index, [0], G.label_space)  # raises an error if there is no such class
    batch = options.batch or batch_size(targets)
    parts: list[ProjectedLatents] = []
    offsets = range(0, len(targets), batch)
    total = options.steps * len(offsets)
    progress("steps", 0, total)
    try:
        for k, i in enumerate(offsets):
            part = slice(i, i + batch)
            projector = Projector(G, targets[part], loss, options, mask, start and start.select(part), progress)
            parts.append(_run(projector, progress, k * options.steps, total, watch))
            if parts[-1].interrupted:
                break
    except KeyboardInterrupt:  # before the first step of a batch
        if not parts:
            raise
    return _concatenate(parts, len(targets))


def batch_size(
    targets: Tensor,  # [N, C, H, W]
) -> int:
    """Return the number of targets per batch: enough to use the device well, at most 8."""
    return min(max(2**21 // (targets.shape[2] * targets.shape[3]), 1), 8)


def _run(
    projector: Projector,
    progress: Progress,
    previous_steps: int,  # completed for other targets
    total: int,  # steps for all targets
    watch: Watch | None,
) -> ProjectedLatents:
    path, interval, interrupted, figure = [], -(-projector.options.steps // _MAX_PATH_LENGTH), False, ""
    try:
        while projector.done < projector.options.steps:
            if projector.done % interval == 0:
                path.append(projector.ws().detach())
            projector.step()
            if projector.done % 10 == 0:
                figure = f", distance={projector.best.distance.mean():.4f}"
            if watch:
                watch(projector.best.ws)
            progress(f"steps{figure}", previous_steps + projector.done, total)
        projector.evaluate()
    except KeyboardInterrupt:
        if projector.done == 0:
            raise
        interrupted = True
    best = projector.best
    return ProjectedLatents(best.ws, best.noise, best.distance, [*path, best.ws], projector.done, interrupted)


def _concatenate(parts: list[ProjectedLatents], num_targets: int) -> ProjectedLatents:
    paths = zip(*(part.path for part in parts), strict=False)
    maps = None if parts[0].noise is None else [torch.cat(m) for m in zip(*(part.noise for part in parts), strict=True)]
    ws = torch.cat([part.ws for part in parts])
    return ProjectedLatents(
        ws,
        maps,
        torch.cat([part.distance for part in parts]),
        [torch.cat(ws_of_parts) for ws_of_parts in paths],
        min(part.steps for part in parts),
        any(part.interrupted for part in parts) or len(ws) < num_targets,
    )


@dataclass(frozen=True)
class _Best:
    """The best latents so far of each target."""

    distance: Tensor  # [N]
    ws: Tensor  # [N, num_ws, w_dim]
    noise: list[Tensor] | None  # [N, 1, h, w] each


class Projector:
    """The projection of one batch, step by step. The result of a target does not depend on the others."""

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
        self.G, self.targets, self.loss, self.mask = G, targets, loss, mask
        self.options = options = options.for_model(G.config)
        self.done, self.progress = 0, progress
        self.exploration = 0.0 if start else 0.05  # of the deviation
        self.synthesis = frozen_synthesis(G)  # where no gradients are needed
        n, device = len(targets), targets.device
        with torch.no_grad():
            self.features = loss.features(targets)
            self.x, self.c, self.std = self._start(start)
        self.x = self.x.detach().clone().requires_grad_(True)
        self.noise = None
        if options.noise == "optimize" and G.noise_layers:
            maps = start.noise if start else None
            maps = maps or sample_noise(G, options.seed, "project.maps", self._index(0))
            self.noise = [m.expand(n, -1, -1, -1).contiguous().clone() for m in maps]
            for m in self.noise:
                _normalize(m)
                m.requires_grad_(True)
        moved = start.ws if start and start.z is None else None
        self.view = View(G, n, moved) if options.view == "optimize" and input_indices(G) else None
        self.parameters = [self.x, *(self.noise or []), *([self.view.motion] if self.view else [])]
        self.optimizer = Adam(self.parameters, lr=options.lr, betas=(0.9, 0.999))
        infinite = torch.full([n], math.inf, device=device)
        self.best = _Best(infinite, self.ws().detach(), self.noise and [m.detach() for m in self.noise])
        if start:
            self.evaluate()  # it may be better than all later steps

    def step(self) -> None:
        """Update all targets by one step of Adam."""
        t = self.done / self.options.steps
        self.optimizer.param_groups[0]["lr"] = self.options.lr * lr_multiplier(t)
        e = counter.normal(self.options.seed, "project.noise", self._index(self.done), tuple(self.x.shape[1:]))
        distance = self._distance(self.ws(self.x + self.std * self.exploration * max(0.0, 1 - t / 0.75) ** 2 * e))
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
    def evaluate(self) -> None:
        """Compare the current images with the targets, without a step."""
        self._distance(self.ws())

    def ws(
        self,
        x: Tensor | None = None,  # [N, K, D] in the space of the search; None: the current latents
    ) -> Tensor:  # [N, num_ws, w_dim]
        x = self.x if x is None else x
        z = self.options.space == "z"
        ws = self.G.mapping(x[:, 0], self.c) if z else x.expand(-1, self.G.num_ws, -1)
        return ws if self.view is None else self.view.apply(ws)

    def _distance(self, ws: Tensor) -> Tensor:  # [N]
        """Compare the images of latents with the targets, and update the best latents."""
        images = self.synthesis(ws, noise="const" if self.noise is None else self.noise)
        if self.mask is not None:
            images = torch.where(self.mask.bool(), images, self.targets)
        distance = self.loss.distance(self.loss.features(images), self.features)
        with torch.no_grad():
            is_better = distance < self.best.distance
            maps = self.noise and [
                torch.where(is_better[:, None, None, None], m, best)
                for m, best in zip(self.noise, self.best.noise or [], strict=True)
            ]
            self.best = _Best(
                torch.where(is_better, distance, self.best.distance),
                torch.where(is_better[:, None, None], ws, self.best.ws),
                maps,
            )
        return distance

    def _index(self, i: int) -> Tensor:  # [1], the same for all targets, so that none depends on its position
        return torch.full([1], i, dtype=torch.int64, device=self.targets.device)

    def _start(self, start: Start | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return the initial x [N, K, D], its labels [N, c_dim] in Z, and the standard deviation [] of the space."""
        options, n = self.options, len(self.targets)
        z, c, w = self._samples()
        mean = w.mean(0)
        points = z if options.space == "z" else w
        std = (points - points.mean(0)).square().sum(1).mean().sqrt()
        if start is not None and options.space == "z":
            return *self._start_in_z(start), std
        if start is not None:
            ws = start.ws if self.options.view == "const" else without_view(self.G, start.ws)
            return _to_space(ws, options.space).expand(n, -1, -1), None, std
        count = options.steps // 2 if options.candidates is None else options.candidates
        candidates = w[: min(count, len(w))]
        if options.space != "z":
            candidates = torch.cat([mean[None], candidates])
        elif not len(candidates):  # use the sample whose w is closest to the mean
            closest = (w - mean).square().sum(1).argmin()[None]
            z, c, candidates = z[closest], None if c is None else c[closest], w[closest]
        chosen = self._choose(candidates)
        if options.space == "z":
            return z[chosen][:, None], None if c is None else c[chosen], std
        k = self.G.num_ws if options.space == "w+" else 1
        return candidates[chosen][:, None].expand(-1, k, -1), None, std

    def _start_in_z(self, start: Start) -> tuple[Tensor, Tensor | None]:
        """Return z [N, 1, z_dim] and labels [N, c_dim]. Raises SganError if only a mapping network knows them."""
        z, c, n, space = start.z, None, len(self.targets), self.G.label_space
        if z is None and self.G.config.has_mapping:
            raise SganError("--init has latents in W, which --space z cannot start from.", hint="Use --space w or w+.")
        if z is None:
            labels = torch.tensor(space.vectors) if space.vectors else torch.eye(space.c_dim)
            z, c = self.G.mapping.invert(start.ws, labels.to(start.ws) if space.c_dim else None)
        return z[:, None].expand(n, -1, -1), None if c is None else c.expand(n, -1)

    def _samples(self) -> tuple[Tensor, Tensor | None, Tensor]:  # z [S, z_dim], c [S, c_dim], w [S, w_dim]
        config, options = self.G.config, self.options
        index = torch.arange(_NUM_SAMPLES, device=self.targets.device)
        z = F.normalize(counter.normal(options.seed, "project.z", index, (config.z_dim,)), dim=1) * config.z_dim**0.5
        if options.class_index is None:
            c = sample_labels(self.G.label_space, options.seed, "project.c", index)
        else:
            c = class_labels(options.class_index, range(_NUM_SAMPLES), self.G.label_space)
            c = c if c is None else c.to(index.device)
        parts = [(z[i : i + 1000], None if c is None else c[i : i + 1000]) for i in range(0, _NUM_SAMPLES, 1000)]
        return z, c, torch.cat([self.G.mapping(a, b)[:, 0] for a, b in parts])

    def _choose(self, candidates: Tensor) -> Tensor:  # [M, w_dim] -> [N] index of the closest to each target
        n = len(self.targets)
        if len(candidates) == 1:
            return torch.zeros(n, dtype=torch.int64, device=candidates.device)
        targets = self.features if self.mask is None else self.loss.features(self.targets * self.mask)
        distances, done = [], 0
        for ws in candidates.split(self.options.batch or batch_size(self.targets)):
            images = self.synthesis(ws[:, None].expand(-1, self.G.num_ws, -1))
            features = self.loss.features(images if self.mask is None else images * self.mask)
            rows = [self.loss.distance(features, [f[i : i + 1] for f in targets]) for i in range(n)]
            distances.append(torch.stack(rows))
            done += len(ws)
            self.progress("candidates", done, len(candidates))
        return torch.cat(distances, dim=1).argmin(1)


def _to_space(
    ws: Tensor,  # [N, num_ws, w_dim]
    space: str | None,  # 'w' or 'w+'
) -> Tensor:  # [N, K, w_dim]
    """Convert initial latents to the space of the search. Raises SganError if that is not possible."""
    if space == "w+":
        return ws
    if not torch.allclose(ws, ws[:, :1], atol=1e-4):
        raise SganError("--space w cannot start from latents that differ between layers.", hint="Use --space w+.")
    return ws[:, :1]


def lr_multiplier(
    t: float,  # fraction of completed steps
) -> float:
    """Ramp the learning rate up over the first 1/20, and down by a cosine over the last quarter (appendix D)."""
    down = min(1.0, (1 - t) / 0.25)
    return min(1.0, t / 0.05) * (0.5 - 0.5 * math.cos(math.pi * down))


def roughness(
    noise: list[Tensor],  # [N, 1, h, w] each
) -> Tensor:  # []
    """Sum squared autocorrelations at a distance of one pixel, over pyramids of the maps down to 8 x 8 (appendix D).

    Each level averages 2 x 2 pixels and multiplies by 2, which preserves the unit variance of white noise.
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
    """Normalize each map to mean 0 and variance 1."""
    maps.sub_(maps.mean((1, 2, 3), keepdim=True))
    maps.mul_(maps.square().mean((1, 2, 3), keepdim=True).add_(1e-12).rsqrt_())
