from __future__ import annotations

import numpy as np
import torch
from torchvision import transforms

from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD, normalize


def test_has_the_bits_of_totensor_and_normalize() -> None:
    # All 256 values in each channel.
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = np.stack([values, values.T, values[::-1]], axis=-1)
    original = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    ours = normalize(torch.from_numpy(picture).permute(2, 0, 1))
    assert ours.dtype == torch.float32
    assert torch.equal(ours, original(picture))


def test_any_leading_shape_and_input_untouched() -> None:
    crops = torch.randint(0, 256, (2, 5, 3, 4, 6), dtype=torch.uint8)
    before = crops.clone()
    result = normalize(crops)
    assert result.shape == crops.shape and torch.equal(crops, before)
    assert torch.equal(result[1, 3], normalize(crops[1, 3]))
