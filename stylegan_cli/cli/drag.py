"""`sgan edit drag`"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import MisuseError
from .call import Call, keep_freed_memory, output_folder, refuse_to_overwrite
from .options import (
    outdir_option,
    session_options,
    truncation_options,
    view_options,
)
from .params import FiniteRange

if TYPE_CHECKING:
    from ..session import DragResult


class PointPairs(click.ParamType):
    """'x,y:x,y;x,y:x,y', each a handle and its target, as a list of tuples of four numbers."""

    name = "points"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list:
        if isinstance(value, list):
            return value
        pairs = []
        for part in value.strip().rstrip(";").split(";"):
            try:
                ends = [tuple(float(number) for number in point.split(",")) for point in part.split(":")]
            except ValueError:
                ends = []
            if [len(end) for end in ends] != [2, 2] or not all(math.isfinite(number) for end in ends for number in end):
                usage = "Use X,Y:X,Y of a point and its target, such as '12,9:16,9', with ; between several."
                self.fail(f"{part!r} is not a valid pair of points. {usage}", param, ctx)
            pairs.append((*ends[0], *ends[1]))
        return pairs


@click.command("drag", short_help="Drag points of an image to other places.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), help="Image to drag, as a seed. Default: 0, without --latents."
)
@click.option(
    "--latents", metavar="FILE", help="Image to drag, as a file of its latents, such as projected.npz or drag.npz."
)
@click.option(
    "--points",
    type=PointPairs(),
    metavar="X,Y:X,Y;...",
    help="Handle points and their targets, in pixels from the upper left corner: X to the right, Y down.",
)
@click.option("--mask", metavar="IMAGE", help="Mask image. Only white pixels may move. Default: all pixels.")
@click.option("--steps", type=click.IntRange(1), default=300, help="Maximum number of optimization steps.")
@click.option(
    "--tolerance",
    type=FiniteRange(0),
    default=1.0,
    help="Distance to its target at which a point has arrived, in pixels.",
)
@click.option("--lr", type=FiniteRange(0, min_open=True), help="Learning rate. Default: by the size of the image.")
@click.option("--mask-weight", type=FiniteRange(0), default=1.0, help="Weight of changes outside of --mask.")
@click.option(
    "--layer",
    metavar="NAME",
    help="Layer whose features move, by its name in `sgan model info`. Default: by the size of the image.",
)
@click.option(
    "--coarse",
    type=click.IntRange(1),
    default=6,
    help="Number of styles that may change, from the coarsest.",
)
@click.option(
    "--video",
    metavar="FILE",
    help="Also write a video of the steps: .gif, .webp, or .mp4 (needs pip install 'stylegan-cli[video]').",
)
@click.option("--marks/--no-marks", default=True, help="Mark the points in the video.")
@truncation_options
@click.option(
    "--noise-mode",
    type=click.Choice(["const", "random", "none"]),
    default="const",
    help="Per-layer noise, which adds fine detail: const (stored in the model), random (from the seed) or none.",
)
@view_options("of the image")
@outdir_option
@session_options
def drag_command(
    call: Call,
    seed: int | None,
    latents: str | None,
    video: str | None,
    marks: bool,
    outdir: str,
    **request: Any,  # see session.DragRequest
) -> None:
    """Drag points of an image to other places: what is at a handle point moves to its target.

    Changes the latents of coarse layers step by step, until every point is within --tolerance of its target. Writes
    drag.npz (the latents, which other commands accept like those from `sgan project`), drag.png (the image) and
    drag-points.png (the image before and after, with handles in red and targets in blue). Ctrl-C keeps the steps so
    far.

    \b
    Examples:
      sgan edit drag --seed 49 --points "25,15:25,8;38,15:38,8"
      sgan edit drag --latents out/projected.npz --points 32,40:32,48 --mask mouth.png --video drag.webp
    """
    from ..data.video import check_video
    from ..session.drag import VIDEO_RATE, output_files

    if not request["points"]:
        raise MisuseError("There are no points to drag.", hint="Name a point and its target: --points 12,9:16,9")
    if seed is not None and latents is not None:
        raise MisuseError("--seed and --latents both name the image to drag.", hint="Use only one of them.")
    folder, start = Path(outdir), latents if latents is not None else seed or 0
    if video:
        check_video(video, VIDEO_RATE)
    refuse_to_overwrite([latents, request["mask"]], [*output_files(folder), *([Path(video)] if video else [])])
    keep_freed_memory()
    given = {name: value for name, value in request.items() if value is not None}
    with output_folder(folder), call.progress() as progress:
        session = call.open()
        result = session.drag(session.prepare_drag(start=start, **given), progress)
        files = result.save(folder)
        if video:
            files.append(result.save_video(video, marks, progress))
    _print(result, files, call)


def _print(result: DragResult, files: list[Path], call: Call) -> None:
    call.inform(*result.notes)
    points = []
    for handle, now, target, distance in zip(
        result.path[0].points, result.points, result.drag.targets, result.distance, strict=True
    ):
        points.append({"handle": handle, "now": now, "target": target, "distance": distance})
        if not call.as_json:
            a, b, c = ("{:g},{:g}".format(*point) for point in (handle, now, target))
            call.inform(f"{a}: now {b}, {distance:.1f} pixels from {c}")
    call.print_result({"points": points, "steps": result.path[-1].index, "files": files}, files[1])
    if result.interrupted:
        raise KeyboardInterrupt
