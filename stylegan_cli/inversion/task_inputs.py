"""What the encoder of a task sees of a user's images, which are not degraded by the task, but are so already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.codec import MAX_PIXELS, ImageError, fit
from ..data.images import to_uint8
from ..data.pairs import class_index, color_codes
from ..data.sources import Source
from ..errors import SganError
from ..sampling.degrade import (
    Inpaint,
    Mask,
    Pairs,
    Sketch,
    SuperResolution,
    Task,
    enlarge,
    reduce,
    visible,
    with_hole,
)
from ..sampling.regions import UNKNOWN_LEVEL
from .annotations import reduce_map
from .targets import Form, TargetReader, check_mask_shape, read_image, read_mask


@dataclass(frozen=True)
class TaskInputs:
    """N images of a user."""

    images: Tensor  # uint8 [N, 3, H, W], at the size of the model
    inputs: Tensor  # [N, inputs, H, W] what the encoder sees
    known: Tensor | None = None  # uint8 [N, C, H, W] pixels that are kept, where `given` is 1
    given: Tensor | None = None  # [N, 1, H, W] of 0 and 1
    small: Tensor | None = None  # [N, C, h, w] in [-1, 1]: the result has to look like it after reduction

    def keep_given(
        self,
        results: Tensor,  # uint8 [N, C, H, W]
    ) -> Tensor:  # uint8 [N, C, H, W]
        """Copy the given pixels into results."""
        if self.known is None or self.given is None:
            return results
        return torch.where(self.given.bool(), self.known, results)

    def difference(
        self,
        results: Tensor,  # uint8 [N, C, H, W]
    ) -> Tensor | None:  # [N]
        """The root mean square difference between the reduced results and the input, 1 from black to white; None: the
        task does not reduce."""
        if self.small is None:
            return None
        reduced = reduce(results.float() / 127.5 - 1, results.shape[2] // self.small.shape[2])
        return ((visible(reduced) - visible(self.small)) / 2).square().mean((1, 2, 3)).sqrt()


def read_inputs(
    task: Task,
    paths: Sequence[str | Path],
    info: Form,  # of the model
    crop: str = "center",
    pad: str = "black",
    mask: str | Path | None = None,  # for inpainting: white pixels are given
) -> TaskInputs:
    """Raises SganError if an image cannot be read, or does not fit the task."""
    return _inputs_of([read_image(path) for path in paths], task, paths, info, crop, pad, mask)


def read_source_inputs(
    task: Task,
    source: Source,
    names: Sequence[str],  # of images in the source
    options: tuple[Any, ...],  # as `read_inputs` from `info` on
) -> tuple[TaskInputs | None, dict[str, str]]:  # None without any; name -> why it is omitted
    """Read the images of a folder or zip that can be read and fit the task."""
    parts, problems = [], {}
    for name in names:
        try:
            parts.append(_inputs_of([source.image(name, MAX_PIXELS)], task, [name], *options))
        except (ImageError, SganError) as e:
            problems[name] = str(e)
    if not parts:
        return None, problems
    columns: dict[str, Any] = {field.name: [getattr(part, field.name) for part in parts] for field in fields(parts[0])}
    joined: dict[str, Any] = {name: None if x[0] is None else torch.cat(x) for name, x in columns.items()}
    return TaskInputs(**joined), problems


def _inputs_of(
    images: Sequence[Image.Image],
    task: Task,
    paths: Sequence[str | Path],  # for messages
    info: Form,
    crop: str,
    pad: str,
    mask: str | Path | None,
) -> TaskInputs:
    size = info.generator.height, info.generator.width
    shown = to_uint8(TargetReader(info, crop, pad, channels=3, enlarging="nearest").convert(images, paths))
    if isinstance(task, SuperResolution):
        reduced = size[0] // task.factor, size[1] // task.factor
        reader = TargetReader(info, crop, pad, size=reduced, filter="box", enlarging="bicubic")
        small = reader.convert(images, paths)
        return TaskInputs(shown, enlarge(small, size), small=small)
    if isinstance(task, Inpaint):
        given = _given_pixels(images, paths, info, crop, mask)
        known = TargetReader(info, crop, pad).convert(images, paths)
        return TaskInputs(shown, with_hole(known, given), to_uint8(known), given)
    if isinstance(task, Mask):
        maps = [_read_map(image, task, size, crop, pad, str(path)) for image, path in zip(images, paths, strict=True)]
        inputs = task.channels_of(torch.from_numpy(np.stack(maps)))
        return TaskInputs(to_uint8(task.shown(inputs)), inputs)
    channels = 1 if isinstance(task, Sketch) else task.channels if isinstance(task, Pairs) else None
    inputs = TargetReader(info, crop, pad, channels=channels, enlarging="bicubic").convert(images, paths)
    return TaskInputs(shown, inputs)


def _read_map(
    image: Image.Image, task: Mask, size: tuple[int, int], crop: str, pad: str, name: str
) -> np.ndarray:  # int64 [H, W]
    """A class map. The class of transparent pixels is unknown."""
    if image.mode != "RGBA" or image.getchannel("A").getextrema() == (255, 255):
        return class_index(color_codes(fit(image, size, crop, "nearest", pad)), task.classes, name).astype(np.int64)
    if not task.sparse:
        raise SganError(
            f"{name} has transparent pixels, but this encoder knows only complete class maps.",
            hint="Fit another one: sgan translate fit --task mask --segmenter FILE --sparse",
        )
    return np.where((maps := reduce_map(image, size, crop, task.classes, name)) < 0, UNKNOWN_LEVEL, maps)


def _given_pixels(
    images: Sequence[Image.Image],
    paths: Sequence[str | Path],
    info: Form,
    crop: str,
    mask: str | Path | None,
) -> Tensor:  # [N, 1, H, W] of 0 and 1
    """The pixels that are white in the mask, or opaque in the image. Padding is never given."""
    if mask is not None:
        check_mask_shape(mask, images, paths, info)
        given = read_mask(mask, info, crop)
        if given.all():
            raise SganError(f"The mask {mask} is entirely white: nothing is missing.", hint="Use black for the hole.")
        return given.expand(len(images), -1, -1, -1)
    config, rows = info.generator, []
    for image, path in zip(images, paths, strict=True):
        if image.mode != "RGBA" or config.channels == 4:
            hint = "Name an image of the hole, black on white: --mask FILE"
            why = ": the model's images may be transparent, too" if image.mode == "RGBA" else ""
            raise SganError(f"{path} does not say which of its pixels are missing{why}.", hint=hint)
        alpha = fit(image.getchannel("A"), (config.height, config.width), crop, "box")
        given = torch.from_numpy(np.asarray(alpha) == 255)
        if given.all() or not given.any():
            what = "no transparent pixel: nothing is missing" if given.all() else "no opaque pixel: nothing is given"
            raise SganError(f"{path} has {what}.")
        rows.append(given.float()[None])
    return torch.stack(rows)
