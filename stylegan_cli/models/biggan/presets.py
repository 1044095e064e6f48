"""The preset of BigGAN, as published for ImageNet at 128, 256 and 512 pixels (Brock et al. 2019, section 3, and its
appendices B and C)."""

import math
from typing import Any

from ..presets import CLASSIC, HINGE, Preset

# Half-life in kimg of an average that decays by 0.9999 in a step of G, in which D sees twice 2048 images.
_EMA_KIMG = 2 * 2.048 * math.log(0.5) / math.log(0.9999)


def _networks(z_dim: int, g_attention: int, d_attention: int | None = None) -> dict[str, Any]:
    """Of 96 channels at the image's level, and twice as many at each below, up to 1536."""
    g = {"channel_max": 1536, "attention": g_attention, "channel_base": 12288}
    d = {"channel_max": 1536, "attention": g_attention if d_attention is None else d_attention, "channel_base": 6144}
    return {"z_dim": z_dim, "generator": g, "discriminator": d | {"pooled_attention": True, "wide": True}}


def _with_widths(networks: dict[str, Any], *multiples: int) -> dict[str, Any]:
    """Other multiples of 96 for the generator's levels, lowest first; the discriminator has the same, a level lower."""
    widths = [96 * n for n in multiples]
    own = {"generator": tuple(widths), "discriminator": (widths[1], *widths[2:], widths[-1])}
    return networks | {name: networks[name] | {"widths": own[name]} for name in own}


PRESETS: dict[str, Preset] = {
    "biggan": Preset(
        "BigGAN, 2019: a part of z and a shared embedding of the class for each block; large batches",
        **CLASSIC
        | HINGE
        | {"batch": 2048, "lr": 5e-5, "d_lr": 2e-4, "betas": (0.0, 0.999), "d_steps": 2, "ema_kimg": _EMA_KIMG},
        networks_by_level={
            8: _networks(40, 0),
            16: _networks(60, 8),
            32: _networks(80, 16),
            64: _networks(100, 32),
            128: _networks(120, 64),
            256: _with_widths(_networks(140, 128, 64), 16, 16, 8, 8, 4, 2, 1),
            512: _with_widths(_networks(128, 64), 16, 16, 8, 8, 4, 2, 1, 1),
        },
    ),
}
