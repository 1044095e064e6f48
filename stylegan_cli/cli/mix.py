"""sgan mix"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .params import (
    LATENTS,
    STYLES,
    command_line,
    device_option,
    kernels_option,
    model_option,
    open_model,
    output_options,
    sampling_options,
    tell_tuned,
)


@click.command(short_help="Draw a grid that mixes the styles of rows and columns.")
@click.option("--rows", type=LATENTS, default="0-3", help="Seeds or projected files (.npz) of the rows.")
@click.option("--cols", type=LATENTS, default="4-9", help="Of the columns: the chosen styles come from them.")
@click.option("--styles", type=STYLES, default="coarse", help="coarse, middle, fine, or indices of w such as 0-6.")
@click.option("--blend", type=click.FloatRange(0, 1), default=1.0, help="How far towards the column: 0 to 1.")
@sampling_options
@model_option
@device_option
@kernels_option
@output_options
def command(
    rows: list[int | str],
    cols: list[int | str],
    styles: list[int] | str,
    blend: float,
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
    Rows and columns are seeds, or files that `sgan project` wrote: `--rows 1-4,face.npz`.
    """
    import torch

    from ..data.images import labelled_grid, save_image
    from ..sampling.draw import Sampling, draw, picture_record
    from ..sampling.latent_files import file_part, find_latents
    from ..sampling.mixing import mix_styles, style_indices

    snapshot, how = open_model(model, runs, device, quiet), Sampling(**sampling)
    folder, files = Path(outdir), []
    indices = style_indices(snapshot.G.layers, styles)
    sources = find_latents(snapshot.G, [*rows, *cols], how)
    R = sum(item < len(rows) for item in sources.items)
    K = len(sources) - R
    mixed = mix_styles(sources.ws[:R], sources.ws[R:], indices, blend)  # [R, K, num_ws, w_dim]
    pairs = [(r, R + k) for r in range(R) for k in range(K)]
    noise_from = [*range(R + K), *(r for r, _ in pairs)]  # a mixed picture has its row's
    latents = torch.cat([sources.ws, mixed.flatten(0, 1)])
    noise_seeds = [sources.seeds[i] for i in noise_from]
    drawn = draw(sources.G, lambda i, j: latents[i:j], noise_seeds, how, quiet, noise=sources.noise_of(noise_from))
    row_images, col_images, cells = torch.stack(list(drawn)).split([R, K, len(pairs)])
    tuned = tell_tuned(sources.tuned, quiet)
    record = picture_record(snapshot, how, command_line(), **tuned, styles=indices, blend=blend if blend != 1 else None)
    for picture, pair in zip(cells, pairs, strict=True):
        row, col = (sources.names[i] for i in pair)
        files.append(folder / f"mix{file_part(row)}-{file_part(col)}.{format}")
        save_image(picture, files[-1], metadata={"row": row, "col": col, **record})
    sheet = labelled_grid(cells.unflatten(0, (R, K)), row_images, col_images, sources.names[:R], sources.names[R:])
    files.append(folder / f"mix.{format}")
    save_image(sheet, files[-1], metadata={"rows": str(rows), "cols": str(cols), **record})
    result = {"model": str(snapshot.path), "styles": indices, "files": [str(f) for f in files]}
    click.echo(json.dumps(result) if as_json else files[-1])
