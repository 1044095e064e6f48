"""The content of a file of latents, and what its numbers are to a model: z, w or w+, and of how many images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..errors import MisuseError, SganError
from ..models.generator import Generator
from .generate import SamplingOptions
from .labels import class_labels

_OTHER_MODEL = "Use the model that it was made with."


@dataclass(frozen=True)
class LatentFile:
    """The content of one file."""

    path: Path
    ws: Tensor  # float32 [N, layers, dim]; from other programs also [rows, dim] or [dim], and z
    space: str | None  # 'w', or 'z', by the name of the array; None: it does not say
    names: list[str]  # [N]; empty: from the name of the file
    seeds: list[int]  # [N]; empty: 0 to N - 1
    noise: dict[str, Tensor] = field(default_factory=dict)  # layer name -> [N, 1, h, w]; empty: the model's own noise
    ordered_noise: tuple[Tensor, ...] = ()  # [N, 1, h, w] of each layer, if the file does not name them
    model: str | None = None  # fingerprint
    tuned: Path | None = None  # file of tuned weights
    settings: dict = field(default_factory=dict)  # how the file was made


def check_use(
    space: str | None,
    files: object,  # false if there are none
) -> None:
    """Raise MisuseError if a latent space is chosen, but there is no file."""
    if space is not None and not files:
        raise MisuseError("--latent-space has no effect without a file of latents.", hint="Remove --latent-space.")


def fit(
    file: LatentFile,
    G: Generator,
    options: SamplingOptions,
    fallback: str | None = None,  # 'z' or 'w', of numbers that could be both; None: refuse them
) -> LatentFile:  # with w [N, num_ws, w_dim], all names and seeds, and the noise by layer
    """Convert the content of a file for a model. Raises SganError if it does not fit, or if its space is unknown."""
    values = _with_layers(file, G, options.latent_space)  # [N, layers, dim]
    n, layers, dim = values.shape
    space = _space(file, values, G, options.latent_space, fallback)
    config, seeds = G.config, file.seeds or list(range(n))
    if space == "z" and dim != config.z_dim:
        raise SganError(
            f"The latents z in {file.path} have {dim} numbers; this model needs {config.z_dim}.", hint=_OTHER_MODEL
        )
    if space == "w" and layers not in (1, G.num_ws):
        raise SganError(
            f"The latents in {file.path} have {layers} layers; this model has {G.num_ws}, for images of "
            f"{config.height} x {config.width} (height x width).",
            hint=_OTHER_MODEL,
        )
    if space == "w" and dim != config.w_dim:
        raise SganError(
            f"The latents in {file.path} have {dim} numbers per layer; this model needs {config.w_dim}.",
            hint=_OTHER_MODEL,
        )
    ws = values.to(G.device).expand(-1, G.num_ws, -1) if space == "w" else _map(G, values[:, 0], seeds, options)
    names = file.names or ([file.path.stem] if n == 1 else [f"{file.path.stem}-{i}" for i in range(n)])
    return dataclasses.replace(file, ws=ws, space=space, names=names, seeds=seeds, noise=_noise_by_layer(file, G))


def _with_layers(file: LatentFile, G: Generator, space: str | None) -> Tensor:  # [N, layers, dim]
    """Decide whether rows are images, or the layers of one."""
    values = file.ws
    if values.ndim == 3:
        return values
    rows, dim = values.shape if values.ndim == 2 else (1, len(values))
    if rows == 1 or space in ("z", "w") or (file.space == "z" and space is None):
        return values.reshape(rows, 1, dim)
    if space == "w+" or rows == G.num_ws:
        return values.reshape(1, rows, dim)
    raise SganError(
        f"{file.path} has {rows} rows of {dim} numbers, but this model has {G.num_ws} layers: the rows are the layers "
        "of another model, or one latent each.",
        hint="If each row is an image, add --latent-space z or --latent-space w.",
    )


def _space(
    file: LatentFile, values: Tensor, G: Generator, chosen: str | None, fallback: str | None
) -> str:  # 'z' or 'w'
    """Decide between z and w: the option, layers, the name of the array, then the only space of that dimension."""
    n, layers, dim = values.shape
    if chosen == "w+" and layers == 1 and n > 1:
        raise MisuseError(
            f"The {n} latents in {file.path} have one layer each, so they are not w+.",
            hint=f"Use --latent-space w, or save the layers of one image as [1, {n}, {dim}].",
        )
    if chosen == "z" and layers > 1:
        raise MisuseError(
            f"The latents in {file.path} have {layers} layers, but z has none.", hint="Remove --latent-space z."
        )
    if chosen is not None or layers > 1:
        return "z" if chosen == "z" else "w"
    if file.space is not None:
        return file.space
    fitting = [space for space, size in (("z", G.config.z_dim), ("w", G.config.w_dim)) if size == dim]
    if len(fitting) == 2 and fallback is None:
        raise MisuseError(
            f"{file.path} does not say whether its {dim} numbers per image are z or w.",
            hint="Add --latent-space z or --latent-space w.",
        )
    return fitting[0] if len(fitting) == 1 else fallback or "w"


@torch.no_grad()
def _map(
    G: Generator,
    z: Tensor,  # [N, z_dim]
    seeds: list[int],  # of classes, if none is chosen
    options: SamplingOptions,
) -> Tensor:  # [N, num_ws, w_dim], not truncated
    c = class_labels(options.class_index, seeds, G.label_space)
    return G.mapping(z.to(G.device), None if c is None else c.to(G.device))


def _noise_by_layer(file: LatentFile, G: Generator) -> dict[str, Tensor]:
    rows = G.noise_layers
    noise = file.noise
    if file.ordered_noise and len(file.ordered_noise) == len(rows):
        noise = {row.name: maps for row, maps in zip(rows, file.ordered_noise, strict=True)}
    sizes = {row.name: (1, row.height, row.width) for row in rows}
    if {name: tuple(maps.shape[1:]) for name, maps in noise.items()} != (sizes if noise or file.ordered_noise else {}):
        raise SganError(f"The noise in {file.path} does not match the layers of this model.", hint=_OTHER_MODEL)
    return noise
