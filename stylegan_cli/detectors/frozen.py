"""Frozen networks: batch norms folded into convolutions, in float32 regardless of the training's precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import SganError
from ..layers import to_memory_format

N = TypeVar("N", bound=nn.Module)

_HINT = "Check the file passed with --detector, or found in the folder SGAN_DETECTORS."
_NORM = ("weight", "bias", "running_mean", "running_var")
_EPS = 1e-3  # of the batch norms in both Inception and EfficientNet


class FoldedConv(nn.Conv2d):
    """A convolution, or several parallel ones with a common input, with the batch norm after each folded in.

    In a file of weights, a convolution X is `X.conv.weight` and `X.bn.{weight,bias,running_mean,running_var}`.
    """

    def __init__(
        self,
        cin: int,
        cout: int | dict[str, int],  # output channels, or name -> channels of each parallel part
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
        name: str,  # name of this module in its network
    ) -> dict[str, int]:  # name of each part in the file -> channels
        parent = name.rpartition(".")[0]
        return {f"{parent}.{part}".lstrip("."): n for part, n in self.parts.items()} or {name: self.out_channels}


def load_weights(
    network: nn.Module,  # on the device 'meta'
    tensors: dict[str, Tensor],  # by module name; others are ignored
    path: Path,  # their file, for messages
    hint: str = _HINT,
) -> nn.Module:
    """Load weights in float32, eval mode, without gradients. Raises SganError if they belong to another network."""
    expected = expected_shapes(network)
    mismatched = [
        name for name, shape in expected.items() if name not in tensors or tuple(tensors[name].shape) != shape
    ]
    if mismatched:
        name = mismatched[0]
        actual = f"has shape {list(tensors[name].shape)}" if name in tensors else "is missing"
        raise SganError(
            f"{path} does not have the weights of {type(network).__name__}: {name} {actual}, expected "
            f"{list(expected[name])} ({len(mismatched)} of {len(expected)} tensors do not match).",
            hint=hint,
        )
    if broken := [name for name in expected if not torch.isfinite(tensors[name]).all()]:
        raise SganError(f"{path} has weights that are not finite, for example in {broken[0]}.", hint=hint)
    state = {}
    for name, module in network.named_modules():
        if isinstance(module, FoldedConv):
            parts = [_fold(tensors, part) for part in module.part_names(name)]
            state[f"{name}.weight"], state[f"{name}.bias"] = (torch.cat(values) for values in zip(*parts))
    state |= {name: tensors[name] for name in network.state_dict() if name not in state}
    network.load_state_dict({name: t.float().contiguous() for name, t in state.items()}, assign=True)
    return network.eval().requires_grad_(False)


def expected_shapes(
    network: nn.Module,
) -> dict[str, tuple[int, ...]]:  # name in a file of weights -> shape
    """Names and shapes of the tensors that a file of this network's weights must have."""
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
    """Express y = (conv(x) - mean) / sqrt(var + eps) * weight + bias as one convolution: weight and bias."""
    weight, bias, mean, var = (tensors[f"{name}.bn.{field}"].double() for field in _NORM)
    scale = weight * (var + _EPS).rsqrt()
    return tensors[f"{name}.conv.weight"].double() * scale[:, None, None, None], bias - mean * scale


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Disable TF32 and autocast, which would change the third digit of a distance."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


@dataclass(frozen=True, eq=False)
class Detector:
    """A network that extracts features of images."""

    name: str  # key of DETECTORS
    fingerprint: str  # first 8 hexadecimal digits of the SHA-256 of its file of weights
    is_standard: bool  # whether published results use these weights; if not, names of metrics include the fingerprint
    network: nn.Module  # uint8 images -> dictionary of features

    def __call__(
        self,
        images: Tensor,  # [N, 3, H, W] uint8, of any size, on the detector's device
    ) -> dict[str, Tensor]:
        """Extract features by name, each [N, D] float32. Features of an image do not depend on the others.

        inception-2015: pool [N, 2048], logits [N, 1008] without the bias; vgg16: fc2 [N, 4096];
        efficientnet-lite0: pool [N, 1280].
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            actual = f"{list(images.shape)} {str(images.dtype).removeprefix('torch.')}"
            raise SganError(f"The detector {self.name} takes images [N, 3, H, W] in uint8, not {actual}.")
        with full_precision(), torch.no_grad():
            return self.network(images)


def to_device(
    network: N,
    device: torch.device | str,
) -> N:
    """Move a network; on a CPU to channels_last, which makes convolutions 1.5 times as fast."""
    is_cpu = torch.device(device).type == "cpu"
    return to_memory_format(network.to(device), torch.channels_last if is_cpu else torch.contiguous_format)
