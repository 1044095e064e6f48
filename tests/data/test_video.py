"""Videos are read back with what was written: frames, sizes, times, loop and note."""

import sys
import weakref

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from stylegan_cli.data import video
from stylegan_cli.data.images import image_grid, read_metadata
from stylegan_cli.data.video import check_video, sheets, write_video
from stylegan_cli.errors import SganError

METADATA = {"seeds": "1, 2", "command": 'sgan interpolate --seeds "1,2"', "note": "ä ☃\n" + "long " * 200}


def moving(count, channels=3, size=(24, 32)):
    """A soft ramp of colors that goes on from frame to frame: uint8 [N, C, H, W]."""
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
    """The frames [N, H, W, C], how long each is shown, and how often all (0: for ever, None: once)."""
    with Image.open(path) as image:
        loop, mode = image.info.get("loop"), "RGBA" if image.format == "WEBP" else "RGB"
        frames = [(np.asarray(f.convert(mode)), f.info["duration"]) for f in ImageSequence.Iterator(image)]
    return np.stack([f for f, _ in frames]), [d for _, d in frames], loop


def write(path, frames, **options):
    write_video(iter(frames), len(frames), path, **{"fps": 30, **options})
    return path


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_frames_come_back(tmp_path, ending, channels):
    frames = moving(7, channels)
    read_back = read(write(tmp_path / f"a.{ending}", frames))[0]
    assert read_back.shape[:3] == (7, 24, 32)
    pixels = frames.permute(0, 2, 3, 1).numpy().astype(int)
    if channels == 4:
        shown = pixels[..., :3].copy()
        shown[:, :, :8] = 255
        pixels = shown
        if ending == "webp":
            assert (read_back[:, :, :6, 3] == 0).all() and (read_back[:, :, 10:, 3] == 255).all()
            read_back, pixels = read_back[:, :, 10:], pixels[:, :, 10:]
    error = np.abs(read_back[..., :3].astype(int) - pixels)
    assert error.mean() < 2 and error.max() <= (0 if (ending, channels) == ("gif", 1) else 24)


@pytest.mark.parametrize(("ending", "unit"), [("gif", 10), ("webp", 1)])
@pytest.mark.parametrize("fps", [1, 7, 24, 30, 50])
def test_times_do_not_drift(tmp_path, ending, unit, fps):
    durations = read(write(tmp_path / f"a.{ending}", moving(31, size=(8, 8)), fps=fps))[1]
    begins = np.cumsum([0, *durations])
    assert np.abs(begins - 1000 * np.arange(32) / fps).max() <= unit / 2


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_loop_and_once(tmp_path, ending):
    assert read(write(tmp_path / f"a.{ending}", moving(3)))[2] == 0
    assert read(write(tmp_path / f"b.{ending}", moving(3), loop=False))[2] == {"gif": None, "webp": 1}[ending]


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_metadata(tmp_path, ending):
    assert read_metadata(write(tmp_path / f"a.{ending}", moving(3), metadata=METADATA)) == METADATA
    assert read_metadata(write(tmp_path / f"b.{ending}", moving(3))) == {}


@pytest.mark.parametrize("ending", ["gif", "webp"])
@pytest.mark.parametrize("count", [1, 2])
def test_few_frames(tmp_path, ending, count):
    with Image.open(write(tmp_path / f"a.{ending}", moving(count))) as image:
        assert getattr(image, "n_frames", 1) == count


def test_a_still_gif_lasts_as_long(tmp_path):
    """Pillow joins frames that are alike: the time they are shown for is what counts."""
    frames = torch.cat([moving(1).expand(3, -1, -1, -1), moving(2)])
    read_back, durations, _ = read(write(tmp_path / "a.gif", frames))
    assert len(read_back) == 2 and durations == [130, 40]


def test_a_still_that_no_gif_can_show(tmp_path):
    with pytest.raises(SganError, match="stand still for longer"):
        write(tmp_path / "a.gif", moving(1).expand(700, -1, -1, -1), fps=1)
    assert not list(tmp_path.iterdir())


def test_few_colors_are_kept_to_the_bit(tmp_path):
    """Flat drawings, and no pattern laid over them."""
    frames = torch.zeros(2, 3, 200, 150, dtype=torch.uint8)
    frames[:, 0, 40:90], frames[1, 1, :, 70:] = 201, 99
    read_back = read(write(tmp_path / "a.gif", frames))[0]
    assert np.array_equal(read_back, frames.permute(0, 2, 3, 1))


def test_frames_of_a_gif_are_taken_one_at_a_time(tmp_path, monkeypatch):
    """None is held in full color for longer than it takes to find its palette."""
    frames, most, to_pillow = [], 0, video._to_pillow

    def counted(*args):
        nonlocal most
        frame = to_pillow(*args)
        frames.append(weakref.ref(frame))
        most = max(most, sum(ref() is not None for ref in frames))
        return frame

    monkeypatch.setattr(video, "_to_pillow", counted)
    write(tmp_path / "a.gif", moving(20))
    assert len(frames) == 20 and most <= 3


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_the_same_bytes_again(tmp_path, ending):
    a, b = (write(tmp_path / f"{name}.{ending}", moving(5), metadata=METADATA) for name in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_whole_or_not_at_all(tmp_path):
    def broken():
        yield from moving(3)
        raise KeyboardInterrupt

    for ending in ("gif", "webp"):
        write(tmp_path / f"a.{ending}", moving(2))
        before = (tmp_path / f"a.{ending}").read_bytes()
        with pytest.raises(KeyboardInterrupt):
            write_video(broken(), 9, tmp_path / f"a.{ending}", fps=30)
        assert (tmp_path / f"a.{ending}").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gif", "a.webp"]


@pytest.mark.parametrize(
    ("name", "fps", "words"),
    [("a.avi", 30, "avi"), ("a", 30, "this"), ("a.gif", 60, "60 frames"), ("a.png", 30, "png")],
)
def test_refused(tmp_path, name, fps, words):
    with pytest.raises(SganError, match=words) as e:
        write(tmp_path / name, moving(2), fps=fps)
    assert e.value.hint and not list(tmp_path.iterdir())


def test_too_large_a_frame(tmp_path):
    with pytest.raises(SganError, match="too large for webp"):
        write(tmp_path / "a.webp", moving(2, size=(2, 16384)))
    assert not list(tmp_path.iterdir())


def test_sheets():
    images = moving(12, size=(24, 48))
    frames = list(sheets(iter(images), 6, 3))
    assert [f.shape for f in frames] == [(3, 2 * 144, 3 * 288)] * 2, "enlarged, by 6, to 128 or more"
    assert torch.equal(frames[1], image_grid(images[6:], 3, scale=6))
    assert next(sheets(iter(moving(1, size=(128, 200))), 1, 1)).shape == (3, 128, 200)


def test_mp4_needs_av(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError) as e:
        check_video(tmp_path / "a.mp4", 30)
    assert e.value.name == "av"


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_mp4(tmp_path, monkeypatch, encoder, channels):
    """Frames, colors, even sizes, rate and note, with either encoder."""
    av = pytest.importorskip("av")
    if encoder not in av.codecs_available:
        pytest.skip(f"no {encoder}")
    monkeypatch.setattr(video, "_ENCODERS", {encoder: video._ENCODERS[encoder]})
    frames = moving(20, channels, (41, 63))
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
        assert read_back[:, :, :6].mean() > 245, "alpha is laid on white"


def test_the_same_mp4_again(tmp_path, monkeypatch):
    """By an encoder that makes the same bytes of the same frames: on some processors libx264 now and then does not."""
    av = pytest.importorskip("av")
    if "mpeg4" not in av.codecs_available:
        pytest.skip("no mpeg4")
    monkeypatch.setattr(video, "_ENCODERS", {"mpeg4": video._ENCODERS["mpeg4"]})
    a, b = (write(tmp_path / f"{name}.mp4", moving(5), metadata=METADATA) for name in "ab")
    assert a.read_bytes() == b.read_bytes()
