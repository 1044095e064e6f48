"""sgan equivariance"""

from __future__ import annotations

from typing import Any

import click

from .call import Call, output_file
from .options import latents_option, out_options, session_options, speed_options, truncation_options


@click.command(short_help="Render a video of how images follow a moving input.")
@latents_option("0-1")
@click.option(
    "--motion",
    type=click.Choice(["both", "translate", "rotate"]),
    default="both",
    help="Motion of the input: translate (a figure eight of 1/8 of the image), rotate (a whole turn) or both.",
)
@click.option("--frames", type=click.IntRange(2), default=96, help="Number of frames.")
@click.option("--fps", type=click.IntRange(1, 120), default=24, help="Frames per second.")
@out_options(
    "equivariance.gif; the extensions .webp and .mp4 (needs pip install 'stylegan-cli[video]') give other formats",
    "./out",
)
@truncation_options
@speed_options
@session_options
def command(
    call: Call,
    out: str | None,
    outdir: str | None,
    **request: Any,  # see session.EquivarianceRequest
) -> None:
    """Render a video of how images follow a moving input: GIF, WebP or MP4.

    Only for models with an input transform. Beside the images of the moving input, the video shows them with the motion
    undone: in an equivariant model these stand still, in others details stick to the pixels. Above them is the ratio of
    signal to error of each frame, in dB, as `sgan metrics eqt50k_frac eqr` measures it; higher is better.

    \b
    Examples:
      sgan equivariance --model alias-free.safetensors
      sgan equivariance --model alias-free.safetensors --seeds 3 --motion rotate --out turn.webp
    """
    from ..data.video import check_video

    file = output_file(out, outdir, "equivariance.gif")
    check_video(file, request["fps"])
    with call.progress() as progress:
        session = call.open()
        result = session.equivariance(progress=progress, **request)
        call.inform(*result.notes)
        result.save(file)
    decibels = result.decibels
    if not (call.as_json or call.quiet):
        for motion, value in decibels.items():
            click.echo(f"{motion}: {value:.1f} dB")
    call.print_result({"model": session.path, "frames": result.count, "decibels": decibels, "files": [file]}, file)
