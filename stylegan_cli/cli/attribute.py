"""sgan attribute"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import click

from ..errors import SganError
from .params import Call, keep_memory, session_options, sigterm_as_interrupt, warn

_TELLING = 0.75  # AUC below which nothing is said


@click.command(short_help="Tell whether an image was made by a model.")
@click.argument("images", metavar="IMAGE...", nargs=-1)
@click.option("--calibrate", is_flag=True, help="Measure images of both kinds anew, or without any image to judge.")
@click.option("--num", type=click.IntRange(8), default=50, help="Images of each kind to measure.")
@click.option("--data", metavar="PATH", help="Real images. Left out: those that the model was trained on.")
@click.option("--steps", type=click.IntRange(1), default=200, help="Of each projection.")
@click.option("--space", type=click.Choice(["w", "w+", "z"]), default="w", help="One w, one for each layer, or z.")
@click.option(
    "--loss",
    type=click.Choice(["lpips", "discriminator", "pixel"]),
    help="What is near. Left out: lpips where its weights can be had, else discriminator.",
)
@click.option("--detector", metavar="FILE", help="Weights of LPIPS's VGG16. Left out: found or downloaded.")
@click.option("--crop", type=click.Choice(["center", "none"]), default="center", help="To the model's shape, or not.")
@click.option("--batch", type=click.IntRange(1), help="Images at a time. Left out: by their size.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of what is random.")
@click.option("--outdir", default="./out", metavar="FOLDER", help="Where the files are written.")
@session_options
def command(
    call: Call,
    outdir: str,
    **request: Any,  # see session.AttributeRequest
) -> None:
    """Tell whether an image was made by a model, by how near the model comes to it.

    The first time, the model's own images and real ones are projected, which is kept; then an image's distance is so
    many times likelier among the one kind than among the other. Writes attribute.png, both kinds with the images
    marked, and compare.png.
    """
    from ..files import check_writable

    if not request["images"] and not request["calibrate"]:
        raise SganError("There is no image to judge.", hint="sgan attribute face.png")
    keep_memory()
    with call.progress() as progress:
        session = call.open()
        task = session.prepare_attribution(**request)
        warn(*task.warnings)
        check_writable(Path(outdir))
        if task.known is None:
            call.say(f"Projecting {task.num} images of the model and {task.num} real ones, once.")
            with sigterm_as_interrupt():
                task = session.calibrate(task, progress)
        result = session.attribute(task, progress)
    warn(*result.calibration.warnings)
    files = result.save(outdir)
    known, auc = result.calibration, result.calibration.auc
    if not call.as_json:
        sides = f"{len(known.generated)} drawn and {len(known.real)} real images to compare with"
        call.say(f"{sides}: of a pair the drawn one is nearer in {auc:.1%} (AUC).")
        for one in result.judged:
            click.echo(f"{one.name}: distance {one.distance:.4f}, {_verdict(one.log_ratio, auc)}")
    judged = [dataclasses.asdict(one) for one in result.judged]
    call.finish({"auc": auc, "judged": judged, "files": files}, files[-1])


def _verdict(log_ratio: float, auc: float) -> str:
    times = math.exp(abs(log_ratio))
    if times < 3 or auc < _TELLING:
        return "undecided: the one is about as likely as the other"
    kind = "drawn by this model" if log_ratio > 0 else "not drawn by this model"
    return f"{kind}: {times:.0f} times likelier so than otherwise"
