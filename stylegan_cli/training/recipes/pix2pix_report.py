"""What a run of pix2pix reports: held-out images beside their translations, and how much they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...detectors.distances import PixelLoss
from ...sampling.translators import TranslatorInfo, save_translator
from ..engine import Engine
from ..pix2pix_config import Pix2PixRunConfig
from .encoder_report import HeldOutReport, psnr


class Pix2PixReport(HeldOutReport):
    """Measures the translator on the images that are held out."""

    distance = "pixel"

    def __init__(
        self,
        engine: Engine[Any],  # of a Pix2PixRecipe
        config: Pix2PixRunConfig,
    ):
        super().__init__(engine, config)

    def compute(self) -> dict[str, float]:
        """PSNR in dB, and the distance of pixels at several sizes."""
        loss, columns = PixelLoss(), {"psnr": [], "pixel": []}
        for images, _, _, found in self.engine.recipe.reconstructions():
            columns["psnr"].append(psnr(images, found))
            columns["pixel"].append(loss.distance(loss.features(found), loss.features(images)))
        return {name: torch.cat(parts).mean().item() for name, parts in columns.items()}

    def save(self, path: Path, kimg: float) -> None:
        config, recipe = self.config, self.engine.recipe
        held_out = {"images": float(len(recipe.held_out)), **self.measure()}
        save_translator(path, recipe.G, TranslatorInfo(config.generator, config.data, config.source, kimg, held_out))

    def summary(self, values: dict[str, float]) -> str:
        return " ".join(f"{k} {values[f'loss/{k}']:.4f}" for k in ("G", "D", "absolute") if f"loss/{k}" in values)
