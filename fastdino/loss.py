"""DINO's loss with its center, as a module whose only state is the buffer `center`."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from fastdino import blocked_loss
from fastdino.reference.loss import dino_loss
from fastdino.schedules import teacher_temperatures

IMPLEMENTATIONS = ("auto", "blocked", "reference")


class DINOLoss(nn.Module):
    """Cross-entropy between the centered, sharpened teacher and the student (paper, equations 3 and 4).

    Args:
        out_dim: prototypes K.
        ncrops: crops per image that the student sees, the two global ones included.
        warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs, nepochs: the teacher's temperature by epoch.
        implementation: `auto` and `reference` are the plain PyTorch form; `blocked` takes a few images at a time, in
            less than half the time and a fifth of the memory where batches and K are large (benchmarks/loss.py).

    Raises ValueError for an unknown implementation or a warm-up longer than the training.
    """

    center: Tensor

    def __init__(
        self,
        out_dim: int,
        ncrops: int,
        warmup_teacher_temp: float,
        teacher_temp: float,
        warmup_teacher_temp_epochs: int,
        nepochs: int,
        student_temp: float = 0.1,
        center_momentum: float = 0.9,
        implementation: str = "auto",
    ) -> None:
        super().__init__()
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, not {implementation!r}")
        self.implementation = implementation
        self.ncrops = ncrops
        self.student_temp = student_temp
        self.center_momentum = center_momentum
        self.teacher_temp_schedule = teacher_temperatures(
            warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs, nepochs
        )
        self.register_buffer("center", torch.zeros(1, out_dim))

    def forward(self, student_output: Tensor, teacher_output: Tensor, epoch: int) -> Tensor:
        """Loss of one batch, after which the center moves.

        Args:
            student_output: logits (ncrops * B, out_dim), crop-major.
            teacher_output: logits (2 * B, out_dim) of the global crops.
            epoch: index into the temperature schedule.

        Returns:
            Scalar, float32 for half-precision logits.
        """
        loss = self.cross_entropy(student_output, teacher_output, epoch)
        self.update_center(teacher_output)
        return loss

    def cross_entropy(self, student_output: Tensor, teacher_output: Tensor, epoch: int) -> Tensor:
        """The loss alone; the center stays (for micro-batches that share one center)."""
        teacher_temp = float(self.teacher_temp_schedule[epoch])
        if self.implementation == "blocked":
            return blocked_loss.dino_loss(
                student_output, teacher_output, self.center, self.ncrops, self.student_temp, teacher_temp
            )[0]
        # Dividing by a temperature of 0.04 in half precision costs more digits than it has.
        return dino_loss(
            at_least_float32(student_output),
            at_least_float32(teacher_output),
            self.center,
            self.ncrops,
            self.student_temp,
            teacher_temp,
        )

    @torch.no_grad()
    def teacher_entropy(self, teacher_output: Tensor, epoch: int) -> Tensor:
        """Mean entropy in nats of the teacher's targets: ln(out_dim) when they are uniform, 0 when one-hot.

        The loss minus this is KL(teacher || student), because each teacher view enters equally many pairs.
        """
        logits = (at_least_float32(teacher_output) - self.center) / float(self.teacher_temp_schedule[epoch])
        log_q = logits.log_softmax(dim=-1)
        return -(log_q.exp() * log_q).sum(dim=-1).mean()

    @torch.no_grad()
    def update_center(self, teacher_output: Tensor) -> None:
        """Move the center towards the mean of `teacher_output` (R, out_dim) over all rows and ranks (equation 4)."""
        mean = at_least_float32(teacher_output).mean(dim=0, keepdim=True)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(mean)
            mean /= distributed.get_world_size()
        self.center.lerp_(mean, 1 - self.center_momentum)


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
