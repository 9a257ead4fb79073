"""Batches of logits, the loss of the reference in float64, and how far float32 arithmetic may be from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fastdino.reference.loss import dino_loss as reference_loss


@dataclass(frozen=True)
class Case:
    """Arguments of the loss."""

    student: Tensor
    teacher: Tensor
    center: Tensor
    ncrops: int
    student_temp: float = 0.1
    teacher_temp: float = 0.04

    def arguments(self) -> tuple[Tensor, Tensor, Tensor, int, float, float]:
        return self.student, self.teacher, self.center, self.ncrops, self.student_temp, self.teacher_temp

    def with_gradient(self) -> Case:
        return replace(self, student=self.student.detach().clone().requires_grad_())


class Expected(NamedTuple):
    """In float64."""

    loss: Tensor
    entropy: Tensor
    gradient: Tensor


class Tolerance(NamedTuple):
    """Largest absolute errors."""

    loss: float
    entropy: float
    gradient: Tensor


def make_case(
    images: int = 2,
    ncrops: int = 10,
    prototypes: int = 1000,
    dtype: torch.dtype = torch.float32,
    teacher_dtype: torch.dtype | None = None,
    scale: float = 1.0,
    center_scale: float = 1.0,
    student_temp: float = 0.1,
    teacher_temp: float = 0.04,
    seed: int = 0,
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    center_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    return Case(
        (normal(ncrops * images, prototypes) * scale).to(dtype),
        (normal(2 * images, prototypes) * scale).to(teacher_dtype or dtype),
        (normal(1, prototypes) * center_scale).to(center_dtype),
        ncrops,
        student_temp,
        teacher_temp,
    )


def expected(case: Case) -> Expected:
    """What the reference gives for these very logits, computed in float64."""
    student = case.student.detach().double().requires_grad_()
    teacher, center = case.teacher.double(), case.center.double()
    loss = reference_loss(student, teacher, center, case.ncrops, case.student_temp, case.teacher_temp)
    loss.backward()
    log_q = ((teacher - center) / case.teacher_temp).log_softmax(dim=-1)
    assert student.grad is not None
    return Expected(loss.detach(), -(log_q.exp() * log_q).sum(dim=-1).mean(), student.grad)


def tolerance(case: Case) -> Tolerance:
    """From the types' rounding and the size of the exponents.

    With u = 2^-24, the exponent z = (t - center) / temp comes out of three roundings (difference, scale, fused multiply
    and add) and so does x = s / temp of two, each of at most u times the largest |z| or |x|, or their distance to the
    maximum, which is twice that. A probability is the quotient of two such exponentials, one of them summed over at
    most log2(K) + 5 levels: its relative error is below u (2 * 3 * 2 * largest exponent + 32). The sums that make the
    loss multiply such errors by distances, whose mean is about the loss itself. The gradient's last step is one
    rounding to the logits' type.
    """
    unit = 2.0**-53 if case.student.dtype == torch.float64 else 2.0**-24
    x = case.student.detach().double() / case.student_temp
    z = (case.teacher.double() - case.center.double()) / case.teacher_temp
    relative = unit * (12 * float(x.abs().max() + z.abs().max()) + 32)
    p, q = x.softmax(dim=-1).chunk(case.ncrops), z.softmax(dim=-1).chunk(2)
    wholes = [q[1 - v] + p[v] if v < 2 else q[0] + q[1] + 2 * p[v] for v in range(case.ncrops)]
    pairs = 2 * (case.ncrops - 1) * q[0].shape[0]
    gradient = torch.cat(wholes) / (pairs * case.student_temp)
    true = expected(case)
    rounding = torch.finfo(case.student.dtype).eps / 2
    smallest = torch.finfo(case.student.dtype).smallest_normal * torch.finfo(case.student.dtype).eps
    return Tolerance(
        2 * relative * (1 + float(true.loss)),
        2 * relative * (1 + float(true.entropy)),
        relative * gradient + rounding * true.gradient.abs() + smallest + unit * gradient.max(),
    )


def relative_error(actual: Tensor, true: Tensor) -> float:
    """In the Frobenius norm."""
    return float((actual.double() - true).norm() / true.norm())
