"""sgan generate"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .call import Call
from .options import sampling_options, session_options
from .params import SEEDS


@click.command(short_help="Generate images with a trained model.")
@click.option(
    "--seeds", type=SEEDS, default="0-15", help="Seeds such as 0,5,10-20: each number gives a different image."
)
@click.option(
    "--from-w", metavar="FILE", help="File of latents (from --save-w or `sgan project`) to use instead of --seeds."
)
@click.option("--save-w", is_flag=True, help="Also write the latents to w.npz, for other commands.")
@click.option("--grid", is_flag=True, help="Also write all images in one file, grid.png.")
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
    """Generate images with a trained model, one file per seed.

    A seed is a number from which the model's random input is computed: the same seed and model always give the same
    image. Writes seed0000.png, seed0001.png and so on to --outdir. Each file stores in its metadata how it was made.

    \b
    Examples:
      sgan generate --seeds 0-99
      sgan generate --seeds 0,5,10-20 --trunc 0.7 --grid
      sgan generate --model runs/00001-animals-auto --class 1 --format webp
      sgan generate --from-w out/projected.npz
    """
    if request["from_w"] and save_w:
        raise click.UsageError(
            "--save-w has no effect with --from-w: the latents are in that file already. Remove --save-w."
        )
    with call.progress() as progress:
        session = call.open()
        result = session.generate(progress=progress, **request)
        call.inform(*result.notes)
        files = result.save(outdir, format, latents=save_w, grid=grid)
    call.print_result({"model": session.path, "files": files}, files[-1] if grid else Path(outdir))
