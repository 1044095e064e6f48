"""sgan mix"""

from __future__ import annotations

from typing import Any

import click

from .params import LATENTS, STYLES, Call, sampling_options, session_options


@click.command(short_help="Draw a grid that mixes the styles of rows and columns.")
@click.option("--rows", type=LATENTS, default="0-3", help="Seeds or projected files (.npz) of the rows.")
@click.option("--cols", type=LATENTS, default="4-9", help="Of the columns: the chosen styles come from them.")
@click.option("--styles", type=STYLES, default="coarse", help="coarse, middle, fine, or indices of w such as 0-6.")
@click.option("--blend", type=click.FloatRange(0, 1), default=1.0, help="How far towards the column: 0 to 1.")
@sampling_options
@session_options
def command(
    call: Call,
    outdir: str,
    format: str,
    **request: Any,  # see session.MixRequest
) -> None:
    """Draw a grid that mixes the styles of rows and columns.

    Each image has its row's latents, but the column's at the chosen styles: coarse is shape and pose, fine is color.
    Rows and columns are seeds, or files that `sgan project` wrote: `--rows 1-4,face.npz`.
    """
    with call.progress() as progress:
        session = call.open()
        result = session.mix(progress=progress, **request)
    call.say(*result.notes)
    files = result.save(outdir, format)
    call.finish({"model": session.path, "styles": result.styles, "files": files}, files[-1])
