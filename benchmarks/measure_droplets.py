"""Droplets: spikes in the feature maps of a StyleGAN, caused by instance normalization.

python benchmarks/measure_droplets.py --model stylegan.safetensors --model stylegan2.safetensors --out droplets.png

Instance normalization discards the magnitude of a feature map; a generator preserves it with a spike that dominates
the map's standard deviation (Karras et al. 2020, section 2). The energy of a layer is the mean square over its feature
maps, each divided by its deviation. Its peak over its mean is 1 for a uniform map and grows with a spike. Weight
demodulation, which replaces instance normalization in StyleGAN2, does not depend on the maps, so it gives no reason for
spikes. Image features such as eyes also have energy peaks: check the sheet. Published droplets start at 64 x 64.
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
@click.option("--model", "models", multiple=True, required=True, help="Snapshot or checkpoint. Can be repeated.")
@click.option("--num", default=100, show_default=True, help="Number of images for the statistics.")
@click.option("--show", default=6, show_default=True, help="Number of images on the sheet.")
@click.option(
    "--out", default="droplets.png", show_default=True, help="Sheet of images and the energy of their layers."
)
def main(models: tuple[str, ...], num: int, show: int, out: str) -> None:
    cells, labels, statistics = [], [], {}
    for path in models:
        G = stylegan_cli.load(path)
        statistics[path] = {}
        for name, peaks, images, maps in measure(G, num, show):
            statistics[path][name] = {"median": peaks.median().item(), "largest": peaks.max().item()}
            click.echo(f"{path}  {name:24} peak over mean: median {peaks.median():7.2f}  largest {peaks.max():7.2f}")
            if not labels or labels[-1][0] != path:
                labels.append((path, "images"))
                cells.append(images)
            labels.append((path, name.removeprefix("synthesis.")))
            cells.append(maps)
    size = max(row.shape[2] for row in cells)
    rows = torch.stack([enlarge(row, size) for row in cells])
    names = [f"{models.index(path) + 1}: {name}" for path, name in labels]
    save_image(labeled_grid(rows, None, None, names, [str(i) for i in range(show)]), out)
    Path(out).with_suffix(".json").write_text(json.dumps(statistics, indent=2) + "\n")
    click.echo(out)


@torch.inference_mode()
def measure(G: Generator, num: int, show: int):
    """Yields for each convolution: its name, peaks [num], images and energies, both uint8 [show, 3, h, w]."""
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
        yield name, maps.amax((1, 2)) / maps.mean((1, 2)), to_rgb(images[:show]), heatmap(maps[:show])


def energy(
    y: Tensor,  # [N, C, h, w] output of a layer
) -> Tensor:  # [N, h, w]
    y = y - y.mean((2, 3), keepdim=True)
    return (y / (y.square().mean((2, 3), keepdim=True) + 1e-8).sqrt()).square().mean(1)


def heatmap(
    maps: Tensor,  # [N, h, w]
) -> Tensor:  # uint8 [N, 3, h, w], from black (0) to white (ten times the mean or more)
    scaled = (maps / (10 * maps.mean((1, 2), keepdim=True))).clamp(0, 1).sqrt()
    return (scaled * 255).to(torch.uint8)[:, None].repeat(1, 3, 1, 1)


def enlarge(
    row: Tensor,  # uint8 [N, 3, h, w]
    size: int,  # a multiple of h
) -> Tensor:
    factor = size // row.shape[2]
    return row.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


if __name__ == "__main__":
    main()
