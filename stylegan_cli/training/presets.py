"""A preset's rules, worked out: for everything that depends on the data and the GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..config import level_of, levels_of
from ..data.dataset import DataSpec
from ..errors import SganError
from ..models.config import DiscriminatorConfig, field_names
from ..models.family import Family
from ..models.presets import Preset
from ..models.registry import presets
from .config import GrowthConfig, TrainConfig

PRESETS = {name: preset for name, (_, preset) in presets().items()}

# Options that say what the networks are, by field.
NETWORK_OPTIONS = {"channel_base": "--cbase", "channel_max": "--cmax", "mapping_layers": "--map-depth"}


def make_train_config(
    cfg: str,  # a preset's name
    data: DataSpec,
    *,
    gpus: int = 1,
    **overrides: Any,  # fields of TrainConfig, and channel_base, channel_max, mapping_layers, mbstd_group, ...
) -> TrainConfig:
    """A preset, its rules worked out for the data's size, with what the user set on top. None overrides nothing."""
    known = presets()
    if cfg not in known:
        raise SganError(f"No preset is called {cfg!r}.", hint="Choose from " + ", ".join(known) + ".")
    family, preset = known[cfg]
    given = {k: v for k, v in overrides.items() if v is not None}
    _refuse_what_it_lacks(family, given)
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
    generator, discriminator = _networks(family, preset, data, pick, given.get("precision") in ("fp16", "bf16"))
    discriminator |= {"mbstd_group": min(group, batch_gpu)}
    if given.pop("aux_classifier", False):
        discriminator["labels"] = "classifier"
    return TrainConfig(
        cfg=cfg,
        data=data,
        generator=family.config(**generator),
        discriminator=DiscriminatorConfig(**discriminator),
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
    family: Family,
    preset: Preset,
    data: DataSpec,
    pick: Callable[[str, Any], Any],  # (name, rule) -> what the user set, else the preset, else by the rule
    half: bool,  # in half precision, as far as that goes
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the generator's configuration, as far as its family has them, and of the discriminator's."""
    both = {
        "height": data.height,
        "width": data.width,
        "channels": data.channels,
        "c_dim": data.c_dim,
        "channel_base": pick("channel_base", lambda: 32768 if max(data.height, data.width) >= 512 else 16384),
        "channel_max": pick("channel_max", None),
        "mapping_lr": pick("mapping_lr", None),
        "conv_clamp": 256.0 if half else None,  # float32 cannot overflow
    }
    latents = {name: pick(name, None) for name in ("z_dim", "w_dim", "mapping_layers")}
    fields = field_names(family.config)
    generator = {name: value for name, value in (both | latents | dict(preset.generator)).items() if name in fields}
    return generator, both | {"mbstd_channels": pick("mbstd_channels", None), **preset.discriminator}


def _refuse_what_it_lacks(family: Family, given: dict[str, Any]) -> None:
    for name, option in NETWORK_OPTIONS.items():
        if name in given and name not in field_names(family.config):
            raise SganError(f"{option} has no effect on a {family.title}.", hint=f"Leave out {option}.")


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
