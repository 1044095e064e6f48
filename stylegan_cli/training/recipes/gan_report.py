"""What a run of a GAN reports: grids of generated images, snapshots, augmentation strength, mode collapse."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...data.codec import to_array
from ...data.images import image_grid, save_image, to_uint8
from ...models.encoders.pyramid import first_outputs
from ...models.label_space import Codes
from ...runs.records import HELD_OUT
from ...sampling import counter
from ...sampling.bound_files import Owner
from ...sampling.encoders import RUN_ENCODER, EncoderInfo, save_encoder
from ...sampling.latents import latents_from_seeds
from ...snapshot import SnapshotInfo, fingerprint, save_snapshot
from ..collapse import CollapseAlarm, advice
from ..config import TrainConfig
from ..engine import Engine
from ..growth import Growth
from ..recipe import Samples
from .encoder_report import psnr

STRIP = 8  # images of stages-<kimg>.png
PHASES = "phases.png"  # of a growing run: one row per level


class GanReport:
    """Generates images of the same latents every time."""

    def __init__(
        self,
        engine: Engine[Any],  # of a Gan
        config: TrainConfig,  # of the whole run
    ):
        self.engine, self.config = engine, config
        growth, dataset = engine.hooks.get("growth"), engine.recipe.full_dataset
        self.growth = growth if isinstance(growth, Growth) else None
        count, self.columns = _grid_shape(config.data.height, config.data.width)
        index = counter.integers(config.seed, "reals", torch.arange(count), len(dataset))
        self.labels = dataset.labels(index).to(engine.device) if config.data.c_dim else None
        if config.info:  # a code in each row
            codes = torch.arange(count) // self.columns % config.info
            self.labels = torch.nn.functional.one_hot(codes, config.info).float().to(engine.device)
        self.z = latents_from_seeds(range(count), config.generator.z_dim).to(engine.device)
        self.scale = max(1, 64 // config.data.width)
        self.reals = dataset.images(index)
        g, others = config.generator, (config.mode_weight, config.encoder, config.growth)
        regularizable = not (any(others) or g.c_dim or g.is_chain)
        self.alarm = CollapseAlarm(self.reals, advice(config.loss, regularizable))
        self.run, self.origins = secrets.token_hex(8), engine.recipe.origins
        self._measured: tuple[int, dict[str, float]] | None = None  # at which step, and what

    def fixed_images(self) -> dict[str, Tensor]:
        return {"reals": image_grid(self.reals, self.columns, scale=self.scale)}

    def make_samples(self) -> Samples:
        """Generate images with the moving average, and measure how much they differ."""
        fakes = self._fakes()
        diversity, warning = self.alarm.check(fakes)
        return Samples(
            images={"fakes": image_grid(fakes, self.columns, scale=self.scale), **self._stages(fakes)},
            values={"diversity": diversity, **{f"{HELD_OUT}{name}": x for name, x in self.measure().items()}},
            warning=warning,
            short_warning="COLLAPSING?" if warning else "",
        )

    def measure(self) -> dict[str, float]:
        """The mean PSNR in dB of the images that an encoder beside both networks has not seen; empty without one."""
        recipe, step = self.engine.recipe, self.engine.clock.step
        if recipe.E is None or not len(recipe.held_out):
            return {}
        if self._measured is None or self._measured[0] != step:
            values = torch.cat([psnr(images, found) for images, found in recipe.reconstructions()])
            self._measured = step, {"psnr": values.mean().item()}
        return self._measured[1]

    def save(self, path: Path, kimg: float) -> None:
        recipe = self.engine.recipe
        info = SnapshotInfo(
            generator=recipe.config.generator,
            discriminator=recipe.config.discriminator,
            data=recipe.config.data,
            kimg=kimg,
            origin=f"sgan train --cfg {self.config.cfg}",
            run=self.run,
            origins=self.origins,
            codes=Codes(self.config.info, self.config.info_continuous),
        )
        if recipe.E_ema is not None:  # before the model that it is for: if the run is killed, the next one has both
            E = first_outputs(recipe.E_ema.network, self.config.generator.z_dim)
            encoder = EncoderInfo(
                encoder=E.config,
                model=fingerprint(recipe.ema.network),
                data=recipe.config.data,
                kimg=kimg,
                held_out={"images": float(len(recipe.held_out)), **measured} if (measured := self.measure()) else {},
                owner=Owner(self.run, self.origins).settings(path),
            )
            save_encoder(path.with_name(RUN_ENCODER), E, encoder)
        save_snapshot(path, recipe.ema.network, recipe.D, info)

    def values(self) -> dict[str, float]:
        recipe, values = self.engine.recipe, {}
        if self.config.aug in ("ada", "fixed"):
            p = recipe.objective.p
            values |= {"augment/p": float(p.p), "augment/r_t": float(p.r_t)}
        if self.config.schedule:
            values |= {"lr": self.config.lr * recipe.lr_scale * 0.5**recipe.rollbacks}
            values |= {"gamma": self.config.gamma * recipe.objective.gamma_scale}
        return values

    def summary(self, values: dict[str, float]) -> str:
        parts = []  # not all stages of a chain may be trained, nor G with every step
        for stage in self.engine.recipe.objective.suffixes:
            found = [f"{name} {values[key]:.2f}" for name in "GD" if (key := f"loss/{name}{stage}") in values]
            parts += [" ".join([stage, *found]).strip()] if found else []
        text = "  ".join(parts)
        for name in ("R1", "R2", "GP"):
            text += f" {name} {values[key]:.3f}" if (key := f"{name.lower()}/penalty") in values else ""
        for guide in self.config.guides:
            text += f" {guide.name} {values[key]:.2f}" if (key := f"loss/guide {guide.name}") in values else ""
        return text + (f"   p {values['augment/p']:.3f}" if self.config.aug == "ada" else "")

    @property
    def slows_down(self) -> bool:
        """Whether higher levels, which take longer, are still to come."""
        return self.growth is not None and not self.growth.is_last

    def end_stage(self, folder: Path, kimg: str) -> str | None:
        """Add a row of generated images to phases.png after each level, and describe the next stage; or the
        encoder."""
        growth = self.growth
        if growth is None:
            return f"kimg {kimg:>8}   held-out images: PSNR {m['psnr']:.2f} dB" if (m := self.measure()) else None
        if not growth.stage.config.generator.fades:
            row = image_grid(self._fakes(self.columns), self.columns, scale=self.scale, pad=4)
            _add_row(folder / PHASES, growth.levels.index(growth.stage.level), row)
        if growth.is_last:
            return None
        following = growth.stages[growth.index + 1].config
        event = "fades in" if following.generator.fades else "has faded in"
        return (
            f"kimg {kimg:>8}   {following.data.height}x{following.data.width} {event}, "
            f"batch {following.batch}, learning rate {following.lr:g}"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"alarm": self.alarm.state_dict(), "run": self.run, "origins": self.origins}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.alarm.load_state_dict(state["alarm"])
        self.run = state.get("run", self.run)  # older states have none
        self.origins = state.get("origins", self.origins)

    def _stages(
        self,
        fakes: Tensor,  # [N, C, H, W] uint8
    ) -> dict[str, Tensor]:  # name -> uint8 [C, H', W']
        """A row for each of the first images of a chain of generators: what each stage makes, enlarged."""
        network = self.engine.recipe.ema.network
        if not network.config.is_chain:
            return {}
        *names, _ = (row.name for row in network.layers)
        with torch.no_grad():
            ws = network.mapping(self.z[:STRIP], None if self.labels is None else self.labels[:STRIP])
            found = network.synthesis.read_features(ws, names)
        size = tuple(fakes.shape[2:])
        stages = [torch.nn.functional.interpolate(found[name], size, mode="nearest") for name in names]
        columns = [*(to_uint8(x).cpu() for x in stages), fakes[:STRIP]]
        return {"stages": image_grid(torch.stack(columns, 1).flatten(0, 1), len(columns), scale=self.scale, pad=2)}

    def _fakes(
        self,
        count: int | None = None,  # number of images; None: all of the grid
    ) -> Tensor:  # [N, C, H, W] uint8
        """Generate images, enlarged to the full size while the network is smaller."""
        step = max(1, 2**20 // (self.config.data.height * self.config.data.width))  # about a megapixel
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
    position: int,  # number of rows above it; later rows of the file, from before a rollback, are removed
    row: Tensor,  # uint8 [C, h, W], the same size for all rows
) -> None:
    rows = [row]
    if position and path.is_file():
        with Image.open(path) as image:
            rows.insert(0, torch.tensor(to_array(image))[:, : position * row.shape[1]])
    save_image(torch.cat(rows, 1), path)


def _grid_shape(height: int, width: int) -> tuple[int, int]:
    """Return the number of images of a grid and its columns: about 2 megapixels, 4 to 8 columns."""
    columns = min(max(2048 // width, 4), 8)
    rows = min(max(1536 // height, 3), 8)
    return columns * rows, columns
