"""The presets of R3GAN: as published for each dataset (Huang et al. 2024, appendix, and the released configurations),
and by the size of the images."""

from typing import Any

from ..presets import Preset, Schedule


def _schedule(ema_kimg: float, aug_p: float, kimg: float = 20000.0) -> dict[str, Any]:
    schedule = Schedule(kimg, lr=0.25, gamma=0.1, beta2=0.99, ema_kimg=ema_kimg, aug_p=aug_p)
    return {"schedule": schedule, "ema_kimg": ema_kimg}


_COMMON: dict[str, Any] = {
    "batch": 256,
    "z_dim": 64,
    "channel_base": 24576,
    "channel_max": 768,
    "lr": 2e-4,
    "betas": (0.0, 0.9),
    "loss": "relativistic",
    "r1_interval": 1,
    "ema_rampup": None,
    "pl_weight": 0.0,
    "mixing_prob": 0.0,
    "aug": "fixed",
    "augpipe": "modern",
}
_WIDE: dict[str, Any] = {  # of ImageNet: constant width, and twice the channels in each group
    "batch": 4096,
    "channel_base": 1 << 20,
    "channel_max": 1536,
    "generator": {"group_channels": 32},
    "discriminator": {"group_channels": 32},
}
_CIFAR = _schedule(5000.0, 0.55) | {"batch": 512, "gamma": 0.05}
_FFHQ64 = _schedule(500.0, 0.3) | {"gamma": 2.0}
_FFHQ256 = _schedule(500.0, 0.3) | {"gamma": 150.0}


def _preset(about: str, **settings: Any) -> Preset:
    return Preset(about, **_COMMON | settings)


PRESETS: dict[str, Preset] = {
    "r3gan": _preset(
        "R3GAN, the modern baseline: relativistic loss with both penalties, settings from the image size",
        by_size={32: _CIFAR, 64: _FFHQ64, 128: _FFHQ64 | {"gamma": 17.0}, 256: _FFHQ256},
    ),
    "r3gan-cifar": _preset("R3GAN as published for CIFAR-10 at 32 x 32", **_CIFAR),
    "r3gan-ffhq64": _preset("R3GAN as published for FFHQ at 64 x 64", **_FFHQ64),
    "r3gan-ffhq256": _preset("R3GAN as published for FFHQ at 256 x 256", **_FFHQ256),
    "r3gan-imagenet32": _preset(
        "R3GAN as published for ImageNet at 32 x 32", **_WIDE | _schedule(50000.0, 0.5, 200000.0) | {"gamma": 0.5}
    ),
    "r3gan-imagenet64": _preset(
        "R3GAN as published for ImageNet at 64 x 64", **_WIDE | _schedule(50000.0, 0.4, 200000.0) | {"gamma": 1.0}
    ),
}
