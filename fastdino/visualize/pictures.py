"""Small pictures made of numbers and of other pictures; numpy and Pillow do it all."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fastdino.files import write_atomically

Pixels = npt.NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)

# Ten equidistant colours of viridis: perceptually even, readable in grey and with any colour vision.
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (72, 40, 120),
        (62, 74, 137),
        (49, 104, 142),
        (38, 130, 142),
        (31, 158, 137),
        (53, 183, 121),
        (109, 205, 89),
        (180, 222, 44),
        (253, 231, 37),
    ],
    dtype=np.float64,
)
MASK_COLOUR = (255, 70, 60)


def stretch(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """`values` moved and scaled to 0 .. 1; all zero where they are constant."""
    array = np.asarray(values, dtype=np.float64)
    low, high = array.min(), array.max()
    return (array - low) / (high - low) if high > low else np.zeros_like(array)


def colour_map(values: npt.ArrayLike) -> Image.Image:
    """Numbers (H, W) in 0 .. 1 as viridis, dark for 0 and yellow for 1."""
    position = np.clip(np.asarray(values, dtype=np.float64), 0, 1) * (len(_VIRIDIS) - 1)
    anchors = np.arange(len(_VIRIDIS))
    channels = [np.interp(position, anchors, _VIRIDIS[:, channel]) for channel in range(3)]
    return Image.fromarray(np.rint(np.stack(channels, axis=-1)).astype(np.uint8))


def enlarge(values: npt.NDArray[Number], size: tuple[int, int]) -> npt.NDArray[Number]:
    """(h, w) -> (height, width) for a `size` as Pillow has it, (width, height): every number a rectangle."""
    rows, columns = (
        (2 * np.arange(pixels) + 1) * count // (2 * pixels)
        for pixels, count in zip(reversed(size), values.shape, strict=True)
    )
    return values[np.ix_(rows, columns)]


def overlay(picture: Image.Image, values: npt.ArrayLike) -> Image.Image:
    """`picture` under a smooth map (h, w) of 0 .. 1: what is high keeps its light and glows, what is low
    sinks.
    """
    heat = colour_map(values).resize(picture.size, Image.Resampling.BICUBIC)
    weights = Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))
    strength = np.asarray(weights.resize(picture.size, Image.Resampling.BICUBIC), dtype=np.float64)[..., None] / 255
    base = np.asarray(picture.convert("RGB"), dtype=np.float64)
    grey = base.mean(axis=-1, keepdims=True)
    sunk = 0.45 * (0.6 * grey + 0.4 * base)
    lit = 0.55 * base + 0.45 * np.asarray(heat, dtype=np.float64)
    return Image.fromarray(np.rint(sunk + strength * (lit - sunk)).astype(np.uint8))


def outline(picture: Image.Image, mask: npt.NDArray[np.bool_]) -> Image.Image:
    """`picture` with `mask` (H, W, its own size) tinted and edged; what is outside keeps its colours."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64).copy()
    colour = np.array(MASK_COLOUR, dtype=np.float64)
    pixels[mask] = 0.5 * pixels[mask] + 0.5 * colour
    pixels[mask & ~_eroded(mask, max(1, min(mask.shape) // 200))] = colour
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _eroded(mask: npt.NDArray[np.bool_], pixels: int) -> npt.NDArray[np.bool_]:
    height, width = mask.shape
    padded = np.pad(mask, pixels)
    shifts = [(dy, dx) for dy in (0, pixels, 2 * pixels) for dx in (0, pixels, 2 * pixels)]
    return np.logical_and.reduce([padded[dy : dy + height, dx : dx + width] for dy, dx in shifts])


def fit(picture: Image.Image, side: int) -> Image.Image:
    """`picture` with its longer side at most `side` pixels; smaller ones stay as they are."""
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def picture_grid(
    rows: Sequence[Sequence[Image.Image]],
    side: int,
    labels: Sequence[Sequence[str]] | None = None,
    gap: int = 8,
) -> Image.Image:
    """Rows of pictures on white, each fitted into a square of `side` pixels with its label below it."""
    font = ImageFont.load_default(max(11, side // 14))
    line = round(1.6 * float(getattr(font, "size", 11))) if labels else 0
    columns = max(len(row) for row in rows)
    cell_height = side + line
    size = (gap + columns * (side + gap), gap + len(rows) * (cell_height + gap))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            left, top = gap + x * (side + gap), gap + y * (cell_height + gap)
            small = fit(picture.convert("RGB"), side)
            sheet.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
            if labels:
                draw.text((left + side // 2, top + side + line // 2), labels[y][x], "black", font, anchor="mm")
    return sheet


def save_png(picture: Image.Image, path: Path) -> Path:
    """Write `picture` to `path`, wholly or not at all, and return that. Raises OSError where it cannot be written."""
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
    return path


def data_uri(picture: Image.Image, *, quality: int = 82) -> str:
    """`picture` as a JPEG inside a URI, for pages that load nothing."""
    buffer = BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
