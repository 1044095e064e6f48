"""Dragging: what is at some points of an image moves to other points."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.images import labeled_grid, save_image
from ..data.markers import mark_points
from ..data.video import write_video
from ..errors import MisuseError, SganError
from ..inversion.dragging import Dragger, DragOptions, DragStep, check_draggable
from ..inversion.editing import save_edited
from ..inversion.targets import read_image
from ..progress import Progress, silent, track
from ..sampling import checks
from ..sampling.generate import SamplingOptions, generate_images
from ..sampling.latent_files import Latents
from ..sampling.latents import noise_maps
from .model import Model, OutputImage, tuned_note, upcast

VIDEO_RATE = 20  # frames per second
Points = Sequence[tuple[float, float, float, float]]  # x, y of a handle point, and x, y of its target


def _start(name: str, value: Any) -> Any:
    return value if isinstance(value, Tensor) else checks.latents()(name, [value])[0]


def _mask(name: str, value: Any) -> Any:
    return value if isinstance(value, (Tensor, np.ndarray)) else checks.path()(name, value)


@dataclass(frozen=True)
class DragRequest(SamplingOptions, DragOptions):
    """An image, and the points to drag. Points are in pixels from the upper left corner, x to the right and y down; the
    center of the first pixel is at 0.5, 0.5."""

    start: int | str | Path | Tensor = 0  # seed, file of latents, or latents [1, num_ws, w_dim]
    points: Points = ()  # x, y of each handle point, and x, y of its target
    mask: str | Path | np.ndarray | Tensor | None = None  # bool [H, W]: what may move, or an image where it is white

    def __post_init__(self) -> None:
        SamplingOptions.__post_init__(self)
        DragOptions.__post_init__(self)
        point = checks.list_of(checks.number(), "(4, 4, 8, 4)", 4, 4)
        checks.check_fields(self, start=_start, points=checks.list_of(point, "[(4, 4, 8, 4)]", 0), mask=_mask)


class Drag:
    """A drag of one image, which runs step by step."""

    def __init__(
        self,
        model: Model,
        request: DragRequest,
        latents: Latents,  # of the first image
        earlier: Sequence[Points] = (),  # points of the drags before
    ):
        self.model, self.request, self.latents, self.earlier = model, request, latents, tuple(earlier)
        self._sampling, G = upcast(SamplingOptions, request), latents.G
        size = G.config.height, G.config.width
        check_draggable(G)
        check_points(request.points, size)
        mask = None if request.mask is None else read_move_mask(request.mask, size)
        noise = noise_maps(G, self._sampling.noise_mode, latents.seeds, G.device)
        if latents.noise is not None and self._sampling.noise_mode == "const":
            noise = latents.noise
        self._dragger = Dragger(
            G,
            latents.ws,
            [(x, y) for x, y, _, _ in request.points],
            [(x, y) for _, _, x, y in request.points],
            upcast(DragOptions, request),
            mask,
            noise,
            self._sampling.view(G),
        )
        self.path = [self._dragger.state]  # the start, and all steps so far

    @property
    def state(self) -> DragStep:
        """Where the drag is."""
        return self.path[-1]

    @property
    def targets(self) -> list[tuple[float, float]]:
        return [(x, y) for _, _, x, y in self.request.points]

    def steps(self) -> Iterator[DragStep]:
        """Run, and yield each step until all handles have arrived or there are no more steps. Whoever stops early may
        call this again to go on."""
        return self.model.with_kernels(self._steps())

    def _steps(self) -> Iterator[DragStep]:
        while not self.state.done:
            self.path.append(self._dragger.step())
            yield self.state

    def image(
        self,
        ws: Tensor,  # [1, num_ws, w_dim]
    ) -> Tensor:  # uint8 [C, H, W]
        """The image of latents, such as those of a step, with the noise and the options of this drag."""
        return self.images([ws])[0]

    def images(
        self,
        path: Sequence[Tensor],  # F of [1, num_ws, w_dim]
        progress: Progress = silent,
    ) -> Tensor:  # uint8 [F, C, H, W]
        latents, index = self.latents, [0] * len(path)
        ws, seeds, noise = torch.cat(list(path)), [latents.seeds[0]] * len(path), latents.noise_of(index)
        with self.model.use_kernels():
            found = generate_images(latents.G, lambda i, j: ws[i:j], seeds, self._sampling, progress, noise=noise)
            return torch.stack(list(found))

    def again(
        self,
        points: Points,
        mask: np.ndarray | Tensor | None = None,  # bool [H, W]: what may move
        ws: Tensor | None = None,  # [1, num_ws, w_dim] of one of the steps; None: the last
    ) -> Drag:
        """Prepare the next drag, from where this one ended or from another of its steps."""
        latents = replace(self.latents, ws=self.state.ws if ws is None else ws)
        with self.model.use_kernels():
            request = replace(self.request, points=points, mask=mask)
            return Drag(self.model, request, latents, [*self.earlier, self.request.points])

    def result(self) -> DragResult:
        """The result of all steps so far."""
        return DragResult(self, list(self.path), not self.state.done, tuned_note(self.latents.tuned))


@dataclass(frozen=True, eq=False)
class DragResult:
    """A dragged image."""

    drag: Drag
    path: list[DragStep]  # the start, and all steps
    interrupted: bool  # neither have all handles arrived, nor are the steps used up
    notes: list[str] = field(default_factory=list)

    @property
    def ws(self) -> Tensor:  # [1, num_ws, w_dim]
        return self.path[-1].ws

    @property
    def points(self) -> list[tuple[float, float]]:
        """Where each handle is."""
        return self.path[-1].points

    @property
    def distance(self) -> list[float]:
        """Of each handle to its target, in pixels."""
        return self.path[-1].distance

    @property
    def image(self) -> Tensor:  # uint8 [C, H, W]
        return self.drag.image(self.ws)

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of all files. The latents of the start are 'start': the image is not that of a seed."""
        drag, request = self.drag, self.drag.request
        start = None if isinstance(request.start, Tensor) else str(request.start)
        points = " then ".join(describe_points(points) for points in [*drag.earlier, request.points])
        more = {"start": start, "points": points, "steps": self.path[-1].index, "lr": request.lr}
        if request.mask is not None:
            more |= {"mask": request.mask if isinstance(request.mask, (str, Path)) else "yes"}
            more |= {"mask_weight": request.mask_weight}
        sampling = upcast(SamplingOptions, request)
        more |= {"layer": request.layer, "coarse": request.coarse, "tuned": drag.latents.tuned}
        return drag.model.metadata(sampling, **more)

    def save(
        self,
        folder: str | Path,
        name: str = "drag",
    ) -> list[Path]:
        """Write the latents NAME.npz, for other requests, the image NAME.png, and NAME-points.png, the image before and
        after with the points; return their paths in this order. Raises SganError if NAME.npz is the start."""
        drag, request = self.drag, self.drag.request
        latents, image, sheet = output_files(folder, name)
        start = str(request.start) if isinstance(request.start, Path) else request.start
        items = [] if isinstance(start, Tensor) else [start]
        if any(isinstance(item, str) and Path(item).resolve() == latents.resolve() for item in items):
            raise SganError(f"{latents} would be overwritten by its own edit.", hint="Use another folder.")
        metadata = self.metadata
        settings = {**drag.model.file_settings, "points": metadata["points"], "start": metadata.get("start")}
        fingerprint = metadata["model"]
        save_edited(Path(folder), drag.latents, self.ws, items, fingerprint, settings, latents.name)
        OutputImage(name, self.image, metadata).save(folder)
        save_image(self.before_after(), sheet, metadata=metadata)
        return [latents, image, sheet]

    def before_after(self) -> Tensor:  # uint8 [3, H', W']
        """The image before and after, with the handle and target points."""
        ends = [self.path[0], self.path[-1]]
        images = self.drag.images([step.ws for step in ends])
        cells = [mark_points(x, s.points, self.drag.targets) for x, s in zip(images, ends, strict=True)]
        return labeled_grid(torch.stack(cells)[None], None, None, [""], ["before", "after"])

    def save_video(
        self,
        path: str | Path,  # .gif, .webp or .mp4
        marks: bool = True,  # show the points
        progress: Progress = silent,
    ) -> Path:
        """Write a video of the steps."""
        frames = self.drag.model.with_kernels(self._frames(marks, progress))
        write_video(frames, len(self.path), path, fps=VIDEO_RATE, metadata=self.metadata)
        return Path(path)

    def _frames(self, marks: bool, progress: Progress) -> Iterator[Tensor]:  # uint8 [C, H', W']
        for step in track(self.path, "frames", progress):
            points, targets = (step.points, self.drag.targets) if marks else ([], [])
            yield mark_points(self.drag.image(step.ws), points, targets)


def output_files(
    folder: str | Path,
    name: str = "drag",
) -> list[Path]:  # latents, image, sheet
    """The files that `DragResult.save` writes, except tuned weights."""
    return [Path(folder, f"{name}{end}") for end in (".npz", ".png", "-points.png")]


def prepare_drag(
    model: Model,
    request: DragRequest,
) -> Drag:
    """Prepare a drag, which its `steps` run. Raises SganError if the model has no styles, a point is outside of the
    image, or a file does not fit."""
    check_draggable(model.G)
    if not request.points:
        raise MisuseError("There are no points to drag.", hint="Name a handle and its target: [(x, y, to_x, to_y)].")
    return Drag(model, request, _open_start(model, request))


def drag(
    model: Model,
    request: DragRequest | Drag,
    progress: Progress = silent,
) -> DragResult:
    """Drag until all handles have arrived or there are no more steps. Ctrl-C keeps the progress so far."""
    task = request if isinstance(request, Drag) else prepare_drag(model, request)
    total = task.request.steps
    with contextlib.suppress(KeyboardInterrupt):
        for step in task.steps():
            progress(f"steps, distance={max(step.distance):.2f}", step.index, total)
    return task.result()


def _open_start(model: Model, request: DragRequest) -> Latents:
    sampling, start = upcast(SamplingOptions, request), request.start
    if isinstance(start, Tensor):
        if tuple(start.shape) != (1, model.G.num_ws, model.G.synthesis.w_dim):
            shape = [1, model.G.num_ws, model.G.synthesis.w_dim]
            raise SganError(f"The latents to start from have shape {list(start.shape)}.", hint=f"Use {shape}.")
        return Latents(model.G, start.detach().float().to(model.device), ["latents"], [0], [0])
    found = model.latents([start if isinstance(start, int) else str(start)], sampling)
    if len(found) > 1:
        raise SganError(f"{start} has {len(found)} images, but a drag is of one.", hint="Use a file of one image.")
    return replace(found, ws=found.ws.clone())  # mapped in inference mode


def check_points(
    points: Points,
    size: tuple[int, int],  # of the image
) -> None:
    """Raise SganError if a handle or a target is outside of the image."""
    height, width = size
    for x, y in (point for four in points for point in (four[:2], four[2:])):
        if not (0 <= x <= width and 0 <= y <= height):
            raise SganError(
                f"The point {x:g},{y:g} is outside of the image, which is {height}x{width} (height x width).",
                hint=f"Choose x from 0 to {width} and y from 0 to {height}.",
            )


def read_move_mask(
    mask: str | Path | np.ndarray | Tensor,  # bool [H, W], or an image file: white may move
    size: tuple[int, int],  # of the image
) -> Tensor:  # bool [H, W]
    """Read a mask. Raises SganError if it has another size, is not black and white, or all of it must not move."""
    name = "The mask"
    if isinstance(mask, (str, Path)):
        name, mask = f"The mask {mask}", np.array(read_image(mask).convert("L"))
        if levels := set(np.unique(mask)) - {0, 255}:
            raise SganError(
                f"{name} has pixels of gray level {min(levels)}, neither black nor white.",
                hint="Make what may move white and the rest black, without smooth edges, and save it as PNG.",
            )
    found = torch.as_tensor(mask) != 0
    if tuple(found.shape) != size:
        found_size, image_size = ("x".join(map(str, shape)) for shape in (found.shape, size))
        raise SganError(
            f"{name} is {found_size}, but the image is {image_size} (height x width).",
            hint="Make the mask as large as the image.",
        )
    if not found.any():
        raise SganError(f"{name} lets nothing move.", hint="Make what may move white.")
    return found


def describe_points(points: Points) -> str:
    """'x,y:x,y;x,y:x,y' of handles and targets."""
    return ";".join("{:g},{:g}:{:g},{:g}".format(*point) for point in points)
