"""sgan project"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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

_FPS = 20  # of the film of the way


@click.command(short_help="Find the latents that draw a picture.")
@click.argument("images", metavar="IMAGE...", nargs=-1)
@click.option("--space", type=click.Choice(["w", "w+", "z"]), default="w", help="One w, one for each layer, or z.")
@click.option("--steps", type=click.IntRange(1), default=1000, help="Of the search.")
@click.option(
    "--loss",
    type=click.Choice(["lpips", "discriminator", "pixel"]),
    help="What is near. Left out: lpips where its weights can be had, else discriminator.",
)
@click.option("--detector", metavar="FILE", help="Weights of LPIPS's VGG16. Left out: found or downloaded.")
@click.option(
    "--noise", type=click.Choice(["optimise", "const"]), default="optimise", help="Search noise maps too, or not."
)
@click.option("--mask", metavar="PICTURE", help="Only where it is white do pixels count.")
@click.option("--crop", type=click.Choice(["center", "none"]), default="center", help="To the model's shape, or not.")
@click.option("--class", "class_index", type=int, help="Class to begin in. Left out: any.")
@click.option("--init", metavar="FILE", help="Begin at the latents in this .npz.")
@click.option(
    "--candidates",
    type=click.IntRange(0, 10_000),
    help="Begin at the nearest of so many random pictures; 0: at the mean. Left out: half the steps.",
)
@click.option(
    "--tune",
    "tune_steps",
    metavar="STEPS",
    type=click.IntRange(0),
    default=0,
    help="Then tune the generator around them.",
)
@click.option("--video", type=click.Choice(["gif", "webp", "mp4"]), help="Also write the way there.")
@click.option("--batch", type=click.IntRange(1), help="Pictures at a time. Left out: by their size.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of what is random in the search.")
@click.option("--outdir", default="./out", metavar="FOLDER", help="Where the files are written.")
@model_option
@device_option
@kernels_option
@output_options
def command(
    images: tuple[str, ...],
    loss: str | None,
    detector: str | None,
    mask: str | None,
    crop: str,
    init: str | None,
    tune_steps: int,
    video: str | None,
    outdir: str,
    model: str | None,
    runs: str,
    device: str,
    as_json: bool,
    quiet: bool,
    **projection: Any,  # see inversion.projector.Projection
) -> None:
    """Find the latents that draw a picture, or the pictures nearest to it.

    Writes projected.npz (for `sgan mix --rows projected.npz`, `sgan edit apply`, `sgan generate --from-w` ...),
    proj.png and compare.png; of several pictures each with its name in front. Ctrl-C keeps the best so far.
    """
    from ..data.images import grid_columns
    from ..data.video import check_video, sheets, write_video
    from ..files import check_writable
    from ..inversion.find import choose_loss, find, prepare
    from ..inversion.projector import Projection
    from ..inversion.results import planned, save_finding, way
    from ..inversion.tuning import tune
    from ..sampling.draw import Sampling, picture_record

    if not images:
        raise SganError("There is no picture to project.", hint="sgan project face.png")
    for option in ("candidates", "class_index"):
        if init is not None and projection[option] is not None:
            raise click.UsageError(f"--{option.removesuffix('_index')} says where to begin, and so does --init.")
    folder, how = Path(outdir), Projection(**projection)
    film = folder / f"project.{video}" if video else None
    if film:
        check_video(film, _FPS)
    keep_memory()
    snapshot = open_model(model, runs, device, quiet)
    near = choose_loss(loss, snapshot, detector, lambda text: click.echo(text, err=True))
    task = prepare(snapshot, images, mask=mask, crop=crop, init=init)
    _spare_the_inputs([*images, mask, init], [path for pair in planned(folder, task.names) for path in pair])
    check_writable(folder)
    settings = {"model": str(snapshot.path), "loss": near.name, "targets": list(images), "command": command_line()}
    told = {"loss": near.name, "space": how.space, "steps": how.steps, "seed": how.seed, "crop": crop}
    record = picture_record(
        snapshot, Sampling(class_index=how.class_index, noise_mode=how.noise), command_line(), **told
    )
    save = functools.partial(save_finding, folder, task.names, how=how, model=snapshot.fingerprint)
    with sigterm_as_interrupt():
        finding = find(snapshot, task, how, near, quiet)
        files, psnr = save(finding=finding, settings=settings, record=record)
        interrupted = finding.found.interrupted
        if tune_steps and not interrupted:
            G, distance, done = tune(
                snapshot.G, finding.targets, finding.found, near, tune_steps, task.mask, how.batch, quiet
            )
            finding = dataclasses.replace(finding, tuned=G, tuned_distance=distance, tuned_steps=done)
            files, psnr = save(finding=finding, settings=settings, record=record)
            interrupted = done < tune_steps
        if film:
            files.append(film)
            cells = sheets(way(finding, quiet), 2 * len(finding.names), 2 * grid_columns(len(finding.names)))
            write_video(cells, len(finding.found.path), film, fps=_FPS, metadata=record)
    _tell(finding.names, finding.distance.tolist(), psnr, near.name, files, as_json, quiet)
    if interrupted:
        if missing := task.names[len(finding.names) :]:
            click.echo(f"Not begun: {', '.join(missing)}.", err=True)
        raise KeyboardInterrupt


def _spare_the_inputs(inputs: list[str | None], outputs: list[Path]) -> None:
    """Raises SganError if a file that is read would be written."""
    ours = {path.resolve() for path in outputs}
    if hit := [given for given in inputs if given and Path(given).resolve() in ours]:
        raise SganError(f"{hit[0]} would be overwritten by its own projection.", hint="Give another --outdir.")


def _tell(
    names: Sequence[str],
    distances: list[float],
    psnr: list[float],
    loss: str,
    files: list[Path],
    as_json: bool,
    quiet: bool,
) -> None:
    rows = zip(names, distances, psnr, strict=True)
    found = [{"name": name, "distance": distance, "psnr": close} for name, distance, close in rows]
    if as_json:
        click.echo(json.dumps({"loss": loss, "found": found, "files": [str(f) for f in files]}))
        return
    if not quiet:
        for row in found:
            told = f"{row['name']}: distance {row['distance']:.4f} ({loss}), PSNR {row['psnr']:.1f} dB"
            click.echo(told, err=True)
    click.echo(files[-1])
