"""Export of a generator with `torch.export`, to run in PyTorch without this package. `graphs` describes inputs and
outputs.

    module = torch.export.load("model.pt2").module()
    image = module(torch.randn(4, 512), torch.tensor(0.7))
"""

from __future__ import annotations

from pathlib import Path

import torch

from .. import ops
from ..files import atomic_path
from ..models.generator import Generator
from .graphs import example_inputs, extract_part, largest_difference, metadata_of, quiet, trace


def export_torch(
    G: Generator,
    path: str | Path,  # .pt2
    part: str = "all",  # 'all', 'mapping' or 'synthesis', see `graphs`
) -> float:
    """Write the generator, or one half of it, with a dynamic batch size.

    Returns the largest difference between the outputs of the file and the model. Raises SganError, and writes no file,
    if it is more than 1e-4 or if the file cannot be written.
    """
    module = extract_part(G, part)
    program = trace(module, example_inputs(G, part, 2))
    with atomic_path(path) as temporary, quiet():
        with open(temporary, "w+b") as f:  # PyTorch cannot open a path with undecodable bytes
            torch.export.save(program, f, extra_files=metadata_of(G, part))
            f.seek(0)
            loaded = torch.export.load(f).module()
        with ops.use("reference"):
            return largest_difference(module, G, part, lambda inputs: loaded(*inputs.values()))
