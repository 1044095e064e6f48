"""sgan generate"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from .params import SEEDS, device_option, model_option, output_options, resolve_device, sampling_options


@click.command(short_help="Draw pictures from a trained model.")
@click.option("--seeds", type=SEEDS, default="0-15", help="Which pictures: 0,5,10-20.")
@click.option("--from-w", metavar="FILE", help="Draw the latents in this .npz instead of seeds.")
@click.option("--save-w", is_flag=True, help="Also write the latents to w.npz, for --from-w.")
@click.option("--grid", is_flag=True, help="Also lay all pictures on one sheet, grid.png.")
@sampling_options
@model_option
@device_option
@output_options
def command(
    seeds: list[int],
    from_w: str | None,
    save_w: bool,
    grid: bool,
    trunc: float,
    trunc_cutoff: int | None,
    class_index: int | None,
    noise_mode: str,
    batch: int | None,
    precision: str,
    outdir: str,
    format: str,
    model: str | None,
    runs: str,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw pictures from a trained model, one file a seed.

    Each file says in its metadata how to make it again.
    """
    import torch

    from ..data.images import image_grid, save_image
    from ..runs import find_model
    from ..sampling.draw import draw, load_latents, map_seeds, picture_record, save_latents
    from ..snapshot import load_snapshot

    path, which = find_model(model, runs)
    if not quiet:
        click.echo(which, err=True)
    snapshot = load_snapshot(path, resolve_device(device))
    G = snapshot.G
    if from_w:
        ws = G.mapping.truncate(load_latents(from_w, G), trunc, trunc_cutoff)
        seeds = list(range(len(ws)))
    else:
        ws = map_seeds(G, seeds, class_index, trunc, trunc_cutoff)
    folder, name = Path(outdir), "w" if from_w else "seed"
    settings = {"trunc": trunc, "trunc_cutoff": trunc_cutoff, "class": class_index, "noise_mode": noise_mode}
    line = ["sgan", *sys.argv[1:]]
    base = picture_record(snapshot, line, from_w=from_w, **settings)
    files, pictures = [], []
    for seed, picture in zip(seeds, draw(G, ws, seeds, noise_mode, batch, precision, quiet), strict=True):
        files.append(folder / f"{name}{seed:04d}.{format}")
        save_image(picture, files[-1], metadata={name: str(seed), **base})
        if grid:
            pictures.append(picture)
    if save_w:
        files.append(folder / "w.npz")
        save_latents(files[-1], ws, seeds)
    if pictures:
        files.append(folder / f"grid.{format}")
        columns = max(1, round((len(pictures) * G.config.height / G.config.width) ** 0.5))
        save_image(image_grid(torch.stack(pictures), columns), files[-1], metadata={"seeds": str(seeds), **base})
    click.echo(
        json.dumps({"model": str(path), "files": [str(f) for f in files]}) if as_json else files[-1] if grid else folder
    )
