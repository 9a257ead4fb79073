"""The typed front of the C++ crop engine. Everything here raises RuntimeError where the extension is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from fastdino import native
from fastdino.data.plan import CropPlan, CropRecipe
from fastdino.data.sources import FileTable
from fastdino.errors import UserError

_OPERATIONS = ("brightness", "contrast", "saturation", "hue")
_WORD = (1 << 64) - 1

# Since version 13 Pillow resizes vertically first where that makes a picture much smaller. The order of the two
# passes shows in the roundings; the engine keeps to the installed version's.
SHRINKING_FIRST = int(PIL.__version__.split(".")[0]) >= 13


def word(value: int) -> int:
    """Modulo 2**64, as seeds and epochs enter the random numbers."""
    return value & _WORD


def simd() -> str:
    """The instruction set of the inner loops: avx512, avx2 or portable, or what FASTDINO_SIMD asks for.

    Raises UserError if that is nothing that this machine runs.
    """
    try:
        name: str = native.extension().simd()
    except ValueError as error:
        raise UserError(f"{error}.") from error
    return name


def decode(data: native.Buffer) -> npt.NDArray[np.uint8]:
    """A JPEG's pixels, (height, width, 3), equal to Pillow's.

    Raises ValueError for what libjpeg-turbo does not decode, or what has more pixels than Pillow allows: there
    `fastdino.data.reading.read_image` has the last word.
    """
    pixels: npt.NDArray[np.uint8] = native.extension().decode_jpeg(data)
    return pixels


def cut(picture: native.Buffer | npt.NDArray[np.uint8], plan: list[CropPlan]) -> list[npt.NDArray[np.uint8]]:
    """The planned crops, (3, size, size) each, of a JPEG's bytes or of (height, width, 3) pixels.

    Raises ValueError for a JPEG that `decode` refuses, and for a plan that does not fit the picture.
    """
    plans = [_fields(crop) for crop in plan]
    extension = native.extension()
    cut_crops = extension.cut_pixels if isinstance(picture, np.ndarray) else extension.cut_jpeg
    crops: list[npt.NDArray[np.uint8]] = cut_crops(picture, plans, SHRINKING_FIRST)
    return crops


def middle_square(jpeg: native.Buffer, size: int, shorter: int) -> npt.NDArray[np.uint8]:
    """(3, size, size): the middle of a JPEG whose shorter side is resized (bicubic) to `shorter` pixels, no fewer than
    `size`.

    Equal to torchvision's resize and center_crop of Pillow's picture. Raises ValueError for a JPEG that `decode`
    refuses, and for a picture that is too long once it is resized.
    """
    header = native.jpeg_header(jpeg)
    sides = header.height, header.width
    height, width = (int(shorter * side / min(sides)) for side in sides)
    top, left = (round((side - size) / 2) for side in (height, width))
    square: npt.NDArray[np.uint8] = native.extension().resize_jpeg(
        jpeg, height, width, top, left, size, SHRINKING_FIRST
    )
    return square


def new_pool(
    recipe: CropRecipe,
    *,
    seed: int,
    pictures: int,
    threads: int,
    output: str,
    sequential: bool,
    read: Callable[[int], bytes | str],
    files: FileTable | None,
    decode: Callable[[bytes], npt.NDArray[np.uint8] | str],
) -> Any:
    """Threads that prepare batches: `fastdino._native.Pool`.

    `read` gives a picture's bytes, or the reason why not; with `files` it is never called. `decode` gives the
    pixels of what is no JPEG, or the reason why not. Both are called from the threads.
    """
    extension = native.extension()
    return extension.Pool(
        native_recipe(recipe),
        word(seed),
        pictures,
        threads,
        SHRINKING_FIRST,
        output,
        sequential,
        read,
        extension.Files(*files) if files is not None else None,
        decode,
    )


def native_recipe(recipe: CropRecipe) -> Any:
    """The recipe as the extension takes it."""
    return native.extension().Recipe(
        recipe.global_crops_scale,
        recipe.local_crops_scale,
        recipe.local_crops_number,
        recipe.global_size,
        recipe.local_size,
        [(low, high) for _, low, high in recipe.jitter_ranges()],
    )


def _fields(crop: CropPlan) -> tuple[Any, ...]:
    jitter = [(_OPERATIONS.index(name), factor) for name, factor in crop.jitter]
    return (
        crop.top,
        crop.left,
        crop.height,
        crop.width,
        crop.size,
        crop.flip,
        jitter,
        crop.grayscale,
        crop.blur_radius,
        crop.solarize,
    )
