from __future__ import annotations

import torch
from torch import Tensor, nn

from fastdino import MultiCropWrapper


class Recorder(nn.Module):
    """Returns each picture's mean and remembers what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.shapes: list[torch.Size] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(x.shape)
        return self.fc(x.mean(dim=(2, 3)))


def test_one_pass_per_run_of_equal_width_in_crop_major_order() -> None:
    wrapper = MultiCropWrapper(Recorder(), nn.Identity())
    crops = [torch.full((2, 3, size, size), float(value)) for value, size in enumerate((8, 8, 4, 4, 8))]
    output = wrapper(crops)
    assert [tuple(shape) for shape in wrapper.backbone.shapes] == [(4, 3, 8, 8), (4, 3, 4, 4), (2, 3, 8, 8)]
    assert output[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_single_tensor_is_one_crop() -> None:
    wrapper = MultiCropWrapper(Recorder(), nn.Identity())
    assert wrapper(torch.zeros(5, 3, 8, 8)).shape == (5, 3)


def test_linear_classifier_is_removed_and_other_heads_stay() -> None:
    assert isinstance(MultiCropWrapper(Recorder(), nn.Identity()).backbone.fc, nn.Identity)
    pooling = nn.Sequential(nn.Flatten())
    backbone = nn.Module()
    backbone.head = pooling
    assert MultiCropWrapper(backbone, nn.Identity()).backbone.head is pooling


def test_a_backbone_that_returns_a_tuple() -> None:
    class ClassTokenFirst(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.mean(dim=(2, 3)), x

    assert MultiCropWrapper(ClassTokenFirst(), nn.Identity())([torch.ones(2, 3, 4, 4)]).shape == (2, 3)
