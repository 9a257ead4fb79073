from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from fastdino.data import apply_plan, crop_plan
from fastdino.data.reading import UnreadableImage, read_image
from fastdino.reference import augment


def _jpeg() -> bytes:
    buffer = BytesIO()
    Image.fromarray(data.chelsea()).save(buffer, "JPEG")
    return buffer.getvalue()


def test_crops_are_the_references_with_channels_first() -> None:
    content = _jpeg()
    image = read_image(content)
    plan = crop_plan(0, 0, 0, *image.size)
    crops = apply_plan(content, plan)
    for tensor, array in zip(crops, augment.apply_plan(image, plan), strict=True):
        assert tensor.dtype == torch.uint8 and tensor.is_contiguous()
        np.testing.assert_array_equal(tensor.numpy(), array.transpose(2, 0, 1))


def test_unknown_implementation_names_what_exists() -> None:
    with pytest.raises(ValueError, match="'fast'; there are auto, native, reference"):
        apply_plan(_jpeg(), crop_plan(0, 0, 0, 451, 300), implementation="fast")


def test_no_picture() -> None:
    with pytest.raises(UnreadableImage):
        apply_plan(b"no picture", crop_plan(0, 0, 0, 10, 10))
