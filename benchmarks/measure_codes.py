"""How much the codes of a model that was trained with `sgan train --info 8` say about named attributes.

sgan train --cfg demo-stylegan2 --info 8 --info-continuous 2
python benchmarks/measure_codes.py runs/00000-critters64-demo-stylegan2

The attributes of generated images are those that a classifier of the dataset recognizes; it never saw a code. A number
of z is cut into eighths. The bound is the smaller entropy; what shuffled codes seem to say is chance.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import torch
from _results import command_line, machine, save_entry
from torch import Tensor

from stylegan_cli.cli.progress import bar
from stylegan_cli.inversion.directions import sample_w
from stylegan_cli.inversion.evaluate_directions import classify_latents, to_all_layers
from stylegan_cli.runs import find_model
from stylegan_cli.sampling import counter
from stylegan_cli.sampling.labels import class_labels
from stylegan_cli.sampling.latents import latents_from_seeds
from stylegan_cli.session import Session
from stylegan_cli.snapshot import open_training_dataset
from stylegan_cli.training.recipes.classifier import open_classifier

BINS = 8  # of a number of z
KEPT = 3  # attributes of each code in a results file
MIN_SKILL = 0.3  # attributes that the classifier recognizes worse on real images are not used


@click.command()
@click.argument("model")
@click.option("--num", default=4000, show_default=True, help="Number of generated images.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the figures as JSON.")
def main(model: str, num: int, out: Path | None) -> None:
    torch.set_num_threads(1)
    session = Session(find_model(model, "nowhere")[0])
    G, dataset = session.G, open_training_dataset(session.info)
    assert dataset is not None
    with bar(quiet=False) as progress:
        classifier = open_classifier(dataset, G.config, progress=progress)
        seeds = range(num)
        found = classify_latents(G, to_all_layers(G, sample_w(G, seeds)), classifier, progress)
    values = {name: logs.argmax(1) for name, logs in found.items() if classifier.recognition[name].skill >= MIN_SKILL}
    rows = []
    print(f"{'code':6}{'attribute':20}{'bits':>7}{'bound':>7}{'shuffled':>10}")
    for code, chosen in codes_of(session, seeds).items():
        shuffled = chosen[counter.uniform(0, "codes.shuffle", torch.arange(num)).argsort()]
        ranked = sorted(values.items(), key=lambda item: -mutual_information(chosen, item[1]))
        for place, (name, attribute) in enumerate(ranked):
            bits, chance = mutual_information(chosen, attribute), mutual_information(shuffled, attribute)
            bound = min(entropy(chosen), entropy(attribute))
            print(f"{code:6}{name:20}{bits:7.3f}{bound:7.3f}{chance:10.3f}")
            rows += [row_of(code, name, bits, bound, chance)] if place < KEPT else []
    if out:
        about = {"kimg": session.info.kimg, "images": num, "origin": session.info.origin}
        entry = {"command": command_line(sys.argv), "machine": machine(session.device), "model": about, "rows": rows}
        save_entry(out, entry)


def codes_of(session: Session, seeds: range) -> dict[str, Tensor]:  # [N] int64 each
    codes, found = session.G.label_space.codes, {}
    if codes.values and (labels := class_labels(None, seeds, session.G.label_space)) is not None:
        found["code"] = labels.argmax(1)
    z = latents_from_seeds(seeds, session.G.config.z_dim)[:, : codes.numbers]
    ranks = z.argsort(0).argsort(0) * BINS // max(len(z), 1)
    return found | {f"z{i}": ranks[:, i] for i in range(codes.numbers)}


def mutual_information(a: Tensor, b: Tensor) -> float:  # [N] int64 each -> bits
    return entropy(a) + entropy(b) - entropy(a * (b.max() + 1) + b)


def entropy(a: Tensor) -> float:  # [N] int64 -> bits
    p = a.bincount().double() / len(a)
    return -(p[p > 0] * p[p > 0].log2()).sum().item()


def row_of(code: str, name: str, bits: float, bound: float, chance: float) -> dict:
    """A row of a results file."""
    return {
        "op": "codes",
        "dtype": "float32",
        "case": f"{code} and {name}: {bits:.2f} of {bound:.2f} bits",
        "ratio": {"shuffled codes": bits / max(chance, 1e-9)},
        "figures": {"bits": bits, "bound": bound, "shuffled": chance},
        "wrong": [],
        "failed": [],
    }


if __name__ == "__main__":
    main()
