"""The presets of StyleR3GAN: with the settings of R3GAN, and a demo that trains in minutes."""

import dataclasses

from ..presets import Preset, Schedule
from ..r3gan.presets import PRESETS as R3GAN

# Without the usual reduction of the mapping network's learning rate.
_MAPPING = {"w_dim": 64, "mapping_layers": 2, "mapping_lr": 1.0}

PRESETS: dict[str, Preset] = {
    "style-r3gan": dataclasses.replace(
        R3GAN["r3gan"], about="R3GAN with styles, ours: settings from the image size", **_MAPPING
    ),
    "demo": Preset(
        "a small StyleR3GAN that trains in minutes on two CPU cores",
        **_MAPPING,
        batch=8,
        z_dim=64,
        channel_base=1024,
        channel_max=64,
        lr=0.002,
        betas=(0.0, 0.9),
        loss="relativistic",
        gamma=3.0,
        r1_interval=4,  # twice as many images in the same time as with penalties at every step
        schedule=Schedule(kimg=16.0, lr=0.25, gamma=0.1),
        ema_kimg=4.0,
        ema_rampup=0.1,
        pl_weight=0.0,
        mixing_prob=0.0,
        aug="noaug",
        kimg=16.0,
        snap=4.0,
        size=32,
    ),
}
