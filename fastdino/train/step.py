"""One optimiser step of DINO: the paper's Algorithm 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from fastdino import implementation as implementations
from fastdino.distributed.parts import is_split
from fastdino.distributed.world import ALONE, World
from fastdino.loss import DINOLoss
from fastdino.models.head import DINOHead
from fastdino.models.multicrop import MultiCropWrapper
from fastdino.train.guards import MicroBatchTooLarge, memory_shortage_as
from fastdino.train.precision import Precision
from fastdino.train.update import StepValues, TorchUpdate, Update


def nothing() -> None:
    """Nobody has to know."""


@dataclass
class Trainee:
    """All that a step changes: two networks, the center inside the loss, the optimiser and the loss scale.

    `before_update` is called in each step before weights, moments or center move.
    """

    student: MultiCropWrapper
    teacher: MultiCropWrapper
    dino_loss: DINOLoss
    optimizer: Optimizer
    precision: Precision
    implementation: str = "auto"
    world: World = ALONE
    before_update: Callable[[], None] = nothing

    @cached_property
    def update(self) -> Update:
        """Made for the first step: it may move the weights to another place, where they stay."""
        parts = self.student, self.teacher, self.dino_loss, self.optimizer, self.precision
        choice = implementations.choose(implementations.UPDATE, self.implementation, self.precision.device)
        if choice.name == "triton" and type(self.optimizer) is AdamW and not is_split(next(self.student.parameters())):
            from fastdino.train.fused_update import FusedUpdate

            return FusedUpdate(*parts, self.world)
        return TorchUpdate(*parts, self.implementation, self.world)

    def reload(self) -> None:
        """To be called after weights were changed from outside, as by a checkpoint."""
        if "update" in vars(self):
            self.update.reload()


class StepMetrics(NamedTuple):
    """Scalars on the training device, so that reading them is the caller's choice.

    `teacher_entropy` is in nats, `feature_std` the mean over channels of the normalised teacher features' deviation
    over the batch, times sqrt(channels): near 1 for spread features, 0 when they have collapsed. `skipped` is
    1 where nothing moved because the loss or a gradient was no finite number.
    """

    loss: Tensor
    teacher_entropy: Tensor
    feature_std: Tensor
    skipped: Tensor


def train_step(
    trainee: Trainee,
    batches: Sequence[list[Tensor]],
    values: StepValues,
    clip_grad: float,
    freeze_last_layer: int,
) -> StepMetrics:
    """Teacher and student forward, loss, student's update, center, teacher's update.

    Args:
        batches: micro-batches of crops whose gradients are averaged into this step; each is a list of ncrops tensors
            (B, 3, size, size), the two global crops first.
        clip_grad: largest L2 norm of each gradient tensor; 0 for none.
        freeze_last_layer: epochs in which the prototypes stay fixed.

    Raises MicroBatchTooLarge if memory runs out before anything has moved.
    """
    set_schedules(trainee.optimizer, values)
    with memory_shortage_as(MicroBatchTooLarge):
        figures = backpropagate(trainee, batches, values.epoch)
    trainee.before_update()
    skipped = trainee.update.finish(values, clip_grad, freeze_last_layer, figures[0])
    return StepMetrics(*torch.cat((figures, skipped.to(figures.dtype)[None])))


def backpropagate(trainee: Trainee, batches: Sequence[list[Tensor]], epoch: int) -> Tensor:
    """The part of `train_step` that leaves weights and center alone; returns the first three of its figures (3,)."""
    teacher, dino_loss, precision = trainee.teacher, trainee.dino_loss, trainee.precision
    update, teacher_head = trainee.update, cast(DINOHead, teacher.head)
    update.start(len(batches))
    metrics = []
    for index, crops in enumerate(batches):
        with update.weights(last=index == len(batches) - 1):
            with precision.autocast():
                with torch.no_grad():
                    teacher_features = teacher.features(crops[:2])
                    bottleneck = teacher_head.bottleneck(teacher_features)
                    teacher_logits = teacher_head.last_layer(bottleneck)
                student_logits = update.forward(crops)
            update.observe(bottleneck, teacher_logits)
            scale = precision.loss_scale() / len(batches)
            loss, entropy = dino_loss.backward(student_logits, teacher_logits, epoch, scale)
        metrics.append(torch.stack((loss, entropy, feature_std(teacher_features))))
    return torch.stack(metrics).mean(dim=0)


def set_schedules(optimizer: Optimizer, values: StepValues) -> None:
    """The learning rate of both groups, and the weight decay of the regularised one."""
    for group in optimizer.param_groups:
        group["lr"] = values.lr
    optimizer.param_groups[0]["weight_decay"] = values.weight_decay


@torch.no_grad()
def feature_std(features: Tensor) -> Tensor:
    """(R, C) -> scalar: see `StepMetrics`."""
    normalised = torch.nn.functional.normalize(features.float(), dim=-1)
    return normalised.std(dim=0, correction=0).mean() * features.shape[-1] ** 0.5
