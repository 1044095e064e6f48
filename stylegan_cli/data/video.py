"""Write videos as GIF, animated WebP or MP4.

GIF: one palette per frame, without dithering, whose pattern would flicker. WebP: lossy, at the quality of single
images. MP4: H.264, or MPEG-4 part 2 if PyAV has no H.264 encoder. MP4 is written frame by frame; Pillow, which writes
the others, keeps all frames in memory, for GIF at one byte per pixel.
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

from ..errors import MisuseError, SganError
from ..files import atomic_path
from .codec import from_array, to_channels
from .images import exif_with_description, image_grid

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

_MAX_SIDE = {"gif": 65535, "webp": 16383, "mp4": 16384}  # pixels that the format supports
_MAX_GIF_FPS = 50  # most viewers play faster GIFs at 10 frames per second
_MIN_SIDE = 128  # images with a smaller side are enlarged
_PALETTE_PIXELS = 4096  # number of pixels that a frame's palette is computed from
_ENCODERS = {  # in order of preference, with options, or with bits per pixel if quality cannot be set
    "libx264": {"crf": "16", "preset": "slow"},
    "libopenh264": 0.4,
    "mpeg4": 0.8,
}
_BT709 = 1  # color matrix, primaries and transfer curve of HDTV
_VIDEO_RANGE = 1  # black is 16, white is 235


def check_video(
    path: str | os.PathLike,
    fps: int,
) -> str:  # 'gif', 'webp' or 'mp4'
    """Return the video format of a file name.

    Raises SganError if the format is unknown or does not support the frame rate, and ModuleNotFoundError if it is MP4
    and PyAV is not installed.
    """
    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in _MAX_SIDE:
        raise MisuseError(f"{path}: {suffix!r} is not a supported video format.", hint="Choose .gif, .webp or .mp4.")
    if suffix == "gif" and fps > _MAX_GIF_FPS:
        raise MisuseError(
            f"Viewers do not play a GIF at {fps} frames per second.", hint=f"Use --fps {_MAX_GIF_FPS} or a .webp file."
        )
    if suffix == "mp4":
        import av  # noqa: F401 (only to see whether it is installed)
    return suffix


def write_video(
    frames: Iterable[Tensor],  # uint8 [C, H, W], C = 1, 3 or 4
    count: int,  # number of frames
    path: str | os.PathLike,
    *,
    fps: int,  # frames per second
    loop: bool = True,  # whether a GIF or WebP repeats; for an MP4 the player decides
    metadata: Mapping[str, str] | None = None,  # saved as comment (GIF, MP4) or as EXIF description (WebP)
) -> None:
    """Write one video atomically. GIF and MP4 have no alpha: RGBA is composited onto white.

    Raises what `check_video` does, and SganError if a frame is too large or the file cannot be written.
    """
    format = check_video(path, fps)
    frames = iter(frames)
    first = next(frames)
    if max(first.shape[1:]) > _MAX_SIDE[format]:
        size = f"{first.shape[1]}x{first.shape[2]}"
        raise SganError(
            f"A frame of {size} pixels (height x width) is too large for {format}.", hint="Use a smaller --grid."
        )
    images = (_to_pillow(frame, format) for frame in itertools.chain([first], frames))
    comment = json.dumps(dict(metadata or {}))
    write = {"gif": _write_gif, "webp": _write_webp, "mp4": _write_mp4}[format]
    with atomic_path(path) as temporary:
        write(images, count, temporary, fps, loop, comment)


def frame_grids(
    images: Iterable[Tensor],  # uint8 [C, h, w], frame by frame, and cell by cell within a frame
    cells: int,  # number of images per frame
    columns: int,
) -> Iterator[Tensor]:  # uint8 [C, H, W]
    """Arrange the images of each frame in a grid. Small images are enlarged without interpolation."""
    images = iter(images)
    while frame := list(itertools.islice(images, cells)):
        scale = max(1, -(-_MIN_SIDE // min(frame[0].shape[1:])))
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
    unit: int,  # units per second
) -> list[int]:
    """Return the duration of each frame in units, rounded so that start times do not drift."""
    starts = [(2 * i * unit + fps) // (2 * fps) for i in range(count + 1)]
    return [after - before for before, after in itertools.pairwise(starts)]


def _write_gif(images: Iterator[Image.Image], count: int, path: Path, fps: int, loop: bool, comment: str) -> None:
    """Write a GIF. Pillow merges identical frames and adds up their durations."""
    durations = [10 * hundredths for hundredths in _durations(count, fps, 100)]
    frames = map(_quantize, images)
    options = {"duration": durations, "loop": 0 if loop else None, "comment": comment.encode()}
    try:
        next(frames).save(path, "GIF", save_all=True, append_images=frames, **options)
    except OverflowError as e:  # durations are hundredths of a second in 16 bits
        hint = "Use a higher --fps, or a .webp or .mp4 file."
        raise SganError("The frames are identical for more than 655 seconds, the limit of GIF.", hint=hint) from e


def _quantize(
    image: Image.Image,  # mode L or RGB
) -> Image.Image:  # mode P
    """Reduce to at most 256 colors: those that minimize the largest error, refined by one step of k-means."""
    if image.mode == "L":
        return image.convert("P")
    pixels = np.asarray(image)
    step = math.ceil(math.sqrt(image.width * image.height / _PALETTE_PIXELS))
    sample = from_array(pixels[step // 2 :: step, step // 2 :: step].transpose(2, 0, 1))
    palette = sample.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def _write_webp(images: Iterator[Image.Image], count: int, path: Path, fps: int, loop: bool, comment: str) -> None:
    next(images).save(
        path,
        "WEBP",
        save_all=True,
        append_images=images,
        duration=_durations(count, fps, 1000),
        loop=0 if loop else 1,
        quality=95,
        method=4,
        exif=exif_with_description(comment),
    )


def _write_mp4(images: Iterator[Image.Image], count: int, path: Path, fps: int, loop: bool, comment: str) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as video:
        video.metadata["comment"] = comment
        first = next(images)
        stream = _mp4_stream(video, first.height + first.height % 2, first.width + first.width % 2, fps)
        for i, image in enumerate(itertools.chain([first], images)):
            pixels = np.asarray(image.convert("RGB"))
            pixels = np.pad(
                pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), "edge"
            )  # yuv420p needs even sizes
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            frame.pts = i
            video.mux(stream.encode(frame))
        video.mux(stream.encode())


def _mp4_stream(video: OutputContainer, height: int, width: int, fps: int) -> VideoStream:
    """Add a stream with the first available encoder, with color tags so that players do not guess."""
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
