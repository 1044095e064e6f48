"""The distance that a projection goes down, by its name."""

from __future__ import annotations

import torch

from ..detectors import load_lpips
from ..detectors.distances import DiscriminatorLoss, Loss, LpipsLoss, PixelLoss
from ..errors import SganError
from ..snapshot import Snapshot

LOSSES = ("lpips", "discriminator", "pixel")


def load_loss(
    name: str,  # of LOSSES
    snapshot: Snapshot,
    device: torch.device,
    file: str | None = None,  # weights of LPIPS by hand
) -> Loss:
    """A loss, ready to use. Raises SganError if the model or the weights that it needs cannot be had."""
    if name == "pixel":
        return PixelLoss()
    if name == "discriminator":
        if snapshot.D is None:
            raise SganError(
                f"{snapshot.path} holds no discriminator, which --loss discriminator compares with.",
                hint="Use --loss lpips, or --loss pixel, which needs nothing.",
            )
        return DiscriminatorLoss(snapshot.D.features)
    try:
        return LpipsLoss(load_lpips("vgg", device, file))
    except SganError as e:
        other = "--loss discriminator" if snapshot.D is not None else "--loss pixel"
        raise SganError(str(e), hint="\n".join(filter(None, [e.hint, f"Or use {other}: no download."]))) from e
