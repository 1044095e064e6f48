"""Configurations of chains of generators and of their discriminators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...config import check_choice
from ...errors import SganError
from ..classic.config import StartingConfig
from ..config import DiscriminatorConfig, GeneratorConfig, Level


@dataclass(frozen=True)
class ChainConfig(StartingConfig, GeneratorConfig):
    """Generators of several stages. Each takes a part of z, the label, and the image of the stage before."""

    is_chain: ClassVar[bool] = True
    half_type: ClassVar[str] = "tf32"  # these networks run in full precision

    w_avg_beta: float = 0.995  # decay of the running mean of w, per batch

    @property
    def stages(self) -> tuple[Level, ...]:
        """The level of the image of each stage, lowest first."""
        raise NotImplementedError

    @property
    def part(self) -> int:
        """Numbers of z for each stage. What remains has no effect."""
        return self.z_dim // len(self.stages)

    @property
    def w_dim(self) -> int:
        """There is no mapping network: a w is a part of z, followed by the label."""
        return self.part + self.c_dim

    def _details(self) -> list[str]:
        sizes = " -> ".join(f"{stage.height}x{stage.width}" for stage in self.stages)
        return [f"stages {sizes}", *super()._details()]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(0 <= self.w_avg_beta <= 1, f"w_avg_beta {self.w_avg_beta}")
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
