"""What follows the backward pass: clipping, optimiser, center and teacher, by PyTorch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from fastdino.ema import update_teacher
from fastdino.loss import DINOLoss
from fastdino.models.multicrop import MultiCropWrapper
from fastdino.optim import cancel_gradients_last_layer, clip_gradients
from fastdino.train.precision import Precision


class StepValues(NamedTuple):
    """Where the schedules stand at one step."""

    epoch: int
    lr: float
    weight_decay: float
    momentum: float


class Update(Protocol):
    """How a step's gradients become new weights. All that a step does between two batches goes through it."""

    def weights(self) -> AbstractContextManager[None]:
        """Within it the networks compute with the weights that this update keeps for them; gradients too."""

    def start(self, batches: int) -> None:
        """Forget the gradients of the step before; those of `batches` micro-batches will add up."""

    def observe(self, bottleneck: Tensor, teacher_logits: Tensor) -> None:
        """Take of one micro-batch what the center needs: the prototypes' inputs (R, D) and outputs (R, K)."""

    def finish(self, values: StepValues, clip_grad: float, freeze_last_layer: int) -> None:
        """Move student, center and teacher."""

    def reload(self) -> None:
        """The weights were changed by others, such as a checkpoint."""


class TorchUpdate:
    """Operation by operation."""

    def __init__(
        self,
        student: MultiCropWrapper,
        teacher: MultiCropWrapper,
        dino_loss: DINOLoss,
        optimizer: Optimizer,
        precision: Precision,
        implementation: str,
    ) -> None:
        self.student, self.teacher, self.dino_loss = student, teacher, dino_loss
        self.optimizer, self.precision, self.implementation = optimizer, precision, implementation
        self._teacher_means: list[Tensor] = []

    def weights(self) -> AbstractContextManager[None]:
        """Those of the modules."""
        return nullcontext()

    def start(self, batches: int) -> None:
        """See `Update`."""
        self.optimizer.zero_grad()
        self._teacher_means = []

    def observe(self, bottleneck: Tensor, teacher_logits: Tensor) -> None:
        """See `Update`."""
        self._teacher_means.append(teacher_logits.float().mean(dim=0, keepdim=True))

    def finish(self, values: StepValues, clip_grad: float, freeze_last_layer: int) -> None:
        """See `Update`."""
        self.precision.unscale_(self.optimizer)
        if clip_grad:
            clip_gradients(self.student, clip_grad)
        cancel_gradients_last_layer(values.epoch, self.student, freeze_last_layer)
        self.precision.step(self.optimizer)
        # Micro-batches are equally large, so the mean of their means is the mean over the whole batch.
        self.dino_loss.update_center(torch.cat(self._teacher_means))
        update_teacher(self.teacher, self.student, values.momentum, self.implementation)

    def reload(self) -> None:
        """Nothing is kept of them."""
