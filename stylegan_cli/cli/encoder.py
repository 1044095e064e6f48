"""`sgan encoder`: fit."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import SganError
from .call import resolve_device, warn
from .launch import launch_run
from .options import (
    OrderedGroup,
    combine_options,
    detector_option,
    device_option,
    gpus_option,
    kernels_option,
    model_option,
    quiet_run_option,
)
from .params import KIMG, FiniteRange
from .progress import bar

if TYPE_CHECKING:
    from ..training.recipes.encoder_run import EncoderPlan
    from ..training.recipes.pix2pix_run import Pix2PixPlan
    from ..training.run import RunOptions

# How an encoder is fitted, whatever its task.
fit_options = combine_options(
    click.option(
        "--data",
        metavar="PATH",
        help="Dataset of images: a zip or a folder. Default: the one that the model was trained on.",
    ),
    click.option(
        "--kimg",
        type=KIMG,
        help="Length of the run in kimg, thousands of images. Default: 60, or 1000 for images above 64 pixels.",
    ),
    click.option(
        "--snap", type=KIMG, help="Interval between snapshots in kimg. Default: a sixth or a twentieth of it."
    ),
    click.option(
        "--batch",
        type=click.IntRange(1),
        help="Number of images per step, over all GPUs together. Default: 24, or 16 for images above 64 pixels.",
    ),
    click.option(
        "--batch-gpu",
        type=click.IntRange(1),
        help="Number of images at a time on one GPU; smaller values need less memory. Default: --batch / --gpus.",
    ),
    gpus_option,
    click.option(
        "--lr",
        type=FiniteRange(0, min_open=True),
        help="Learning rate. It falls to 0. Default: 0.01, or 0.005 for images above 64 pixels.",
    ),
    click.option(
        "--space",
        type=click.Choice(["w", "w+"]),
        default="w+",
        help="Latent space to predict: w (one latent for all layers: easier to edit) or w+ (one per layer: closer).",
    ),
    click.option(
        "--passes",
        type=click.IntRange(1, 100),
        default=1,
        help="Number of passes; from the second on, the encoder also sees the image of its latents so far (ReStyle).",
    ),
    click.option(
        "--loss",
        type=click.Choice(["lpips", "discriminator", "efficientnet", "pixel"]),
        help="Distance between image and reconstruction, beside the squared difference of pixels: lpips (weights "
        "downloaded once), discriminator (features of the model's discriminator), efficientnet (those of "
        "EfficientNet-Lite0, whose weights are installed with metrics) or pixel (at several sizes). "
        "Default: discriminator, or pixel if the model has none.",
    ),
    detector_option(),
    click.option(
        "--identity",
        metavar="face|FILE",
        help="Also compare the persons, for models of faces: face (dlib's network; weights downloaded once), or a file "
        "with its weights or those of ArcFace (pSp's model_ir_se50.pth). Faces have to be aligned as in FFHQ, and have "
        "64 pixels or more.",
    ),
    click.option(
        "--held-out",
        type=click.IntRange(0),
        metavar="NUM",
        help="Number of images that are only used to "
        "measure the encoder. Default: a tenth of the dataset, at most 256.",
    ),
    click.option(
        "--editable",
        is_flag=True,
        help="Also train a critic that separates predicted latents from the model's own, which keeps them editable "
        "(e4e).",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "tf32"]),
        default="auto",
        help="Numerical precision: fp32, tf32 (faster on a GPU) or auto (tf32 on a GPU, else fp32).",
    ),
    click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Random seed."),
    click.option(
        "--resume",
        metavar="FOLDER",
        help="Run folder to continue as if it had not stopped. Only --kimg, --gpus and --batch-gpu can be changed; "
        "--model says where its model is now.",
    ),
    model_option,
    quiet_run_option,
    device_option,
    kernels_option,
)


@click.group("encoder", cls=OrderedGroup, short_help="Fit an encoder, which predicts the latents of an image.")
def command() -> None:
    """Fit an encoder, which predicts the latents of an image.

    An encoder predicts in milliseconds what `sgan project` searches for seconds or minutes: the latents that reproduce
    an image. It belongs to one model, and works for images like those that the model was trained on. `sgan encode` uses
    it.

    \b
    Examples:
      sgan encoder fit
      sgan encoder fit --model runs/00000-faces-auto --data faces.zip
    """


@command.command("fit", short_help="Train an encoder for a model.")
@fit_options
def fit_command(**options: Any) -> None:
    """Train an encoder for a model.

    The encoder learns to predict latents from which the model reproduces real images, and the known latents of
    generated images. Nothing is downloaded. Without options, this fits an encoder to the newest or the bundled model;
    on two CPU cores that takes minutes for 32x32 pixels, and about half an hour for 64x64.

    Writes a run folder such as runs/00001-faces-encoder with snapshots (encoders for `sgan encode`),
    reconstructions-KIMG.png (images that the encoder has not seen, each beside its reconstruction), training states,
    settings and logs. Ctrl-C finishes the current step and saves everything; --resume FOLDER then continues.

    \b
    Examples:
      sgan encoder fit
      sgan encoder fit --model faces.safetensors --data faces.zip --kimg 500
      sgan encoder fit --resume runs/00001-faces-encoder
    """
    fit(options)


def fit(
    options: dict[str, Any],  # of `fit_options`; and the task
) -> None:
    """Fit an encoder with the options of a command."""
    from .. import distributed
    from ..interop.conversion import ensure_snapshot, find_model
    from ..snapshot import load_snapshot
    from ..training.recipes.encoder_run import plan_new_encoder, plan_resumed_encoder

    model, (resume, device, how) = options.pop("model"), pop_shared(options)
    with bar(how.quiet, leave=False) as progress:
        if resume:
            refuse_changes({"resume", "model", "kimg", "gpus", "batch_gpu", "quiet", "device", "runs", "kernels"})
            plan = plan_resumed_encoder(Path(resume), options["kimg"], options["gpus"], options["batch_gpu"])
            plan = _with_model(plan, model)
        else:
            path, description = find_model(model, how.runs)
            if not how.quiet and distributed.is_first_on_machine():
                warn(description)
            options["gpus"] = options["gpus"] or distributed.launcher_world_size()
            snapshot = load_snapshot(ensure_snapshot(path))
            checkpoint = _place(path, snapshot.path)["checkpoint"]
            plan = plan_new_encoder(snapshot, progress=progress, checkpoint=checkpoint, **options)
    run_fit(plan, device, how)


def pop_shared(
    options: dict[str, Any],  # of `fit_options`
) -> tuple[str | None, str, RunOptions]:
    """Take the folder to resume, the device, and how the run is executed; choose the precision for the device."""
    from ..training.run import RunOptions

    quiet, runs, resume, device = (options.pop(name) for name in ("quiet", "runs", "resume", "device"))
    device = str(resolve_device(device))
    if options["precision"] == "auto":
        options["precision"] = "tf32" if device.startswith("cuda") else "fp32"
    return resume, device, RunOptions(quiet, runs=runs)


def _with_model(
    plan: EncoderPlan,  # of a run to resume
    model: str | None,  # where it is now
) -> EncoderPlan:
    """Find the model of a run again. A checkpoint of another program whose conversion is no longer in the cache is
    converted again. Raises SganError if there is neither."""
    from ..interop.conversion import ensure_snapshot, find_model

    config = plan.config
    if model is None and os.path.isfile(config.model):
        return plan
    if model is None and not (config.checkpoint and os.path.isfile(config.checkpoint)):
        missing = config.checkpoint or config.model
        raise SganError(f"The model of this run, {missing}, does not exist.", hint="Say where it is: --model FILE")
    path, _ = find_model(model or config.checkpoint)
    place = _place(path, ensure_snapshot(path))
    return dataclasses.replace(plan, config=dataclasses.replace(config, **place))


def _place(path: Path, snapshot: Path) -> dict[str, str | None]:
    """Where a model is: its snapshot, and the checkpoint that it was converted from."""
    return {"model": os.path.abspath(snapshot), "checkpoint": None if snapshot == path else os.path.abspath(path)}


def given_options() -> set[str]:
    """The parameters of this command that are given on the command line."""
    context = click.get_current_context()
    source = click.core.ParameterSource.COMMANDLINE
    return {name for name in context.params if context.get_parameter_source(name) is source}


def refuse_changes(
    free: set[str],  # options that can be changed when a run is resumed
) -> None:
    """Refuse the others."""
    for name in sorted(given_options() - free):
        option = "--" + name.replace("_", "-")
        raise click.UsageError(f"{option} cannot be changed when a run is resumed. Remove it.")


def run_fit(plan: EncoderPlan | Pix2PixPlan, device: str, options: RunOptions) -> None:
    """Start the run of a plan, or continue it."""
    from .. import distributed
    from ..training.recipes import encoder_run, pix2pix_run
    from ..training.recipes.fitting_run import describe_next

    config: Any = plan.config
    dataset = plan.dataset if distributed.has_launcher() or config.gpus == 1 else None
    is_pix2pix = isinstance(plan, pix2pix_run.Pix2PixPlan)
    describe = pix2pix_run.describe_fit if is_pix2pix else encoder_run.describe_fit
    launch_run(
        pix2pix_run.fit_pix2pix if is_pix2pix else encoder_run.fit_encoder,
        lambda folder: (config, folder, device, options, dataset),
        folder=plan.folder,
        name=encoder_run.folder_name(config),
        gpus=config.gpus,
        device=device,
        options=options,
        describe=lambda folder: describe(config, folder),
        describe_next=lambda folder: describe_next(config, folder),
    )
