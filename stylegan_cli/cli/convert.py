"""sgan convert"""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..errors import SganError
from .call import warn
from .options import output_options


@click.command(short_help="Convert a checkpoint to another format.")
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT")
@click.option("--half", is_flag=True, help="Store a .safetensors file in half precision.")
@click.option("--drop-discriminator", is_flag=True, help="Write the generator only.")
@click.option(
    "--for",
    "repository",
    type=click.Choice(["ada", "sg3"]),
    help="NVIDIA repository that will read a .pkl file: ada (StyleGAN2-ADA) or sg3 (StyleGAN3). Required for .pkl.",
)
@click.option(
    "--part",
    type=click.Choice(["all", "mapping", "synthesis"]),
    default="all",
    help="Part of the generator in a .onnx or .pt2 file: all (from z to the image), mapping (from z to w) or "
    "synthesis (from w to the image).",
)
@output_options
def command(
    source: str,
    out: str,
    half: bool,
    drop_discriminator: bool,
    repository: str | None,
    part: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Convert a checkpoint to another format.

    IN is a snapshot, a run folder, or a checkpoint (path or URL) of NVIDIA's StyleGAN repositories (PyTorch or
    TensorFlow), of rosinality/stylegan2-pytorch, of pSp, e4e, ReStyle or PTI, of MMGeneration, MMagic or StudioGAN: a
    training checkpoint, a whole generator or a state dictionary. Its format is detected from its content, and no code
    in it is executed. The extension of OUT decides what is written:

    \b
      .safetensors  a snapshot, for the other commands
      .pt           for rosinality/stylegan2-pytorch
      .pkl          for NVIDIA's repositories, see --for
      .onnx         ONNX
      .pt2          torch.export

    \b
    Examples:
      sgan convert ffhq.pkl ffhq.safetensors --half
      sgan convert ffhq.safetensors ffhq.pkl --for sg3
      sgan convert ffhq.pkl ffhq.onnx --part synthesis
    """
    from ..interop.conversion import find_model
    from ..interop.opening import open_model
    from ..interop.writing import Output, write_model

    output = Output(Path(out), half, not drop_discriminator, repository, part)
    path, _ = find_model(source)
    if output.path.exists() and output.path.samefile(path):
        raise SganError(f"{out} is the input file itself.", hint="Use another name for OUT.")
    warnings = write_model(open_model(path), output)
    if not quiet:
        warn(*warnings)
    click.echo(json.dumps({"model": str(path), "file": out}) if as_json else out)
