from __future__ import annotations

import torch
from torch import Tensor, nn

from fastdino.evaluate.features import features_of
from fastdino.evaluate.loading import Batch
from fastdino.models.memory_format import for_convolutions
from fastdino.models.multicrop import MultiCropWrapper


class Watched(nn.Module):
    """A convolution that notes how its pictures lay in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.interleaved: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.interleaved.append(x.is_contiguous(memory_format=torch.channels_last))
        return self.convolution(x).mean(dim=(2, 3))


def test_pixels_are_the_same() -> None:
    pictures = torch.randn(2, 3, 5, 7)
    interleaved = for_convolutions(pictures)
    assert torch.equal(interleaved, pictures)
    assert interleaved.stride() == (105, 1, 21, 3)


def test_training_and_evaluation_hand_them_over_like_that() -> None:
    backbone = Watched()
    MultiCropWrapper(backbone, nn.Identity())([torch.randn(2, 3, 8, 8), torch.randn(2, 3, 6, 6)])
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8).numpy()
    features_of(backbone, Batch([picture, picture], [0, 1], {}), "cpu")
    assert backbone.interleaved == [True, True, True]
