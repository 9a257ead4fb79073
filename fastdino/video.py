"""Videos as pictures, one after another: PyAV reads and writes them, a few frames at a time however long they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fastdino.errors import UserError
from fastdino.files import atomic_path

READABLE = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")


class _Format(NamedTuple):
    container: str
    encoder: str
    pixels: str
    encoding: dict[str, str]
    writing: dict[str, str]


_H264 = ("libx264", "yuv420p", {"crf": "20"})
_FORMATS = {
    # Its index first: browsers begin before they have all of it.
    ".mp4": _Format("mp4", *_H264, {"movflags": "faststart"}),
    ".mov": _Format("mov", *_H264, {}),
    ".mkv": _Format("matroska", *_H264, {}),
    ".webm": _Format("webm", "libvpx-vp9", "yuv420p", {"crf": "32", "b": "0"}, {}),
    ".avi": _Format("avi", "mpeg4", "yuv420p", {"qscale": "4"}, {}),
    # For pages that show pictures only.
    ".webp": _Format("webp", "libwebp_anim", "bgra", {"quality": "60"}, {"loop": "0"}),
}
WRITABLE = tuple(_FORMATS)


class Video:
    """A video that is open for reading; going through it gives its frames, RGB and upright, once.

    Attributes:
        rate: frames a second.
        count: how many frames there are by what the file says of itself, which may be wrong; None if it says nothing.
    """

    def __init__(self, path: Path, container: Any) -> None:
        self._path = path
        self._container = container
        self._stream = container.streams.video[0]
        # Every core decodes; the frames stay in order.
        self._stream.thread_type = "AUTO"
        rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        # Averages over a file have denominators that not every encoder takes; 1001 is television's.
        self.rate = max(rate.limit_denominator(1001), Fraction(1, 1001))
        seconds = Fraction(container.duration or 0, 1_000_000)
        self.count: int | None = self._stream.frames or round(seconds * self.rate) or None

    def __iter__(self) -> Iterator[Image.Image]:
        """Raises UserError at a damaged frame, and for a video without any."""
        number = 0
        frames = self._container.decode(self._stream)
        while True:
            try:
                frame = next(frames, None)
            except _pyav().FFmpegError as error:
                raise _unreadable(self._path, error, number) from error
            if frame is None:
                break
            number += 1
            yield _upright(frame)
        if not number:
            raise UserError(f"there is no frame in {self._path}: give another video")


@contextlib.contextmanager
def open_video(path: str | Path) -> Iterator[Video]:
    """Open a video file for reading. Raises UserError where it cannot be read, has no video, or PyAV is missing."""
    av, path = _pyav(), Path(path)
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise _unreadable(path, error) from error
    with container:
        if not container.streams.video:
            raise UserError(f"there is sound but no picture in {path}: give a video")
        yield Video(path, container)


@contextlib.contextmanager
def write_video(path: str | Path, rate: Fraction) -> Iterator[Callable[[Image.Image], None]]:
    """Yield a function that adds a frame to a video file, which appears when all is done and not if something fails.

    All frames are as large as the first. Encoders take even sides only: an odd picture's last row or column is
    doubled.

    Args:
        path: the file; its ending, one of WRITABLE, decides the format.
        rate: frames a second.

    Raises:
        UserError: the ending is another, or PyAV is missing.
        OSError: the file cannot be written.
        ValueError: there was no frame, or one of another size.
    """
    format = _format_of(path)
    av = _pyav()
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary), "w", format=format.container, options=format.writing) as container,
    ):
        encoder = _Encoder(av, container, format, rate)
        yield encoder.add
        encoder.finish()


def check_writable(path: str | Path) -> None:
    """Raise UserError if `write_video` would, before any work was done."""
    _format_of(path)
    _pyav()


class _Encoder:
    def __init__(self, av: Any, container: Any, format: _Format, rate: Fraction) -> None:
        self._av = av
        self._container = container
        self._format = format
        self._rate = rate
        self._size: tuple[int, int] | None = None
        self._stream: Any = None

    def add(self, picture: Image.Image) -> None:
        if self._size is None:
            self._size = picture.size
            self._stream = self._new_stream(*picture.size)
        if picture.size != self._size:
            raise ValueError(f"a frame of {picture.size} in a video of {self._size} pixels")
        frame = self._av.VideoFrame.from_ndarray(_even(np.asarray(picture.convert("RGB"))), format="rgb24")
        frame = frame.reformat(format=self._format.pixels, dst_colorspace=self._av.video.reformatter.Colorspace.ITU709)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        if self._stream is None:
            raise ValueError("a video needs at least one frame")
        self._container.mux(self._stream.encode())

    def _new_stream(self, width: int, height: int) -> Any:
        stream = self._container.add_stream(self._format.encoder, rate=self._rate, options=self._format.encoding)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = self._format.pixels
        # Untagged, players would guess the colours' encoding by the picture's height.
        stream.codec_context.colorspace = self._av.video.reformatter.Colorspace.ITU709
        return stream


def _format_of(path: str | Path) -> _Format:
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise UserError(f"{path} is no video that can be written: give a name ending in {', '.join(WRITABLE)}")
    return _FORMATS[suffix]


def _unreadable(path: Path, error: Any, frames: int = 0) -> UserError:
    if frames:
        return UserError(f"{path} is damaged after {frames} frames ({error.strerror}): repair it, or cut it there")
    return UserError(f"{path} cannot be read as a video ({error.strerror}): give another file")


def _upright(frame: Any) -> Image.Image:
    """As a player shows it: telephones store how they were held instead of turning the pixels."""
    picture: Image.Image = frame.to_image()
    turned = round(frame.rotation) % 360
    return picture.rotate(turned, expand=True) if turned else picture


def _even(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) with its last row or column doubled where their number is odd."""
    height, width, _ = pixels.shape
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise UserError("videos take PyAV: pip install 'fastdino[video]'") from error
    return av
