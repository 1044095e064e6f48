"""The quality of a model's images, beside those of a smaller model enlarged to the same size.

python benchmarks/measure_quality.py --smaller old.safetensors --detector vgg16.ckpt
python benchmarks/measure_quality.py --model runs/00000-critters-demo --num 2000

Distances, precision and recall are of the features of EfficientNet-Lite0, against the bundled images (with which the
bundled model was trained, among others) or those of --data. Path lengths are of LPIPS with VGG16, for images of the
model's own size. The diversity of edges is the mean distance of pairs of images of which only the differences between
neighboring pixels are left: it is low for images that are alike, and for blurred ones.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from _results import command_line, machine, save_entry
from torch import Tensor
from torch.nn import functional as F

import stylegan_cli
from stylegan_cli.cli.call import keep_freed_memory
from stylegan_cli.data.dataset import Dataset, open_dataset
from stylegan_cli.data.images import to_rgb, to_uint8
from stylegan_cli.metrics.measure import compare_images, measure
from stylegan_cli.metrics.registry import resolve
from stylegan_cli.models.generator import Generator
from stylegan_cli.runs import find_model
from stylegan_cli.sampling.latents import latents_from_seeds

DISTANCES = {"Fréchet distance": "fid50k_full", "kernel distance": "kid50k_full"}
EDGE_DIVERSITY = "diversity of edges, relative to real images"
HIGHER = ("precision", "recall", EDGE_DIVERSITY)  # is better
OWN_SIZE = ("path length",)  # depends on the image size, so it is not compared with the smaller model's
EDGES = 1000  # images whose edges are compared


@click.command()
@click.option("--model", metavar="PATH", help="Default: the bundled model.")
@click.option("--smaller", metavar="PATH", help="A model of smaller images.")
@click.option("--data", metavar="PATH", help="Real images. Default: the bundled dataset.")
@click.option("--num", default=10_000, show_default=True, help="Number of generated images.")
@click.option("--detector", metavar="FILE", help="Weights of LPIPS.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the figures as JSON.")
@torch.inference_mode()
def main(
    model: str | None, smaller: str | None, data: str | None, num: int, detector: str | None, out: Path | None
) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    reals, figures = open_dataset(data), {}
    for name, path in {"ours": find_model(model, "nowhere")[0], "enlarged": smaller}.items():
        if path:
            figures[name] = measure_model(stylegan_cli.load(path), reals, num, detector)
            print(name, {figure: round(value, 4) for figure, value in figures[name].items()}, flush=True)
    if out:
        device = torch.device("cpu")
        save_entry(out, {"command": command_line(sys.argv), "machine": machine(device), "rows": rows_of(figures)})


def measure_model(G: Generator, reals: Dataset, num: int, detector: str | None) -> dict[str, float]:
    size = reals.spec.height, reals.spec.width
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fakes.npy")
        np.save(path, np.concatenate([images(G, seeds, size).permute(0, 2, 3, 1).numpy() for seeds in batches(num)]))
        fakes = open_dataset(path)
        protocol = resolve([*DISTANCES.values(), "pr50k3_full"], features="efficientnet-lite0")
        values = list(compare_images(protocol, reals, fakes).values.values())
        figures = dict(zip((*DISTANCES, "precision", "recall"), values, strict=True))
        shares = [edge_diversity(d.images(range(min(EDGES, len(d))))) for d in (fakes, reals)]
    figures[EDGE_DIVERSITY] = shares[0] / shares[1]
    lengths = resolve(["ppl"], num=num // 4, detector_file=detector)  # they need fewer images
    (figures["path length"],) = measure(lengths, G, None, torch.device("cpu")).values.values()
    return figures


def batches(num: int) -> list[range]:
    return [range(start, min(start + 100, num)) for start in range(0, num, 100)]


def images(G: Generator, seeds: range, size: tuple[int, int]) -> Tensor:  # uint8 [N, 3, H, W]
    """Images of seeds at a size: resized by cubic interpolation where the model's have another."""
    x = to_rgb(G(latents_from_seeds(list(seeds), G.config.z_dim)))
    return to_uint8(x if x.shape[2:] == size else F.interpolate(x, size, mode="bicubic", antialias=True))


def edge_diversity(images: Tensor) -> float:  # uint8 [N, 3, H, W]
    """The mean over pairs of the root mean square difference of their edges, from 0 to 255."""
    gray = images.float().mean(1)
    steps = torch.cat([gray.diff(dim=1).abs().flatten(1), gray.diff(dim=2).abs().flatten(1)], 1)  # [N, pixels]
    return (torch.pdist(steps).mean() / steps.shape[1] ** 0.5).item()


def rows_of(figures: dict[str, dict[str, float]]) -> list[dict]:
    """Rows of a results file, one per figure. Above 1, a ratio says that ours is better; with 0 there is none."""
    ours, others = figures["ours"], figures.get("enlarged", {})

    def ratio(name: str) -> dict[str, float]:
        better, worse = (ours, others) if name in HIGHER else (others, ours)
        if name in OWN_SIZE or name not in others or min(ours[name], others[name]) <= 0:
            return {}
        return {f"enlarged: {others[name]:.3g}": better[name] / worse[name]}

    return [
        {
            "op": "quality",
            "dtype": "float32",
            "case": f"{name}: {value:.3g}",
            "seconds": {},
            "ratio": ratio(name),
            "figures": {name: value},
            "wrong": [],
            "failed": {},
        }
        for name, value in ours.items()
    ]


if __name__ == "__main__":
    main()
