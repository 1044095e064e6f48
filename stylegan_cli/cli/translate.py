"""`sgan translate`: images, or fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import MisuseError
from .call import Call, output_folder, refuse_to_overwrite, warn
from .encoder import fit, fit_options
from .options import (
    ImagesOrCommand,
    batch_option,
    crop_options,
    encoder_option,
    outdir_option,
    seed_option,
    session_options,
    trunc_option,
)
from .params import STYLES, FiniteRange
from .translators import fit_pix2pix, fits_pix2pix, translate

_TASKS = ("superres", "inpaint", "sketch", "restore", "mask", "pairs")

_task_option = click.option(
    "--task",
    type=click.Choice(_TASKS),
    help="Task: superres (enlarge), inpaint (fill a hole), sketch (outlines to images), restore (undo blur, noise and "
    "JPEG artifacts), mask (class maps to images) or pairs (images of another kind).",
)


@click.group(
    "translate",
    cls=ImagesOrCommand,
    subcommand_metavar="| fit ...",
    short_help="Translate images with a model: enlarge, fill, restore.",
)
@click.argument("images", metavar="IMAGE...", nargs=-1)
@_task_option
@click.option(
    "--num",
    type=click.IntRange(1, 1000),
    default=1,
    help="Number of results per image. The first has the predicted styles, the others those of --seed and the "
    "following seeds in the layers of --styles.",
)
@click.option(
    "--styles",
    type=STYLES,
    help="Styles to vary: coarse, middle, fine, or layer indices such as 4-7; see `sgan mix`. Default: the upper half, "
    "or all when a hole is filled.",
)
@seed_option(2**32 - 1)
@trunc_option()
@click.option(
    "--mask",
    metavar="FILE",
    help="Image of the hole for the task inpaint: white pixels are given, black ones are filled in. Default: "
    "transparent pixels of the image are filled in.",
)
@encoder_option
@crop_options
@batch_option
@outdir_option
@session_options
def command(
    call: Call,
    outdir: str,
    **request: Any,  # see session.TranslateRequest
) -> None:
    """Translate images with a model: enlarge, fill, restore, or make them from sketches and class maps.

    An encoder that was fitted to the task predicts latents of the model; the results are images of the model, and as
    large. `sgan translate fit` makes such an encoder. Takes images, or one folder or zip of images.

    Writes NAME-1.png, NAME-2.png ... for each image, translated.npz (their latents, for `sgan edit` and the other
    commands) and compare.png (the image, what the encoder sees of it, and the results; of a folder or zip, the first
    ones). If the encoder was fitted with --skips, the latents alone give other images: those of the model without
    features of the input. With the file of pix2pix in --encoder, no model is used, and there are no latents: other
    results than the first have the dropout of --seed and the following seeds.

    \b
    Examples:
      sgan translate fit --task superres
      sgan translate small.png
      sgan translate photo.png --task inpaint --mask hole.png --num 5
      sgan translate sketch.png --task sketch --num 5 --styles middle
      sgan translate photos --task restore
    """
    from ..session import TranslateRequest
    from ..session.translate import input_and_output_files

    if not request["images"]:
        raise MisuseError("No image to translate.", hint="Name an image: sgan translate face.png")
    folder, translation = Path(outdir), TranslateRequest(runs=call.runs, **request)
    inputs, outputs = input_and_output_files(translation, folder)
    refuse_to_overwrite([*map(str, inputs), request["encoder"], request["mask"]], outputs)
    with output_folder(folder):
        with call.progress() as progress:
            result = translate(call, translation, progress)
            files = result.save(folder)
        call.inform(f"Encoder: {result.encoder.description}.")
        warn(*result.warnings)
    if not call.as_json:
        call.inform(*result.notes)
    found = [{"name": name, **figures} for name, figures in zip(result.names, result.figures, strict=True)]
    answer = {"encoder": result.encoder.path, "task": result.task.name, "found": found, "files": files}
    call.print_result(answer, files[-1])


@command.command("fit", short_help="Train an encoder for a task.")
@_task_option
@click.option(
    "--factor",
    type=click.IntRange(2),
    help="Factor of enlargement for the task superres. Default: 4.",
)
@click.option(
    "--source",
    metavar="PATH",
    help="Folder or zip with the images to translate from, for the tasks mask and pairs. Each has the name of its "
    "image in --data. Those of mask are class maps: one color for each class, at most 64.",
)
@click.option(
    "--recipe",
    type=click.Choice(["encoder", "pix2pix"]),
    default="encoder",
    help="Network to train: encoder (predicts latents of the model) or, for the task pairs, pix2pix (a U-net of pixels "
    "against a discriminator of patches, without a model). pix2pix has no options about models and latents, and other "
    "defaults: 200 epochs but not more kimg, 1 pair (from 256 pixels) to 16 per step, and a learning rate of 0.0002 "
    "that falls to 0 in the second half.",
)
@click.option(
    "--segmenter",
    metavar="FILE",
    help="Segmenter of `sgan segment fit`, for the task mask without --data and --source: the encoder is trained on "
    "generated images and their masks, and the segmenter also judges the results.",
)
@click.option(
    "--sparse",
    is_flag=True,
    help="For the task mask: the encoder sees a few points or strokes of each class, so that class maps may be "
    "transparent where the class is not given.",
)
@click.option(
    "--skips",
    is_flag=True,
    help="Also add features of the encoder to a copy of the generator, which is fine-tuned: closer to the image, but "
    "results are not reproduced by their latents alone.",
)
@click.option(
    "--adversarial",
    type=FiniteRange(0),
    metavar="WEIGHT",
    help="With --skips, weight of the loss against a copy of the model's discriminator, such as 0.1. Doubles the time "
    "per image. Default: 0, none.",
)
@fit_options
def fit_command(
    task: str | None,
    factor: int | None,
    sparse: bool,
    adversarial: float | None,
    recipe: str,
    **options: Any,
) -> None:
    """Train an encoder for a task.

    Works as `sgan encoder fit`, but the encoder sees something else than the image that it has to reproduce: a smaller,
    damaged or incomplete image, its outlines, or an image that belongs to it. The model does not change: with --skips
    the encoder's file contains a fine-tuned copy of it. With --recipe pix2pix there is no model: a U-net learns to
    translate the images of --source to those of --data.

    \b
    Examples:
      sgan translate fit --task superres --factor 8
      sgan translate fit --task inpaint --model faces.safetensors --data faces.zip
      sgan translate fit --task mask --data faces.zip --source masks.zip
      sgan translate fit --task mask --segmenter out/segmenter.safetensors --sparse
      sgan translate fit --task pairs --recipe pix2pix --source edges.zip --data images.zip
      sgan translate fit --resume runs/00001-faces-superres
    """
    if task is None and not options["resume"]:
        raise click.UsageError("Missing option --task. Choose one of " + ", ".join(_TASKS) + ".")
    if fits_pix2pix(recipe, options["resume"]):
        return fit_pix2pix({**options, "task": task})
    if factor is not None and task != "superres" and not options["resume"]:
        raise click.UsageError(f"--factor has no effect on the task {task}. Remove it.")
    if sparse and task != "mask" and not options["resume"]:
        raise click.UsageError(f"--sparse has no effect on the task {task}. Remove it.")
    task_options = {**({} if factor is None else {"factor": factor}), **({"sparse": True} if sparse else {})}
    if adversarial and not options["skips"] and not options["resume"]:
        raise click.UsageError("--adversarial has an effect with --skips only. Add --skips, or remove it.")
    fit({**options, "adversarial_weight": adversarial, "task": task, "task_options": task_options})
