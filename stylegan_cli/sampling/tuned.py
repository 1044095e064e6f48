"""Tuned weights as the difference from the original model: one safetensors file with the tensors that changed.

Differences are small, so half precision represents them more accurately than the weights themselves.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from ..errors import SganError
from ..files import open_tensors, write_atomic
from ..models.generator import Generator
from ..snapshot import fingerprint
from .bound_files import check_model

FORMAT = "stylegan_cli/tuned/1"
_AGAIN = "Make it again with `sgan project --tune`."


def save_tuned(
    folder: Path,
    G: Generator,  # original
    tuned: Generator,
    model: str | None = None,  # fingerprint of G, if known
    owner: dict[str, Any] | None = None,  # see `Owner.settings`
) -> Path:  # tuned-<8 hexadecimal digits of its hash>.safetensors, so that files do not overwrite each other
    """Write the difference of each changed tensor in float16, divided by its largest absolute value."""
    before, after = G.state_dict(), tuned.state_dict()
    changed = {name: after[name] - before[name] for name in after if not torch.equal(after[name], before[name])}
    tensors = {}
    for name, difference in changed.items():
        scale = difference.abs().amax().float()
        tensors[f"scale.{name}"] = scale.cpu()
        tensors[f"delta.{name}"] = (difference / scale).half().cpu().contiguous()
    header = {"format": FORMAT, "base": model or fingerprint(G), "settings": json.dumps(owner or {})}
    content = safetensors.torch.save(tensors, metadata=header)
    path = folder / f"tuned-{hashlib.sha256(content).hexdigest()[:8]}.safetensors"
    write_atomic(path, content)
    return path


def apply_tuned(
    G: Generator,
    path: str | Path,
    model: str | None = None,  # fingerprint of G, if known
) -> Generator:
    """Return a copy of the model with the differences added. Raises SganError if the file is missing, damaged or
    belongs to another model."""
    path = Path(path)
    if not path.is_file():
        raise SganError(
            f"{path}, which contains the tuned weights, does not exist.", hint="Copy it beside the latents."
        )
    try:
        with open_tensors(path) as f:
            header = f.metadata() or {}
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as e:
        raise SganError(f"{path} is not a file of tuned weights, or it is damaged: {e}.", hint=_AGAIN) from e
    if header.get("format") != FORMAT:
        raise SganError(f"{path} is a safetensors file, but does not contain tuned weights.", hint=_AGAIN)
    check_model(path, header.get("base"), model or fingerprint(G), _settings(header))
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
            raise SganError(f"The tensor {name} in {path} does not match the model.", hint=_AGAIN)
        state[name].add_((delta.float() * scale).to(state[name].device))
        if not torch.isfinite(state[name]).all():
            raise SganError(f"The tensor {name} in {path} is not finite.", hint=_AGAIN)
    return tuned


def _settings(header: dict[str, str]) -> dict[str, Any]:
    """The settings in a header; empty in older files."""
    try:
        settings = json.loads(header.get("settings", "{}"))
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}
