"""`sgan model list` and `sgan model get`: public models by name."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from .call import warn
from .options import output_options

if TYPE_CHECKING:
    from ..interop.zoo import PublicModel

_HEADER = ("name", "shows", "size", "family", "license", "commercial", "here")
_COMMERCIAL = {True: "yes", False: "no", None: "ask"}
_TERMS = {
    True: "Its author allows commercial use.",
    False: "Commercial use is not allowed.",
    None: "Ask the author before you publish or sell what you make with it.",
}


@click.command("list", short_help="List public models that can be downloaded by name.")
@click.argument("words", nargs=-1)
@output_options
def list_command(words: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """List public models that can be downloaded by name: what they show, their resolution, family and license, whether
    it allows commercial use, and whether the model is here, in the cache.

    WORDS choose those that fit all of them: parts of names, contents, families or licenses, or resolutions.

    \b
    Examples:
      sgan model list
      sgan model list faces 1024
    """
    from ..interop.zoo import converted, search_public

    models = search_public(words)
    if as_json:
        return click.echo(json.dumps([_facts(model) for model in models]))
    rows = [
        (m.name, m.shows, str(m.resolution), m.family, m.license, _COMMERCIAL[m.commercial], "*" * bool(converted(m)))
        for m in models
    ]
    widths = [max(map(len, column)) for column in zip(_HEADER, *rows)]
    for row in (_HEADER, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    if not quiet:
        warn("`sgan model get NAME` downloads one.")


@click.command("get", short_help="Download a public model, and convert it.")
@click.argument("name")
@output_options
def get_command(name: str, as_json: bool, quiet: bool) -> None:
    """Download a public model, check it, and convert it to a snapshot in the cache. All commands then take it by its
    name, such as `--model ada-ffhq`.

    Prints the license before the download, and at the end the path of the snapshot. A download that was cut continues
    where it stopped. If it is not possible, the message says where to put the file.

    \b
    Examples:
      sgan model get ada-ffhq
      sgan model get stylegan3-t-ffhqu-256x256 -q
    """
    from ..interop.getting import get_public
    from ..interop.zoo import find_public

    model = find_public(name)
    path = get_public(model, _announce)
    if not quiet:
        warn(f"Use it: sgan generate --model {name}")
    click.echo(json.dumps(_facts(model)) if as_json else path)


def _announce(model: PublicModel) -> None:
    """Say what will be downloaded, and on what terms."""
    known = "" if model.sha256 else " Nobody published its SHA-256: it is recorded, and later downloads must match."
    warn(
        f"{model.name}: {model.shows}, {model.resolution}x{model.resolution}, {model.family}. Source: {model.source}",
        f"License: {model.license}. {_TERMS[model.commercial]}",
        f"Address: {model.url}.{known}",
    )


def _facts(model: PublicModel) -> dict[str, Any]:
    from ..interop.zoo import converted

    path = converted(model)
    return {**dataclasses.asdict(model), "sha256": model.sha256 or None, "path": str(path) if path else None}
