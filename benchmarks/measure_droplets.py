"""Droplets: spikes in the feature maps of a StyleGAN, which instance norm makes worth having.

python benchmarks/measure_droplets.py --model stylegan.safetensors --model stylegan2.safetensors --out droplets.png

Instance norm takes a map's size away; a generator gets it through in a spike that makes up most of the map's deviation
(Karras et al. 2020, section 2). The energy of a layer is the mean square over its feature maps, each divided by its
deviation; its peak over its mean is 1 in an even map and grows with a spike. Weight demodulation, which StyleGAN2 has
in its place, knows nothing of the maps themselves, and leaves no reason for one. Where images have eyes, energy has
peaks too: look at the sheet. Published droplets begin at 64 x 64.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from torch import Tensor

import stylegan_cli
from stylegan_cli.data.images import labeled_grid, save_image, to_rgb, to_uint8
from stylegan_cli.models.generator import Generator
from stylegan_cli.sampling.latents import latents_from_seeds


@click.command()
@click.option(
    "--model", "models", multiple=True, required=True, help="Snapshot or foreign checkpoint; may be repeated."
)
@click.option("--num", default=100, show_default=True, help="Images of the figures.")
@click.option("--show", default=6, show_default=True, help="Images that are drawn.")
@click.option("--out", default="droplets.png", show_default=True, help="Images and the energy of their layers.")
def main(models: tuple[str, ...], num: int, show: int, out: str) -> None:
    cells, labels, found = [], [], {}
    for path in models:
        G = stylegan_cli.load(path)
        found[path] = {}
        for name, peaks, images, maps in measured(G, num, show):
            found[path][name] = {"median": peaks.median().item(), "largest": peaks.max().item()}
            click.echo(f"{path}  {name:24} peak over mean: median {peaks.median():7.2f}  largest {peaks.max():7.2f}")
            if not labels or labels[-1][0] != path:
                labels.append((path, "images"))
                cells.append(images)
            labels.append((path, name.removeprefix("synthesis.")))
            cells.append(maps)
    size = max(row.shape[2] for row in cells)
    rows = torch.stack([enlarged(row, size) for row in cells])
    names = [f"{models.index(path) + 1}: {name}" for path, name in labels]
    save_image(labeled_grid(rows, None, None, names, [str(i) for i in range(show)]), out)
    Path(out).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")
    click.echo(out)


@torch.inference_mode()
def measured(G: Generator, num: int, show: int):
    """For each convolution: its name, peaks [num], images and energies uint8 [show, 3, h, w]."""
    energies: dict[str, list[Tensor]] = {row.name: [] for row in G.layers if row.kind == "conv"}
    handles = [
        G.get_submodule(name).register_forward_hook(lambda m, i, y, name=name: energies[name].append(energy(y)))
        for name in energies
    ]
    c = torch.zeros(1, G.config.c_dim) if G.config.c_dim else None
    if c is not None:
        c[:, 0] = 1
    images = torch.cat([to_uint8(G(latents_from_seeds([seed], G.config.z_dim), c)) for seed in range(num)])
    for handle in handles:
        handle.remove()
    for name, maps in energies.items():
        maps = torch.cat(maps)  # [num, h, w]
        yield name, maps.amax((1, 2)) / maps.mean((1, 2)), to_rgb(images[:show]), heat(maps[:show])


def energy(
    y: Tensor,  # [N, C, h, w] of a layer
) -> Tensor:  # [N, h, w]
    y = y - y.mean((2, 3), keepdim=True)
    return (y / (y.square().mean((2, 3), keepdim=True) + 1e-8).sqrt()).square().mean(1)


def heat(
    maps: Tensor,  # [N, h, w]
) -> Tensor:  # uint8 [N, 3, h, w]: black is none, white ten times the mean or more
    scaled = (maps / (10 * maps.mean((1, 2), keepdim=True))).clamp(0, 1).sqrt()
    return (scaled * 255).to(torch.uint8)[:, None].repeat(1, 3, 1, 1)


def enlarged(
    row: Tensor,  # uint8 [N, 3, h, w]
    size: int,  # a multiple of h
) -> Tensor:
    times = size // row.shape[2]
    return row.repeat_interleave(times, 2).repeat_interleave(times, 3)


if __name__ == "__main__":
    main()
