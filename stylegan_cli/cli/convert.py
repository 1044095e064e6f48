"""sgan convert"""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..errors import SganError
from .params import output_options


@click.command(short_help="Bring a checkpoint of any kind into another form.")
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT")
@click.option("--half", is_flag=True, help="Of a snapshot: store half precision.")
@click.option("--drop-discriminator", is_flag=True, help="Keep the generator alone.")
@click.option("--for", "repository", type=click.Choice(["ada", "sg3"]), help="Of a .pkl: which repository reads it.")
@click.option(
    "--part",
    type=click.Choice(["all", "mapping", "synthesis"]),
    default="all",
    help="Of .onnx and .pt2: from z to the image, or one network.",
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
    """Bring a checkpoint of any kind into another form.

    IN is a snapshot, a run's folder, a checkpoint of NVIDIA's repositories, of rosinality's, of TensorFlow's StyleGANs,
    or the address of one; what it is is seen from its content, and nothing in it is run. OUT says by its ending what
    to write: .safetensors (a snapshot), .pt (for rosinality/stylegan2-pytorch), .pkl (with --for ada or sg3: for
    NVIDIA's stylegan2-ada-pytorch or stylegan3), .onnx, .pt2 (torch.export).

    \b
    sgan convert ffhq.pkl ffhq.safetensors --half
    sgan convert ffhq.safetensors ffhq.pt
    sgan convert ffhq.pkl ffhq.onnx --part synthesis
    """
    from ..interop.conversion import find_model
    from ..interop.opening import open_model
    from ..interop.writing import Output, write_model

    output = Output(Path(out), half, not drop_discriminator, repository, part)
    path, _ = find_model(source)
    if output.path.exists() and output.path.samefile(path):
        raise SganError(f"{out} is the file that is read.", hint="Give another name.")
    for warning in write_model(open_model(path), output):
        if not quiet:
            click.echo(warning, err=True)
    click.echo(json.dumps({"model": str(path), "file": out}) if as_json else out)
