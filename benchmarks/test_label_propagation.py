"""A frame of DAVIS labelled from the eight that are looked back at."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from benchmarks.side_by_side import SideBySide
from fastdino.evaluate.label_propagation import LabelledFrame, propagate
from fastdino.reference import label_propagation as reference

FRAMES, RADIUS, TOPK, WIDTH, LABELS = 8, 12, 5, 384, 4


# 480 x 832 pixels in patches of 16, and half of them in patches of 8: all would not fit into memory in full.
@pytest.mark.parametrize(("height", "width"), [(30, 52), (30, 104)])
def test_label_propagation(height: int, width: int, side_by_side: SideBySide) -> None:
    torch.manual_seed(0)
    frames = [
        LabelledFrame(F.normalize(torch.randn(height, width, WIDTH), dim=-1), torch.rand(height, width, LABELS))
        for _ in range(FRAMES)
    ]
    target = F.normalize(torch.randn(height, width, WIDTH), dim=-1)
    side_by_side(
        lambda: propagate(target, frames, radius=RADIUS, topk=TOPK),
        lambda: reference.propagate(target, frames, radius=RADIUS, topk=TOPK),
        # A similarity is rounded by a few 6e-8, its exponent by ten times that.
        rtol=0,
        atol=1e-5,
    )
