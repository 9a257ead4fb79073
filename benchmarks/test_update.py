"""What follows the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor

from benchmarks.side_by_side import Pair, SideBySide
from fastdino import TrainConfig, update_teacher
from fastdino.optim import clip_gradients
from fastdino.reference import ema as reference_ema
from fastdino.reference import optim as reference_optim
from fastdino.train.build import build_trainee
from fastdino.train.step import Trainee, set_schedules
from fastdino.train.update import StepValues

CPU = torch.device("cpu")
PROTOTYPES = 16384
VALUES, CLIP = StepValues(epoch=1, lr=5e-4, weight_decay=0.04, momentum=0.996), 3.0
# A bound on the few float32 roundings of values below 4.
ROUNDINGS = {"rtol": 1e-6, "atol": 1e-6}


def trainee(device: torch.device, implementation: str = "auto") -> tuple[Trainee, list[Tensor]]:
    """A ViT-tiny with its head, whose teacher has other weights, and a gradient for each of the student's."""
    torch.manual_seed(0)
    config = TrainConfig(arch="vit_tiny", out_dim=PROTOTYPES, precision="fp32", implementation=implementation)
    made = build_trainee(config, device)
    for parameter in made.teacher.parameters():
        parameter.data.add_(0.01)
    return made, [torch.randn_like(p).mul_(1e-3) for p in made.student.parameters()]


def test_teacher(pair: Pair, side_by_side: SideBySide) -> None:
    def of(implementation: str) -> Callable[[], list[Tensor]]:
        made, _ = trainee(pair.device)

        def update() -> list[Tensor]:
            update_teacher(made.teacher, made.student, VALUES.momentum, implementation)
            return list(made.teacher.parameters())

        return update

    side_by_side(of(pair.ours), of(pair.reference), **ROUNDINGS)


def test_clipping(side_by_side: SideBySide) -> None:
    def of(implementation: str) -> Callable[[], list[Tensor]]:
        made, gradients = trainee(CPU)
        for parameter, gradient in zip(made.student.parameters(), gradients, strict=True):
            parameter.grad = gradient
        # Each smaller than the one before, which the gradients have been clipped to.
        bounds = (0.01 * 0.9**number for number in count())

        def clip() -> list[Tensor]:
            clip_gradients(made.student, next(bounds), implementation)
            return gradients

        return clip

    # Norms are sums of up to four million squares.
    side_by_side(of("auto"), of("reference"), rtol=1e-5, atol=0)


def test_clipping_optimiser_and_teacher(pair: Pair, side_by_side: SideBySide) -> None:
    def of(implementation: str) -> Callable[[], list[Tensor]]:
        made, gradients = trainee(pair.device, implementation)
        bottleneck, logits = torch.randn(8, 256, device=pair.device), torch.randn(8, PROTOTYPES, device=pair.device)
        set_schedules(made.optimizer, VALUES)

        def move() -> list[Tensor]:
            made.update.start(1)
            for parameter, gradient in zip(made.student.parameters(), gradients, strict=True):
                parameter.grad = gradient
            if implementation == "reference":
                reference_optim.clip_gradients(made.student, CLIP)
                made.optimizer.step()
                reference_ema.update_teacher(made.teacher, made.student, VALUES.momentum)
            else:
                made.update.observe(bottleneck, logits)
                made.update.finish(VALUES, CLIP, 0)
            return [*made.student.parameters(), *made.teacher.parameters()]

        return move

    side_by_side(of(pair.ours), of(pair.reference), **ROUNDINGS)
