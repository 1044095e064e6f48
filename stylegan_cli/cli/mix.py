"""sgan mix"""

from __future__ import annotations

from typing import Any

import click

from .call import Call
from .options import sampling_options, session_options
from .params import LATENTS, STYLES, FiniteRange

_IMAGES = "images, as seeds such as 0,5,10-20 or as files of latents (.npz, .npy or .pt)."


@click.command(short_help="Mix the styles of images in a grid.")
@click.option("--rows", type=LATENTS, default="0-3", help=f"Row {_IMAGES}")
@click.option("--cols", type=LATENTS, default="4-9", help=f"Column {_IMAGES}")
@click.option(
    "--styles",
    type=STYLES,
    help="Styles to take from the column image: coarse (4x4 and 8x8 pixels: pose, shape), middle (16x16, 32x32), fine "
    "(64x64 and up: color, texture), or layer indices such as 0-6. A smaller model divides its levels among the three. "
    "Default: coarse, or 0 in a model of two styles.",
)
@click.option(
    "--blend",
    type=FiniteRange(0, 1),
    default=1.0,
    help="Share of the column image in these styles: 0 keeps the row's, 1 takes the column's.",
)
@click.option("--save-w", is_flag=True, help="Also write the latents to w.npz, for other commands.")
@sampling_options
@session_options
def command(
    call: Call,
    outdir: str,
    format: str,
    save_w: bool,
    **request: Any,  # see session.MixRequest
) -> None:
    """Mix the styles of images in a grid.

    Each layer of the generator is controlled by a latent, its style. Every image of the grid has the styles of its row
    image, except that those of the layers in --styles come from its column image: by default (coarse) shapes come from
    the columns and colors from the rows, with --styles fine the other way round. Writes mix.png (the grid, with row
    and column images at its edges) and each mixed image, such as mix0000-0004.png.

    \b
    Examples:
      sgan mix --rows 1-4 --cols 10-13
      sgan mix --rows 1-4 --cols 10-13 --styles fine
      sgan mix --rows 85,100,75 --cols 55,821 --styles middle
      sgan mix --rows 1-4,out/projected.npz --cols 5 --blend 0.7
    """
    with call.progress() as progress:
        session = call.open()
        result = session.mix(progress=progress, **request)
    call.inform(*result.notes)
    files = result.save(outdir, format, latents=save_w)
    call.print_result({"model": session.path, "styles": result.styles, "files": files}, files[-1])
