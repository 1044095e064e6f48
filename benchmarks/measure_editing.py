"""Directions from labels, judged by another classifier than the one that they were found with.

python benchmarks/measure_editing.py
python benchmarks/measure_editing.py --attributes backgroundColor,bodyColor --random 4

For the model that comes with the package, or --model. The judge is trained on other drawings than the model and the
directions' own classifier (DiceBear, another seed; pip install 'stylegan-cli[demo]') and looks at seeds that nothing
was found from. Random directions are as long in W as the one they are compared with.
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
from stylegan_cli.data.demo import draw_set
from stylegan_cli.detectors.image_classifier import ImageClassifier
from stylegan_cli.inversion.attributes import TEST_STRENGTH, find_from_images
from stylegan_cli.inversion.directions import Directions, sample_w, unit_vectors
from stylegan_cli.inversion.evaluate_directions import evaluate_directions, to_all_layers
from stylegan_cli.models.generator import Generator
from stylegan_cli.runs import find_model
from stylegan_cli.sampling import counter
from stylegan_cli.snapshot import Snapshot, load_snapshot, open_training_set
from stylegan_cli.training.recipes.classifier import open_classifier, train_classifier

FIRST_SEED = 1_000_000  # of those that are judged


@click.command()
@click.option("--model", metavar="PATH", help="[default: the one that comes with the package]")
@click.option("--attributes", help="[default: all]")
@click.option("--num", default=10_000, show_default=True, help="Seeds that directions are found from.")
@click.option("--seeds", default=100, show_default=True, help="That are judged.")
@click.option("--random", "draws", default=20, show_default=True, help="Random directions beside each.")
@click.option("--strength", default=TEST_STRENGTH, show_default=True, help="In standard deviations.")
@click.option("--drawings", default=4000, show_default=True, help="That the judge learns from.")
@click.option("--steps", type=int, help="Of both classifiers. [default: theirs]")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table as JSON.")
def main(
    model: str | None,
    attributes: str | None,
    num: int,
    seeds: int,
    draws: int,
    strength: float,
    drawings: int,
    steps: int | None,
    out: Path | None,
) -> None:
    snapshot = load_snapshot(find_model(model, "nowhere")[0])
    G, wanted = snapshot.G, attributes.split(",") if attributes else None
    dataset = open_training_set(snapshot.info)
    with bar(quiet=False) as progress:
        classifier = open_classifier(dataset, G.config, wanted, steps, progress)
    found = find_from_images(G, classifier, range(G.num_ws), num, wanted)
    judge = train_judge(snapshot, list(classifier.attributes), drawings, steps)
    rows = measure(G, found, judge, range(FIRST_SEED, FIRST_SEED + seeds), draws, strength)
    tell(rows, judge)
    if out:
        out.write_text(json.dumps({"model": snapshot.fingerprint, "strength": strength, "rows": rows}, indent=1))


def train_judge(snapshot: Snapshot, names: list[str], drawings: int, steps: int | None) -> ImageClassifier:
    """On drawings of another seed than those of the package."""
    config = snapshot.G.config
    with tempfile.TemporaryDirectory() as folder:
        draw_set(Path(folder) / "judge.zip", num=drawings, seed=1, workers=1)
        dataset = open_dataset(Path(folder) / "judge.zip", size=(config.height, config.width))
        with bar(quiet=False) as progress:
            return train_classifier(dataset, names, seed=1, steps=steps, progress=progress)


def measure(
    G: Generator,
    found: Directions,
    judge: ImageClassifier,
    seeds: Sequence[int],
    draws: int,
    strength: float,
) -> list[dict]:
    """A row for each direction: the judge's figures, and the means of random directions of the same length."""
    ws = to_all_layers(G, sample_w(G, seeds))
    mine = evaluate_directions(G, found, judge, ws, strength)
    random = []
    for i in range(draws):
        vectors = unit_vectors(
            counter.normal(i, "measure.direction", torch.arange(len(found)), found.vectors.shape[1:])
        )
        random.append(evaluate_directions(G, dataclasses.replace(found, vectors=vectors), judge, ws, strength))
    rows = []
    for k, name in enumerate(found.names):
        mean = {f"random {f}": sum(r[f][k] for r in random) / max(draws, 1) for f in mine} if draws else {}
        length = found.scales[k].item() * strength
        rows.append({"name": name, "length": length, **{f: values[k] for f, values in mine.items()}, **mean})
    return rows


def tell(rows: list[dict], judge: ImageClassifier) -> None:
    columns = [name for name in rows[0] if name != "name"]
    recognized = {name: f"{r.accuracy:.2f} ({r.majority:.2f})" for name, r in judge.recognition.items()}
    print("The judge's accuracy on real drawings (guessing the commonest value):")
    print(", ".join(f"{name} {told}" for name, told in recognized.items()))
    print("direction," + ",".join(columns))
    for row in rows:
        print(row["name"] + "," + ",".join(f"{row[name]:.2f}" for name in columns))
    good = [row for row in rows if row["moved"] >= 0.8]
    better = [row for row in good if row["kept"] > row.get("random kept", 0)]
    of = sorted({row["name"].partition("=")[0] for row in better})
    print(
        f"{len(rows)} directions; {len(good)} move 80 % of the images; {len(better)} of these keep the others better."
    )
    print(f"Attributes with such a direction: {', '.join(of)}")


if __name__ == "__main__":
    main()
