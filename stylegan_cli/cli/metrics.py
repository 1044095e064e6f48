"""sgan metrics"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import typing
from pathlib import Path

import click

from ..errors import SganError
from .params import (
    SIZE,
    Finite,
    device_option,
    keep_memory,
    kernels_option,
    model_option,
    output_options,
    resolve_device,
)

if typing.TYPE_CHECKING:
    from ..metrics.measure import Results


@click.command(short_help="Measure a model, every snapshot of a run, or two sets of pictures.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@model_option
@click.option("--data", metavar="PATH", help="Real pictures. Left out: those that the model was trained on.")
@click.option("--size", type=SIZE, help="Read --data at this size. Left out: the model's.")
@click.option("--images", nargs=2, metavar="A B", help="Two zips or folders, in place of data and model.")
@click.option("--num", type=click.IntRange(1), help="Pictures of the model, for a quick look: the name then says so.")
@click.option("--features", default="inception-2015", help="inception-2015, or efficientnet-lite0: no download.")
@click.option("--detector", metavar="FILE", help="Weights of the network that looks at the pictures.")
@click.option("--trunc", type=Finite(), default=1.0, help="Truncation psi.")
@click.option("--batch", type=click.IntRange(1), help="Pictures at a time on one GPU. Left out: by their size.")
@click.option("--gpus", type=click.IntRange(1), help="Processes, one for each GPU.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Of the model's pictures.")
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
    from ..metrics.registry import METRICS, SHORT, resolve

    if not names:
        of = {name: short for short, name in SHORT.items()}
        rows = [(of.get(name, ""), name, metric.about) for name, metric in METRICS.items()]
        click.echo("\n".join(f"{short:4} {name:14} {about}" for short, name, about in rows))
        return
    resolve(names, options["num"], options["features"])  # before anything takes long
    options = {"progress": not (quiet or as_json), **options}
    options |= {"truncation_psi": options.pop("trunc"), "detector_file": options.pop("detector")}
    call = _Call(names, str(resolve_device(device)), gpus, options)
    if images:
        _refuse(model=model, data=data, size=size, trunc=None if options["truncation_psi"] == 1 else 1)
        _tell(call.images(*images), None, as_json, quiet)
        return
    hash_given = _hash_of(data) if data else None
    for path in _models(model, runs, quiet or as_json):
        asked = _asked(path, names, options, hash_given)
        if model and Path(model).is_dir() and _known(path, asked):
            click.echo(f"{path.name} has been measured before.", err=True)
            continue
        results = call.model(path, data, size)
        if asked["foreign"]:
            results = _renamed(results, "_on_" + re.sub(r"[^A-Za-z0-9.-]+", "-", Path(data).stem))
        _record(results, path, asked)
        _tell(results, path, as_json, quiet)


@dataclasses.dataclass(frozen=True)
class _Call:
    """What is asked for, on however many ranks."""

    names: tuple[str, ...]
    device: str
    gpus: int | None
    options: dict[str, typing.Any]

    def model(self, path: Path, data: str | None, size: tuple[int, int] | None) -> Results:
        return self._launch(_measure_model, path, data, size)

    def images(self, a: str, b: str) -> Results:
        options = {k: v for k, v in self.options.items() if k != "truncation_psi"}
        return self._launch(_compare, a, b, options)

    def _launch(self, function: typing.Callable, *arguments: typing.Any) -> Results:
        from .. import distributed

        return distributed.launch(function, (self, *arguments), self.gpus, self.device)


def _measure_model(call: _Call, path: Path, data: str | None, size: tuple[int, int] | None) -> Results:
    from ..interop.opening import open_model
    from ..metrics.measure import measure
    from ..metrics.registry import resolve
    from ..snapshot import open_training_set

    keep_memory()
    snapshot = open_model(path, call.device)
    metrics = resolve(call.names, call.options["num"], call.options["features"])
    needed = snapshot.info.generator.c_dim or any(m.reals for m in metrics)
    reals = open_training_set(snapshot.info, data, size) if needed else None
    return measure(call.names, snapshot.G, reals, call.device, **call.options)


def _compare(call: _Call, a: str, b: str, options: dict[str, typing.Any]) -> Results:
    from ..data.dataset import open_dataset
    from ..metrics.measure import compare_images

    keep_memory()
    return compare_images(open_dataset(a), open_dataset(b), call.names, call.device, **options)


def _models(model: str | None, runs: str, quiet: bool) -> list[Path]:
    """The one that is meant; of a run's folder all."""
    from ..interop.conversion import located
    from ..runs import find_model, snapshots

    path, which = find_model(model and located(model), runs)
    if model is not None and Path(model).is_dir():
        return snapshots(model)
    if not quiet:
        click.echo(which, err=True)
    return [path]


def _hash_of(data: str) -> str:
    from ..data.dataset import open_dataset

    return open_dataset(data).spec.content_hash


def _asked(
    path: Path, names: tuple[str, ...], options: dict[str, typing.Any], hash_given: str | None
) -> dict[str, typing.Any]:
    """What values of this model depend on, as far as it is known before they are there."""
    from ..interop.conversion import model_info
    from ..metrics.registry import resolve

    spec = model_info(path).data
    trained_on = spec.content_hash if spec else None
    metrics = resolve(names, options["num"], options["features"])
    return {
        "names": [m.name() for m in metrics],
        "first": {m.name(m.outputs[0][0]): m.name() for m in metrics},
        "usual": {"data": (trained_on or "")[:16], "seed": 0, "trunc": 1.0, "detector": None},
        "data": (hash_given or trained_on or "")[:16],
        "foreign": hash_given is not None and hash_given != trained_on and any(m.reals for m in metrics),
        "seed": options["seed"],
        "trunc": options["truncation_psi"],
        "detector": options["detector_file"],
    }


_OF_A_LINE = ("data", "seed", "trunc", "detector")  # of what was asked


def _known(path: Path, asked: dict[str, typing.Any]) -> bool:
    """Whether the folder's files hold a value of this snapshot for all that is asked."""
    from ..runs import metric_lines

    usual = asked["usual"]  # what training measures says nothing of how
    same = [x for x in metric_lines(path.parent) if all(x.get(k, usual[k]) == asked[k] for k in _OF_A_LINE)]
    mine = [line for line in same if line.get("snapshot") == path.name]
    return {line.get("asked") or asked["first"].get(line.get("metric")) for line in mine}.issuperset(asked["names"])


def _record(results: Results, path: Path, asked: dict[str, typing.Any]) -> None:
    """A line for each value in a file beside the model, unless that is the one in the package."""
    from .. import distributed
    from ..interop.conversion import model_info
    from ..runs import PACKAGED_MODEL, record_metric

    if path == PACKAGED_MODEL or not distributed.first_here():
        return
    how = {k: asked[k] for k in _OF_A_LINE}
    kimg = model_info(path).kimg
    for name, value in results.values.items():
        of = max((n for n in asked["names"] if name.startswith(n)), key=len, default=name)
        with contextlib.suppress(PermissionError):  # somebody else's folder: it is printed all the same
            record_metric(path.parent, name, value, kimg, path.name, asked=of, **how)


def _renamed(results: Results, ending: str) -> Results:
    """On other pictures than the model's own a metric has a name, and a curve, of its own."""
    tables = {
        field: {name + ending: value for name, value in getattr(results, field).items()}
        for field in ("values", "higher_is_better", "deviations", "pictures")
    }
    return dataclasses.replace(results, **tables)


def _tell(results: Results, path: Path | None, as_json: bool, quiet: bool) -> None:
    from .. import distributed

    if not distributed.first_here():
        return
    if as_json:
        click.echo(json.dumps({"model": path and str(path), **dataclasses.asdict(results)}))
        return
    if path is not None and not quiet:
        click.echo(f"{path}:", err=True)
    width = max(len(name) for name in results.values)
    for name, value in results.values.items():
        spread = f" ± {results.deviations[name]:.2g}" if name in results.deviations else ""
        reals, fakes = results.pictures[name]
        of = f"{reals} real, {fakes} drawn" if reals else f"{fakes} drawn"
        click.echo(f"{name:{width}}  {value:.6g}{spread}" + ("" if quiet else f"   ({of})"))
    if not quiet:
        for note in results.notes:
            click.echo(note, err=True)


def _refuse(**given: typing.Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise SganError(f"--{name} does not go with --images.", hint="Leave one of them out.")
