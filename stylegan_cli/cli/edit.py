"""`sgan edit`: find, show, apply; drag is in drag.py."""

from __future__ import annotations

import math
import typing
from pathlib import Path

import click

from ..errors import printable
from .call import Call, keep_freed_memory, output_file
from .drag import drag_command
from .options import OrderedGroup, class_option, latents_option, out_options, sampling_options, session_options
from .params import STYLES, Number

if typing.TYPE_CHECKING:
    from ..inversion.directions import Directions


class Strengths(click.ParamType):
    """'-3..3' (seven evenly spaced values) or '-2,0,2.5', as a list[float]."""

    name = "strengths"

    def convert(self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        if isinstance(value, list):
            return value
        try:
            low, is_range, high = value.partition("..")
            numbers = _evenly(float(low), float(high)) if is_range else [float(part) for part in value.split(",")]
        except ValueError:
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)):
            usage = "Use a range such as -3..3, or numbers such as -2,0,2."
            self.fail(f"{value!r} is not a valid list of strengths. {usage}", param, ctx)
        return numbers


def _evenly(low: float, high: float) -> list[float]:
    """Seven evenly spaced values from low to high."""
    return [low + (high - low) * i / 6 for i in range(7)]


_directions_option = click.option(
    "--directions", metavar="FILE", help="File of directions from `sgan edit find`. Default: the newest in ./out."
)
_layers_option = click.option(
    "--layers",
    type=STYLES,
    help="Layers to edit: coarse (shape), middle, fine (color), or layer indices such as 0-4. "
    "Default: those in the file.",
)


@click.group("edit", cls=OrderedGroup, short_help="Edit images along directions in the latent space, or by dragging.")
def command() -> None:
    """Edit images along directions in the latent space, or by dragging points.

    The latent space is the space of the model's inputs. Moving along a direction in it changes one property of the
    image, such as pose or color. First `find` directions, then `show` what they do, then `apply` them to images.
    Directions belong to the model that they were found with. To `drag` needs no directions: what is at some points of
    an image moves to other points.

    \b
    Examples:
      sgan edit find
      sgan edit show
      sgan edit apply --direction 3 --strength 2
      sgan edit drag --seed 10 --points 32,14:32,20
    """


@command.command("find", short_help="Find directions from random latents, from the weights or from labels.")
@click.option(
    "--method",
    type=click.Choice(["pca", "sefa", "codes"]),
    help="Method without labels: pca (GANSpace: principal components of random latents), sefa (SeFa: from the weights) "
    "or codes (the codes of a model trained with `sgan train --info`). Default: pca.",
)
@click.option("--from-labels", is_flag=True, help="Use the labels of the dataset that the model was trained on.")
@click.option(
    "--attributes", metavar="NAMES", help="Attributes (kinds of labels) to use: bodyColor,topVariant. Default: all."
)
@click.option("--data", metavar="PATH", help="Dataset with labels to use, instead of --from-labels.")
@click.option("--csv", metavar="FILE", help="Table of labels of seeds to use, with the columns seed,NAME,...")
@click.option("--count", type=click.IntRange(1), help="Number of directions, without labels. Default: 10.")
@click.option("--num", type=click.IntRange(2), default=10_000, help="Number of random latents to analyze.")
@click.option(
    "--layers",
    type=STYLES,
    help="Layers that the directions change: coarse, middle, fine, or layer indices such as 0-4. Default: all, "
    "without those that only move the image.",
)
@class_option
@out_options("directions-METHOD.npz", "./out")
@session_options
def find_command(
    call: Call,
    attributes: str | None,
    out: str | None,
    outdir: str | None,
    **request: typing.Any,  # see session.FindRequest
) -> None:
    """Find directions in the latent space, and write them to a file.

    Without labels, finds the directions along which images vary most. With labels (--from-labels, --data or --csv),
    finds a direction for each value of each attribute, which changes that attribute and not the others. Prints the
    directions, and writes out/directions-METHOD.npz for `sgan edit show` and `sgan edit apply`.

    \b
    Examples:
      sgan edit find --method sefa --layers coarse
      sgan edit find --method codes
      sgan edit find --from-labels --attributes backgroundColor,bodyColor
      sgan edit find --csv smiles.csv
    """
    from ..files import check_writable
    from ..inversion.directions import save_directions
    from ..session import FindRequest

    names = [name.strip() for name in attributes.split(",")] if attributes else None
    find_request = FindRequest(attributes=names, **request)
    keep_freed_memory()
    source = "labels" if find_request.labeled else find_request.method or "pca"
    path = Path(output_file(out, outdir, f"directions-{source}.npz"))
    check_writable(path.parent)
    with call.progress() as progress:
        directions = call.open().find_directions(find_request, progress)
    save_directions(path, directions)
    skipped = directions.settings.get("left_out", {})
    if not (call.as_json or call.quiet):
        _print_table(directions)
    if skipped and not call.as_json:
        examples = ", ".join(f"{name} ({reason})" for name, reason in list(skipped.items())[:3])
        more = ", ... (--json lists all)" if len(skipped) > 3 else ""
        call.inform(f"Skipped {len(skipped)} values: {examples}{more}")
    rows = {"method": directions.method, "directions": _rows(directions), "left_out": skipped}
    call.print_result({**rows, "file": path}, path)


@command.command("show", short_help="Show what directions do, as a strip of images for each.")
@_directions_option
@click.option(
    "--direction", help="Directions to show: a number, a range such as 0-4, or names. Default: the first five."
)
@click.option(
    "--strengths",
    type=Strengths(),
    help="Strengths to show: a range such as -3..3, or numbers such as -2,0,2. Default: those in the file.",
)
@latents_option("0-3")
@_layers_option
@sampling_options
@session_options
def show_command(
    call: Call,
    outdir: str,
    format: str,
    **request: typing.Any,  # see session.ShowRequest
) -> None:
    """Show what directions do: a strip for each, with a row per image and a column per strength.

    A strength of 1 is one standard deviation of the latents along the direction. Writes one file per direction, such
    as strip00-pca0.png.

    \b
    Examples:
      sgan edit show
      sgan edit show --direction 0-9 --seeds 5,6 --strengths -4..4
    """
    with call.progress() as progress:
        session = call.open()
        result = session.show_directions(progress=progress, **request)
    call.inform(*result.notes)
    files = result.save(outdir, format)
    about = {"directions": result.directions, "strengths": result.strengths, "layers": result.layers}
    call.print_result({"model": session.path, **about, "files": files}, files[-1])


@command.command("apply", short_help="Edit images along directions.")
@_directions_option
@click.option(
    "--direction",
    multiple=True,
    default=["0"],
    help="Number (from 0) or name of a direction, as printed by `sgan edit find`; repeat it for several directions.",
)
@click.option(
    "--strength",
    multiple=True,
    type=Number(),
    help="Strength along --direction, in standard deviations of the latents; give one for all, or one for each. "
    "Default: the one in the file, usually 3.",
)
@latents_option("0-3")
@_layers_option
@sampling_options
@session_options
def apply_command(
    call: Call,
    outdir: str,
    format: str,
    **request: typing.Any,  # see session.EditRequest
) -> None:
    """Edit images along directions.

    Writes each edited image, edit.png (all images before and after) and edited.npz (their latents, which other commands
    accept like those from `sgan project`).

    \b
    Examples:
      sgan edit apply --direction 3 --layers 0-4 --strength 2
      sgan edit apply --direction hat=tall --strength 5 --seeds 0-7,out/projected.npz
    """
    with call.progress() as progress:
        session = call.open()
        result = session.edit(progress=progress, **request)
    call.inform(*result.notes)
    files = result.save(outdir, format)
    call.print_result({"model": session.path, **result.about, "files": files}, files[-1])


command.add_command(drag_command)


def _rows(directions: Directions) -> list[dict[str, typing.Any]]:
    """Name, scale and further figures of each direction."""
    columns = {"scale": directions.scales.tolist(), **directions.figures}
    return [{"name": name, **{c: v[k] for c, v in columns.items()}} for k, name in enumerate(directions.names)]


def _print_table(directions: Directions) -> None:
    names = list(map(printable, directions.names))
    width = max(map(len, names))
    click.echo(f"{'':4}{'':{width}}" + "".join(f"{name:>11}" for name in ("scale", *directions.figures)))
    for k, (name, row) in enumerate(zip(names, _rows(directions), strict=True)):
        _, *values = row.values()
        click.echo(f"{k:3} {name:{width}}" + "".join(f"{value:11.3g}" for value in values))
