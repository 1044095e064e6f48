"""Images from latents, in batches, and the metadata that lets them be reproduced."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ..data.images import to_uint8
from ..errors import quote
from ..models.frozen import frozen_synthesis
from ..models.generator import Generator
from ..models.registry import require_transform
from ..ops import bfloat16_products, prefers_bfloat16, takes_bfloat16_products, tensor_cores
from ..progress import Progress, silent
from ..version import __version__
from . import checks
from .labels import Choice, class_labels, label_choice
from .latents import latents_from_seeds, noise_maps
from .view import view_transform

LatentSpace = Literal["z", "w", "w+"]
PRECISIONS = ("auto", "fp32", "bf32", "bf16", "fp16")


class Batches(Protocol):
    """A tensor, or an object that computes slices of one on demand."""

    def __getitem__(self, part: slice, /) -> Tensor: ...


@dataclass(frozen=True)
class SamplingOptions:
    """Options shared by all commands that generate images."""

    trunc: float = 1.0  # truncation psi
    trunc_cutoff: int | None = None  # number of leading ws to truncate; None: all
    class_index: Choice | None = None  # index or name, or label vector; None: sampled from each seed
    noise_mode: Literal["const", "random", "none"] = "const"
    batch: int | None = None  # batch size; None: depends on the image size
    precision: str = "auto"  # 'fp32'; 'bf32': bfloat16 products; 'bf16', 'fp16': features; for the highest levels
    translate: tuple[float, float] | None = None  # right and down, in image widths and heights
    rotate: float | None = None  # counterclockwise, in degrees
    latent_space: LatentSpace | None = None  # of latents in files; None: as their names and shapes say

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            trunc=checks.number(),
            trunc_cutoff=checks.integer(0),
            class_index=label_choice(),
            noise_mode=checks.choice("const", "random", "none"),
            batch=checks.integer(1),
            precision=checks.choice(*PRECISIONS),
            translate=checks.list_of(checks.number(), "(0.1, 0.0)", 2, 2),
            rotate=checks.number(),
            latent_space=checks.choice("z", "w", "w+"),
        )

    @property
    def dtype(self) -> torch.dtype | None:
        """Data type of the highest levels' features; None: full precision."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)

    def precision_for(self, G: Generator) -> str:
        """Return the precision that a model computes in, with which its images can be reproduced on any machine.

        bfloat16 products are chosen where they change an image by at most 1/255 in 99.9 % of its values: in the two
        highest levels, if these only add their details to the image of the level below.
        """
        precision = self.precision
        if precision == "auto":
            adds_details = sum(row.kind == "torgb" for row in G.layers) > 1
            faster = prefers_bfloat16(G.device, G.config.height, G.config.width)
            precision = "bf32" if adds_details and faster else "fp32"
        return "fp32" if precision == "bf32" and not takes_bfloat16_products(G.device) else precision

    def for_measuring(self) -> SamplingOptions:
        """Return these options with 'auto' as fp32, so that a figure does not depend on the processor."""
        return dataclasses.replace(self, precision="fp32") if self.precision == "auto" else self

    def synthesizer(
        self,
        G: Generator,
    ) -> Callable[..., Tensor]:  # (ws, noise=, transform=) -> [N, C, H, W], see `Synthesis.forward`
        """Return the frozen synthesis network in this precision."""
        synthesis = frozen_synthesis(G)

        def synthesize(ws: Tensor, **inputs: Any) -> Tensor:
            with self.arithmetic(G):
                return synthesis(ws, dtype=self.dtype, **inputs)

        return synthesize

    @contextlib.contextmanager
    def arithmetic(self, G: Generator) -> Iterator[None]:
        """In this context, convolutions multiply in this precision; features have `dtype`."""
        lowest = G.config.height // 2 if self.precision_for(G) == "bf32" else None
        with bfloat16_products(lowest), tensor_cores(self.dtype is not None):
            yield

    def view(self, G: Generator) -> Tensor | None:  # [3, 3]
        """Return the transform of the model's input; None: none. Raises SganError if the model takes none."""
        for option, value in (("--translate", self.translate), ("--rotate", self.rotate)):
            if value is not None:
                require_transform(G.config, option)
        if self.translate is None and self.rotate is None:
            return None
        return view_transform(self.translate, self.rotate, (G.config.width, G.config.height))

    def batch_for(self, G: Generator) -> int:
        """Return the batch size for a model."""
        return self.batch or min(max(2**20 // (G.config.height * G.config.width), 1), 32)


@torch.inference_mode()
def map_seeds(
    G: Generator,
    seeds: Sequence[int],
    options: SamplingOptions,
) -> Tensor:  # [N, num_ws, w_dim]
    """Map seeds to truncated latents."""
    device = G.device
    z = latents_from_seeds(seeds, G.config.z_dim).to(device)
    c = class_labels(options.class_index, seeds, G.label_space)
    return G.mapping(z, None if c is None else c.to(device), options.trunc, options.trunc_cutoff)


@torch.inference_mode()
def generate_images(
    G: Generator,
    latents: Callable[[int, int], Tensor],  # (i, j) -> ws [j - i, num_ws, w_dim] of images i to j
    seeds: Sequence[int],  # [N] seeds of random noise
    options: SamplingOptions,
    progress: Progress = silent,
    noise: Sequence[Batches] | None = None,  # [N, 1, h, w] per layer: replaces the model's 'const' noise
    transforms: Batches | None = None,  # [N, 3, 3] of the input; None: that of the options
) -> Iterator[Tensor]:  # uint8 [C, H, W], one by one
    """Generate images in batches, and yield them one by one."""
    batch, view, synthesize = options.batch_for(G), options.view(G), options.synthesizer(G)
    transfers: deque[tuple[int, Callable[[], Tensor]]] = deque()
    progress("images", 0, len(seeds))
    for i in range(0, len(seeds), batch):
        batch_seeds = seeds[i : i + batch]
        ws = latents(i, i + len(batch_seeds))
        if noise is not None and options.noise_mode == "const":
            maps = [layer_noise[i : i + len(batch_seeds)] for layer_noise in noise]
        else:
            maps = noise_maps(G, options.noise_mode, batch_seeds, ws.device)
        transform = view if transforms is None else transforms[i : i + len(batch_seeds)]
        images = to_uint8(synthesize(ws, noise=maps, transform=transform))
        transfers.append((i + len(images), _to_cpu(images)))
        # A GPU computes the next batch while this one is copied and used.
        while len(transfers) > (images.device.type == "cuda" and i + batch < len(seeds)):
            done, transfer = transfers.popleft()
            images = transfer()
            progress("images", done, len(seeds))
            yield from images


def _to_cpu(
    images: Tensor,  # [N, C, H, W]
) -> Callable[[], Tensor]:  # waits for the copy
    """Start a copy to the CPU."""
    if images.device.type != "cuda":
        return images.cpu
    result = torch.empty(images.shape, dtype=images.dtype, pin_memory=True)
    result.copy_(images, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> Tensor:
        copied.synchronize()
        return result

    return wait


def image_metadata(
    model: str,  # fingerprint
    options: SamplingOptions,
    command: Sequence[str],  # words of the command line; empty outside of the command line
    **more: object,  # further settings; None: omitted
) -> dict[str, str]:
    """Return the metadata that lets an image be reproduced."""
    settings = {**dataclasses.asdict(options), **more}
    settings["class"] = settings.pop("class_index")
    metadata = {name: str(value) for name, value in settings.items() if value is not None and name != "batch"}
    metadata["model"] = model
    metadata["Software"] = f"stylegan_cli {__version__}"
    return metadata | ({"command": " ".join(map(quote, command))} if command else {})
