from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from fastdino.errors import UserError
from fastdino.video import WRITABLE, check_writable, open_video, write_video


def frames(count: int, size: tuple[int, int] = (48, 32)) -> Iterator[Image.Image]:
    """A grey level a frame: what comes out tells which frame it was."""
    for number in range(count):
        yield Image.new("RGB", size, (16 * number % 256,) * 3)


def written(path: Path, count: int = 10, rate: Fraction = Fraction(25), size: tuple[int, int] = (48, 32)) -> Path:
    with write_video(path, rate) as add:
        for frame in frames(count, size):
            add(frame)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi"])
def test_what_is_written_can_be_read(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"movie{suffix}", rate=Fraction(30000, 1001))
    with open_video(path) as video:
        # Matroska keeps time in milliseconds.
        assert float(video.rate) == pytest.approx(30000 / 1001, rel=1e-3)
        assert video.count == 10
        levels = [np.asarray(frame).mean() for frame in video]
    # Lossy, and 8 bits of luma in 16 .. 235: the next frame is 16 levels away.
    assert np.abs(np.array(levels) - 16 * np.arange(10)).max() < 4


def test_colours_survive(tmp_path: Path) -> None:
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (220, 220, 220)]
    for size in ((64, 64), (64, 720)):
        path = tmp_path / f"{size[1]}.mp4"
        with write_video(path, Fraction(5)) as add:
            for colour in colours:
                add(Image.new("RGB", size, colour))
        with open_video(path) as video:
            seen = [np.asarray(frame).mean(axis=(0, 1)) for frame in video]
        # The wrong matrix (BT.601 for BT.709) would move them by 15 and more.
        assert np.abs(np.array(seen) - colours).max() < 8


def test_odd_sides_are_made_even_and_nothing_is_cut(tmp_path: Path) -> None:
    with open_video(written(tmp_path / "odd.mp4", 3, size=(33, 17))) as video:
        assert {frame.size for frame in video} == {(34, 18)}


def test_an_animation_for_pages(tmp_path: Path) -> None:
    with Image.open(written(tmp_path / "movie.webp", 4, Fraction(10))) as animation:
        assert (getattr(animation, "n_frames", 1), animation.size, animation.info["loop"]) == (4, (48, 32), 0)


def test_telephones_turn_their_pictures(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    picture = np.zeros((32, 64, 3), dtype=np.uint8)
    picture[:, :32] = 255
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=5)
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write a rotation")
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.set_display_rotation(-90)
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with open_video(path) as video:
        shown = np.asarray(next(iter(video)))
    assert shown.shape == (64, 32, 3)
    # Clockwise by a quarter: what was left is above.
    assert shown[:32].mean() > 240 and shown[32:].mean() < 15


def test_frames_do_not_pile_up(tmp_path: Path) -> None:
    """Of a video with many frames, those that nobody holds are gone."""
    path = written(tmp_path / "long.mp4", 60)
    alive: list[weakref.ref[Image.Image]] = []
    most = 0
    with open_video(path) as video:
        for frame in video:
            alive = [one for one in alive if one() is not None]
            alive.append(weakref.ref(frame))
            most = max(most, len(alive))
    assert most <= 2


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_what_is_no_video_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as a video") as caught, open_video(path):
        pass
    assert "\n" not in str(caught.value)


def test_a_damaged_video_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    with write_video(path, Fraction(25)) as add:
        for number in range(30):
            add(Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 48, 3), dtype=np.uint8)))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.mp4 is damaged after \d+ frames"), open_video(path) as video:
        list(video)


def test_a_cut_video_is_one_sentence(tmp_path: Path) -> None:
    """What says where the frames are stands at the end of a .mov."""
    whole = written(tmp_path / "whole.mov", 30)
    cut = tmp_path / "cut.mov"
    cut.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cut\.mov cannot be read"), open_video(cut):
        pass


def test_sound_alone_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), dtype=np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(UserError, match="sound but no picture"), open_video(path):
        pass


def test_a_video_appears_when_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write_video(tmp_path / "movie.mp4", Fraction(5)) as add:
        add(Image.new("RGB", (16, 16)))
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="at least one frame"), write_video(tmp_path / "movie.mp4", Fraction(5)):
        pass
    with pytest.raises(ValueError, match=r"\(16, 18\)"), write_video(tmp_path / "movie.mp4", Fraction(5)) as add:
        add(Image.new("RGB", (16, 16)))
        add(Image.new("RGB", (16, 18)))
    assert list(tmp_path.iterdir()) == []


def test_other_endings_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=", ".join(WRITABLE)):
        check_writable(tmp_path / "movie.gif")


def test_without_pyav_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for attempt in (lambda: check_writable(tmp_path / "a.mp4"), lambda: open_video(tmp_path / "a.mp4").__enter__()):
        with pytest.raises(UserError, match=r"pip install 'fastdino\[video\]'"):
            attempt()
