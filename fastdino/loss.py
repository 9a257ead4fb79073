"""DINO's loss with its center, as a module whose only state is the buffer `center`."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from fastdino import blocked_loss
from fastdino import implementation as implementations
from fastdino.reference import loss as reference
from fastdino.schedules import teacher_temperatures


class DINOLoss(nn.Module):
    """Cross-entropy between the centered, sharpened teacher and the student (paper, equations 3 and 4).

    Args:
        out_dim: prototypes K.
        ncrops: crops per image that the student sees, the two global ones included.
        warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs, nepochs: the teacher's temperature by epoch.
        implementation: `reference` is the plain form; `torch` takes a few images at a time, in less time and memory
            (benchmarks/loss.py); `triton` are two kernels; `auto` is what implementation.choose takes.

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
        if implementation not in implementations.IMPLEMENTATIONS:
            raise ValueError(
                f"implementation must be one of {', '.join(implementations.IMPLEMENTATIONS)}, not {implementation!r}"
            )
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
        chosen = self.chosen(student_output.device)
        if chosen == "triton":
            # `forward` moves the center before the backward pass comes back to it.
            settings = self.center.clone(), *self._settings(epoch)
            return implementations.kernels("dino_loss").dino_loss(student_output, teacher_output, *settings)
        settings = self.center, *self._settings(epoch)
        if chosen == "torch":
            return blocked_loss.dino_loss(student_output, teacher_output, *settings)
        # Dividing by a temperature of 0.04 in half precision costs more digits than it has.
        student_output, teacher_output = at_least_float32(student_output), at_least_float32(teacher_output)
        loss = reference.dino_loss(student_output, teacher_output, *settings)
        return loss, reference.teacher_entropy(teacher_output, self.center, settings[-1])

    def backward(
        self, student_output: Tensor, teacher_output: Tensor, epoch: int, scale: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """The same two, once the gradient of `scale` times the loss has gone back through `student_output`.

        With `triton` the gradient takes the place of the student's logits, whose values are gone then, and columns
        behind the center's are padding.
        """
        if self.chosen(student_output.device) == "triton":
            gradient = student_output.detach()
            values = implementations.kernels("dino_loss").dino_loss_and_gradient_(
                gradient, teacher_output, self.center, *self._settings(epoch), scale
            )
            student_output.backward(gradient)
            return values
        loss, entropy = self.cross_entropy(student_output, teacher_output, epoch)
        (loss * scale).backward()
        return loss.detach(), entropy

    def chosen(self, device: torch.device) -> str:
        """The implementation for logits on `device`."""
        return implementations.choose(implementations.LOSS, self.implementation, device).name

    def _settings(self, epoch: int) -> tuple[int, float, float]:
        return self.ncrops, self.student_temp, float(self.teacher_temp_schedule[epoch])

    @torch.no_grad()
    def update_center(self, teacher_output: Tensor) -> None:
        """Move the center towards the mean of `teacher_output` (R, out_dim) over all rows and ranks (equation 4)."""
        mean = at_least_float32(teacher_output).mean(dim=0, keepdim=True)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(mean)
            mean /= distributed.get_world_size()
        self.move_center(mean)

    @torch.no_grad()
    def move_center(self, mean: Tensor) -> None:
        """Move the center towards `mean` (1, out_dim), that of all rows on all ranks."""
        self.center.lerp_(mean, 1 - self.center_momentum)


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
