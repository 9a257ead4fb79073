from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fastdino import VisionTransformer
from fastdino.models.small_resnet import SmallResNet


def flops(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 48, 48))
    return counter.get_total_flops()


def test_size_and_cost_are_those_of_its_docstring() -> None:
    small = SmallResNet()
    transformer = VisionTransformer(48, 8, embed_dim=128, depth=4, num_heads=4)
    assert round(sum(parameter.numel() for parameter in small.parameters()) / 1e6, 1) == 0.3
    assert round(flops(small) / 1e6) == 13
    assert round(flops(transformer) / flops(small)) == 4


def test_any_size_from_16_pixels_on() -> None:
    for size in (16, 24, 33, 96):
        assert SmallResNet()(torch.zeros(2, 3, size, size)).shape == (2, 128)
