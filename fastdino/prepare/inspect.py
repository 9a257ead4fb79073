"""One picture looked at: would the trainer use it, and what is it?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from fastdino import native
from fastdino.data.reading import UnreadableImage, open_picture, reason_of
from fastdino.data.sources import Source
from fastdino.prepare.judging import seen_in_training

DIGEST_BYTES = 16
# Points of a picture that its channel statistics are taken from, a side; every picture then counts alike, as it does
# in training, where all crops have one size.
SAMPLE_SIDE = 64

_ENDINGS = {
    "jpg": "JPEG",
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "tif": "TIFF",
    "tiff": "TIFF",
    "bmp": "BMP",
    "gif": "GIF",
    "ppm": "PPM",
}
# Several pictures in one JPEG file (a phone's depth map, say), of which the first is a JPEG like any other.
_SAME_FORMAT = {"MPO": "JPEG"}
_MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "P": "palette",
    "PA": "palette",
    "RGB": "RGB",
    "RGBA": "RGB with transparency",
    "CMYK": "CMYK",
    "I": "32-bit grey",
    "F": "floating-point grey",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a picture that can be used.

    `digest` (16 bytes) is equal for equal files. `sums` and `squares`, int64 (3,), are sums over SAMPLE_SIDE squared
    points of the red, green and blue values 0 .. 255 that the trainer sees, and of their squares.
    """

    width: int
    height: int
    file_bytes: int
    digest: bytes
    format: str
    mode: str
    misnamed: bool
    progressive: bool
    rotated: bool
    animated: bool
    sums: npt.NDArray[np.int64]
    squares: npt.NDArray[np.int64]


def inspect(source: Source, index: int) -> Picture | str:
    """The picture, or the reason for which the trainer would skip it."""
    try:
        data = source.read(index)
        pixels = seen_in_training(data)
    except UnreadableImage as error:
        return str(error)
    except OSError as error:
        return reason_of(error)
    file = _header(data)
    points = np.asarray(pixels.resize((SAMPLE_SIDE, SAMPLE_SIDE), Image.Resampling.NEAREST), dtype=np.int64)
    points = points.reshape(-1, 3)
    return Picture(
        width=pixels.width,
        height=pixels.height,
        file_bytes=len(data),
        digest=blake2b(data, digest_size=DIGEST_BYTES).digest(),
        format=file.format,
        mode=file.mode,
        misnamed=_ENDINGS.get(os.path.splitext(source.name(index))[1][1:].lower(), file.format) != file.format,
        progressive=file.progressive,
        rotated=file.rotated,
        animated=file.animated,
        sums=points.sum(axis=0),
        squares=(points * points).sum(axis=0),
    )


@dataclass(frozen=True, slots=True)
class _Header:
    format: str
    mode: str
    progressive: bool
    rotated: bool
    animated: bool


def _header(data: bytes) -> _Header:
    try:
        image = open_picture(data)
    except Exception:  # a damaged JPEG that the native decoder alone can read
        return _Header("JPEG", _MODES["RGB"], *_jpeg_facts(data), animated=False)
    with image:
        format = _SAME_FORMAT.get(image.format or "", image.format or "")
        is_jpeg = format == "JPEG"
        progressive, rotated = _jpeg_facts(data) if is_jpeg else (False, _is_turned(image))
        return _Header(format, _mode(image), progressive, rotated, not is_jpeg and _is_animated(image))


def _mode(image: Image.Image) -> str:
    if image.mode.startswith("I;16"):
        return "16-bit grey"
    name = _MODES.get(image.mode, image.mode)
    return f"16-bit {name}" if _channel_bits(image) == 16 else name


def _channel_bits(image: Image.Image) -> int:
    """Bits of a channel in the file, of which Pillow keeps 8 in colour pictures."""
    if isinstance(image, PngImageFile):
        return 16 if image.tile and "16B" in str(image.tile[0].args) else 8
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(BITSPERSAMPLE, (8,)))
    return 8


def _jpeg_facts(data: bytes) -> tuple[bool, bool]:
    """Whether the file is progressive, and whether EXIF wants it turned."""
    try:
        header = native.jpeg_header(data)
    except ValueError:  # damaged where only libjpeg's strict reader looks
        return False, False
    return header.progressive, header.orientation > 1


def _is_turned(image: Image.Image) -> bool:
    """What EXIF wants of formats other than JPEG; Pillow obeys it in TIFF files, so that nothing is ignored there."""
    block = image.info.get("exif")
    if not block or isinstance(image, TiffImageFile):
        return False
    exif = Image.Exif()
    try:
        exif.load(block)
        return exif.get(ExifTags.Base.Orientation, 1) > 1
    # Pillow's parser raises anything on a damaged block, which is none of the trainer's business.
    except Exception:
        return False


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # damage behind the first frame, for the same reason
        return False
