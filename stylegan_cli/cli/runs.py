"""`sgan runs`: list, show."""

from __future__ import annotations

import json
import time
import typing
from dataclasses import asdict

import click

from ..runs import RunSummary, find_run, list_runs, summarize_run
from .params import output_options
from .progress import bar


@click.group(
    "runs", invoke_without_command=True, short_help="List the runs, or show one as a page with curves and images."
)
@click.option("--runs", metavar="FOLDER", default="./runs", help="Where the run folders are.")
@output_options
def command(runs: str, as_json: bool, quiet: bool) -> None:
    """List the runs, the newest last; or show one as a page with curves and images.

    \b
    sgan runs
    sgan runs show
    sgan runs show 3
    """
    if click.get_current_context().invoked_subcommand:
        return
    found = [summarize_run(folder) for folder in list_runs(runs)]
    if as_json:
        click.echo(json.dumps([asdict(run) for run in found]))
    elif found:
        click.echo(_table([_row(run) for run in found]))
    elif not quiet:
        click.echo(f"There is no run under {runs} yet.\nBegin one: sgan train", err=True)


@command.command("show", short_help="Write a run as one page with curves and images.")
@click.argument("run", required=False)
@click.option("--runs", metavar="FOLDER", help="Where the run folders are.  [default: ./runs]")
@click.option("--out", metavar="FILE", help="The page. Left out: report.html in the run's folder.")
@output_options
@click.pass_context
def show_command(
    ctx: click.Context, run: str | None, runs: str | None, out: str | None, as_json: bool, quiet: bool
) -> None:
    """Write RUN as one HTML page, for any browser: curves, drawings over time, settings.

    RUN is a run's folder, its name, or its number; left out, it is the newest. The page needs no network.

    \b
    sgan runs show 3 --out page.html
    """
    from ..runs.page import write_page

    folder = find_run(run, runs or typing.cast(click.Context, ctx.parent).params["runs"])
    with bar(quiet or as_json, leave=False) as progress:
        page = write_page(folder, out, progress)
    if as_json:
        return click.echo(json.dumps({**asdict(summarize_run(folder)), "page": str(page)}))
    if not quiet:
        click.echo(_table([_row(summarize_run(folder))]), err=True)
    click.echo(page)


_HEAD = ("run", "state", "kimg", "of", "sec/kimg", "best", "last change")
_RIGHT = (2, 3, 4)  # columns of numbers


def _row(run: RunSummary) -> tuple[str, ...]:
    return (
        run.name,
        run.state,
        f"{run.kimg:.6g}",
        "-" if run.of_kimg is None else f"{run.of_kimg:.6g}",
        "-" if run.sec_per_kimg is None else f"{run.sec_per_kimg:.3g}",
        "-" if run.metric is None else f"{run.metric} {run.best:.5g}",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed)),
    )


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in _RIGHT else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in (_HEAD, *rows)
    )
