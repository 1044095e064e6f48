"""The presets of StyleGAN3: T and R as published (Karras et al. 2021, appendix G), and a demo that trains in
minutes."""

from typing import Any

from ..presets import QUICK_SETTINGS, Preset

_PUBLISHED: dict[str, Any] = {
    "batch": 32,
    "channel_base": 32768,
    "lr": 0.0025,
    "d_lr": 0.002,
    "gamma_factor": 2**-10,
    "pl_weight": 0.0,
    "mixing_prob": 0.0,
}
_ROTATION: dict[str, Any] = {"g_width": 2, "generator": {"kernel": 1, "radial": True}}

# Its early fakes are smoother than those of other generators: a weaker penalty suffices, and faces appear sooner.
_QUICK: dict[str, Any] = QUICK_SETTINGS | {"mixing_prob": 0.0, "gamma": 10.0}

PRESETS: dict[str, Preset] = {
    "stylegan3-t": Preset("StyleGAN3-T: details move with the image", **_PUBLISHED),
    "stylegan3-r": Preset(
        "StyleGAN3-R: details also rotate with the image", **_PUBLISHED, **_ROTATION, blur_sigma=10.0
    ),
    "demo-stylegan3": Preset(
        "a small StyleGAN3-T that trains in minutes on two CPU cores",
        **_QUICK,
        generator={"num_layers": 8, "margin": 5, "channel_base": 1024, "channel_max": 64},
        kimg=60.0,
    ),
}
