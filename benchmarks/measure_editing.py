"""Directions from labels, evaluated by an independent classifier.

python benchmarks/measure_editing.py
python benchmarks/measure_editing.py --attributes backgroundColor,bodyColor --random 4

Uses the bundled model, or --model. The judge is trained on different images than the model and the classifier of the
directions (DiceBear with another seed; pip install 'stylegan-cli[demo]'), and classifies images of unused seeds. Random
directions have the same length in W as the direction that they are compared with.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from stylegan_cli.cli.progress import bar
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.demo import make_demo_dataset
from stylegan_cli.detectors.image_classifier import ImageClassifier
from stylegan_cli.inversion.attributes import TEST_STRENGTH, find_from_images
from stylegan_cli.inversion.directions import Directions, sample_w, unit_vectors
from stylegan_cli.inversion.evaluate_directions import evaluate_directions, to_all_layers
from stylegan_cli.models.generator import Generator
from stylegan_cli.progress import Progress
from stylegan_cli.runs import find_model
from stylegan_cli.sampling import counter
from stylegan_cli.snapshot import Snapshot, load_snapshot, open_training_dataset
from stylegan_cli.training.recipes.classifier import open_classifier, train_classifier

FIRST_SEED = 1_000_000  # of the evaluated images


@click.command()
@click.option("--model", metavar="PATH", help="Default: the bundled model.")
@click.option("--attributes", help="Default: all.")
@click.option("--num", default=10_000, show_default=True, help="Number of seeds to find directions from.")
@click.option("--seeds", default=100, show_default=True, help="Number of seeds to evaluate.")
@click.option(
    "--random", "num_random", default=20, show_default=True, help="Number of random directions to compare with."
)
@click.option(
    "--strength", default=TEST_STRENGTH, show_default=True, help="Distance along directions, in standard deviations."
)
@click.option("--images", default=4000, show_default=True, help="Number of images to train the judge on.")
@click.option("--steps", type=int, help="Training steps of both classifiers. Default: their own.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table as JSON.")
def main(
    model: str | None,
    attributes: str | None,
    num: int,
    seeds: int,
    num_random: int,
    strength: float,
    num_images: int,
    steps: int | None,
    out: Path | None,
) -> None:
    snapshot = load_snapshot(find_model(model, "nowhere")[0])
    G, names = snapshot.G, attributes.split(",") if attributes else None
    dataset = open_training_dataset(snapshot.info)
    with bar(quiet=False) as progress:
        classifier = open_classifier(dataset, G.config, names, steps, progress)
    directions = find_from_images(G, classifier, range(G.num_ws), num, names)
    judge = train_judge(snapshot, list(classifier.attributes), num_images, steps)
    with bar(quiet=False) as progress:
        evaluated = range(FIRST_SEED, FIRST_SEED + seeds)
        rows = measure(G, directions, judge, evaluated, num_random, strength, progress)
    print_rows(rows, judge)
    if out:
        out.write_text(json.dumps({"model": snapshot.fingerprint, "strength": strength, "rows": rows}, indent=1))


def train_judge(snapshot: Snapshot, names: list[str], num_images: int, steps: int | None) -> ImageClassifier:
    """Train a classifier on images from a different seed than the bundled dataset."""
    config = snapshot.G.config
    with tempfile.TemporaryDirectory() as folder:
        make_demo_dataset(Path(folder) / "judge.zip", num=num_images, seed=1, workers=1)
        dataset = open_dataset(Path(folder) / "judge.zip", size=(config.height, config.width))
        with bar(quiet=False) as progress:
            return train_classifier(dataset, names, seed=1, steps=steps, progress=progress)


def measure(
    G: Generator,
    directions: Directions,
    judge: ImageClassifier,
    seeds: Sequence[int],
    num_random: int,
    strength: float,
    progress: Progress,
) -> list[dict]:
    """A row per direction: the judge's measurements, and the means for random directions of the same length."""
    ws = to_all_layers(G, sample_w(G, seeds))
    results = evaluate_directions(G, directions, judge, ws, strength, progress)
    random = []
    for i in range(num_random):
        vectors = unit_vectors(
            counter.normal(i, "measure.direction", torch.arange(len(directions)), directions.vectors.shape[1:])
        )
        random_directions = dataclasses.replace(directions, vectors=vectors)
        random.append(evaluate_directions(G, random_directions, judge, ws, strength, progress))
    rows = []
    for k, name in enumerate(directions.names):
        mean = {f"random {f}": sum(r[f][k] for r in random) / max(num_random, 1) for f in results} if num_random else {}
        length = directions.scales[k].item() * strength
        rows.append({"name": name, "length": length, **{f: values[k] for f, values in results.items()}, **mean})
    return rows


def print_rows(rows: list[dict], judge: ImageClassifier) -> None:
    columns = [name for name in rows[0] if name != "name"]
    accuracies = {name: f"{r.accuracy:.2f} ({r.majority:.2f})" for name, r in judge.recognition.items()}
    print("Accuracy of the judge on real images (of guessing the most common value):")
    print(", ".join(f"{name} {accuracy}" for name, accuracy in accuracies.items()))
    print("direction," + ",".join(columns))
    for row in rows:
        print(row["name"] + "," + ",".join(f"{row[name]:.2f}" for name in columns))
    good = [row for row in rows if row["moved"] >= 0.8]
    better = [row for row in good if row["kept"] > row.get("random kept", 0)]
    improved = sorted({row["name"].partition("=")[0] for row in better})
    print(f"{len(rows)} directions; {len(good)} change 80 % of the images; {len(better)} of these preserve more.")
    print(f"Attributes with such a direction: {', '.join(improved)}")


if __name__ == "__main__":
    main()
