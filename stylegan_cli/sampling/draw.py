"""From latents to pictures, a few at a time, with a record of how each can be made again."""

from __future__ import annotations

import dataclasses
import shlex
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .. import __version__
from ..data.images import to_uint8
from ..errors import SganError
from ..files import atomic_path
from ..models import Generator
from ..snapshot import Snapshot
from .latents import class_labels, latents_from_seeds, noise_maps


@dataclass(frozen=True)
class Sampling:
    """How a model is asked for pictures: what `sgan generate` and `sgan mix` have in common."""

    trunc: float = 1.0  # truncation psi
    trunc_cutoff: int | None = None  # truncate only the first so many ws; None: all
    class_index: int | None = None  # None: drawn by each seed, in a model with classes
    noise_mode: str = "const"  # 'const', 'random' or 'none'
    batch: int | None = None  # pictures at a time; None: by their size
    precision: str = "fp32"  # of the highest levels: 'fp32', 'bf16' or 'fp16'


@torch.inference_mode()
def map_seeds(
    G: Generator,
    seeds: Sequence[int],
    how: Sampling,
) -> Tensor:  # [N, num_ws, w_dim]
    """The latents of seeds, truncated."""
    device = next(G.parameters()).device
    z = latents_from_seeds(seeds, G.config.z_dim).to(device)
    c = class_labels(how.class_index, seeds, G.config.c_dim)
    return G.mapping(z, None if c is None else c.to(device), how.trunc, how.trunc_cutoff)


@torch.inference_mode()
def draw(
    G: Generator,
    latents: Callable[[int, int], Tensor],  # (i, j) -> ws [j - i, num_ws, w_dim] of pictures i to j
    seeds: Sequence[int],  # [N] of the noise, where it is random
    how: Sampling,
    quiet: bool = False,  # no bar
) -> Iterator[Tensor]:  # uint8 [C, H, W], one picture after the other
    """Pictures one by one, drawn in batches."""
    config, dtype = G.config, {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[how.precision]
    batch = how.batch or min(max(2**20 // (config.height * config.width), 1), 32)
    with tqdm(total=len(seeds), unit="picture", disable=True if quiet else None) as bar:
        for i in range(0, len(seeds), batch):
            some = seeds[i : i + batch]
            ws = latents(i, i + len(some))
            noise = noise_maps(G, how.noise_mode, some, ws.device)
            images = to_uint8(G.synthesis(ws, noise=noise, dtype=dtype)).cpu()
            bar.update(len(images))
            yield from images


def picture_record(
    model: Snapshot,
    how: Sampling,
    command: Sequence[str],  # the command line, word by word
    **more: object,  # what else made the picture
) -> dict[str, str]:
    """What stands in a picture's metadata, so that it can be made again."""
    settings = {**dataclasses.asdict(how), **more}
    settings["class"] = settings.pop("class_index")
    record = {name: str(value) for name, value in settings.items() if value is not None and name != "batch"}
    record["model"] = model.fingerprint
    record["Software"] = f"stylegan_cli {__version__}"
    record["command"] = shlex.join(command)
    return record


def save_latents(
    path: Path,
    ws: Tensor,  # [N, num_ws, w_dim]
    seeds: Sequence[int],
) -> None:
    """Latents as .npz: `w` float32 [N, num_ws, w_dim] and `seeds` [N]."""
    with atomic_path(path) as temporary:
        np.savez(temporary, w=ws.float().cpu().numpy(), seeds=np.array(seeds, dtype=np.int64))


def load_latents(
    path: str | Path,
    G: Generator,
    how: Sampling,
) -> tuple[Tensor, list[int]]:  # ws [N, num_ws, w_dim], and the seeds [N] that they were drawn from
    """The `w` of a .npz file: [N, num_ws, w_dim], or [N, w_dim] for the same w at every layer; its `seeds`, or 0, 1 ...

    They are truncated as asked. Raises SganError if the file cannot be read or does not fit the model, or if a class
    is asked for: latents have theirs already.
    """
    if how.class_index is not None:
        raise SganError("Latents from a file have their class already.", hint="Leave out --class.")
    try:
        with np.load(path, allow_pickle=False) as f:
            if f["w"].dtype.kind not in "fiu":
                raise ValueError("not real numbers")
            w = torch.from_numpy(f["w"].astype(np.float32))
            seeds = [int(seed) for seed in f["seeds"]] if "seeds" in f else list(range(len(w)))
    except FileNotFoundError as e:
        raise SganError(f"There is no file {path}.") from e
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, EOFError) as e:
        raise SganError(f"{path} is no .npz file with latents named w.") from e
    if w.ndim == 2:
        w = w[:, None].repeat(1, G.num_ws, 1)
    want = (G.num_ws, G.config.w_dim)
    if w.ndim != 3 or w.shape[1:] != want or len(seeds) != len(w) or not len(w):
        raise SganError(
            f"The latents in {path} have shape {list(w.shape)}; this model takes [N, {want[0]}, {want[1]}]."
        )
    if not torch.isfinite(w).all() or not all(0 <= seed < 2**32 for seed in seeds):
        raise SganError(f"The latents in {path} are not finite, or their seeds are out of range.")
    w = w.to(next(G.parameters()).device)
    return G.mapping.truncate(w, how.trunc, how.trunc_cutoff), seeds
