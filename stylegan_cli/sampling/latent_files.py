"""Latents from seeds and files, with everything else that their images need.

A file is an .npz without pickles: `w` [N, num_ws, w_dim], or [N, w_dim] for the same w in every layer; and optionally
`names` [N] of the images, `seeds` [N] of random noise, `noise.<layer>` [N, 1, h, w] for each layer with noise, `model`,
the fingerprint of the model, `tuned`, the name of a file of tuned weights in the same folder (see tuned.py), and
`settings`, JSON for information only. Files of other programs: see foreign_latents.py.
"""

from __future__ import annotations

import itertools
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import MisuseError, SganError
from ..models.generator import Generator
from ..snapshot import fingerprint
from .bound_files import check_model, read_floats, read_npz, read_settings, write_npz
from .foreign_latents import read_foreign
from .generate import SamplingOptions, map_seeds
from .latent_space import LatentFile, check_use, fit
from .tuned import apply_tuned

_AGAIN = "Make it again with `sgan project`, or `sgan generate --save-w`."
_INVALID = "is not an .npz file with latents named 'w'"


@dataclass(frozen=True)
class Latents:
    """Points in W+, and the generator that they belong to."""

    G: Generator  # the model, tuned if a file requires it
    ws: Tensor  # [N, num_ws, w_dim], truncated according to the options
    names: list[str]  # [N] names of the images: the seed, or a unique name from the file
    seeds: list[int]  # [N] seeds of random noise
    items: list[int]  # [N] index of the requested item that each comes from
    noise: list[Tensor] | None = None  # [N, 1, h, w] for each layer with noise; None: the model's own noise
    tuned: str | None = None  # name of the file of tuned weights

    def __len__(self) -> int:
        return len(self.names)

    def noise_of(
        self,
        index: Sequence[int],  # [M]
    ) -> list[Tensor] | None:  # [M, 1, h, w] for each layer with noise
        return None if self.noise is None else [maps[list(index)] for maps in self.noise]


def collect_latents(
    G: Generator,
    items: Sequence[int | str],  # seeds and names of files
    options: SamplingOptions,
    model: str | None = None,  # fingerprint of G, if known
    fallback: str | None = None,  # latent space of files that could be z or w; None: refuse them
) -> Latents:
    """Collect the latents of seeds and files, in order; a file may contain several.

    Raises SganError if a file cannot be read or belongs to another model, or if files need different tuned weights.
    """
    files = {item: load_latent_file(item) for item in dict.fromkeys(items) if isinstance(item, str)}
    check_use(options.latent_space, files)
    if files and model is None:
        model = fingerprint(G)
    for path, file in files.items():
        if file.model is not None:
            check_model(path, file.model, str(model), file.settings)
        files[path] = fit(file, G, options, fallback)
    w_only = all(isinstance(item, str) and files[item].space == "w" for item in items)
    if files and options.class_index is not None and w_only:
        raise MisuseError("--class has no effect on latents from a file.", hint="Remove --class.")
    tuned = {file.tuned.name: file.tuned for file in files.values() if file.tuned}  # the name contains a hash
    if len(tuned) > 1:
        first, second, *_ = tuned.values()
        raise SganError(f"The files need different tuned weights, {first} and {second}.", hint="Use them separately.")
    device = G.device
    mapped = iter(map_seeds(G, [item for item in items if not isinstance(item, str)], options))
    ws, names, seeds, origin = [], [], [], []
    names_in_files = _unique_names(files, [str(item) for item in items if not isinstance(item, str)])
    for index, item in enumerate(items):
        if isinstance(item, str):
            file = files[item]
            ws.append(G.truncate(file.ws, options.trunc, options.trunc_cutoff))
            names += names_in_files[item]
            seeds += file.seeds
        else:
            ws.append(next(mapped)[None])
            names.append(str(item))
            seeds.append(item)
        origin += [index] * (len(names) - len(origin))
    noise = _noise(G, [files[item] if isinstance(item, str) else None for item in items], device)
    for path in tuned.values():
        G = apply_tuned(G, path, str(model))
    return Latents(G, torch.cat(ws), names, seeds, origin, noise, next(iter(tuned), None))


def load_latent_file(
    path: str | Path,
) -> LatentFile:
    """Read one file, of this or another program.

    Raises SganError if the file cannot be read or its arrays do not match.
    """
    path = Path(path)
    file = read_npz(path, lambda f: _parse(f, path), _INVALID) if _is_own(path) else read_foreign(path)
    n = len(file.ws)
    matches = file.ws.ndim == 3 and n == len(file.seeds) == len(file.names) > 0
    if _is_own(path) and (not matches or any(maps.ndim != 4 or len(maps) != n for maps in file.noise.values())):
        shape = list(file.ws.shape)
        raise SganError(
            f"The latents in {path} have shape {shape}, which does not match its other arrays.", hint=_AGAIN
        )
    if not all(torch.isfinite(numbers).all() for numbers in (file.ws, *file.noise.values(), *file.ordered_noise)):
        raise SganError(f"The latents or the noise in {path} are not finite.", hint=_AGAIN)
    if not all(0 <= seed < 2**32 for seed in file.seeds):
        raise SganError(f"The seeds in {path} are not between 0 and 4294967295.", hint=_AGAIN)
    return file


def _is_own(path: Path) -> bool:
    """Whether a file has an array `w`, as those of this program and of NVIDIA's projector."""
    try:
        with zipfile.ZipFile(path) as z:
            return "w.npy" in z.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def filename_part(
    name: str,  # of an image, see `Latents.names`
) -> str:
    """Make a name safe as part of a file name: pad seeds to four digits, replace special characters."""
    if re.fullmatch("[0-9]{1,10}", name):
        return f"{int(name):04d}"
    safe = re.sub(r"[^\w.+-]", "_", name.encode("utf-8", "replace").decode())
    return re.sub(r"^[.-]", "_", safe).encode()[:120].decode("utf-8", "ignore") or "_"


def unique_name(
    name: str,
    taken: set[str],  # lower-case parts of file names; the new one is added
) -> str:
    """Append a number if the name would lead to an existing file name. A name of digits gets the prefix 'image', as it
    is not a seed."""
    name = f"image{name}" if name.isdecimal() else name
    candidates = (name if k == 1 else f"{name}-{k}" for k in itertools.count(1))
    unique = next(candidate for candidate in candidates if filename_part(candidate).lower() not in taken)
    taken.add(filename_part(unique).lower())
    return unique


def target_names(
    images: Sequence[str | Path],  # files
) -> list[str]:
    """Return unique names of images, for use in file names."""
    taken: set[str] = set()
    return [unique_name(filename_part(f"_{Path(image).stem}")[1:] or "image", taken) for image in images]


def save_latents(
    path: str | Path,
    ws: Tensor,  # [N, num_ws, w_dim]
    *,
    seeds: Sequence[int] | None = None,  # [N]
    names: Sequence[str] | None = None,  # [N]
    noise: dict[str, Tensor] | None = None,  # layer name -> [N, 1, h, w]
    model: str | None = None,  # fingerprint
    tuned: str | None = None,  # name of the file of tuned weights in the same folder
    settings: dict | None = None,  # how the latents were made
    **more: np.ndarray,  # further arrays, for information only
) -> None:
    """Atomically write a file that `load_latent_file` reads."""
    arrays: dict[str, np.ndarray] = {"w": ws.detach().float().cpu().numpy(), **more}
    if seeds is not None:
        arrays["seeds"] = np.array(seeds, dtype=np.int64)
    if names is not None:
        arrays["names"] = np.array(names, dtype=np.str_)
    arrays |= {f"noise.{name}": maps.detach().float().cpu().numpy() for name, maps in (noise or {}).items()}
    write_npz(path, arrays, {"model": model, "tuned": tuned}, settings)


def _parse(f: np.lib.npyio.NpzFile, path: Path) -> LatentFile:
    """Convert the content of a file. Raises SganError if the tuned weights are in another folder."""
    if f["w"].dtype.kind not in "fiu":
        raise ValueError("w must contain real numbers")
    w = read_floats(f, "w")
    w = w.reshape(1, 1, -1) if w.ndim == 1 else w[:, None] if w.ndim == 2 else w
    n = len(w)
    default_names = [path.stem] if n == 1 else [f"{path.stem}-{i}" for i in range(n)]
    tuned = str(f["tuned"]) if "tuned" in f else None
    if tuned is not None and Path(tuned).name != tuned:
        raise SganError(f"{path} needs the tuned weights in {tuned}, which is not in the same folder.", hint=_AGAIN)
    return LatentFile(
        path,
        ws=w,
        space="w",
        names=[str(name) for name in f["names"]] if "names" in f else default_names,
        seeds=[int(seed) for seed in f["seeds"]] if "seeds" in f else list(range(n)),
        noise={name.removeprefix("noise."): read_floats(f, name) for name in f.files if name.startswith("noise.")},
        model=str(f["model"]) if "model" in f else None,
        tuned=path.with_name(tuned) if tuned else None,
        settings=read_settings(f),
    )


def _noise(G: Generator, files: Sequence[LatentFile | None], device: torch.device) -> list[Tensor] | None:
    """Combine the noise in the files with the model's for the other images; None if no file has noise."""
    if not any(file and file.noise for file in files):
        return None
    return [
        torch.cat(
            [
                file.noise[row.name].to(device)
                if file and file.noise
                else stored[None, None].expand(len(file.names) if file else 1, -1, -1, -1)
                for file in files
            ]
        )
        for row, stored in zip(G.noise_layers, G.stored_noise(), strict=True)
    ]


def _unique_names(files: dict[str, LatentFile], seeds: list[str]) -> dict[str, list[str]]:
    """Return unique names for the images of each file."""
    taken = {filename_part(seed) for seed in seeds}
    return {path: [unique_name(name, taken) for name in file.names] for path, file in files.items()}
