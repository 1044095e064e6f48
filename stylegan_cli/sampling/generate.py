"""From latents to images, a few at a time, with a record of how each can be made again."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..data.images import to_uint8
from ..models.generator import Generator
from ..progress import Progress, silent
from ..version import __version__
from . import checks
from .latents import class_labels, latents_from_seeds, noise_maps


class Batches(Protocol):
    """A tensor, or what makes one when a part of it is asked for."""

    def __getitem__(self, part: slice, /) -> Tensor: ...


@dataclass(frozen=True)
class SamplingOptions:
    """How a model is asked for images: what `sgan generate` and `sgan mix` have in common."""

    trunc: float = 1.0  # truncation psi
    trunc_cutoff: int | None = None  # truncate only the first so many ws; None: all
    class_index: int | None = None  # None: drawn by each seed, in a model with classes
    noise_mode: Literal["const", "random", "none"] = "const"
    batch: int | None = None  # images at a time; None: by their size
    precision: str = "fp32"  # of the highest levels: 'fp32', 'bf16' or 'fp16'

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            trunc=checks.number(),
            trunc_cutoff=checks.integer(0),
            class_index=checks.integer(),
            noise_mode=checks.choice("const", "random", "none"),
            batch=checks.integer(1),
            precision=checks.choice("fp32", "bf16", "fp16"),
        )

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the highest levels; None: full precision."""
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def batch_for(self, G: Generator) -> int:
        """Images at a time."""
        return self.batch or min(max(2**20 // (G.config.height * G.config.width), 1), 32)


@torch.inference_mode()
def map_seeds(
    G: Generator,
    seeds: Sequence[int],
    options: SamplingOptions,
) -> Tensor:  # [N, num_ws, w_dim]
    """The latents of seeds, truncated."""
    device = G.device
    z = latents_from_seeds(seeds, G.config.z_dim).to(device)
    c = class_labels(options.class_index, seeds, G.config.c_dim)
    return G.mapping(z, None if c is None else c.to(device), options.trunc, options.trunc_cutoff)


@torch.inference_mode()
def generate_images(
    G: Generator,
    latents: Callable[[int, int], Tensor],  # (i, j) -> ws [j - i, num_ws, w_dim] of images i to j
    seeds: Sequence[int],  # [N] of the noise, where it is random
    options: SamplingOptions,
    progress: Progress = silent,
    noise: Sequence[Batches] | None = None,  # [N, 1, h, w] a layer, what 'const' means here; None: the model's
) -> Iterator[Tensor]:  # uint8 [C, H, W], one image after the other
    """Images one by one, drawn in batches."""
    batch = options.batch_for(G)
    progress("images", 0, len(seeds))
    for i in range(0, len(seeds), batch):
        some = seeds[i : i + batch]
        ws = latents(i, i + len(some))
        if noise is not None and options.noise_mode == "const":
            maps = [each[i : i + len(some)] for each in noise]
        else:
            maps = noise_maps(G, options.noise_mode, some, ws.device)
        images = to_uint8(G.synthesis(ws, noise=maps, dtype=options.dtype)).cpu()
        progress("images", i + len(images), len(seeds))
        yield from images


def image_metadata(
    model: str,  # its fingerprint
    options: SamplingOptions,
    command: Sequence[str],  # the command line, word by word; empty: it was none
    **more: object,  # what else made the image
) -> dict[str, str]:
    """What stands in an image's metadata, so that it can be made again."""
    settings = {**dataclasses.asdict(options), **more}
    settings["class"] = settings.pop("class_index")
    record = {name: str(value) for name, value in settings.items() if value is not None and name != "batch"}
    record["model"] = model
    record["Software"] = f"stylegan_cli {__version__}"
    return record | ({"command": shlex.join(command)} if command else {})
