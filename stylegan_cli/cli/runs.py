"""`sgan runs`: list, show."""

from __future__ import annotations

import json
import time
import typing
from dataclasses import asdict

import click

from ..errors import printable
from ..runs import RunSummary, find_run, list_runs, summarize_run, unit_of
from .call import output_file, warn
from .options import out_options, output_options, runs_option
from .progress import bar


@click.group("runs", invoke_without_command=True, short_help="List training runs, or write a report of one.")
@runs_option
@output_options
def command(runs: str, as_json: bool, quiet: bool) -> None:
    """List training runs, the newest last, with their state, progress, speed and best metric.

    `sgan runs show` writes a report of one of them.

    \b
    Examples:
      sgan runs
      sgan runs show 3
    """
    if click.get_current_context().invoked_subcommand:
        return
    summaries = [summarize_run(folder) for folder in list_runs(runs)]
    if as_json:
        click.echo(json.dumps([asdict(run) for run in summaries]))
    elif summaries:
        click.echo(_table([_row(run) for run in summaries]))
    elif not quiet:
        warn(f"No runs in {runs} yet.", "Start one: sgan train")


@command.command("show", short_help="Write a report of a run: curves, images and settings.")
@click.argument("run", required=False)
@click.option("--runs", metavar="FOLDER", help="Folder that contains the run folders. Default: ./runs.")
@out_options("report.html", "that of the run")
@output_options
@click.pass_context
def show_command(
    ctx: click.Context,
    run: str | None,
    runs: str | None,
    out: str | None,
    outdir: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a report of a run: curves, generated images over time and settings.

    RUN is the name of a run folder, the number that it begins with, or its path, by default the newest. Writes
    one HTML file, which any browser opens without a network.

    \b
    Examples:
      sgan runs show
      sgan runs show 3 --out report.html
    """
    from ..runs.page import write_page

    folder = find_run(run, runs or typing.cast(click.Context, ctx.parent).params["runs"])
    with bar(quiet or as_json, leave=False) as progress:
        page = write_page(folder, output_file(out, outdir, "report.html", folder), progress)
    if as_json:
        return click.echo(json.dumps({**asdict(summarize_run(folder)), "page": str(page)}))
    if not quiet:
        click.echo(_table([_row(summarize_run(folder))]), err=True)
    click.echo(page)


_HEADER = ("run", "state", "kimg", "of", "sec/kimg", "best", "last change")
_RIGHT_ALIGNED = (2, 3, 4)  # columns of numbers


def _row(run: RunSummary) -> tuple[str, ...]:
    return (
        printable(run.name),
        run.state,
        f"{run.kimg:.6g}",
        "-" if run.of_kimg is None else f"{run.of_kimg:.6g}",
        "-" if run.sec_per_kimg is None else f"{run.sec_per_kimg:.3g}",
        "-" if run.metric is None else printable(f"{run.metric} {run.best:.5g}{unit_of(run.metric)}"),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed)),
    )


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(_HEADER, *rows)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in _RIGHT_ALIGNED else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in (_HEADER, *rows)
    )
