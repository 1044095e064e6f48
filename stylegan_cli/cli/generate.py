"""sgan generate"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .params import SEEDS, Call, sampling_options, session_options


@click.command(short_help="Draw images from a trained model.")
@click.option("--seeds", type=SEEDS, default="0-15", help="Which images: 0,5,10-20.")
@click.option("--from-w", metavar="FILE", help="Draw the latents in this .npz instead of seeds.")
@click.option("--save-w", is_flag=True, help="Also write the latents to w.npz, for --from-w.")
@click.option("--grid", is_flag=True, help="Also lay all images on one sheet, grid.png.")
@sampling_options
@session_options
def command(
    call: Call,
    save_w: bool,
    grid: bool,
    outdir: str,
    format: str,
    **request: Any,  # see session.GenerateRequest
) -> None:
    """Draw images from a trained model, one file a seed.

    Each file says in its metadata how to make it again.
    """
    if request["from_w"] and save_w:
        raise click.UsageError("--save-w is for seeds: the latents of --from-w are in a file already.")
    with call.progress() as progress:
        session = call.open()
        result = session.generate(progress=progress, **request)
        call.say(*result.notes)
        files = result.save(outdir, format, latents=save_w, grid=grid)
    call.finish({"model": session.path, "files": files}, files[-1] if grid else Path(outdir))
