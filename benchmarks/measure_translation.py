"""An encoder for a task against simple filters and a plain encoder, on images that it has not seen.

python benchmarks/measure_translation.py runs/00000-critters64-superres
python benchmarks/measure_translation.py runs/00001-critters64-restore --plain runs/00002-critters64-encoder
python benchmarks/measure_translation.py runs/00003-images-pairs --rival runs/00004-images-pix2pix

make_pairs.py makes the source of the last one. LPIPS is that with VGG16, whose weights are downloaded once or taken
from --detector.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import click
import torch
from _results import command_line, machine, save_entry
from measure_encoders import compare
from PIL import Image, ImageFilter
from torch import Tensor

from stylegan_cli.cli.params import STYLES
from stylegan_cli.data.codec import from_array, to_array
from stylegan_cli.data.images import to_rgb, to_uint8
from stylegan_cli.detectors import load_lpips
from stylegan_cli.runs import latest_snapshot
from stylegan_cli.runs.records import read_config
from stylegan_cli.sampling.degrade import SuperResolution, Task, make_task, reduce
from stylegan_cli.sampling.generate import SamplingOptions, map_seeds
from stylegan_cli.sampling.mixing import style_indices
from stylegan_cli.sampling.translators import load_translator
from stylegan_cli.session import Session
from stylegan_cli.session.encode import latents_of, open_encoder
from stylegan_cli.session.translate import default_styles, vary
from stylegan_cli.training.encoder_config import read_encoder_config
from stylegan_cli.training.pix2pix_config import read_pix2pix_config
from stylegan_cli.training.recipes.encoder_report import psnr
from stylegan_cli.training.recipes.encoder_run import open_data_of
from stylegan_cli.training.recipes.fitting import split
from stylegan_cli.training.recipes.fitting_run import reopen_pairs

MEDIAN = 3  # pixels of the median filter
VARIED = 64  # images of which five results are compared


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--plain", metavar="PATH", help="An encoder of images, which sees what the task makes of them.")
@click.option("--rival", type=click.Path(path_type=Path), help="A run of pix2pix on the same pairs.")
@click.option("--num", default=128, show_default=True, help="Number of held-out images.")
@click.option("--styles", type=STYLES, help="Styles of five different results. Default: the upper half.")
@click.option("--detector", metavar="FILE", help="Weights of LPIPS.")
@click.option("--out", type=click.Path(path_type=Path), help="Also add the figures to a results file.")
@torch.no_grad()
def main(
    run: Path,
    plain: str | None,
    rival: Path | None,
    num: int,
    styles: str | list[int] | None,
    detector: str | None,
    out: Path | None,
) -> None:
    torch.set_num_threads(1)
    config = read_encoder_config(read_config(run))
    session, data = Session(config.model), open_data_of(config)
    encoder = open_encoder(session, latest_snapshot(run), "runs", config.task)
    assert encoder.info is not None
    lpips, task = load_lpips("vgg", session.device, detector), make_task(config.task, config.task_options)
    index = split(config.seed, len(data), min(config.held_out, num))[0]
    rows = data.images(index).float() / 127.5 - 1
    images, inputs = rows[:, : config.data.channels], task(rows, config.seed, index)
    found_in: list[list[Tensor]] = []  # features of each part
    ws = torch.cat([latents_of(session, encoder, part, found_in) for part in inputs.split(64)])
    features = [torch.cat(levels) for levels in zip(*found_in[encoder.network.passes - 1 :: encoder.network.passes])]

    def synthesize(ws: Tensor) -> Tensor:
        if encoder.skips is None:
            return session.G.synthesis(ws)
        return encoder.skips(ws, [x[: len(ws)] for x in features])

    found = {"result": task.completed(synthesize(ws), inputs)}
    if not task.needs_source:
        found |= baselines(task, images, inputs)
    if plain is not None:
        other = open_encoder(session, plain, "runs")
        plain_ws = latents_of(session, other, task.shown(inputs))
        found["plain encoder"] = task.completed(session.G.synthesis(plain_ws), inputs)
    five: dict[str, list[Tensor]] = {}
    if rival is not None:
        found |= translated(rival, index, images, inputs)
        translator = load_translator(latest_snapshot(rival))
        five["pix2pix"] = [translator.translate(inputs[:VARIED], seed) for seed in (None, *range(4))]
    figures = {f"LPIPS: {name}": compare(lpips, x, images).mean().item() for name, x in found.items()}
    figures |= reduced(task, found, images)
    chosen = style_indices(session.G.layers, styles) if styles else default_styles(task, session.G)
    four, some = map_seeds(session.G, range(4), SamplingOptions()), inputs[:VARIED]
    varied = vary(session, encoder, task, some, ws[:VARIED], four, chosen, synthesize)
    five["result"] = [task.completed(synthesize(x), some) for x in varied.unbind(1)]
    for name, results in five.items():
        distances = [compare(lpips, a, b).mean() for a, b in itertools.combinations(results, 2)]
        which = "" if name == "result" else f": {name}"
        figures[f"LPIPS between five results{which}"] = torch.stack(distances).mean().item()
    if rival is not None:
        figures |= {f"PSNR: {name}": psnr(images, x).mean().item() for name, x in found.items()}
    figures |= {"kimg": encoder.info.kimg, "images": len(images)}
    for name, value in figures.items():
        print(f"{name:45s} {value:.4g}")
    if out:
        row = row_of(task, figures, "skips, " if encoder.info.skips else "")
        save_entry(out, {"command": command_line(sys.argv), "machine": machine(session.device), "rows": [row]})


def reduced(task: Task, found: dict[str, Tensor], images: Tensor) -> dict[str, float]:
    """Of super-resolution: how much the results differ when they are made small again."""
    if not isinstance(task, SuperResolution):
        return {}
    figures = {}
    for name in {"result", "plain encoder"} & found.keys():
        difference = reduce(found[name], task.factor) - reduce(images, task.factor)
        figures[f"RMS after reduction: {name}"] = (difference / 2).square().mean((1, 2, 3)).sqrt().mean().item()
    return figures


def translated(run: Path, index: Tensor, images: Tensor, inputs: Tensor) -> dict[str, Tensor]:
    """Translations of pix2pix, without dropout and with that of a seed. Both runs have to hold out the same pairs."""
    config, translator = read_pix2pix_config(read_config(run)), load_translator(latest_snapshot(run))
    pairs = reopen_pairs(config.data, config.source)
    held_out = split(config.seed, len(pairs), config.held_out)[0][: len(index)]
    assert torch.equal(held_out, index)
    assert torch.equal(pairs.images(index).float() / 127.5 - 1, torch.cat([images, inputs], 1))
    figures = {"pix2pix": translator.translate(inputs), "pix2pix with dropout": translator.translate(inputs, 0)}
    return {f"{name} ({translator.info.kimg:g} kimg)": x for name, x in figures.items()}


def row_of(task: Task, figures: dict[str, float], kind: str) -> dict:
    """A row of a results file: how much farther the alternatives are from the images."""
    own = figures["LPIPS: result"]
    others = {name.removeprefix("LPIPS: "): value for name, value in figures.items() if name.startswith("LPIPS: ")}
    return {
        "op": "translation",
        "dtype": "float32",
        "case": f"sgan translate --task {task.name} ({kind}{figures['kimg']:g} kimg): LPIPS {own:.3f}",
        "seconds": {},
        "ratio": {name: value / own for name, value in others.items() if name != "result"},
        "figures": figures,
        "wrong": [],
        "failed": {},
    }


def baselines(task: Task, images: Tensor, inputs: Tensor) -> dict[str, Tensor]:
    """What is seen, which is enlarged with a bicubic filter; and the same after a median filter."""
    seen = to_rgb(task.shown(inputs)) if len(images[0]) == 3 else task.shown(inputs)
    median = []
    for pixels in to_uint8(seen):
        image: Image.Image = from_array(pixels.numpy()).filter(ImageFilter.MedianFilter(MEDIAN))
        median.append(torch.from_numpy(to_array(image).copy()))
    filtered = torch.stack(median).float() / 127.5 - 1
    return {"input": seen, "median filter": task.completed(filtered, inputs)}


if __name__ == "__main__":
    main()
