"""Presets of StackGAN: as published for 256 x 256 images (Zhang et al. 2017, section 3.4), and small."""

from typing import Any

from ..presets import CLASSIC, Preset

_SHARED: dict[str, Any] = CLASSIC | {"g_width": 2, "betas": (0.5, 0.999)}

PRESETS: dict[str, Preset] = {
    "stackgan": Preset(
        "StackGAN, 2017: a small image first, then a second generator that enlarges and corrects it",
        **_SHARED | {"batch": 64, "z_dim": 456, "channel_max": 768, "lr": 2e-4},
        by_size={  # as many channels at the level of the image, and as published fewer blocks below 256 pixels
            32: {"channel_base": 384, "generator": {"blocks": 2, "enlarge": 2}, "discriminator": {"enlarge": 2}},
            64: {"channel_base": 768, "generator": {"blocks": 2}},
            128: {"channel_base": 1536, "generator": {"blocks": 2}},
            256: {"channel_base": 3072},
        },
    ),
    "demo-stackgan": Preset(
        "a small StackGAN from 16x16 to 32x32, in minutes on a CPU",
        **_SHARED
        | {
            "batch": 16,
            "z_dim": 128,
            "channel_base": 512,
            "channel_max": 64,
            "g_width": 1,
            "generator": {"enlarge": 2, "condition": 32, "blocks": 2},
            "discriminator": {"enlarge": 2, "condition": 32, "channel_max": 48},
            "lr": 5e-4,
            "gamma": 1.0,
            "ema_kimg": 4.0,
            "ema_rampup": 0.1,
            "kimg": 40.0,
            "snap": 10.0,
            "size": 32,
        },
    ),
}
