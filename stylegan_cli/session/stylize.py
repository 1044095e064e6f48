"""Style transfer: images with the content of one and the style of another, without a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..data.codec import fit, to_array, to_channels
from ..data.images import to_uint8
from ..detectors import load_style_network
from ..detectors.style import MIN_SIDE
from ..errors import SganError, quote
from ..inversion.stylize import stylize
from ..inversion.targets import read_image
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.latent_files import target_names
from ..version import __version__
from .model import ImagesResult, OutputImage


@dataclass(frozen=True)
class StylizeRequest:
    """The images to stylize, and how."""

    images: Sequence[str | Path]  # files
    style: str | Path  # file of the image whose style they get
    weight: float = 30.0  # of the style, relative to the content
    size: int = 512  # pixels of the longer side of all images; smaller ones keep their size
    steps: int = 300  # of L-BFGS
    detector: str | None = None  # file with the weights of VGG16; None: see detectors.weights

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            images=checks.list_of(checks.path(), "['face.png']"),
            style=checks.path(),
            weight=checks.number(0),
            size=checks.integer(MIN_SIDE),
            steps=checks.integer(1),
            detector=checks.path(),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class StylizeResult(ImagesResult):
    """An image for each of N, fewer if interrupted."""

    interrupted: bool = False


def output_files(
    request: StylizeRequest,
    folder: str | Path,
) -> list[Path]:
    """The files that `StylizeResult.save` will write."""
    return [Path(folder, f"{name}-styled.png") for name in target_names(request.images)]


def stylize_images(
    request: StylizeRequest,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
    command: Sequence[str] = (),  # command line, for the metadata of images
) -> StylizeResult:
    """Give images the style of another. Ctrl-C keeps the images so far. Raises SganError if an image cannot be read or
    is too small, or the weights of VGG16 are not available."""
    style, *images = (_read(path, request.size) for path in (request.style, *request.images))
    network = load_style_network(device, request.detector)
    metadata = {"style": str(request.style), "weight": f"{request.weight:g}", "steps": str(request.steps)}
    metadata |= {"vgg16": network.fingerprint, "Software": f"stylegan_cli {__version__}"}
    metadata |= {"command": " ".join(map(quote, command))} if command else {}
    outputs, interrupted = [], False
    for name, path, image in zip(target_names(request.images), request.images, images, strict=True):
        how = {"weight": request.weight, "steps": request.steps, "progress": progress}
        try:
            found, interrupted = stylize(network, image.to(device), style.to(device), **how)
        except KeyboardInterrupt:
            if not outputs:
                raise
            interrupted = True
            break
        outputs.append(OutputImage(f"{name}-styled", to_uint8(found)[0].cpu(), {"content": str(path), **metadata}))
        if interrupted:
            break
    return StylizeResult(outputs=outputs, sheet=None, interrupted=interrupted)


def _read(path: str | Path, size: int) -> Tensor:  # [1, 3, H, W] in [-1, 1]
    """An image whose longer side has at most `size` pixels."""
    image: Image.Image = to_channels(read_image(path), 3)
    longer = max(image.size)
    height, width = (max(round(side * min(size / longer, 1)), 1) for side in (image.height, image.width))
    if min(height, width) < MIN_SIDE:
        reduced = "" if longer <= size else f" at --size {size}"
        needed = math.ceil(MIN_SIDE * longer / min(image.size))
        hint = f"Use --size {needed}." if min(image.size) >= MIN_SIDE else "Use a larger image."
        raise SganError(
            f"{path} has {height}x{width} pixels (height x width){reduced}, but style transfer needs {MIN_SIDE} on "
            "each side.",
            hint=hint,
        )
    return torch.from_numpy(to_array(fit(image, (height, width), "none", "lanczos")).copy())[None].float() / 127.5 - 1
