"""The presets of StyleGAN: as published (Karras et al. 2019), and a demo that trains in minutes."""

from typing import Any

from ..presets import GROWING, GROWN_AS_PUBLISHED, QUICK_SETTINGS, Preset

_BLUR = {"blur": (1.0, 2.0, 1.0)}
_STYLED: dict[str, Any] = GROWING | {name: GROWING[name] | _BLUR for name in ("generator", "discriminator")}

PRESETS: dict[str, Preset] = {
    "stylegan": Preset(
        "StyleGAN as published in 2018: AdaIN, grown from 8 x 8",
        **_STYLED | {"generator": _STYLED["generator"] | {"truncated": 8}},
        **GROWN_AS_PUBLISHED,
        mapping_layers=8,
        gamma=10.0,
        r1_interval=1,
        grow_from=8,
    ),
    "demo-stylegan": Preset(
        "a small StyleGAN of 2018 that grows from 4 x 4 to 32 x 32 in minutes on two CPU cores",
        **QUICK_SETTINGS | _STYLED,
        grow_from=4,
        grow_kimg=5.0,
        fade_kimg=5.0,
        grow_batch=((4, 64), (8, 64), (16, 32)),  # small images are limited by overhead, not by their pixels
        kimg=65.0,
    ),
}
