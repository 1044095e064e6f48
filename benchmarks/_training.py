"""Trains models for an equal time of the processor, and measures what they have learned.

A run is a preset with some settings, on a dataset, with a seed, for a number of seconds of one thread. Its row is
written when it is finished; a run whose row exists is not repeated, so that hours of runs can be spread over days and
processes.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from _datasets import HELD_OUT, TRAINED, Parts, open_parts
from _rows import NAME, Row, Rows

from stylegan_cli.cli.call import keep_freed_memory
from stylegan_cli.data.dataset import DataSpec
from stylegan_cli.data.images import image_grid, save_image
from stylegan_cli.errors import MisuseError, SganError
from stylegan_cli.metrics.measure import compare_images, measure
from stylegan_cli.metrics.metric import EvaluationProtocol
from stylegan_cli.metrics.passes import require_detectors
from stylegan_cli.metrics.registry import resolve
from stylegan_cli.metrics.stream import Fakes
from stylegan_cli.models.generator import Generator
from stylegan_cli.models.registry import presets
from stylegan_cli.snapshot import SnapshotInfo, save_snapshot
from stylegan_cli.training.choices import OBJECTIVES
from stylegan_cli.training.collapse import mean_pairwise_distance
from stylegan_cli.training.config import TrainConfig
from stylegan_cli.training.growth import Growth
from stylegan_cli.training.guard import MAX_STREAK
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes.gan import Gan, make_engine
from stylegan_cli.training.schedule import at

NUM = 4000  # generated images that are measured
DIVERSITY = 500  # images whose pairs are compared
# Widths and pace of demo-stylegan2, for families without a small preset.
SMALL: dict[str, Any] = {
    "batch": 16,
    "channel_base": 512,
    "channel_max": 128,
    "z_dim": 128,
    "mbstd_group": 16,
    "mbstd_channels": 4,
    "ema_kimg": 4.0,
    "ema_rampup": 0.1,
    "aug": "noaug",
}
# What searches and ablations start from: the preset demo-stylegan2, spelled out, as rows are found by their settings.
LOGISTIC: dict[str, Any] = {
    **{"channel_base": 512, "channel_max": 128, "loss": "logistic", "gamma": 30.0, "r1_interval": 16, "ema_rampup": 0.1}
}
# Full size after a fifth of the time, as in demo-stylegan.
GROWING: dict[str, Any] = {"grow_from": 4, "grow_kimg": 5.0, "fade_kimg": 5.0, "grow_batch": {4: 64, 8: 64, 16: 32}}
NETWORKS = ("generator", "discriminator")
FOLDER = Path(__file__).parents[1] / "out" / "training"
_CPU = torch.device("cpu")
_FOREVER = 1e6  # kimg: only the time ends a run


@dataclass(frozen=True)
class Run:
    """What is trained. Without a preset, the training images themselves are measured: the best a model can do."""

    op: str  # the table that it belongs to
    case: str  # its line in the table
    cfg: str  # name of a preset, or empty
    data: str  # key of DATASETS
    seed: int
    seconds: float  # of one thread
    settings: dict[str, Any] = field(default_factory=dict)  # see `make_config`; 'schedule': see `anneal`
    metrics: tuple[str, ...] = ()  # further ones: 'ppl', 'eqt', 'eqr'

    @property
    def name(self) -> str:
        return re.sub(r"[^\w.]+", "-", f"{self.op}-{self.case}-{self.data}-{self.seed}-{self.seconds:g}s").lower()

    def row(self, num: int) -> Row:  # number of measured images
        """The start of its row, which no other run has."""
        facts = {"settings": {"cfg": self.cfg, **self.settings}, "images": [TRAINED, HELD_OUT, num]}
        return {name: getattr(self, name) for name in NAME} | facts


@dataclass(frozen=True)
class Trained:
    """What a run has learned."""

    config: TrainConfig
    G: Generator  # the moving average
    D: torch.nn.Module
    kimg: float  # thousands of images shown
    seconds: float  # of the processor


@dataclass(frozen=True)
class Options:
    """The options that all scripts share."""

    rows: Rows
    folder: Path  # of datasets, models and sheets
    num: int = NUM
    only: str = ""
    detector: str | None = None
    plan: bool = False

    def parts(self, data: str) -> Parts:
        return open_parts(data, self.folder / "datasets")


def script_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all scripts share, which become the first argument. A SganError becomes a message."""

    @functools.wraps(function)
    def main(out: Path | None, work: Path, **values: Any) -> None:
        shared = {name: values.pop(name) for name in ("num", "only", "detector", "plan")}
        try:
            function(Options(Rows(out), work, **shared), **values)
        except SganError as e:
            raise click.ClickException(" ".join(filter(None, [str(e), e.hint]))) from e
        except ModuleNotFoundError as e:
            raise click.ClickException(f"{e}. Run pip install {(e.name or '').replace('_', '-')}.") from e

    path = click.Path(dir_okay=False, path_type=Path)
    for decorator in (
        click.option("--out", type=path, help="Results file, which also says which runs are done."),
        click.option("--work", default=FOLDER, type=click.Path(path_type=Path), help="Folder of datasets and models."),
        click.option("--num", default=NUM, type=click.IntRange(8), help=f"Number of measured images. [default: {NUM}]"),
        click.option("--only", default="", metavar="TEXT", help="Only cases whose names contain this."),
        click.option("--detector", metavar="FILE", help="Weights of LPIPS, for path lengths."),
        click.option("--plan", is_flag=True, help="Only list the runs that are not done."),
    ):
        main = decorator(main)
    return main


def work_on(runs: Sequence[Run], options: Options) -> None:
    """Do the runs that are not done in this order, except those that another process is doing."""
    torch.set_num_threads(1)
    keep_freed_memory()
    wanted = [run for run in runs if options.only in run.case]
    missing = [run for run in wanted if options.rows.find(run.row(options.num)) is None]
    for run in missing:  # mistakes show before hours of training
        check(run, options)
    for run in () if options.plan else {run.metrics: run for run in missing}.values():
        for protocol in (distances(options.num), *further(run, options)):
            require_detectors(protocol.metrics, protocol.detector_file)
    hours = sum(run.seconds for run in missing) / 3600
    print(
        f"{len(wanted) - len(missing)} of {len(wanted)} runs are done; the others train {hours:.1f} hours.", flush=True
    )
    for run in missing:
        if options.plan:
            print(f"  {run.name}")
            continue
        row = run.row(options.num)
        with options.rows.claim(row) as is_free:
            if is_free and options.rows.find(row) is None:
                options.rows.add(do(run, options))


def check(run: Run, options: Options) -> None:
    """Raise SganError if the run's settings do not fit each other or its data."""
    if run.cfg and (config := make_config(run, options.parts(run.data).train.spec)).growth:
        Growth(config)


def do(run: Run, options: Options) -> Row:
    """Do a run and return its row. A run that fails is a result too: its row has no figures."""
    parts, row = options.parts(run.data), run.row(options.num)
    print(f"{run.name}: {row['settings']}", flush=True)
    outcome: Row = {"kimg": 0.0, "processor_seconds": 0.0, "parameters": {}, "figures": {}, "failed": []}
    try:
        if not run.cfg:
            figures = measure_images(parts, options.num)
        else:
            trained = train(run, parts)
            networks = {"G": trained.G, "D": trained.D}
            outcome |= {"kimg": trained.kimg, "processor_seconds": round(trained.seconds, 1)}
            outcome["precision"] = trained.config.precision
            outcome["parameters"] = {name: count_parameters(network) for name, network in networks.items()}
            keep(run, trained, options.folder)
            figures = measure_model(run, trained.G, parts, options)
        outcome["figures"] = {name: float(f"{value:.5g}") for name, value in figures.items()}
    except FailedError as e:
        outcome["failed"] = [str(e)]
    print(f"{run.name}: {outcome['failed'] or outcome['figures']}", flush=True)
    return row | outcome


class FailedError(SganError):
    """Training has diverged, or the time was too short for the preset."""


# ------------------------------------------------------------------------------------------- training


def is_known(run: Run) -> bool:
    """Whether this version has the run's preset and objective."""
    known = not run.cfg or run.cfg in presets()
    return known and run.settings.get("loss", "logistic") in OBJECTIVES


def make_config(run: Run, data: DataSpec) -> TrainConfig:
    """The settings of `make_train_config`, and fields of a network as 'generator.architecture'.

    Raises SganError if the settings do not fit each other, or a network lacks a field.
    """
    plain = {name: value for name, value in run.settings.items() if "." not in name}
    config = make_train_config(run.cfg, data, **{"seed": run.seed, "kimg": _FOREVER, "precision": "auto", **plain})
    for network in NETWORKS:
        fields, old = _under(run.settings, network), getattr(config, network)
        if unknown := fields.keys() - {f.name for f in dataclasses.fields(old)}:
            raise MisuseError(f"The {network} of {run.cfg} has no field {min(unknown)!r}.")
        config = dataclasses.replace(config, **{network: dataclasses.replace(old, **fields)})
    return config


def train(run: Run, parts: Parts) -> Trained:
    """Train for the run's seconds. Raises FailedError if it diverges, or has not come to its last stage by then."""
    config, schedule = make_config(run, parts.train.spec), _under(run.settings, "schedule")
    engine, shown_at = make_engine(config, parts.train), 0.1
    start, used = time.process_time(), 0.0
    try:
        while used < run.seconds:
            anneal(engine.recipe, schedule, used / run.seconds)
            engine.step()
            used = time.process_time() - start
            if engine.clock.step % 64 == 0 and engine.streak >= MAX_STREAK:
                raise FailedError(f"Training diverged after {engine.shown / 1000:.1f} kimg.")
            if used >= shown_at * run.seconds:
                print(f"{run.name}: {used:.0f} of {run.seconds:g} s, {engine.shown / 1000:.1f} kimg", flush=True)
                shown_at += 0.1
    finally:
        engine.close()
    recipe, kimg = engine.recipe, engine.shown / 1000
    if recipe.metric_network is None:
        raise FailedError(f"The networks have only grown to {recipe.config.data.height} pixels in {kimg:.1f} kimg.")
    if late := [phase.name for phase in recipe.phases if phase.start >= engine.shown]:
        raise FailedError(f"The phase {late[-1]!r} has not begun in {kimg:.1f} kimg.")
    return Trained(config, recipe.metric_network, recipe.D, kimg, used)


def anneal(
    recipe: Gan,
    schedule: dict[str, float],  # factors at the end of the run: 'lr', 'gamma' (of all penalties)
    progress: float,  # 0 to 1
) -> None:
    """Move learning rates and penalties along half a cosine from their settings to a factor of them, as the schedules
    of Huang et al. 2024 (R3GAN, appendix D) do in the first part of a run."""
    recipe.lr_scale = at(1.0, schedule.get("lr", 1.0), progress)
    recipe.objective.gamma_scale = at(1.0, schedule.get("gamma", 1.0), progress)
    recipe.set_optimizers()


def _under(settings: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The settings 'prefix.name' by name."""
    pairs = ((name.partition("."), value) for name, value in settings.items())
    return {name: value for (before, dot, name), value in pairs if dot and before == prefix}


def count_parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def keep(run: Run, trained: Trained, folder: Path) -> None:
    """Keep the generator, and a sheet of images."""
    about = SnapshotInfo(trained.config.generator, data=trained.config.data, kimg=trained.kimg, origin=run.name)
    (folder / "models").mkdir(parents=True, exist_ok=True)
    save_snapshot(folder / "models" / f"{run.name}.safetensors", trained.G, None, about)
    save_image(image_grid(generate(trained.G, 64), 8, scale=2), folder / "sheets" / f"{run.name}.png")


# ------------------------------------------------------------------------------------------- measuring


@torch.no_grad()
def generate(G: Generator, num: int) -> torch.Tensor:  # uint8 [num, 3, H, W]
    source = Fakes(G, None, _CPU)
    return torch.cat([source(index) for index in torch.arange(num).split(64)])


def measure_model(run: Run, G: Generator, parts: Parts, options: Options) -> dict[str, float]:
    """The distances, the diversity and the run's further metrics."""
    try:
        measured = measure(distances(options.num), G, parts.held_out, _CPU)
        figures = dict(zip(("frechet", "kernel"), measured.values.values(), strict=True))
        figures["diversity"] = diversity(generate(G, DIVERSITY), parts)
        for name, protocol in zip(run.metrics, further(run, options), strict=True):
            if G.config.takes_transform or name == "ppl":
                (figures[name],) = measure(protocol, G, None, _CPU).values.values()
    except SganError as e:
        if "not finite" in str(e):
            raise FailedError(str(e)) from e
        raise
    return figures


def measure_images(parts: Parts, num: int) -> dict[str, float]:
    """The distances and the diversity of the training images."""
    measured = compare_images(distances(num), parts.held_out, parts.train)
    figures = dict(zip(("frechet", "kernel"), measured.values.values(), strict=True))
    return figures | {"diversity": diversity(parts.train.images(range(min(DIVERSITY, len(parts.train)))), parts)}


def distances(num: int) -> EvaluationProtocol:
    """Fréchet and kernel distance of `sgan metrics fid4k_full kid4k_full --features efficientnet-lite0`."""
    return resolve(["fid50k_full", "kid50k_full"], num=num, features="efficientnet-lite0")


def further(run: Run, options: Options) -> list[EvaluationProtocol]:
    """The protocols of the run's further metrics, with a quarter of the images: they need fewer."""
    files = [options.detector if name == "ppl" else None for name in run.metrics]
    metrics = zip(run.metrics, files, strict=True)
    return [resolve([name], num=options.num // 4, detector_file=file) for name, file in metrics]


def diversity(images: torch.Tensor, parts: Parts) -> float:  # uint8 [N, 3, H, W]
    """The mean distance of pairs of images, relative to that of real images, as training/collapse.py has it."""
    reals = parts.held_out.images(range(min(DIVERSITY, len(parts.held_out))))
    return mean_pairwise_distance(images) / mean_pairwise_distance(reals)
