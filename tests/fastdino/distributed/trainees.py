"""A small network and its pictures, of which each of several processes takes its part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastdino import DINOHead, DINOLoss, MultiCropWrapper, VisionTransformer
from fastdino.distributed.parts import whole
from fastdino.distributed.sharding import shard
from fastdino.distributed.world import ALONE, World
from fastdino.optim import build_optimizer
from fastdino.train.precision import Precision
from fastdino.train.step import StepValues, Trainee, train_step

CPU = torch.device("cpu")
PICTURES = 8
# AdamW divides a gradient by its size. One that is all rounding (the keys' biases move all of a row's scores alike) it
# would make a whole step of; with this eps it stays rounding. Gradients are clipped at 0.3, so two orders of adding up
# differ by about 0.3 * 2**-24 = 2e-8, which eps turns into 2e-4 of a learning rate: 20 steps of 2e-3 make 7e-6.
EPS = 1e-4
TOLERANCE = 1e-5
# float64 rounds 2**29 times more finely, which makes 2e-14 of it. What is more than rounding does not shrink with it.
TOLERANCE_OF_DOUBLE = 1e-12


class Case(NamedTuple):
    """One way to train."""

    implementation: str = "torch"
    precision: str = "fp32"
    norm_last_layer: bool = True
    micro_batches: int = 1
    sharded: bool = False
    steps: int = 20
    double: bool = False


class Outcome(NamedTuple):
    """The losses of all steps, and all weights and the center afterwards."""

    losses: list[float]
    weights: dict[str, npt.NDArray[np.float32]]


def make_trainee(case: Case, world: World = ALONE) -> Trainee:
    """61 prototypes do not fill whole 16 bytes."""
    torch.manual_seed(0)

    def network(norm: bool) -> MultiCropWrapper:
        backbone = VisionTransformer(img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=3)
        return MultiCropWrapper(backbone, DINOHead(24, 61, False, norm, hidden_dim=40, bottleneck_dim=32))

    student, teacher = network(case.norm_last_layer), network(True).requires_grad_(False)
    teacher.load_state_dict(student.state_dict())
    dtype = dtype_of(case)
    student.to(dtype)
    teacher.to(dtype)
    if case.sharded:
        shard(student, teacher, world)
    # Each process's own, and slow where Triton is interpreted. A warm teacher keeps it away from 0.
    loss = DINOLoss(61, 3, 0.1, 0.1, 0, 10, implementation="torch").to(dtype)
    optimizer = build_optimizer("adamw", student)
    for group in optimizer.param_groups:
        group["eps"] = EPS
    precision = Precision(case.precision, CPU)
    return Trainee(student, teacher, loss, optimizer, precision, case.implementation, world)


def dtype_of(case: Case) -> torch.dtype:
    """Of weights and crops."""
    return torch.float64 if case.double else torch.float32


def train(trainee: Trainee, case: Case) -> Outcome:
    """The prototypes are frozen in the first step, as in a first epoch."""
    losses = []
    for step in range(case.steps):
        values = StepValues(epoch=int(step > 0), lr=2e-3, weight_decay=0.1, momentum=0.9)
        metrics = train_step(trainee, micro_batches(step, case, trainee.world), values, 0.3, 1)
        losses.append(trainee.world.mean(metrics.loss).item())
    return Outcome(losses, weights(trainee))


def micro_batches(step: int, case: Case, world: World) -> list[list[Tensor]]:
    """This process's part of each of a step's micro-batches."""
    generator = torch.Generator().manual_seed(step)
    crops = [torch.randn(PICTURES, 3, size, size, generator=generator).to(dtype_of(case)) for size in (16, 16, 8)]
    batches = zip(*(crop.chunk(case.micro_batches) for crop in crops), strict=True)
    return [[crop.chunk(world.size)[world.rank] for crop in batch] for batch in batches]


def weights(trainee: Trainee) -> dict[str, npt.NDArray[np.float32]]:
    """Of both networks and the center, whole."""
    parts = {"student": trainee.student, "teacher": trainee.teacher, "loss": trainee.dino_loss}
    return {
        f"{name}.{key}": x.numpy().copy() for name, of in parts.items() for key, x in whole(of.state_dict()).items()
    }


def farthest(first: Outcome, second: Outcome) -> tuple[float, float]:
    """The largest relative difference of a loss, and the largest difference of a weight."""
    losses = max(abs(a - b) / abs(b) for a, b in zip(first.losses, second.losses, strict=True))
    return losses, max(float(np.abs(first.weights[key] - second.weights[key]).max()) for key in second.weights)
