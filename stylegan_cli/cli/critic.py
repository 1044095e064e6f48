"""`sgan critic`: fit."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .call import keep_freed_memory, output_file
from .options import OrderedGroup, out_options, output_options, seed_option
from .progress import bar


@click.group("critic", cls=OrderedGroup, short_help="Train a critic, which judges an attribute of images.")
def command() -> None:
    """Train a critic, which judges whether images have an attribute.

    `sgan train --guide` lets a critic add its judgment to the losses: generated images get the attribute, also if no
    image of the dataset has it.

    \b
    Examples:
      sgan critic fit --data people.zip --attribute head=bald
      sgan train --resume people.safetensors --data beards.zip --guide out/critic-head-bald.safetensors
    """


@command.command("fit", short_help="Train a critic on the attributes of a dataset.")
@click.option(
    "--attribute",
    required=True,
    metavar="NAME=VALUE",
    help="Attribute of the dataset and the value to recognize, such as head=bald.",
)
@click.option(
    "--data",
    metavar="PATH",
    help="Dataset of images with attributes: a zip or a folder. Default: the bundled dataset.",
)
@click.option(
    "--junk",
    metavar="FOLDER",
    help="Run folder of `sgan train`. The unformed images of the first tenth of that run are examples without the "
    "attribute. Default: none.",
)
@seed_option(2**63 - 1)
@out_options("critic-NAME-VALUE.safetensors", "./out")
@output_options
def fit_command(
    attribute: str,
    data: str | None,
    junk: str | None,
    seed: int,
    out: str | None,
    outdir: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a critic on a dataset whose images have attributes (`sgan data info` lists them).

    The critic learns to tell images with NAME=VALUE from all others, and from noise and blur. It is measured on a tenth
    of the images, which it is not trained on. Writes out/critic-NAME-VALUE.safetensors for `sgan train --guide`. Takes
    a few minutes on a CPU.

    \b
    Examples:
      sgan critic fit --data people.zip --attribute head=bald
      sgan critic fit --data people.zip --attribute head=bald --junk runs/00000-people-auto
    """
    from ..data.dataset import open_dataset
    from ..files import check_writable
    from ..sampling.critics import save_critic
    from ..sampling.latent_files import filename_part
    from ..training.recipes.critic import fit_critic

    name, equals, value = attribute.partition("=")
    if not (name and equals and value):
        raise click.UsageError(f"--attribute {attribute!r} is not NAME=VALUE. Use for example head=bald.")
    default = f"critic-{filename_part(name)}-{filename_part(value)}.safetensors"
    path = Path(output_file(out, outdir, default))
    check_writable(path.parent)
    keep_freed_memory()
    with bar(quiet, leave=False) as progress:
        dataset = open_dataset(data, progress=progress)
        critic = fit_critic(dataset, name, value, Path(junk) if junk else None, seed=seed, progress=progress)
    save_critic(path, critic)
    info = critic.info
    if as_json:
        facts = {"attribute": name, "value": value, "accuracy": info.accuracy}
        facts |= {"skill": info.skill, "held_out": info.held_out, "junk_rejected": info.junk_rejected}
        return click.echo(json.dumps({"file": str(path), **facts}))
    if not quiet:
        click.echo(
            f"{info.name}: {info.accuracy:.1%} of {info.held_out} held-out images are judged correctly, both kinds "
            f"counted equally (50% by chance; skill {info.skill:.2f})",
            err=True,
        )
        if info.junk_rejected is not None:
            click.echo(f"{info.junk_rejected:.0%} of held-out early images are judged as without it", err=True)
    click.echo(path)
