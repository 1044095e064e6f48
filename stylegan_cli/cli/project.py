"""sgan project"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import SganError
from .params import Call, keep_memory, session_options, sigterm_as_interrupt, warn

if TYPE_CHECKING:
    from ..session import ProjectResult


@click.command(short_help="Find the latents that draw an image.")
@click.argument("images", metavar="IMAGE...", nargs=-1)
@click.option("--space", type=click.Choice(["w", "w+", "z"]), default="w", help="One w, one for each layer, or z.")
@click.option("--steps", type=click.IntRange(1), default=1000, help="Of the search.")
@click.option(
    "--loss",
    type=click.Choice(["lpips", "discriminator", "pixel"]),
    help="What is near. Left out: lpips where its weights can be had, else discriminator.",
)
@click.option("--detector", metavar="FILE", help="Weights of LPIPS's VGG16. Left out: found or downloaded.")
@click.option(
    "--noise", type=click.Choice(["optimize", "const"]), default="optimize", help="Search noise maps too, or not."
)
@click.option("--mask", metavar="IMAGE", help="Only where it is white do pixels count.")
@click.option("--crop", type=click.Choice(["center", "none"]), default="center", help="To the model's shape, or not.")
@click.option("--class", "class_index", type=int, help="Class to begin in. Left out: any.")
@click.option("--init", metavar="FILE", help="Begin at the latents in this .npz.")
@click.option(
    "--candidates",
    type=click.IntRange(0, 10_000),
    help="Begin at the nearest of so many random images; 0: at the mean. Left out: half the steps.",
)
@click.option(
    "--tune",
    "tune_steps",
    metavar="STEPS",
    type=click.IntRange(0),
    default=0,
    help="Then tune the generator around them.",
)
@click.option("--video", type=click.Choice(["gif", "webp", "mp4"]), help="Also write the way there.")
@click.option("--batch", type=click.IntRange(1), help="Images at a time. Left out: by their size.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of what is random in the search.")
@click.option("--outdir", default="./out", metavar="FOLDER", help="Where the files are written.")
@session_options
def command(
    call: Call,
    tune_steps: int,
    video: str | None,
    outdir: str,
    **request: Any,  # see session.ProjectRequest
) -> None:
    """Find the latents that draw an image, or the images nearest to it.

    Writes projected.npz (for `sgan mix --rows projected.npz`, `sgan edit apply`, `sgan generate --from-w` ...),
    proj.png and compare.png; of several images each with its name in front. Ctrl-C keeps the best so far.
    """
    from ..data.video import check_video
    from ..files import check_writable
    from ..session.project import VIDEO_RATE

    _check(request)
    folder, path = Path(outdir), Path(outdir, f"project.{video}") if video else None
    if path:
        check_video(path, VIDEO_RATE)
    keep_memory()
    with call.progress() as progress:
        session = call.open()
        task = session.prepare_projection(**request)
        warn(*task.warnings)
        _spare_the_inputs([*request["images"], request["mask"], request["init"]], task.files(folder))
        check_writable(folder)
        with sigterm_as_interrupt():
            result = session.project(task, progress)
            files = result.save(folder)
            if tune_steps and not result.interrupted:
                result = session.tune(result, tune_steps, progress)
                files = result.save(folder)
            if path:
                files.append(result.save_video(path, progress))
    _print(result, files, call)
    if result.interrupted:
        if result.missing:
            warn(f"Not begun: {', '.join(result.missing)}.")
        raise KeyboardInterrupt


def _check(request: dict[str, Any]) -> None:
    """Raises SganError or UsageError on what needs no model to be wrong."""
    if not request["images"]:
        raise SganError("There is no image to project.", hint="sgan project face.png")
    for option in ("candidates", "class_index"):
        if request["init"] is not None and request[option] is not None:
            raise click.UsageError(f"--{option.removesuffix('_index')} says where to begin, and so does --init.")


def _spare_the_inputs(inputs: list[str | None], outputs: list[Path]) -> None:
    """Raises SganError if a file that is read would be written."""
    ours = {path.resolve() for path in outputs}
    if hit := [given for given in inputs if given and Path(given).resolve() in ours]:
        raise SganError(f"{hit[0]} would be overwritten by its own projection.", hint="Give another --outdir.")


def _print(result: ProjectResult, files: list[Path], call: Call) -> None:
    loss, rows = result.task.loss.name, zip(result.names, result.distance, result.psnr, strict=True)
    found = [{"name": name, "distance": distance, "psnr": psnr} for name, distance, psnr in rows]
    if not call.as_json:
        for row in found:
            call.say(f"{row['name']}: distance {row['distance']:.4f} ({loss}), PSNR {row['psnr']:.1f} dB")
    call.finish({"loss": loss, "found": found, "files": files}, files[-1])
