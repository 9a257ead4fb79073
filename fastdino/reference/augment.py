"""The multi-crop augmentation, one Pillow or torchvision function after the other.

This is what the original's transforms do once their random numbers are drawn (`fastdino.data.plan`), and what
the fast loader is compared with.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from fastdino.data.plan import CropPlan

_ADJUST: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


def apply_plan(image: Image.Image, plan: list[CropPlan]) -> list[npt.NDArray[np.uint8]]:
    """Cut the planned crops out of an RGB picture: one (size, size, 3) uint8 array a crop."""
    return [np.asarray(_crop(image, crop)) for crop in plan]


def _crop(image: Image.Image, crop: CropPlan) -> Image.Image:
    # torchvision crops first and resizes then: the bicubic filter never sees pixels outside the box.
    image = F.resized_crop(
        image,
        crop.top,
        crop.left,
        crop.height,
        crop.width,
        [crop.size, crop.size],
        InterpolationMode.BICUBIC,
    )
    if crop.flip:
        image = F.hflip(image)
    for operation, factor in crop.jitter:
        image = _ADJUST[operation](image, factor)
    if crop.grayscale:
        image = F.to_grayscale(image, num_output_channels=3)
    if crop.blur_radius:
        image = image.filter(ImageFilter.GaussianBlur(crop.blur_radius))
    if crop.solarize:
        image = ImageOps.solarize(image)
    return image
