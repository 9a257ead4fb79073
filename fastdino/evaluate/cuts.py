"""What of a picture an evaluation looks at: functions of an RGB picture and a size in pixels."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

Cut = Callable[[Image.Image, int], Image.Image]

# The original looks at the middle 224 of 256 pixels, and so does ImageNet's protocol; other sizes keep the
# ratio.
RESIZE_RATIO = 256 / 224
# A patch of 16 pixels at half the size.
SHORTEST = 32


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle square: shorter side resized (bicubic) to 256/224 of `size`, then cropped."""
    resized = transforms.resize(image, [round(size * RESIZE_RATIO)], InterpolationMode.BICUBIC)
    return transforms.center_crop(resized, [size])


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
