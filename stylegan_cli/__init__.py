"""StyleGAN on any machine: the command line `sgan`, and `open` and `load` for notebooks."""

from __future__ import annotations

import os
import typing

from .version import __version__

if typing.TYPE_CHECKING:
    from pathlib import Path

    import torch

    from .session import Session

__all__ = ["__version__", "load", "open"]


def open(
    path: str
    | os.PathLike
    | None = None,  # a snapshot, a run folder, another program's checkpoint; None: the newest of ./runs
    device: str | torch.device = "cpu",
    kernels: str
    | None = None,  # implementation of the ops: 'auto', 'cuda', 'reference' ...; None: as SGAN_KERNELS says
) -> Session:
    """A trained model with all that the commands do: `open().generate(seeds=[1, 2, 3]).images`.

    Raises SganError if there is no such model.
    """
    from .session import Session

    return Session(_find(path), device, kernels)


def load(
    path: str | os.PathLike | None = None,  # as for `open`
    device: str | torch.device = "cpu",
) -> torch.nn.Module:
    """A trained generator, ready to draw: `G(z)`, or `G.mapping(z, c)` and then `G.synthesis(ws)`.

    Pictures are float [N, C, H, W] with -1 black and 1 white. Raises SganError if there is no such model.
    """
    from .interop.opening import open_model

    return open_model(_find(path), device=device).G


def _find(path: str | os.PathLike | None) -> Path:
    from .runs import find_model

    return find_model(path, "runs")[0]
