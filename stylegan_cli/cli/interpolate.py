"""sgan interpolate"""

from __future__ import annotations

import json
from typing import Any

import click

from .params import (
    GRID,
    LATENTS,
    STYLES,
    Finite,
    command_line,
    device_option,
    kernels_option,
    model_option,
    open_model,
    output_options,
    speed_options,
    tell_tuned,
    truncation_options,
)


@click.command(short_help="Film a walk through the latent space: GIF, WebP or MP4.")
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
@click.option("--sweep", type=Finite(), nargs=2, metavar="FROM TO", help="Of --kind trunc: psi. Left out: 0 1.")
@click.option(
    "--out",
    default="./out/interpolate.gif",
    metavar="FILE",
    help="Its ending says what: .gif, .webp, or .mp4, which needs PyAV.",
)
@truncation_options
@click.option("--noise-mode", type=click.Choice(["const", "none"]), default="const", help="The same in every frame.")
@speed_options
@model_option
@device_option
@kernels_option
@output_options
def command(
    seeds: list[int | str] | None,
    kind: str,
    frames: int,
    fps: int,
    loop: bool,
    grid: tuple[int, int] | None,
    styles: list[int] | str | None,
    sweep: tuple[float, float] | None,
    out: str,
    model: str | None,
    runs: str,
    device: str,
    as_json: bool,
    quiet: bool,
    **sampling: Any,  # see truncation_options and speed_options
) -> None:
    """Film a walk through the latent space: GIF, WebP or MP4.

    The way leads through the pictures of --seeds and back to the first; noise stands still. --grid shows several side
    by side: the seeds are dealt out to the cells in turn. --kind trunc moves each seed's truncation, --kind mix fades
    the chosen styles of the first seed into those of the others.

    \b
    sgan interpolate --seeds 3,14,15 --out faces.mp4
    sgan interpolate --seeds me.npz,you.npz --kind linear --once
    sgan interpolate --grid 3x4 --out grid.webp
    sgan interpolate --kind trunc --seeds 0-3 --sweep -1 1
    sgan interpolate --kind mix --styles fine
    """
    from ..data.images import grid_columns
    from ..data.video import check_video, sheets, write_video
    from ..sampling.draw import Sampling, draw, picture_record
    from ..sampling.interpolate import plan_film

    for option, given, its in (("--styles", styles, "mix"), ("--sweep", sweep, "trunc")):
        if given and kind != its:
            raise click.UsageError(f"{option} is for --kind {its}, not for {kind}.")
    check_video(out, fps)
    snapshot, how = open_model(model, runs, device, quiet), Sampling(**sampling)
    film = plan_film(
        snapshot.G,
        seeds,
        how,
        kind,
        cells=grid and grid[0] * grid[1],
        steps=frames,
        loop=loop,
        styles=styles or "coarse",
        sweep=sweep or (0.0, 1.0),
    )
    config = snapshot.G.config
    columns = grid[1] if grid else grid_columns(len(film.keys), config.height / config.width)
    pictures = draw(film.G, lambda i, j: film.ws[i:j], range(len(film.ws)), how, quiet, noise=film.noise)
    told = {**tell_tuned(film.tuned, quiet), "kind": kind, "keys": film.keys, "styles": styles, "sweep": sweep}
    record = picture_record(snapshot, how, command_line(), **told, frames=frames, fps=fps, loop=loop)
    sheet = sheets(pictures, len(film.keys), columns)
    write_video(sheet, film.frames, out, fps=fps, loop=loop, metadata=record)
    result = {"model": str(snapshot.path), "frames": film.frames, "fps": fps, "keys": film.keys, "files": [out]}
    click.echo(json.dumps(result) if as_json else out)
