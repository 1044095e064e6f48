"""Images with two features that no training image has together: a guide beside other methods.

python benchmarks/measure_two_features.py two --detector vgg16.ckpt

Renders people of the open-peeps style: bald ones without beards, bearded ones with hair, and neither. A base model is
trained on all of them, then fine-tuned on the bearded ones, with and without a critic of baldness. Images with both are
only used to measure. Runs in FOLDER that exist are not repeated. LPIPS is that with VGG16, the kernel distance that of
EfficientNet's features to real images with both. Whether a feature is present is judged by a residual network that no
method has seen.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import torch
from _options import Numbers
from _results import command_line, machine, save_entry
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_cli.cli.call import keep_freed_memory
from stylegan_cli.cli.progress import bar
from stylegan_cli.data.codec import fit, png_bytes, to_channels
from stylegan_cli.data.dataset import Dataset, open_dataset
from stylegan_cli.data.images import image_grid, save_image, to_uint8
from stylegan_cli.data.writer import dataset_writer
from stylegan_cli.detectors import load_detector, load_lpips
from stylegan_cli.inversion.attributes import find_from_images
from stylegan_cli.inversion.evaluate_directions import to_all_layers
from stylegan_cli.metrics.kernel import kernel_distance
from stylegan_cli.models.blending import blend, layer_weights, level_units
from stylegan_cli.models.generator import Generator
from stylegan_cli.runs import latest_snapshot, list_runs
from stylegan_cli.sampling import counter
from stylegan_cli.sampling.critics import save_critic
from stylegan_cli.sampling.latents import latents_from_seeds
from stylegan_cli.snapshot import load_snapshot, read_info
from stylegan_cli.training.recipes.classifier import open_classifier
from stylegan_cli.training.recipes.critic import fit_critic
from stylegan_cli.training.recipes.gan import train
from stylegan_cli.training.recipes.gan_plan import plan_new_run
from stylegan_cli.training.recipes.gan_resume import plan_resumed_run
from stylegan_cli.training.run import RunOptions

SIZE = (32, 32)
BALD = ["noHair1", "noHair2", "noHair3"]
NO_HAIR = [*BALD, "shaved1", "shaved2", "shaved3", "hijab", "bear"]  # or hidden hair
BEARDS = ["chin", "full", "full2", "full3", "full4"]
FEATURES = (("head", "bald"), ("beard", "yes"))
FIRST_SEED = 100_000  # of the measured images
STRENGTHS = (2.0, 4.0, 6.0)  # of edits, in standard deviations


@dataclass
class Judges:
    """What measures images, and the real images with both features."""

    features: Any  # of EfficientNet
    lpips: Any
    network: nn.Module  # says whether each feature is present
    both: Tensor  # features of the real images [N, 1280]

    @torch.no_grad()
    def present(self, images: Tensor) -> Tensor:  # uint8 [N, C, H, W] -> [N, 2] bool
        return torch.cat([self.network(x.float() / 127.5 - 1) > 0 for x in images.split(128)])

    @torch.no_grad()
    def measure(self, images: Tensor) -> dict[str, float]:  # uint8 [N, C, H, W]
        present = self.present(images)
        x = images.float() / 127.5 - 1
        pairs = zip(x.split(64), x.roll(1, 0).split(64), strict=True)
        return {
            "both": present.all(1).double().mean().item(),
            "bald": present[:, 0].double().mean().item(),
            "beard": present[:, 1].double().mean().item(),
            "LPIPS between images": torch.cat([self.lpips(a, b) for a, b in pairs]).mean().item(),
            "kernel distance": kernel_distance(self.both, extract(self.features, images))[0],
        }


@dataclass
class Work:
    """The folder, and the lengths of the runs."""

    folder: Path
    base: float  # kimg
    tuned: float  # kimg
    num: int  # of the measured images
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    images: dict[str, Tensor] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        return self.folder / name

    def run(self, name: str, data: str, kimg: float, start: Path | None = None, **options: Any) -> Path:
        """Train, or go on with a run that was interrupted, unless it is done; return the run folder."""
        runs = self.folder / name
        begun = next(iter(list_runs(runs)), None)
        if begun and (path := latest_snapshot(begun)) and read_info(path).kimg >= kimg:
            return begun
        print(f"training {name}, {kimg:g} kimg", flush=True)
        settings = options | {"kimg": kimg, "snap": max(kimg / 16, 1)}
        if begun:
            plan = plan_resumed_run(begun, {"kimg": kimg})
        else:
            plan = plan_new_run(str(self.path(data)), "demo-stylegan2", start and str(start), **settings)
        return train(plan.config, begun, "cpu", plan.start, RunOptions(quiet=True, runs=str(runs)), plan.dataset)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--detector", metavar="FILE", help="Weights of LPIPS.")
@click.option("--base", default=45.0, show_default=True, help="Length of the base model's run in kimg.")
@click.option("--tuned", default=11.0, show_default=True, help="Length of the fine-tuned models' runs in kimg.")
@click.option(
    "--weights-one", type=Numbers(float), default="4", metavar="W,...", help="Of the critic, with bearded people."
)
@click.option(
    "--weights-both", type=Numbers(float), default="1", metavar="W,...", help="Of both critics, with all people."
)
@click.option("--discriminator-weight", default=0.0, show_default=True, help="Of the critic in D's loss.")
@click.option("--images", default=2000, show_default=True, help="Number of images of each kind of people.")
@click.option("--num", default=512, show_default=True, help="Number of images that are measured.")
@click.option("--only-guided", is_flag=True, help="Leave out conditional training, editing and blending.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the figures as JSON.")
def main(
    folder: Path,
    detector: str | None,
    base: float,
    tuned: float,
    weights_one: Sequence[float],
    weights_both: Sequence[float],
    discriminator_weight: float,
    images: int,
    num: int,
    only_guided: bool,
    out: Path | None,
) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    work = Work(folder, base, tuned, num)
    render_datasets(work, images)
    run = work.run("base", "base.zip", base)
    start = latest_snapshot(run)
    assert start is not None
    plain = work.run("beards", "beards.zip", tuned, start)
    guided = guided_runs(work, run, start, (weights_one, weights_both), discriminator_weight)
    judges = make_judges(work, detector)
    real = open_dataset(work.path("both.zip")).images(range(images // 6, images // 3))  # not seen by the judge
    add(work, judges, "real, both", real[:num])
    add(work, judges, "base model", generate(load_snapshot(start).G, num))
    add(work, judges, "fine-tuned, no guide", of_run(plain, num))
    for name, path in guided.items():
        add(work, judges, name, of_run(path, num))
    report(work, out)
    if not only_guided:
        compare_methods(work, judges, start, plain)
        report(work, out)


def guided_runs(
    work: Work, run: Path, start: Path, weights: Sequence[Sequence[float]], discriminator_weight: float
) -> dict[str, Path]:
    """Fine-tuned on bearded people with a critic of baldness, and on all people with critics of both features."""
    critics = [make_critic(work, run, *feature) for feature in FEATURES]
    runs = {}
    for what, data, chosen, own in (
        ("bearded", "beards.zip", critics[:1], weights[0]),
        ("all", "base.zip", critics, weights[1]),
    ):
        count = "a critic" if len(chosen) == 1 else "two critics"
        for weight in own:
            options = {"guide": chosen, "guide_weight": [weight], "guide_discriminator": [discriminator_weight]}
            path = work.run(f"{what}-{weight:g}-{discriminator_weight:g}", data, work.tuned, start, **options)
            runs[f"{what} people, {count}, W {weight:g}, V {discriminator_weight:g}"] = path
    return runs


def compare_methods(work: Work, judges: Judges, start: Path, plain: Path) -> None:
    """Fine-tuning with both features as labels, editing in the latent space, and models blended layer by layer."""
    for strength, images in edited(work, load_snapshot(start).G):
        add(work, judges, f"edited by {strength:g}", images)
    cond = work.run("cond", "cond.zip", work.tuned, start, cond="labels")
    add(work, judges, "--cond, both requested", generate(of_snapshot(cond), work.num, torch.ones(1, 2)))
    bald = work.run("bald", "bald.zip", work.tuned, start)
    for name, model in blended(of_snapshot(plain), of_snapshot(bald)):
        add(work, judges, name, generate(model, work.num))


def add(work: Work, judges: Judges, name: str, images: Tensor) -> None:
    work.images[name], work.rows[name] = images, judges.measure(images)
    print(f"{name:32s} " + "  ".join(f"{key} {value:.3f}" for key, value in work.rows[name].items()), flush=True)


def report(work: Work, out: Path | None) -> None:
    """Save a grid of each method, and the figures."""
    for name, images in work.images.items():
        save_image(image_grid(images[:24], 8, scale=2, pad=2), work.path(f"grid {name}.png".replace(" ", "-")))
    plain = work.rows["fine-tuned, no guide"]
    rows = []
    for name, figures in work.rows.items():
        ratio = {key: figures[key] / plain[key] for key in ("LPIPS between images", "kernel distance")}
        case = f"{name}: both {figures['both']:.0%}"
        print(case, *(f"{key} {value:.2f}x" for key, value in ratio.items()), sep=", ")
        ratio = {name: value for name, value in ratio.items() if value > 0}  # a kernel distance near 0 may be below it
        row = {"op": "guide", "dtype": "float32", "case": case, "seconds": {}, "ratio": ratio, "figures": figures}
        rows.append(row | {"wrong": [], "failed": {}})
    if out:
        settings = {"base kimg": work.base, "tuned kimg": work.tuned, "images": work.num}
        entry = {"command": command_line(sys.argv), "machine": machine(torch.device("cpu")), "rows": rows}
        save_entry(out, entry | {"settings": settings})


# ---------------------------------------------------------------------------------------------- data


def render_datasets(work: Work, count: int) -> None:
    """Write base.zip (three kinds of people), cond.zip (the same with two numbers as labels), beards.zip, bald.zip and
    both.zip."""
    kinds = {"bald": (True, False), "beard": (False, True), "plain": (False, False)}
    bald, beards, plain = ([(f"{name}-{i}", *kind) for i in range(count)] for name, kind in kinds.items())
    both = [(f"both-{i}", True, True) for i in range(count // 3)]
    mixed = [person for three in zip(bald, beards, plain, strict=True) for person in three]
    for name, people in {"base": mixed, "beards": beards, "bald": bald, "both": both}.items():
        if not work.path(f"{name}.zip").is_file():
            write_dataset(work.path(f"{name}.zip"), rendered(people), people)
    if not work.path("cond.zip").is_file():
        labels = [[float(b), float(x)] for _, b, x in mixed]
        with zipfile.ZipFile(work.path("base.zip")) as z:
            images = [z.read(name) for name in sorted(z.namelist()) if name.endswith(".png")]
        write_dataset(work.path("cond.zip"), images, mixed, labels)


def write_dataset(
    path: Path,
    images: Iterable[bytes],
    people: Sequence[tuple[str, bool, bool]],  # seed, whether bald, whether bearded
    labels: list[list[float]] | None = None,
) -> None:
    attributes = {"head": ["bald" if b else "hair" for _, b, _ in people]}
    attributes |= {"beard": ["yes" if x else "no" for _, _, x in people]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with dataset_writer(path) as writer:
        for png in images:
            writer.add(png)
        writer.finish(labels, attributes, {"source": "DiceBear open-peeps", "classes": ["bald", "beard"]})


def rendered(people: list[tuple[str, bool, bool]]) -> Iterator[bytes]:
    import dicebear_styles
    import resvg_py
    from dicebear import Avatar, Style

    definition = json.loads((files(dicebear_styles) / "open-peeps.json").read_text())
    style = Style(definition)
    hair = [name for name in definition["components"]["head"]["variants"] if name not in NO_HAIR]
    for seed, bald, beard in people:
        options = {"seed": seed, "headVariant": BALD if bald else hair, "facialHairVariant": BEARDS}
        options |= {"facialHairProbability": 100 if beard else 0, "maskProbability": 0}
        svg = Avatar(style, options).to_string()
        png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIZE[1], height=2 * SIZE[0], skip_system_fonts=True)
        with Image.open(io.BytesIO(bytes(png))) as image:
            small = fit(to_channels(image.convert("RGBA"), 3), SIZE, "center", "box")
        yield png_bytes(small, optimize=True)


# ------------------------------------------------------------------------------------------- methods


def make_critic(work: Work, run: Path, attribute: str, value: str) -> str:
    path = work.path(f"critic-{attribute}-{value}.safetensors")
    if not path.is_file():
        with bar(quiet=False) as progress:
            critic = fit_critic(open_dataset(work.path("base.zip")), attribute, value, run, progress=progress)
        save_critic(path, critic)
    return str(path)


def of_snapshot(run: Path) -> Generator:
    path = latest_snapshot(run)
    assert path is not None
    return load_snapshot(path).G


def of_run(run: Path, num: int) -> Tensor:
    return generate(of_snapshot(run), num)


@torch.no_grad()
def generate(G: Generator, num: int, c: Tensor | None = None) -> Tensor:  # uint8 [num, C, H, W]
    z = latents_from_seeds(range(FIRST_SEED, FIRST_SEED + num), G.config.z_dim)
    return torch.cat([to_uint8(G(part, c if c is None else c.expand(len(part), -1))) for part in z.split(64)])


def edited(work: Work, G: Generator) -> Iterator[tuple[float, Tensor]]:
    """Bald people of the base model, moved along its direction of beards."""
    with bar(quiet=False) as progress:
        classifier = open_classifier(open_dataset(work.path("base.zip")), G.config, progress=progress)
        directions = find_from_images(G, classifier, range(G.num_ws), 4000, ["beard"], progress=progress)
    index = directions.settings["values"].index(["beard", "yes"])
    z = latents_from_seeds(range(FIRST_SEED, FIRST_SEED + 6 * work.num), G.config.z_dim)
    ws = to_all_layers(G, torch.cat([G.mapping(part)[:, 0] for part in z.split(256)]))
    heads = classifier.classify(synthesize(G, ws))["head"].argmax(1)
    bald = ws[heads == classifier.attributes["head"].index("bald")][: work.num]
    for strength in STRENGTHS:
        yield strength, synthesize(G, directions.move(bald, index, strength))


@torch.no_grad()
def synthesize(G: Generator, ws: Tensor) -> Tensor:  # uint8 [N, C, H, W]
    return torch.cat([to_uint8(G.synthesis(part)) for part in ws.split(64)])


def blended(beards: Generator, bald: Generator) -> Iterator[tuple[str, Generator]]:
    """Models with the coarse layers of one model and the fine ones of the other; the mapping is that of the coarse."""
    units = level_units(beards.layers, SIZE)
    for level in sorted(set(units))[1:]:
        weights = layer_weights(units, {unit for unit in units if unit >= level})
        for coarse, fine, name in ((bald, beards, "bald"), (beards, bald, "bearded")):
            yield f"blended: {name} below {level}", blend(coarse, fine, weights)


# -------------------------------------------------------------------------------------------- judges


def make_judges(work: Work, detector: str | None) -> Judges:
    device = torch.device("cpu")
    features, lpips = load_detector("efficientnet-lite0", device), load_lpips("vgg", device, detector)
    both = open_dataset(work.path("both.zip"))
    network = train_judge(open_dataset(work.path("base.zip")), both)
    judges = Judges(features, lpips, network, torch.zeros(0))
    judges.both = extract(features, both.images(range(len(both) // 2, len(both))))
    return judges


@torch.no_grad()
def extract(features: Any, images: Tensor) -> Tensor:  # uint8 [N, C, H, W] -> [N, 1280]
    return torch.cat([features(part)["pool"] for part in images.split(32)])


class Residual(nn.Module):
    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.first, self.second = nn.Conv2d(cin, cout, 3, 1, 1), nn.Conv2d(cout, cout, 3, 1, 1)
        self.skip, self.norms = nn.Conv2d(cin, cout, 1), nn.ModuleList([nn.GroupNorm(8, c) for c in (cin, cout)])

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(F.silu(self.norms[0](x)))
        return F.avg_pool2d(self.skip(x) + self.second(F.silu(self.norms[1](y))), 2)


def train_judge(dataset: Dataset, both: Dataset, steps: int = 300) -> nn.Module:
    """A residual network of other widths, normalization, activation and pooling than the critic, with another seed. One
    image in four is of half of the people with both features, which no method sees: without them, it learns that
    bearded people are not bald."""
    torch.manual_seed(1234)
    network = nn.Sequential(
        *(nn.Conv2d(3, 24, 5, 2, 2), Residual(24, 48), Residual(48, 64), nn.GroupNorm(8, 64), nn.SiLU()),
        *(nn.Flatten(), nn.Linear(64 * 16, 2)),
    )
    targets = torch.tensor([[x == value for x in dataset.attributes[name]] for name, value in FEATURES]).T.float()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        order = torch.arange(64 * step, 64 * step + 64)
        index = counter.integers(1234, "judge", order[:48], len(dataset))
        joint = counter.integers(1234, "judge.both", order[48:], len(both) // 2)
        x = torch.cat([dataset.images(index), both.images(joint)]).float() / 127.5 - 1
        x = x + 0.1 * torch.rand(64, 1, 1, 1) * torch.randn_like(x)
        y = torch.cat([targets[index], torch.ones(16, 2)])
        loss = F.binary_cross_entropy_with_logits(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    return network.eval().requires_grad_(False)


if __name__ == "__main__":
    main()
