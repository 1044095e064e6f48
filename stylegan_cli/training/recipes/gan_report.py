"""What a run of a GAN records and shows: grids of drawings, snapshots, p of the augmentation, signs of collapse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...data.codec import to_array
from ...data.images import image_grid, save_image, to_uint8
from ...sampling import counter
from ...sampling.latents import latents_from_seeds
from ...snapshot import SnapshotInfo, save_snapshot
from ..collapse import CollapseAlarm
from ..config import TrainConfig
from ..engine import Engine
from ..growth import Growth
from ..recipe import Drawn

PHASES = "phases.png"  # of a run that grows: a row for each level


class GanReport:
    """Draws the same latents every time."""

    def __init__(
        self,
        engine: Engine[Any],  # of a Gan
        config: TrainConfig,  # of the whole run
    ):
        self.engine, self.config = engine, config
        growth, whole = engine.hooks.get("growth"), engine.recipe.whole
        self.growth = growth if isinstance(growth, Growth) else None
        count, self.columns = _grid_shape(config.data.height, config.data.width)
        index = counter.integers(config.seed, "reals", torch.arange(count), len(whole))
        self.labels = whole.labels(index).to(engine.device) if config.data.c_dim else None
        self.z = latents_from_seeds(range(count), config.generator.z_dim).to(engine.device)
        self.scale = max(1, 64 // config.data.width)
        self.reals = whole.images(index)
        self.alarm = CollapseAlarm(self.reals)

    def stills(self) -> dict[str, Tensor]:
        return {"reals": image_grid(self.reals, self.columns, scale=self.scale)}

    def draw(self) -> Drawn:
        """The moving average's drawings, and how much they differ."""
        fakes = self._fakes()
        diversity, warning = self.alarm.look(fakes)
        return Drawn(
            images={"fakes": image_grid(fakes, self.columns, scale=self.scale)},
            values={"diversity": diversity},
            warning=warning,
            alarm="COLLAPSING?" if warning else "",
        )

    def save(self, path: Path, kimg: float) -> None:
        recipe = self.engine.recipe
        info = SnapshotInfo(
            generator=recipe.config.generator,
            discriminator=recipe.config.discriminator,
            data=recipe.config.data,
            kimg=kimg,
            origin=f"sgan train --cfg {self.config.cfg}",
        )
        save_snapshot(path, recipe.ema.network, recipe.D, info)

    def values(self) -> dict[str, float]:
        p = self.engine.recipe.objective.p
        return {"augment/p": float(p.p), "augment/r_t": float(p.r_t)} if self.config.aug in ("ada", "fixed") else {}

    def summary(self, values: dict[str, float]) -> str:
        text = f"G {values.get('loss/G', 0):.2f} D {values.get('loss/D', 0):.2f}"
        for name in ("R1", "R2", "GP"):
            text += f" {name} {values[key]:.3f}" if (key := f"{name.lower()}/penalty") in values else ""
        return text + (f"   p {values['augment/p']:.3f}" if self.config.aug == "ada" else "")

    @property
    def slows_down(self) -> bool:
        """Higher levels take longer."""
        return self.growth is not None and not self.growth.is_last

    def end_of_stage(self, folder: Path, kimg: str) -> str | None:
        """What a level has learnt is a row of phases.png."""
        growth = self.growth
        if growth is None:
            return None
        if not growth.stage.config.generator.fades:
            row = image_grid(self._fakes(self.columns), self.columns, scale=self.scale, pad=4)
            _add_row(folder / PHASES, growth.levels.index(growth.stage.level), row)
        if growth.is_last:
            return None
        after = growth.stages[growth.index + 1].config
        arrival = "fades in" if after.generator.fades else "is there"
        return (
            f"kimg {kimg:>8}   {after.data.height}x{after.data.width} {arrival}, "
            f"batch {after.batch}, learning rate {after.lr:g}"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"alarm": self.alarm.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.alarm.load_state_dict(state["alarm"])

    def _fakes(
        self,
        count: int | None = None,  # of the grid's images; None: all
    ) -> Tensor:  # [N, C, H, W] uint8
        """At the size of the whole run, also while the network draws smaller ones."""
        step = max(1, 2**20 // (self.config.data.height * self.config.data.width))  # about a megapixel at a time
        z = self.z[:count]
        labels = [None] * len(z) if self.labels is None else self.labels[:count].split(step)
        network = self.engine.recipe.ema.network
        with torch.no_grad():
            parts = [to_uint8(network(z, c)).cpu() for z, c in zip(z.split(step), labels)]
        fakes = torch.cat(parts)
        enlarge = self.config.data.height // fakes.shape[2]
        return fakes.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3)


def _add_row(
    path: Path,
    place: int,  # rows before it, which the file has; what it has beyond, from a state gone back from, goes
    row: Tensor,  # uint8 [C, h, W], as large as every other
) -> None:
    rows = [row]
    if place and path.is_file():
        with Image.open(path) as image:
            rows.insert(0, torch.tensor(to_array(image))[:, : place * row.shape[1]])
    save_image(torch.cat(rows, 1), path)


def _grid_shape(height: int, width: int) -> tuple[int, int]:
    """How many images a grid shows, and in how many columns: about 2 megapixels, 4 to 8 columns."""
    columns = min(max(2048 // width, 4), 8)
    rows = min(max(1536 // height, 3), 8)
    return columns * rows, columns
