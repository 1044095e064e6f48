"""What the labels of a generator mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a conditional model, or the vectors of numbers that it was trained on."""

    c_dim: int  # number of classes, or of numbers of a label; 0 = unconditional
    names: tuple[str, ...] = ()  # of the classes or the numbers; empty if unknown
    vectors: tuple[tuple[float, ...], ...] = ()  # labels of some training images; empty if labels are classes

    def name(
        self,
        index: int,
    ) -> str:
        """The name of a class or a number: by default, its index."""
        return self.names[index] if self.names else str(index)
