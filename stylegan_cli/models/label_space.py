"""What the labels of a generator mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Codes:
    """The parts of a generator's input that were trained to be recoverable from its images, without labels (InfoGAN,
    Chen et al. 2016)."""

    values: int = 0  # of a code in the place of the class; 0: none
    numbers: int = 0  # of z, from the first


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a conditional model, or the vectors of numbers that it was trained on."""

    c_dim: int  # number of classes, or of numbers of a label; 0 = unconditional
    names: tuple[str, ...] = ()  # of the classes or the numbers; empty if unknown
    vectors: tuple[tuple[float, ...], ...] = ()  # labels of some training images; empty if labels are classes
    codes: Codes = Codes()

    def name(
        self,
        index: int,
    ) -> str:
        """The name of a class or a number: by default, its index."""
        return self.names[index] if self.names else str(index)
