"""The loss with its gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.side_by_side import Pair, SideBySide
from fastdino import DINOLoss

CROPS, PROTOTYPES = 10, 65536


def test_loss(pair: Pair, side_by_side: SideBySide) -> None:
    def of(implementation: str) -> Callable[[], tuple[Tensor, Tensor]]:
        torch.manual_seed(0)
        # Like products of unit vectors of 256 random numbers.
        student, teacher = (
            torch.randn(crops * pair.images, PROTOTYPES, device=pair.device) / 16 for crops in (CROPS, 2)
        )
        student.requires_grad_()
        dino_loss = DINOLoss(PROTOTYPES, CROPS, 0.04, 0.04, 0, 1, implementation=implementation).to(pair.device)

        def forward_and_backward() -> tuple[Tensor, Tensor]:
            loss = dino_loss(student, teacher, 0)
            (gradient,) = torch.autograd.grad(loss, student)
            return loss.detach(), gradient

        return forward_and_backward

    # Gradients are differences of two terms of up to 1e-3, each right to some ten roundings of 6e-8.
    side_by_side(of(pair.ours), of(pair.reference), rtol=1e-5, atol=1e-9)
