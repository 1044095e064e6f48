"""StyleGAN on any machine: the command line `sgan`, and `open` and `load` for notebooks."""

from __future__ import annotations

import os
import typing

from .version import __version__

if typing.TYPE_CHECKING:
    import torch

    from .session import Session

__all__ = ["__version__", "load", "open"]


def open(
    path: str
    | os.PathLike
    | None = None,  # a snapshot, a run folder, another program's checkpoint, or its address; None: the newest of ./runs
    device: str | torch.device = "cpu",
    kernels: str
    | None = None,  # implementation of the ops: 'auto', 'cuda', 'reference' ...; None: as SGAN_KERNELS says
) -> Session:
    """A trained model with all that the commands do: `open().generate(seeds=[1, 2, 3]).images`.

    Raises SganError if there is no such model, or the kernels are unknown or cannot run on the device.
    """
    from .session import Session, find_model

    return Session(find_model(path)[0], device, kernels)


def load(
    path: str | os.PathLike | None = None,  # as for `open`
    device: str | torch.device = "cpu",
) -> torch.nn.Module:
    """A trained generator, ready to draw: `G(z)`, or `G.mapping(z, c)` and then `G.synthesis(ws)`.

    Images are float [N, C, H, W] with -1 black and 1 white. Raises SganError if there is no such model.
    """
    from .interop.conversion import find_model
    from .interop.opening import open_model

    return open_model(find_model(path)[0], device=device).G
