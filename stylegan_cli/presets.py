"""What `--cfg` stands for: the published settings, and rules for everything that depends on the data and the GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .config import (
    DataSpec,
    DiscriminatorConfig,
    GeneratorConfig,
    latent_size,
    level_of,
    levels_of,
)
from .errors import SganError
from .training.config import GrowthConfig, TrainConfig


@dataclass(frozen=True)
class Preset:
    """What `--cfg` sets. None means: by the rule written beside the field, from the size and the number of GPUs."""

    about: str  # one line for the help text
    batch: int | None = None  # None: min(gpus * min(4096 / res, 32), 64)
    mbstd_group: int | None = None  # None: min(batch / gpus, 4)
    mbstd_channels: int = 1
    channel_base: int | None = None  # None: 32768 from 512 pixels, else 16384
    channel_max: int = 512
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 2
    mapping_lr: float = 0.01
    lr: float | None = None  # None: 0.002 from 1024 pixels, else 0.0025
    loss: str = "logistic"
    gamma: float | None = None  # None: 0.0002 * height * width / batch
    r1_interval: int = 16
    ema_kimg: float | None = None  # None: batch * 10 / 32
    ema_rampup: float | None = 0.05
    pl_weight: float = 2.0
    mixing_prob: float = 0.9
    aug: str = "ada"
    family: str = "stylegan2"
    g_architecture: str = "skip"
    d_architecture: str = "resnet"
    labels: str = "embed"
    fir: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)
    blur: tuple[float, ...] = ()
    truncated: int | None = None
    grow_from: int | None = None  # level; None: at full size from the start
    grow_kimg: float = 600.0
    fade_kimg: float = 600.0
    grow_batch: tuple[tuple[int, int], ...] = ()  # (level, batch) where it is not `batch`
    by_level: bool = False  # None for batch and lr: those that the papers of ProGAN and StyleGAN give each level
    kimg: float = 25000.0
    snap: float = 200.0
    size: int | None = None  # read the pictures at this size (longest side)


# What several presets share.
_MINUTES: dict[str, Any] = {  # on two CPU cores
    "batch": 16,
    "mbstd_group": 16,  # the whole batch and four maps: D must see at once when all creatures look alike
    "mbstd_channels": 4,
    "channel_base": 512,
    "channel_max": 128,
    "z_dim": 128,
    "w_dim": 128,
    "mapping_lr": 0.1,  # in so short a run the mapping has to learn fast
    "lr": 0.006,
    "gamma": 30.0,  # flat drawings are easy to tell from first attempts; a strong R1 keeps D from winning outright
    "ema_kimg": 4.0,
    "ema_rampup": 0.1,
    "pl_weight": 0.0,
    "mixing_prob": 0.5,
    "aug": "noaug",  # 4,000 pictures are plenty for so few kimg
    "snap": 10.0,
    "size": 32,
}
_OF_2018: dict[str, Any] = {  # networks that grow
    "g_architecture": "orig",
    "d_architecture": "orig",
    "labels": "concat",
    "fir": (1.0, 1.0),
    "pl_weight": 0.0,
    "aug": "noaug",
}
_STYLED = _OF_2018 | {"family": "stylegan", "blur": (1.0, 2.0, 1.0)}
_PUBLISHED = {"channel_base": 16384, "ema_kimg": 10.0, "ema_rampup": None, "by_level": True}

PRESETS: dict[str, Preset] = {
    "auto": Preset("settings from the size of the pictures and the number of GPUs"),
    "demo": Preset("a small network that learns to draw in minutes on two CPU cores", **_MINUTES, kimg=40.0),
    "stylegan": Preset(
        "StyleGAN as published in 2018: AdaIN, grown from 8 x 8",
        **_STYLED,
        **_PUBLISHED,
        mapping_layers=8,
        gamma=10.0,
        r1_interval=1,
        truncated=8,
        grow_from=8,
    ),
    "progan": Preset(
        "the traditional generator of 2017, grown from 4 x 4, against WGAN-GP",
        **_OF_2018,
        **_PUBLISHED,
        family="progan",
        mapping_layers=0,
        loss="wgan",
        mixing_prob=0.0,
        grow_from=4,
        kimg=12000.0,
    ),
    "demo-stylegan": Preset(
        "a small StyleGAN of 2018 that grows from 4 x 4 to 32 x 32 in minutes on two CPU cores",
        **_MINUTES | _STYLED,
        grow_from=4,
        grow_kimg=5.0,
        fade_kimg=5.0,
        grow_batch=((4, 64), (8, 64), (16, 32)),  # small pictures wait for everything but their pixels
        kimg=65.0,
    ),
    "stylegan2": Preset(
        "StyleGAN2 config F as published",
        batch=32,
        mbstd_group=4,
        channel_base=32768,
        lr=0.002,
        gamma=10.0,
        ema_kimg=10.0,
        ema_rampup=None,
        mapping_layers=8,
        aug="noaug",
    ),
    "paper256": Preset(
        "the 256 x 256 settings of the StyleGAN2-ADA paper",
        batch=64,
        mbstd_group=8,
        channel_base=16384,
        lr=0.0025,
        gamma=1.0,
        ema_kimg=20.0,
        ema_rampup=None,
        mapping_layers=8,
    ),
    "paper512": Preset(
        "the 512 x 512 settings of the StyleGAN2-ADA paper",
        batch=64,
        mbstd_group=8,
        channel_base=32768,
        lr=0.0025,
        gamma=0.5,
        ema_kimg=20.0,
        ema_rampup=None,
        mapping_layers=8,
    ),
    "paper1024": Preset(
        "the 1024 x 1024 settings of the StyleGAN2-ADA paper",
        batch=32,
        mbstd_group=4,
        channel_base=32768,
        lr=0.002,
        gamma=2.0,
        ema_kimg=10.0,
        ema_rampup=None,
        mapping_layers=8,
    ),
    "cifar": Preset(
        "32 x 32 pictures, as StyleGAN2-ADA on CIFAR-10",
        batch=64,
        mbstd_group=32,
        channel_base=32768,
        lr=0.0025,
        gamma=0.01,
        ema_kimg=500.0,
        pl_weight=0.0,
        mixing_prob=0.0,
        d_architecture="orig",
    ),
}


def make_train_config(
    cfg: str,  # a name of PRESETS
    data: DataSpec,
    *,
    gpus: int = 1,
    **overrides: Any,  # fields of TrainConfig, and channel_base, channel_max, mapping_layers, mbstd_group, ...
) -> TrainConfig:
    """A preset, its rules worked out for the data's size, with what the user set on top. None overrides nothing."""
    if cfg not in PRESETS:
        raise SganError(f"No preset is called {cfg!r}.", hint="Choose from " + ", ".join(PRESETS) + ".")
    preset, given = PRESETS[cfg], {k: v for k, v in overrides.items() if v is not None}
    given = for_objective(given.get("loss", preset.loss), preset.aug) | given
    res = max(data.height, data.width)

    def pick(name: str, rule: Any) -> Any:
        value = given.pop(name, getattr(preset, name, None))
        return rule() if value is None else value

    batch_of, lr_of = _by_level(preset, given, res, gpus)
    growth = _growth(preset, data, batch_of, lr_of, given)
    top = level_of(data.height, data.width)
    batch = batch_of(top)
    batch_gpu = given.pop("batch_gpu", max(batch // gpus, 1))
    group = given.pop("mbstd_group") if "mbstd_group" in given else _divisor(batch_gpu, preset.mbstd_group or 4)
    networks = _networks(preset, data, pick, given.get("precision") in ("fp16", "bf16"))
    networks["discriminator"] |= {"mbstd_group": min(group, batch_gpu)}
    if given.pop("aux_classifier", False):
        networks["discriminator"]["labels"] = "classifier"
    return TrainConfig(
        cfg=cfg,
        data=data,
        generator=GeneratorConfig(**networks["generator"]),
        discriminator=DiscriminatorConfig(**networks["discriminator"]),
        gpus=gpus,
        batch=batch,
        batch_gpu=batch_gpu,
        lr=lr_of(top),
        gamma=pick("gamma", lambda: 0.0002 * data.height * data.width / batch),
        ema_kimg=pick("ema_kimg", lambda: batch * 10 / 32),
        ema_rampup=given.pop("ema_rampup", preset.ema_rampup),
        growth=growth,
        **{
            name: given.pop(name, getattr(preset, name))
            for name in ("loss", "r1_interval", "pl_weight", "mixing_prob", "aug", "kimg", "snap")
        },
        **given,
    )


def _networks(
    preset: Preset,
    data: DataSpec,
    pick: Callable[[str, Any], Any],  # (name, rule) -> what the user set, else the preset, else by the rule
    half: bool,  # in half precision, as far as that goes
) -> dict[str, dict[str, Any]]:
    """Fields of both networks' configurations."""
    both = {
        "height": data.height,
        "width": data.width,
        "channels": data.channels,
        "c_dim": data.c_dim,
        "channel_base": pick("channel_base", lambda: 32768 if max(data.height, data.width) >= 512 else 16384),
        "channel_max": pick("channel_max", None),
        "mapping_lr": pick("mapping_lr", None),
        "fir": preset.fir,
        "blur": preset.blur,
        "conv_clamp": 256.0 if half else None,  # float32 cannot overflow
    }
    z_dim, w_dim = pick("z_dim", None), pick("w_dim", None)
    generator = both | {
        "z_dim": z_dim,
        "w_dim": latent_size(preset.family, w_dim, z_dim, data.c_dim),
        "mapping_layers": pick("mapping_layers", None),
        "architecture": pick("g_architecture", None),
        "labels": preset.labels,
        "family": preset.family,
        "truncated": preset.truncated,
    }
    discriminator = both | {
        "architecture": pick("d_architecture", None),
        "mbstd_channels": pick("mbstd_channels", None),
    }
    return {"generator": generator, "discriminator": discriminator}


def for_objective(
    loss: str,  # a name of OBJECTIVES
    aug: str,  # the preset's augmentation
) -> dict[str, Any]:
    """What an objective asks of settings that the user leaves alone."""
    if loss != "wgan":
        return {}
    # Gulrajani et al. 2017, algorithm 1: lambda = 10, at every step.
    penalty = {"gamma": 0.0, "gp_weight": 10.0, "r1_interval": 1}
    return penalty | ({"aug": "noaug"} if aug == "ada" else {})


def _by_level(
    preset: Preset,
    given: dict[str, Any],  # batch and lr are taken out
    res: int,
    gpus: int,
) -> tuple[Callable[[int], int], Callable[[int], float]]:
    """Batch and learning rate at a level: the user's, else the preset's, else by rule."""
    own_batch, own_lr = given.pop("batch", None), given.pop("lr", None)

    def batch(level: int) -> int:
        if own_batch is not None:
            return own_batch
        size = dict(preset.grow_batch).get(level, preset.batch)
        if size is None:
            published = max(4 * gpus, min(2048 // level, 128 * gpus, 512))
            size = published if preset.by_level else min(gpus * min(4096 // res, 32), 64)
        return max(size - size % gpus, gpus)

    def lr(level: int) -> float:
        if own_lr is not None:
            return own_lr
        published = {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003}.get(level, 0.001)
        return preset.lr or (published if preset.by_level else 0.002 if res >= 1024 else 0.0025)

    return batch, lr


def _growth(
    preset: Preset,
    data: DataSpec,
    batch_of: Callable[[int], int],
    lr_of: Callable[[int], float],
    given: dict[str, Any],  # what belongs to the schedule is taken out
) -> GrowthConfig | None:
    """The schedule; None for a run at full size from the start."""
    start = given.pop("grow_from", preset.grow_from)
    vain = [name for name in ("grow_kimg", "fade_kimg", "grow_batch", "grow_lr") if name in given]
    if start is None and vain:
        option = "--" + vain[0].replace("_", "-")
        raise SganError(
            f"{option} has no effect on a run that does not grow.", hint="Leave it out, or give --grow-from."
        )
    levels = [] if start is None else levels_of(data.height, data.width, start)
    stable, fade = (given.pop(name, getattr(preset, name)) for name in ("grow_kimg", "fade_kimg"))
    batches, rates = (given.pop(name, {}) for name in ("grow_batch", "grow_lr"))
    if unknown := sorted((batches.keys() | rates.keys()) - set(levels)):
        known = ", ".join(map(str, levels))
        raise SganError(f"The run does not grow through level {unknown[0]}.", hint=f"Its levels are {known}.")
    if len(levels) == 1 and vain:
        raise SganError(
            f"A run that begins at level {levels[0]} is at full size: --grow-from is all it takes of these."
        )
    if len(levels) < 2:
        return None
    batch = tuple(batches.get(level, batch_of(level)) for level in levels)
    return GrowthConfig(levels[0], stable, fade, batch, tuple(rates.get(level, lr_of(level)) for level in levels))


def _divisor(number: int, most: int) -> int:
    """The largest divisor that is no more than `most`."""
    return next(d for d in range(min(number, most), 0, -1) if number % d == 0)
