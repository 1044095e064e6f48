"""A generator as a graph of standard PyTorch operations with a dynamic batch size, for export to other runtimes.

    'all'         z [N, z_dim], truncation_psi [], c [N, c_dim]  ->  image [N, channels, height, width] in [-1, 1]
    'mapping'     z, truncation_psi, c                           ->  ws [N, num_ws, w_dim]
    'synthesis'   ws                                             ->  image

All tensors are float32. c is one-hot and only present if the model is conditional. The noise is the stored one.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .. import __version__, ops
from ..config import to_json
from ..errors import SganError
from ..models.generator import Generator

PARTS = ("all", "mapping", "synthesis")
TOLERANCE = 1e-4  # relative to the largest value of the output, if it exceeds 1


class Part(nn.Module):
    """A generator, or one half of it."""

    output: str  # name of the output


class _Mapping(Part):
    output = "ws"

    def __init__(self, G: Generator):
        super().__init__()
        self.mapping = G.mapping

    def forward(
        self,
        z: Tensor,  # [N, z_dim]
        truncation_psi: Tensor,  # []
        c: Tensor | None = None,  # [N, c_dim] one-hot
    ) -> Tensor:  # [N, num_ws, w_dim]
        return self.mapping(z, c, truncation_psi)


class _Synthesis(Part):
    output = "image"

    def __init__(self, G: Generator):
        super().__init__()
        self.synthesis = G.synthesis

    def forward(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
    ) -> Tensor:  # [N, channels, height, width]
        return self.synthesis(ws, noise="const")


class _All(Part):
    output = "image"

    def __init__(self, G: Generator):
        super().__init__()
        self.mapping, self.synthesis = G.mapping, G.synthesis

    def forward(
        self,
        z: Tensor,  # [N, z_dim]
        truncation_psi: Tensor,  # []
        c: Tensor | None = None,  # [N, c_dim] one-hot
    ) -> Tensor:  # [N, channels, height, width]
        return self.synthesis(self.mapping(z, c, truncation_psi), noise="const")


def extract_part(
    G: Generator,
    part: str,  # one of PARTS
) -> Part:
    """Copy a part of a generator into a module of its own, on the CPU and in float32. Raises ValueError if there is no
    such part."""
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, not {part!r}")
    part_class = {"all": _All, "mapping": _Mapping, "synthesis": _Synthesis}[part]
    module = part_class(copy.deepcopy(G)).to("cpu", torch.float32)
    return module.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def example_inputs(
    G: Generator,
    part: str,  # one of PARTS
    batch: int,
) -> dict[str, Tensor]:
    """Reproducible example inputs, in the order of the part's arguments."""
    config, random = G.config, torch.Generator().manual_seed(batch)
    if part == "synthesis":
        return {"ws": torch.randn(batch, G.num_ws, config.w_dim, generator=random)}
    inputs = {"z": torch.randn(batch, config.z_dim, generator=random), "truncation_psi": torch.tensor(0.7)}
    if config.c_dim:
        inputs["c"] = torch.eye(config.c_dim)[torch.arange(batch) % config.c_dim]
    return inputs


def trace(
    module: nn.Module,
    inputs: dict[str, Tensor],  # for two images, because a batch of 1 would be treated as a constant
) -> torch.export.ExportedProgram:
    with ops.use("reference"), quiet():
        return torch.export.export(module, tuple(inputs.values()), dynamic_shapes=dynamic_shapes(inputs), strict=False)


def dynamic_shapes(
    inputs: dict[str, Tensor],
) -> tuple:
    batch = torch.export.Dim("batch")
    return tuple({0: batch} if x.ndim else None for x in inputs.values())


def largest_difference(
    module: nn.Module,
    G: Generator,
    part: str,  # one of PARTS
    run: Callable[[dict[str, Tensor]], Tensor],  # runs the exported graph
) -> float:
    """Compare an exported graph with the model, for one and for three images. Raises SganError if they differ."""
    worst = 0.0
    for batch in (1, 3):
        inputs = example_inputs(G, part, batch)
        with torch.no_grad():
            expected = module(*inputs.values())
        difference = (run(inputs) - expected).abs().max().item()
        if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
            raise SganError(
                f"The exported graph differs from the model by {difference:.2g}; it was discarded.",
                hint="This is a bug: please report it, with the output of `sgan doctor --json`.",
            )
        worst = max(worst, difference)
    return worst


def metadata_of(
    G: Generator,
    part: str,  # one of PARTS
) -> dict[str, str]:
    """The metadata to store in the file."""
    return {"config": json.dumps(to_json(G.config)), "part": part, "writer": f"stylegan_cli {__version__}"}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings of PyTorch's exporters, which are meant for their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
