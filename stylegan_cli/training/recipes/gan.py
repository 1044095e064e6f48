"""The recipe of GANs: a generator, a discriminator and a moving average of the generator."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ... import distributed
from ...data.dataset import Dataset
from ...data.sampler import Loader, Sampler
from ...errors import SganError
from ...layers import iterate_power, measure_standing_statistics, to_memory_format
from ...models.discriminator import Discriminator
from ...models.encoders.pyramid import PyramidEncoder, z_encoder_config
from ...models.generator import Generator
from ...models.growing import set_alpha
from ...models.label_space import Codes, LabelSpace
from ...models.registry import build_discriminator, build_generator
from ...ops import tensor_cores
from ...progress import Progress, silent
from ...sampling import counter
from ...sampling.labels import sample_labels
from ...snapshot import Snapshot, load_snapshot
from ..blur import BlurSchedule
from ..config import TrainConfig
from ..ema import EMA
from ..engine import Engine, Hook
from ..growth import GrowingRecipe, Growth, fade_reals
from ..guides import load_guides
from ..losses import LOSSES
from ..optimizer import FusedAdam, lazy_adam
from ..recipe import Phase
from ..run import RunOptions, prepare_rank, run_training
from ..schedule import CosineSchedule
from ..stats import Means
from ..transfer import load_matching_tensors, rename_layers
from .chain import ChainObjective
from .encoding import EncodingObjective, objective_class
from .fitting import split
from .gan_objective import GanBatch, Objective
from .gan_plan import check_freezed, folder_name
from .gan_report import GanReport

# A snapshot of a network with batch normalization has the statistics of
STANDING = 1024  # images or more, which are generated in
PASSES = 16  # passes or more
HELD_OUT = 64  # images at most, and a tenth of the dataset, that an encoder beside both networks does not see


class Gan(GrowingRecipe):
    """In a growing run, `config`, `dataset` and the networks are those of the current stage."""

    divergence_advice = "Restart from a snapshot with a lower --lr or a higher --gamma: sgan train --resume FILE"

    def __init__(
        self,
        config: TrainConfig,  # of the run, or of the stage
        dataset: Dataset,  # at the full size
        device: torch.device | str = "cpu",
        start: Snapshot | None = None,  # initial weights, where they match; None: random
        dtype: torch.dtype = torch.float32,  # of the weights; float64 for tests
        graphs: bool = False,  # run phases as CUDA graphs
        means: Means | None = None,  # None: new ones
    ):
        super().__init__(config.batch, config.batch_gpu, torch.device(device), graphs, means)
        self.config, self.full_dataset, self.dtype = config, dataset, dtype
        self.dataset = dataset.resized(config.data.height, config.data.width)
        self.origins = start.lineage if start else ()
        self.alpha = 1.0  # weight of the highest level while it fades in
        self.rollbacks, self.lr_scale, self.beta2 = 0, 1.0, None  # see `set_optimizers`
        torch.manual_seed(config.seed)  # the same initial weights on all ranks
        self.G: Generator = build_generator(config.generator)
        if config.info:
            self.G.label_space = LabelSpace(config.info, codes=Codes(config.info, config.info_continuous))
        self.D = build_discriminator(config.discriminator)
        if start is not None:
            self.new_tensors = self._load_start(start)
        self.G.to(self.device, dtype=dtype).requires_grad_(False)
        self.D.to(self.device, dtype=dtype).requires_grad_(False)
        self.E = self.E_ema = None
        self.objective = self._make_objective()
        self.ema = EMA(self.G, config.ema_kimg * 1000, config.ema_rampup)
        self.averages = [ema for ema in (self.ema, self.E_ema) if ema is not None]
        sampler = Sampler(len(self.dataset), seed=config.seed, rank=distributed.rank(), world=distributed.world_size())
        self.loader = Loader(self.dataset, sampler, config.batch, pin=self.device.type == "cuda")
        held_out = min(len(self.dataset) // 10, HELD_OUT) if self.E is not None else 0
        self.held_out, _ = split(config.seed, len(self.dataset), held_out)
        self.networks = {"G": self.G, "D": self.D, "G_ema": self.ema.network}
        self.parts = {"path_length": self.objective.path_length, "augment": self.objective.p, "data": self.loader}
        self.phases = self._make_phases()
        if self.E is not None and self.E_ema is not None:
            self.networks |= {"E": self.E, "E_ema": self.E_ema.network}
        # Metrics are only defined at the full size.
        self.metric_network, self.metric_data = (self.ema.network if self.dataset is dataset else None), dataset

    def rebuild(self, config: TrainConfig) -> Gan:
        return Gan(config, self.full_dataset, self.device, None, self.dtype, self.graphs, self.means)

    def fade(self, alpha: float) -> None:
        self.alpha = alpha
        for network in self.networks.values():
            set_alpha(network, alpha)

    def next_batch(self) -> GanBatch:
        images, labels, index = self.loader.next()
        held_out = torch.isin(self.loader.sampler.at(index), self.held_out) if self.E else None
        others = sample_labels(self.G.label_space, self.config.seed, "info", index) if self.config.info else None
        if others is not None:
            labels = torch.zeros_like(others)  # real images have no code; D takes none
        else:
            others = self.dataset.labels(counter.integers(self.config.seed, "label", index, len(self.dataset)))
        others = others.pin_memory() if self.loader.pin else others
        images, labels, others, index = (t.to(self.device, non_blocking=True) for t in (images, labels, others, index))
        images = images.to(self.dtype) / 127.5 - 1  # [N, C, H, W] in [-1, 1]
        if self.dataset.spec.mirror:
            flip = counter.uniform(self.config.seed, "mirror", index) < 0.5
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
        images = fade_reals(images, self.alpha)
        held_out = None if held_out is None else held_out.to(self.device, non_blocking=True)
        labels, others = labels.to(self.dtype), others.to(self.dtype)
        # The images of a pair have the same label, as in R3GAN.
        fake_labels = labels if LOSSES[self.config.loss].paired and not self.config.info else others
        return GanBatch(images, labels, fake_labels, index, held_out, others)

    @torch.no_grad()
    def reconstructions(self) -> Iterator[tuple[Tensor, Tensor]]:  # [N, C, H, W] each
        """The images that the encoder has not learned from, and their reconstructions by the moving averages."""
        assert self.E_ema is not None
        E, G = self.E_ema.network, cast(Generator, self.ema.network)
        for part in self.held_out.split(self.batch_gpu):
            images = self.dataset.images(part).to(self.device, self.dtype) / 127.5 - 1
            yield images, G.synthesis(G.mapping(E(images)[:, 0, : G.config.z_dim]))

    def after_step(self, shown: int) -> None:
        self.objective.p.update(self.batch)
        for network in (self.G, self.D):
            iterate_power(network)
        self.objective.advance(shown + self.batch)
        self.ema.update(self.G, shown, self.batch)
        if self.E is not None and self.E_ema is not None:
            self.E_ema.update(self.E, shown, self.batch)

    def prepare_snapshot(self) -> None:
        """Measure the statistics of the moving average's own features, which are not those of the trained weights. The
        next update of the average replaces them. Each rank generates its share of what is normalized together."""
        G, config = cast(Generator, self.ema.network), self.config
        ranks, rank = distributed.world_size(), distributed.rank()
        images = self.batch_gpu * ranks  # of a pass
        index = torch.arange(images * max(math.ceil(STANDING / images), PASSES))
        iterate_power(G)
        labels = counter.integers(config.seed, "standing.label", index, len(self.dataset))

        def run(part: Tensor) -> None:
            z = counter.normal(config.seed, "standing.z", part, (config.generator.z_dim,))
            c = self.dataset.labels(labels[part]) if config.data.c_dim else None
            if config.info:
                c = sample_labels(self.G.label_space, config.seed, "standing.info", part)
            c = c if c is None else c.to(self.device, self.dtype)
            G(z.to(self.device, self.dtype), c, dtype=self.objective.half)

        passes = [functools.partial(run, part) for part in index.view(-1, ranks, self.batch_gpu)[:, rank]]
        measure_standing_statistics(G, passes, len(index), distributed.sum_over_ranks)

    def apply_settings(self, rollbacks: int) -> None:
        self.rollbacks = rollbacks
        self.set_optimizers()
        if self.config.aug != "ada" and not (self.config.schedule and self.config.schedule.aug_p is not None):
            self.objective.p.p.fill_(self.config.aug_p)

    def set_optimizers(self) -> None:
        """Set what a schedule or a rollback changes."""
        for optimizer in {phase.optimizer for phase in self.phases if isinstance(phase.optimizer, FusedAdam)}:
            group, defaults = optimizer.param_groups[0], optimizer.defaults
            beta1, beta2 = defaults["betas"]
            if self.beta2 is not None:  # corrected for lazy regularization as the first value was
                beta2 = self.beta2 ** (math.log(beta2) / math.log(self.config.betas[1]))
            group |= {"betas": (beta1, beta2), "eps": defaults["eps"]}
            group["lr"] = defaults["lr"] * self.lr_scale * 0.5**self.rollbacks

    def halve_batch_gpu(self) -> None:
        """Reduce `batch_gpu` to its next smaller divisor that keeps groups together. Results stay the same as long as
        that is a multiple of pl_batch_shrink."""
        n, group = self.batch_gpu, self.config.discriminator.batch_group
        group = n if self.config.generator.uses_batch or group is None else min(group, n)
        fewer = next((k for k in range(n // 2, 0, -1) if n % k == 0 and k % group == 0), None)
        if fewer is None:
            raise self._out_of_memory()
        self.config = self.objective.config = dataclasses.replace(self.config, batch_gpu=fewer)
        self.batch_gpu = fewer

    def discard_batch(self) -> None:
        super().discard_batch()
        self.objective.discard_batch()

    def close(self) -> None:
        self.loader.close()

    def _out_of_memory(self) -> SganError:
        """What to say if it is not possible to compute fewer images at a time."""
        config, n = self.config, self.batch_gpu
        what, option = "one image at a time on one rank.", ""
        if n > 1 and config.generator.uses_batch:
            what = f"{n} images at a time on one rank, and batch normalization sees them together."
            option = "--batch-gpu, "
        elif n > 1:
            what = f"{n} images at a time on one rank, the fewest that minibatch-deviation groups of {n} allow."
            option = "--mbstd-group, "
        half = config.generator.half_type
        helps = half != "tf32" and config.precision not in ("fp16", "bf16")
        hint = f"Choose a smaller {option}--size or --cbase{f', or --precision {half}' if helps else ''}."
        return SganError(f"Out of memory with {what}", hint=hint)

    def _make_objective(self) -> Objective | ChainObjective:
        """The objective, and the encoder if it trains one."""
        config = self.config
        guides = load_guides(config.guides, config.loss, self.device, self.dtype)
        parts = (config, self.G, self.D, self.means, guides)
        make = objective_class(config)
        if make is None:
            return ChainObjective(*parts) if config.generator.is_chain else Objective(*parts)
        E = PyramidEncoder(z_encoder_config(config.generator, config.discriminator, 1 + make.predicts_variance))
        self.E = to_memory_format(E).to(self.device, dtype=self.dtype).requires_grad_(False)
        self.E_ema = EMA(self.E, config.ema_kimg * 1000, config.ema_rampup)
        return make(*parts, E=self.E)

    def _make_phases(self) -> list[Phase]:
        config, objective = self.config, self.objective
        if isinstance(objective, ChainObjective):
            stages = [(one, make_gan_phases(config, one.stage, one.D, one, self.graphs)) for one in objective.stages]
            return [phase for one, phases in stages for phase in one.phases(phases)]
        phases = make_gan_phases(config, self.G, self.D, objective, self.graphs)
        if isinstance(objective, EncodingObjective):
            # Not with G's phase, though its pass may have the same gradient: E follows what the step has made of both.
            optimizer = _adam(list(objective.E.parameters()), config, config.lr, None, self.graphs)
            phases.append(Phase("E", objective.E, optimizer, objective.encoder_main))
        return phases

    def _load_start(self, start: Snapshot) -> list[str]:
        """Load matching weights. Return the names of tensors that the snapshot does not have."""
        state = rename_layers(start.G.state_dict(), start.G.layers, self.G.layers)
        new = [f"G.{name}" for name in load_matching_tensors(self.G, state)]
        if start.D is None:
            return [*new, "D"]
        return new + [f"D.{name}" for name in load_matching_tensors(self.D, start.D.state_dict())]


def make_engine(
    config: TrainConfig,  # of the whole run
    dataset: Dataset,
    device: torch.device | str = "cpu",
    start: Snapshot | None = None,  # initial weights, where they match; None: random
    dtype: torch.dtype = torch.float32,  # of the weights; float64 for tests
    graphs: bool = False,  # run phases as CUDA graphs
) -> Engine[Gan]:
    """Build the engine of a run, with growing if the config says so."""
    growth = Growth(config) if config.growth else None
    hooks: dict[str, Hook] = {"growth": growth} if growth else {}
    if config.schedule is not None:
        hooks["schedule"] = CosineSchedule(config)
    if config.blur_sigma > 0:
        hooks["blur"] = BlurSchedule(config.blur_sigma, config.blur_kimg)
    recipe = Gan(growth.stage.config if growth else config, dataset, device, start, dtype, graphs)
    return Engine(recipe, hooks)


def make_gan_phases(
    config: TrainConfig,
    G: nn.Module,
    D: Discriminator,
    objective: Objective,
    graphs: bool = False,
) -> list[Phase]:
    g_interval = config.pl_interval if config.pl_weight > 0 else None
    weights = {"R1": config.gamma, "R2": config.r2_gamma, "GP": config.gp_weight}
    penalties = [name for name, weight in weights.items() if weight > 0]
    d_interval = config.r1_interval if penalties and config.r1_interval > 1 else None
    g, steps = _adam(list(G.parameters()), config, config.lr, g_interval, graphs), config.d_steps
    d_lr = config.lr if config.d_lr is None else config.d_lr
    d = _adam(_unfrozen(D, config.freezed), config, d_lr, d_interval, graphs)
    phases = [Phase("G", G, g, objective.generator_main, steps, 1.0, objective.end_main)]
    if g_interval:
        path, end = objective.generator_path_length, objective.end_generator_path_length
        begin = objective.begin_generator_path_length
        phases.append(Phase("G path length", G, g, path, g_interval * steps, float(g_interval), end, begin))
    every_step = bool(penalties) and d_interval is None
    d_loss = objective.discriminator_with_penalties if every_step else objective.discriminator_main
    phases.append(Phase("D", D, d, d_loss, end=objective.end_main))
    if d_interval:
        phases.append(Phase(f"D {' '.join(penalties)}", D, d, objective.discriminator_penalties, d_interval))
    return phases


def _adam(
    parameters: list[nn.Parameter],
    config: TrainConfig,
    lr: float,
    interval: int | None,  # steps between regularizations; None: no regularization
    capturable: bool = False,  # for CUDA graphs
) -> FusedAdam:
    return lazy_adam(parameters, interval, lr, config.betas, capturable, eps=config.eps)


def open_run_data(
    config: TrainConfig,
    progress: Progress = silent,
) -> Dataset:
    """Open the dataset of a run. Raises SganError if it is missing or has changed since the run was started."""
    path = config.data.path
    return config.data.open(
        changed_message=f"The images or labels in {path} have changed since this run was started.",
        hint=f"Add --data {path} to continue with them, or start a new run: sgan train --resume SNAPSHOT --data {path}",
        progress=progress,
    )


def train(
    config: TrainConfig,
    folder: Path | None,  # of the run; resumed if it contains a state. None: a new one
    device: str,  # 'cpu' or 'cuda'; each rank uses its own GPU
    start: Path | None = None,  # snapshot with the initial weights
    options: RunOptions | None = None,  # None: the defaults
    dataset: Dataset | None = None,  # of the run; None: opened here
) -> Path:  # the folder
    """Train until kimg is reached or the user interrupts. Called on every rank; the first rank writes."""
    options = options or RunOptions()
    torch_device, folder = prepare_rank(device, folder, options.runs, folder_name(config))

    def build(resuming: bool) -> Engine[Gan]:
        weights = load_snapshot(start) if start and not resuming else None
        graphs = options.graphs and torch_device.type == "cuda"
        return make_engine(config, dataset or open_run_data(config), torch_device, weights, graphs=graphs)

    with tensor_cores(config.precision != "fp32", products=config.precision == "tf32"):
        run_training(config, folder, torch_device, build, GanReport, options)
    return folder


def _unfrozen(D: Discriminator, freezed: int) -> list[nn.Parameter]:
    """Return the parameters to train with Freeze-D (Mo et al. 2020): the layers nearest to the image are frozen."""
    check_freezed(D, freezed)
    frozen = tuple(f"{name}." for name in D.layers[:freezed])
    return [p for name, p in D.named_parameters() if not name.startswith(frozen)]
