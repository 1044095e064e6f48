"""sgan metrics"""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path

import click

from ..errors import SganError
from .params import (
    SIZE,
    Number,
    device_option,
    keep_memory,
    kernels_option,
    model_option,
    output_options,
    resolve_device,
)
from .progress import bar

if typing.TYPE_CHECKING:
    from ..metrics.measure import Results
    from ..metrics.metric import EvaluationProtocol
    from ..metrics.requests import Request

T = typing.TypeVar("T")


@click.command(short_help="Measure a model, every snapshot of a run, or two sets of images.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@model_option
@click.option("--data", metavar="PATH", help="Real images. Left out: those that the model was trained on.")
@click.option("--size", type=SIZE, help="Read --data at this size. Left out: the model's.")
@click.option("--images", nargs=2, metavar="A B", help="Two zips or folders, in place of data and model.")
@click.option("--num", type=click.IntRange(1), help="Images of the model, for a quick look: the name then says so.")
@click.option("--features", default="inception-2015", help="inception-2015, or efficientnet-lite0: no download.")
@click.option("--detector", "detector_file", metavar="FILE", help="Weights of the network that looks at the images.")
@click.option("--trunc", "truncation_psi", type=Number(), default=1.0, help="Truncation psi.")
@click.option("--batch", type=click.IntRange(1), help="Images at a time on one GPU. Left out: by their size.")
@click.option("--gpus", type=click.IntRange(1), help="Processes, one for each GPU.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Of the model's images.")
@output_options
@device_option
@kernels_option
def command(
    names: tuple[str, ...],
    model: str | None,
    runs: str,
    data: str | None,
    size: tuple[int, int] | None,
    images: tuple[str, str] | None,
    gpus: int | None,
    device: str,
    as_json: bool,
    quiet: bool,
    **options: typing.Any,
) -> None:
    """Measure a model by NAME: fid, kid, pr, dc, is, ppl, or a protocol's full name. Without NAME: list them.

    --model takes a file, or a run's folder: then every snapshot that has not been measured is. Values go into
    metric-NAME.jsonl beside the model.

    \b
    sgan metrics fid ppl
    sgan metrics fid --model runs/00000-faces-auto --num 5000
    sgan metrics kid --features efficientnet-lite0
    sgan metrics fid --images reals.zip fakes/
    """
    from .. import distributed
    from ..metrics.registry import resolve

    if not names:
        click.echo(_list())
        return
    protocol = resolve(names, **options)
    where = str(resolve_device(device))
    if images:
        _refuse(model=model, data=data, size=size, trunc=None if protocol.truncation_psi == 1 else 1)

    from ..interop.opening import open_model
    from ..metrics.requests import compare_files, measure_file, record

    with bar(quiet or as_json, leave=False) as progress:
        if images:
            work = (compare_files, protocol, *images, where, progress)
            _print(distributed.launch(_on_a_rank, work, gpus, where), None, as_json, quiet)
            return
        for request in _requests(protocol, model, runs, data, size, quiet or as_json):
            results = distributed.launch(_on_a_rank, (measure_file, request, open_model, where, progress), gpus, where)
            if distributed.is_first_on_machine():
                record(request, results)
            _print(results, request.path, as_json, quiet)


def _list() -> str:
    """The metrics, one a line."""
    from ..metrics.registry import METRICS

    return "\n".join(f"{metric.alias:4} {name:14} {metric.description}" for name, metric in METRICS.items())


def _on_a_rank(work: typing.Callable[..., T], *arguments: typing.Any) -> T:
    keep_memory()
    return work(*arguments)


def _requests(
    protocol: EvaluationProtocol,
    model: str | None,
    runs: str,
    data: str | None,
    size: tuple[int, int] | None,
    quiet: bool,
) -> typing.Iterator[Request]:
    """For the model that is meant; of a run's folder for all that have not been measured."""
    from ..data.dataset import open_dataset
    from ..interop.conversion import find_model, model_info
    from ..metrics.requests import Request, is_measured
    from ..runs import snapshots

    reals = open_dataset(data).spec if data else None
    newest, which = find_model(model, runs)
    run = model if model is not None and Path(model).is_dir() else None
    if not quiet and run is None:
        click.echo(which, err=True)
    for path in [newest] if run is None else snapshots(run):
        request = Request(protocol, path, model_info(path), reals, size)
        if run is not None and is_measured(request):
            click.echo(f"{path.name} has been measured before.", err=True)
        else:
            yield request


def _print(results: Results, path: Path | None, as_json: bool, quiet: bool) -> None:
    from .. import distributed

    if not distributed.is_first_on_machine():
        return
    if as_json:
        click.echo(json.dumps({"model": path and str(path), **dataclasses.asdict(results)}))
        return
    if path is not None and not quiet:
        click.echo(f"{path}:", err=True)
    width = max(len(name) for name in results.values)
    for name, value in results.values.items():
        spread = f" ± {results.deviations[name]:.2g}" if name in results.deviations else ""
        reals, fakes = results.num_images[name]
        of = f"{reals} real, {fakes} drawn" if reals else f"{fakes} drawn"
        click.echo(f"{name:{width}}  {value:.6g}{spread}" + ("" if quiet else f"   ({of})"))
    if not quiet:
        for note in results.notes:
            click.echo(note, err=True)


def _refuse(**given: typing.Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise SganError(f"--{name} does not go with --images.", hint="Leave one of them out.")
