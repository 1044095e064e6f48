"""sgan stylize"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import MisuseError
from .call import keep_freed_memory, output_folder, refuse_to_overwrite, resolve_device, warn
from .options import detector_option, device_option, outdir_option, output_options
from .params import FiniteRange
from .progress import bar


@click.command(short_help="Give images the style of another, such as a painting.")
@click.argument("images", metavar="IMAGE...", nargs=-1)
@click.option("--style", metavar="IMAGE", help="Style image, such as a painting.")
@click.option(
    "--weight",
    type=FiniteRange(0),
    default=30.0,
    help="Weight of the style: 3 keeps more of the image, 300 takes more of the style.",
)
@click.option(
    "--size",
    type=click.IntRange(32),
    default=512,
    help="Size of the longer side of all images in pixels; smaller images keep their size.",
)
@click.option("--steps", type=click.IntRange(1), default=300, help="Number of optimization steps.")
@detector_option()
@outdir_option
@device_option
@output_options
def command(
    outdir: str,
    device: str,
    as_json: bool,
    quiet: bool,
    **request: Any,  # see session.StylizeRequest
) -> None:
    """Give images the style of another, such as a painting: its colors, brush strokes and textures.

    Optimizes pixels until VGG16 finds the content of IMAGE and the style of the other in them (Gatys et al. 2016). No
    model is needed; the weights of VGG16 are downloaded once. Writes NAME-styled.png for each image. Takes seconds per
    image on a GPU and minutes on a CPU, in proportion to the number of pixels. Ctrl-C keeps the image so far.

    \b
    Examples:
      sgan stylize photo.jpg --style painting.jpg
      sgan stylize a.png b.png --style painting.jpg --weight 100 --size 256
    """
    from ..session.stylize import StylizeRequest, output_files, stylize_images

    if not request["images"]:
        raise MisuseError("No image to stylize.", hint="Name an image: sgan stylize photo.jpg --style painting.jpg")
    if request["style"] is None:
        raise MisuseError("No style image.", hint="Name one: --style painting.jpg")
    folder, stylize = Path(outdir), StylizeRequest(**request)
    refuse_to_overwrite([*request["images"], request["style"]], output_files(stylize, folder))
    words = click.get_current_context().find_root().obj or ["sgan"]
    with output_folder(folder):
        keep_freed_memory()
        with bar(quiet) as progress:
            result = stylize_images(stylize, resolve_device(device), progress, words)
            files = result.save(folder)
    if as_json:
        import json

        click.echo(json.dumps({"files": [str(path) for path in files]}))
    else:
        click.echo("\n".join(map(str, files)))
    if result.interrupted:
        if missing := request["images"][len(files) :]:
            warn(f"Not stylized: {', '.join(missing)}.")
        raise KeyboardInterrupt
