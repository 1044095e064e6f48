"""`sgan data`: pack, info, demo."""

from __future__ import annotations

import json
import typing

import click

from ..config import check_size
from ..errors import plural, printable
from .call import output_file, warn
from .options import OrderedGroup, crop_options, out_options, output_options, seed_option, workers_option
from .params import SIZE
from .progress import bar

_MAX_SHOWN = 12  # classes or attributes that are listed by name
_MAX_LISTED = 100  # skipped files that are listed by name


@click.group("data", cls=OrderedGroup, short_help="Create and inspect datasets.")
def command() -> None:
    """Create and inspect datasets.

    A dataset is a zip or a folder of images of one size, with optional labels. `sgan train --data` reads it.

    \b
    Examples:
      sgan data pack photos/ faces.zip --size 256
      sgan data info faces.zip
    """


@command.command("pack", short_help="Pack images into a dataset.")
@click.argument("src")
@click.argument("dest")
@click.option(
    "--size",
    type=SIZE,
    help="Image size in pixels to resize to: 256, or 256x384 (height x width). Default: that of the images, if "
    "all are equal.",
)
@crop_options
@click.option(
    "--filter",
    type=click.Choice(["box", "lanczos"]),
    default="lanczos",
    show_default=True,
    help="Filter for resizing: box (averages pixels) or lanczos (sharper).",
)
@click.option(
    "--labels",
    metavar="folders|none|FILE.json",
    help="Labels: folders (one class per top-level folder), none, or a JSON file [[name, class], ...]; a class is a "
    "number or a word, or a list of them for images of several classes. Default: the labels in SRC, if any.",
)
@click.option(
    "--channels",
    type=click.Choice(["1", "3", "4"]),
    help="Number of channels: 1 (gray), 3 (RGB) or 4 (RGBA). Default: that of the images; 3 if they differ.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    help="Largest number of pixels of an image; larger images are skipped, because a hostile file may claim any size. "
    "Default: 89478485.",
)
@workers_option
@click.option(
    "--strict", is_flag=True, help="Fail if a file is not an image or cannot be read, instead of skipping it."
)
@output_options
def pack_command(src: str, dest: str, channels: str | None, as_json: bool, quiet: bool, **options: typing.Any) -> None:
    """Pack images into a dataset: one zip of images of the same size, for `sgan train --data`.

    SRC is a folder (with all its subfolders), a zip, or an .npz or .npy file of images, in any common format; or
    TFRecords or an LMDB of other programs. DEST is the zip to write. Files that are not images or cannot be read are
    skipped and listed.

    \b
    Examples:
      sgan data pack photos/ faces.zip --size 256
      sgan data pack animals/ animals.zip --size 128 --labels folders
    """
    from ..data.pack import pack

    if options["size"]:
        check_size(*options["size"])  # refuse a size that no model supports
    with bar(quiet, leave=False) as progress:
        chosen = {name: value for name, value in options.items() if value is not None}
        report = pack(src, dest, channels=int(channels) if channels else None, progress=progress, **chosen)
    if as_json:
        return click.echo(json.dumps(vars(report)))
    _print_skipped(report.skipped)
    if report.enlarged:
        were = "was smaller than --size and has" if report.enlarged == 1 else "were smaller than --size and have"
        click.echo(f"{plural(report.enlarged, 'image')} {were} been enlarged.", err=True)
    warn(*filter(None, (report.warning, *report.notes)))
    if not quiet:
        classes = f", {plural(len(report.classes), report.label_unit)}" if report.classes else ""
        size = f"{report.height}x{report.width} (height x width), {plural(report.channels, 'channel')}"
        click.echo(f"{plural(report.num, 'image')} of {size}{classes}")
    click.echo(report.path)


@command.command("info", short_help="Show what a dataset contains.")
@click.argument("path", required=False)
@out_options("NAME-contact.png", "the dataset's folder; the current folder for the bundled dataset")
@output_options
def info_command(path: str | None, out: str | None, outdir: str | None, as_json: bool, quiet: bool) -> None:
    """Show what a dataset contains: number and size of images, classes, attributes.

    PATH is a zip, a folder or another source of images, by default the bundled dataset. Also writes NAME-contact.png,
    a contact sheet: up to 80 of the images side by side.

    \b
    Examples:
      sgan data info
      sgan data info faces.zip --outdir sheets
    """
    from ..data.dataset import open_dataset
    from ..data.images import save_image
    from ..data.info import contact_sheet, sheet_path, summary

    with bar(quiet, leave=False) as progress:
        dataset = open_dataset(path, progress=progress)
    beside = sheet_path(dataset)
    sheet = output_file(out, outdir, beside.name, beside.parent)
    save_image(contact_sheet(dataset), sheet)
    facts = {**summary(dataset), "contact_sheet": sheet}
    if as_json:
        return click.echo(json.dumps(facts))
    if not quiet:
        _print_skipped(list(facts["ignored"].items()), "Not part of the dataset ({}):")
        click.echo(_table(facts))
    click.echo(sheet)


@command.command("demo", short_help="Render a dataset of cartoons with DiceBear.")
@click.argument("out", metavar="OUT.zip")
@click.option("--style", default="critters", show_default=True, help="DiceBear style, such as critters or open-peeps.")
@click.option("--num", type=click.IntRange(1), default=4000, show_default=True, help="Number of images.")
@click.option(
    "--size",
    type=SIZE,
    default="64",
    show_default=True,
    help="Image size in pixels: 64, or 48x64 (height x width, cropped from a square).",
)
@click.option("--label", metavar="ATTRIBUTE", help="Attribute whose values become the classes. Default: no classes.")
@seed_option()
@click.option(
    "--colors",
    type=click.IntRange(2, 256),
    help="Number of colors of each image, for palette PNGs, which are smaller. Default: full color.",
)
@workers_option
@output_options
def demo_command(out: str, as_json: bool, quiet: bool, **options: typing.Any) -> None:
    """Render a dataset of cartoon creatures or faces with DiceBear, to experiment with.

    Writes OUT.zip with any number of images at any size. Their attributes (colors and parts) are stored in it as
    labels. Needs pip install 'stylegan-cli[demo]'.

    \b
    Examples:
      sgan data demo critters.zip --num 1000 --size 64
      sgan data demo peeps.zip --style open-peeps --label headVariant
    """
    from ..data.demo import make_demo_dataset

    with bar(quiet, leave=False) as progress:
        report = make_demo_dataset(out, progress=progress, **options)
    if as_json:
        return click.echo(json.dumps(vars(report)))
    if not quiet:
        click.echo(
            f"{plural(report.num, 'image')} of {report.height}x{report.width} (height x width), {report.license}"
        )
        click.echo("Attributes: " + (_counted(report.attributes) or "none"))
        if report.classes:
            click.echo(f"{plural(len(report.classes), 'class')}: " + ", ".join(report.classes))
    click.echo(report.path)


def _table(facts: dict[str, typing.Any]) -> str:
    rows = {
        "dataset": facts["path"],
        "images": facts["num"],
        "size": f"{facts['height']}x{facts['width']} (height x width)",
        "channels": f"{facts['channels']} ({ {1: 'gray', 3: 'RGB', 4: 'RGBA'}[facts['channels']] })",
        **_labels(facts),
        "attributes": _counted(facts["attributes"]) or "none",
        "created": _provenance_text(facts["made"]) or "unknown",
        "hash": facts["content_hash"],
        **({"note": facts["note"]} if facts["note"] else {}),
    }
    return "\n".join(f"{name:<12}{printable(str(value))}" for name, value in rows.items())


def _labels(facts: dict[str, typing.Any]) -> dict[str, str]:
    """The rows of the labels: images per class, or the names of the values of a vector."""
    if facts["label_problem"]:
        return {"labels": f"unusable: {facts['label_problem']}"}
    if names := facts["label_numbers"]:
        shown = ", ".join(names[:_MAX_SHOWN]) + (" ..." if len(names) > _MAX_SHOWN else "")
        return {"labels": f"{plural(len(names), 'value')} per image ({shown})"}
    return {"classes": _counted(facts["classes"]) or "none"}


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:_MAX_SHOWN]]
    return ", ".join(shown) + (f" and {len(counts) - _MAX_SHOWN} more" if len(counts) > _MAX_SHOWN else "")


def _provenance_text(made: dict[str, typing.Any]) -> str:
    """How the dataset was made, without the facts in other rows."""
    elsewhere = ("classes", "size", "channels", "from")
    facts = {k: v for k, v in made.items() if k not in elsewhere and v not in (None, [], {})}
    return ", ".join(f"{k} {_format_value(v)}" for k, v in facts.items())


def _format_value(value: typing.Any) -> str:
    if isinstance(value, list):
        return plural(len(value), "file")
    return " ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _print_skipped(skipped: typing.Sequence[tuple[str, str]], title: str = "Skipped {}:") -> None:
    if skipped:
        click.echo(title.format(plural(len(skipped), "file")), err=True)
    for name, reason in skipped[:_MAX_LISTED]:
        warn(f"  {name}: {reason}")
    if len(skipped) > _MAX_LISTED:
        click.echo(f"  and {len(skipped) - _MAX_LISTED} more; --json lists all", err=True)
