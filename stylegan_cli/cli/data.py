"""`sgan data`: pack, info, demo."""

from __future__ import annotations

import json
import typing

import click

from ..config import base_size
from .params import SIZE, output_options
from .progress import bar

_SHOWN = 12  # classes, or files left out, that are listed by name


@click.group("data", short_help="Pack, inspect and render data sets.")
def command() -> None:
    """Pack images into a set, look into one, or draw one to try things with."""


@command.command("pack", short_help="Bring images to one form, as a set.")
@click.argument("src")
@click.argument("dest")
@click.option("--size", type=SIZE, help="N, or HxW: bring every image to it. Left out: all must share one size.")
@click.option(
    "--crop",
    type=click.Choice(["center", "none"]),
    default="center",
    show_default=True,
    help="With --size: cut the largest centered part of its shape, or stretch.",
)
@click.option(
    "--filter", type=click.Choice(["box", "lanczos"]), default="lanczos", show_default=True, help="Of resizing."
)
@click.option(
    "--labels",
    metavar="folders|none|FILE.json",
    help="A class per top folder, no labels, or [[name, class], ...]. Left out: the labels that SRC has, if any.",
)
@click.option(
    "--channels",
    type=click.Choice(["1", "3", "4"]),
    help="Gray, RGB or RGBA. Left out: as all images have them, or RGB where they differ.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes. Left out: one per core.")
@click.option("--strict", is_flag=True, help="Fail if a file cannot be read, instead of leaving it out.")
@output_options
def pack_command(src: str, dest: str, channels: str | None, as_json: bool, quiet: bool, **options: typing.Any) -> None:
    """Bring the images of SRC to one form and write them as the set DEST.zip.

    SRC is a folder, searched to the bottom, a zip, or an .npz or .npy file of images.

    \b
    sgan data pack photos/ faces.zip --size 256
    sgan data pack animals/ animals.zip --size 128 --labels folders
    """
    from ..data.pack import pack

    if options["size"]:
        base_size(*options["size"])  # refuse what no model could take
    with bar(quiet, leave=False) as progress:
        report = pack(src, dest, channels=int(channels) if channels else None, progress=progress, **options)
    if as_json:
        return click.echo(json.dumps(vars(report)))
    _tell_skipped(report.skipped)
    if report.enlarged:
        click.echo(f"{report.enlarged} images were smaller than the size and have been enlarged.", err=True)
    if report.warning:
        click.echo(report.warning, err=True)
    if not quiet:
        classes = f", {len(report.classes)} classes" if report.classes else ""
        size = f"{report.height}x{report.width}, {report.channels} channel(s)"
        click.echo(f"{report.num} images of {size}{classes}")
    click.echo(report.path)


@command.command("info", short_help="Say what a set holds, and draw it.")
@click.argument("path", required=False)
@click.option(
    "--out", metavar="FILE", help="Where to draw the contact sheet. Left out: NAME-contact.png beside the set."
)
@output_options
def info_command(path: str | None, out: str | None, as_json: bool, quiet: bool) -> None:
    """Say what the set PATH holds, and draw a contact sheet of it.

    PATH is a zip or a folder; left out, it is the set that comes with the package.
    """
    from ..data.dataset import open_dataset
    from ..data.images import save_image
    from ..data.info import contact_sheet, sheet_path, summary

    with bar(quiet, leave=False) as progress:
        dataset = open_dataset(path, progress=progress)
    sheet = out or str(sheet_path(dataset))
    save_image(contact_sheet(dataset), sheet)
    facts = {**summary(dataset), "contact_sheet": sheet}
    if as_json:
        return click.echo(json.dumps(facts))
    if not quiet:
        click.echo(_table(facts))
    click.echo(sheet)


@command.command("demo", short_help="Draw a set with DiceBear.")
@click.argument("out", metavar="OUT.zip")
@click.option(
    "--style", default="critters", show_default=True, help="A DiceBear style, such as critters or open-peeps."
)
@click.option("--num", type=click.IntRange(1), default=4000, show_default=True, help="Images.")
@click.option("--size", type=SIZE, default="64", show_default=True, help="N, or HxW cut from the middle of a square.")
@click.option("--label", metavar="ATTRIBUTE", help="Make the values of this attribute the classes.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed draws other images.")
@click.option("--colors", type=click.IntRange(2, 256), help="Write palette PNGs of so many colors: a smaller file.")
@click.option("--workers", type=click.IntRange(1), help="Processes. Left out: one per core.")
@output_options
def demo_command(out: str, as_json: bool, quiet: bool, **options: typing.Any) -> None:
    """Draw a set of images with DiceBear: any number, at any size, with attributes.

    \b
    sgan data demo critters.zip --num 1000 --size 64
    sgan data demo peeps.zip --style open-peeps --label headVariant
    """
    from ..data.demo import make_demo_dataset

    with bar(quiet, leave=False) as progress:
        report = make_demo_dataset(out, progress=progress, **options)
    if as_json:
        return click.echo(json.dumps(vars(report)))
    if not quiet:
        click.echo(f"{report.num} images of {report.height}x{report.width}, {report.license}")
        click.echo("Attributes: " + _counted(report.attributes))
        if report.classes:
            click.echo(f"{len(report.classes)} classes: " + ", ".join(report.classes))
    click.echo(report.path)


def _table(facts: dict[str, typing.Any]) -> str:
    rows = {
        "set": facts["path"],
        "images": facts["num"],
        "size": f"{facts['height']}x{facts['width']} (height x width)",
        "channels": f"{facts['channels']} ({ {1: 'gray', 3: 'RGB', 4: 'RGBA'}[facts['channels']] })",
        "classes": _counted(facts["classes"]) or "none",
        "attributes": _counted(facts["attributes"]) or "none",
        "made": _made(facts["made"]) or "does not say",
        "hash": facts["content_hash"],
    }
    return "\n".join(f"{name:<11}{value}" for name, value in rows.items())


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def _made(made: dict[str, typing.Any]) -> str:
    """How the set was made, without what the other rows say already."""
    known = {
        k: v for k, v in made.items() if k not in ("classes", "size", "channels", "from") and v not in (None, [], {})
    }
    return ", ".join(f"{k} {_short(v)}" for k, v in known.items())


def _short(value: typing.Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} file(s)"
    return " ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _tell_skipped(skipped: typing.Sequence[tuple[str, str]]) -> None:
    if skipped:
        click.echo(f"Left out {len(skipped)} file(s) that cannot be read:", err=True)
    for name, why in skipped:
        click.echo(f"  {name}: {why}", err=True)
