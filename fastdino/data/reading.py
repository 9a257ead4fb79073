"""From bytes to an RGB picture, or to one short reason why not."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

# What pictures come in. Pillow goes by a file's content, and would start Ghostscript for one that is PostScript.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF")
_WIDE_GREY_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


class UnreadableImage(Exception):
    """A picture that cannot be used; the message is a short reason without the picture's name."""


def read_image(source: Path | str | bytes) -> Image.Image:
    """Decode a picture (a path, or the bytes of a file) to mode RGB, 8 bits a channel.

    Grey becomes RGB; alpha, also that of a palette, is composited over white; CMYK and YCCK are converted by
    Pillow's formula. 16-bit, 32-bit and float greyscale is stretched from the picture's own minimum and
    maximum to 0 .. 255: 12-bit data in a 16-bit file would be black otherwise. Of an animation or a stack,
    the first frame. EXIF orientation is ignored, as in the original (Pillow itself turns TIFF files).
    Whatever the source, a truncated file is an error.

    Raises UnreadableImage for everything that cannot be decoded, and for a path that cannot be read.
    """
    if not isinstance(source, bytes):
        source = _read_bytes(Path(source))
    if not source:
        raise UnreadableImage("the file is empty")
    try:
        with _no_warnings(), open_picture(source) as image:
            image.load()
            return _to_rgb(image)
    except UnidentifiedImageError:
        raise UnreadableImage("not a picture in a format that Pillow reads") from None
    # A damaged file can make Pillow's parsers raise anything (struct.error, KeyError, SyntaxError, ...), and
    # none of it may end a training run.
    except Exception as error:
        raise UnreadableImage(_one_line(error)) from error


def open_picture(data: bytes) -> Image.Image:
    """What Pillow makes of a picture's header. Raises UnidentifiedImageError for any but FORMATS; others for damage."""
    return Image.open(BytesIO(data), formats=_readable_formats())


@functools.cache
def _readable_formats() -> list[str]:
    Image.init()
    # AVIF is young, and Pillow falls over names that it does not know.
    return [name for name in FORMATS if name in Image.OPEN]


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(reason_of(error)) from error


def reason_of(error: OSError) -> str:
    """What the system said, without the path that str(error) includes."""
    return error.strerror or _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _WIDE_GREY_MODES:
        return _stretch(np.asarray(image)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _stretch(grey: np.ndarray) -> Image.Image:
    values = grey.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise UnreadableImage("no finite pixel value")
    low, high = values[finite].min(), values[finite].max()
    # A constant picture has no range to stretch; it becomes black.
    scale = 255 / (high - low) if high > low else 0.0
    stretched = np.where(finite, values - low, 0.0) * scale
    return Image.fromarray(np.rint(stretched).astype(np.uint8))


class _Silence:
    """Suppressed warnings, shared by the threads that are reading.

    `warnings.catch_warnings` swaps process-wide state, so overlapping uses would restore each other's
    filters: only the first thread in and the last one out may touch it.
    """

    lock = threading.Lock()
    readers = 0
    filters: warnings.catch_warnings[None] | None = None


@contextmanager
def _no_warnings() -> Iterator[None]:
    with _Silence.lock:
        if _Silence.readers == 0:
            _Silence.filters = warnings.catch_warnings()
            _Silence.filters.__enter__()
            warnings.simplefilter("ignore")
        _Silence.readers += 1
    try:
        yield
    finally:
        with _Silence.lock:
            _Silence.readers -= 1
            if _Silence.readers == 0 and _Silence.filters is not None:
                _Silence.filters.__exit__(None, None, None)
