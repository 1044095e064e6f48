"""Point-based dragging (Pan et al. 2023, "Drag Your GAN", section 3.2): the content of an image at handle points moves
to target points, by optimization of the latents of the coarse layers.

Motion supervision makes small patches around the handles move one step towards the targets (equation 1):

    L = sum_i sum_{q within r1 of p_i} |F(q) - F(q + d_i)|_1 + lambda |(F - F0) (1 - M)|_1,    F(q) without gradient

F are features of the generator, F0 those of the first image, d_i is a vector towards the target, at most one pixel
long, M the mask. After each step, point tracking finds where the handles went (equation 2):

    p_i = argmin_{q within r2 of p_i} |F(q) - F0(handle_i)|_1

Here each sum is a mean, so that the weights do not depend on radii and channels, and points need not be whole numbers.
The features after a step are those before the next one, so that a step synthesizes once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import SganError
from ..models.generator import Generator, LayerInfo, Noise
from ..optimizers import Adam
from ..sampling import checks
from ..sampling.segmenter import inner
from ..sampling.view import style_indices_without_input

_PAPER = 512  # side of the images for which the paper gives lengths
_SIDE, _LEAST = 0.25, 16  # the default layer is the last one of at most this fraction of the image, or this size


@dataclass(frozen=True)
class DragOptions:
    """Options of a drag. Lengths are in pixels of the image."""

    layer: str | None = None  # name of the layer whose features move; None: see `feature_layer`
    radius: float | None = None  # r1 of motion supervision; None: 3 at 512 pixels, at least 1
    track_radius: float | None = None  # r2 of point tracking; None: 12 at 512 pixels, at least 2
    lr: float | None = None  # learning rate; None: 0.002 from 512 pixels up, up to 0.01 for smaller images
    mask_weight: float = 1.0  # lambda: how much what may not move is held; the paper's 20 holds the points too
    coarse: int = 6  # number of ws to optimize, from the first; not those that the layer does not depend on
    steps: int = 300  # at most
    tolerance: float = 1.0  # distance to the target at which a handle has arrived

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            layer=checks.string(),
            radius=checks.number(0),
            track_radius=checks.number(0),
            lr=checks.number(0),
            mask_weight=checks.number(0),
            coarse=checks.integer(1),
            steps=checks.integer(1),
            tolerance=checks.number(0),
        )


@dataclass(frozen=True, eq=False)
class DragStep:
    """The state after a step."""

    index: int  # number of steps so far
    ws: Tensor  # [1, num_ws, w_dim]
    points: list[tuple[float, float]]  # x, y of each handle now
    distance: list[float]  # of each handle to its target
    loss: float  # before the step; of step 0: 0
    done: bool  # all handles have arrived, or there are no more steps


def check_draggable(
    G: Generator,
) -> None:
    """Raise SganError if a generator has no styles of coarse layers that could be dragged."""
    if len(style_indices_without_input(G)) < 2:
        raise SganError(f"Dragging needs a model with styles, which {G.config.title} models do not have.")


def feature_layer(
    G: Generator,
    name: str | None = None,  # of a layer in the layer table
) -> LayerInfo:
    """The layer whose features are dragged. Raises SganError if there is no such layer."""
    check_draggable(G)
    rows = [row for row in G.layers if row.kind == "conv"]
    if name is not None:
        names = {n: row for row in rows for n in (row.name, row.path)}
        if name not in names:
            raise SganError(
                f"This model has no layer {name!r}.", hint=f"Choose from {', '.join(r.path for r in rows)}."
            )
        return names[name]
    limit = max(_SIDE * G.config.height, _LEAST)
    fits = [row for row in rows if row.height - 2 * row.margin <= limit]
    return fits[-1] if fits else rows[0]


class Dragger:
    """A drag of one image, step by step."""

    def __init__(
        self,
        G: Generator,
        ws: Tensor,  # [1, num_ws, w_dim]
        handles: Sequence[tuple[float, float]],  # P points x, y in pixels; (0, 0) is the upper left corner
        targets: Sequence[tuple[float, float]],  # P points
        options: DragOptions,
        mask: Tensor | None = None,  # bool [H, W]: what may move; None: everything
        noise: Noise = "const",  # of `Synthesis.forward`
        transform: Tensor | None = None,  # of `Synthesis.forward`
    ):
        """Raises SganError if the model cannot be dragged or has no such layer."""
        self.G, self.options, self.row = G, options, feature_layer(G, options.layer)
        self.count, self.loss = 0, 0.0
        self._inputs = {"noise": noise, "transform": transform}
        first = ws.detach().clone().to(G.device)
        chosen = [i for i in style_indices_without_input(G) if i <= self.row.w_index]
        self._chosen = torch.tensor(chosen[: options.coarse], device=G.device)
        self._first, self._moving = first, first[:, self._chosen].clone().requires_grad_(True)
        scale = max(self.size) / _PAPER
        lr = 0.002 * min(max(1 / scale, 1), 5) if options.lr is None else options.lr
        self._optimizer = Adam([self._moving], lr=lr)
        self.targets = torch.tensor(targets, dtype=torch.float32, device=G.device).reshape(-1, 2)
        self.points = torch.tensor(handles, dtype=torch.float32, device=G.device).reshape(-1, 2)
        with torch.enable_grad():
            self._features = self._read()  # [1, C, h, w] of the present latents
        self._first_features = self._features.detach()
        self._wanted = sample(self._first_features, self.points[:, None], self.size)  # [P, 1, C]
        self._held = None if mask is None else hold_weights(mask.to(G.device), self._features)
        self._patch = disc(max(3 * scale, 1) if options.radius is None else options.radius, 1.0).to(G.device)
        reach = max(12 * scale, 2) if options.track_radius is None else options.track_radius
        self._search = square(reach, 0.5).to(G.device)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.G.config.height, self.G.config.width

    @property
    def ws(self) -> Tensor:  # [1, num_ws, w_dim]
        """The present latents."""
        return self._first.index_copy(1, self._chosen, self._moving.detach())

    @property
    def state(self) -> DragStep:
        """The state now."""
        distance = (self.targets - self.points).norm(dim=1)
        done = bool((distance <= self.options.tolerance).all()) or self.count >= self.options.steps
        points = [(x, y) for x, y in self.points.tolist()]
        return DragStep(self.count, self.ws, points, distance.tolist(), self.loss, done)

    def step(self) -> DragStep:
        """Optimize once, and track the points."""
        with torch.enable_grad():
            loss = self._loss()
            (self._moving.grad,) = torch.autograd.grad(loss, [self._moving])
            self._optimizer.step()
            self._features = self._read()
        self.points = track(self._features.detach(), self._wanted, self.points, self._search, self.size)
        self.count, self.loss = self.count + 1, loss.item()
        return self.state

    def _read(self) -> Tensor:  # [1, C, h, w]
        ws = self._first.index_copy(1, self._chosen, self._moving)
        found = self.G.synthesis.read_features(ws, [self.row.name], **self._inputs)
        return inner(found[self.row.name], self.row).float()

    def _loss(self) -> Tensor:
        way = self.targets - self.points
        step = way / way.norm(dim=1, keepdim=True).clamp_min(1)  # [P, 2]
        loss = motion_loss(self._features, self.points, step, self._patch, self.size)
        if self._held is None:
            return loss
        change = (self._features - self._first_features).abs() * self._held
        return loss + self.options.mask_weight * change.mean()


def motion_loss(
    features: Tensor,  # [1, C, h, w]
    points: Tensor,  # [P, 2]
    step: Tensor,  # [P, 2] of each point towards its target
    patch: Tensor,  # [M, 2] around each point
    size: tuple[int, int],  # of the image
) -> Tensor:  # []
    """Motion supervision: the mean over patches and channels of |F(q) - F(q + d)|, of which only the second part has a
    gradient, summed over the points (Pan et al. 2023, equation 1)."""
    here = points[:, None] + patch  # [P, M, 2]
    there = sample(features, here + step[:, None], size)
    return (sample(features.detach(), here, size) - there).abs().mean((1, 2)).sum()


def track(
    features: Tensor,  # [1, C, h, w]
    wanted: Tensor,  # [P, 1, C] features of the handles at first
    points: Tensor,  # [P, 2] where they were
    search: Tensor,  # [M, 2] offsets to try, the shortest first
    size: tuple[int, int],  # of the image
) -> Tensor:  # [P, 2]
    """Point tracking: the nearest feature to that of the handle at first (Pan et al. 2023, equation 2)."""
    height, width = size
    tried = points[:, None] + search  # [P, M, 2]
    tried = torch.minimum(tried.clamp_min(0), tried.new_tensor([width, height]))
    best = (sample(features, tried, size) - wanted).abs().mean(2).argmin(1)
    return tried[torch.arange(len(tried), device=tried.device), best]


def sample(
    features: Tensor,  # [1, C, h, w]
    points: Tensor,  # [P, M, 2] x, y in pixels of the image
    size: tuple[int, int],  # of the image
) -> Tensor:  # [P, M, C]
    """Features at points, as if they were enlarged to the image bilinearly."""
    height, width = size
    grid = 2 * points / points.new_tensor([width, height]) - 1
    return F.grid_sample(features, grid[None], "bilinear", "border", align_corners=False)[0].permute(1, 2, 0)


def hold_weights(
    mask: Tensor,  # bool [H, W]: what may move
    features: Tensor,  # [1, C, h, w]
) -> Tensor:  # [1, 1, h, w]
    """How much of each feature's pixel must not change."""
    return F.adaptive_avg_pool2d((~mask)[None, None].to(features), (features.shape[2], features.shape[3]))


def disc(
    radius: float,
    spacing: float,
) -> Tensor:  # [M, 2]
    """The points of a grid within a radius of 0, the nearest first."""
    points = square(radius, spacing)
    return points[points.norm(dim=1) <= radius + 1e-6]


def square(
    radius: float,
    spacing: float,
) -> Tensor:  # [M, 2]
    """The points of a grid in a square around 0, the nearest first."""
    n = int(radius / spacing + 1e-6)
    line = torch.arange(-n, n + 1) * float(spacing)
    points = torch.cartesian_prod(line, line)
    return points[points.norm(dim=1).argsort(stable=True)]
