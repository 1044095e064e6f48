"""sgan noise"""

from __future__ import annotations

from typing import Any

import click

from .call import Call, warn
from .options import file_options, latents_option, session_options, speed_options, truncation_options


@click.command(short_help="Show how the noise inputs of a model affect its images.")
@latents_option("0-2")
@click.option(
    "--draws", type=click.IntRange(2), default=100, help="Number of noise samples for the standard deviation."
)
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
    """Show how the noise inputs of a model affect its images.

    StyleGAN adds noise to each layer, for fine detail such as hair. Writes noise.png with one row per image: with noise
    on all layers, on none, on the fine layers only (64x64 pixels and up, or the largest of a small model), on the
    coarse layers only, with two other noise samples, and as a gray map the standard deviation of each pixel over
    --draws noise samples, in steps of 1/255. Also writes each of these images to a file.

    \b
    Examples:
      sgan noise
      sgan noise --seeds 0-5 --draws 400 --trunc 0.7
    """
    with call.progress() as progress:
        session = call.open()
        result = session.noise_study(progress=progress, **request)
    files = result.save(outdir, format)
    warn(*result.warnings)
    call.inform(*result.notes)
    if not (call.as_json or call.quiet):
        for name, mean in result.means.items():
            click.echo(f"{name}: mean standard deviation {mean:.3g} of 255")
    statistics = {"std": result.means, "white": result.white}
    call.print_result({"model": session.path, **statistics, "files": files}, files[-1])
