from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastdino import blocked_loss
from fastdino.reference import loss as reference

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _logits(images: int, ncrops: int, columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(images + ncrops + columns)
    student, teacher = (torch.randn(n * images, columns, generator=draw).to(dtype) for n in (ncrops, 2))
    return student, teacher, torch.randn(1, columns, generator=draw)


def _in_double(student: Tensor, teacher: Tensor, center: Tensor, ncrops: int) -> tuple[Tensor, Tensor]:
    """The reference's loss and gradient in float64."""
    exact = student.double().requires_grad_()
    loss = reference.dino_loss(exact, teacher.double(), center.double(), ncrops, 0.1, 0.04)
    (gradient,) = torch.autograd.grad(loss, exact)
    return loss.detach(), gradient


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("images", "ncrops", "columns"), [(1, 2, 3), (5, 10, 17), (3, 4, 257)])
@pytest.mark.parametrize("block", [1, 40, 2**18])
def test_equals_the_reference(
    images: int, ncrops: int, columns: int, dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked_loss, "BLOCK", block)
    student, teacher, center = _logits(images, ncrops, columns, dtype)
    expected, expected_gradient = _in_double(student, teacher, center, ncrops)
    student.requires_grad_()
    loss, _ = blocked_loss.dino_loss(student, teacher, center, ncrops, 0.1, 0.04)
    loss.backward()
    # Differences of logits of up to 4 over a temperature of 0.04 are known to 4 / 0.04 units in the last place: so are
    # the loss, however small, and probabilities, however close the student's are to the teacher's.
    wide = torch.promote_types(dtype, torch.float32)
    tolerance = 4 / 0.04 * torch.finfo(wide).eps
    assert loss.dtype == wide
    torch.testing.assert_close(loss.double(), expected, rtol=tolerance, atol=tolerance)
    assert student.grad is not None and student.grad.dtype == dtype
    # The last rounding is to the logits' own type; float16's smallest steps are absolute.
    weight = 2 / ((ncrops - 1) * 2 * images * 0.1)
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    torch.testing.assert_close(
        student.grad.double(),
        expected_gradient,
        rtol=torch.finfo(dtype).eps,
        atol=weight * tolerance + smallest,
    )


def test_entropy_is_the_references() -> None:
    student, teacher, center = _logits(3, 4, 11, torch.float64)
    _, entropy = blocked_loss.dino_loss(student.requires_grad_(), teacher, center, 4, 0.1, 0.04)
    torch.testing.assert_close(entropy, reference.teacher_entropy(teacher, center.double(), 0.04))
    assert not entropy.requires_grad


def test_what_the_loss_is_multiplied_by_multiplies_the_gradient() -> None:
    student, teacher, center = _logits(2, 3, 7, torch.float64)
    _, expected = _in_double(student, teacher, center, 3)
    (-3 * blocked_loss.dino_loss(student.requires_grad_(), teacher, center, 3, 0.1, 0.04)[0]).backward()
    torch.testing.assert_close(student.grad, -3 * expected)


def test_a_loss_scale_arrives_before_rounding_to_float16() -> None:
    student, teacher, center = _logits(4, 4, 4099, torch.float16)
    _, expected = _in_double(student, teacher, center, 4)
    student.requires_grad_()
    (2.0**15 * blocked_loss.dino_loss(student, teacher, center, 4, 0.1, 0.04)[0]).backward()
    assert student.grad is not None
    # Gradients so small that float16 has no normal numbers for them: scaled, they keep its eleven bits.
    small = (expected.abs() > 2.0**-26) & (expected.abs() < 2.0**-15)
    assert small.sum() > 1000
    torch.testing.assert_close(
        student.grad.double()[small], (expected * 2.0**15)[small], rtol=2 * torch.finfo(torch.float16).eps, atol=1e-7
    )


def test_gradients_may_be_taken_again() -> None:
    student, teacher, center = _logits(1, 3, 5, torch.float64)
    loss, _ = blocked_loss.dino_loss(student.requires_grad_(), teacher, center, 3, 0.1, 0.04)
    loss.backward(retain_graph=True)
    (2 * loss).backward(retain_graph=True)
    loss.backward()
    _, expected = _in_double(student.detach(), teacher, center, 3)
    torch.testing.assert_close(student.grad, 4 * expected)


def test_without_gradient_and_with_strided_rows() -> None:
    student, teacher, center = _logits(2, 3, 12, torch.float32)
    wide = torch.randn(6, 20)
    wide[:, :12] = student
    expected = blocked_loss.dino_loss(student, teacher, center, 3, 0.1, 0.04)[0]
    loss = blocked_loss.dino_loss(wide[:, :12], teacher, center, 3, 0.1, 0.04)[0]
    assert torch.equal(loss, expected) and not loss.requires_grad
