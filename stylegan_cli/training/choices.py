"""What some settings of a run can be, by name. Imports nothing: the command line shows it in its help."""

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
OBJECTIVES = {  # losses.LOSSES, in words
    "logistic": "non-saturating",
    "saturating": "the minimax game",
    "hinge": "margins of 1",
    "lsgan": "least squares",
    "wgan": "Wasserstein, with the gradient penalty",
}
_GROUPS = ("blit", "geom", "color", "filter", "noise", "cutout")
PIPES: dict[str, tuple[str, ...]] = {  # of augmentations: groups of transformations, in order
    **{group: (group,) for group in _GROUPS},
    **{"bgcfnc"[:n]: _GROUPS[:n] for n in range(2, 7)},  # bg, bgc, bgcf, bgcfn, bgcfnc
    "diffaug": ("diffaug",),
}
