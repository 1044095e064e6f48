"""Segmenters fitted to five annotated images, on images that neither they nor their masks come from; and images made
from masks.

python benchmarks/measure_segmentation.py
python benchmarks/measure_segmentation.py --model runs/00000-critters64-demo --steps 300
python benchmarks/measure_segmentation.py --write masks
python benchmarks/measure_segmentation.py --images 0 --memory
python benchmarks/measure_segmentation.py --images 0 --segmenter out/segmenter.safetensors --encoder runs/00000-mask

Images are DiceBear critters with exact masks of five parts (`_parts.py`), for a model that was trained on such. Latents
are found as by `sgan segment IMAGE`. All figures are intersections over union of all pixels together, at the size of
the model; medians over choices of the five images. Times are of the processor, with one thread. Memory is what
`sgan segment fit` as a process of its own has in use at most, with a model of 256x256 that was not trained.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch
from _parts import CLASSES, render_parts
from _results import command_line, machine, save_entry
from torch import Tensor

from stylegan_cli.cli.call import keep_freed_memory
from stylegan_cli.cli.progress import bar
from stylegan_cli.data.images import to_uint8
from stylegan_cli.inversion.refine import refine
from stylegan_cli.inversion.segmentation import UNKNOWN, Example, Overlap, fit, read_samples
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.runs import find_model
from stylegan_cli.sampling import regions
from stylegan_cli.sampling.degrade import Mask
from stylegan_cli.sampling.segmenter import Linear, class_maps
from stylegan_cli.session import Session
from stylegan_cli.session.encode import latents_of, open_encoder
from stylegan_cli.session.fit_segmenter import SearchOptions, search_latents
from stylegan_cli.session.segment import open_segmenter
from stylegan_cli.snapshot import SnapshotInfo, save_snapshot

NUM = 5  # annotated images
SIZE, LIMIT = 256, 2.0  # of the model whose memory is measured; GB that should be enough
COLORS = tuple(sorted(CLASSES.values()))
NAMES = [name for color in COLORS for name in CLASSES if CLASSES[name] == color]


@click.command()
@click.option("--model", metavar="PATH", help="Default: the bundled model.")
@click.option("--images", "count", default=64, show_default=True, help="Number of images with masks.")
@click.option("--choices", default=5, show_default=True, help="Number of choices of the annotated ones.")
@click.option("--steps", type=int, help="Of the search for latents. Default: as `sgan segment`.")
@click.option("--points", default=5, show_default=True, help="Annotated pixels of each class in sparse masks.")
@click.option("--write", type=click.Path(path_type=Path), help="Only write five images with masks to a folder.")
@click.option("--memory", is_flag=True, help="Also measure the memory of `sgan segment fit`.")
@click.option("--segmenter", metavar="FILE", help="For --encoder and --sparse-encoder.")
@click.option("--encoder", metavar="PATH", help="Of `sgan translate fit --task mask --segmenter`; measured too.")
@click.option("--sparse-encoder", metavar="PATH", help="The same with --sparse.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the figures as JSON.")
def main(
    model: str | None,
    count: int,
    choices: int,
    steps: int | None,
    points: int,
    write: Path | None,
    memory: bool,
    segmenter: str | None,
    encoder: str | None,
    sparse_encoder: str | None,
    out: Path | None,
) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    session = Session(find_model(model, "nowhere")[0])
    if write is not None:
        return write_annotated(write, session.G.config.height)
    images, maps = render(session, max(count, 64))
    figures: dict[str, float] = {"images": count, "size": session.G.config.height}
    if count:
        start = time.process_time()
        with bar(quiet=False) as progress:
            ws, source = search_latents(session, SearchOptions(runs="nowhere", steps=steps), images[:count], progress)
        figures["seconds per image"] = (time.process_time() - start) / count
        print(f"latents: {source}")
        figures |= measure_choices(session, ws, images[:count], maps[:count], choices, points)
    for name, path in (("", encoder), (f"{points} points: ", sparse_encoder)):
        if path:
            figures |= measure_translation(session, segmenter, path, maps, points if name else None, name)
    figures |= measure_memory() if memory else {}
    for name, value in figures.items():
        print(f"{name:50s} {value:.4g}")
    if out:
        rows = rows_of(figures, points)
        save_entry(out, {"command": command_line(sys.argv), "machine": machine(session.device), "rows": rows})


def rows_of(figures: dict[str, float], points: int) -> list[dict]:
    """Rows of a results file: a linear classifier beside class means, points beside whole masks."""
    size, rows = f"{figures['size']:.0f}x{figures['size']:.0f}", []

    def add(case: str, name: str, part: str, against: dict[str, str]) -> None:
        if f"{name}: {part}" in figures:
            values = {other: figures[f"{name}: {part}"] / figures[f"{key}: {part}"] for other, key in against.items()}
            case = f"{case}: {part} {figures[f'{name}: {part}']:.2f}"
            about = {"op": "segmentation", "dtype": "float32", "case": case, "seconds": {}, "ratio": values}
            rows.append({**about, "figures": figures, "wrong": [], "failed": {}})

    few, both = f"{points} points", "background and body"
    others = {"class means": "nearest", "not refined": "linear, not refined"}
    for part in ("background", "body", "mean"):
        add(f"sgan segment, {NUM} whole masks of {size}", "linear", part, others)
    add(f"sgan segment, {few} a class in {NUM} masks of {size}", f"{few}, linear", "mean", {"whole masks": "linear"})
    add("sgan translate: mask, image, mask", "mask, image, mask", both, {"the image searched": "searched"})
    whole = {"whole masks": "mask, image, mask"}
    add(f"sgan translate, {few} a class: mask, image, mask", f"{few}: mask, image, mask", both, whole)
    for way in ("generated", "searched"):
        if f"GB, {way}" in figures:
            value, limit = figures[f"GB, {way}"], {f"a limit of {LIMIT:g} GB": figures[f"GB, {way}"] / LIMIT}
            case = f"memory of sgan segment fit, {NUM} {way} images of {SIZE}x{SIZE}: {value:.2f} GB"
            about = {"op": "segmentation", "dtype": "float32", "case": case, "seconds": {}, "ratio": limit}
            rows.append({**about, "figures": figures, "wrong": [], "failed": {}})
    return rows


def write_annotated(folder: Path, size: int) -> None:
    """The images that a segmenter for --segmenter is fitted to."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(NUM):
        image, mask = render_parts(f"annotated-{i}", size)
        image.save(folder / f"{i}.png")
        mask.save(folder / f"{i}.mask.png")


def render(
    session: Session,
    count: int,
) -> tuple[Tensor, Tensor]:  # [N, C, H, W] in [-1, 1], [N, H, W] int64
    """Images that are in no dataset of `sgan data demo`, and the classes of their pixels."""
    palette = np.array([list(bytes.fromhex(color[1:])) for color in COLORS])
    images, maps = [], []
    for i in range(count):
        image, mask = render_parts(f"held-out-{i}", session.G.config.height)
        images.append(np.asarray(image).transpose(2, 0, 1))
        maps.append((np.asarray(mask)[:, :, None] == palette).all(3).argmax(2))
    return torch.from_numpy(np.stack(images)).float() / 127.5 - 1, torch.from_numpy(np.stack(maps))


def measure_choices(
    session: Session, ws: Tensor, images: Tensor, maps: Tensor, choices: int, points: int
) -> dict[str, float]:
    """Each choice of the annotated images, with each method, on all other images; refined as by `sgan segment`, and
    without."""
    found: dict[str, list[list[float]]] = {}
    G = session.G
    for choice in range(choices):
        chosen = torch.randperm(len(ws), generator=torch.Generator().manual_seed(choice))[:NUM].tolist()
        rest = [i for i in range(len(ws)) if i not in chosen]
        whole = [Example(ws[i : i + 1], maps[i]) for i in chosen]
        sparse = [Example(e.ws, some_points(e.labels, points, choice)) for e in whole]
        for name, examples, method in (
            ("linear", whole, "linear"),
            ("nearest", whole, "nearest"),
            (f"{points} points, linear", sparse, "linear"),
            (f"{points} points, nearest", sparse, "nearest"),
        ):
            linear = fit(G, read_samples(G, examples), len(COLORS), method)
            overlap, alone = Overlap(len(COLORS)), Overlap(len(COLORS))
            for part in torch.tensor(rest).split(32):
                _, logits = read(session, linear, ws[part])
                overlap.add(class_maps(refine(logits, images[part])), maps[part])
                alone.add(class_maps(logits), maps[part])
            for way, result in (("", overlap), (", not refined", alone)):
                found.setdefault(f"{name}{way}", []).append([*(v or 0.0 for v in result.values), result.mean])
    return {
        f"{name}: {part}": statistics.median(row[k] for row in rows)
        for name, rows in found.items()
        for k, part in enumerate([*NAMES, "mean"])
    }


def some_points(labels: Tensor, count: int, seed: int) -> Tensor:  # [H, W] -> [H, W]
    flat, generator = labels.flatten(), torch.Generator().manual_seed(seed)
    result = torch.full_like(flat, UNKNOWN)
    for k in flat.unique():
        places = (flat == k).nonzero()[:, 0]
        chosen = places[torch.randperm(len(places), generator=generator)[:count]]
        result[chosen] = k
    return result.reshape(labels.shape)


def measure_translation(
    session: Session,
    segmenter: str | None,
    path: str,  # of the encoder
    maps: Tensor,  # [N, H, W]
    points: int | None,  # that the encoder sees of each class; None: all
    name: str,
) -> dict[str, float]:
    """Masks to images, and back to masks: by the segmenter from the latents of the image, and from those that are found
    for its pixels as for any other image."""
    reader, encoder = open_segmenter(session, segmenter), open_encoder(session, path, "runs", "mask")
    assert encoder.info is not None
    task = Mask(COLORS)
    seen = maps if points is None else torch.stack([some_points(m, points, i) for i, m in enumerate(maps)])
    inputs = task.channels_of(torch.where(seen == UNKNOWN, regions.UNKNOWN, seen))
    ws = torch.cat([latents_of(session, encoder, part) for part in inputs.split(32)])
    images, logits = read(session, reader.linear, ws)
    pixels = to_uint8(images).float() / 127.5 - 1
    again, _ = search_latents(session, SearchOptions(runs="nowhere"), pixels)
    figures = {}
    for way, found in (
        ("mask, image, mask", logits),
        ("searched", refine(read(session, reader.linear, again)[1], pixels)),
    ):
        overlap = Overlap(len(COLORS))
        overlap.add(class_maps(found), maps)
        values = dict(zip(NAMES, overlap.values, strict=True))
        figures |= {f"{name}{way}: {part}": value or 0.0 for part, value in values.items()}
        figures[f"{name}{way}: background and body"] = ((values["background"] or 0) + (values["body"] or 0)) / 2
    return figures


def measure_memory() -> dict[str, float]:
    """The most memory that fitting to five images takes, in 10^9 bytes: images whose metadata names their seeds, and
    images whose latents are searched. More steps of the search take as much."""
    torch.manual_seed(0)
    generator, discriminator = (
        StyleGAN2Config(SIZE, SIZE, channel_base=16384),
        LevelsDiscriminatorConfig(SIZE, SIZE, channel_base=16384),
    )
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        model, masks = Path(folder, "model.safetensors"), Path(folder, "masks")
        networks = build_generator(generator), build_discriminator(discriminator)
        save_snapshot(model, *networks, SnapshotInfo(generator, discriminator))
        write_annotated(masks, SIZE)
        searched = ["--steps", "2"]
        figures["GB, searched"] = peak_of("segment", "fit", "--annotated", masks, "--model", model, *searched)
        peak_of("generate", "--seeds", f"0-{NUM - 1}", "--model", model, "--outdir", masks)
        for i in range(NUM):
            (masks / f"seed{i:04d}.png").rename(masks / f"{i}.png")
        figures["GB, generated"] = peak_of("segment", "fit", "--annotated", masks, "--model", model)
    return figures


def peak_of(
    *words: str | Path,
) -> float:  # 10^9 bytes
    """Run a command of `sgan` with one thread. Raises RuntimeError if it fails."""
    line = [sys.executable, "-m", "stylegan_cli", *map(str, words), "-q"]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"sgan {' '.join(map(str, words))} failed")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


@torch.no_grad()
def read(session: Session, linear: Linear, ws: Tensor) -> tuple[Tensor, Tensor]:
    return linear.read(session.G.synthesis, ws)


if __name__ == "__main__":
    main()
