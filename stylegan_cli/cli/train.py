"""sgan train"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..config import to_json
from ..models.registry import presets
from ..training.choices import PRECISIONS
from .call import resolve_device, warn
from .launch import launch_run
from .options import device_option, features_option, gpus_option, kernels_option, quiet_run_option
from .params import KIMG, SIZE, FiniteRange
from .progress import Bars, bar
from .train_options import PRESET, learning_options

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..models.config import GeneratorConfig
    from ..progress import Progress
    from ..training.recipes.gan_plan import Plan
    from ..training.run import Measure, RunOptions


class TrainCommand(click.Command):
    """A command whose help ends with a list of the presets."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Presets"):
            formatter.write_dl([(name, preset.about) for name, (_, preset) in presets().items()])


@click.command(cls=TrainCommand, short_help="Train a generator on a dataset of images.")
@click.option(
    "--data",
    metavar="PATH",
    help="Dataset to train on: a zip or a folder of images of one size (`sgan data pack` makes one), an .npz "
    "or .npy file, TFRecords or an LMDB. Default: that of --resume, else the bundled dataset.",
)
@click.option(
    "--cfg",
    type=click.Choice(list(presets())),
    metavar="NAME",
    help="Preset, which chooses the networks and all settings, see Presets. Default: auto with --data, else demo; with "
    "--resume FILE, that of the model's family.",
)
@click.option(
    "--size",
    type=SIZE,
    help="Image size in pixels to train at, if smaller than the dataset's: 64, or 48x64 (height x width). "
    "Default: the dataset's size; 32 with the demo presets.",
)
@click.option("--mirror", is_flag=True, help="Also train on horizontally flipped images.")
@click.option(
    "--cond",
    is_flag=False,
    flag_value="labels",
    metavar="[NAME]",
    help="Train a class-conditional model on the dataset's labels, or on its attribute NAME.",
)
@click.option(
    "--runs",
    "--outdir",
    "runs",
    default="./runs",
    metavar="FOLDER",
    help="Folder that contains the run folders.",
)
@click.option(
    "--kimg",
    type=KIMG,
    help=f"Length of the run in kimg, thousands of images shown to the discriminator. {PRESET}",
)
@click.option("--snap", type=KIMG, help=f"Interval between snapshots in kimg. {PRESET}")
@click.option(
    "--batch",
    type=click.IntRange(1),
    help=f"Number of images per training step, over all GPUs together. {PRESET}",
)
@click.option(
    "--batch-gpu",
    type=click.IntRange(1),
    help="Number of images at a time on one GPU; smaller values need less memory. Default: --batch / --gpus, but with "
    "batch normalization at most about 64.",
)
@gpus_option
@learning_options
@click.option(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    default="auto",
    help="Numerical precision: fp32, tf32, fp16 or bf16 at the highest resolutions (on a GPU with tf32 at the others), "
    "or auto (the fastest one: on a GPU what suits the networks, bf16 on a CPU that is faster with it, else fp32).",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Random seed. Default: 0.")
@click.option(
    "--resume",
    metavar="PATH",
    help="Run folder, to continue that run, also with changed options such as --batch, --gamma, --lr, --target and "
    "--data; or a model as for --model of the other commands, to start a new run from its weights.",
)
@click.option(
    "--guide",
    multiple=True,
    metavar="FILE",
    help="Attribute critic from `sgan critic fit`: generated images also get its attribute, which no image of the "
    "dataset needs to have. Repeat it for several critics.",
)
@click.option(
    "--guide-weight",
    multiple=True,
    type=FiniteRange(0),
    help="Weight of the critic in the generator's loss: one for all critics, or one for each. Default: 1; 15 with "
    "--loss lsgan.",
)
@click.option(
    "--guide-discriminator",
    multiple=True,
    type=FiniteRange(0),
    help="Weight of the critic in the discriminator's loss, so that images with the attribute may pass for real. "
    "Default: 0.",
)
@click.option(
    "--metrics",
    metavar="NAME,...",
    help="Metrics to measure at every snapshot, such as fid5k_full,kid; the first one decides which is best. "
    "Default: none.",
)
@features_option
@click.option(
    "--graphs",
    type=click.Choice(["auto", "off"]),
    default="auto",
    help="CUDA graphs, which make small steps faster: auto (on a GPU) or off.",
)
@click.option(
    "--profile",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Number of steps to record in a profiler trace in the run folder. Default: no trace.",
)
@click.option("--dry-run", is_flag=True, help="Print the settings and both networks without training.")
@quiet_run_option
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
    """Train a generator on a dataset of images.

    It learns to make images like those of the dataset, and a discriminator learns to tell them apart. Without
    options, this trains a small model on bundled images of little creatures, in minutes on two CPU cores.

    Writes a run folder such as runs/00000-faces-auto with snapshots (models for the other commands), fakes-KIMG.png
    (generated images over time), training states, settings and logs. Ctrl-C finishes the current step and saves
    everything; --resume FOLDER then continues as if the run had not stopped, or with changed options, which the run's
    config.json and page record.

    \b
    Examples:
      sgan train
      sgan train --data faces.zip --mirror
      sgan train --data animals.zip --cond --size 128 --kimg 5000
      sgan train --resume runs/00000-faces-auto
      sgan train --resume runs/00000-faces-auto --batch 8 --gamma 2
    """
    from .. import distributed
    from ..training.recipes.gan import open_run_data
    from ..training.recipes.gan_plan import summarize_networks
    from ..training.run import RunOptions

    context = click.get_current_context()
    if not metrics and context.get_parameter_source("features") != ParameterSource.DEFAULT:
        raise click.UsageError("--features has no effect without --metrics. Add --metrics fid, or remove it.")
    progress = context.with_resource(bar(quiet, leave=False))
    device = str(resolve_device(device))
    run = _plan(data, cfg, resume, device, options, progress)
    if run.dataset and not quiet and distributed.is_first_on_machine():
        from ..data.info import notes

        warn(*notes(run.dataset))
    if dry_run:
        click.echo(json.dumps(to_json(run.config), indent=2) + "\n\n" + summarize_networks(run.config))
        return
    # Ranks in other processes open the dataset themselves; a run that cannot be resumed is refused before they start.
    in_process = distributed.has_launcher() or run.config.gpus == 1
    dataset = run.dataset or (open_run_data(run.config, progress) if in_process or metrics or run.folder else None)
    measure = _measure(metrics, features, dataset, run.config.generator, quiet) if metrics and dataset else None
    run_options = RunOptions(quiet, graphs == "auto", profile or 0, measure, runs)
    _train(run, device, run_options, dataset if in_process else None)


def _plan(
    data: str | None,
    cfg: str | None,
    resume: str | None,
    device: str,
    options: dict[str, Any],
    progress: Progress,
) -> Plan:
    """The plan of a run that is resumed, or of a new one."""
    from .. import distributed
    from ..training.recipes.gan_plan import plan_new_run
    from ..training.recipes.gan_resume import plan_resumed_run

    options["gpus"] = options["gpus"] or distributed.launcher_world_size()
    if resume and Path(resume).is_dir():
        options |= {name: options[name] or None for name in options if name.startswith("guide")}
        options["precision"] = None if options["precision"] == "auto" else options["precision"]
        return plan_resumed_run(Path(resume), {"cfg": cfg, **options}, data, progress)
    return plan_new_run(data, cfg, resume and _snapshot(resume), device=device, progress=progress, **options)


def _train(run: Plan, device: str, options: RunOptions, dataset: Dataset | None) -> None:
    from ..training.recipes.gan import train
    from ..training.recipes.gan_plan import describe_next_steps, describe_run, folder_name

    config = run.config
    launch_run(
        train,
        lambda folder: (config, folder, device, run.start, options, dataset),
        folder=run.folder,
        name=folder_name(config),
        gpus=config.gpus,
        device=device,
        options=options,
        describe=lambda folder: describe_run(config, folder),
        describe_next=lambda folder: describe_next_steps(config, folder),
    )


def _snapshot(resume: str) -> str:
    """The snapshot to start from; a checkpoint of another program is converted to one in the cache."""
    from ..interop.conversion import ensure_snapshot, locate

    path = locate(resume)
    return resume if path.name.startswith("state-") else str(ensure_snapshot(path))


def _measure(names: str, features: str, data: Dataset, generator: GeneratorConfig, quiet: bool) -> Measure:
    """The function that measures a snapshot. Raises SganError if it lacks anything, before training starts."""
    from ..metrics.measure import TrainingMetrics
    from ..metrics.registry import resolve

    protocol = resolve([name.strip() for name in names.split(",")], features=features)
    metrics = TrainingMetrics(protocol, Bars(quiet, leave=False))
    metrics.check(data, generator)
    return metrics
