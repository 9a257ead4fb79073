from __future__ import annotations

import pytest
import torch
from torch import nn

from fastdino.errors import UserError
from fastdino.visualize.transformer import as_input, cut_to_patches, fit_to_patches, vision_transformer
from tests.fastdino.visualize.small import photograph


def test_cut_to_whole_patches() -> None:
    picture = photograph(100, 60)
    assert cut_to_patches(picture, (50, 70), 16).size == (64, 48)
    assert cut_to_patches(picture, (48,), 16).size == (80, 48)


def test_fit_to_whole_patches() -> None:
    picture = photograph(100, 60)
    assert fit_to_patches(picture, (50, 74), 16).size == (80, 48)
    assert fit_to_patches(picture, (48,), 16).size == (80, 48)
    assert fit_to_patches(photograph(60, 100), (48,), 16).size == (48, 80)
    assert fit_to_patches(photograph(400, 4), (16,), 16).size == (1600, 16)


@pytest.mark.parametrize("size", [(15, 480), (480, 480, 3), (8,)])
def test_bad_sizes_are_one_sentence(size: tuple[int, ...]) -> None:
    for prepare in (cut_to_patches, fit_to_patches):
        with pytest.raises(UserError, match="--image_size"):
            prepare(photograph(), size, 16)


def test_pixels_are_normalised() -> None:
    pixels = as_input(photograph(24, 16), "cpu")
    assert (pixels.shape, pixels.dtype) == ((3, 16, 24), torch.float32)
    assert pixels.min() < -1.5 and pixels.max() > 2


def test_other_networks_are_refused() -> None:
    with pytest.raises(UserError, match="vit_small"):
        vision_transformer(nn.Linear(1, 1))
