"""One picture's file rewritten so that training reads it faster."""

from __future__ import annotations

from io import BytesIO
from typing import Literal, NamedTuple

from PIL import Image

from fastdino import native
from fastdino.data.reading import UnreadableImage
from fastdino.prepare.judging import seen_in_training

_QUALITY = 90
_LONGEST_JPEG_SIDE = 65_500  # libjpeg's limit, in pixels


class Rewritten(NamedTuple):
    """A file's new content, and what it came from: itself, a progressive JPEG, or a larger picture."""

    data: bytes
    how: Literal["kept", "transcoded", "shrunk"]


def rewrite(data: bytes, short_side: int | None) -> Rewritten:
    """What to store for a picture: nothing changes but progressive JPEGs, which become baseline with every pixel kept.

    With `short_side`, pictures whose shorter side has more pixels are shrunk to it: as training sees them (RGB, EXIF
    rotation ignored), bicubic with antialiasing, stored as JPEG. Raises UnreadableImage for what training would skip.
    """
    picture = seen_in_training(data)
    if short_side is not None and min(picture.size) > short_side:
        width, height = (max(1, round(side * short_side / min(picture.size))) for side in picture.size)
        if max(width, height) <= _LONGEST_JPEG_SIDE:
            return Rewritten(_jpeg(picture.resize((width, height), Image.Resampling.BICUBIC)), "shrunk")
    if native.available() and _is_progressive(data):
        baseline = _transcoded(data)
        if baseline is not None and _shows(baseline, picture):
            return Rewritten(baseline, "transcoded")
    return Rewritten(data, "kept")


def _jpeg(picture: Image.Image) -> bytes:
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return stream.getvalue()


def _is_progressive(data: bytes) -> bool:
    try:
        return native.jpeg_header(data).progressive
    except ValueError:
        return False


def _transcoded(data: bytes) -> bytes | None:
    try:
        return native.to_baseline(data)
    except ValueError:  # damaged, though decoders forgive it
        return None


# A progressive file that lacks its last scans is smoothed by decoders, and the same coefficients in a baseline file
# are not: equality is looked up, not assumed.
def _shows(data: bytes, picture: Image.Image) -> bool:
    try:
        return seen_in_training(data).tobytes() == picture.tobytes()
    except UnreadableImage:
        return False
