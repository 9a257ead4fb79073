"""The DINO loss in few launches: `dino_loss` for autograd, `dino_loss_and_gradient_` for loss and gradient at once.

Bytes of logits, with S for the student's and T for the teacher's: the statistics read S + T, the gradient reads S + T
and writes S, together 3 S + 2 T whatever the number of pairs (272 MiB for 64 images, 2 + 8 crops, 65,536 prototypes in
bfloat16). `dino_loss_and_gradient_` runs both kernels for a few images before it goes on to the next, so that the
second read finds the logits in the cache: 2 S + T (176 MiB) move to and from memory.

Sums are float32, or float64 for float64 logits. The host waits for nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastdino.kernels.dino_loss_launch import (
    Logits,
    Statistics,
    checked_logits,
    empty_aligned,
    groups,
    launch_gradient,
    launch_statistics,
    launch_totals,
)
from fastdino.kernels.launch import on_device


def dino_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    center: Tensor,
    ncrops: int,
    student_temp: float | Tensor,
    teacher_temp: float | Tensor,
    overwrite_logits: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy between teacher and student over all pairs of different views (paper, equation 3), differentiable.

    Args:
        student_logits: (ncrops * B, K), crop-major, the two global crops first; bfloat16, float16, float32 or float64,
            rows of any stride, B at most 65,535, ncrops from 2 to 18. Only they get a gradient.
        teacher_logits: (2 * B, K), of any of these types.
        center: K float32 values in any shape, contiguous, subtracted from the teacher's logits. It may be shorter than
            the logits are wide: the columns behind it are padding, which count for nothing and get the gradient 0.
        student_temp, teacher_temp: numbers, or tensors of one element on the logits' device (for CUDA graphs).
        overwrite_logits: the gradient takes the place of the student's logits, which nothing else may need then;
            PyTorch raises if something does.

    Returns:
        (loss, entropy), scalars on the logits' device in float32 (float64 for float64 logits): the mean over pairs and
        images, and the mean entropy in nats of the teacher's targets, which has no gradient.

    Between forward and backward neither the logits nor the center may change; PyTorch raises if they have.

    Raises:
        ValueError: the shapes, types or devices do not fit together.
    """
    if overwrite_logits and student_logits.requires_grad and student_logits.is_leaf:
        raise ValueError("logits that are a leaf cannot make room for their own gradient: leave overwrite_logits off")
    logits = checked_logits(student_logits, teacher_logits, center, ncrops, student_temp, teacher_temp)
    loss, entropy = _DinoLoss.apply(*logits.pointers(), ncrops, overwrite_logits)
    return loss, entropy


@torch.no_grad()
def dino_loss_and_gradient_(
    student_logits: Tensor,
    teacher_logits: Tensor,
    center: Tensor,
    ncrops: int,
    student_temp: float | Tensor,
    teacher_temp: float | Tensor,
    grad_output: float | Tensor = 1.0,
    group: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The same loss and entropy; the gradient of `grad_output` * loss takes the place of the student's logits.

    For training steps: `dino_loss_and_gradient_(logits.detach(), ...)`, then `logits.backward(logits.detach())`.

    Args:
        grad_output: number, or tensor of one element such as the scale of a gradient scaler.
        group: images whose two kernels run before those of the next images; by default as many as fit into half of the
            second-level cache.

    The other arguments, the results and the errors are those of `dino_loss`.
    """
    logits = checked_logits(student_logits, teacher_logits, center, ncrops, student_temp, teacher_temp)
    statistics = Statistics.empty(logits, ncrops)
    grad_output = on_device(grad_output, student_logits.device)
    for first, count in groups(logits, statistics.images, group):
        launch_statistics(statistics, logits, first, count)
        launch_gradient(statistics, logits, grad_output, logits.student, first, count)
    return launch_totals(statistics)


class _DinoLoss(torch.autograd.Function):
    """The gradient kernel runs in the backward pass, where the gradient that arrives is known.

    So a loss scale is applied before the rounding to float16, in which an unscaled gradient would vanish, and costs no
    pass over the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        center: Tensor,
        student_temp: Tensor,
        teacher_temp: Tensor,
        ncrops: int,
        overwrite_logits: bool,
    ) -> tuple[Tensor, Tensor]:
        logits = Logits(student, teacher, center, student_temp, teacher_temp)
        statistics = Statistics.empty(logits, ncrops)
        launch_statistics(statistics, logits)
        loss, entropy = launch_totals(statistics)
        ctx.save_for_backward(*logits.pointers(), statistics.partial)
        ctx.local_crops, ctx.overwrite_logits = statistics.local_crops, overwrite_logits
        ctx.mark_non_differentiable(entropy)
        return loss, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        *pointers, partial = ctx.saved_tensors
        logits = Logits(*pointers)
        if ctx.overwrite_logits:
            gradient = logits.student.detach()
            torch.autograd.graph.increment_version(logits.student)
        else:
            gradient = empty_aligned(logits.student)
        launch_gradient(Statistics(partial, partial.shape[0], ctx.local_crops), logits, grad_loss, gradient)
        return gradient, *(None,) * 6
