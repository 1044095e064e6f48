"""The presets of StyleGAN2: automatic, a demo that trains in minutes, and as published (Karras et al. 2020, both
papers)."""

from typing import Any

from ..presets import QUICK_SETTINGS, Preset

_PAPER: dict[str, Any] = {"ema_rampup": None, "mapping_layers": 8}


def _paper_preset(size: int, **settings: Any) -> Preset:
    return Preset(f"the {size} x {size} settings of the StyleGAN2-ADA paper", **_PAPER, **settings)


PRESETS: dict[str, Preset] = {
    "auto": Preset("settings from the image size and the number of GPUs"),
    "demo-stylegan2": Preset("a small StyleGAN2 that trains in minutes on two CPU cores", **QUICK_SETTINGS, kimg=46.0),
    "stylegan2": Preset(
        "StyleGAN2 config F as published",
        **_PAPER,
        batch=32,
        mbstd_group=4,
        channel_base=32768,
        lr=0.002,
        gamma=10.0,
        ema_kimg=10.0,
        aug="noaug",
    ),
    "paper256": _paper_preset(256, batch=64, mbstd_group=8, channel_base=16384, lr=0.0025, gamma=1.0, ema_kimg=20.0),
    "paper512": _paper_preset(512, batch=64, mbstd_group=8, channel_base=32768, lr=0.0025, gamma=0.5, ema_kimg=20.0),
    "paper1024": _paper_preset(1024, batch=32, mbstd_group=4, channel_base=32768, lr=0.002, gamma=2.0, ema_kimg=10.0),
    "cifar": Preset(
        "32 x 32 images, as StyleGAN2-ADA on CIFAR-10",
        batch=64,
        mbstd_group=32,
        channel_base=32768,
        lr=0.0025,
        gamma=0.01,
        ema_kimg=500.0,
        pl_weight=0.0,
        mixing_prob=0.0,
        discriminator={"architecture": "orig"},
    ),
}
