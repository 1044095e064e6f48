"""sgan project"""

from __future__ import annotations

import json
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
@click.option("--tune", metavar="STEPS", type=click.IntRange(0), default=0, help="Then tune the generator around them.")
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
    tune: int,
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
    from ..inversion.find import choose_loss, find
    from ..inversion.projector import Projection
    from ..inversion.results import save_finding, way
    from ..sampling.draw import Sampling, picture_record

    if not images:
        raise SganError("There is no picture to project.", hint="sgan project face.png")
    keep_memory()
    film = Path(outdir, f"project.{video}") if video else None
    if film:
        check_video(film, _FPS)
    snapshot, how, folder = open_model(model, runs, device, quiet), Projection(**projection), Path(outdir)
    near = choose_loss(loss, snapshot, detector, lambda text: click.echo(text, err=True))
    finding = find(snapshot, images, how, near, mask=mask, crop=crop, init=init, tune_steps=tune, quiet=quiet)
    settings = {"model": str(snapshot.path), "loss": near.name, "targets": list(images), "command": command_line()}
    record = picture_record(snapshot, Sampling(class_index=how.class_index), command_line(), loss=near.name)
    files = save_finding(folder, finding, how, snapshot.fingerprint, settings, record)
    if film:
        files.append(film)
        cells = sheets(way(finding), 2 * len(finding.names), 2 * grid_columns(len(finding.names)))
        write_video(cells, len(finding.found.path), film, fps=_FPS, metadata=record)
    _tell(finding, near.name, files, as_json, quiet)
    if finding.found.steps < how.steps:
        raise KeyboardInterrupt


def _tell(finding: Any, loss_name: str, files: list[Path], as_json: bool, quiet: bool) -> None:
    from ..inversion.results import closeness

    rows = zip(finding.names, finding.distance.tolist(), closeness(finding).tolist(), strict=False)
    found = [{"name": name, "distance": distance, "psnr": psnr} for name, distance, psnr in rows]
    if as_json:
        click.echo(json.dumps({"loss": loss_name, "found": found, "files": [str(f) for f in files]}))
        return
    if not quiet:
        for row in found:
            told = f"{row['name']}: distance {row['distance']:.4f} ({loss_name}), PSNR {row['psnr']:.1f} dB"
            click.echo(told, err=True)
    click.echo(files[-1])
