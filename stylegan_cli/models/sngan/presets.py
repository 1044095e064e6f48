"""The preset of SNGAN, as published for CIFAR-10, STL-10 and ImageNet (Miyato et al. 2018, tables 4 to 6)."""

from ..presets import CLASSIC, HINGE, Preset

_CIFAR = {
    "generator": {"channel_base": 8192, "channel_max": 256},
    "discriminator": {"channel_base": 8192, "channel_max": 128, "lowest": 8, "extra_blocks": 2},
}
_STL = {
    "generator": {"channel_base": 4096, "channel_max": 512, "lowest": 8},
    "discriminator": {"channel_base": 2048, "channel_max": 1024},
}
_IMAGENET = {
    "generator": {"channel_base": 8192, "channel_max": 1024},
    "discriminator": {"channel_base": 4096, "channel_max": 1024},
}

PRESETS: dict[str, Preset] = {
    "sngan": Preset(
        "SNGAN, 2018: spectral normalization of the discriminator",
        **CLASSIC | HINGE | {"batch": 64, "z_dim": 128, "lr": 2e-4, "betas": (0.0, 0.9), "d_steps": 5},
        by_size={32: _CIFAR, 48: _STL, 64: _IMAGENET},
    ),
}
