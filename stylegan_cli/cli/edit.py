"""`sgan edit`: find, show, apply."""

from __future__ import annotations

import json
import math
import typing
from pathlib import Path

import click

from ..errors import SganError
from .params import (
    LATENTS,
    STYLES,
    Finite,
    command_line,
    device_option,
    keep_memory,
    kernels_option,
    model_option,
    open_model,
    output_options,
    sampling_options,
    tell_tuned,
)

if typing.TYPE_CHECKING:
    from ..inversion.directions import Directions
    from ..snapshot import Snapshot

_SHOWN = 5  # directions, where none are asked for


class Strengths(click.ParamType):
    """'-3..3', in seven even steps, or '-2,0,2.5', as a list[float]."""

    name = "strengths"

    def convert(self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        if isinstance(value, list):
            return value
        try:
            low, is_range, high = value.partition("..")
            numbers = evenly(float(low), float(high)) if is_range else [float(part) for part in value.split(",")]
        except ValueError:
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)):
            self.fail(f"{value!r} is no range such as -3..3, nor numbers such as -2,0,2.", param, ctx)
        return numbers


def evenly(low: float, high: float) -> list[float]:
    """Seven columns, from low to high."""
    return [low + (high - low) * i / 6 for i in range(7)]


_directions_option = click.option(
    "--directions", metavar="FILE", help="Of `sgan edit find`. Left out: the newest in ./out."
)
_seeds_option = click.option("--seeds", type=LATENTS, default="0-3", help="Pictures: seeds or projected files (.npz).")
_layers_option = click.option(
    "--layers", type=STYLES, help="coarse, middle, fine, or indices of w such as 0-4. Left out: those of the file."
)


@click.group("edit", short_help="Find directions in the latent space, show them, move pictures along them.")
def command() -> None:
    """Find directions in the latent space, show them, and move pictures along them."""


@command.command("find", short_help="Find directions: from samples, from the weights, from labels.")
@click.option("--method", type=click.Choice(["pca", "sefa"]), help="From samples, or from the weights. Left out: pca.")
@click.option("--from-labels", is_flag=True, help="From the attributes of the pictures that the model was trained on.")
@click.option("--attributes", metavar="NAMES", help="Labels of these alone: bodyColor,topVariant.")
@click.option("--data", metavar="PATH", help="Labels of another set of pictures.")
@click.option("--csv", metavar="FILE", help="Labels of seeds: a table with columns seed,NAME,...")
@click.option("--count", type=click.IntRange(1), help="How many, without labels.  [default: 10]")
@click.option("--num", type=click.IntRange(2), default=10_000, help="Seeds to look at: 0 and up.")
@click.option("--layers", type=STYLES, help="What they are for; sefa looks at these alone. Left out: all.")
@click.option("--class", "class_index", type=int, help="Class of the seeds. Left out: drawn by each seed.")
@click.option("--out", metavar="FILE", help="Where to write. Left out: ./out/directions-METHOD.npz.")
@model_option
@device_option
@kernels_option
@output_options
def find_command(
    method: str | None,
    from_labels: bool,
    attributes: str | None,
    data: str | None,
    csv: str | None,
    count: int | None,
    layers: list[int] | str | None,
    out: str | None,
    model: str | None,
    runs: str,
    device: str,
    as_json: bool,
    quiet: bool,
    **samples: typing.Any,  # num and class_index
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
    from ..inversion.factorize import find_unlabelled
    from ..sampling.mixing import style_indices

    labels = bool(from_labels or attributes or data or csv)
    if labels and method:
        raise SganError(f"--method {method} needs no labels.", hint="Leave out --method, or what is about labels.")
    if labels and count:
        raise SganError("--count has no effect with labels: each value makes a direction.", hint="Choose --attributes.")
    keep_memory()
    method = "labels" if labels else method or "pca"
    path = Path(out or f"./out/directions-{method}.npz")
    check_writable(path.parent)
    snapshot = open_model(model, runs, device, quiet)
    G = snapshot.G
    how = {"layers": style_indices(G.layers, layers or list(range(G.num_ws)), "--layers"), **samples}
    how["settings"] = {"model": str(snapshot.path), "command": command_line()}
    if labels:
        names = [name.strip() for name in attributes.split(",")] if attributes else None
        found = _from_labels(snapshot, names, data, csv, how, quiet)
    else:
        found = find_unlabelled(G, method, count or 10, **how)
    save_directions(path, found)
    _tell(found, path, as_json, quiet)


@command.command("show", short_help="Draw a strip for each direction.")
@_directions_option
@click.option("--direction", help="Which: 3, 0-4, or names. Left out: the first five.")
@click.option("--strengths", type=Strengths(), help="-3..3, or some: -2,0,2. Left out: as they were found for.")
@_seeds_option
@_layers_option
@sampling_options
@model_option
@device_option
@kernels_option
@output_options
def show_command(
    directions: str | None,
    direction: str | None,
    strengths: list[float] | None,
    seeds: list[int | str],
    layers: list[int] | str | None,
    outdir: str,
    format: str,
    model: str | None,
    runs: str,
    device: str,
    as_json: bool,
    quiet: bool,
    **sampling: typing.Any,  # see sampling_options
) -> None:
    """Draw a strip for each direction: a row for each picture, a column for each strength.

    A strength of 1 is one standard deviation of the latents along the direction.
    """
    from ..data.images import save_image
    from ..inversion.editing import strip
    from ..sampling.draw import Sampling, picture_record
    from ..sampling.latent_files import file_part, find_latents

    snapshot, how, folder, files = open_model(model, runs, device, quiet), Sampling(**sampling), Path(outdir), []
    path, known, indices = _open(directions, snapshot, layers)
    chosen = known.choose(direction) if direction else range(min(_SHOWN, len(known)))
    strengths = strengths or evenly(-known.strength, known.strength)
    found = find_latents(snapshot.G, seeds, how)
    tuned = tell_tuned(found.tuned, quiet)
    for which in chosen:
        name = known.names[which]
        files.append(folder / f"strip{which:02d}-{file_part(name)}.{format}")
        about = {"directions": path, "direction": name, "strengths": strengths, "layers": indices, "seeds": seeds}
        record = picture_record(snapshot, how, command_line(), **tuned, **about)
        save_image(strip(found, known, which, strengths, indices, how, quiet), files[-1], metadata=record)
    result = {"model": str(snapshot.path), "directions": path, "strengths": strengths, "layers": indices}
    click.echo(json.dumps({**result, "files": [str(f) for f in files]}) if as_json else files[-1])


@command.command("apply", short_help="Move pictures along directions.")
@_directions_option
@click.option("--direction", multiple=True, default=["0"], help="A number or a name. May be given several times.")
@click.option("--strength", multiple=True, type=Finite(), help="Of each. Left out: as they were found for.")
@_seeds_option
@_layers_option
@sampling_options
@model_option
@device_option
@kernels_option
@output_options
def apply_command(
    directions: str | None,
    direction: tuple[str, ...],
    strength: tuple[float, ...],
    seeds: list[int | str],
    layers: list[int] | str | None,
    outdir: str,
    format: str,
    model: str | None,
    runs: str,
    device: str,
    as_json: bool,
    quiet: bool,
    **sampling: typing.Any,  # see sampling_options
) -> None:
    """Move pictures along directions: seeds, or files that `sgan project` wrote.

    Writes each picture, edit.png with all before and after, and edited.npz, which other commands take as they take
    projected files. A strength of 1 is one standard deviation of the latents along the direction.

    \b
    sgan edit apply --direction 3 --layers 0-4 --strength 2
    sgan edit apply --direction hat=tall --strength 5 --seeds 0-7,face.npz
    """
    from ..data.images import save_image
    from ..inversion.editing import before_and_after, move_all, pair_edits, save_edited
    from ..sampling.draw import Sampling, picture_record
    from ..sampling.latent_files import file_part, find_latents

    snapshot, how, folder = open_model(model, runs, device, quiet), Sampling(**sampling), Path(outdir)
    path, known, indices = _open(directions, snapshot, layers)
    edits = pair_edits(known, direction, strength)
    if any(isinstance(item, str) and Path(item).resolve() == (folder / "edited.npz").resolve() for item in seeds):
        raise SganError(f"{folder / 'edited.npz'} would be replaced by what is made of it.", hint="Give --outdir.")
    found = find_latents(snapshot.G, seeds, how)
    edited = move_all(known, found.ws, edits, indices)
    pictures, sheet = before_and_after(found, edited, how, quiet)
    about = {"directions": path, "edits": [[known.names[which], size] for which, size in edits], "layers": indices}
    record = picture_record(snapshot, how, command_line(), **tell_tuned(found.tuned, quiet), **about)
    files = [folder / f"edit{file_part(name)}.{format}" for name in found.names]
    for picture, name, file in zip(pictures, found.names, files, strict=True):
        save_image(picture, file, metadata={"seed": name, **record})
    settings = {"model": str(snapshot.path), "command": command_line(), **about}
    files += [save_edited(folder, found, edited, seeds, snapshot.fingerprint, settings), folder / f"edit.{format}"]
    save_image(sheet, files[-1], metadata={"seeds": str(seeds), **record})
    result = {"model": str(snapshot.path), **about, "files": [str(f) for f in files]}
    click.echo(json.dumps(result) if as_json else files[-1])


def _from_labels(
    snapshot: Snapshot,
    names: list[str] | None,  # of attributes
    data: str | None,
    csv: str | None,
    how: dict[str, typing.Any],
    quiet: bool,
) -> Directions:
    from ..inversion.attributes import find_from_pictures, find_from_table
    from ..inversion.seed_labels import read_table
    from ..snapshot import open_training_set
    from ..training.recipes.classifier import open_classifier
    from .progress import bar

    if csv and data:
        raise SganError("--csv and --data are two sources of labels.", hint="Leave one of them out.")
    if csv:
        return find_from_table(snapshot.G, *read_table(csv, names), wanted=names, **how)
    dataset = open_training_set(snapshot.info, data)
    if dataset is None:
        raise SganError("This model does not say which pictures it was trained on.", hint="Give --data or --csv.")
    with bar(quiet) as progress:
        classifier = open_classifier(dataset, snapshot.G.config, names, progress=progress)
    return find_from_pictures(snapshot.G, classifier, wanted=names, quiet=quiet, **how)


def _open(
    directions: str | None, snapshot: Snapshot, layers: list[int] | str | None
) -> tuple[str, Directions, list[int]]:
    """The file, what it holds, and the indices of w to move."""
    from ..inversion.directions import load_directions, newest_directions
    from ..sampling.mixing import style_indices

    path = directions or newest_directions("./out")
    known = load_directions(path, snapshot.G)
    return str(path), known, known.layers if layers is None else style_indices(snapshot.G.layers, layers, "--layers")


def _tell(found: Directions, path: Path, as_json: bool, quiet: bool) -> None:
    """A table of the directions, what was left out, and the file."""
    columns = {"scale": found.scales.tolist(), **found.figures}
    left_out = found.settings.get("left_out", {})
    if as_json:
        rows = [{"name": n, **{c: v[k] for c, v in columns.items()}} for k, n in enumerate(found.names)]
        click.echo(json.dumps({"method": found.method, "directions": rows, "left_out": left_out, "file": str(path)}))
        return
    if not quiet:
        width = max(len(name) for name in found.names)
        click.echo(f"{'':4}{'':{width}}" + "".join(f"{name:>11}" for name in columns))
        for k, name in enumerate(found.names):
            click.echo(f"{k:3} {name:{width}}" + "".join(f"{values[k]:11.3g}" for values in columns.values()))
        if left_out:
            some = ", ".join(f"{name} ({why})" for name, why in list(left_out.items())[:3])
            click.echo(f"Left out {len(left_out)}: {some} ... (--json lists them all)", err=True)
    click.echo(path)
