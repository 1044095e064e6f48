"""Places in the latent space, from seeds and from files, with what else their images need.

A file is an .npz without pickles: `w` [N, num_ws, w_dim]; and, where it has them, `names` [N] of the images, `seeds`
[N] of random noise, `noise.<layer>` [N, 1, h, w] of each layer that takes noise, `model`, the fingerprint of the model
that it belongs to, `tuned`, a file of differences beside it (see tuned.py), and `settings`, JSON for the reader.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import SganError
from ..models.generator import Generator
from ..snapshot import fingerprint
from .bound_files import check_model, read_floats, read_npz, read_settings, write_npz
from .generate import SamplingOptions, map_seeds
from .tuned import apply_tuned


@dataclass(frozen=True)
class Latents:
    """Places in W+, and the generator that draws them."""

    G: Generator  # the model, tuned where a file says so
    ws: Tensor  # [N, num_ws, w_dim], truncated as asked
    names: list[str]  # [N] of the images: a seed's number, a file's own name; others have others
    seeds: list[int]  # [N] of random noise
    items: list[int]  # [N] which of the things asked for each comes from
    noise: list[Tensor] | None = None  # [N, 1, h, w] for each layer that takes noise; None: the model's own
    tuned: str | None = None  # name of the file that G was tuned by

    def __len__(self) -> int:
        return len(self.names)

    def noise_of(
        self,
        index: Sequence[int],  # [M] which images
    ) -> list[Tensor] | None:  # [M, 1, h, w] for each layer that takes noise
        return None if self.noise is None else [maps[list(index)] for maps in self.noise]


@dataclass(frozen=True)
class LatentFile:
    """What one file holds."""

    ws: Tensor  # [N, num_ws, w_dim] float32
    names: list[str]  # [N]
    seeds: list[int]  # [N]
    noise: dict[str, Tensor]  # name of the layer -> [N, 1, h, w] float32; empty: the model's own
    model: str | None  # fingerprint of the model
    tuned: Path | None  # differences to it
    settings: dict  # how it was made


def collect_latents(
    G: Generator,
    items: Sequence[int | str],  # seeds, and names of .npz files
    options: SamplingOptions,
    model: str | None = None,  # fingerprint of G, where it is known
) -> Latents:
    """All that is asked for, in the order given; a file gives as many as it holds.

    Raises SganError if a file cannot be read, is of another model or asks for other tuned weights than one before.
    """
    files = {item: load_latent_file(item) for item in dict.fromkeys(items) if isinstance(item, str)}
    if files and options.class_index is not None and all(isinstance(item, str) for item in items):
        raise SganError("Latents from a file have their class already.", hint="Leave out --class.")
    if files and model is None:
        model = fingerprint(G)
    for path, file in files.items():
        if file.model is not None:
            check_model(path, file.model, str(model), file.settings.get("model"))
        _check_form(path, file, G)
    tuned = {file.tuned.name: file.tuned for file in files.values() if file.tuned}  # the name holds its hash
    if len(tuned) > 1:
        one, other, *_ = tuned.values()
        raise SganError(f"{one} and {other} change the model in two ways; one image cannot have both.")
    device = G.device
    drawn = iter(map_seeds(G, [item for item in items if not isinstance(item, str)], options))
    ws, names, seeds, origin = [], [], [], []
    distinct = _distinct(files, [str(item) for item in items if not isinstance(item, str)])
    for place, item in enumerate(items):
        if isinstance(item, str):
            file = files[item]
            all_layers = file.ws.to(device).expand(-1, G.num_ws, -1)
            ws.append(G.truncate(all_layers, options.trunc, options.trunc_cutoff))
            names += distinct[item]
            seeds += file.seeds
        else:
            ws.append(next(drawn)[None])
            names.append(str(item))
            seeds.append(item)
        origin += [place] * (len(names) - len(origin))
    noise = _noise(G, [files[item] if isinstance(item, str) else None for item in items], device)
    for path in tuned.values():
        G = apply_tuned(G, path, str(model))
    return Latents(G, torch.cat(ws), names, seeds, origin, noise, next(iter(tuned), None))


def load_latent_file(
    path: str | Path,
) -> LatentFile:
    """One file. A `w` of [N, w_dim] stands for the same w at every layer and comes back as [N, 1, w_dim].

    Raises SganError if it cannot be read or its parts do not fit together.
    """
    path = Path(path)
    file = read_npz(path, lambda f: _parse(f, path), "is no .npz file with latents named w")
    n = len(file.ws)
    fits = file.ws.ndim == 3 and n == len(file.seeds) == len(file.names) > 0
    if not fits or any(maps.ndim != 4 or len(maps) != n for maps in file.noise.values()):
        shape = list(file.ws.shape)
        raise SganError(f"The latents in {path} have shape {shape}, and its other parts do not fit them.")
    if not all(torch.isfinite(numbers).all() for numbers in (file.ws, *file.noise.values())):
        raise SganError(f"The latents in {path} are not finite.")
    if not all(0 <= seed < 2**32 for seed in file.seeds):
        raise SganError(f"The seeds in {path} are out of range.")
    return file


def filename_part(
    name: str,  # of an image, see `Latents.names`
) -> str:
    """A name as a part of a file's: a seed with four digits, anything else without what a file system takes amiss."""
    if re.fullmatch("[0-9]{1,10}", name):
        return f"{int(name):04d}"
    kept = re.sub(r"[^\w.+-]", "_", name.encode("utf-8", "replace").decode())
    return re.sub(r"^[.-]", "_", kept).encode()[:120].decode("utf-8", "ignore") or "_"


def unique_name(
    name: str,
    taken: set[str],  # parts of files' names, in small letters; the new one is added
) -> str:
    """The name, with a number if its file would take another's place. One of digits alone is no seed, and says so."""
    name = f"image{name}" if name.isdecimal() else name
    tries = (name if k == 1 else f"{name}-{k}" for k in itertools.count(1))
    found = next(one for one in tries if filename_part(one).lower() not in taken)
    taken.add(filename_part(found).lower())
    return found


def save_latents(
    path: str | Path,
    ws: Tensor,  # [N, num_ws, w_dim]
    *,
    seeds: Sequence[int] | None = None,  # [N]
    names: Sequence[str] | None = None,  # [N]
    noise: dict[str, Tensor] | None = None,  # name of the layer -> [N, 1, h, w]
    model: str | None = None,  # fingerprint
    tuned: str | None = None,  # name of the file of differences beside it
    settings: dict | None = None,  # how they were made
    **more: np.ndarray,  # kept in the file, for the reader
) -> None:
    """Write a file that `load_latent_file` reads, whole or not at all."""
    arrays: dict[str, np.ndarray] = {"w": ws.detach().float().cpu().numpy(), **more}
    if seeds is not None:
        arrays["seeds"] = np.array(seeds, dtype=np.int64)
    if names is not None:
        arrays["names"] = np.array(names, dtype=np.str_)
    arrays |= {f"noise.{name}": maps.detach().float().cpu().numpy() for name, maps in (noise or {}).items()}
    write_npz(path, arrays, {"model": model, "tuned": tuned}, settings)


def _parse(f: np.lib.npyio.NpzFile, path: Path) -> LatentFile:
    """What stands in the file, of the right types. Raises SganError if it names a tuned file in another folder."""
    if f["w"].dtype.kind not in "fiu":
        raise ValueError("not real numbers")
    w = read_floats(f, "w")
    w = w[:, None] if w.ndim == 2 else w
    n = len(w)
    own = [path.stem] if n == 1 else [f"{path.stem}-{i}" for i in range(n)]
    tuned = str(f["tuned"]) if "tuned" in f else None
    if tuned is not None and Path(tuned).name != tuned:
        raise SganError(f"{path} names a file of tuned weights that is not beside it.")
    return LatentFile(
        ws=w,
        names=[str(name) for name in f["names"]] if "names" in f else own,
        seeds=[int(seed) for seed in f["seeds"]] if "seeds" in f else list(range(n)),
        noise={name.removeprefix("noise."): read_floats(f, name) for name in f.files if name.startswith("noise.")},
        model=str(f["model"]) if "model" in f else None,
        tuned=path.with_name(tuned) if tuned else None,
        settings=read_settings(f),
    )


def _check_form(path: str, file: LatentFile, G: Generator) -> None:
    """Raises SganError if a file does not fit the model's layers."""
    want = (G.num_ws, G.config.w_dim)
    if file.ws.shape[1] not in (1, want[0]) or file.ws.shape[2] != want[1]:
        shape = list(file.ws.shape)
        raise SganError(f"The latents in {path} have shape {shape}; this model takes [N, {want[0]}, {want[1]}].")
    sizes = {row.name: (1, row.height, row.width) for row in G.noise_layers}
    if file.noise and {name: tuple(maps.shape[1:]) for name, maps in file.noise.items()} != sizes:
        raise SganError(f"The noise in {path} is not of this model's layers.")


def _noise(G: Generator, files: Sequence[LatentFile | None], device: torch.device) -> list[Tensor] | None:
    """Each image's own noise where its file has some, the model's where not; None if no file has any."""
    if not any(file and file.noise for file in files):
        return None
    return [
        torch.cat(
            [
                file.noise[row.name].to(device)
                if file and file.noise
                else own[None, None].expand(len(file.names) if file else 1, -1, -1, -1)
                for file in files
            ]
        )
        for row, own in zip(G.noise_layers, G.stored_noise(), strict=True)
    ]


def _distinct(files: dict[str, LatentFile], seeds: list[str]) -> dict[str, list[str]]:
    """The names of each file's images; one that another has already gets a number."""
    taken = {filename_part(seed) for seed in seeds}
    return {path: [unique_name(name, taken) for name in file.names] for path, file in files.items()}
