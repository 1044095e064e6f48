"""Configurations of both networks of StackGAN (Zhang et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...config import check_choice, check_range
from ...errors import MisuseError, SganError
from ..chain.config import ChainConfig, ChainDiscriminatorConfig
from ..classic.config import StartingConfig
from ..config import Level


@dataclass(frozen=True)
class StackConfig(StartingConfig):
    """Two stages, of which the second enlarges the image of the first."""

    channel_max: int = 1536
    enlarge: int = 4  # by how much: 2 or 4
    condition: int = 128  # numbers of a label in the features

    @property
    def stages(self) -> tuple[Level, ...]:
        last = self.levels()[-1]
        first = next((level for level in self.levels() if level.name * self.enlarge == last.name), None)
        if first is None or first.name == 4:
            raise MisuseError(
                f"Images of {self.height}x{self.width} (height x width) are too small for two stages, the second "
                f"of which enlarges images {self.enlarge} times.",
                hint=f"Use larger images, such as --size {self.size_with(8 * self.enlarge)}, or another --cfg.",
            )
        return first, last

    def stage_levels(
        self,
        k: int,  # number of the stage
        factor: int = 1,  # multiplies channel_base
    ) -> tuple[Level, ...]:
        """The levels from 4 to that of the image of a stage, with as many channels as this stage has there."""
        top = self.stages[k].name
        return tuple(
            Level(
                level.name,
                level.height,
                level.width,
                max(min(factor * self.channel_base // level.name, self.channel_max), 1),
                False,
            )
            for level in self.levels()
            if level.name <= top
        )

    def __post_init__(self) -> None:
        check_choice("enlarge", self.enlarge, (2, 4))
        super().__post_init__()
        check_range(self, "condition", 1)
        self._check(not self.widths and self.lowest == 4, "widths or lowest")
        assert len(self.stages) == 2  # or an SganError says why not


@dataclass(frozen=True)
class StackganConfig(StackConfig, ChainConfig):
    family: ClassVar[str] = "stackgan"
    title: ClassVar[str] = "StackGAN"
    learns_in_turn: ClassVar[bool] = True
    uses_batch: ClassVar[bool] = True  # batch normalization

    z_dim: int = 456  # 228 for each stage: 128 for the condition, 100 of other noise
    channel_base: int = 6144
    blocks: int = 4  # residual blocks of the second stage

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "blocks", 0, 16)
        if self.part <= self.condition:
            raise SganError(
                f"StackganConfig: z has {self.z_dim} numbers, {self.part} for each stage, but the condition alone has "
                f"{self.condition}."
            )


@dataclass(frozen=True)
class StackganDiscriminatorConfig(StackConfig, ChainDiscriminatorConfig):
    family: ClassVar[str] = "stackgan"
    uses_batch: ClassVar[bool] = True  # batch normalization

    channel_base: int = 3072
    channel_max: int = 768
