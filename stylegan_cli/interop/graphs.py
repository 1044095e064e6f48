"""A generator as a graph of PyTorch's own operations that takes any number of images: what other runtimes are given.

    'all'         z [N, z_dim], truncation_psi [], c [N, c_dim]  ->  image [N, channels, height, width] in [-1, 1]
    'mapping'     z, truncation_psi, c                           ->  ws [N, num_ws, w_dim]
    'synthesis'   ws                                             ->  image

All of float32; c, one-hot, is there if the model knows classes. The noise is the stored one.
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
TOLERANCE = 1e-4  # of an image's largest value, or of 1


class Part(nn.Module):
    """A generator, or one half of it."""

    output: str  # name of what comes out


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


def module_of(
    G: Generator,
    what: str,  # of PARTS
) -> Part:
    """The part as a module by itself, on the CPU, in float32; the generator stays as it is. Raises ValueError on a
    name that is none of PARTS."""
    if what not in PARTS:
        raise ValueError(f"what must be one of {', '.join(PARTS)}, not {what!r}")
    kind = {"all": _All, "mapping": _Mapping, "synthesis": _Synthesis}[what]
    module = kind(copy.deepcopy(G)).to("cpu", torch.float32)
    return module.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def inputs_of(
    G: Generator,
    what: str,  # of PARTS
    batch: int,
) -> dict[str, Tensor]:
    """Some inputs, the same ones each time, in the order that the part takes them in."""
    config, draw = G.config, torch.Generator().manual_seed(batch)
    if what == "synthesis":
        return {"ws": torch.randn(batch, G.num_ws, config.w_dim, generator=draw)}
    inputs = {"z": torch.randn(batch, config.z_dim, generator=draw), "truncation_psi": torch.tensor(0.7)}
    if config.c_dim:
        inputs["c"] = torch.eye(config.c_dim)[torch.arange(batch) % config.c_dim]
    return inputs


def trace(
    module: nn.Module,
    inputs: dict[str, Tensor],  # of two images: one would be taken for a constant
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
    what: str,  # of PARTS
    run: Callable[[dict[str, Tensor]], Tensor],  # what was exported
) -> float:
    """Between what was exported and PyTorch, for one image and for three. Raises SganError if it is too large."""
    worst = 0.0
    for batch in (1, 3):
        inputs = inputs_of(G, what, batch)
        with torch.no_grad():
            expected = module(*inputs.values())
        difference = (run(inputs) - expected).abs().max().item()
        if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
            raise SganError(f"What was exported differs from the model by {difference:.2g}, and was not kept.")
        worst = max(worst, difference)
    return worst


def described(
    G: Generator,
    what: str,  # of PARTS
) -> dict[str, str]:
    """What goes into the file beside the graph."""
    return {"config": json.dumps(to_json(G.config)), "part": what, "writer": f"stylegan_cli {__version__}"}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what PyTorch's exporters tell their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
