"""sgan train"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..config import PRESETS, to_json
from .params import KIMG, SIZE, device_option, kernels_option, resolve_device


@click.command(short_help="Train a StyleGAN2 on your pictures, or on those that come with the package.")
@click.option(
    "--data", metavar="PATH", help="Zip or folder of pictures. Left out: the set that comes with the package."
)
@click.option("--cfg", type=click.Choice(list(PRESETS)), help="Preset.  [default: auto; demo without --data]")
@click.option("--size", type=SIZE, help="Read the pictures at this smaller size, 64 or 48x64 (height x width).")
@click.option("--mirror", is_flag=True, help="Also show every picture flipped left to right.")
@click.option(
    "--cond",
    is_flag=False,
    flag_value="labels",
    metavar="[NAME]",
    help="Learn the classes of the set's labels, or of its attribute NAME.",
)
@click.option("--runs", "--outdir", "runs", default="./runs", metavar="FOLDER", help="Where the run's folder is made.")
@click.option("--kimg", type=KIMG, help="Length of the run in thousands of pictures.")
@click.option("--snap", type=KIMG, help="Thousands of pictures between snapshots.")
@click.option("--batch", type=click.IntRange(1), help="Pictures per step over all GPUs.")
@click.option("--batch-gpu", type=click.IntRange(1), help="Pictures at a time on one GPU.")
@click.option("--gpus", type=click.IntRange(1), help="Processes, one for each GPU.")
@click.option("--gamma", type=click.FloatRange(0), help="Weight of R1.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate.")
@click.option("--pl-weight", type=click.FloatRange(0), help="Weight of path-length regularisation.")
@click.option("--mixing-prob", type=click.FloatRange(0, 1), help="Style-mixing probability.")
@click.option("--ema-kimg", type=KIMG, help="Half-life of the moving average.")
@click.option("--cbase", "channel_base", type=click.IntRange(16), help="Channels at level r: min(cbase / r, cmax).")
@click.option("--cmax", "channel_max", type=click.IntRange(1), help="The most channels.")
@click.option("--map-depth", "mapping_layers", type=click.IntRange(1), help="Layers of the mapping network.")
@click.option("--mbstd-group", type=click.IntRange(1), help="Pictures per group of the minibatch deviation.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Of everything random.")
@click.option("--resume", metavar="PATH", help="A run's folder: go on with it. A snapshot: start from its weights.")
@click.option("--dry-run", is_flag=True, help="Print the settings and both networks, and stop.")
@click.option("-q", "--quiet", is_flag=True, help="No bar and no log on the terminal.")
@device_option
@kernels_option
def command(
    data: str | None,
    cfg: str | None,
    runs: str,
    resume: str | None,
    dry_run: bool,
    quiet: bool,
    device: str,
    **options: Any,
) -> None:
    """Train a StyleGAN2 on your pictures, or on those that come with the package.

    Without any option it learns to draw little creatures, in minutes, on two CPU cores.
    Ctrl-C stops in good order: the step is finished and a snapshot is written.
    """
    from .. import distributed
    from ..training import plan
    from ..training.run import train

    where = str(resolve_device(device))
    if resume and Path(resume).is_dir():
        given = [name for name, value in {"data": data, "cfg": cfg, **options}.items() if value not in (None, False)]
        run = plan.continued(Path(resume), {k: options[k] for k in ("kimg", "snap")}, given)
    else:
        run = plan.fresh(data, cfg, resume, **options)
    if dry_run:
        click.echo(json.dumps(to_json(run.config), indent=2) + "\n\n" + plan.networks(run.config))
        return
    folder = run.folder or plan.new_folder(runs, run.config)
    if not quiet:
        click.echo(plan.announcement(run.config, folder), err=True)
    try:
        distributed.launch(train, (run.config, folder, where, run.start, run.shown, quiet), run.config.gpus, where)
    except BaseException:
        if run.folder is None:
            plan.discard_unused(folder)
        raise
    click.echo(plan.farewell(run.config, folder), err=True)
    click.echo(folder)
