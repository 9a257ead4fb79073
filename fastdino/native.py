"""The one place that imports the C++ extension: its typed front, and the same answers without it."""

from __future__ import annotations

import importlib.util
import io
import struct
from typing import Any, NamedTuple, TypeAlias

try:
    from fastdino import _native
except ImportError as error:
    _import_error: ImportError | None = error
else:
    _import_error = None

Buffer: TypeAlias = bytes | bytearray | memoryview

_EXIF_PREFIX = b"Exif\0\0"
_UPRIGHT = 1
_ORIENTATION_TAG = 0x0112
_VALUE_FORMATS = {3: "H", 4: "I"}  # TIFF's SHORT and LONG


class JpegHeader(NamedTuple):
    """What a JPEG says about itself before its first scan."""

    width: int
    """Pixels as stored, before any turn that `orientation` asks for."""
    height: int
    components: int
    """1 grey, 3 colour, 4 CMYK or YCCK."""
    progressive: bool
    orientation: int
    """EXIF tag 0x0112, 1 to 8; 1 if the file has none."""


def available() -> bool:
    """Whether the extension is built and loads."""
    return _import_error is None


def why_not() -> str:
    """One line for the log that says why the extension is not used and what to do; empty if it is used."""
    if _import_error is None:
        return ""
    if importlib.util.find_spec("fastdino._native") is None:
        return (
            "native extension not built; using the Python path: "
            "install g++, Python's headers and libjpeg's headers (libjpeg-dev) and reinstall"
        )
    return f"native extension does not load ({_import_error}); using the Python path: reinstall fastdino"


def extension() -> Any:
    """The extension itself. Raises RuntimeError with `why_not` if it cannot be used."""
    if _import_error is not None:
        raise RuntimeError(why_not())
    return _native


def jpeg_header(data: Buffer) -> JpegHeader:
    """Reads a JPEG's header without decoding a pixel.

    Raises ValueError if `data` is no JPEG or is damaged before its first scan. There the extension checks
    more (Huffman tables, say) than the Python path: one may refuse a damaged file that the other reads.
    """
    if not available():
        return _jpeg_header_pillow(data)
    header = _native.jpeg_header(data)
    return JpegHeader(header.width, header.height, header.components, header.progressive, header.orientation)


def to_baseline(data: Buffer) -> bytes:
    """A progressive JPEG as a baseline one, which decodes two to three times as fast.

    The coefficients and thereby the pixels stay, and so do EXIF, colour profile and comments; the Huffman tables are
    fitted to them. Only the extension has this: ask `available` first. Raises ValueError if `data` is no JPEG or is
    damaged in any way.
    """
    return _native.to_baseline(data)


def _jpeg_header_pillow(data: Buffer) -> JpegHeader:
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        # Not Image.open: its limit on pixels is about decoding, and here nothing is decoded.
        image = JpegImageFile(io.BytesIO(data))
    except (SyntaxError, OSError, ValueError) as error:
        raise ValueError(str(error)) from error
    if not image.tile:  # Pillow forgives a file that ends between two segments, before any scan
        raise ValueError("JPEG ends before its first scan")
    exif = image.info.get("exif", b"")[len(_EXIF_PREFIX) :]
    return JpegHeader(*image.size, len(image.getbands()), bool(image.info.get("progressive")), _exif_orientation(exif))


def _exif_orientation(tiff: bytes) -> int:
    """csrc/exif.cpp in Python, rule by rule: the two must not differ on any bytes."""
    byte_order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if byte_order is None:
        return _UPRIGHT
    try:
        (directory,) = struct.unpack_from(byte_order + "I", tiff, 4)
        (entries,) = struct.unpack_from(byte_order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(byte_order + "HHI", tiff, entry)
            if tag == _ORIENTATION_TAG:
                if kind not in _VALUE_FORMATS or count != 1:
                    return _UPRIGHT
                (value,) = struct.unpack_from(byte_order + _VALUE_FORMATS[kind], tiff, entry + 8)
                return value if 1 <= value <= 8 else _UPRIGHT
    except struct.error:  # a field lies outside the block
        pass
    return _UPRIGHT
