"""Applies a preset: computes the settings that depend on the dataset and the GPUs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import torch

from ..config import level_of, levels_of
from ..data.dataset import DataSpec
from ..errors import MisuseError
from ..models.config import DiscriminatorConfig, GeneratorConfig, ImageConfig, field_names
from ..models.family import Family
from ..models.presets import Preset, Schedule
from ..models.registry import presets
from ..ops import prefers_bfloat16
from .config import GrowthConfig, TrainConfig, refuse_for_chains

C = TypeVar("C", bound=ImageConfig)
TOGETHER = 64  # images that batch normalization sees on one GPU by default; a few more if they do not divide the batch
_DEFAULT_SCHEDULE = Schedule(kimg=0.0, lr=0.25, gamma=0.1)  # of --schedule-kimg, for presets that have none

PRESETS = {name: preset for name, (_, preset) in presets().items()}

_AS_IN_PRESET = ("loss", "r1_interval", "pl_weight", "mixing_prob", "aug", "augpipe", "kimg", "snap", "betas")
_AS_IN_PRESET += ("d_steps",)
# Options of the networks' architecture, by field.
NETWORK_OPTIONS = {"channel_base": "--cbase", "channel_max": "--cmax", "mapping_layers": "--map-depth"}


def make_train_config(
    cfg: str,  # a preset's name
    data: DataSpec,
    *,
    gpus: int = 1,
    device: str = "cpu",
    **options: Any,  # fields of TrainConfig, and channel_base, mapping_layers, mbstd_group ...; None: unset
) -> TrainConfig:
    """Build the settings of a run from a preset, the dataset and options that take precedence over the preset.
    Precision 'auto' is the fastest of the device."""
    known = presets()
    if cfg not in known:
        raise MisuseError(f"There is no preset {cfg!r}.", hint="Choose from " + ", ".join(known) + ".")
    res, top = max(data.height, data.width), level_of(data.height, data.width)
    family, preset = known[cfg][0], known[cfg][1].at(res, top)
    options = {k: v for k, v in options.items() if v is not None}
    chosen = options.keys() & NETWORK_OPTIONS.keys()
    _refuse_unsupported(family, options)
    lr_given = "lr" in options
    options = _unscheduled(preset, options) | options
    options = objective_defaults(options.get("loss", preset.loss), preset, options.get("encoder")) | options

    def pick(name: str, rule: Any) -> Any:
        value = options.pop(name, getattr(preset, name, None))
        return rule() if value is None else value

    batch_of, lr_of = _by_level(preset, options, res, gpus)
    growth = _growth(preset, data, batch_of, lr_of, options)
    batch = batch_of(top)
    batch_gpu = options.pop("batch_gpu", _images_at_a_time(family, max(batch // gpus, 1)))
    group = options.pop("mbstd_group", None) or _largest_divisor(batch_gpu, preset.mbstd_group or 4)
    if options.get("precision") == "auto":
        options["precision"] = fastest_precision(family.config, device, data)
    generator, discriminator = _networks(family, preset, data, options, pick, chosen, min(group, batch_gpu))
    gamma = pick("gamma", lambda: preset.gamma_factor * data.height * data.width / batch)
    ema_kimg = pick("ema_kimg", lambda: batch * 10 / 32)
    schedule = _schedule(preset, options, ema_kimg)
    return TrainConfig(
        cfg=cfg,
        data=data,
        generator=generator,
        discriminator=discriminator,
        gpus=gpus,
        batch=batch,
        batch_gpu=batch_gpu,
        lr=lr_of(top),
        d_lr=options.pop("d_lr", None if lr_given else preset.d_lr),
        gamma=gamma,
        r2_gamma=pick("r2_gamma", lambda: gamma if options.get("loss", preset.loss) == "relativistic" else 0.0),
        ema_kimg=0.0 if schedule and schedule.ema_kimg is not None else ema_kimg,
        ema_rampup=options.pop("ema_rampup", preset.ema_rampup),
        blur_sigma=options.pop("blur_sigma", preset.blur_sigma),
        blur_kimg=batch * 200 / 32,
        growth=growth,
        schedule=schedule,
        stage_kimg=pick("stage_kimg", lambda: options.get("kimg", preset.kimg) / 2 * generator.learns_in_turn),
        **{name: options.pop(name, getattr(preset, name)) for name in _AS_IN_PRESET},
        **options,
    )


def _networks(
    family: Family,
    preset: Preset,
    data: DataSpec,
    options: dict[str, Any],
    pick: Callable[[str, Any], Any],  # (name, rule) -> the user's value, else the preset's, else the rule's
    chosen: Collection[str],  # fields that the user set
    mbstd_group: int,
) -> tuple[GeneratorConfig, DiscriminatorConfig]:
    """Return the configurations of both networks, from the fields that their families have."""
    shared = {
        "height": data.height,
        "width": data.width,
        "channels": data.channels,
        "c_dim": options.get("info") or data.c_dim,  # the code takes the place of the class
        "channel_base": pick("channel_base", lambda: 32768 if max(data.height, data.width) >= 512 else 16384),
        "channel_max": pick("channel_max", None),
        "mapping_lr": pick("mapping_lr", None),
        "conv_clamp": 256.0 if options.get("precision") == "fp16" else None,  # the other types cannot overflow
    }
    wide = {name: shared[name] * preset.g_width for name in ("channel_base", "channel_max")}
    latents = {name: pick(name, None) for name in ("z_dim", "w_dim", "mapping_layers")}
    # The user's channels are those of both networks, also if the preset has others for one of them.
    chosen = {*chosen, *(("widths",) if {"channel_base", "channel_max"} & set(chosen) else ())}
    g = shared | wide | latents | {name: value for name, value in preset.generator.items() if name not in chosen}
    d = shared | {"mbstd_channels": pick("mbstd_channels", None)}
    d |= {name: value for name, value in preset.discriminator.items() if name not in chosen}
    d |= {"mbstd_group": mbstd_group, "codes": options.get("info_continuous", 0)}
    if options.pop("aux_classifier", False) or options.get("info"):
        d["labels"] = "classifier"
    if options.get("encoder") == "bigan":
        d["c_dim"] = g["z_dim"]  # it takes z in the place of a label
    return _build(family.config, g), _build(family.discriminator.config, d)


def _build(config: type[C], values: dict[str, Any]) -> C:
    names = field_names(config)
    return config(**{name: value for name, value in values.items() if name in names})


def _schedule(preset: Preset, options: dict[str, Any], ema_kimg: float) -> Schedule | None:
    """Return what the settings move to; `--schedule-kimg` is removed from the options."""
    kimg, given = options.pop("schedule_kimg", None), preset.schedule or _DEFAULT_SCHEDULE
    if kimg == 0 or (kimg is None and preset.schedule is None):
        return None
    lasting = given.kimg == preset.kimg  # as long as the run, whatever its length
    return dataclasses.replace(
        given,
        kimg=kimg or (options.get("kimg", given.kimg) if lasting else given.kimg),
        ema_kimg=None if given.ema_kimg is None else ema_kimg,
        aug_p=given.aug_p if options.get("aug", preset.aug) == "fixed" and "aug_p" not in options else None,
    )


def _unscheduled(preset: Preset, options: dict[str, Any]) -> dict[str, Any]:
    """What a preset whose schedule is switched off has instead: the augmentation of its end, and a moving average that
    is short at first."""
    if preset.schedule is None or options.get("schedule_kimg") != 0:
        return {}
    fixed = options.get("aug", preset.aug) == "fixed" and preset.schedule.aug_p is not None
    rampup = {"ema_rampup": Preset.ema_rampup} if preset.ema_rampup is None else {}
    return rampup | ({"aug_p": preset.schedule.aug_p} if fixed else {})


def fastest_precision(generator: GeneratorConfig | type[GeneratorConfig], device: str, data: DataSpec) -> str:
    """What precision 'auto' is: the fastest one on the device that the networks of a family bear."""
    if device.startswith("cuda"):
        return generator.half_type
    mixed = generator.half_type in ("fp16", "bf16") and device == "cpu"
    faster = prefers_bfloat16(torch.device("cpu"), data.height, data.width, training=True)
    return "bf16" if mixed and faster else "fp32"


def _refuse_unsupported(family: Family, options: dict[str, Any]) -> None:
    network_options = dict.fromkeys(NETWORK_OPTIONS, family.config) | {"mbstd_group": family.discriminator.config}
    for name, config in network_options.items():
        option = NETWORK_OPTIONS.get(name, "--mbstd-group")
        if name in options and name not in field_names(config):
            raise MisuseError(f"{option} has no effect on {family.title} models.", hint=f"Remove {option}.")
    if family.config.is_chain:
        names = {"info": "--info", "info_continuous": "--info-continuous", "aux_classifier": "--aux-classifier"}
        refuse_for_chains(family.title, {option: options.get(name) for name, option in names.items()})
    refuse_unused_mixing(family.config, options)


def refuse_unused_mixing(
    model: GeneratorConfig | type[GeneratorConfig],
    options: Mapping[str, Any],  # that the user set
) -> None:
    """Raise MisuseError if the user set a probability of style mixing, and the model has no styles."""
    if options.get("mixing_prob") and not (model.has_styles or model.is_chain):
        reason = "which have one latent for all layers"
        raise MisuseError(f"--mixing-prob has no effect on {model.title} models, {reason}.", hint="Remove it.")


def objective_defaults(
    loss: str,  # name of an objective
    preset: Preset,
    encoder: str | None = None,  # how an encoder is trained, a name of choices.ENCODERS
) -> dict[str, Any]:
    """Return the settings that an objective changes by default."""
    unmixed = {"mixing_prob": 0.0} if encoder == "bigan" else {}  # an image of two latents has no z
    if loss == "relativistic" and preset.gamma == 0:
        return unmixed | {"gamma": None}  # by rule: without penalties it does not converge
    if loss != "wgan":
        return unmixed
    # Gulrajani et al. 2017, algorithm 1: lambda = 10, at every step.
    penalty = {"gamma": 0.0, "gp_weight": 10.0, "r1_interval": 1}
    return unmixed | penalty | ({"aug": "noaug"} if preset.aug == "ada" else {})


def _by_level(
    preset: Preset,
    options: dict[str, Any],  # batch and lr are removed from it
    res: int,
    gpus: int,
) -> tuple[Callable[[int], int], Callable[[int], float]]:
    """Return functions for the batch and learning rate of a level: the user's, else the preset's, else by rule."""
    user_batch, user_lr = options.pop("batch", None), options.pop("lr", None)

    def batch(level: int) -> int:
        if user_batch is not None:
            return user_batch
        size = dict(preset.grow_batch).get(level, preset.batch)
        if size is None:
            published = max(4 * gpus, min(2048 // level, 128 * gpus, 512))
            size = published if preset.by_level else min(gpus * min(4096 // res, 32), 64)
        return max(size - size % gpus, gpus)

    def lr(level: int) -> float:
        if user_lr is not None:
            return user_lr
        published = {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003}.get(level, 0.001)
        return preset.lr or (published if preset.by_level else 0.002 if res >= 1024 else 0.0025)

    return batch, lr


def _growth(
    preset: Preset,
    data: DataSpec,
    batch_of: Callable[[int], int],
    lr_of: Callable[[int], float],
    options: dict[str, Any],  # options of the schedule are removed from it
) -> GrowthConfig | None:
    """Return the growth schedule; None if the run has full size from the start."""
    start = options.pop("grow_from", preset.grow_from)
    unused = [name for name in ("grow_kimg", "fade_kimg", "grow_batch", "grow_lr") if name in options]
    if start is None and unused:
        option = "--" + unused[0].replace("_", "-")
        raise MisuseError(
            f"{option} has no effect on a run that does not grow.", hint=f"Remove {option}, or add --grow-from."
        )
    levels = [] if start is None else levels_of(data.height, data.width, start)
    stable, fade = (options.pop(name, getattr(preset, name)) for name in ("grow_kimg", "fade_kimg"))
    batches, rates = (options.pop(name, {}) for name in ("grow_batch", "grow_lr"))
    if unknown := sorted((batches.keys() | rates.keys()) - set(levels)):
        known = ", ".join(map(str, levels))
        raise MisuseError(
            f"The run does not grow through level {unknown[0]}.", hint=f"Choose from its levels: {known}."
        )
    if len(levels) == 1 and unused:
        raise MisuseError(
            f"A run that starts at level {levels[0]} is at full size and does not grow.",
            hint="Choose a lower --grow-from, or remove the other options for growing.",
        )
    if len(levels) < 2:
        return None
    batch = tuple(batches.get(level, batch_of(level)) for level in levels)
    return GrowthConfig(levels[0], stable, fade, batch, tuple(rates.get(level, lr_of(level)) for level in levels))


def _images_at_a_time(
    family: Family,
    share: int,  # images of a step on one GPU
) -> int:
    """All, if they are halved when memory does not suffice. Batch normalization fixes them for the whole run."""
    least = min(share, TOGETHER) if family.config.uses_batch else share
    return next(n for n in range(least, share + 1) if share % n == 0)


def _largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of a number that is at most `limit`."""
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)
