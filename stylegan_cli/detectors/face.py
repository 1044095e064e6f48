"""dlib's residual network for faces (King 2017; after He et al. 2016): a vector of 128 numbers, close for one person.

The weights come from face-api: a file of 8-bit numbers, and a manifest with the name, the shape, the scale and the
smallest value of each tensor.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import SganError

SIZE = 150  # pixels
_MEAN = (122.782, 117.001, 104.298)  # of red, green and blue, in the images that it was trained on
# Name of each residual block -> channels, and whether it halves
_BLOCKS = {
    **{f"conv32_{i}": (32, False) for i in (1, 2, 3)},
    "conv64_down": (64, True),
    **{f"conv64_{i}": (64, False) for i in (1, 2, 3)},
    "conv128_down": (128, True),
    **{f"conv128_{i}": (128, False) for i in (1, 2)},
    "conv256_down": (256, True),
    **{f"conv256_{i}": (256, False) for i in (1, 2)},
    "conv256_down_out": (256, True),
}
_MAX_MANIFEST = 1 << 20  # bytes
_HINT = "Use face_recognition_model.bin of the package @vladmandic/face-api, with its manifest beside it."


class FaceNetwork(nn.Module):
    """Maps aligned faces to vectors."""

    def __init__(self):
        super().__init__()
        self.conv32_down = nn.Conv2d(3, 32, 7, 2)
        channels = 32
        for name, (width, halves) in _BLOCKS.items():
            self.add_module(name, _Block(channels, width, halves))
            channels = width
        self.fc = nn.Linear(channels, 128, bias=False)

    def forward(
        self,
        images: Tensor,  # [N, 3, 150, 150] in [-1, 1]
    ) -> Tensor:  # [N, 128]
        mean = torch.tensor(_MEAN, device=images.device)[:, None, None]
        x = F.max_pool2d(self.conv32_down(((images + 1) * 127.5 - mean) / 255).relu(), 3, 2)
        for name in _BLOCKS:
            x = getattr(self, name)(x)
        return self.fc(x.mean((2, 3)))


class _Block(nn.Module):
    """Two convolutions and a shortcut. One that halves pads them at the end to the size of the averaged shortcut, and
    the shortcut with empty channels."""

    def __init__(self, before: int, after: int, halves: bool):
        super().__init__()
        self.halves = halves
        self.conv1 = nn.Conv2d(before, after, 3, 2, 0) if halves else nn.Conv2d(before, after, 3, 1, 1)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:  # [N, before, H, W] -> [N, after, H, W], or half of it
        y = self.conv2(self.conv1(x).relu())
        if self.halves:
            x = F.avg_pool2d(x, 2)
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        return (x + y).relu()


def manifest_of(
    path: Path,
) -> Path:
    """The manifest beside a file of weights."""
    return path.with_name(f"{path.stem}-weights_manifest.json")


def load_face_network(
    path: Path,
    manifest: Path,
) -> FaceNetwork:
    """Load the network in float32 and eval mode. Raises SganError if the files do not exist, do not belong together, or
    are damaged."""
    for file in (path, manifest):
        if not file.is_file():
            raise SganError(f"{file} does not exist.", hint=_HINT)
    network = FaceNetwork()
    shapes = _shapes(network)
    try:
        state = _fold(_dequantize(path, _entries(manifest, shapes), shapes), network)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as e:
        reason = str(e).strip().split("\n")[0] or type(e).__name__
        raise SganError(f"{path} is not a face network that can be read with {manifest.name}: {reason}.", _HINT) from e
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _shapes(network: FaceNetwork) -> dict[str, tuple[int, ...]]:  # name in the manifest -> shape
    shapes = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            path, (height, width) = name.replace(".", "/"), module.kernel_size
            shapes[f"{path}/conv/filters"] = (height, width, module.in_channels, module.out_channels)
            parts = ("conv/bias", "scale/weights", "scale/biases")
            shapes |= {f"{path}/{part}": (module.out_channels,) for part in parts}
    return shapes | {"fc": tuple(network.fc.weight.shape[::-1])}


def _entries(manifest: Path, shapes: dict[str, tuple[int, ...]]) -> list[tuple[str, Any]]:  # name, quantization
    """The tensors of the manifest, in the order of the file. Raises ValueError if they are not those of the network."""
    if manifest.stat().st_size > _MAX_MANIFEST:
        raise ValueError("the manifest is too large")
    entries = [entry for group in json.loads(manifest.read_bytes()) for entry in group["weights"]]
    found = {entry["name"]: tuple(entry["shape"]) for entry in entries}
    if found != shapes or len(entries) != len(shapes):
        raise ValueError("the tensors of the manifest are not those of the network")
    return [(entry["name"], entry.get("quantization")) for entry in entries]


def _dequantize(path: Path, entries: list[tuple[str, Any]], shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Read the tensors in double precision. Raises ValueError if the size of the file is wrong."""
    sizes = [math.prod(shapes[name]) * (1 if quantization else 4) for name, quantization in entries]
    if path.stat().st_size != sum(sizes):
        raise ValueError(f"it has {path.stat().st_size} bytes instead of {sum(sizes)}")
    data, tensors = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8), {}
    for (name, quantization), part in zip(entries, data.split(sizes), strict=True):
        if quantization:
            values = part.double() * float(quantization["scale"]) + float(quantization["min"])
        else:
            values = part.clone().view(torch.float32).double()
        tensors[name] = values.reshape(shapes[name])
    return tensors


def _fold(tensors: dict[str, Tensor], network: FaceNetwork) -> dict[str, Tensor]:  # for `load_state_dict`
    """Fold the scale after each convolution into it. Raises ValueError if a weight is not finite."""
    state = {"fc.weight": tensors["fc"].T}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            path = name.replace(".", "/")
            scale, shift = tensors[f"{path}/scale/weights"], tensors[f"{path}/scale/biases"]
            state[f"{name}.weight"] = (tensors[f"{path}/conv/filters"] * scale).permute(3, 2, 0, 1)
            state[f"{name}.bias"] = tensors[f"{path}/conv/bias"] * scale + shift
    if broken := [name for name, tensor in state.items() if not tensor.float().isfinite().all()]:
        raise ValueError(f"{broken[0]} is not finite")
    return state
