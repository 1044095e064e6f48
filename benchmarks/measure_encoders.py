"""An encoder against optimization, on images that it has not seen; and whether its latents can be edited.

python benchmarks/measure_encoders.py
python benchmarks/measure_encoders.py --encoder runs/00000-critters64-encoder --searched 8
python benchmarks/measure_encoders.py --overfit 10

Uses the bundled model and its encoder, or --model and --encoder. LPIPS is that with VGG16, whose weights are downloaded
once or taken from --detector. Times are of the processor, with one thread.
"""

from __future__ import annotations

import functools
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from _results import command_line, machine, save_entry
from torch import Tensor

from stylegan_cli.cli.call import keep_freed_memory
from stylegan_cli.cli.progress import bar
from stylegan_cli.data.dataset import Dataset
from stylegan_cli.data.images import save_image, to_rgb, to_uint8
from stylegan_cli.detectors import load_lpips
from stylegan_cli.detectors.distances import FeatureLoss
from stylegan_cli.detectors.image_classifier import ImageClassifier
from stylegan_cli.detectors.lpips import Lpips
from stylegan_cli.inversion.attributes import TEST_STRENGTH, find_from_images
from stylegan_cli.inversion.directions import sample_w
from stylegan_cli.inversion.evaluate_directions import classify_latents, to_all_layers
from stylegan_cli.inversion.projector import ProjectionOptions, Start, project
from stylegan_cli.runs import find_model
from stylegan_cli.session import Session
from stylegan_cli.session.encode import latents_of, open_encoder
from stylegan_cli.snapshot import open_training_dataset
from stylegan_cli.training.recipes.classifier import open_classifier
from stylegan_cli.training.recipes.encoder_run import fit_encoder, plan_new_encoder
from stylegan_cli.training.recipes.fitting import split
from stylegan_cli.training.run import RunOptions

FIRST_SEED = 1_000_000  # of the edited images
NUM = 10_000  # of random latents that directions are found from


@click.command()
@click.option("--model", metavar="PATH", help="Default: the bundled model.")
@click.option("--encoder", metavar="PATH", help="Default: the newest one for the model, else the bundled one.")
@click.option("--detector", metavar="FILE", help="Weights of LPIPS.")
@click.option("--searched", default=8, show_default=True, help="Number of images that are also projected; 0: none.")
@click.option("--edited", default=64, show_default=True, help="Number of seeds that are edited; 0: none.")
@click.option("--overfit", type=int, help="Only fit a new encoder to this number of images, and measure it on them.")
@click.option("--kimg", default=60.0, show_default=True, help="Length of that run.")
@click.option("--loss", help="Loss of that run. Default: that of `sgan encoder fit`.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the figures as JSON.")
def main(
    model: str | None,
    encoder: str | None,
    detector: str | None,
    searched: int,
    edited: int,
    overfit: int | None,
    kimg: float,
    loss: str | None,
    out: Path | None,
) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    session = Session(find_model(model, "nowhere")[0])
    lpips = load_lpips("vgg", session.device, detector)
    if overfit:
        figures = measure_overfitting(session, lpips, overfit, kimg, loss, detector)
    else:
        found = open_encoder(session, encoder, "runs")
        dataset = open_training_dataset(session.info)
        assert dataset is not None and found.info is not None
        images = held_out(dataset, int(found.info.held_out["images"])).to(session.device)
        encode = functools.partial(latents_of, session, found)
        figures = {"kimg": found.info.kimg, "images": len(images)}
        figures |= measure_reconstruction(session, encode, images, lpips)
        with bar(quiet=False) as progress:
            classifier = open_classifier(dataset, session.G.config, progress=progress)
        figures |= measure_attributes(session, classifier, encode, images)
        if searched:
            figures |= measure_search(session, encode, images[:searched], lpips)
        if edited:
            figures |= measure_editing(session, classifier, encode, lpips, edited)
    for name, value in figures.items():
        print(f"{name:45s} {value:.4g}")
    if out:
        save_entry(
            out, {"command": command_line(sys.argv), "machine": machine(session.device), "rows": [row_of(figures)]}
        )


def row_of(figures: dict[str, float]) -> dict:
    """A row of a results file: the encoder beside 400 steps of projection."""
    alone, found = (figures.get(f"{name}: LPIPS", math.nan) for name in ("encoder, searched images", "400 steps"))
    seconds = {"ours": figures.get("encoder: ms per image", math.nan) / 1000}
    seconds["projection"] = figures.get("400 steps: seconds per image", math.nan)
    return {
        "op": "encoder",
        "dtype": "float32",
        "case": f"encoder, per image in batches of 64: LPIPS {alone:.3f}, of the projection {found:.3f}",
        "seconds": seconds,
        "ratio": {"w+ projection": seconds["projection"] / seconds["ours"]},
        "figures": figures,
        "wrong": [],
        "failed": {},
    }


def held_out(dataset: Dataset, count: int) -> Tensor:  # [count, C, H, W] in [-1, 1]
    """The images that a run with seed 0 does not train on."""
    return dataset.images(split(0, len(dataset), count)[0]).float() / 127.5 - 1


def compare(lpips: Lpips, a: Tensor, b: Tensor) -> Tensor:  # [N, C, H, W] -> [N]
    with torch.no_grad():
        parts = zip(a.clamp(-1, 1).split(64), b.split(64), strict=True)
        return torch.cat([lpips(to_rgb(x), to_rgb(y)) for x, y in parts])


def psnr(a: Tensor, b: Tensor) -> float:  # [N, C, H, W] -> mean in dB
    error = (to_uint8(a).float() - to_uint8(b).float()).square().mean((1, 2, 3)).clamp_min(1e-4)
    return (10 * (255**2 / error).log10()).mean().item()


@torch.no_grad()
def measure_reconstruction(
    session: Session, encode: Callable[[Tensor], Tensor], images: Tensor, lpips: Lpips
) -> dict[str, float]:
    encode(images[:64])
    start = time.process_time()
    ws = torch.cat([encode(part) for part in images.split(64)])
    seconds = (time.process_time() - start) / len(images)
    found = session.G.synthesis(ws)
    mean = session.G.synthesis(session.G.mapping.w_avg.expand(1, session.G.num_ws, -1)).expand_as(images)
    return {
        "encoder: LPIPS": compare(lpips, found, images).mean().item(),
        "encoder: PSNR in dB": psnr(found, images),
        "encoder: ms per image": seconds * 1000,
        "mean latent: LPIPS": compare(lpips, mean, images).mean().item(),
    }


@torch.no_grad()
def measure_attributes(
    session: Session, classifier: ImageClassifier, encode: Callable[[Tensor], Tensor], images: Tensor
) -> dict[str, float]:
    """How often the classifier reads the same value from an image and from its reconstruction."""
    real = classifier.classify(to_uint8(images))
    found = classifier.classify(to_uint8(session.G.synthesis(encode(images))))
    same = {name: (real[name].argmax(1) == found[name].argmax(1)).double().mean().item() for name in real}
    return {f"same {name}": value for name, value in same.items()}


def measure_search(
    session: Session, encode: Callable[[Tensor], Tensor], images: Tensor, lpips: Lpips
) -> dict[str, float]:
    """The encoder beside optimization with the discriminator's distance."""
    assert session.D is not None
    loss, figures = FeatureLoss(session.D.features), {}
    ws = encode(images)
    alone = compare(lpips, session.G.synthesis(ws), images).mean().item()
    figures["encoder, searched images: LPIPS"] = alone
    for steps, start in ((400, None), (100, None), (100, Start(ws))):
        begin = time.process_time()
        options = ProjectionOptions(space="w+", steps=steps, candidates=None if start is None else 0)
        result = project(session.G, images, loss, options, start=start)
        seconds = (time.process_time() - begin) / len(images)
        with torch.no_grad():
            found = session.G.synthesis(result.ws, noise=result.noise or "const")
        name = f"{'encoder and ' if start else ''}{steps} steps"
        figures[f"{name}: LPIPS"] = compare(lpips, found, images).mean().item()
        figures[f"{name}: discriminator distance"] = result.distance.mean().item()
        figures[f"{name}: seconds per image"] = seconds
    figures["encoder: LPIPS over that of 400 steps"] = alone / figures["400 steps: LPIPS"]
    return figures


def measure_editing(
    session: Session, classifier: ImageClassifier, encode: Callable[[Tensor], Tensor], lpips: Lpips, count: int
) -> dict[str, float]:
    """Seeds are edited, encoded, and edited back; and edits of encoded images are compared with edits of seeds."""
    G = session.G
    directions = find_from_images(G, classifier, range(G.num_ws), NUM)
    seeds = to_all_layers(G, sample_w(G, range(FIRST_SEED, FIRST_SEED + count)))
    values = directions.settings["values"]
    with torch.no_grad():
        original = G.synthesis(seeds).clamp(-1, 1)
        encoded = encode(original)
        plain = compare(lpips, G.synthesis(encoded), original).mean().item()
        back, reached = [], {"seeds": [], "encoded": []}
        for index, (name, value) in enumerate(values):
            edited = G.synthesis(directions.move(seeds, index, 2.0)).clamp(-1, 1)
            back.append(
                compare(lpips, G.synthesis(directions.move(encode(edited), index, -2.0)), original).mean().item()
            )
            k = classifier.attributes[name].index(value)
            for kind, ws in (("seeds", seeds), ("encoded", encoded)):
                lacks = classify_latents(G, ws, classifier)[name].argmax(1) != k
                after = classify_latents(G, directions.move(ws, index, TEST_STRENGTH), classifier)[name].argmax(1) == k
                reached[kind].append(after[lacks].double().mean().item() if lacks.any() else 1.0)
    means = {kind: sum(numbers) / len(numbers) for kind, numbers in reached.items()}
    return {
        "generated images: LPIPS": plain,
        "edited by 2, encoded, edited back: LPIPS": sum(back) / len(back),
        "ratio": sum(back) / len(back) / plain,
        "edits of seeds that reach the value": means["seeds"],
        "edits of encoded images that reach it": means["encoded"],
        "ratio of the two": means["encoded"] / means["seeds"],
    }


def measure_overfitting(
    session: Session, lpips: Lpips, count: int, kimg: float, loss: str | None, detector: str | None
) -> dict[str, float]:
    """Fit an encoder to a few images, and measure it on the same."""
    dataset = open_training_dataset(session.info)
    assert dataset is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "few"
        path.mkdir()
        for i, image in enumerate(dataset.images(range(count))):
            save_image(image, path / f"{i}.png")
        file = detector if loss == "lpips" else None
        options = {"held_out": 0, "kimg": kimg, "snap": kimg, "loss": loss, "detector": file}
        plan = plan_new_encoder(session.snapshot, str(path), **options)
        start = time.process_time()
        quiet = RunOptions(quiet=True, runs=folder)
        run = fit_encoder(plan.config, None, str(session.device), quiet, plan.dataset)
        seconds = time.process_time() - start
        encoder = open_encoder(session, run, folder)
        images = dataset.images(range(count)).float() / 127.5 - 1
        with torch.no_grad():
            found = session.G.synthesis(latents_of(session, encoder, images))
    return {
        "images": count,
        "kimg": kimg,
        "seconds": seconds,
        "LPIPS": compare(lpips, found, images).mean().item(),
        "PSNR in dB": psnr(found, images),
    }


if __name__ == "__main__":
    main()
