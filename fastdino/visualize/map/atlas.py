"""Thumbnails packed into sheets: a few hundred pictures in one file, neighbours on the map beside each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastdino.data.sources import Source
from fastdino.evaluate.cuts import centre_crop
from fastdino.evaluate.loading import Cutting, load_pictures

# Thumbnails of all pictures together: 50,000 of 32 pixels, a page of some 35 MB that takes 200 MB once all is decoded.
MOST_PIXELS = 50_000 * 32**2
SIDES = (96, 80, 64, 48, 32)  # multiples of WebP's blocks, so that no picture's colours run into the next one's
SHEET_SIDE = 1024
QUALITY = 75
READ_AT_ONCE = 64

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Atlas:
    """WebP `sheets` of `columns` x `columns` thumbnails, `side` pixels wide; picture i is thumbnail `slots[i]`."""

    sheets: list[bytes]
    side: int
    columns: int
    slots: npt.NDArray[np.uint32]


def thumbnail_side(count: int) -> int:
    """The width in pixels that `count` thumbnails can have."""
    return next((side for side in SIDES if count * side**2 <= MOST_PIXELS), SIDES[-1])


def read_thumbnails(
    source: Source, indices: list[int], side: int, num_workers: int, advance: Callable[[int], None]
) -> Pixels:
    """The middle squares (n, side, side, 3) of the pictures at `indices`, which can be read; `advance` hears how many
    more are done. One that has become unreadable since is grey.
    """
    thumbnails = np.full((len(indices), side, side, 3), 128, dtype=np.uint8)
    rows = {index: row for row, index in enumerate(indices)}
    keys = [indices[start : start + READ_AT_ONCE] for start in range(0, len(indices), READ_AT_ONCE)]
    for batch in load_pictures(source, keys, Cutting(centre_crop, side), num_workers=num_workers):
        for index, picture in zip(batch.indices, batch.pictures, strict=True):
            thumbnails[rows[index]] = picture.transpose(1, 2, 0)
        advance(len(batch.indices) + len(batch.skipped))
    return thumbnails


def pack(thumbnails: Pixels, positions: npt.NDArray[np.float32]) -> Atlas:
    """Sheets of thumbnails (n, side, side, 3), sorted along a curve through their `positions` (n, 2) in 0 .. 1.

    So what is seen together lies on few sheets, and a page needs to decode no others.
    """
    count, side = thumbnails.shape[:2]
    columns = SHEET_SIDE // side
    order = np.argsort(z_order(positions), kind="stable")
    slots = np.empty(count, dtype=np.uint32)
    slots[order] = np.arange(count)
    sheets = [_sheet(thumbnails[order[start : start + columns**2]], columns) for start in range(0, count, columns**2)]
    return Atlas(sheets, side, columns, slots)


def z_order(positions: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Places (n, 2) in 0 .. 1 as numbers whose order visits each quarter of the square as a whole (Morton 1966)."""
    cells = np.clip(positions * 65535, 0, 65535).astype(np.uint32)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        cells = (cells | (cells << np.uint32(shift))) & np.uint32(mask)
    interleaved: npt.NDArray[np.uint32] = cells[:, 0] | (cells[:, 1] << np.uint32(1))
    return interleaved


def _sheet(thumbnails: Pixels, columns: int) -> bytes:
    side = thumbnails.shape[1]
    rows = -(-len(thumbnails) // columns)
    cells = np.zeros((rows * columns, side, side, 3), dtype=np.uint8)
    cells[: len(thumbnails)] = thumbnails
    pixels = cells.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", quality=QUALITY)
    return stream.getvalue()
