"""sgan train"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..config import to_json
from ..models.registry import presets
from ..training.choices import OBJECTIVES, PIPES, PRECISIONS
from .params import KIMG, SIZE, ByLevel, Number, device_option, kernels_option, resolve_device
from .progress import Bars, bar

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..progress import Progress
    from ..training.recipes.gan_plan import Plan
    from ..training.run import Measure, RunOptions

_EVERY_STEP = ", ".join(name for name, (_, preset) in presets().items() if preset.r1_interval == 1)
_PIPES = [name for name in PIPES if name != "diffaug"]


@click.command(short_help="Train a StyleGAN on your images, or on those that come with the package.")
@click.option("--data", metavar="PATH", help="Zip or folder of images. Left out: the set that comes with the package.")
@click.option("--cfg", type=click.Choice(list(presets())), help="Preset.  [default: auto; demo without --data]")
@click.option("--size", type=SIZE, help="Read the images at this smaller size, 64 or 48x64 (height x width).")
@click.option("--mirror", is_flag=True, help="Also show every image flipped left to right.")
@click.option(
    "--cond",
    is_flag=False,
    flag_value="labels",
    metavar="[NAME]",
    help="Learn the classes of the set's labels, or of its attribute NAME.",
)
@click.option("--runs", "--outdir", "runs", default="./runs", metavar="FOLDER", help="Where the run's folder is made.")
@click.option("--kimg", type=KIMG, help="Length of the run in thousands of images.")
@click.option("--snap", type=KIMG, help="Thousands of images between snapshots.")
@click.option("--batch", type=click.IntRange(1), help="Images per step over all GPUs.")
@click.option("--batch-gpu", type=click.IntRange(1), help="Images at a time on one GPU.")
@click.option("--gpus", type=click.IntRange(1), help="Processes, one for each GPU.")
@click.option(
    "--loss",
    type=click.Choice(list(OBJECTIVES)),
    help="The objective: " + "; ".join(f"{name}, {about}" for name, about in OBJECTIVES.items()) + ".",
)
@click.option("--gamma", type=click.FloatRange(0), help="Weight of R1.")
@click.option("--r2", "r2_gamma", type=click.FloatRange(0), help="Weight of R2.  [default: 0]")
@click.option("--gp", "gp_weight", type=click.FloatRange(0), help="Weight of wgan's gradient penalty.  [default: 10]")
@click.option("--drift", type=click.FloatRange(0), help="Weight of wgan's squared outputs.  [default: 0.001]")
@click.option(
    "--penalty-interval",
    "r1_interval",
    type=click.IntRange(1),
    help=f"Steps between R1, R2 and the gradient penalty.  [default: 16; 1 with wgan or --cfg {_EVERY_STEP}]",
)
@click.option("--aux-classifier", is_flag=True, help="The discriminator names the class besides (AC-GAN); with --cond.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate.")
@click.option("--pl-weight", type=click.FloatRange(0), help="Weight of path-length regularization.")
@click.option("--mixing-prob", type=click.FloatRange(0, 1), help="Style-mixing probability.")
@click.option("--ema-kimg", type=KIMG, help="Half-life of the moving average.")
@click.option("--cbase", "channel_base", type=click.IntRange(16), help="Channels at level r: min(cbase / r, cmax).")
@click.option("--cmax", "channel_max", type=click.IntRange(1), help="The most channels.")
@click.option("--map-depth", "mapping_layers", type=click.IntRange(1), help="Layers of the mapping network.")
@click.option("--mbstd-group", type=click.IntRange(1), help="Images per group of the minibatch deviation.")
@click.option(
    "--aug",
    type=click.Choice(["ada", "fixed", "noaug", "diffaug"]),
    help="Augment what the discriminator sees: as much as it overfits, always alike, not at all, or by DiffAugment.",
)
@click.option(
    "--augpipe",
    type=click.Choice(_PIPES),
    help="Which augmentations.  [default: bgc]",
)
@click.option("--target", "ada_target", type=Number(), help="What --aug ada holds r_t at.  [default: 0.6]")
@click.option("--p", "aug_p", type=click.FloatRange(0, 1), help="Probability of each augmentation, to begin with.")
@click.option("--freezed", type=click.IntRange(0), help="Freeze so many of the discriminator's first layers.")
@click.option(
    "--grow-from", type=click.IntRange(4), metavar="LEVEL", help="Grow from this level, 4, 8 ..., to the data's."
)
@click.option("--grow-kimg", type=KIMG, help="Thousands of images at each level.")
@click.option("--fade-kimg", type=KIMG, help="Thousands of images in which a level fades in.")
@click.option("--grow-batch", type=ByLevel(int), metavar="LEVEL:BATCH,...", help="Batches of levels.")
@click.option("--grow-lr", type=ByLevel(float), metavar="LEVEL:RATE,...", help="Learning rates of levels.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Arithmetic.  [default: fp16 on a GPU, else fp32]")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Of everything random.")
@click.option("--resume", metavar="PATH", help="A run's folder: go on with it. A model's file: start from its weights.")
@click.option("--metrics", metavar="NAME,...", help="Measure every snapshot, fid5k_full,kid; the first tells the best.")
@click.option("--features", default="inception-2015", help="Of the metrics: efficientnet-lite0 needs no download.")
@click.option("--graphs", type=click.Choice(["auto", "off"]), default="auto", help="CUDA graphs.")
@click.option("--profile", type=click.IntRange(1), metavar="STEPS", help="Write a trace of so many steps.")
@click.option("--dry-run", is_flag=True, help="Print the settings and both networks, and stop.")
@click.option("-q", "--quiet", is_flag=True, help="No bar and no log on the terminal.")
@device_option
@kernels_option
def command(
    data: str | None,
    cfg: str | None,
    runs: str,
    resume: str | None,
    metrics: str | None,
    features: str,
    graphs: str,
    profile: int | None,
    dry_run: bool,
    quiet: bool,
    device: str,
    **options: Any,
) -> None:
    """Train a StyleGAN on your images, or on those that come with the package.

    Without any option it learns to draw little creatures, in minutes, on two CPU cores.
    Ctrl-C stops in good order: the step is finished, and everything is saved that --resume FOLDER needs to go on as if
    nothing had happened.
    """
    from .. import distributed
    from ..training.recipes.gan import open_run_data
    from ..training.recipes.gan_plan import summarize_networks
    from ..training.run import RunOptions

    progress = click.get_current_context().with_resource(bar(quiet, leave=False))
    where = str(resolve_device(device))
    run = _planned(data, cfg, resume, where, options, progress)
    if dry_run:
        click.echo(json.dumps(to_json(run.config), indent=2) + "\n\n" + summarize_networks(run.config))
        return
    # Ranks of their own open the data themselves; here it is opened once.
    here = distributed.has_launcher() or run.config.gpus == 1
    dataset = run.dataset or (open_run_data(run.config, progress) if here or metrics else None)
    measure = _measure(metrics, features, dataset, quiet) if metrics and dataset else None
    _train(run, where, RunOptions(quiet, graphs == "auto", profile or 0, measure, runs), dataset if here else None)


def _planned(
    data: str | None,
    cfg: str | None,
    resume: str | None,
    where: str,  # device
    options: dict[str, Any],
    progress: Progress,
) -> Plan:
    """A run that goes on, or one of its own."""
    from .. import distributed
    from ..training.recipes.gan_plan import plan_new_run, plan_resumed_run

    options["gpus"] = options["gpus"] or distributed.launcher_world_size()
    if resume and Path(resume).is_dir():
        given = [n for n, value in {"cfg": cfg, **options}.items() if value is not None and value is not False]
        changes = {name: options[name] for name in ("kimg", "snap", "gpus", "batch_gpu")}
        return plan_resumed_run(Path(resume), changes, given, data)
    options["precision"] = options["precision"] or ("fp16" if where.startswith("cuda") else "fp32")
    return plan_new_run(data, cfg, resume and _snapshot(resume), progress=progress, **options)


def _train(run: Plan, where: str, options: RunOptions, dataset: Dataset | None) -> None:
    """In the run's folder, on all ranks, with a word before and after."""
    from .. import distributed
    from ..runs import next_run_dir
    from ..training.folders import discard_unused, record_failure
    from ..training.recipes.gan import train
    from ..training.recipes.gan_plan import describe_next_steps, describe_run, folder_name

    # Ranks that torchrun started agree on a folder first; ours find it made, also when they are started again.
    folder = run.folder or (None if distributed.has_launcher() else next_run_dir(options.runs, folder_name(run.config)))
    if not options.quiet and distributed.is_first_on_machine():
        click.echo(describe_run(run.config, folder), err=True)
    try:
        with record_failure(folder) if folder else contextlib.nullcontext():
            arguments = run.config, folder, where, run.start, options, dataset
            result = distributed.launch(train, arguments, run.config.gpus, where)
    except BaseException:
        if run.folder is None and folder is not None:
            discard_unused(folder)
        raise
    if distributed.is_first_on_machine():
        folder = folder or result
        click.echo(describe_next_steps(run.config, folder), err=True)
        click.echo(folder)


def _snapshot(resume: str) -> str:
    """The snapshot to start from; a checkpoint of another program becomes one in the cache."""
    from ..interop.conversion import as_snapshot, located

    path = located(resume)
    return resume if path.name.startswith("state-") else str(as_snapshot(path))


def _measure(names: str, features: str, data: Dataset, quiet: bool) -> Measure:
    """What to call at every snapshot, once everything is there that it needs."""
    from ..metrics.measure import TrainingMetrics
    from ..metrics.registry import resolve

    protocol = resolve([name.strip() for name in names.split(",")], features=features)
    metrics = TrainingMetrics(protocol, Bars(quiet, leave=False))
    metrics.check(data)
    return metrics
