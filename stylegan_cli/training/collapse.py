"""Detection of mode collapse: images of different latents become similar."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FRACTION = 0.3  # of the distance of real images, below which the alarm warns
# By how many percent --mode-regularize covered more of 100 modes, where it did (benchmarks/measure_modes.py).
_MORE_MODES = {"saturating": 46, "hinge": 13, "lsgan": 58, "wgan": 11}
_GAMMA = "A higher --gamma helped a little on a set of 100 modes."
_SIDE = 32  # pixels: small enough to ignore differences in noise and fine texture


def mean_pairwise_distance(
    images: Tensor,  # [N, C, H, W] uint8
) -> float:
    """Mean over all pairs of the root mean square difference of the images, downscaled to 32 pixels; 0 to 255."""
    size = min(images.shape[2], _SIDE), min(images.shape[3], _SIDE)
    x = F.adaptive_avg_pool2d(images.float(), size).flatten(1)  # [N, C h w]
    n = len(x)
    return torch.pdist(x).mean().item() / x.shape[1] ** 0.5 if n > 1 else 0.0


def advice(
    loss: str,  # the objective of the run
    regularizable: bool,  # whether --mode-regularize would have an effect
) -> str:
    """What helped against collapse."""
    if regularizable and loss in _MORE_MODES:
        more = f"--mode-regularize covered {_MORE_MODES[loss]} % more of 100 modes with --loss {loss}"
        return f"In a test, {more}: try it in a new run."
    return "" if loss == "wgan" else _GAMMA


class CollapseAlarm:
    """Warns when the distance between fakes of fixed latents falls below a fraction of the reals', after it has been
    above: early in training all fakes are similar."""

    def __init__(
        self,
        reals: Tensor,  # [N, C, H, W] uint8
        advice: str = "",  # sentences that end the warning
    ):
        self.reals, self.advice = mean_pairwise_distance(reals), advice
        self.armed = False

    def check(
        self,
        fakes: Tensor,  # [N, C, H, W] uint8
    ) -> tuple[float, str | None]:
        """Return the distance of the fakes relative to that of the reals, and a warning or None."""
        ratio = mean_pairwise_distance(fakes) / max(self.reals, 1e-6)
        if ratio >= FRACTION:
            self.armed = True
        elif self.armed:
            return ratio, (
                f"WARNING: generated images differ only {100 * ratio:.0f} % as much as real images: "
                f"the generator may be collapsing. {self.advice}"
            ).rstrip()
        return ratio, None

    def state_dict(self) -> dict:
        return {"armed": self.armed}

    def load_state_dict(self, state: dict) -> None:
        self.armed = state["armed"]
