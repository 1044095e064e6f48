"""sgan encode"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import MisuseError, plural
from .call import Call, output_folder, refuse_to_overwrite, warn
from .options import batch_option, crop_options, encoder_option, outdir_option, session_options


@click.command(short_help="Predict the latents of images with an encoder.")
@click.argument("images", metavar="IMAGE...", nargs=-1)
@encoder_option
@crop_options
@batch_option
@outdir_option
@session_options
def command(
    call: Call,
    outdir: str,
    **request: Any,  # see session.EncodeRequest
) -> None:
    """Predict the latents of images with an encoder, in milliseconds.

    Writes encoded.npz (the latents, for `sgan mix --rows`, `sgan interpolate --seeds`, `sgan edit apply --seeds` and
    `sgan generate --from-w`), enc.png (the reconstruction) and compare.png (target, result and difference). With
    several images, each has its own files, with its name in front. A folder or zip of images gives one encoded.npz with
    the latents of all.
    An encoder is less accurate than `sgan project`, which can start from it: --init encoder.

    \b
    Examples:
      sgan encode face.jpg
      sgan encode a.png b.png --encoder runs/00001-faces-encoder
      sgan encode faces.zip
    """
    from ..session import EncodeRequest
    from ..session.encode import encoding_files

    if not request["images"]:
        raise MisuseError("No image to encode.", hint="Name an image: sgan encode face.png")
    folder, encode_request = Path(outdir), EncodeRequest(runs=call.runs, **request)
    refuse_to_overwrite([*request["images"], request["encoder"]], encoding_files(encode_request, folder))
    with output_folder(folder):
        with call.progress() as progress:
            result = call.open().encode(encode_request, progress)
        call.inform(f"Encoder: {result.encoder.description}.", *result.notes)
        warn(*result.warnings)
        files = result.save(folder)
    if not call.as_json and result.finding is not None:
        for name, quality in zip(result.names, result.psnr, strict=True):
            call.inform(f"{name}: PSNR {quality:.1f} dB")
    elif not call.as_json:
        mean = sum(result.psnr) / len(result.psnr)
        call.inform(f"{plural(len(result.names), 'image')}: PSNR {mean:.1f} dB on average")
    found = [{"name": name, "psnr": quality} for name, quality in zip(result.names, result.psnr, strict=True)]
    call.print_result({"encoder": result.encoder.path, "found": found, "files": files}, files[-1])
