"""sgan mix"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .params import (
    SEEDS,
    STYLES,
    command_line,
    device_option,
    kernels_option,
    model_option,
    open_model,
    output_options,
    sampling_options,
)


@click.command(short_help="Draw a grid that mixes the styles of rows and columns.")
@click.option("--rows", type=SEEDS, default="0-3", help="Seeds of the rows: most styles come from them.")
@click.option("--cols", type=SEEDS, default="4-9", help="Seeds of the columns: the chosen styles come from them.")
@click.option("--styles", type=STYLES, default="coarse", help="coarse, middle, fine, or indices of w such as 0-6.")
@sampling_options
@model_option
@device_option
@kernels_option
@output_options
def command(
    rows: list[int],
    cols: list[int],
    styles: list[int] | str,
    outdir: str,
    format: str,
    model: str | None,
    runs: str,
    device: str,
    as_json: bool,
    quiet: bool,
    **sampling: Any,  # see sampling_options
) -> None:
    """Draw a grid that mixes the styles of rows and columns.

    Each picture has its row's latents, but the column's at the chosen styles: coarse is shape and pose, fine is colour.
    """
    import torch

    from ..data.images import labelled_grid, save_image
    from ..sampling.draw import Sampling, draw, map_seeds, picture_record
    from ..sampling.mixing import mix_styles, style_indices

    snapshot, how = open_model(model, runs, device, quiet), Sampling(**sampling)
    G, folder, files = snapshot.G, Path(outdir), []
    indices = style_indices(G.layers, styles)
    ws = map_seeds(G, [*rows, *cols], how)
    mixed = mix_styles(ws[: len(rows)], ws[len(rows) :], indices)  # [R, K, num_ws, w_dim]
    pairs = [(row, col) for row in rows for col in cols]
    noise_seeds = [*rows, *cols, *(row for row, _ in pairs)]
    latents = torch.cat([ws, mixed.flatten(0, 1)])
    pictures = torch.stack(list(draw(G, lambda i, j: latents[i:j], noise_seeds, how, quiet)))
    row_images, col_images, cells = pictures.split([len(rows), len(cols), len(pairs)])
    record = picture_record(snapshot, how, command_line(), styles=indices)
    for picture, (row, col) in zip(cells, pairs, strict=True):
        files.append(folder / f"mix{row:04d}-{col:04d}.{format}")
        save_image(picture, files[-1], metadata={"row": str(row), "col": str(col), **record})
    cells = cells.unflatten(0, (len(rows), len(cols)))
    sheet = labelled_grid(cells, row_images, col_images, [str(s) for s in rows], [str(s) for s in cols])
    files.append(folder / f"mix.{format}")
    save_image(sheet, files[-1], metadata={"rows": str(rows), "cols": str(cols), **record})
    result = {"model": str(snapshot.path), "styles": indices, "files": [str(f) for f in files]}
    click.echo(json.dumps(result) if as_json else files[-1])
