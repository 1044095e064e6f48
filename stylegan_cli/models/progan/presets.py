"""The preset of the traditional generator (Karras et al. 2018)."""

from ..presets import GROWING, GROWN_AS_PUBLISHED, Preset

PRESETS: dict[str, Preset] = {
    "progan": Preset(
        "the traditional generator of 2017, grown from 4 x 4 with WGAN-GP",
        **GROWING,
        **GROWN_AS_PUBLISHED,
        loss="wgan",
        mixing_prob=0.0,
        grow_from=4,
        kimg=12000.0,
    ),
}
