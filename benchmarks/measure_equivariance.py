"""How well details follow the motion of an image: EQ-T in dB and a video, of any generators.

python benchmarks/measure_equivariance.py alias-free.safetensors stylegan2.safetensors --out sticking.gif

A generator with an input transform is moved by it. Any other is moved by its learned constant, sampled between its
pixels with linear weights (beyond the edge, with those at the edge), while its noise stays where it is: what a user
could do. EQ-T is measured as in `sgan metrics eqt` (Karras et al. 2021, appendix E). In the video each model has two
columns, the moving images and the same with the motion undone: what flickers there sticks to the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import click
import torch
from torch import Tensor

import stylegan_cli
from stylegan_cli.data.images import labeled_grid, to_rgb, to_uint8
from stylegan_cli.data.video import write_video
from stylegan_cli.metrics.equivariance import peak_signal_to_noise
from stylegan_cli.metrics.motions import MAX_SHIFT, MotionErrors, input_transform
from stylegan_cli.metrics.resampling import shift_by_fraction
from stylegan_cli.models.generator import Generator
from stylegan_cli.sampling.latents import latents_from_seeds


class ConstantErrors(MotionErrors):
    """The errors of a generator whose learned constant is moved."""

    def synthesize(self, ws: Tensor, noise: list[Tensor], **transform: Tensor) -> Tensor:
        return synthesize(self.G, ws, noise, transform.get("transform"))


def synthesize(
    G: Generator,
    ws: Tensor,  # [N, num_ws, w_dim]
    noise: list[Tensor] | str,
    transform: Tensor | None,  # [N, 3, 3], a translation; None: no motion
) -> Tensor:  # [N, C, H, W]
    if transform is None or G.config.takes_transform:
        return G.synthesis(ws, noise=noise, transform=transform)
    constant = next(p for name, p in G.synthesis.named_parameters() if name.endswith("const"))
    still, images = constant.data, []
    try:
        for i, matrix in enumerate(transform):
            constant.data = moved_constant(still, -matrix[:2, 2])
            maps = noise if isinstance(noise, str) else [n[i : i + 1] for n in noise]
            images.append(G.synthesis(ws[i : i + 1], noise=maps))
    finally:
        constant.data = still
    return torch.cat(images)


def moved_constant(
    constant: Tensor,  # [C, h, w]
    offset: Tensor,  # [2] to the right and down, in image widths and heights
) -> Tensor:  # [C, h, w]
    for dim, share in ((2, float(offset[0])), (1, float(offset[1]))):
        size = constant.shape[dim]
        source = torch.arange(size) - share * size
        low = source.floor()
        a, b = (constant.index_select(dim, (low + k).clamp(0, size - 1).long()) for k in (0, 1))
        shape = [size if k == dim else 1 for k in range(3)]
        constant = torch.lerp(a, b, (source - low).to(constant).reshape(shape))
    return constant


def decibels(
    G: Generator,
    motion: str,  # 'int' or 'frac'
    num: int,  # images
) -> float:
    kind = MotionErrors if G.config.takes_transform else ConstantErrors
    source = kind(G, motion, None, torch.device("cpu"))
    return peak_signal_to_noise(torch.cat([source(index) for index in torch.arange(num).split(16)])).value


def frames_of(
    generators: list[Generator],  # of one size
    seeds: list[int],
    frames: int,
) -> Iterator[Tensor]:  # uint8 [3, H, W]
    """The figure eight of `sgan equivariance`."""
    height, width = generators[0].config.height, generators[0].config.width
    labels = [f"{G.config.title}{text}" for G in generators for text in ("", ", undone")]
    columns = [G.mapping(latents_from_seeds(seeds, G.config.z_dim), None, 0.7) for G in generators]
    for k in range(frames):
        angle = 2 * math.pi * (k + 0.5) / frames
        x, y = MAX_SHIFT * width * math.sin(angle), MAX_SHIFT * height * math.sin(2 * angle) / 2
        amounts = torch.tensor([[x, y]], dtype=torch.float64).expand(len(seeds), -1)
        cells = []
        for G, ws in zip(generators, columns, strict=True):
            moved = synthesize(G, ws, "const", input_transform("frac", amounts, (width, height)).to(ws))
            undone, mask = shift_by_fraction(moved, -amounts)
            cells += [moved, torch.where(mask > 0, undone, torch.ones_like(undone))]
        images = torch.stack([to_rgb(to_uint8(cell)) for cell in cells], 1)
        yield labeled_grid(images, None, None, [str(seed) for seed in seeds], labels)


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--num", default=1000, show_default=True, help="Number of images for the figures.")
@click.option("--seeds", default=4, show_default=True, help="Number of images in the video.")
@click.option("--frames", default=48, show_default=True, help="Number of frames of the video.")
@click.option("--out", default="sticking.gif", show_default=True, help="The video.")
@torch.inference_mode()
def main(models: tuple[str, ...], num: int, seeds: int, frames: int, out: str) -> None:
    generators = [stylegan_cli.load(path) for path in models]
    for path, G in zip(models, generators):
        values = "  ".join(f"{motion} {decibels(G, motion, num):5.1f} dB" for motion in ("int", "frac"))
        click.echo(f"{path}  EQ-T {values}  ({num} images)")
    write_video(frames_of(generators, list(range(seeds)), frames), frames, out, fps=12, loop=True)
    click.echo(out)


if __name__ == "__main__":
    main()
