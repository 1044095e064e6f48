"""Write videos as GIF, animated WebP or MP4.

GIF: a palette for each frame, without dithering, whose pattern would change from frame to frame. WebP: lossy, as single
images are written. MP4: H.264, or MPEG-4 part 2 where the codecs at hand have no H.264 encoder. MP4 is written frame by
frame; Pillow, which writes the others, keeps the frames until the last one is there, of a GIF one byte a pixel.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import SganError
from ..files import atomic_path
from .codec import from_array, to_channels
from .images import exif_of, image_grid

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

_LONGEST = {"gif": 65535, "webp": 16383, "mp4": 16384}  # side of a frame that the format holds
_GIF_RATE = 50  # frames a second; of anything faster most viewers make ten
_SHORTER_SIDE = 128  # smaller images are enlarged
_PALETTE_FROM = 4096  # pixels that a frame's palette is chosen by
_ENCODERS = {  # in order of preference, with their settings: quality where they know it, else bits for each pixel
    "libx264": {"crf": "16", "preset": "slow"},
    "libopenh264": 0.4,
    "mpeg4": 0.8,
}
_BT709 = 1  # color matrix, primaries and curve of HDTV
_VIDEO_RANGE = 1  # black is 16, white 235


def check_video(
    path: str | os.PathLike,
    fps: int,
) -> str:  # 'gif', 'webp' or 'mp4'
    """The format that a name asks for. Raises SganError if there is none or it is not that fast, and
    ModuleNotFoundError if MP4 is asked for and PyAV is missing."""
    ending = Path(path).suffix.lower().lstrip(".")
    if ending not in _LONGEST:
        raise SganError(f"{path}: videos are not written as {ending or 'this'!r}.", hint="Choose .gif, .webp or .mp4.")
    if ending == "gif" and fps > _GIF_RATE:
        raise SganError(f"A GIF of {fps} frames a second is not played as fast.", hint=f"--fps {_GIF_RATE}, or .webp")
    if ending == "mp4":
        import av  # noqa: F401 (whether it is there)
    return ending


def write_video(
    frames: Iterable[Tensor],  # uint8 [C, H, W], C = 1, 3 or 4
    count: int,  # of frames
    path: str | os.PathLike,
    *,
    fps: int,  # frames a second
    loop: bool = True,  # play again and again; a GIF or WebP says so, of an MP4 the player decides
    metadata: Mapping[str, str] | None = None,  # kept in the file: GIF and MP4: comment; WebP: EXIF description
) -> None:
    """Write one video, whole or not at all. GIF and MP4 have no alpha: RGBA is laid on white.

    Raises what `check_video` does, and SganError if a frame is too large or the file cannot be written.
    """
    format = check_video(path, fps)
    frames = iter(frames)
    first = next(frames)
    if max(first.shape[1:]) > _LONGEST[format]:
        size = f"{first.shape[2]} x {first.shape[1]}"
        raise SganError(f"A frame of {size} pixels is too large for {format}.", hint="Take fewer cells: --grid.")
    images = (_to_pillow(frame, format) for frame in itertools.chain([first], frames))
    note = json.dumps(dict(metadata or {}))
    write = {"gif": _write_gif, "webp": _write_webp, "mp4": _write_mp4}[format]
    with atomic_path(path) as temporary:
        write(images, count, temporary, fps, loop, note)


def sheets(
    images: Iterable[Tensor],  # uint8 [C, h, w], frame by frame, in each frame cell by cell
    cells: int,
    columns: int,
) -> Iterator[Tensor]:  # uint8 [C, H, W]
    """The images of each frame side by side. Small ones are enlarged, with sharp pixels."""
    images = iter(images)
    while frame := list(itertools.islice(images, cells)):
        scale = max(1, -(-_SHORTER_SIDE // min(frame[0].shape[1:])))
        yield image_grid(torch.stack(frame), columns, scale=scale)


def _to_pillow(
    frame: Tensor,  # uint8 [C, H, W]
    format: str,
) -> Image.Image:
    image = from_array(frame.cpu().numpy())
    return image if format == "webp" or len(frame) == 1 else to_channels(image, 3)


def _durations(
    count: int,
    fps: int,
    unit: int,  # parts of a second that durations are counted in
) -> list[int]:
    """How long each frame is shown, so that every one begins at the time nearest to its own: none drifts."""
    begins = [(2 * i * unit + fps) // (2 * fps) for i in range(count + 1)]
    return [after - before for before, after in itertools.pairwise(begins)]


def _write_gif(images: Iterator[Image.Image], count: int, path: Path, fps: int, loop: bool, note: str) -> None:
    """Pillow joins frames that are alike into one that is shown for as long."""
    durations = [10 * hundredths for hundredths in _durations(count, fps, 100)]
    few = map(_few_colors, images)
    options = {"duration": durations, "loop": 0 if loop else None, "comment": note.encode()}
    try:
        next(few).save(path, "GIF", save_all=True, append_images=few, **options)
    except OverflowError as e:  # 16 bits of hundredths of a second
        hint = "Choose a higher --fps, or .webp or .mp4."
        raise SganError("The images stand still for longer than a GIF can say, 655 seconds.", hint=hint) from e


def _few_colors(
    image: Image.Image,  # mode L or RGB
) -> Image.Image:  # mode P
    """At most 256 colors: those that leave the smallest largest error, moved to the middle of what they stand for."""
    if image.mode == "L":
        return image.convert("P")
    pixels = np.asarray(image)
    step = math.ceil(math.sqrt(image.width * image.height / _PALETTE_FROM))
    sample = from_array(pixels[step // 2 :: step, step // 2 :: step].transpose(2, 0, 1))
    palette = sample.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def _write_webp(images: Iterator[Image.Image], count: int, path: Path, fps: int, loop: bool, note: str) -> None:
    next(images).save(
        path,
        "WEBP",
        save_all=True,
        append_images=images,
        duration=_durations(count, fps, 1000),
        loop=0 if loop else 1,
        quality=95,
        method=4,
        exif=exif_of(note),
    )


def _write_mp4(images: Iterator[Image.Image], count: int, path: Path, fps: int, loop: bool, note: str) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as video:
        video.metadata["comment"] = note
        first = next(images)
        stream = _mp4_stream(video, first.height + first.height % 2, first.width + first.width % 2, fps)
        for i, image in enumerate(itertools.chain([first], images)):
            pixels = np.asarray(image.convert("RGB"))
            pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), "edge")  # even sizes
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            frame.pts = i
            video.mux(stream.encode(frame))
        video.mux(stream.encode())


def _mp4_stream(video: OutputContainer, height: int, width: int, fps: int) -> VideoStream:
    """A stream of the first encoder that is there, with its colors named so that players do not guess."""
    import av

    encoder = next(name for name in _ENCODERS if name in av.codecs_available)
    settings = _ENCODERS[encoder]
    stream = video.add_stream(encoder, rate=fps, options=settings if isinstance(settings, dict) else {})
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    if not isinstance(settings, dict):
        stream.bit_rate = int(settings * width * height * fps)
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _VIDEO_RANGE
    return stream
