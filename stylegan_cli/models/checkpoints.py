"""Maps between our names of weights and those of other programs, as far as families share them.

A family's own maps stand in models/<family>/checkpoints.py; interop/ reads and writes the files. TensorFlow's dense
weights are [in, out], those of its convolutions [k, k, in, out].
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from .config import StyledConfig

Change = Callable[[Tensor], Tensor]  # from their form to ours
Names = dict[str, tuple[str, Change | None]]  # our name -> theirs, and how it becomes ours


def mapping_names(config: StyledConfig, bias: Change | None = None) -> Names:
    names: Names = {"mapping.w_avg": ("dlatent_avg", None)}
    if config.labels == "concat":  # as many ones as classes, without the scale that ours divides by
        names["mapping.embed.weight"] = ("mapping/LabelConcat/weight", lambda w: w.t() * math.sqrt(len(w)))
    elif config.c_dim:
        names |= dense("mapping.embed", "mapping/LabelEmbed")
    for i in range(config.mapping_layers):
        names |= dense(f"mapping.fc{i}", f"mapping/Dense{i}", bias)
    return names


def dense(our: str, their: str, bias: Change | None = None) -> Names:
    return {f"{our}.weight": (f"{their}/weight", transposed), f"{our}.bias": (f"{their}/bias", bias)}


def convolution(our: str, their: str, bias: Change | None = None) -> Names:
    return {f"{our}.weight": (f"{their}/weight", kernel_of), f"{our}.bias": (f"{their}/bias", bias)}


def noise_map(noise: Tensor) -> Tensor:  # [1, 1, h, w] -> [h, w]
    return noise[0, 0]


def kernel_of(w: Tensor) -> Tensor:  # [k, k, in, out] -> [out, in, k, k]
    return w.permute(3, 2, 0, 1)


def flipped(w: Tensor) -> Tensor:  # [k, k, in, out] -> [out, in, k, k]
    """Where they upsample they correlate, and ours convolves."""
    return kernel_of(w.flip([0, 1]))


def transposed(w: Tensor) -> Tensor:  # [in, out] -> [out, in]
    return w.permute(1, 0)


def only(x: Tensor) -> Tensor:  # [1, ...] -> [...]
    return x.squeeze(0)
