"""`sgan edit`: find, show, apply."""

from __future__ import annotations

import math
import typing
from pathlib import Path

import click

from .params import LATENTS, STYLES, Call, Number, keep_memory, sampling_options, session_options

if typing.TYPE_CHECKING:
    from ..inversion.directions import Directions


class Strengths(click.ParamType):
    """'-3..3', in seven even steps, or '-2,0,2.5', as a list[float]."""

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
            self.fail(f"{value!r} is no range such as -3..3, nor numbers such as -2,0,2.", param, ctx)
        return numbers


def _evenly(low: float, high: float) -> list[float]:
    """Seven columns, from low to high."""
    return [low + (high - low) * i / 6 for i in range(7)]


_directions_option = click.option(
    "--directions", metavar="FILE", help="Of `sgan edit find`. Left out: the newest in ./out."
)
_seeds_option = click.option("--seeds", type=LATENTS, default="0-3", help="Images: seeds or projected files (.npz).")
_layers_option = click.option(
    "--layers", type=STYLES, help="coarse, middle, fine, or indices of w such as 0-4. Left out: those of the file."
)


@click.group("edit", short_help="Find directions in the latent space, show them, move images along them.")
def command() -> None:
    """Find directions in the latent space, show them, and move images along them."""


@command.command("find", short_help="Find directions: from samples, from the weights, from labels.")
@click.option("--method", type=click.Choice(["pca", "sefa"]), help="From samples, or from the weights. Left out: pca.")
@click.option("--from-labels", is_flag=True, help="From the attributes of the images that the model was trained on.")
@click.option("--attributes", metavar="NAMES", help="Labels of these alone: bodyColor,topVariant.")
@click.option("--data", metavar="PATH", help="Labels of another set of images.")
@click.option("--csv", metavar="FILE", help="Labels of seeds: a table with columns seed,NAME,...")
@click.option("--count", type=click.IntRange(1), help="How many, without labels.  [default: 10]")
@click.option("--num", type=click.IntRange(2), default=10_000, help="Seeds to look at: 0 and up.")
@click.option("--layers", type=STYLES, help="What they are for; sefa looks at these alone. Left out: all.")
@click.option("--class", "class_index", type=int, help="Class of the seeds. Left out: drawn by each seed.")
@click.option("--out", metavar="FILE", help="Where to write. Left out: ./out/directions-METHOD.npz.")
@session_options
def find_command(
    call: Call,
    attributes: str | None,
    out: str | None,
    **request: typing.Any,  # see session.FindRequest
) -> None:
    """Find directions in the latent space, and write them to a file.

    From samples of W (GANSpace), from the weights (SeFa), or from labels: a direction for each value of an attribute
    that the model draws, one that leaves the other attributes alone.

    \b
    sgan edit find --method sefa --layers coarse
    sgan edit find --from-labels --attributes backgroundColor,bodyColor
    sgan edit find --csv smiles.csv
    """
    from ..files import check_writable
    from ..inversion.directions import save_directions
    from ..session import FindRequest

    names = [name.strip() for name in attributes.split(",")] if attributes else None
    asked = FindRequest(attributes=names, **request)
    keep_memory()
    path = Path(out or f"./out/directions-{'labels' if asked.labeled else asked.method or 'pca'}.npz")
    check_writable(path.parent)
    with call.progress() as progress:
        directions = call.open().find_directions(asked, progress)
    save_directions(path, directions)
    left_out = directions.settings.get("left_out", {})
    if not (call.as_json or call.quiet):
        _print_table(directions)
    if left_out and not call.as_json:
        some = ", ".join(f"{name} ({why})" for name, why in list(left_out.items())[:3])
        call.say(f"Left out {len(left_out)}: {some} ... (--json lists them all)")
    rows = {"method": directions.method, "directions": _rows(directions), "left_out": left_out}
    call.finish({**rows, "file": path}, path)


@command.command("show", short_help="Draw a strip for each direction.")
@_directions_option
@click.option("--direction", help="Which: 3, 0-4, or names. Left out: the first five.")
@click.option("--strengths", type=Strengths(), help="-3..3, or some: -2,0,2. Left out: as they were found for.")
@_seeds_option
@_layers_option
@sampling_options
@session_options
def show_command(
    call: Call,
    outdir: str,
    format: str,
    **request: typing.Any,  # see session.ShowRequest
) -> None:
    """Draw a strip for each direction: a row for each image, a column for each strength.

    A strength of 1 is one standard deviation of the latents along the direction.
    """
    with call.progress() as progress:
        session = call.open()
        result = session.show_directions(progress=progress, **request)
    call.say(*result.notes)
    files = result.save(outdir, format)
    about = {"directions": result.directions, "strengths": result.strengths, "layers": result.layers}
    call.finish({"model": session.path, **about, "files": files}, files[-1])


@command.command("apply", short_help="Move images along directions.")
@_directions_option
@click.option("--direction", multiple=True, default=["0"], help="A number or a name. May be given several times.")
@click.option("--strength", multiple=True, type=Number(), help="Of each. Left out: as they were found for.")
@_seeds_option
@_layers_option
@sampling_options
@session_options
def apply_command(
    call: Call,
    outdir: str,
    format: str,
    **request: typing.Any,  # see session.EditRequest
) -> None:
    """Move images along directions: seeds, or files that `sgan project` wrote.

    Writes each image, edit.png with all before and after, and edited.npz, which other commands take as they take
    projected files. A strength of 1 is one standard deviation of the latents along the direction.

    \b
    sgan edit apply --direction 3 --layers 0-4 --strength 2
    sgan edit apply --direction hat=tall --strength 5 --seeds 0-7,face.npz
    """
    with call.progress() as progress:
        session = call.open()
        result = session.edit(progress=progress, **request)
    call.say(*result.notes)
    files = result.save(outdir, format)
    call.finish({"model": session.path, **result.about, "files": files}, files[-1])


def _rows(directions: Directions) -> list[dict[str, typing.Any]]:
    """What is known of each."""
    columns = {"scale": directions.scales.tolist(), **directions.figures}
    return [{"name": name, **{c: v[k] for c, v in columns.items()}} for k, name in enumerate(directions.names)]


def _print_table(directions: Directions) -> None:
    width = max(len(name) for name in directions.names)
    click.echo(f"{'':4}{'':{width}}" + "".join(f"{name:>11}" for name in ("scale", *directions.figures)))
    for k, row in enumerate(_rows(directions)):
        name, *values = row.values()
        click.echo(f"{k:3} {name:{width}}" + "".join(f"{value:11.3g}" for value in values))
