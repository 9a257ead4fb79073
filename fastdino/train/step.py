"""One optimiser step of DINO: the paper's Algorithm 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from fastdino.ema import update_teacher
from fastdino.loss import DINOLoss
from fastdino.models.multicrop import MultiCropWrapper
from fastdino.optim import cancel_gradients_last_layer, clip_gradients
from fastdino.train.precision import Precision


@dataclass
class Trainee:
    """All that a step changes: two networks, the center inside the loss, the optimiser and the loss scale."""

    student: MultiCropWrapper
    teacher: MultiCropWrapper
    dino_loss: DINOLoss
    optimizer: Optimizer
    precision: Precision


class StepValues(NamedTuple):
    """Where the schedules stand at one step."""

    epoch: int
    lr: float
    weight_decay: float
    momentum: float


class StepMetrics(NamedTuple):
    """Scalars on the training device, so that reading them is the caller's choice.

    `teacher_entropy` is in nats, `feature_std` the mean over channels of the normalised teacher features' deviation
    over the batch, times sqrt(channels): near 1 for spread features, 0 when they have collapsed.
    """

    loss: Tensor
    teacher_entropy: Tensor
    feature_std: Tensor


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
    """
    student, teacher, dino_loss, optimizer, precision = vars(trainee).values()
    set_schedules(optimizer, values)
    optimizer.zero_grad()
    teacher_means, metrics = [], []
    for crops in batches:
        with precision.autocast():
            with torch.no_grad():
                teacher_features = teacher.features(crops[:2])
                teacher_logits = teacher.head(teacher_features)
            student_logits = student(crops)
        loss, entropy = dino_loss.cross_entropy(student_logits, teacher_logits, values.epoch)
        precision.scale(loss / len(batches)).backward()
        metrics.append(torch.stack((loss.detach(), entropy, feature_std(teacher_features))))
        teacher_means.append(teacher_logits.float().mean(dim=0, keepdim=True))

    precision.unscale_(optimizer)
    if clip_grad:
        clip_gradients(student, clip_grad)
    cancel_gradients_last_layer(values.epoch, student, freeze_last_layer)
    precision.step(optimizer)
    # Micro-batches are equally large, so the mean of their means is the mean over the whole batch.
    dino_loss.update_center(torch.cat(teacher_means))
    update_teacher(teacher, student, values.momentum)
    return StepMetrics(*torch.stack(metrics).mean(dim=0))


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
