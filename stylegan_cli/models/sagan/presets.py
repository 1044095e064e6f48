"""The preset of SAGAN, as published for ImageNet at 128 x 128 (Zhang et al. 2019, section 4)."""

from typing import Any

from ..presets import CLASSIC, HINGE, Preset


def _networks(attention: int) -> dict[str, Any]:
    return {
        "generator": {"channel_base": 8192, "channel_max": 1024, "attention": attention},
        "discriminator": {"channel_base": 4096, "channel_max": 1024, "attention": attention},
    }


PRESETS: dict[str, Preset] = {
    "sagan": Preset(
        "SAGAN, 2019: self-attention, and spectral normalization of both networks",
        **CLASSIC | HINGE | {"batch": 256, "z_dim": 128, "lr": 1e-4, "d_lr": 4e-4, "betas": (0.0, 0.9)},
        networks_by_level={8: _networks(0), 16: _networks(8), 32: _networks(16), 64: _networks(32)},
    ),
}
