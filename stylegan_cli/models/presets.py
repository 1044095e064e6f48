"""The definition of a preset. Each family lists its presets in models/<family>/presets.py; training/presets.py fills in
the settings that follow a rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config import check_range


@dataclass(frozen=True)
class Schedule:
    """Settings that move along a cosine from the start of a run until `kimg`, and then stay (Huang et al. 2024,
    section 4.1 and table 6). None: they do not move."""

    kimg: float  # thousands of images in which they move
    lr: float | None = None  # multiple of the learning rates at the end
    gamma: float | None = None  # multiple of the weights of R1 and R2 at the end
    beta2: float | None = None  # second of Adam's betas at the end
    ema_kimg: float | None = None  # half-life of the generator's moving average at the end
    aug_p: float | None = None  # probability of augmentation ('fixed') at the end

    def __post_init__(self) -> None:
        for name in ("kimg", "lr", "gamma", "ema_kimg"):
            if getattr(self, name) is not None:
                check_range(self, name)
        for name in ("beta2", "aug_p"):
            if getattr(self, name) is not None:
                check_range(self, name, 0, 1)


@dataclass(frozen=True)
class Preset:
    """Settings that `--cfg` selects. None: from the image size and the number of GPUs, by the rule in the comment."""

    about: str  # one line for the help text
    batch: int | None = None  # None: min(gpus * min(4096 / res, 32), 64)
    mbstd_group: int | None = None  # None: min(batch / gpus, 4)
    mbstd_channels: int = 1
    channel_base: int | None = None  # None: 32768 from 512 pixels up, else 16384
    channel_max: int = 512
    g_width: int = 1  # the generator has this many times channel_base and channel_max
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 2
    mapping_lr: float = 0.01
    lr: float | None = None  # None: 0.002 from 1024 pixels up, else 0.0025
    d_lr: float | None = None  # the discriminator's; None: as the generator's
    d_steps: int = 1  # steps of the discriminator for one of the generator
    betas: tuple[float, float] = (0.0, 0.99)  # of Adam
    loss: str = "logistic"
    gamma: float | None = None  # None: gamma_factor * height * width / batch
    gamma_factor: float = 0.0002
    r2_gamma: float | None = None  # None: gamma if the loss is 'relativistic', else 0
    r1_interval: int = 16
    ema_kimg: float | None = None  # None: batch * 10 / 32
    ema_rampup: float | None = 0.05
    pl_weight: float = 2.0
    mixing_prob: float = 0.9
    aug: str = "ada"
    augpipe: str = "bgc"
    blur_sigma: float = 0.0  # blur of D's images at the start, in pixels, over the first batch * 200 / 32 kimg
    generator: Mapping[str, Any] = field(default_factory=dict)  # further fields of the family's configuration
    discriminator: Mapping[str, Any] = field(default_factory=dict)  # further fields of the DiscriminatorConfig
    grow_from: int | None = None  # lowest level; None: full size from the start
    grow_kimg: float = 600.0
    fade_kimg: float = 600.0
    grow_batch: tuple[tuple[int, int], ...] = ()  # (level, batch) of levels with a batch other than `batch`
    by_level: bool = False  # if batch and lr are None, use the values of the ProGAN and StyleGAN papers for each level
    stage_kimg: float | None = None  # of each stage but the last of a chain that learns in turn; None: equal parts
    schedule: Schedule | None = None  # None: settings stay the same
    kimg: float = 25000.0
    snap: float = 200.0
    size: int | None = None  # size to read the images at (longest side)
    by_size: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  # longest side -> fields that replace these
    # for images of this size or more
    networks_by_level: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  # likewise by level of the images

    def at(
        self,
        size: int,  # longest side of the images
        level: int,  # of the images, 4 * 2^k
    ) -> Preset:
        """The preset for images of a size: with the fields of the largest entry that is not larger, or of the smallest
        one."""
        fields = {**_nearest(self.by_size, size), **_nearest(self.networks_by_level, level)}
        return dataclasses.replace(self, by_size={}, networks_by_level={}, **fields)


def _nearest(entries: Mapping[int, Mapping[str, Any]], size: int) -> Mapping[str, Any]:
    smaller = [s for s in entries if s <= size] or [min(entries, default=0)]
    return entries.get(max(smaller), {})


# Settings that presets of several families share.
QUICK_SETTINGS: dict[str, Any] = {  # trains in minutes on two CPU cores
    "batch": 16,
    "mbstd_group": 16,  # the whole batch, and four maps, so that D notices quickly if all images look alike
    "mbstd_channels": 4,
    "channel_base": 512,
    "channel_max": 128,
    "z_dim": 128,
    "w_dim": 128,
    "mapping_lr": 0.1,  # the mapping network must learn fast in such a short run
    "lr": 0.006,
    "gamma": 30.0,  # flat images are easy to distinguish from early fakes; a strong R1 penalty keeps D from winning
    "ema_kimg": 4.0,
    "ema_rampup": 0.1,
    "pl_weight": 0.0,
    "mixing_prob": 0.5,
    "aug": "noaug",  # 4,000 images are enough for so few kimg
    "snap": 10.0,
    "size": 32,
}
GROWING: dict[str, Any] = {
    "generator": {"fir": (1.0, 1.0), "labels": "concat"},
    "discriminator": {"fir": (1.0, 1.0), "architecture": "orig"},
    "pl_weight": 0.0,
    "aug": "noaug",
}
GROWN_AS_PUBLISHED: dict[str, Any] = {"channel_base": 16384, "ema_kimg": 10.0, "ema_rampup": None, "by_level": True}
CLASSIC: dict[str, Any] = {  # before adaptive augmentation, regularizers and style mixing
    "gamma": 0.0,
    "ema_kimg": 10.0,
    "ema_rampup": 0.05,
    "pl_weight": 0.0,
    "mixing_prob": 0.0,
    "aug": "noaug",
}
HINGE: dict[str, Any] = {"loss": "hinge"}
