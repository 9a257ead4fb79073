"""The DINO loss from features and prototypes: the logits exist a slice of columns at a time, and are never stored.

The columns are cut, not the rows: a prototype has few numbers (256) and there are many prototypes (65,536), so that a
slice of all rows uses each prototype once. Two sweeps go over the slices. The first computes their logits and the
statistics of dino_loss, the second, in the backward pass, computes the logits again, their gradient in their place, and
from it the gradients of the features, summed in float32, and of the slice's prototypes, written once. Products are
written to given memory, which autocast leaves alone.

Beyond features, prototypes and their gradients this needs the logits of one slice, by default half of the second-level
cache, instead of those of all prototypes, and moves the prototypes once per product instead of the logits. It costs the
products of the forward pass once more, so it pays where memory is short: with large batches. All sums have a fixed
order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastdino.kernels import launch
from fastdino.kernels.dino_loss_launch import (
    COLUMNS_PER_THREAD,
    Logits,
    Statistics,
    block_columns,
    cache_bytes,
    checked_logits,
    launch_gradient,
    launch_statistics,
    launch_totals,
)


def cut_dino_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    student_prototypes: Tensor,
    teacher_prototypes: Tensor,
    center: Tensor,
    ncrops: int,
    student_temp: float | Tensor,
    teacher_temp: float | Tensor,
    columns: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Equal to `dino_loss(student_features @ student_prototypes.T, teacher_features @ teacher_prototypes.T, ...)`.

    Args:
        student_features: (ncrops * B, D), crop-major, bfloat16, float16, float32 or float64.
        teacher_features: (2 * B, D); they and the teacher's prototypes get no gradient.
        student_prototypes, teacher_prototypes: (K, D), the weights that apply (normalised rows), all of the features'
            type.
        center: K float32 values in any shape, contiguous.
        student_temp, teacher_temp: numbers, or tensors of one element on the device.
        columns: prototypes at a time, rounded up to whole blocks of the kernels; by default as many as have their
            logits in half of the second-level cache.

    Returns:
        (loss, entropy) as from `dino_loss`. The gradients have the types of what they belong to.

    Until the backward pass features, prototypes and center may not change; PyTorch raises if they have.

    Raises:
        ValueError: the shapes, types or devices do not fit together.
    """
    _check(student_features, teacher_features, student_prototypes, teacher_prototypes, center)
    rows = student_features.shape[0] + teacher_features.shape[0]
    if columns is None:
        columns = cache_bytes(student_features.device) // 2 // (rows * student_features.element_size())
    block = block_columns(launch.warp_size())
    columns = max(1, triton.cdiv(columns, block)) * block
    loss, entropy = _CutDinoLoss.apply(
        student_features,
        student_prototypes,
        teacher_features.detach(),
        teacher_prototypes.detach(),
        center.detach().view(-1),
        launch.on_device(student_temp, center.device),
        launch.on_device(teacher_temp, center.device),
        ncrops,
        columns,
    )
    return loss, entropy


class _Slices:
    """Computes the logits of one slice of prototypes after the other, each in the place of the one before."""

    def __init__(self, ncrops: int, columns: int, operands: tuple[Tensor, ...]) -> None:
        self.ncrops, self.columns = ncrops, columns
        self.student, self.student_prototypes, self.teacher, self.teacher_prototypes, *self.rest = operands
        self.starts = range(0, self.student_prototypes.shape[0], columns)
        self._room = [features.new_empty(features.shape[0] * columns) for features in (self.student, self.teacher)]

    def logits(self, start: int) -> Logits:
        """Those of the prototypes from `start`, in rows that end at 16-byte boundaries."""
        center, *temperatures = self.rest
        center = center[start : start + self.columns]
        operands = ((self.student, self.student_prototypes), (self.teacher, self.teacher_prototypes))
        width = triton.cdiv(center.numel(), COLUMNS_PER_THREAD) * COLUMNS_PER_THREAD
        both = []
        for room, (features, prototypes) in zip(self._room, operands, strict=True):
            logits = room[: features.shape[0] * width].view(-1, width)
            torch.mm(features, prototypes[start : start + self.columns].T, out=logits[:, : center.numel()])
            both.append(logits)
        return checked_logits(*both, center, self.ncrops, *temperatures)


class _CutDinoLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *operands, ncrops, columns = arguments
        slices = _Slices(ncrops, columns, tuple(operands))
        statistics = None
        for start in slices.starts:
            logits = slices.logits(start)
            statistics = statistics or Statistics.empty(logits, ncrops, slices.student_prototypes.shape[0])
            launch_statistics(statistics, logits, first_slice=start // block_columns(launch.warp_size()))
        assert statistics is not None
        loss, entropy = launch_totals(statistics)
        ctx.save_for_backward(*operands, statistics.partial)
        ctx.ncrops, ctx.columns = ncrops, columns
        ctx.mark_non_differentiable(entropy)
        return loss, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        *operands, partial = ctx.saved_tensors
        slices = _Slices(ctx.ncrops, ctx.columns, tuple(operands))
        statistics = Statistics(partial, partial.shape[0], ctx.ncrops - 2)
        features, prototypes = slices.student, slices.student_prototypes
        wants_features, wants_prototypes, *_rest = ctx.needs_input_grad
        of_features = torch.zeros(features.shape, dtype=partial.dtype, device=features.device)
        of_slice = torch.empty_like(features)
        of_prototypes = torch.empty_like(prototypes) if wants_prototypes else None
        for start in slices.starts:
            logits = slices.logits(start)
            launch_gradient(statistics, logits, grad_loss, logits.student)
            gradient = logits.student[:, : logits.center.numel()]
            if wants_features:
                of_features += torch.mm(gradient, prototypes[start : start + slices.columns], out=of_slice)
            if of_prototypes is not None:
                torch.mm(gradient.T, features, out=of_prototypes[start : start + slices.columns])
        return of_features.to(features.dtype) if wants_features else None, of_prototypes, *(None,) * 7


def _check(
    student_features: Tensor,
    teacher_features: Tensor,
    student_prototypes: Tensor,
    teacher_prototypes: Tensor,
    center: Tensor,
) -> None:
    """What `checked_logits` cannot see in the logits."""
    operands = (student_features, teacher_features, student_prototypes, teacher_prototypes)
    if any(x.dim() != 2 or x.shape[1] != student_features.shape[1] for x in operands):
        shapes = ", ".join(str(tuple(x.shape)) for x in operands)
        raise ValueError(f"features and prototypes must be matrices of equally many columns, not {shapes}")
    if len({x.dtype for x in operands}) > 1 or len({x.device for x in (*operands, center)}) > 1:
        raise ValueError("features and prototypes must have one type and, with the center, one device")
    if not student_prototypes.shape[0] == teacher_prototypes.shape[0] == center.numel():
        raise ValueError(
            f"student, teacher and center have {student_prototypes.shape[0]}, {teacher_prototypes.shape[0]} and "
            f"{center.numel()} prototypes; they must have equally many"
        )
