"""Weight names of other programs, as far as several families share them.

The names of one family are in models/<family>/checkpoints.py; interop/ reads and writes the files. In TensorFlow,
dense weights are [in, out], and convolution weights [k, k, in, out].
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from .config import StyledConfig

Conversion = Callable[[Tensor], Tensor]  # from the other program's layout
Names = dict[str, tuple[str, Conversion | None]]  # our name -> (the other program's name, conversion)


def mapping_names(config: StyledConfig, bias: Conversion | None = None) -> Names:
    names: Names = {"mapping.w_avg": ("dlatent_avg", None)}
    if config.labels == "concat":  # our layer divides by sqrt(classes), the other program's does not
        names["mapping.embed.weight"] = ("mapping/LabelConcat/weight", lambda w: w.t() * math.sqrt(len(w)))
    elif config.c_dim:
        names |= dense("mapping.embed", "mapping/LabelEmbed")
    for i in range(config.mapping_layers):
        names |= dense(f"mapping.fc{i}", f"mapping/Dense{i}", bias)
    return names


def dense(name: str, source: str, bias: Conversion | None = None) -> Names:
    return {f"{name}.weight": (f"{source}/weight", transpose), f"{name}.bias": (f"{source}/bias", bias)}


def convolution(name: str, source: str, bias: Conversion | None = None) -> Names:
    return {f"{name}.weight": (f"{source}/weight", permute_kernel), f"{name}.bias": (f"{source}/bias", bias)}


def squeeze_noise(noise: Tensor) -> Tensor:  # [1, 1, h, w] -> [h, w]
    return noise[0, 0]


def permute_kernel(w: Tensor) -> Tensor:  # [k, k, in, out] -> [out, in, k, k]
    return w.permute(3, 2, 0, 1)


def flip_kernel(w: Tensor) -> Tensor:  # [k, k, in, out] -> [out, in, k, k]
    """For upsampling layers, which correlate in TensorFlow and convolve here."""
    return permute_kernel(w.flip([0, 1]))


def transpose(w: Tensor) -> Tensor:  # [in, out] -> [out, in]
    return w.permute(1, 0)


def squeeze_first(x: Tensor) -> Tensor:  # [1, ...] -> [...]
    return x.squeeze(0)
