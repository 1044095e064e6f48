"""Presets of LAPGAN: networks as for CIFAR-10 (Denton et al. 2015, section 3.1), and small ones."""

from typing import Any

from ..presets import CLASSIC, Preset

_SHARED: dict[str, Any] = CLASSIC | {"z_dim": 300, "g_width": 2, "betas": (0.5, 0.999)}

PRESETS: dict[str, Preset] = {
    "lapgan": Preset(
        "LAPGAN, 2015: a pyramid of generators, each of which adds the details of its level",
        **_SHARED | {"batch": 64, "channel_base": 4096, "channel_max": 64, "lr": 2e-4},
    ),
    "demo-lapgan": Preset(
        "a small LAPGAN at 32x32, in minutes on a CPU",
        **_SHARED
        | {
            "batch": 16,
            "channel_base": 512,
            "channel_max": 32,
            "generator": {"hidden": 600},
            "discriminator": {"hidden": 300},
            "lr": 1e-3,
            "gamma": 1.0,
            "ema_kimg": 4.0,
            "ema_rampup": 0.1,
            "kimg": 40.0,
            "snap": 10.0,
            "size": 32,
        },
    ),
}
