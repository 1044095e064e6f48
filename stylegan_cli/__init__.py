"""StyleGAN on any machine: the command line `sgan`, and `load` for notebooks."""

from __future__ import annotations

import os
import typing

if typing.TYPE_CHECKING:
    import torch

__version__ = "0.1.0"


def load(
    path: str
    | os.PathLike
    | None = None,  # a snapshot, a run folder, another program's checkpoint; None: the newest of ./runs
    device: str | torch.device = "cpu",
) -> torch.nn.Module:
    """A trained generator, ready to draw: `G(z)`, or `G.mapping(z, c)` and then `G.synthesis(ws)`.

    Pictures are float [N, C, H, W] with -1 black and 1 white. Raises SganError if there is no such model.
    """
    from pathlib import Path

    from .interop.opening import open_model
    from .runs import find_model

    return open_model(find_model(path, Path("runs"))[0], device=device).G
