"""sgan noise"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .params import (
    LATENTS,
    command_line,
    device_option,
    file_options,
    kernels_option,
    model_option,
    open_model,
    output_options,
    speed_options,
    tell_tuned,
    truncation_options,
)


@click.command(short_help="Show what noise does: on all layers, none, some, and how much each pixel varies.")
@click.option("--seeds", type=LATENTS, default="0-2", help="Pictures: seeds or projected files (.npz).")
@click.option("--draws", type=click.IntRange(2), default=100, help="Of noise, for the standard deviation.")
@truncation_options
@speed_options
@file_options
@model_option
@device_option
@kernels_option
@output_options
def command(
    seeds: list[int | str],
    draws: int,
    outdir: str,
    format: str,
    model: str | None,
    runs: str,
    device: str,
    as_json: bool,
    quiet: bool,
    **sampling: Any,  # see truncation_options and speed_options
) -> None:
    """Show what noise does: on all layers, none, some, and how much each pixel varies.

    One row a picture: noise on all layers, on none, on the fine ones alone (64x64 pixels and up; of a small model the
    largest), on the coarse ones alone; two other draws of noise; and the standard deviation of each pixel over --draws
    of them, in steps of 1/255, in grey.
    """
    import torch
    from tqdm import tqdm

    from ..data.images import labelled_grid, save_image, to_rgb
    from ..sampling.draw import Sampling, picture_record
    from ..sampling.latent_files import file_part, find_latents
    from ..sampling.noise_study import NOTHING, draw_columns, noise_std, std_map

    snapshot, how = open_model(model, runs, device, quiet), Sampling(**sampling)
    found = find_latents(snapshot.G, seeds, how)
    columns = draw_columns(found, how)
    bar = tqdm(found.ws, unit="picture", disable=True if quiet else None)
    stds = torch.stack([noise_std(found.G, ws, draws, how) for ws in bar])
    white = stds.max().item()
    maps = torch.stack([std_map(std, white) for std in stds])
    tuned = tell_tuned(found.tuned, quiet)
    record = picture_record(snapshot, how, command_line(), **tuned, draws=draws, white=f"{white:.3g}")
    files, folder = [], Path(outdir)
    for name, pictures in {**columns, "std": maps}.items():
        for picture, source in zip(pictures, found.names, strict=True):
            files.append(folder / f"noise{file_part(source)}-{name.replace(' ', '')}.{format}")
            save_image(picture, files[-1], metadata={"seed": source, "noise": name, **record})
    cells = torch.stack([to_rgb(pictures) for pictures in (*columns.values(), maps)], 1)
    sheet = labelled_grid(cells, None, None, found.names, [*columns, f"std 0-{white:.2g}"])
    files.append(folder / f"noise.{format}")
    save_image(sheet, files[-1], metadata={"seeds": str(seeds), **record})
    means = {name: std.mean().item() for name, std in zip(found.names, stds, strict=True)}
    if white < NOTHING:
        click.echo("Noise does nothing in this model: its strengths are 0, and the maps are black.", err=True)
    elif white < 1 and not quiet:
        click.echo("The standard deviation is below 1/255 everywhere: only the maps show what noise does.", err=True)
    if not (as_json or quiet):
        for name, mean in means.items():
            click.echo(f"{name}: mean standard deviation {mean:.3g} of 255")
    result = {"model": str(snapshot.path), "std": means, "white": white, "files": [str(f) for f in files]}
    click.echo(json.dumps(result) if as_json else files[-1])
