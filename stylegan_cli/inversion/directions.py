"""Directions in W: their files, and moving latents along them.

A file is an .npz without pickles: `vectors` [K, w_dim] of unit length, `scales` [K], `names` [K], `layers`, the w
indices that they are for, `method`, `model`, the fingerprint of the model, `strength`, a good default, `figure.<name>`
[K], measurements of each direction, and `settings`, JSON for information only.
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

from ..errors import SganError, suggest
from ..models.generator import Generator
from ..sampling.bound_files import check_model, read_floats, read_npz, read_settings, write_npz
from ..sampling.generate import SamplingOptions, map_seeds
from ..sampling.labels import Choice
from ..sampling.mixing import style_indices
from ..snapshot import fingerprint

DEFAULT_STRENGTH = 3.0
_BATCH = 1000  # seeds to map at a time


@dataclass(frozen=True)
class Directions:
    """K directions in W."""

    vectors: Tensor  # [K, w_dim] float32, of unit length
    scales: Tensor  # [K] float32, standard deviation of w along each: the step of strength 1
    names: list[str]  # [K]
    layers: list[int]  # w indices to move by default
    method: str  # 'pca', 'sefa', 'codes' or 'labels'
    model: str  # fingerprint
    strength: float = DEFAULT_STRENGTH  # a good strength to show them
    figures: dict[str, list[float]] = field(default_factory=dict)  # name -> [K] measurements of each
    settings: dict = field(default_factory=dict)  # how they were found

    def __len__(self) -> int:
        return len(self.names)

    def move(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        index: int,  # of the direction
        strength: float,  # in standard deviations of w along the direction
        layers: Sequence[int] | None = None,  # w indices; None: `self.layers`
    ) -> Tensor:  # [N, num_ws, w_dim]
        """Move latents along a direction, in the chosen layers only. A strength of 0 changes no bit."""
        moved = ws.clone()
        if strength:
            step = (self.vectors[index] * self.scales[index] * strength).to(ws)
            moved[:, self.layers if layers is None else list(layers)] += step
        return moved

    def select(
        self,
        indices: Sequence[int],
    ) -> Directions:
        """Return some of the directions, with the setting `values`, which has one item per direction, to match."""
        settings = self.settings
        if "values" in settings:
            settings = {**settings, "values": [settings["values"][k] for k in indices]}
        return replace(
            self,
            vectors=self.vectors[list(indices)],
            scales=self.scales[list(indices)],
            names=[self.names[k] for k in indices],
            figures={name: [values[k] for k in indices] for name, values in self.figures.items()},
            settings=settings,
        )

    def choose(
        self,
        text: str,  # a name, a number, a range such as '0-4', or several separated by commas
    ) -> list[int]:
        """Return the indices of the chosen directions. Raises SganError, suggesting a similar name, if there is no such
        direction."""
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
                raise SganError(f"There is no direction {part!r} in this file.", hint=self._suggest(part))
        return chosen

    def _suggest(self, part: str) -> str:
        examples = ", ".join(self.names[:5]) + (" ..." if len(self) > 5 else "")
        return suggest(part, self.names, repr) or f"Choose from 0-{len(self) - 1}, or by name: {examples}"


def concatenate(
    parts: Sequence[Directions],  # of the same model, method and strength
) -> Directions:
    """Concatenate directions, in order."""
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
    """Atomically write a file that `load_directions` reads."""
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
    G: Generator,
    model: str | None = None,  # fingerprint of G, if known
) -> Directions:
    """Read a file. Raises SganError if it cannot be read, is inconsistent, or belongs to another model."""
    path = Path(path)
    hint = "Make a file of directions with `sgan edit find`."
    directions = read_npz(path, _parse, "is not a file of directions, or it is damaged", hint)
    if problem := _find_problem(directions):
        raise SganError(f"{path} is not a valid file of directions: {problem}.")
    check_model(path, directions.model, model or fingerprint(G), directions.settings)
    if directions.vectors.shape[1] != G.config.w_dim:
        size = directions.vectors.shape[1]
        raise SganError(f"The directions in {path} have {size} dimensions; the w of this model has {G.config.w_dim}.")
    style_indices(G.layers, directions.layers)
    return directions


def newest_directions(
    folder: str | Path,
) -> Path:
    """Return the file that `sgan edit find` wrote most recently. Raises SganError if there is none."""
    files = sorted(Path(folder).glob("directions-*.npz"), key=lambda p: p.stat().st_mtime_ns)
    if not files:
        raise SganError(
            f"There are no directions in {folder}.", hint="Find some with `sgan edit find`, or use --directions."
        )
    return files[-1]


def sample_w(
    G: Generator,
    seeds: Sequence[int],
    class_index: Choice | None = None,  # None: sampled from each seed, if the model has classes
) -> Tensor:  # [N, w_dim] float64, on the CPU
    """Map seeds to W."""
    options = SamplingOptions(class_index=class_index)
    parts = [map_seeds(G, seeds[i : i + _BATCH], options)[:, 0].cpu() for i in range(0, len(seeds), _BATCH)]
    return torch.cat(parts).double()


def std_along(
    w: Tensor,  # [N, w_dim]
    vectors: Tensor,  # [K, w_dim] of unit length
) -> Tensor:  # [K]
    """Compute the standard deviation of w along each direction."""
    return (w.double() @ vectors.double().T).std(0).float()


def unit_vectors(
    vectors: Tensor,  # [K, w_dim]
) -> Tensor:  # [K, w_dim] float32
    """Normalize vectors to unit length."""
    return torch.nn.functional.normalize(vectors.double(), dim=1).float()


def _parse(f: np.lib.npyio.NpzFile) -> Directions:
    """Convert the content of a file. Raises ValueError on wrong data types."""
    kinds = {"vectors": "f", "scales": "f", "layers": "iu", "names": "U", "strength": "f", "settings": "U"}
    if any(f[name].dtype.kind not in kind for name, kind in kinds.items()):
        raise ValueError("wrong data type")
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


def _find_problem(d: Directions) -> str | None:
    """Describe what is wrong with the content of a file; None if nothing is."""
    k = len(d.names)
    if not k or d.vectors.ndim != 2 or len(d.vectors) != k or d.scales.shape != (k,) or not d.layers:
        return "the numbers of vectors, scales and names differ, or there are no layers"
    if any(not isinstance(values, list) or len(values) != k for values in d.figures.values()):
        return "the numbers of figures and directions differ"
    if not torch.allclose(d.vectors.norm(dim=1), torch.ones(k), atol=1e-3):
        return "some vectors do not have length 1"
    if not (torch.isfinite(d.scales) & (d.scales > 0)).all() or not 0 < d.strength < math.inf:
        return "scales and strength must be positive and finite"
    return None
