"""What every reader makes of a file, and the model that comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from ..config import DiscriminatorConfig, GeneratorConfig


class Loadable(Protocol):
    """A tensor that is read when it is wanted."""

    size: tuple[int, ...]

    def load(self) -> Tensor: ...


@dataclass(frozen=True)
class Foreign:
    """A model of another program, in our names."""

    format: str  # what wrote it, for the reader
    generator: GeneratorConfig
    G: dict[str, Loadable]  # by the names of our generator's state_dict
    discriminator: DiscriminatorConfig | None = None
    D: dict[str, Loadable] = field(default_factory=dict)
    aug_p: float | None = None  # of adaptive augmentation
    data: str = ""  # what it says about its pictures
    kimg: float = 0.0
    notes: tuple[str, ...] = ()  # what of the file is lost or was guessed


class FormatError(ValueError):
    """A file of a known format that cannot be read here: one sentence without a full stop."""
