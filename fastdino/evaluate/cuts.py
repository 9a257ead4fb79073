"""What of a picture an evaluation looks at: functions of an RGB picture and a size in pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from fastdino import native
from fastdino.data import engine
from fastdino.data.reading import read_image

Cut = Callable[[Image.Image, int], Image.Image]

# The original looks at the middle 224 of 256 pixels, and so does ImageNet's protocol; other sizes keep the
# ratio.
RESIZE_RATIO = 256 / 224
# A patch of 16 pixels at half the size.
SHORTEST = 32


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle square: shorter side resized (bicubic) to 256/224 of `size`, then cropped."""
    resized = transforms.resize(image, [_shorter_side(size)], InterpolationMode.BICUBIC)
    return transforms.center_crop(resized, [size])


def _shorter_side(size: int) -> int:
    return round(size * RESIZE_RATIO)


def square(image: Image.Image, size: int) -> Image.Image:
    """All of it, stretched (bicubic) to a square, as the original's copy detection has it."""
    return transforms.resize(image, [size, size], InterpolationMode.BICUBIC)


def thumbnail(image: Image.Image, size: int) -> Image.Image:
    """All of it, its longer side shrunk (Lanczos) to `size` if it is larger, as the original's retrieval has it.

    Sides that are then below SHORTEST, where the original fails, are stretched to it.
    """
    small = image.copy()
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    width, height = max(small.width, SHORTEST), max(small.height, SHORTEST)
    return small if small.size == (width, height) else small.resize((width, height), Image.Resampling.BICUBIC)


def cut_out(data: bytes, cut: Cut, size: int) -> npt.NDArray[np.uint8]:
    """(3, H, W): `cut` of the picture in a file's bytes. Raises UnreadableImage for bytes that are no picture."""
    if cut is centre_crop and native.available():
        try:
            return engine.middle_square(data, size, _shorter_side(size))
        except ValueError:
            pass  # no JPEG, or a damaged one: Pillow has the last word
    return channels_first(cut(read_image(data), size))


def channels_first(image: Image.Image) -> npt.NDArray[np.uint8]:
    """An RGB picture as (3, H, W)."""
    return np.asarray(image).transpose(2, 0, 1)
