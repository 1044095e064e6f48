"""sgan project"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import MisuseError
from .call import Call, keep_freed_memory, refuse_to_overwrite, warn
from .options import (
    batch_option,
    class_choice,
    encoder_option,
    latent_space_option,
    outdir_option,
    projection_options,
    seed_option,
    session_options,
)
from .params import Aliases

if TYPE_CHECKING:
    from ..session import ProjectResult


@click.command(short_help="Find the latents that reproduce an image.")
@click.argument("images", metavar="IMAGE...", nargs=-1)
@projection_options
@click.option("--steps", type=click.IntRange(1), default=1000, help="Number of optimization steps.")
@click.option(
    "--noise",
    type=Aliases(["optimize", "const"], optimise="optimize"),
    default="optimize",
    help="Noise maps: optimize (search them too) or const (those stored in the model).",
)
@click.option(
    "--view",
    type=click.Choice(["optimize", "const"]),
    default="optimize",
    help="Position and rotation of the image, in models whose latents move it: optimize (search them separately too) "
    "or const (only as the latents of all layers have them).",
)
@click.option("--mask", metavar="IMAGE", help="Mask image. Only white pixels count. Default: all pixels.")
@class_choice("any class")
@click.option(
    "--init",
    metavar="FILE|encoder",
    help="Latents to start from: a file, or those that an encoder predicts (with --space w, their mean). Default: see "
    "--candidates.",
)
@encoder_option
@latent_space_option
@click.option(
    "--candidates",
    type=click.IntRange(0, 10_000),
    help="Number of random images, the nearest of which is the start; 0 starts at the mean latent. "
    "Default: half of --steps.",
)
@click.option(
    "--tune",
    "tune_steps",
    metavar="STEPS",
    type=click.IntRange(0),
    default=0,
    help="Number of steps that then tune the generator's weights toward the images (pivotal tuning); 0 is off. Writes "
    "tuned-HASH.safetensors, which other commands read along with projected.npz.",
)
@click.option(
    "--video", type=click.Choice(["gif", "webp", "mp4"]), help="Format of a video of the search. Default: no video."
)
@batch_option
@seed_option()
@outdir_option
@session_options
def command(
    call: Call,
    tune_steps: int,
    video: str | None,
    outdir: str,
    **request: Any,  # see session.ProjectRequest
) -> None:
    """Find the latents that reproduce an image, so that the model can edit, mix and animate it.

    Optimizes a latent (an input of the generator) until the generated image is close to each IMAGE. Writes
    projected.npz (the latents, for `sgan mix --rows`, `sgan interpolate --seeds`, `sgan edit apply --seeds` and
    `sgan generate --from-w`), proj.png (the image found) and compare.png (target, result and difference). With several
    images, each has its own files, with its name in front. Ctrl-C keeps the best result so far.
    Latents belong to the model that they were found with.

    \b
    Examples:
      sgan project face.jpg
      sgan project a.png b.png --space w+ --steps 500
      sgan project face.jpg --tune 300 --video mp4
    """
    from ..data.video import check_video
    from ..files import check_writable
    from ..session.project import VIDEO_RATE

    _check(request)
    folder, path = Path(outdir), Path(outdir, f"project.{video}") if video else None
    if path:
        check_video(path, VIDEO_RATE)
    keep_freed_memory()
    with call.progress() as progress:
        session = call.open()
        task = session.prepare_projection(runs=call.runs, **request)
        warn(*task.warnings)
        refuse_to_overwrite(
            [*request["images"], request["mask"], request["init"], request["encoder"]], task.files(folder)
        )
        check_writable(folder)
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
            warn(f"Not projected: {', '.join(result.missing)}.")
        raise KeyboardInterrupt


def _check(request: dict[str, Any]) -> None:
    """Check the options that need no model. Raises SganError or UsageError."""
    if not request["images"]:
        raise MisuseError("No image to project.", hint="Name an image: sgan project face.png")
    for option in ("candidates", "class_index"):
        if request["init"] is not None and request[option] is not None:
            name = option.removesuffix("_index")
            raise click.UsageError(f"--{name} and --init both choose the start. Use only one of them.")


def _print(result: ProjectResult, files: list[Path], call: Call) -> None:
    loss, rows = result.task.loss.name, zip(result.names, result.distance, result.psnr, strict=True)
    projections = [{"name": name, "distance": distance, "psnr": psnr} for name, distance, psnr in rows]
    if not call.as_json:
        for row in projections:
            call.inform(f"{row['name']}: distance {row['distance']:.4f} ({loss}), PSNR {row['psnr']:.1f} dB")
    call.print_result({"loss": loss, "found": projections, "files": files}, files[-1])
