"""sgan interpolate"""

from __future__ import annotations

from typing import Any

import click

from .params import GRID, LATENTS, STYLES, Call, Number, session_options, speed_options, truncation_options


@click.command(short_help="Video a walk through the latent space: GIF, WebP or MP4.")
@click.option(
    "--seeds",
    type=LATENTS,
    help="Keys: seeds or projected files (.npz). Left out: six a cell, of --kind trunc one.",
)
@click.option(
    "--kind",
    type=click.Choice(["spline", "linear", "slerp", "trunc", "mix"]),
    default="spline",
    help="spline, linear: in W; slerp: on Z's sphere; trunc: truncation of each key; mix: styles of the first.",
)
@click.option("--frames", type=click.IntRange(1), default=45, help="From one key to the next.")
@click.option("--fps", type=click.IntRange(1, 120), default=30, help="Frames a second.")
@click.option("--loop/--once", default=True, help="Back to the first key, without a jump; or stop at the last.")
@click.option("--grid", type=GRID, help="Rows x columns, 3x2: so many videos in one, each with keys of its own.")
@click.option(
    "--styles", type=STYLES, help="Of --kind mix: coarse (the default), middle, fine, or indices such as 0-6."
)
@click.option("--sweep", type=Number(), nargs=2, metavar="FROM TO", help="Of --kind trunc: psi. Left out: 0 1.")
@click.option(
    "--out",
    default="./out/interpolate.gif",
    metavar="FILE",
    help="Its ending says what: .gif, .webp, or .mp4, which needs PyAV.",
)
@truncation_options
@click.option("--noise-mode", type=click.Choice(["const", "none"]), default="const", help="The same in every frame.")
@speed_options
@session_options
def command(
    call: Call,
    out: str,
    **request: Any,  # see session.InterpolateRequest
) -> None:
    """Video a walk through the latent space: GIF, WebP or MP4.

    The way leads through the images of --seeds and back to the first; noise stands still. --grid shows several side
    by side: the seeds are dealt out to the cells in turn. --kind trunc moves each seed's truncation, --kind mix fades
    the chosen styles of the first seed into those of the others.

    \b
    sgan interpolate --seeds 3,14,15 --out faces.mp4
    sgan interpolate --seeds me.npz,you.npz --kind linear --once
    sgan interpolate --grid 3x4 --out grid.webp
    sgan interpolate --kind trunc --seeds 0-3 --sweep -1 1
    sgan interpolate --kind mix --styles fine
    """
    from ..data.video import check_video

    for option, its in (("styles", "mix"), ("sweep", "trunc")):
        if request[option] and request["kind"] != its:
            raise click.UsageError(f"--{option} is for --kind {its}, not for {request['kind']}.")
    check_video(out, request["fps"])
    with call.progress() as progress:
        session = call.open()
        result = session.interpolate(progress=progress, **request)
        call.say(*result.notes)
        result.save(out)
    shape = {"frames": result.count, "fps": result.fps, "keys": result.keys}
    call.finish({"model": session.path, **shape, "files": [out]}, out)
