"""The preset of DCGAN, as published for 64 x 64 images (Radford et al. 2016, section 4)."""

from ..presets import CLASSIC, Preset

PRESETS: dict[str, Preset] = {
    "dcgan": Preset(
        "DCGAN, 2016: convolutions with batch normalization in both networks",
        **CLASSIC
        | {"batch": 128, "z_dim": 100, "channel_base": 4096, "channel_max": 1024, "lr": 2e-4, "betas": (0.5, 0.999)},
    ),
}
