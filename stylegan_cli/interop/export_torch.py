"""A generator as a file of `torch.export`: it runs in PyTorch without this package. `graphs` says what goes in and
what comes out.

    module = torch.export.load("model.pt2").module()
    image = module(torch.randn(4, 512), torch.tensor(0.7))
"""

from __future__ import annotations

from pathlib import Path

import torch

from .. import ops
from ..files import atomic_path
from ..models.generator import Generator
from .graphs import described, inputs_of, largest_difference, module_of, quiet, trace


def export_torch(
    G: Generator,
    path: str | Path,  # .pt2
    what: str = "all",  # 'all', 'mapping' or 'synthesis', see `graphs`
) -> float:
    """Write the generator, or one half of it, for any number of images.

    Returns the largest difference between what the file draws and the model. Raises SganError if it is more than 1e-4,
    or if the file cannot be written: then there is no file.
    """
    module = module_of(G, what)
    program = trace(module, inputs_of(G, what, 2))
    with atomic_path(path) as temporary, quiet():
        torch.export.save(program, temporary, extra_files=described(G, what))
        loaded = torch.export.load(temporary).module()
        with ops.use("reference"):
            return largest_difference(module, G, what, lambda inputs: loaded(*inputs.values()))
