"""DINO's loss with its center, as a module whose only state is the buffer `center`."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from fastdino import blocked_loss
from fastdino.reference import loss as reference
from fastdino.schedules import teacher_temperatures

IMPLEMENTATIONS = ("auto", "reference")


class DINOLoss(nn.Module):
    """Cross-entropy between the centered, sharpened teacher and the student (paper, equations 3 and 4).

    Args:
        out_dim: prototypes K.
        ncrops: crops per image that the student sees, the two global ones included.
        warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs, nepochs: the teacher's temperature by epoch.
        implementation: `reference` is the plain PyTorch form; `auto` takes a few images at a time on CPUs, in less time
            and memory (benchmarks/loss.py), and is the plain form elsewhere.

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
        loss, _ = self.cross_entropy(student_output, teacher_output, epoch)
        self.update_center(teacher_output)
        return loss

    def cross_entropy(self, student_output: Tensor, teacher_output: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """The loss, and the mean entropy of the teacher's targets in nats; the center stays.

        So micro-batches can share one center. The entropy is ln(out_dim) where the targets are uniform, 0 where they
        are one-hot; the loss minus it is KL(teacher || student), because each teacher view enters equally many pairs.
        """
        teacher_temp = float(self.teacher_temp_schedule[epoch])
        settings = self.center, self.ncrops, self.student_temp, teacher_temp
        if self.implementation == "auto" and student_output.device.type == "cpu":
            return blocked_loss.dino_loss(student_output, teacher_output, *settings)
        # Dividing by a temperature of 0.04 in half precision costs more digits than it has.
        student_output, teacher_output = at_least_float32(student_output), at_least_float32(teacher_output)
        loss = reference.dino_loss(student_output, teacher_output, *settings)
        return loss, reference.teacher_entropy(teacher_output, self.center, teacher_temp)

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
