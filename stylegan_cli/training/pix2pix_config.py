"""The complete settings of a run that fits a translator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..config import check_choice, check_range, from_json
from ..data.dataset import DataSpec
from ..errors import SganError
from ..models.translators.pix2pix import TranslatorConfig
from ..runs.history import HISTORY
from ..runs.records import PIX2PIX, recipe_of
from .config import check_batch
from .encoder_config import check_held_out


@dataclass(frozen=True)
class Pix2PixRunConfig:
    """The complete settings of a run: the same settings and pairs give the same run. By default those of Isola et al.
    2017, section 3."""

    recipe: ClassVar[str] = PIX2PIX
    data: DataSpec
    source: DataSpec  # images with the names of the data's
    generator: TranslatorConfig
    batch: int  # pairs per step, over all ranks
    batch_gpu: int  # pairs at a time on one rank
    gpus: int = 1  # ranks
    kimg: float = 60.0  # length of the run in thousands of images
    snap: float = 10.0  # thousands of images between snapshots
    seed: int = 0
    held_out: int = 256  # pairs that are only used to measure the translator
    lr: float = 2e-4  # of Adam; falls to 0 in the second half of the run
    betas: tuple[float, float] = (0.5, 0.999)
    absolute_weight: float = 100.0  # lambda of the mean absolute difference of pixels (equation 4)
    precision: str = "fp32"  # 'tf32': of the operands of convolutions, on CUDA
    task: str = "pairs"

    def __post_init__(self) -> None:
        for name in ("seed", "kimg", "snap", "held_out", "lr", "betas", "absolute_weight"):
            check_range(self, name)
        check_choice("precision", self.precision, ("fp32", "tf32"))
        check_choice("task", self.task, ("pairs",))
        check_batch(self)
        check_held_out(self)

    @property
    def needed_files(self) -> list[tuple[str, str]]:
        return []


def read_pix2pix_config(
    values: dict[str, Any],  # contents of config.json
) -> Pix2PixRunConfig:
    """Read the settings of a run. Raises SganError as `from_json` does, and if they belong to another recipe."""
    if (recipe := recipe_of(values)) not in (None, Pix2PixRunConfig.recipe):
        raise SganError(f"The settings belong to the recipe {recipe!r}, not to {Pix2PixRunConfig.recipe!r}.")
    return from_json(Pix2PixRunConfig, {n: value for n, value in values.items() if n not in ("recipe", HISTORY)})
