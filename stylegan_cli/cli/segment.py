"""`sgan segment`: images, seeds, or fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .call import Call, output_file, output_folder, refuse_to_overwrite, warn
from .options import (
    ImagesOrCommand,
    class_option,
    combine_options,
    crop_options,
    encoder_option,
    out_options,
    outdir_option,
    session_options,
    speed_options,
    trunc_option,
)
from .params import SEEDS

_search_options = combine_options(
    encoder_option,
    click.option(
        "--steps",
        type=click.IntRange(0),
        help="Number of steps that search the latents of an image, from those of an encoder if the model has one; 0: "
        "only encode. Default: 100, or 400 without an encoder.",
    ),
    crop_options,
)


@click.group("segment", cls=ImagesOrCommand, short_help="Label the pixels of images, after a few examples.")
@click.argument("images", metavar="IMAGE...", nargs=-1)
@click.option("--seeds", type=SEEDS, help="Generate images from seeds such as 0-999, and segment those.")
@click.option(
    "--segmenter",
    metavar="FILE",
    help="Segmenter of `sgan segment fit`. Default: out/segmenter.safetensors.",
)
@click.option(
    "--refine/--no-refine",
    default=True,
    help="Move the masks of image files to the edges of the image, from which its reconstruction may differ.",
)
@trunc_option()
@class_option
@_search_options
@speed_options
@outdir_option
@session_options
def command(
    call: Call,
    outdir: str,
    seeds: list[int] | None,
    **request: Any,  # see session.SegmentRequest
) -> None:
    """Label the pixels of images, after a few examples.

    A segmenter reads the class of each pixel from the features of the model's layers. `sgan segment fit` learns it from
    one to five images with masks.

    With --seeds, writes images.zip and masks.zip, a dataset of generated images and their masks, for `sgan translate
    fit --task mask` or the training of other programs, and segmented.png (the first ones). Of each IMAGE, latents are
    found first, as by `sgan encode` or `sgan project`: writes NAME.mask.png, and compare.png (the image, its
    reconstruction, and the mask).

    \b
    Examples:
      sgan segment fit --annotated masks
      sgan segment --seeds 0-999
      sgan segment face.png --outdir faces
    """
    from ..session.segment import SegmentRequest, output_files

    folder, segment_request = Path(outdir), SegmentRequest(seeds=seeds or (), runs=call.runs, **request)
    masks = [Path(image).with_suffix(".mask.png") for image in request["images"]]
    masks = [str(mask) for mask in masks if mask.exists()]  # perhaps made by hand
    inputs = [*request["images"], *masks, request["segmenter"], request["encoder"]]
    refuse_to_overwrite(inputs, output_files(segment_request, folder))
    with output_folder(folder), call.progress() as progress:
        result = call.open().segment(segment_request, progress)
        call.inform(*result.notes)
        files = result.save(folder)
    info = result.segmenter.info
    answer = {"segmenter": result.segmenter.path, "classes": info.classes}
    answer |= {"images": len(request["images"]) or len(seeds or ()), "files": files}
    call.print_result(answer, files[-1] if request["images"] else files[0])


@command.command("fit", short_help="Learn to label pixels from a few images with masks.")
@click.option(
    "--annotated",
    metavar="DIR",
    required=True,
    help="Folder with images and their masks, NAME.png and NAME.mask.png: one color for each class, at most 64. "
    "Transparent pixels of a mask are not annotated.",
)
@click.option(
    "--labels",
    type=click.Choice(["linear", "nearest"]),
    default="linear",
    help="Method: linear (a linear classifier of the features of all layers) or nearest (the class whose mean feature "
    "is most similar).",
)
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    help="Similarity from which on pixels get the class of an annotated one, for masks with few annotated pixels and "
    "--labels nearest. Default: 0.5.",
)
@_search_options
@out_options("segmenter.safetensors", "./out")
@session_options
def fit_command(
    call: Call,
    out: str | None,
    outdir: str | None,
    **request: Any,  # see session.FitSegmenterRequest
) -> None:
    """Learn to label pixels from a few images with masks.

    Images that `sgan generate` has written with this model need no search: make masks for some of them. The latents of
    other images are found first. With two or more images, each is also predicted by a segmenter that was fitted to the
    others, which shows how well masks of new images will be, before --refine.

    Writes out/segmenter.safetensors, and segmenter.png: the images, their reconstructions, masks and predictions. Look
    at it: where a reconstruction is not like its image, its mask teaches little.

    \b
    Examples:
      sgan segment fit --annotated masks
      sgan segment fit --annotated photos --model faces.safetensors --out faces-parts.safetensors
    """
    from ..session.fit_segmenter import FitSegmenterRequest

    path = Path(output_file(out, outdir, "segmenter.safetensors"))
    fit_request = FitSegmenterRequest(runs=call.runs, **request)
    outputs, folder = {path.resolve(), path.with_suffix(".png").resolve()}, Path(request["annotated"])
    inputs = [str(p) for p in folder.iterdir()] if folder.is_dir() else []
    refuse_to_overwrite([*inputs, request["encoder"]], outputs)
    with output_folder(path.parent):
        with call.progress() as progress:
            result = call.open().fit_segmenter(fit_request, progress)
        warn(*result.warnings)
        files = result.save(path)
    info = result.segmenter.info
    if not call.as_json:
        sources = [f"{result.latents.count(s)} from {s}" for s in dict.fromkeys(result.latents)]
        call.inform(f"Latents: {', '.join(sources)}.")
        for name, value in info.iou.items():
            call.inform(f"Held out: {name} IoU {'-' if value is None else f'{value:.3f}'}")
    latents = dict(zip(result.names, result.latents, strict=True))
    call.print_result({"classes": info.classes, "latents": latents, "iou": info.iou, "files": files}, files[0])
