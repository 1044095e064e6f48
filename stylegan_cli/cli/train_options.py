"""The options of `sgan train` that choose how the networks learn."""

from __future__ import annotations

import click

from ..models.presets import Preset
from ..models.registry import presets
from ..training.choices import ENCODERS, OBJECTIVES, PIPES
from .options import combine_options
from .params import KIMG, ByLevel, FiniteRange, Number

PRESET = "Default: from the preset."
_OBJECTIVES = ", ".join(f"{name} ({about})" for name, about in OBJECTIVES.items())
_ENCODERS = ", ".join(f"{name} ({about})" for name, about in ENCODERS.items())
_INTERVALS = {preset.r1_interval for _, preset in presets().values()} - {Preset.r1_interval}
_BY_INTERVAL = "; ".join(
    f"{interval} with {'wgan or ' * (interval == 1)}--cfg "
    + ", ".join(name for name, (_, preset) in presets().items() if preset.r1_interval == interval)
    for interval in sorted(_INTERVALS)
)
_IN_TURN = ", ".join(name for name, (family, _) in presets().items() if family.config.learns_in_turn)
_PIPES = [name for name in PIPES if name != "diffaug"]

learning_options = combine_options(
    click.option("--loss", type=click.Choice(list(OBJECTIVES)), help=f"Training objective: {_OBJECTIVES}. {PRESET}"),
    click.option(
        "--gamma",
        type=FiniteRange(0),
        help=f"R1 regularization weight (R1 penalizes the discriminator's gradient at real images). {PRESET}",
    ),
    click.option(
        "--r2",
        "r2_gamma",
        type=FiniteRange(0),
        help="R2 regularization weight (like R1, at generated images). Default: --gamma with relativistic, else 0.",
    ),
    click.option("--gp", "gp_weight", type=FiniteRange(0), help="Gradient penalty weight of --loss wgan. Default: 10."),
    click.option(
        "--drift",
        type=FiniteRange(0),
        help="Weight of the discriminator's squared outputs in --loss wgan. Default: 0.001.",
    ),
    click.option(
        "--penalty-interval",
        "r1_interval",
        type=click.IntRange(1),
        help=f"Number of steps between R1, R2 or gradient penalties. Default: {Preset.r1_interval}; {_BY_INTERVAL}.",
    ),
    click.option(
        "--aux-classifier",
        is_flag=True,
        help="Also train the discriminator to predict the class (AC-GAN). Requires --cond.",
    ),
    click.option(
        "--info",
        type=click.IntRange(0),
        metavar="K",
        help="Number of values of a code that the generator takes in the place of a class, and that the discriminator "
        "recovers from its images: kinds of images, found without labels (InfoGAN). 0 drops that of the model to start "
        "from. Default: that of the model, else no code.",
    ),
    click.option(
        "--info-continuous",
        type=click.IntRange(0),
        metavar="N",
        help="Number of numbers of z that the discriminator recovers: gradual properties. 0 drops those of the model "
        "to start from. Default: as that model, else none.",
    ),
    click.option(
        "--info-weight", type=FiniteRange(0), help="Weight of the recovery of the codes in both losses. Default: 1."
    ),
    click.option(
        "--recipe",
        "encoder",
        type=click.Choice(list(ENCODERS)),
        help=f"Also train an encoder: {_ENCODERS}. The run then has an encoder for `sgan encode`. Default: none.",
    ),
    click.option(
        "--mode-regularize",
        "mode_weight",
        type=FiniteRange(0, min_open=True),
        is_flag=False,
        flag_value=1.0,
        metavar="[WEIGHT]",
        help="Also train an encoder, and the generator to reproduce real images from what it finds: against mode "
        "collapse (MRGAN). The run then has an encoder for `sgan encode`. Default: off; without WEIGHT, 1.",
    ),
    click.option("--lr", type=FiniteRange(0, min_open=True), help=f"Learning rate. {PRESET}"),
    click.option(
        "--dlr",
        "d_lr",
        type=FiniteRange(0, min_open=True),
        help="Learning rate of the discriminator. Default: --lr if set, else from the preset.",
    ),
    click.option(
        "--d-steps",
        type=click.IntRange(1),
        help=f"Number of steps of the discriminator for one of the generator. {PRESET}",
    ),
    click.option(
        "--schedule-kimg",
        type=FiniteRange(0),
        help="Time in kimg in which learning rate and gamma fall along a cosine, to a quarter and a tenth, or to what "
        "the preset says; 0 keeps them, with the augmentation that the preset ends with. Of a resumed run: its new "
        "length. Default: from the preset; most keep them.",
    ),
    click.option("--pl-weight", type=FiniteRange(0), help=f"Path-length regularization weight. {PRESET}"),
    click.option(
        "--mixing-prob",
        type=FiniteRange(0, 1),
        help=f"Probability of style mixing (one image from two latents). {PRESET}",
    ),
    click.option(
        "--ema-kimg",
        type=KIMG,
        help=f"Half-life in kimg of the moving average of the generator's weights. {PRESET}",
    ),
    click.option(
        "--cbase",
        "channel_base",
        type=click.IntRange(16),
        help=f"Channel base: layers at resolution r have min(cbase / r, cmax) channels. {PRESET}",
    ),
    click.option(
        "--cmax", "channel_max", type=click.IntRange(1), help=f"Maximum number of channels per layer. {PRESET}"
    ),
    click.option(
        "--map-depth",
        "mapping_layers",
        type=click.IntRange(1),
        help=f"Number of layers of the mapping network. {PRESET}",
    ),
    click.option(
        "--mbstd-group",
        type=click.IntRange(1),
        help=f"Number of images per group of the minibatch standard deviation. {PRESET}",
    ),
    click.option(
        "--aug",
        type=click.Choice(["ada", "fixed", "noaug", "diffaug"]),
        help="Augmentation of the images that the discriminator sees: ada (adaptive, as strong as overfitting "
        f"requires), fixed (constant strength), noaug (none) or diffaug (DiffAugment). {PRESET}",
    ),
    click.option(
        "--augpipe",
        type=click.Choice(_PIPES),
        metavar="NAME",
        help="Augmentations of --aug ada and fixed: blit (flips, shifts, 90-degree turns), geom (scaling, rotation), "
        "color, filter, noise, cutout, the first letters of several in this order, or modern (blit, geom, half as "
        f"often color, cutout). {PRESET}",
    ),
    click.option(
        "--target",
        "ada_target",
        type=Number(),
        help="Target of --aug ada for r_t, the mean sign of the discriminator's outputs on real images, which rises "
        "as it overfits. Default: 0.6.",
    ),
    click.option(
        "--p",
        "aug_p",
        type=FiniteRange(0, 1),
        help="Probability of each augmentation: constant with --aug fixed, at the start with --aug ada. Default: 0.",
    ),
    click.option(
        "--freezed",
        type=click.IntRange(0),
        help="Number of discriminator layers to freeze, counted from the image (Freeze-D). Default: 0.",
    ),
    click.option(
        "--grow-from",
        type=click.IntRange(4),
        metavar="LEVEL",
        help="Level (resolution: 4, 8, 16 ...) at which progressive growing starts; higher ones are added during "
        "training. Default: from the preset; most do not grow.",
    ),
    click.option("--grow-kimg", type=KIMG, help=f"Training time at each level of a growing run, in kimg. {PRESET}"),
    click.option("--fade-kimg", type=KIMG, help=f"Time to fade in each new level, in kimg. {PRESET}"),
    click.option(
        "--stage-kimg",
        type=KIMG,
        help=f"Training time of the first stage of --cfg {_IN_TURN} in kimg; then the second stage is trained. "
        "Default: half of --kimg.",
    ),
    click.option(
        "--grow-batch",
        type=ByLevel(int),
        metavar="LEVEL:BATCH,...",
        help=f"Batch size per level of a growing run, such as 4:64,8:32. {PRESET}",
    ),
    click.option(
        "--grow-lr",
        type=ByLevel(float),
        metavar="LEVEL:RATE,...",
        help=f"Learning rate per level of a growing run, such as 128:0.0015. {PRESET}",
    ),
)
