"""Configurations of generators and discriminators before styles: convolutions, batch and spectral normalization."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from ...config import check_choice, check_range
from ...errors import MisuseError
from ..config import DirectConfig, DiscriminatorConfig, Level, LevelsConfig


@dataclass(frozen=True)
class StartingConfig(LevelsConfig):
    """Networks that may leave out the lowest levels."""

    lowest: int = 4  # the level that the generator starts with, or the discriminator ends with
    widths: tuple[int, ...] = ()  # channels of the levels, lowest first; empty: by channel_base and channel_max

    def levels(self) -> tuple[Level, ...]:
        levels = [level for level in super().levels() if level.name >= self.lowest]
        widths = self.widths or [level.channels for level in levels]
        return tuple(dataclasses.replace(level, channels=n) for level, n in zip(levels, widths))

    def __post_init__(self) -> None:
        super().__post_init__()
        count = sum(level.name >= self.lowest for level in super().levels())
        if self.widths and (len(self.widths) != count or min(self.widths) < 1):
            size = f"{self.height}x{self.width}"
            raise MisuseError(
                f"Images of {size} (height x width) have {count} levels, but these networks have channels for "
                f"{len(self.widths)}.",
                hint=f"Use --size {self.size_with(self.lowest << len(self.widths) - 1)}, or another --cfg.",
            )
        if len(self.levels()) < 2:
            size = f"{self.height}x{self.width}"
            raise MisuseError(
                f"Images of {size} (height x width) have no level above {self.lowest}, where these networks begin.",
                hint=f"Use larger images, such as --size {self.size_with(2 * self.lowest)}, or another --cfg.",
            )


@dataclass(frozen=True)
class ClassicConfig(StartingConfig, DirectConfig):
    """Generators whose input is z, followed by the label as it is."""

    uses_batch: ClassVar[bool] = True  # batch normalization

    z_dim: int = 128

    @property
    def w_dim(self) -> int:
        """There is no mapping network: w is z, followed by the label."""
        return self.z_dim + self.c_dim


@dataclass(frozen=True)
class ResidualGeneratorConfig(ClassicConfig):
    """Generators of residual blocks (Miyato et al. 2018, tables 4 and 5)."""

    attention: int = 0  # level after which there is self-attention; 0: none
    spectral: bool = False  # whether the generator too has spectral normalization

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_attention(self, self.attention, [level.name for level in self.levels()[1:]])


@dataclass(frozen=True)
class ClassicDiscriminatorConfig(StartingConfig, DiscriminatorConfig):
    """Labels: 'projection' (Miyato and Koyama 2018) or 'classifier'."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("discriminator labels", self.labels, ("projection", "classifier"))


@dataclass(frozen=True)
class ResidualDiscriminatorConfig(ClassicDiscriminatorConfig):
    """Discriminators of residual blocks with spectral normalization."""

    family: ClassVar[str] = "residual"

    extra_blocks: int = 1  # blocks at the lowest level that do not downsample
    attention: int = 0  # level after which there is self-attention; 0: none
    pooled_attention: bool = False  # as in BigGAN
    wide: bool = False  # whether both convolutions of a block have its output's channels

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "extra_blocks", 0, 16)
        _check_attention(self, self.attention, [level.name for level in self.levels()[:-1]])


def _check_attention(
    config: LevelsConfig,
    attention: int,
    levels: list[int],  # whose features a block makes
) -> None:
    """Raise MisuseError if no block makes the features that attention is for. The hint suits both networks: the
    discriminator's blocks halve the image."""
    if attention and attention not in levels:
        raise MisuseError(
            f"Images of {config.height}x{config.width} (height x width) have no level {attention} for self-attention, "
            f"only {', '.join(map(str, levels))}.",
            hint=f"Use larger images, such as --size {config.size_with(2 * attention)}, or another --cfg.",
        )
