"""The tables of ablations in the papers: their configurations, the published figures, and our settings for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from _training import GROWING, LOGISTIC, SMALL

from stylegan_cli.training.choices import OBJECTIVES


@dataclass(frozen=True)
class Configuration:
    """A line of a table."""

    name: str
    published: tuple[str, ...] = ()  # as printed, by the table's columns
    cfg: str = ""  # name of a preset
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""  # how it differs from the published one

    @property
    def run_settings(self) -> dict[str, Any]:
        """What is in the row of its run. Lines of two tables with the same settings have the same run."""
        return {"cfg": self.cfg, **self.settings}


@dataclass(frozen=True)
class Ablation:
    """A table of a paper."""

    title: str
    columns: tuple[str, ...]  # of the published figures
    configurations: tuple[Configuration, ...]
    metrics: tuple[str, ...] = ()  # that are measured beside the distances


def _stylegan() -> Ablation:
    styles = {"mixing_prob": 0.0, "r1_interval": 1}
    plain = styles | {"generator.noise": False}
    tuned = {"loss": "logistic", "gamma": 30.0, "r1_interval": 1, "lr": 0.006, "generator.fir": (1.0, 3.0, 3.0, 1.0)}
    return Ablation(
        "StyleGAN (Karras et al. 2019, table 1)",
        ("FID, CelebA-HQ", "FID, FFHQ"),
        (
            Configuration("A: ProGAN", ("7.79", "8.04"), "progan", SMALL | GROWING | {"lr": 0.002}),
            Configuration(
                "B: + tuning, bilinear sampling",
                ("6.11", "5.25"),
                "progan",
                SMALL | GROWING | tuned | {"discriminator.blur": (1.0, 2.0, 1.0)},
                "logistic loss with R1, as for FFHQ; three times the learning rate of A",
            ),
            Configuration(
                "C: + mapping and styles",
                ("5.34", "4.85"),
                "demo-stylegan",
                plain | {"generator.input": "latent"},
                "from here on two mapping layers instead of eight",
            ),
            Configuration("D: - traditional input", ("5.07", "4.88"), "demo-stylegan", plain),
            Configuration("E: + noise", ("5.06", "4.42"), "demo-stylegan", styles),
            Configuration(
                "F: + mixing regularization", ("5.17", "4.40"), "demo-stylegan", styles | {"mixing_prob": 0.9}
            ),
        ),
    )


def _stylegan2() -> Ablation:
    every_step = {"mixing_prob": 0.9, "r1_interval": 1}
    plain = LOGISTIC | {"mixing_prob": 0.9, "generator.architecture": "orig", "discriminator.architecture": "orig"}
    new = LOGISTIC | {"mixing_prob": 0.9, "pl_weight": 2.0}
    no_growing = "without growing, which our StyleGAN2 does not have"
    return Ablation(
        "StyleGAN2 (Karras et al. 2020, table 1)",
        ("FID, FFHQ", "path length, FFHQ", "FID, car", "path length, car"),
        (
            Configuration("A: StyleGAN", ("4.40", "212.1", "3.27", "1484.5"), "demo-stylegan", every_step),
            Configuration(
                "A without growing", (), "demo-stylegan", every_step | {"grow_from": 32}, "ours, to compare with B"
            ),
            Configuration(
                "B: + weight demodulation",
                ("4.39", "175.4", "3.04", "862.4"),
                "demo-stylegan2",
                plain | {"r1_interval": 1},
                no_growing,
            ),
            Configuration(
                "C: + lazy regularization",
                ("4.38", "158.0", "2.83", "981.6"),
                "demo-stylegan2",
                plain,
                "without growing",
            ),
            Configuration(
                "D: + path length regularization",
                ("4.34", "122.5", "3.43", "651.2"),
                "demo-stylegan2",
                plain | {"pl_weight": 2.0},
                "without growing",
            ),
            Configuration(
                "E: + new architectures, no growing", ("3.31", "124.5", "3.19", "471.2"), "demo-stylegan2", new
            ),
            Configuration(
                "F: + large networks",
                ("2.84", "145.0", "2.32", "415.5"),
                "demo-stylegan2",
                new | {"channel_base": 1024},
            ),
        ),
        ("ppl",),
    )


def _architectures() -> Ablation:
    published = {  # generator, discriminator
        ("orig", "orig"): ("4.32", "265", "3.75", "905"),
        ("orig", "skip"): ("4.18", "235", "3.23", "758"),
        ("orig", "resnet"): ("3.58", "269", "3.25", "802"),
        ("skip", "orig"): ("4.33", "169", "3.77", "544"),
        ("skip", "skip"): ("3.77", "127", "3.86", "316"),
        ("skip", "resnet"): ("3.31", "125", "3.19", "471"),
        ("resnet", "orig"): ("4.35", "203", "3.93", "981"),
        ("resnet", "skip"): ("3.96", "229", "3.96", "667"),
        ("resnet", "resnet"): ("3.79", "243", "2.66", "645"),
    }
    return Ablation(
        "Architectures of StyleGAN2 (Karras et al. 2020, table 2)",
        ("FID, FFHQ", "path length, FFHQ", "FID, car", "path length, car"),
        tuple(
            Configuration(
                f"G {g}, D {d}",
                figures,
                "demo-stylegan2",
                LOGISTIC
                | {
                    "mixing_prob": 0.9,
                    "pl_weight": 2.0,
                    "generator.architecture": g,
                    "discriminator.architecture": d,
                },
            )
            for (g, d), figures in published.items()
        ),
        ("ppl",),
    )


def _stylegan3() -> Ablation:
    octaves = {"generator.octaves": True, "generator.num_layers": 7}
    still, critical = {"generator.moves": False}, {"generator.critical": 7}
    coarse = octaves | still | critical | {"generator.lrelu_upsampling": 1}
    wide = {"generator.channel_base": 2048, "generator.channel_max": 128}
    baseline = LOGISTIC | {"mixing_prob": 0.9, "pl_weight": 2.0}
    waves = baseline | {"generator.input": "fourier"}
    return Ablation(
        "StyleGAN3 (Karras et al. 2021, figure 3, left)",
        ("FID, FFHQ-U", "EQ-T", "EQ-R"),
        (
            Configuration(
                "A: StyleGAN2", ("5.14", "-", "-"), "demo-stylegan2", baseline, "two mapping layers in all lines"
            ),
            Configuration("B: + Fourier features", ("4.79", "16.23", "10.81"), "demo-stylegan2", waves),
            Configuration(
                "C: - noise", ("4.54", "15.81", "10.84"), "demo-stylegan2", waves | {"generator.noise": False}
            ),
            Configuration(
                "D: simplified generator",
                ("5.21", "19.47", "10.41"),
                "demo-stylegan3",
                coarse | {"generator.margin": 0, "generator.filter_size": 2},
                "from here on the channels and gamma of `demo-stylegan3`; upsampling filters have four taps, as the "
                "bilinear ones, but those of a Kaiser window",
            ),
            Configuration(
                "E: + boundaries, upsampling",
                ("6.02", "24.62", "10.97"),
                "demo-stylegan3",
                coarse,
                "from here on a margin of 5 pixels instead of 10",
            ),
            Configuration(
                "F: + filtered nonlinearities",
                ("6.35", "30.60", "10.81"),
                "demo-stylegan3",
                octaves | still | critical,
            ),
            Configuration("G: + non-critical sampling", ("4.78", "43.90", "10.84"), "demo-stylegan3", octaves | still),
            Configuration("H: + transformed Fourier features", ("4.64", "45.20", "10.61"), "demo-stylegan3", octaves),
            Configuration(
                "T: + flexible layers", ("4.62", "63.01", "13.12"), "demo-stylegan3", note="8 layers instead of 14"
            ),
            Configuration(
                "R: + rotation",
                ("4.50", "66.65", "40.48"),
                "demo-stylegan3",
                wide | {"generator.kernel": 1, "generator.radial": True},
                "as T, and without the blur of D's images",
            ),
        ),
        ("eqt", "eqr"),
    )


def _objectives() -> Ablation:
    penalties = {
        "no penalty": {"gamma": 0.0, "r2_gamma": 0.0},
        "R1": {"gamma": 30.0, "r2_gamma": 0.0},
        "R1 and R2": {"gamma": 15.0, "r2_gamma": 15.0},
    }
    published = {  # of 1,000 modes
        "logistic, R1": ("Fail",),
        "logistic, R1 and R2": ("693",),
        "relativistic, R1": ("Fail",),
        "relativistic, R1 and R2": ("1000",),
    }
    rows = [
        Configuration(
            f"{loss}, {penalty}",
            published.get(f"{loss}, {penalty}", ()),
            "demo-stylegan2",
            LOGISTIC | {"loss": loss, **weights},
            "half the weight for each penalty" if weights["r2_gamma"] else "",
        )
        for loss in OBJECTIVES
        if loss != "wgan"
        for penalty, weights in penalties.items()
    ]
    small = {name: value for name, value in LOGISTIC.items() if name not in ("gamma", "r1_interval")}
    wgan = Configuration("wgan, gradient penalty", (), "demo-stylegan2", small | {"loss": "wgan"})
    title = "Objectives and penalties (Huang et al. 2024, table 1)"
    return Ablation(title, ("modes found of 1,000, stacked MNIST",), (*rows, wgan))


ABLATIONS: dict[str, Ablation] = {
    "stylegan": _stylegan(),
    "stylegan2": _stylegan2(),
    "architectures": _architectures(),
    "stylegan3": _stylegan3(),
    "objectives": _objectives(),
}
