"""sgan metrics"""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path

import click

from ..errors import MisuseError
from .call import keep_freed_memory, resolve_device, warn
from .options import (
    batch_option,
    detector_option,
    device_option,
    features_option,
    gpus_option,
    kernels_option,
    model_option,
    output_options,
    real_data_option,
    seed_option,
    trunc_option,
)
from .params import SIZE
from .progress import bar

if typing.TYPE_CHECKING:
    from ..metrics.measure import Results
    from ..metrics.metric import EvaluationProtocol
    from ..metrics.requests import Request

T = typing.TypeVar("T")


@click.command(short_help="Measure the quality of a model or a dataset: FID, KID and more.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@model_option
@real_data_option
@click.option(
    "--size",
    type=SIZE,
    help="Image size in pixels to read --data at: 64, or 48x64 (height x width). Default: that of the model.",
)
@click.option(
    "--images",
    nargs=2,
    metavar="A B",
    help="Two datasets (zips or folders) to compare, A as the real images, instead of --data and --model.",
)
@click.option(
    "--num",
    type=click.IntRange(1),
    help="Number of generated images, for a quick estimate; it becomes part of the metric's name. "
    "Default: as the metric's name says.",
)
@features_option
@detector_option("detector_file")
@trunc_option("truncation_psi")
@batch_option
@gpus_option
@seed_option(2**63 - 1)
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
    """Measure the quality of a model, every snapshot of a run, or a dataset.

    NAME is fid (Fréchet distance between generated and real images; lower is better), kid (kernel distance; lower),
    pr (precision and recall; higher), dc (density and coverage; higher), is (Inception score; higher), ppl (perceptual
    path length; lower), eqt and eqr (equivariance to translation and rotation, in dB; higher), or a full name such as
    fid50k_full, which says how many images are used. Without NAME, lists all of them.

    Prints the values, and adds them to metric-NAME.jsonl beside the model. If --model is a run folder, measures each
    snapshot that has not been measured.

    \b
    Examples:
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
    device = str(resolve_device(device))
    if images:
        _refuse_with_images(model=model, data=data, size=size, trunc=None if protocol.truncation_psi == 1 else 1)

    from ..interop.opening import open_model
    from ..metrics.requests import compare_files, measure_file, record

    with bar(quiet or as_json, leave=False) as progress:
        if images:
            work = (compare_files, protocol, *images, device, progress)
            _print(distributed.launch(_on_a_rank, work, gpus, device), None, as_json, quiet)
            return
        for request in _requests(protocol, model, runs, data, size, quiet or as_json):
            work = (measure_file, request, open_model, device, progress)
            results = distributed.launch(_on_a_rank, work, gpus, device)
            if distributed.is_first_on_machine():
                record(request, results)
            _print(results, request.path, as_json, quiet)


def _list() -> str:
    """The names of all metrics with their descriptions, one per line."""
    from ..metrics.registry import METRICS

    return "\n".join(f"{metric.alias:4} {name:14} {metric.description}" for name, metric in METRICS.items())


def _on_a_rank(work: typing.Callable[..., T], *arguments: typing.Any) -> T:
    keep_freed_memory()
    return work(*arguments)


def _requests(
    protocol: EvaluationProtocol,
    model: str | None,
    runs: str,
    data: str | None,
    size: tuple[int, int] | None,
    quiet: bool,
) -> typing.Iterator[Request]:
    """The model to measure; for a run folder, all of its snapshots that have not been measured."""
    from ..data.dataset import open_dataset
    from ..interop.conversion import find_model, model_info
    from ..metrics.requests import Request, is_measured
    from ..runs import snapshots

    reals = open_dataset(data).spec if data else None
    newest, description = find_model(model, runs)
    run = model if model is not None and Path(model).is_dir() else None
    if not quiet and run is None:
        warn(description)
    for path in [newest] if run is None else snapshots(run):
        request = Request(protocol, path, model_info(path), reals, size)
        if run is not None and is_measured(request):
            warn(f"{path.name} has already been measured.")
        else:
            yield request


def _print(results: Results, path: Path | None, as_json: bool, quiet: bool) -> None:
    from .. import distributed
    from ..runs import unit_of

    if not distributed.is_first_on_machine():
        return
    if as_json:
        click.echo(json.dumps({"model": path and str(path), **dataclasses.asdict(results)}))
        return
    if path is not None and not quiet:
        warn(f"{path}:")
    width = max(len(name) for name in results.values)
    for name, value in results.values.items():
        spread = f" ± {results.deviations[name]:.2g}" if name in results.deviations else ""
        reals, fakes = results.num_images[name]
        counts = f"{reals} real, {fakes} generated images" if reals else f"{fakes} generated images"
        click.echo(f"{name:{width}}  {value:.6g}{spread}{unit_of(name)}" + ("" if quiet else f"   ({counts})"))
    if not quiet:
        warn(*results.notes)


def _refuse_with_images(**options: typing.Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise MisuseError(f"--{name} has no effect with --images.", hint="Use only one of them.")
