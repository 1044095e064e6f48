"""Videos keep frames, sizes, durations, looping and metadata."""

import sys
import weakref

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from stylegan_cli.data import video
from stylegan_cli.data.images import image_grid, read_metadata
from stylegan_cli.data.video import check_video, frame_grids, write_video
from stylegan_cli.errors import SganError

METADATA = {"seeds": "1, 2", "command": 'sgan interpolate --seeds "1,2"', "note": "ä ☃\n" + "long " * 200}


def moving_gradient(count, channels=3, size=(24, 32)):
    """A smooth color gradient that moves from frame to frame: uint8 [N, C, H, W]."""
    y, x = np.mgrid[: size[0], : size[1]]
    frames = [
        [128 + 100 * np.sin((y + x * (c + 1)) / 30 + i / 4 + 2 * c) for c in range(min(channels, 3))]
        for i in range(count)
    ]
    frames = torch.from_numpy(np.array(frames).astype(np.uint8))
    if channels < 4:
        return frames
    alpha = torch.full_like(frames[:, :1], 255)
    alpha[..., :8] = 0
    return torch.cat([frames, alpha], 1)


def read(path):
    """Return the frames [N, H, W, C], their durations, and the loop count (0: forever, None: once)."""
    with Image.open(path) as image:
        loop, mode = image.info.get("loop"), "RGBA" if image.format == "WEBP" else "RGB"
        frames = [(np.asarray(f.convert(mode)), f.info["duration"]) for f in ImageSequence.Iterator(image)]
    return np.stack([f for f, _ in frames]), [d for _, d in frames], loop


def write(path, frames, **options):
    write_video(iter(frames), len(frames), path, **{"fps": 30, **options})
    return path


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_frames_round_trip(tmp_path, suffix, channels):
    frames = moving_gradient(7, channels)
    read_back = read(write(tmp_path / f"a.{suffix}", frames))[0]
    assert read_back.shape[:3] == (7, 24, 32)
    pixels = frames.permute(0, 2, 3, 1).numpy().astype(int)
    if channels == 4:
        composited = pixels[..., :3].copy()
        composited[:, :, :8] = 255
        pixels = composited
        if suffix == "webp":
            assert (read_back[:, :, :6, 3] == 0).all() and (read_back[:, :, 10:, 3] == 255).all()
            read_back, pixels = read_back[:, :, 10:], pixels[:, :, 10:]
    error = np.abs(read_back[..., :3].astype(int) - pixels)
    assert error.mean() < 2 and error.max() <= (0 if (suffix, channels) == ("gif", 1) else 24)


@pytest.mark.parametrize(("suffix", "unit"), [("gif", 10), ("webp", 1)])
@pytest.mark.parametrize("fps", [1, 7, 24, 30, 50])
def test_start_times_do_not_drift(tmp_path, suffix, unit, fps):
    durations = read(write(tmp_path / f"a.{suffix}", moving_gradient(31, size=(8, 8)), fps=fps))[1]
    starts = np.cumsum([0, *durations])
    assert np.abs(starts - 1000 * np.arange(32) / fps).max() <= unit / 2


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_loop_flag(tmp_path, suffix):
    assert read(write(tmp_path / f"a.{suffix}", moving_gradient(3)))[2] == 0
    assert read(write(tmp_path / f"b.{suffix}", moving_gradient(3), loop=False))[2] == {"gif": None, "webp": 1}[suffix]


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_metadata(tmp_path, suffix):
    assert read_metadata(write(tmp_path / f"a.{suffix}", moving_gradient(3), metadata=METADATA)) == METADATA
    assert read_metadata(write(tmp_path / f"b.{suffix}", moving_gradient(3))) == {}


@pytest.mark.parametrize("suffix", ["gif", "webp"])
@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_frames(tmp_path, suffix, count):
    with Image.open(write(tmp_path / f"a.{suffix}", moving_gradient(count))) as image:
        assert getattr(image, "n_frames", 1) == count


def test_identical_frames_keep_their_total_duration(tmp_path):
    """Pillow merges identical frames, so only their total duration matters."""
    frames = torch.cat([moving_gradient(1).expand(3, -1, -1, -1), moving_gradient(2)])
    read_back, durations, _ = read(write(tmp_path / "a.gif", frames))
    assert len(read_back) == 2 and durations == [130, 40]


def test_identical_frames_beyond_the_gif_limit_are_rejected(tmp_path):
    with pytest.raises(SganError, match="identical for more than 655 seconds"):
        write(tmp_path / "a.gif", moving_gradient(1).expand(700, -1, -1, -1), fps=1)
    assert not list(tmp_path.iterdir())


def test_few_colors_are_kept_exactly(tmp_path):
    """Flat areas stay flat: there is no dithering."""
    frames = torch.zeros(2, 3, 200, 150, dtype=torch.uint8)
    frames[:, 0, 40:90], frames[1, 1, :, 70:] = 201, 99
    read_back = read(write(tmp_path / "a.gif", frames))[0]
    assert np.array_equal(read_back, frames.permute(0, 2, 3, 1))


def test_gif_frames_are_consumed_one_at_a_time(tmp_path, monkeypatch):
    """No full-color frame is kept longer than it takes to quantize it."""
    frames, max_alive, to_pillow = [], 0, video._to_pillow

    def count_alive(*args):
        nonlocal max_alive
        frame = to_pillow(*args)
        frames.append(weakref.ref(frame))
        max_alive = max(max_alive, sum(ref() is not None for ref in frames))
        return frame

    monkeypatch.setattr(video, "_to_pillow", count_alive)
    write(tmp_path / "a.gif", moving_gradient(20))
    assert len(frames) == 20 and max_alive <= 3


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_output_is_reproducible(tmp_path, suffix):
    a, b = (write(tmp_path / f"{name}.{suffix}", moving_gradient(5), metadata=METADATA) for name in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_failed_writing_keeps_the_existing_file(tmp_path):
    def broken():
        yield from moving_gradient(3)
        raise KeyboardInterrupt

    for suffix in ("gif", "webp"):
        write(tmp_path / f"a.{suffix}", moving_gradient(2))
        before = (tmp_path / f"a.{suffix}").read_bytes()
        with pytest.raises(KeyboardInterrupt):
            write_video(broken(), 9, tmp_path / f"a.{suffix}", fps=30)
        assert (tmp_path / f"a.{suffix}").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gif", "a.webp"]


@pytest.mark.parametrize(
    ("name", "fps", "message"),
    [("a.avi", 30, "avi"), ("a", 30, "'' is not"), ("a.gif", 60, "60 frames"), ("a.png", 30, "png")],
)
def test_unsupported_formats_and_rates_are_rejected(tmp_path, name, fps, message):
    with pytest.raises(SganError, match=message) as e:
        write(tmp_path / name, moving_gradient(2), fps=fps)
    assert e.value.hint and not list(tmp_path.iterdir())


def test_too_large_frame_is_rejected(tmp_path):
    with pytest.raises(SganError, match="too large for webp"):
        write(tmp_path / "a.webp", moving_gradient(2, size=(2, 16384)))
    assert not list(tmp_path.iterdir())


def test_frame_grids():
    images = moving_gradient(12, size=(24, 48))
    frames = list(frame_grids(iter(images), 6, 3))
    assert [f.shape for f in frames] == [(3, 2 * 144, 3 * 288)] * 2, "enlarged by 6, to at least 128"
    assert torch.equal(frames[1], image_grid(images[6:], 3, scale=6))
    assert next(frame_grids(iter(moving_gradient(1, size=(128, 200))), 1, 1)).shape == (3, 128, 200)


def test_mp4_needs_av(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError) as e:
        check_video(tmp_path / "a.mp4", 30)
    assert e.value.name == "av"


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_mp4(tmp_path, monkeypatch, encoder, channels):
    """Frames, colors, even sizes, frame rate and metadata, with either encoder."""
    av = pytest.importorskip("av")
    if encoder not in av.codecs_available:
        pytest.skip(f"no {encoder}")
    monkeypatch.setattr(video, "_ENCODERS", {encoder: video._ENCODERS[encoder]})
    frames = moving_gradient(20, channels, (41, 63))
    path = write(tmp_path / "a.mp4", frames, fps=24, metadata=METADATA)
    with av.open(str(path)) as opened:
        stream = opened.streams.video[0]
        assert stream.average_rate == 24 and stream.frames == 20 and opened.metadata["comment"].startswith('{"seeds"')
        assert stream.codec_context.name == {"libx264": "h264", "mpeg4": "mpeg4"}[encoder]
        assert stream.codec_context.pix_fmt == "yuv420p" and float(stream.duration * stream.time_base) == 20 / 24
        read_back = np.stack([f.reformat(format="rgb24").to_ndarray() for f in opened.decode(video=0)])
    assert read_back.shape == (20, 42, 64, 3)
    pixels = frames.permute(0, 2, 3, 1).numpy().astype(int)[..., :3]
    error = read_back[:, :41, 10:63].astype(int) - pixels[:, :, 10:]
    assert np.abs(error).mean() < 6 and np.abs(error.mean((0, 1, 2))).max() < 2
    if channels == 4:
        assert read_back[:, :, :6].mean() > 245, "alpha is composited onto white"


def test_mp4_is_reproducible(tmp_path, monkeypatch):
    """With an encoder that is deterministic: on some processors libx264 is not."""
    av = pytest.importorskip("av")
    if "mpeg4" not in av.codecs_available:
        pytest.skip("no mpeg4")
    monkeypatch.setattr(video, "_ENCODERS", {"mpeg4": video._ENCODERS["mpeg4"]})
    a, b = (write(tmp_path / f"{name}.mp4", moving_gradient(5), metadata=METADATA) for name in "ab")
    assert a.read_bytes() == b.read_bytes()
