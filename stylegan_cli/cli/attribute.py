"""sgan attribute"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import SganError
from .params import (
    command_line,
    device_option,
    keep_memory,
    kernels_option,
    model_option,
    open_model,
    output_options,
    sigterm_as_interrupt,
)

if TYPE_CHECKING:
    from ..detectors.distances import Loss
    from ..inversion.attribution import Calibration
    from ..inversion.projector import Projection
    from ..snapshot import Snapshot


_TELLING = 0.75  # AUC below which nothing is said


@click.command(short_help="Tell whether a picture was made by a model.")
@click.argument("images", metavar="IMAGE...", nargs=-1)
@click.option("--calibrate", is_flag=True, help="Measure pictures of both kinds anew, or without any picture to judge.")
@click.option("--num", type=click.IntRange(8), default=50, help="Pictures of each kind to measure.")
@click.option("--data", metavar="PATH", help="Real pictures. Left out: those that the model was trained on.")
@click.option("--steps", type=click.IntRange(1), default=200, help="Of each projection.")
@click.option("--space", type=click.Choice(["w", "w+", "z"]), default="w", help="One w, one for each layer, or z.")
@click.option(
    "--loss",
    type=click.Choice(["lpips", "discriminator", "pixel"]),
    help="What is near. Left out: lpips where its weights can be had, else discriminator.",
)
@click.option("--detector", metavar="FILE", help="Weights of LPIPS's VGG16. Left out: found or downloaded.")
@click.option("--crop", type=click.Choice(["center", "none"]), default="center", help="To the model's shape, or not.")
@click.option("--batch", type=click.IntRange(1), help="Pictures at a time. Left out: by their size.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of what is random.")
@click.option("--outdir", default="./out", metavar="FOLDER", help="Where the files are written.")
@model_option
@device_option
@kernels_option
@output_options
def command(
    images: tuple[str, ...],
    calibrate: bool,
    num: int,
    data: str | None,
    loss: str | None,
    detector: str | None,
    crop: str,
    outdir: str,
    model: str | None,
    runs: str,
    device: str,
    as_json: bool,
    quiet: bool,
    **projection: Any,  # see inversion.projector.Projection
) -> None:
    """Tell whether a picture was made by a model, by how near the model comes to it.

    The first time, the model's own pictures and real ones are projected, which is kept; then a picture's distance is so
    many times likelier among the one kind than among the other. Writes attribute.png, both kinds with the pictures
    marked, and compare.png.
    """
    from ..data.images import save_image
    from ..files import check_writable
    from ..inversion.find import choose_loss, find, prepare
    from ..inversion.histogram import histogram
    from ..inversion.projector import Projection
    from ..inversion.results import comparison, pictures
    from ..sampling.draw import Sampling, picture_record

    if not images and not calibrate:
        raise SganError("There is no picture to judge.", hint="sgan attribute face.png")
    keep_memory()
    snapshot, how, folder = open_model(model, runs, device, quiet), Projection(**projection), Path(outdir)
    near = choose_loss(loss, snapshot, detector, lambda text: click.echo(text, err=True))
    task = prepare(snapshot, images, crop=crop) if images else None  # a bad one is told before minutes of calibration
    check_writable(folder)
    known = _calibration(snapshot, data, near, how, num, calibrate, quiet)
    record = picture_record(snapshot, Sampling(), command_line(), loss=near.name, space=how.space, steps=how.steps)
    sides = {"drawn by this model": known.drawn, "real": known.real}
    files, judged, marks = [folder / "attribute.png"], [], {}
    if task:
        finding = find(snapshot, task, how, near, quiet)
        if finding.found.interrupted:
            raise KeyboardInterrupt
        marks = dict(zip(finding.names, finding.distance.tolist(), strict=True))
        judged = [{"name": name, "distance": d, "log_ratio": known.log_ratio(d)} for name, d in marks.items()]
        files.insert(0, folder / "attribute-compare.png")
        save_image(comparison(finding, pictures(snapshot.G, finding.found), None), files[0], metadata=record)
    save_image(histogram(sides, marks, f"distance after projection ({near.name})"), files[-1], metadata=record)
    if as_json:
        result = {"auc": known.auc, "judged": judged, "files": [str(f) for f in files]}
        return click.echo(json.dumps(result))
    if not quiet:
        told = f"{len(known.drawn)} drawn and {len(known.real)} real pictures to compare with"
        click.echo(f"{told}: of a pair the drawn one is nearer in {known.auc:.1%} (AUC).", err=True)
    for one in judged:
        click.echo(f"{one['name']}: distance {one['distance']:.4f}, {_verdict(one['log_ratio'], known.auc)}")
    click.echo(files[-1])


def _calibration(
    snapshot: Snapshot, data: str | None, near: Loss, how: Projection, num: int, anew: bool, quiet: bool
) -> Calibration:
    """From the cache, else measured and kept."""
    from ..inversion.attribution import calibrate, calibration_key, load_calibration
    from ..snapshot import open_training_set

    spec = snapshot.info.data if data is None else open_training_set(snapshot.info, data).spec
    if spec is None:
        raise SganError("This model does not say which pictures it was trained on.", hint="Give --data.")
    num = min(num, spec.num)
    key = calibration_key(snapshot.fingerprint, spec, near, how, num)
    known = None if anew else load_calibration(key, num)
    if known is None:  # the pictures themselves are wanted only now
        if not quiet:
            click.echo(f"Projecting {num} pictures of the model and {num} real ones, once.", err=True)
        with sigterm_as_interrupt():
            known = calibrate(snapshot.G, open_training_set(snapshot.info, data), near, how, num, key, anew, quiet)
    return known


def _verdict(log_ratio: float, auc: float) -> str:
    times = math.exp(abs(log_ratio))
    if times < 3 or auc < _TELLING:
        return "undecided: the one is about as likely as the other"
    kind = "drawn by this model" if log_ratio > 0 else "not drawn by this model"
    return f"{kind}: {times:.0f} times likelier so than otherwise"
