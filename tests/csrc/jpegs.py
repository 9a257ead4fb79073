"""Small JPEGs made with Pillow, and ways to damage them: for the tests and for the sanitizer run."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

MODES = {"L": 1, "RGB": 3, "CMYK": 4}
SIZES = [(1, 1), (7, 13), (16, 16), (33, 8), (300, 2)]
LONG_EXIF_PADDING = 70_000  # bytes: more than one APP1 segment holds


def encode(mode: str, size: tuple[int, int], *, progressive: bool = False, exif: bytes = b"") -> bytes:
    """A JPEG of one colour; `exif` is a TIFF block, without the "Exif" prefix."""
    stream = BytesIO()
    image = Image.new(mode, size, 128 if mode == "L" else (90, 160, 40, 20)[: MODES[mode]])
    image.save(stream, "JPEG", progressive=progressive, exif=b"Exif\0\0" + exif if exif else b"")
    return stream.getvalue()


def photograph(
    mode: str, size: tuple[int, int], *, seed: int, subsampling: int = 0, progressive: bool = False
) -> bytes:
    """A JPEG with gradients and noise in it; `subsampling` is 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0, as in Pillow."""
    draw = random.Random(seed)
    gradients = (Image.linear_gradient("L"), Image.radial_gradient("L"), Image.linear_gradient("L").rotate(90))
    bands = []
    for band in range(MODES[mode]):
        noise = Image.frombytes("L", size, draw.randbytes(size[0] * size[1]))
        bands.append(Image.blend(gradients[band % 3].resize(size), noise, 0.2))
    stream = BytesIO()
    image = Image.merge(mode, bands) if len(bands) > 1 else bands[0]
    image.save(stream, "JPEG", quality=85, subsampling=subsampling, progressive=progressive)
    return stream.getvalue()


def orientation_block(
    orientation: int, byte_order: str, *, kind: int = 3, count: int = 1, others: int = 0, padding: int = 0
) -> bytes:
    """A TIFF block whose first directory holds `others` tags, then the orientation.

    `byte_order` is "<" or ">" as in struct; `kind` is TIFF's type (3 SHORT, 4 LONG); `padding` bytes stand
    between the block's header and its directory.
    """
    header = {"<": b"II*\0", ">": b"MM\0*"}[byte_order] + struct.pack(byte_order + "I", 8 + padding)
    entries = [struct.pack(byte_order + "HHII", 0x0100 + i, 4, 1, 1) for i in range(others)]
    value = struct.pack(byte_order + ("HH" if kind == 3 else "I"), *([orientation, 0] if kind == 3 else [orientation]))
    entries.append(struct.pack(byte_order + "HHI", 0x0112, kind, count) + value)
    directory = struct.pack(byte_order + "H", len(entries)) + b"".join(entries) + bytes(4)
    return header + bytes(padding) + directory


def with_app1(jpeg: bytes, *payloads: bytes) -> bytes:
    """`jpeg` with APP1 segments put right behind its first marker, whatever Pillow would allow."""
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload for payload in payloads)
    return jpeg[:2] + segments + jpeg[2:]


def flipped(data: bytes, seed: int, most: int = 8) -> bytes:
    """`data` with one to `most` bytes replaced."""
    draw = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(draw.randint(1, most)):
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
    return bytes(damaged)


def corpus() -> Iterator[bytes]:
    """Good files of every kind, none large."""
    for mode in MODES:
        for progressive in (False, True):
            yield encode(mode, (19, 11), progressive=progressive)
    for byte_order in "<>":
        yield encode("RGB", (9, 5), exif=orientation_block(6, byte_order, others=3))
        yield encode("L", (9, 5), exif=orientation_block(3, byte_order, kind=4))


def photographs() -> Iterator[bytes]:
    """Good files with something in them: every kind of chroma subsampling, and shapes at the edge of what there is."""
    for progressive in (False, True):
        for subsampling in range(3):
            yield photograph("RGB", (130, 97), seed=subsampling, subsampling=subsampling, progressive=progressive)
    yield photograph("L", (64, 211), seed=3)
    yield photograph("CMYK", (90, 64), seed=4)
    for seed, size in enumerate([(1, 1), (1, 400), (400, 1), (31, 33)], start=5):
        yield photograph("RGB", size, seed=seed, subsampling=2)


if __name__ == "__main__":
    for number, jpeg in enumerate([*corpus(), *photographs()]):
        Path(sys.argv[1], f"{number:02}.jpg").write_bytes(jpeg)
