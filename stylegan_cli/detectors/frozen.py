"""Networks that are only looked through: batch norms folded into convolutions, in float32 whatever training has set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import SganError
from ..layers import laid_out

N = TypeVar("N", bound=nn.Module)

_NORM = ("weight", "bias", "running_mean", "running_var")
_EPS = 1e-3  # of the batch norms of both Inception and EfficientNet


class FoldedConv(nn.Conv2d):
    """One convolution, or several of one input side by side, each with the batch norm after it folded in.

    In a file of weights a convolution X is `X.conv.weight` and `X.bn.{weight,bias,running_mean,running_var}`.
    """

    def __init__(
        self,
        cin: int,
        cout: int | dict[str, int],  # channels, or name -> channels of each part
        kernel: int | tuple[int, int],  # (height, width)
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
    ):
        self.parts = cout if isinstance(cout, dict) else {}
        channels = sum(cout.values()) if isinstance(cout, dict) else cout
        super().__init__(cin, channels, kernel, stride, padding, groups=groups)

    def part_names(
        self,
        name: str,  # of this module in its network
    ) -> dict[str, int]:  # name of each part in the file -> channels
        parent = name.rpartition(".")[0]
        return {f"{parent}.{part}".lstrip("."): n for part, n in self.parts.items()} or {name: self.out_channels}


def fill(
    network: nn.Module,  # on the device 'meta'
    tensors: dict[str, Tensor],  # by the names of the network's own modules; what is not asked for is left out
    path: Path,  # where they come from: for the sentence
) -> nn.Module:
    """Give a network its weights: float32, eval mode, no gradients. Raises SganError if they are another network's."""
    wanted = wanted_shapes(network)
    wrong = [name for name, shape in wanted.items() if name not in tensors or tuple(tensors[name].shape) != shape]
    if wrong:
        found = f"is {list(tensors[wrong[0]].shape)}" if wrong[0] in tensors else "is missing"
        raise SganError(
            f"{path} holds other weights than {type(network).__name__}'s: {wrong[0]} {found}, must be "
            f"{list(wanted[wrong[0]])} ({len(wrong)} of {len(wanted)} tensors do not fit)."
        )
    if broken := [name for name in wanted if not torch.isfinite(tensors[name]).all()]:
        raise SganError(f"{path} holds numbers that are not finite, in {broken[0]} for one.")
    state = {}
    for name, module in network.named_modules():
        if isinstance(module, FoldedConv):
            parts = [_fold(tensors, part) for part in module.part_names(name)]
            state[f"{name}.weight"], state[f"{name}.bias"] = (torch.cat(values) for values in zip(*parts))
    state |= {name: tensors[name] for name in network.state_dict() if name not in state}
    network.load_state_dict({name: t.float().contiguous() for name, t in state.items()}, assign=True)
    return network.eval().requires_grad_(False)


def wanted_shapes(
    network: nn.Module,
) -> dict[str, tuple[int, ...]]:  # name in a file of weights -> shape
    """What a file must hold for this network."""
    state = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    for name, module in network.named_modules():
        if isinstance(module, FoldedConv):
            *_, cin, height, width = state.pop(f"{name}.weight")
            state.pop(f"{name}.bias")
            for part, channels in module.part_names(name).items():
                state[f"{part}.conv.weight"] = (channels, cin, height, width)
                state |= {f"{part}.bn.{field}": (channels,) for field in _NORM}
    return state


def _fold(tensors: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:  # [O, I, kh, kw], [O]
    """y = (conv(x) - mean) / sqrt(var + eps) * weight + bias, as a convolution with a bias."""
    weight, bias, mean, var = (tensors[f"{name}.bn.{field}"].double() for field in _NORM)
    scale = weight * (var + _EPS).rsqrt()
    return tensors[f"{name}.conv.weight"].double() * scale[:, None, None, None], bias - mean * scale


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Plain float32, also inside a training in TF32 or under autocast: the third digit of a distance depends on it."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


@dataclass(frozen=True, eq=False)
class Detector:
    """A network that makes features of images."""

    name: str  # of DETECTORS
    fingerprint: str  # first 8 hexadecimal digits of the SHA-256 of its file of weights
    known: bool  # published figures are measured with this file; if not, its fingerprint belongs into a metric's name
    network: nn.Module  # uint8 images -> dictionary of features

    def __call__(
        self,
        images: Tensor,  # [N, 3, H, W] uint8, of any height and width, on the detector's device
    ) -> dict[str, Tensor]:
        """Features by name, each [N, D] float32, of each image by itself.

        inception-2015: pool [N, 2048], logits [N, 1008] without the bias; vgg16: fc2 [N, 4096];
        efficientnet-lite0: pool [N, 1280].
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            got = f"{list(images.shape)} {str(images.dtype).removeprefix('torch.')}"
            raise SganError(f"The detector {self.name} looks at images of [N, 3, H, W] uint8, not {got}.")
        with full_precision(), torch.no_grad():
            return self.network(images)


def to_device(
    network: N,
    device: torch.device | str,
) -> N:
    """On a CPU with the channels last, in which convolutions are half as fast again."""
    on_cpu = torch.device(device).type == "cpu"
    return laid_out(network.to(device), torch.channels_last if on_cpu else torch.contiguous_format)
