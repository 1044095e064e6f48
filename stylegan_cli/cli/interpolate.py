"""sgan interpolate"""

from __future__ import annotations

from typing import Any

import click

from .call import Call, output_file
from .options import latents_option, out_options, session_options, speed_options, truncation_options, view_options
from .params import GRID, STYLES, Number


@click.command(short_help="Render a video that moves through the latent space.")
@latents_option(
    None,
    " The video passes through them in this order. "
    "Default: six seeds, or one with --kind trunc; as many for each cell of --grid.",
)
@click.option(
    "--kind",
    type=click.Choice(["spline", "linear", "slerp", "trunc", "mix"]),
    default="spline",
    help="Interpolation: spline (smooth) or linear in W, slerp (spherical) in Z, trunc (the truncation of each image "
    "varies) or mix (styles of the first image fade to those of the others).",
)
@click.option("--frames", type=click.IntRange(1), default=45, help="Number of frames from each image to the next.")
@click.option("--fps", type=click.IntRange(1, 120), default=30, help="Frames per second.")
@click.option(
    "--loop/--once", default=True, help="Return to the first image without a jump (loop), or end at the last (once)."
)
@click.option(
    "--grid", type=GRID, help="Rows x columns of videos side by side, such as 3x2; each takes the next seed in turn."
)
@click.option(
    "--styles",
    type=STYLES,
    help="Styles that --kind mix fades: coarse, middle, fine, or layer indices such as 0-6. Default: coarse, or 0 "
    "in a model of two styles.",
)
@click.option(
    "--sweep",
    type=Number(),
    nargs=2,
    metavar="FROM TO",
    help="Range of truncation psi for --kind trunc, from FROM to TO and back. Default: 0 1.",
)
@out_options(
    "interpolate.gif; the extensions .webp and .mp4 (needs pip install 'stylegan-cli[video]') give other formats",
    "./out",
)
@truncation_options
@click.option(
    "--noise-mode",
    type=click.Choice(["const", "none"]),
    default="const",
    help="Per-layer noise, which adds fine detail: const (stored in the model, equal in all frames) or none.",
)
@view_options("over the whole video; a loop goes there and back, or once around by 360")
@click.option(
    "--lock-view",
    is_flag=True,
    help="Keep the position and rotation of the first image, for models whose input can be moved, see "
    "`sgan model info`.",
)
@speed_options
@session_options
def command(
    call: Call,
    out: str | None,
    outdir: str | None,
    **request: Any,  # see session.InterpolateRequest
) -> None:
    """Render a video that moves through the latent space: GIF, WebP or MP4.

    The latent space is the space of the model's inputs: points on the way between two images give images in between.
    (Z holds the random inputs, W what the mapping network makes of them.) The video passes through the images in
    --seeds and, with --loop, returns to the first; its length is --frames times the number of images, at --fps. Writes
    one file, out/interpolate.gif by default.

    \b
    Examples:
      sgan interpolate --seeds 3,14,15 --out faces.mp4
      sgan interpolate --seeds me.npz,you.npz --kind linear --once
      sgan interpolate --grid 3x4 --out grid.webp
      sgan interpolate --kind trunc --seeds 0-3 --sweep -1 1
      sgan interpolate --kind mix --styles fine
    """
    from ..data.video import check_video

    for option, kind in (("styles", "mix"), ("sweep", "trunc")):
        if request[option] and request["kind"] != kind:
            raise click.UsageError(
                f"--{option} has no effect with --kind {request['kind']}. Use --kind {kind}, or remove it."
            )
    file = output_file(out, outdir, "interpolate.gif")
    check_video(file, request["fps"])
    with call.progress() as progress:
        session = call.open()
        result = session.interpolate(progress=progress, **request)
        call.inform(*result.notes)
        result.save(file)
    shape = {"frames": result.count, "fps": result.fps, "keys": result.keys}
    call.print_result({"model": session.path, **shape, "files": [file]}, file)
