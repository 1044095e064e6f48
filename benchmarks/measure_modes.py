"""How many of 100 modes a generator covers, for each objective, with and without --mode-regularize and other remedies.

python benchmarks/measure_modes.py
python benchmarks/measure_modes.py --loss hinge --kimg 10 --remedy mode-regularize

Two digits of varied size, place and weight are stacked as the red and the green channel of a small image, as in
stacked MNIST (Metz et al. 2017, section 3.3.1). A classifier of the dataset recognizes both in generated images. A mode
is covered if at least one image in 2,000 is recognized with certainty. The networks are tiny and trained for minutes; D
sees no statistics of the batch, which would hide what the objectives do.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
import zipfile
from io import BytesIO
from pathlib import Path

import click
import numpy as np
import torch
from _results import command_line, machine, save_entry
from PIL import Image, ImageDraw, ImageFont

from stylegan_cli.data.dataset import Dataset, open_dataset
from stylegan_cli.data.images import image_grid, save_image, to_uint8
from stylegan_cli.detectors.image_classifier import ImageClassifier
from stylegan_cli.models.generator import Generator
from stylegan_cli.sampling.latents import latents_from_seeds
from stylegan_cli.training.choices import OBJECTIVES
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes.classifier import train_classifier
from stylegan_cli.training.recipes.gan import make_engine

SIZE, KINDS = 16, 10
NUM = 2000  # generated images
CERTAIN = 0.8  # probability of both digits
_NETWORKS = {"channel_base": 256, "channel_max": 32, "mbstd_channels": 0, "z_dim": 64, "w_dim": 64}
_RUN = {"gamma": 1.0, "mixing_prob": 0.0, "lr": 0.003}
REMEDIES: dict[str, dict] = {
    "mode-regularize": {"mode_weight": 1.0},
    "gamma": {"gamma": 10.0},
    "deviation": {"mbstd_channels": 4},  # of the batch: D sees that its images are alike
}


@click.command()
@click.option("--loss", "objectives", multiple=True, type=click.Choice(list(OBJECTIVES)), help="Default: all.")
@click.option("--kimg", default=10.0, show_default=True, help="Length of each run.")
@click.option("--remedy", "remedies", multiple=True, type=click.Choice(list(REMEDIES)), help="Default: all.")
@click.option("--seeds", default=2, show_default=True, help="Number of runs of each kind.")
@click.option("--sheets", type=click.Path(path_type=Path), help="Folder for a sheet of images of each run.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the figures as JSON.")
def main(
    objectives: tuple[str, ...],
    kimg: float,
    remedies: tuple[str, ...],
    seeds: int,
    sheets: Path | None,
    out: Path | None,
) -> None:
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = open_dataset(make_digits(Path(folder) / "digits.zip"))
        classifier = train_classifier(dataset, ["red", "green"], steps=600)
        accuracy = {name: f"{r.accuracy:.3f}" for name, r in classifier.recognition.items()}
        print(f"recognized on real images: {accuracy}", flush=True)
        for loss in objectives or OBJECTIVES:
            found = {}
            for name in ("without", *(remedies or REMEDIES)):
                if (loss, name) == ("wgan", "gamma"):
                    continue
                runs = [measure(dataset, classifier, loss, name, kimg, seed, sheets) for seed in range(seeds)]
                found[name] = {key: sum(run[key] for run in runs) / seeds for key in runs[0]}
                print(f"{loss:12}{name:17}{json.dumps(found[name])}", flush=True)
            rows += [row_of(loss, name, found) for name in found if name != "without"]
            if out:
                facts = machine(torch.device("cpu"))
                save_entry(out, {"command": command_line(sys.argv), "machine": facts, "rows": rows})


def make_digits(path: Path, num: int = 4000) -> Path:
    """Write the dataset."""
    rng, names = np.random.default_rng(0), [f"{i:05d}.png" for i in range(num)]
    digits = rng.integers(0, KINDS, (num, 2))
    with zipfile.ZipFile(path, "w") as z:
        for name, pair in zip(names, digits, strict=True):
            channels = [render_digit(int(kind), rng) for kind in pair]
            buffer = BytesIO()
            Image.fromarray(np.stack([*channels, np.zeros_like(channels[0])], 2)).save(buffer, "PNG")
            z.writestr(name, buffer.getvalue())
        attributes = {color: [str(kind) for kind in digits[:, k]] for k, color in enumerate(("red", "green"))}
        z.writestr("dataset.json", json.dumps({"labels": None, "attributes": attributes}))
    return path


def render_digit(kind: int, rng: np.random.Generator) -> np.ndarray:  # uint8 [SIZE, SIZE]
    """Render a digit at four times the size, and reduce it."""
    image = Image.new("L", (4 * SIZE, 4 * SIZE))
    font = ImageFont.load_default(int(rng.integers(44, 58)))
    place = tuple(2 * SIZE + rng.integers(-8, 9, 2))
    ImageDraw.Draw(image).text(place, str(kind), 255, font, anchor="mm", stroke_width=int(rng.integers(0, 3)))
    return np.asarray(image.reduce(4))


def measure(
    dataset: Dataset,
    classifier: ImageClassifier,
    loss: str,
    remedy: str,
    kimg: float,
    seed: int,
    sheets: Path | None,
) -> dict[str, float]:
    options = {**_NETWORKS, **_RUN, "loss": loss, "seed": seed, "kimg": kimg} | REMEDIES.get(remedy, {})
    options |= {"gamma": 0.0} if loss == "wgan" else {}
    engine = make_engine(make_train_config("demo-stylegan2", dataset.spec, **options), dataset)
    start = time.process_time()
    while engine.shown < kimg * 1000:
        engine.step()
    G = engine.recipe.ema.network
    engine.close()
    images = generate(G)
    if sheets:
        save_image(image_grid(images[:64], 8, scale=4), sheets / f"modes-{loss}-{remedy}-{seed}.png")
    return coverage(images, classifier) | {"seconds": time.process_time() - start}


@torch.no_grad()
def generate(G: Generator) -> torch.Tensor:  # uint8 [NUM, 3, SIZE, SIZE]
    z = latents_from_seeds(range(NUM), G.config.z_dim)
    return torch.cat([to_uint8(G(part)) for part in z.split(250)])


def coverage(images: torch.Tensor, classifier: ImageClassifier) -> dict[str, float]:
    """Modes with an image, the share of images that are recognized with certainty, and the divergence of the modes of
    these from the uniform distribution, in bits."""
    logs = classifier.classify(images)
    both = torch.stack([logs[name].log_softmax(1).exp().amax(1) for name in ("red", "green")], 1)
    modes = logs["red"].argmax(1) * KINDS + logs["green"].argmax(1)
    counts = modes[both.amin(1) >= CERTAIN].bincount(minlength=KINDS**2).double()
    p = counts / counts.sum().clamp_min(1)
    divergence = math.log2(KINDS**2) + (p[p > 0] * p[p > 0].log2()).sum().item()
    return {"modes": float((counts > 0).sum()), "recognized": counts.sum().item() / NUM, "divergence": divergence}


def row_of(loss: str, name: str, found: dict[str, dict[str, float]]) -> dict:
    """A row of a results file."""
    ours, without = found[name], found["without"]
    case = f"{loss}, {name}: {ours['modes']:.1f} of {KINDS**2} modes"
    ratio = {f"without: {without['modes']:.1f}": ours["modes"] / max(without["modes"], 1)}
    return {
        "op": "modes",
        "dtype": "float32",
        "case": case,
        "ratio": ratio,
        "figures": {name: ours, "without": without},
        "wrong": [],
        "failed": [],
    }


if __name__ == "__main__":
    main()
