"""Directions in W: small named files, and what is done with them to latents.

A file is an .npz without pickles: `vectors` [K, w_dim] of unit length, `scales` [K], `names` [K], `layers`, the indices
of w that they are for, `method`, `model`, the fingerprint of the model that they belong to, `strength`, which shows
them well, `figure.<name>` [K], what is known about each, and `settings`, JSON for the reader.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import SganError, nearest
from ..models.generator import Generator
from ..sampling.bound_files import check_model, read_floats, read_npz, read_settings, write_npz
from ..sampling.generate import SamplingOptions, map_seeds
from ..sampling.mixing import style_indices
from ..snapshot import fingerprint

DEFAULT_STRENGTH = 3.0  # of directions that nothing more is known about
_AT_ONCE = 1000  # seeds to map


@dataclass(frozen=True)
class Directions:
    """Ways to go in W."""

    vectors: Tensor  # [K, w_dim] float32, of unit length
    scales: Tensor  # [K] float32, standard deviation of w along each: what a strength of 1 means
    names: list[str]  # [K]
    layers: list[int]  # indices of w that are moved where no others are asked for
    method: str  # 'pca', 'sefa' or 'labels'
    model: str  # fingerprint
    strength: float = DEFAULT_STRENGTH  # that shows them well
    figures: dict[str, list[float]] = field(default_factory=dict)  # name -> [K], what is known about each
    settings: dict = field(default_factory=dict)  # how they were found

    def __len__(self) -> int:
        return len(self.names)

    def move(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        which: int,
        strength: float,  # in standard deviations of w along the direction
        layers: Sequence[int] | None = None,  # indices of w; None: those of the file
    ) -> Tensor:  # [N, num_ws, w_dim]
        """The latents moved along one direction, at the chosen layers alone. A strength of 0 changes no bit."""
        moved = ws.clone()
        if strength:
            step = (self.vectors[which] * self.scales[which] * strength).to(ws)
            moved[:, self.layers if layers is None else list(layers)] += step
        return moved

    def only(
        self,
        which: Sequence[int],
    ) -> Directions:
        """Some of them. Settings that tell of each, `values`, are cut down too."""
        settings = self.settings
        if "values" in settings:
            settings = {**settings, "values": [settings["values"][k] for k in which]}
        return replace(
            self,
            vectors=self.vectors[list(which)],
            scales=self.scales[list(which)],
            names=[self.names[k] for k in which],
            figures={name: [values[k] for k in which] for name, values in self.figures.items()},
            settings=settings,
        )

    def choose(
        self,
        text: str,  # a name, a number, a range of numbers '0-4', or several with commas
    ) -> list[int]:
        """Which directions are meant. Raises SganError, with the nearest name, if there is no such one."""
        if text in self.names:
            return [self.names.index(text)]
        chosen: list[int] = []
        for part in text.split(","):
            match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part.strip())
            if part in self.names:
                chosen.append(self.names.index(part))
            elif match and int(match[1]) <= (last := int(match[2] or match[1])) < len(self):
                chosen += range(int(match[1]), last + 1)
            else:
                raise SganError(f"There is no direction {part!r} in this file.", hint=self._near(part))
        return chosen

    def _near(self, part: str) -> str:
        some = ", ".join(self.names[:5]) + (" ..." if len(self) > 5 else "")
        return nearest(part, self.names, repr) or f"Choose from 0-{len(self) - 1}, or by name: {some}"


def concatenate(
    parts: Sequence[Directions],  # of one model, method and strength
) -> Directions:
    """All of them, in this order."""
    first = parts[0]
    return replace(
        first,
        vectors=torch.cat([d.vectors for d in parts]),
        scales=torch.cat([d.scales for d in parts]),
        names=[name for d in parts for name in d.names],
        figures={name: [value for d in parts for value in d.figures[name]] for name in first.figures},
        settings={**first.settings, "values": [value for d in parts for value in d.settings.get("values", [])]},
    )


def save_directions(
    path: str | Path,
    directions: Directions,
) -> None:
    """Write a file that `load_directions` reads, whole or not at all."""
    d = directions
    arrays: dict[str, np.ndarray] = {
        "vectors": d.vectors.float().cpu().numpy(),
        "scales": d.scales.float().cpu().numpy(),
    }
    arrays |= {"names": np.array(d.names, dtype=np.str_), "layers": np.array(d.layers, dtype=np.int64)}
    arrays |= {f"figure.{name}": np.array(values, dtype=np.float64) for name, values in d.figures.items()}
    arrays["strength"] = np.array(d.strength)
    write_npz(path, arrays, {"method": d.method, "model": d.model}, d.settings)


def load_directions(
    path: str | Path,
    G: Generator,  # the model that they are to be used with
    model: str | None = None,  # its fingerprint, where it is known
) -> Directions:
    """One file. Raises SganError if it cannot be read, its parts do not fit together, or it is of another model."""
    path = Path(path)
    directions = read_npz(path, _parse, "holds no directions, or it is damaged", "`sgan edit find` makes one.")
    if wrong := _misfit(directions):
        raise SganError(f"{path} does not fit together: {wrong}.")
    check_model(path, directions.model, model or fingerprint(G), directions.settings.get("model"))
    if directions.vectors.shape[1] != G.config.w_dim:
        raise SganError(f"{path} does not fit together: vectors of another length than the model's w.")
    style_indices(G.layers, directions.layers)
    return directions


def newest_directions(
    folder: str | Path,
) -> Path:
    """The file that `sgan edit find` wrote last there. Raises SganError if there is none."""
    files = sorted(Path(folder).glob("directions-*.npz"), key=lambda p: p.stat().st_mtime_ns)
    if not files:
        raise SganError(f"There are no directions in {folder}.", hint="`sgan edit find` makes some; or --directions.")
    return files[-1]


def sample_w(
    G: Generator,
    seeds: Sequence[int],
    class_index: int | None = None,  # None: drawn by each seed, in a model with classes
) -> Tensor:  # [N, w_dim] float64, on the CPU
    """Where seeds are in W."""
    options = SamplingOptions(class_index=class_index)
    parts = [map_seeds(G, seeds[i : i + _AT_ONCE], options)[:, 0].cpu() for i in range(0, len(seeds), _AT_ONCE)]
    return torch.cat(parts).double()


def std_along(
    w: Tensor,  # [N, w_dim]
    vectors: Tensor,  # [K, w_dim] of unit length
) -> Tensor:  # [K]
    """The standard deviation of w along each direction."""
    return (w.double() @ vectors.double().T).std(0).float()


def unit_vectors(
    vectors: Tensor,  # [K, w_dim]
) -> Tensor:  # [K, w_dim] float32
    """Each of length 1."""
    return torch.nn.functional.normalize(vectors.double(), dim=1).float()


def _parse(f: np.lib.npyio.NpzFile) -> Directions:
    """What stands in the file, of the right types."""
    kinds = {"vectors": "f", "scales": "f", "layers": "iu", "names": "U", "strength": "f", "settings": "U"}
    if any(f[name].dtype.kind not in kind for name, kind in kinds.items()):
        raise ValueError("another kind of numbers")
    figures = {name.removeprefix("figure."): f[name] for name in f.files if name.startswith("figure.")}
    return Directions(
        vectors=read_floats(f, "vectors"),
        scales=read_floats(f, "scales"),
        names=[str(name) for name in f["names"]],
        layers=[int(i) for i in f["layers"]],
        method=str(f["method"]),
        model=str(f["model"]),
        strength=float(f["strength"]),
        figures={name: values.astype(np.float64).tolist() for name, values in figures.items()},
        settings=read_settings(f),
    )


def _misfit(d: Directions) -> str | None:
    """What is wrong with it, in a few words."""
    k = len(d.names)
    if not k or d.vectors.ndim != 2 or len(d.vectors) != k or d.scales.shape != (k,) or not d.layers:
        return "vectors, scales, names and layers are not as many as each other"
    if any(not isinstance(values, list) or len(values) != k for values in d.figures.values()):
        return "its figures are not as many as its directions"
    if not torch.allclose(d.vectors.norm(dim=1), torch.ones(k), atol=1e-3):
        return "vectors that are not of length 1"
    if not (torch.isfinite(d.scales) & (d.scales > 0)).all() or not 0 < d.strength < math.inf:
        return "scales or a strength that are not above 0"
    return None
