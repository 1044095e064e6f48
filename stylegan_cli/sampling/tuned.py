"""A tuned model as its difference from the model it was: one safetensors file with the tensors that changed.

Differences are small numbers, so half precision keeps them better than it would keep the weights themselves.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from ..errors import SganError
from ..files import write_atomic
from ..models.generator import Generator
from ..snapshot import fingerprint
from .bound_files import check_model

FORMAT = "stylegan_cli/tuned/1"


def save_tuned(
    folder: Path,
    G: Generator,  # as it was
    tuned: Generator,  # as it is now
    model: str | None = None,  # fingerprint of G, where it is known
) -> Path:  # tuned-<8 digits of its own hash>.safetensors: another tuning does not take its place
    """Write what changed: each tensor's difference, scaled to its largest, in float16."""
    before, after = G.state_dict(), tuned.state_dict()
    changed = {name: after[name] - before[name] for name in after if not torch.equal(after[name], before[name])}
    tensors = {}
    for name, difference in changed.items():
        scale = difference.abs().amax().float()
        tensors[f"scale.{name}"] = scale.cpu()
        tensors[f"delta.{name}"] = (difference / scale).half().cpu().contiguous()
    header = {"format": FORMAT, "base": model or fingerprint(G)}
    content = safetensors.torch.save(tensors, metadata=header)
    path = folder / f"tuned-{hashlib.sha256(content).hexdigest()[:8]}.safetensors"
    write_atomic(path, content)
    return path


def apply_tuned(
    G: Generator,
    path: str | Path,
    model: str | None = None,  # fingerprint of G, where it is known
) -> Generator:
    """A copy of the model with the differences added. Raises SganError if the file is missing, cut short or of another
    model."""
    path = Path(path)
    if not path.is_file():
        raise SganError(f"There is no file {path}, which holds the tuned weights.")
    try:
        with safetensors.safe_open(path, framework="pt") as f:
            header = f.metadata() or {}
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (no dict)
    except (safetensors.SafetensorError, OSError) as e:
        raise SganError(f"{path} holds no tuned weights, or it is cut short ({e}).") from e
    if header.get("format") != FORMAT:
        raise SganError(f"{path} is a safetensors file, but holds no tuned weights.")
    check_model(path, header.get("base"), model or fingerprint(G))
    tuned = copy.deepcopy(G)
    state = tuned.state_dict()
    for name in {name.partition(".")[2] for name in tensors}:
        delta, scale = tensors.get(f"delta.{name}"), tensors.get(f"scale.{name}")
        if (
            delta is None
            or scale is None
            or scale.numel() != 1
            or delta.shape != getattr(state.get(name), "shape", None)
        ):
            raise SganError(f"{path} does not fit the model: {name}.")
        state[name].add_((delta.float() * scale).to(state[name].device))
        if not torch.isfinite(state[name]).all():
            raise SganError(f"{path} holds numbers that are not finite, in {name} for one.")
    return tuned
