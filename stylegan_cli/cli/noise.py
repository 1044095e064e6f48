"""sgan noise"""

from __future__ import annotations

from typing import Any

import click

from .params import LATENTS, Call, file_options, session_options, speed_options, truncation_options, warn


@click.command(short_help="Show what noise does: on all layers, none, some, and how much each pixel varies.")
@click.option("--seeds", type=LATENTS, default="0-2", help="Images: seeds or projected files (.npz).")
@click.option("--draws", type=click.IntRange(2), default=100, help="Of noise, for the standard deviation.")
@truncation_options
@speed_options
@file_options
@session_options
def command(
    call: Call,
    outdir: str,
    format: str,
    **request: Any,  # see session.NoiseRequest
) -> None:
    """Show what noise does: on all layers, none, some, and how much each pixel varies.

    One row an image: noise on all layers, on none, on the fine ones alone (64x64 pixels and up; of a small model the
    largest), on the coarse ones alone; two other draws of noise; and the standard deviation of each pixel over --draws
    of them, in steps of 1/255, in gray.
    """
    with call.progress() as progress:
        session = call.open()
        result = session.noise_study(progress=progress, **request)
    files = result.save(outdir, format)
    warn(*result.warnings)
    call.say(*result.notes)
    if not (call.as_json or call.quiet):
        for name, mean in result.means.items():
            click.echo(f"{name}: mean standard deviation {mean:.3g} of 255")
    figures = {"std": result.means, "white": result.white}
    call.finish({"model": session.path, **figures, "files": files}, files[-1])
