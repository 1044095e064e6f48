"""An encoder for a task against simple filters and a plain encoder, on images that it has not seen.

python benchmarks/measure_translation.py runs/00000-critters64-superres
python benchmarks/measure_translation.py runs/00001-critters64-restore --plain runs/00002-critters64-encoder

LPIPS is that with VGG16, whose weights are downloaded once or taken from --detector.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import click
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from stylegan_cli.data.codec import from_array, to_array
from stylegan_cli.data.images import to_rgb, to_uint8
from stylegan_cli.detectors import load_lpips
from stylegan_cli.detectors.lpips import Lpips
from stylegan_cli.runs import latest_snapshot
from stylegan_cli.runs.records import read_config
from stylegan_cli.sampling import counter
from stylegan_cli.sampling.degrade import Inpaint, Invert, SuperResolution, make_task, reduce
from stylegan_cli.sampling.generate import SamplingOptions, map_seeds
from stylegan_cli.sampling.mixing import mix_styles, style_indices
from stylegan_cli.session import Session
from stylegan_cli.session.encode import latents_of, open_encoder
from stylegan_cli.training.encoder_config import read_encoder_config
from stylegan_cli.training.recipes.encoder_run import open_data_of

MEDIAN = 3  # pixels of the median filter


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--plain", metavar="PATH", help="An encoder of images, which sees what the task makes of them.")
@click.option("--num", default=128, show_default=True, help="Number of held-out images.")
@click.option("--styles", default="fine", show_default=True, help="Styles of five different results.")
@click.option("--detector", metavar="FILE", help="Weights of LPIPS.")
@torch.no_grad()
def main(run: Path, plain: str | None, num: int, styles: str, detector: str | None) -> None:
    torch.set_num_threads(1)
    config = read_encoder_config(read_config(run))
    session, data = Session(config.model), open_data_of(config)
    encoder = open_encoder(session, latest_snapshot(run), "runs", config.task)
    assert encoder.info is not None
    lpips, task = load_lpips("vgg", session.device, detector), make_task(config.task, config.task_options)
    order = counter.uniform(config.seed, "encoder.split", torch.arange(len(data))).argsort()
    index = order[: min(config.held_out, num)]
    rows = data.images(index).float() / 127.5 - 1
    images, inputs = rows[:, : config.data.channels], task(rows, config.seed, index)
    found_in: list[list[Tensor]] = []  # features of each part
    ws = torch.cat([latents_of(session, encoder, part, found_in) for part in inputs.split(64)])
    features = [torch.cat(levels) for levels in zip(*found_in[encoder.network.passes - 1 :: encoder.network.passes])]

    def synthesize(ws: Tensor) -> Tensor:
        if encoder.skips is None:
            return session.G.synthesis(ws)
        return encoder.skips(ws, [x[: len(ws)] for x in features])

    found = {"result": keep(task, images, inputs, synthesize(ws))}
    if not task.needs_source:
        found |= baselines(task, images, inputs)
    if plain is not None:
        other = open_encoder(session, plain, "runs")
        plain_ws = latents_of(session, other, task.shown(inputs))
        found["plain encoder"] = keep(task, images, inputs, session.G.synthesis(plain_ws))
    figures = {f"LPIPS: {name}": compare(lpips, x, images).mean().item() for name, x in found.items()}
    if isinstance(task, SuperResolution):
        difference = reduce(found["result"], task.factor) - reduce(images, task.factor)
        figures["RMS after reduction"] = (difference / 2).square().mean((1, 2, 3)).sqrt().mean().item()
    chosen = style_indices(session.G.layers, styles)
    mixed = mix_styles(ws[:8], map_seeds(session.G, range(4), SamplingOptions()), chosen)
    five = [synthesize(x) for x in torch.cat([ws[:8, None], mixed], 1).unbind(1)]
    pairs = itertools.combinations([keep(task, images[:8], inputs[:8], x) for x in five], 2)
    figures["LPIPS between five results"] = torch.stack([compare(lpips, a, b).mean() for a, b in pairs]).mean().item()
    about = {"task": task.name, "skips": encoder.skips is not None}
    print(json.dumps({**about, "kimg": encoder.info.kimg, "images": len(images), **figures}))


def keep(task: Invert, images: Tensor, inputs: Tensor, results: Tensor) -> Tensor:
    """As `sgan translate`: given pixels are kept when a hole is filled."""
    return torch.where(inputs[:, -1:] > 0, images, results) if isinstance(task, Inpaint) else results


def baselines(task: Invert, images: Tensor, inputs: Tensor) -> dict[str, Tensor]:
    """What is seen, which is enlarged with a bicubic filter; and the same after a median filter."""
    seen = to_rgb(task.shown(inputs)) if len(images[0]) == 3 else task.shown(inputs)
    median = []
    for pixels in to_uint8(seen):
        image: Image.Image = from_array(pixels.numpy()).filter(ImageFilter.MedianFilter(MEDIAN))
        median.append(torch.from_numpy(to_array(image).copy()))
    filtered = torch.stack(median).float() / 127.5 - 1
    return {"input": seen, "median filter": keep(task, images, inputs, filtered)}


def compare(lpips: Lpips, a: Tensor, b: Tensor) -> Tensor:  # [N, C, H, W] -> [N]
    parts = zip(a.clamp(-1, 1).split(64), b.split(64), strict=True)
    return torch.cat([lpips(to_rgb(x), to_rgb(y)) for x, y in parts])


if __name__ == "__main__":
    main()
