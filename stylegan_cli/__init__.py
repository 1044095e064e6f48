"""StyleGAN on any machine: the command `sgan`, and `open` and `load` for notebooks."""

from __future__ import annotations

import os
import typing

from .version import __version__

if typing.TYPE_CHECKING:
    import torch

    from .session import Session

__all__ = ["__version__", "load", "open"]


def open(
    # snapshot, run folder, checkpoint of another program (path or URL), or a public model; None: newest in ./runs
    path: str | os.PathLike | None = None,
    device: str | torch.device = "cpu",
    kernels: str | None = None,  # implementation of the ops: 'auto', 'cuda', 'reference' ...; None: from SGAN_KERNELS
) -> Session:
    """Open a trained model, with a method for each command: `open().generate(seeds=[1, 2, 3]).images`.

    Raises SganError if there is no such model, or the kernels are unknown or cannot run on the device.
    """
    from .session import Session, find_model

    return Session(find_model(path)[0], device, kernels)


def load(
    path: str | os.PathLike | None = None,  # as for `open`
    device: str | torch.device = "cpu",
) -> torch.nn.Module:
    """Load a trained generator: call `G(z)`, or `G.mapping(z, c)` and then `G.synthesis(ws)`.

    Images are float [N, C, H, W], from -1 (black) to 1 (white). Raises SganError if there is no such model.
    """
    from .interop.conversion import find_model
    from .interop.opening import open_model

    return open_model(find_model(path)[0], device=device).G
