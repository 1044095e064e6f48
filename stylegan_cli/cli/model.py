"""sgan model"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from .params import output_options

if TYPE_CHECKING:
    from ..snapshot import SnapshotInfo


@click.group(short_help="Say what is in a model's file, of any format.")
def command() -> None:
    """Say what is in a model's file, of any format."""


@command.command("info", short_help="Architecture, parameters, where it came from; of a pickle the names in it.")
@click.argument("file")
@click.option("--layers", is_flag=True, help="Also every layer of both networks.")
@output_options
def info_command(file: str, layers: bool, as_json: bool, quiet: bool) -> None:
    """Say what is in a model's file: architecture, parameters, where it came from, what it measured.

    FILE is a snapshot, a run's folder, a checkpoint of another program or its address. Of a pickle every class and
    function is listed that it names: inert, if we know what data it stands for, else unknown. None of them is run.
    """
    from ..config import to_json
    from ..interop.conversion import find_model, model_info, notes_on, written_by
    from ..interop.names import names_in
    from ..models.registry import build_discriminator, build_generator
    from ..models.summary import parameter_count

    path, _ = find_model(file)
    names = names_in(path)
    if not as_json and names and names.known:
        _tell_names(names.known, names.complete)
    info = model_info(path)
    import torch

    with torch.device("meta"):
        G = build_generator(info.generator)
        D = build_discriminator(info.discriminator) if info.discriminator else None
    parameters = {"G": parameter_count(G), "D": None if D is None else parameter_count(D)}
    if as_json:
        told = {"file": str(path), "written_by": written_by(path), "parameters": parameters, "info": to_json(info)}
        return click.echo(json.dumps(told | {"names": names and dataclasses.asdict(names)}))
    rows = {"File": path, "Written by": written_by(path), **_architecture(info)}
    rows |= {"Parameters": ", ".join(f"{name} {count:,}" for name, count in parameters.items() if count)}
    if info.kimg:
        rows["Trained"] = f"{info.kimg:g} kimg"
    if info.data:
        rows["Images"] = f"{info.data.path} ({info.data.num} of {info.data.height} x {info.data.width})"
    rows |= {"Origin": info.origin or "not known", **{name: f"{value:.6g}" for name, value in info.metrics.items()}}
    rows |= {f"Note {i}": note for i, note in enumerate(notes_on(path), 1)}
    width = max(map(len, rows))
    for name, value in rows.items():
        click.echo(f"{name:{width}}  {value}")
    if layers:
        for row in G.layers:
            click.echo(f"{row.name}  w {row.w_index}  {row.height} x {row.width}  {row.channels} channels")


def _architecture(info: SnapshotInfo) -> dict[str, str]:
    D = info.discriminator
    discriminator = f"{D.architecture}, channel base {D.channel_base}" if D else "none"
    return {"Generator": info.generator.describe(), "Discriminator": discriminator}


def _tell_names(known: dict[str, bool], complete: bool) -> None:
    click.echo("The pickle names:")
    for name, inert in sorted(known.items()):
        click.echo(f"  {'inert  ' if inert else 'UNKNOWN'}  {name}")
    if not complete:
        click.echo("  It cannot be read to its end; it may name more.")
