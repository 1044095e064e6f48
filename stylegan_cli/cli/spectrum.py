"""sgan spectrum"""

from __future__ import annotations

import json
import typing

import click

from .call import resolve_device, warn
from .options import (
    batch_option,
    device_option,
    kernels_option,
    outdir_option,
    output_options,
    runs_option,
    seed_option,
)
from .params import SIZE
from .progress import bar


@click.command(short_help="Compare the power spectra of datasets and models.")
@click.option(
    "--data",
    metavar="PATH",
    multiple=True,
    help="Dataset: a zip or a folder. Default: none with --model, else the one that the model was trained on. Can be "
    "repeated.",
)
@click.option(
    "--model",
    "--network",
    "models",
    metavar="PATH",
    multiple=True,
    help="Model: a snapshot, a run folder (its newest snapshot), a checkpoint of another program (path or URL), or "
    "a public model by its name (`sgan model list`). "
    "Default: none with --data, else the newest snapshot in --runs, else the bundled model. Can be repeated.",
)
@runs_option
@click.option("--num", type=click.IntRange(1), default=1000, help="Number of images of each, at most.")
@click.option(
    "--size",
    type=SIZE,
    help="Image size in pixels to read datasets at: 64, or 48x64 (height x width). Default: that of the first model.",
)
@seed_option(2**32 - 1)
@batch_option
@outdir_option
@output_options
@device_option
@kernels_option
def command(
    data: tuple[str, ...],
    models: tuple[str, ...],
    runs: str,
    outdir: str,
    device: str,
    as_json: bool,
    quiet: bool,
    **request: typing.Any,  # see session.SpectrumRequest
) -> None:
    """Compare the average power spectra of datasets and models.

    A spectrum shows how much detail of each size images have: coarse shapes at low frequencies, pixels at the highest.
    A model whose line lies above the dataset's adds detail of that size, such as a grid of pixels; below, it lacks it.
    Writes spectrum-heatmap.png (both directions), spectrum-slices.png (horizontal and diagonal slices of all inputs in
    one plot), spectrum-NAME.npz for each input and spectrum.json with the numbers.

    \b
    Examples:
      sgan spectrum
      sgan spectrum --data faces.zip --model runs/00000-faces-auto
      sgan spectrum --data faces.zip --model a.safetensors --model b.safetensors --num 5000
    """
    from ..session.spectrum import SpectrumRequest, default_inputs, measure_spectra

    torch_device = resolve_device(device)
    if not data and not models:
        data, models, description = default_inputs(runs)
        if not quiet:
            warn(description)
    with bar(quiet) as progress:
        result = measure_spectra(SpectrumRequest(data=data, models=models, **request), torch_device, progress)
    files = result.save(outdir)
    answer = {"spectra": result.summary(), "files": [str(file) for file in files]}
    click.echo(json.dumps(answer) if as_json else files[-1])
