"""The DINO loss in plain PyTorch, a few images at a time: what is between logits and loss stays in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits of one crop that are worked on at once: a megabyte in float32.
BLOCK = 2**18


def dino_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    center: Tensor,
    ncrops: int,
    student_temp: float,
    teacher_temp: float,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy between teacher and student over all pairs of different views (paper, equation 3), differentiable.

    One softmax a crop, however many pairs: with p_v the student's probabilities of crop v, Q_v the sum of the teacher's
    over the other global crops, n_v the number of those and N all pairs, the loss is -sum_v Q_v log p_v / N and its
    gradient (n_v p_v - Q_v) / (N student_temp), which is at hand where the loss is. Beside the gradient it takes memory
    for some images, not for the batch.

    Args:
        student_logits: (ncrops * B, K), crop-major, the two global crops first. Only they get a gradient.
        teacher_logits: (2 * B, K).
        center: (1, K) or (K,), subtracted from the teacher's logits.

    Returns:
        (loss, entropy), scalars in float32 (float64 for float64 logits): the mean over pairs and images, and the mean
        entropy in nats of the teacher's targets, which has no gradient.
    """
    loss, entropy = _DinoLoss.apply(student_logits, teacher_logits, center, ncrops, student_temp, teacher_temp)
    return loss, entropy


class _DinoLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        center: Tensor,
        ncrops: int,
        student_temp: float,
        teacher_temp: float,
    ) -> tuple[Tensor, Tensor]:
        gradient = None
        if ctx.needs_input_grad[0]:
            # float16 could not hold it before a loss scale is applied.
            kept = torch.float32 if student.dtype == torch.float16 else student.dtype
            gradient = torch.empty(student.shape, dtype=kept, device=student.device)
        loss = student.new_zeros((), dtype=torch.float64)
        entropy = torch.zeros_like(loss)
        pairs = (ncrops - 1) * len(teacher)
        views, globals_ = student.unflatten(0, (ncrops, -1)), teacher.unflatten(0, (2, -1))
        for images in _blocks(views):
            logits = (_wide(globals_[:, images]) - center.reshape(-1)).div_(teacher_temp)
            targets = logits.softmax(dim=-1)
            entropy += _cross_entropy(targets, logits)[0]
            both = targets.sum(dim=0)
            for number, view in enumerate(views):
                answers, target = (1, targets[1 - number]) if number < 2 else (2, both)
                view_loss, exponentials, totals = _cross_entropy(target, _wide(view[images]) / student_temp, answers)
                loss += view_loss
                if gradient is not None:
                    # The difference cancels: it is taken before it is rounded to the logits' type.
                    probabilities = exponentials.mul_(answers / totals)
                    difference = probabilities.sub_(target).mul_(1 / (pairs * student_temp))
                    gradient.unflatten(0, (ncrops, -1))[number, images] = difference
        ctx.save_for_backward(gradient)
        ctx.dtype = student.dtype
        entropy = (entropy / len(teacher)).to(_wide_type(student))
        ctx.mark_non_differentiable(entropy)
        return (loss / pairs).to(_wide_type(student)), entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        # A pass over memory less. Only where it costs no waiting for a device is it worth a look.
        if grad_loss.device.type != "cpu" or grad_loss != 1:
            gradient = gradient * grad_loss
        return gradient.to(ctx.dtype), None, None, None, None, None


def _blocks(views: Tensor) -> Iterator[slice]:
    """The images of (ncrops, B, K) logits, some at a time."""
    _, count, columns = views.shape
    images = max(1, BLOCK // columns)
    return (slice(first, first + images) for first in range(0, count, images))


def _cross_entropy(targets: Tensor, logits: Tensor, answers: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Of rows whose targets add up to `answers`: the cross-entropies' sum, and the softmax before it is divided.

    Returns:
        The sum of -targets . log softmax(logits) in float64, exponentials that take the place of the logits, and their
        sums (rows, 1).
    """
    dot = torch.dot(targets.reshape(-1), logits.reshape(-1))
    largest = logits.amax(dim=-1, keepdim=True)
    exponentials = logits.sub_(largest).exp_()
    totals = exponentials.sum(dim=-1, keepdim=True)
    return answers * (largest + totals.log()).sum(dtype=torch.float64) - dot, exponentials, totals


def _wide(logits: Tensor) -> Tensor:
    return logits.to(_wide_type(logits))


def _wide_type(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)
