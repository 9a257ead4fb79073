"""A movie out of a photograph: the camera moves over it, and no video has to be had."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import cos, pi
from pathlib import Path

from PIL import Image

from fastdino.video import write_video

RATE = 25


def write_pan(path: Path, photograph: Image.Image, seconds: float, size: tuple[int, int]) -> Path:
    """Write `seconds` of a window `size` pixels large that goes from one end of a larger photograph to the other."""
    with write_video(path, Fraction(RATE)) as add:
        for frame in pan(photograph, round(seconds * RATE), size):
            add(frame)
    return path


def pan(photograph: Image.Image, count: int, size: tuple[int, int]) -> Iterator[Image.Image]:
    """`count` frames, which start and end slowly."""
    room = photograph.width - size[0], photograph.height - size[1]
    for number in range(count):
        way = (1 - cos(pi * number / max(count - 1, 1))) / 2
        left, top = (round(way * length) for length in room)
        yield photograph.crop((left, top, left + size[0], top + size[1]))
