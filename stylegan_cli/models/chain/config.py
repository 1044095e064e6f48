"""Configurations of chains of generators and of their discriminators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...config import check_choice
from ...errors import SganError
from ..classic.config import StartingConfig
from ..config import DirectConfig, DiscriminatorConfig, Level


@dataclass(frozen=True)
class ChainConfig(StartingConfig, DirectConfig):
    """Generators of several stages. Each takes a part of z, the label, and the image of the stage before."""

    is_chain: ClassVar[bool] = True
    has_styles: ClassVar[bool] = True  # each stage has a part of z of its own
    half_type: ClassVar[str] = "tf32"  # these networks run in full precision

    @property
    def stages(self) -> tuple[Level, ...]:
        """The level of the image of each stage, lowest first."""
        raise NotImplementedError

    @property
    def part(self) -> int:
        """Numbers of z for each stage. What remains has no effect."""
        return self.z_dim // max(len(self.stages), 1)  # none: images that are too small, which is reported later

    @property
    def w_dim(self) -> int:
        """There is no mapping network: a w is a part of z, followed by the label."""
        return self.part + self.c_dim

    def _details(self) -> list[str]:
        sizes = " -> ".join(f"{stage.height}x{stage.width}" for stage in self.stages)
        return [f"stages {sizes}", *super()._details()]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part < 1:
            raise SganError(f"z has {self.z_dim} numbers, fewer than there are stages: {len(self.stages)}.")


@dataclass(frozen=True)
class ChainDiscriminatorConfig(StartingConfig, DiscriminatorConfig):
    """One discriminator for the images of each stage."""

    labels: str = "concat"  # the label becomes a part of the features

    @property
    def stages(self) -> tuple[Level, ...]:
        """As those of the generator."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("discriminator labels", self.labels, ("concat",))
        self._check(self.codes == 0, "codes")
