"""The distances that projection and encoders can minimize, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import SganError
from . import load_lpips
from .distances import DiscriminatorLoss, Loss, LpipsLoss, PixelLoss

LOSSES = ("lpips", "discriminator", "pixel")


def load_loss(
    name: str,  # of LOSSES
    levels: Callable[[Tensor], list[Tensor]] | None,  # features of the model's discriminator; None: it has none
    model: Path,  # the model's file, for messages
    device: torch.device,
    file: str | None = None,  # with the weights of LPIPS
) -> Loss:
    """Load a loss. Raises SganError if the discriminator or the weights that it needs are not available."""
    if name == "pixel":
        return PixelLoss()
    if name == "discriminator":
        if levels is None:
            raise SganError(
                f"{model} has no discriminator, which --loss discriminator needs.",
                hint="Use --loss lpips, or --loss pixel, which needs no network.",
            )
        return DiscriminatorLoss(levels)
    try:
        return LpipsLoss(load_lpips("vgg", device, file))
    except SganError as e:
        alternative = "--loss discriminator" if levels is not None else "--loss pixel"
        hints = [e.hint, f"Or use {alternative}, which needs no download."]
        raise SganError(str(e), hint="\n".join(filter(None, hints))) from e
