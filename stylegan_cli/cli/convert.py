"""sgan convert"""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..errors import SganError
from .params import output_options

_ENDINGS = {
    ".safetensors": "a snapshot",
    ".pt": "rosinality's form",
    ".pkl": "NVIDIA's form",
    ".onnx": "ONNX",
    ".pt2": "torch.export's form",
}


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
    help="Of .onnx and .pt2: from z to the picture, or one network.",
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
    ending = Path(out).suffix.lower()
    if ending not in _ENDINGS:
        known = ", ".join(f"{e} ({what})" for e, what in _ENDINGS.items())
        raise SganError(f"{out}: models are not written as {ending or 'this'!r}.", hint=f"Choose {known}.")
    if (repository is not None) != (ending == ".pkl"):
        raise SganError(f"{out}: a .pkl is written --for ada or sg3, and nothing else is.")
    if half and ending != ".safetensors":
        raise SganError("--half is for snapshots: .safetensors.", hint="Leave it out.")
    if part != "all" and ending not in (".onnx", ".pt2"):
        raise SganError("--part is for .onnx and .pt2.", hint="Leave it out.")
    if drop_discriminator and ending in (".onnx", ".pt2"):
        raise SganError(f"--drop-discriminator: {ending} holds none anyway.", hint="Leave it out.")
    import torch

    from ..interop.conversion import convert, located
    from ..interop.opening import open_model
    from ..runs import find_model

    path, _ = find_model(located(source), ".")
    if Path(out).exists() and Path(out).samefile(path):
        raise SganError(f"{out} is the file that is read.", hint="Give another name.")
    model = open_model(path)
    if ending == ".safetensors":
        convert(model, Path(out), dtype=torch.float16 if half else None, discriminator=not drop_discriminator)
    elif ending == ".pt":
        from ..interop.rosinality_writer import write_rosinality

        write_rosinality(Path(out), model.G, None if drop_discriminator else model.D)
    elif ending == ".pkl":
        from ..interop.nvidia_writer import write_nvidia

        write_nvidia(Path(out), model.G, None if drop_discriminator else model.D, repository)
    elif ending == ".onnx":
        from ..interop.export_onnx import export_onnx

        if export_onnx(model.G, Path(out), part) is None and not quiet:
            click.echo("It was not compared with PyTorch, for want of onnxruntime: pip install onnxruntime", err=True)
    else:
        from ..interop.export_torch import export_torch

        export_torch(model.G, Path(out), part)
    click.echo(json.dumps({"model": str(path), "file": out}) if as_json else out)
