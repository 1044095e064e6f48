"""What a run of an encoder reports: held-out images beside their reconstructions, and how much they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.images import image_grid, to_rgb, to_uint8
from ...sampling.encoders import EncoderInfo, save_encoder
from ..encoder_config import EncoderRunConfig
from ..engine import Engine
from ..recipe import Samples

_PAIRS = 24  # images in the grid


def psnr(
    images: Tensor,  # [N, C, H, W] in [-1, 1]
    found: Tensor,  # [N, C, H, W]
) -> Tensor:  # [N] in dB
    """Peak signal-to-noise ratio of images with 256 levels: 10 log10(255^2 / mean squared difference)."""
    error = (to_uint8(images).float() - to_uint8(found).float()).square().mean((1, 2, 3)).clamp_min(1e-4)
    return 10 * (255**2 / error).log10()


class HeldOutReport:
    """Shows and measures what a network makes of the images that are held out."""

    slows_down = False
    distance: str  # name of the distance that is logged beside PSNR

    def __init__(
        self,
        engine: Engine[Any],  # whose recipe has `reconstructions` and a `task`
        config: Any,  # of the run
    ):
        self.engine, self.config = engine, config
        self.scale = max(1, 64 // config.data.width)
        self._measured: tuple[int, dict[str, float]] | None = None  # at which step, and what

    def fixed_images(self) -> dict[str, Tensor]:
        return {}

    def make_samples(self) -> Samples:
        """Columns: what the network sees, if that is not the image; the image; what it makes of it."""
        rows: list[Tensor] = []
        for images, inputs, _, found in self.engine.recipe.reconstructions(_PAIRS):
            seen = [] if self.config.task == "invert" else [self.engine.recipe.task.shown(inputs)]
            shown = [*seen, images, found]
            rows += [to_rgb(to_uint8(x)).cpu() for x in torch.stack([to_rgb(x) for x in shown], 1)]
        tiles = torch.cat(rows)
        columns = 8 if self.config.task == "invert" else 9
        return Samples(
            images={"reconstructions": image_grid(tiles, columns, scale=self.scale)},
            values={f"held_out/{name}": value for name, value in self.measure().items()},
        )

    def compute(self) -> dict[str, float]:
        """Means over the held-out images, among them `psnr` and that of `distance`."""
        raise NotImplementedError

    def measure(self) -> dict[str, float]:
        """`compute`, once per step."""
        step = self.engine.clock.step
        if self._measured is None or self._measured[0] != step:
            self._measured = step, self.compute()
        return self._measured[1]

    def values(self) -> dict[str, float]:
        return {"lr": self.engine.recipe.phases[0].optimizer.param_groups[0]["lr"]}

    def end_stage(self, folder: Path, kimg: str) -> str | None:
        found = self.measure()
        return f"kimg {kimg:>8}   held-out images: PSNR {found['psnr']:.2f} dB, {self.distance} distance " + (
            f"{found[self.distance]:.4f}"
        )

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class EncoderReport(HeldOutReport):
    """Measures the moving average of the encoder on the images that are held out."""

    def __init__(
        self,
        engine: Engine[Any],  # of an EncoderRecipe
        config: EncoderRunConfig,
    ):
        super().__init__(engine, config)
        self.distance = config.loss

    def compute(self) -> dict[str, float]:
        """PSNR in dB, the distances of the run's losses, and how far the latents of an image differ and are from the
        mean, in deviations of W."""
        recipe = self.engine.recipe
        losses = {recipe.config.loss: recipe.loss} | ({"identity": recipe.identity} if recipe.identity else {})
        columns = {"psnr": [], **{name: [] for name in losses}, "spread": [], "offset": []}
        for images, _, ws, found in recipe.reconstructions():
            columns["psnr"].append(psnr(images, found))
            with torch.no_grad():
                for name, loss in losses.items():
                    columns[name].append(loss.distance(loss.features(found), loss.features(images)))
            mean = ws.mean(1, keepdim=True)
            variance = recipe.E.deviation.square().sum()
            columns["spread"].append(((ws - mean).square().sum(2).mean(1) / variance).sqrt())
            columns["offset"].append(((mean[:, 0] - recipe.G.mapping.w_avg).square().sum(1) / variance).sqrt())
        return {name: torch.cat(parts).mean().item() for name, parts in columns.items()}

    def save(self, path: Path, kimg: float) -> None:
        config = self.config
        info = EncoderInfo(
            encoder=config.encoder,
            model=config.fingerprint,
            task=config.task,
            task_options=config.task_options,
            skips=config.skips,
            data=config.data,
            kimg=kimg,
            held_out={"images": float(len(self.engine.recipe.held_out)), **self.measure()},
            owner={"model": config.model, "run": config.run, "origins": list(config.origins)},
        )
        recipe = self.engine.recipe
        more = {} if recipe.skips_ema is None else recipe.skips_ema.network.differences(recipe.G.synthesis)
        save_encoder(path, recipe.ema.network, info, skips=more)

    def summary(self, values: dict[str, float]) -> str:
        names = ("pixel", self.config.loss, "identity", "absolute", "judged", "segmenter", "latent", "spread", "critic")
        names += ("G", "D")
        return " ".join(f"{name} {values[key]:.4f}" for name in names if (key := f"loss/{name}") in values)
