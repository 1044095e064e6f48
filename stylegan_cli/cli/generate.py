"""sgan generate"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .params import (
    SEEDS,
    command_line,
    device_option,
    kernels_option,
    model_option,
    open_model,
    output_options,
    sampling_options,
    tell_tuned,
)


@click.command(short_help="Draw pictures from a trained model.")
@click.option("--seeds", type=SEEDS, default="0-15", help="Which pictures: 0,5,10-20.")
@click.option("--from-w", metavar="FILE", help="Draw the latents in this .npz instead of seeds.")
@click.option("--save-w", is_flag=True, help="Also write the latents to w.npz, for --from-w.")
@click.option("--grid", is_flag=True, help="Also lay all pictures on one sheet, grid.png.")
@sampling_options
@model_option
@device_option
@kernels_option
@output_options
def command(
    seeds: list[int],
    from_w: str | None,
    save_w: bool,
    grid: bool,
    outdir: str,
    format: str,
    model: str | None,
    runs: str,
    device: str,
    as_json: bool,
    quiet: bool,
    **sampling: Any,  # see sampling_options
) -> None:
    """Draw pictures from a trained model, one file a seed.

    Each file says in its metadata how to make it again.
    """
    if from_w and save_w:
        raise click.UsageError("--save-w is for seeds: the latents of --from-w are in a file already.")
    import torch

    from ..data.images import grid_columns, image_grid, save_image
    from ..sampling.draw import Sampling, draw, map_seeds, picture_record
    from ..sampling.latent_files import find_latents, save_latents
    from ..sampling.latents import class_labels

    snapshot, how = open_model(model, runs, device, quiet), Sampling(**sampling)
    G, folder, name = snapshot.G, Path(outdir), "w" if from_w else "seed"
    given = find_latents(G, [from_w], how) if from_w else None
    if given:
        G, seeds = given.G, given.seeds
    labels = class_labels(how.class_index, seeds, G.config.c_dim)
    names = range(len(seeds)) if given else seeds
    kept = []  # latents for w.npz

    def latents(i: int, j: int) -> torch.Tensor:
        ws = given.ws[i:j] if given else map_seeds(G, seeds[i:j], how)
        if save_w:
            kept.append(ws.cpu())
        return ws

    tuned = tell_tuned(given and given.tuned, quiet)
    record = picture_record(snapshot, how, command_line(), **tuned, from_w=from_w)
    files, pictures = [], []
    drawn_pictures = draw(G, latents, seeds, how, quiet, noise=given and given.noise)
    for number, picture in zip(names, drawn_pictures, strict=True):
        files.append(folder / f"{name}{number:04d}.{format}")
        drawn = {} if labels is None or given else {"class": str(int(labels[len(files) - 1].argmax()))}
        save_image(picture, files[-1], metadata={name: str(number), **record, **drawn})
        if grid:
            pictures.append(picture)
    if save_w:
        files.append(folder / "w.npz")
        save_latents(files[-1], torch.cat(kept), seeds=seeds, model=snapshot.fingerprint)
    if grid:
        files.append(folder / f"grid.{format}")
        columns = grid_columns(len(pictures), G.config.height / G.config.width)
        scale = max(1, 64 // G.config.width)  # small pictures are enlarged, as in the grids of training
        sheet = image_grid(torch.stack(pictures), columns, scale=scale)
        save_image(sheet, files[-1], metadata={"seeds": str(seeds), **record})
    result = {"model": str(snapshot.path), "files": [str(f) for f in files]}
    click.echo(json.dumps(result) if as_json else files[-1] if grid else folder)
