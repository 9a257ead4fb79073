"""A whole training step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.side_by_side import Pair, SideBySide
from fastdino import TrainConfig
from fastdino.train.build import build_trainee
from fastdino.train.step import StepValues, train_step

VALUES = StepValues(epoch=1, lr=5e-4, weight_decay=0.04, momentum=0.996)


def test_step(pair: Pair, side_by_side: SideBySide) -> None:
    torch.manual_seed(0)
    crops = [torch.randn(pair.images, 3, size, size, device=pair.device) for size in [224] * 2 + [96] * 8]

    def of(implementation: str) -> Callable[[], Tensor]:
        config = TrainConfig(
            arch="vit_tiny", out_dim=16384, drop_path_rate=0.0, precision="fp32", implementation=implementation
        )
        trainee = build_trainee(config, pair.device)

        def step() -> Tensor:
            return torch.stack(train_step(trainee, [crops], VALUES, 3.0, 1))

        # So that what is compared, the second step's loss, knows of the first one's update.
        step()
        return step

    # AdamW's first steps amplify rounding where a gradient is near 0.
    side_by_side(of(pair.ours), of(pair.reference), rtol=1e-3, atol=0)
