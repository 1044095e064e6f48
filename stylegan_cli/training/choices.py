"""Named values of some settings of a run. Imports nothing, because the command line shows them in its help."""

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
OBJECTIVES = {  # name in losses.LOSSES -> description
    "logistic": "non-saturating",
    "saturating": "the minimax game",
    "hinge": "margins of 1",
    "lsgan": "least squares",
    "wgan": "Wasserstein, with the gradient penalty",
    "relativistic": "generated against real images in pairs, with R1 and R2",
}
ENCODERS = {  # name in recipes/encoding.py -> description
    "bigan": "the discriminator judges pairs of an image and its latent",
    "vaegan": "an autoencoder whose distance of images is that of the discriminator's features",
}
_GROUPS = ("blit", "geom", "color", "filter", "noise", "cutout")
PIPES: dict[str, tuple[str, ...]] = {  # augmentation pipeline -> its groups of transformations, in order
    **{group: (group,) for group in _GROUPS},
    **{"bgcfnc"[:n]: _GROUPS[:n] for n in range(2, 7)},  # bg, bgc, bgcf, bgcfn, bgcfnc
    "modern": ("blit", "geom", "rare color", "cutout"),  # Huang et al. 2024: color at half the probability
    "diffaug": ("diffaug",),
}
