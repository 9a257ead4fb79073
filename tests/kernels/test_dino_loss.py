"""The loss kernels against the reference in float64: values, rounding, invariants, the autograd function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastdino.kernels.dino_loss import dino_loss, dino_loss_and_gradient_
from fastdino.kernels.dino_loss_launch import why_narrow
from fastdino.reference.loss import dino_loss as reference_loss
from tests.kernels.dino_loss_cases import Case, expected, make_case, relative_error, tolerance

# What the gradient kernel computes beyond the prototypes may overflow: it is not stored.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")

HALF = (torch.bfloat16, torch.float16)


def run(case: Case, grad_output: float = 1.0, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, entropy and gradient through autograd."""
    case = case.with_gradient()
    loss, entropy = dino_loss(*case.arguments(), **options)
    (grad_output * loss).backward()
    assert case.student.grad is not None
    return loss.detach(), entropy, case.student.grad


def check(case: Case) -> None:
    loss, entropy, gradient = run(case)
    true, allowed = expected(case), tolerance(case)
    assert abs(loss - true.loss) <= allowed.loss
    assert abs(entropy - true.entropy) <= allowed.entropy
    assert ((gradient.double() - true.gradient).abs() <= allowed.gradient).all()


@settings(max_examples=40, deadline=None)
@given(
    images=st.integers(1, 3),
    ncrops=st.integers(2, 18),
    prototypes=st.one_of(st.integers(1, 40), st.sampled_from([127, 1000, 1023, 1024, 1025, 2053])),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    teacher_dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    scale=st.sampled_from([0.0, 0.1, 1.0, 30.0]),
    center_scale=st.sampled_from([0.0, 1.0, 100.0]),
    student_temp=st.sampled_from([0.01, 0.1, 1.0]),
    teacher_temp=st.sampled_from([0.01, 0.04, 0.07, 1.0]),
    seed=st.integers(0, 1000),
)
def test_any_shape_type_and_temperature(**drawn: Any) -> None:
    check(make_case(**drawn))


@pytest.mark.parametrize("ncrops", range(2, 19))
def test_every_number_of_crops(ncrops: int) -> None:
    check(make_case(images=1, ncrops=ncrops, prototypes=1500))


def test_65536_prototypes() -> None:
    check(make_case(images=1, ncrops=3, prototypes=65536, dtype=torch.bfloat16))


def test_logits_of_a_hundred() -> None:
    case = make_case(prototypes=500)
    student, teacher = (torch.where(x > 0, 100.0, -100.0) for x in (case.student, case.teacher))
    check(replace(case, student=student, teacher=teacher, student_temp=0.01, teacher_temp=0.01))


def test_float64_is_exact_to_float64() -> None:
    check(make_case(dtype=torch.float64, prototypes=1100))


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_costs_one_rounding(dtype: torch.dtype) -> None:
    case = make_case(prototypes=4096, dtype=dtype)
    true = expected(case)
    # A scale as a gradient scaler's keeps float16 clear of its subnormals, whose rounding is absolute.
    scale = 2.0**16
    _, _, gradient = run(case, scale)
    best = relative_error((true.gradient * scale).to(dtype), true.gradient * scale)
    assert relative_error(gradient, true.gradient * scale) <= 1.01 * best


def eager_bfloat16(case: Case) -> tuple[Tensor, Tensor]:
    """What autocast computes of the original's formula: the temperature divides in bfloat16, softmaxes are float32."""
    student = case.student.detach().clone().requires_grad_()
    p = (student / case.student_temp).float().log_softmax(dim=-1).chunk(case.ncrops)
    q = ((case.teacher - case.center) / case.teacher_temp).softmax(dim=-1).chunk(2)
    terms = [-(q[i] * p[v]).sum(dim=-1).mean() for i in range(2) for v in range(case.ncrops) if v != i]
    loss = torch.stack(terms).mean()
    loss.backward()
    assert student.grad is not None
    return loss.detach(), student.grad


@pytest.mark.parametrize("scale", [0.0625, 1.0, 10.0])
def test_error_is_never_above_the_eager_paths(scale: float) -> None:
    case = make_case(prototypes=4096, dtype=torch.bfloat16, scale=scale, center_scale=scale / 10)
    true = expected(case)
    loss, _, gradient = run(case)
    eager_loss, eager_gradient = eager_bfloat16(case)
    # Where the eager loss happens to be right to the last digit, float32 cannot be better.
    assert abs(loss - true.loss) <= abs(eager_loss - true.loss) + torch.finfo(torch.float32).eps * true.loss
    assert relative_error(gradient, true.gradient) <= relative_error(eager_gradient, true.gradient)
    ulp = torch.finfo(torch.bfloat16).eps * true.gradient.abs()
    errors = ((gradient.double() - true.gradient).abs(), (eager_gradient.double() - true.gradient).abs())
    assert (errors[0] <= errors[1] + ulp).all()


def test_float32_error_is_of_the_eager_paths_size() -> None:
    case = make_case(prototypes=2048, scale=3.0, student_temp=0.02)
    true = expected(case)
    student = case.student.clone().requires_grad_()
    reference_loss(student, *case.arguments()[1:]).backward()
    assert student.grad is not None
    # Both round each exponent a few times; neither is right more often, so a factor of 2 stands for luck.
    assert relative_error(run(case)[2], true.gradient) <= 2 * relative_error(student.grad, true.gradient)


# Fast mode compares one random direction instead of all entries.
@pytest.mark.parametrize(("images", "ncrops", "fast_mode"), [(1, 2, False), (1, 3, False), (2, 9, True)])
def test_gradcheck(images: int, ncrops: int, fast_mode: bool) -> None:
    case = make_case(images, ncrops, prototypes=5, dtype=torch.float64, student_temp=0.3, teacher_temp=0.2)
    student = case.student.clone().requires_grad_()

    def loss(logits: Tensor) -> Tensor:
        return 3.7 * dino_loss(logits, *case.arguments()[1:])[0]

    assert torch.autograd.gradcheck(loss, (student,), eps=1e-6, atol=1e-6, fast_mode=fast_mode)


def test_gradient_rows_sum_to_zero() -> None:
    case = make_case(prototypes=1025)
    gradient = run(case)[2]
    # K terms of float32, none larger than the sum of their sizes.
    assert (gradient.sum(dim=-1).abs() <= 2**-24 * 32 * gradient.abs().sum(dim=-1)).all()


def test_constants_added_to_rows_change_nothing() -> None:
    case = make_case()
    loss, entropy, gradient = run(case)
    # Multiples of 1/4 below 16 are added to multiples of 2^-12 below 16 without rounding.
    coarse = replace(case, **{k: (getattr(case, k) * 4096).round() / 4096 for k in ("student", "teacher", "center")})
    loss, entropy, gradient = run(coarse)
    steps = torch.arange(20)[:, None] / 4
    shifted = replace(
        coarse, student=coarse.student + steps, teacher=coarse.teacher - steps[:4], center=coarse.center + 2
    )
    others = run(shifted)
    allowed = tolerance(shifted)
    assert abs(loss - others[0]) <= allowed.loss
    assert abs(entropy - others[1]) <= allowed.entropy
    assert ((gradient - others[2]).abs() <= allowed.gradient).all()


def test_images_are_independent_bit_for_bit() -> None:
    case = make_case(images=3, ncrops=5)
    order = torch.tensor([2, 0, 1])

    def reordered(rows: Tensor) -> Tensor:
        return rows.unflatten(0, (-1, 3))[:, order].flatten(0, 1)

    other = replace(case, student=reordered(case.student), teacher=reordered(case.teacher))
    assert torch.equal(reordered(run(case)[2]), run(other)[2])


def test_local_crops_are_interchangeable() -> None:
    case = make_case(images=1, ncrops=9)
    order = torch.tensor([0, 1, 8, 7, 6, 5, 4, 3, 2])
    loss, _, gradient = run(case)
    other_loss, _, other_gradient = run(replace(case, student=case.student[order]))
    assert abs(loss - other_loss) <= tolerance(case).loss
    assert ((gradient[order] - other_gradient).abs() <= tolerance(case).gradient[order]).all()


def test_uniform_logits_give_the_logarithm_of_their_number() -> None:
    case = replace(make_case(scale=0.0, center_scale=0.0))
    loss, entropy, gradient = run(case)
    assert loss.item() == pytest.approx(math.log(1000), abs=1e-6)
    assert entropy.item() == pytest.approx(math.log(1000), abs=1e-6)
    assert gradient.abs().max() <= 2**-24 / (2 * 9 * 2 * 0.1 * 1000)


def test_a_one_hot_teacher_has_no_entropy_and_asks_for_one_prototype() -> None:
    case = make_case(images=1, ncrops=4, center_scale=0.0)
    teacher = torch.zeros(2, 1000)
    teacher[:, 7] = 100
    case = replace(case, teacher=teacher)
    loss, entropy, _ = run(case)
    # The largest exponent, 3607, is only known to its rounding.
    assert abs(entropy) <= tolerance(case).entropy
    log_p = (case.student.double() / case.student_temp).log_softmax(dim=-1)[:, 7]
    assert abs(loss + log_p @ torch.tensor([1, 1, 2, 2.0]).double() / 6) <= tolerance(case).loss


def test_a_student_that_agrees_pays_the_teachers_entropy() -> None:
    case = make_case(images=2, ncrops=4, center_scale=0.0)
    one = case.teacher[:2]
    agreeing = replace(case, student=one.repeat(4, 1) * 2.5, teacher=one.repeat(2, 1))
    loss, entropy, gradient = run(agreeing)
    assert abs(loss - entropy) <= 2 * tolerance(agreeing).loss
    assert (gradient.abs() <= tolerance(agreeing).gradient).all()


def test_a_small_loss_keeps_its_digits_among_large_logits() -> None:
    student = torch.zeros(3, 64)
    student[:, 5] = 100
    student[:, 6] = 99.99
    teacher = torch.zeros(2, 64)
    teacher[:, 5] = 100
    case = Case(student, teacher, torch.zeros(64), 3, 0.01, 0.01)
    true = expected(case).loss
    # The two exponents differ by 1, to which float32 logits of 100 give 2^-17 / 0.01; the rest is rounding of sums.
    assert abs(run(case)[0] - true) <= 16 * torch.finfo(torch.float32).eps * true


def test_rows_of_any_stride_and_mixed_types() -> None:
    case = make_case(ncrops=4, prototypes=300, dtype=torch.bfloat16, teacher_dtype=torch.float32)
    loss, entropy, gradient = run(case)
    student = torch.full((8, 700), torch.nan, dtype=torch.bfloat16)[:, 9:309].copy_(case.student).requires_grad_()
    teacher = torch.full((4, 333), torch.nan)[:, 1:301].copy_(case.teacher)
    other_loss, other_entropy = dino_loss(student, teacher, *case.arguments()[2:])
    other_loss.backward()
    assert student.grad is not None
    assert (loss, entropy) == (other_loss, other_entropy)
    assert torch.equal(gradient, student.grad)


@pytest.mark.parametrize("prototypes", [1, 1000, 1024, 1025])
def test_columns_behind_the_center_are_padding(prototypes: int) -> None:
    case = make_case(ncrops=3, prototypes=prototypes, dtype=torch.bfloat16)
    width = -(-prototypes // 8) * 8 + 8
    loss, entropy, gradient = run(case)
    pad = (0, width - prototypes)
    student, teacher = (torch.nn.functional.pad(rows, pad, value=torch.nan) for rows in (case.student, case.teacher))
    padded = run(replace(case, student=student, teacher=teacher))
    assert (loss, entropy) == padded[:2]
    assert torch.equal(gradient, padded[2][:, :prototypes])
    assert (padded[2][:, prototypes:] == 0).all()


def test_temperatures_and_scale_come_from_the_device() -> None:
    case = make_case(dtype=torch.float16)
    expected_gradient = run(case, grad_output=4096.0)[2]
    student = case.student.clone()
    temperatures = torch.tensor([[case.student_temp], [case.teacher_temp]], dtype=torch.float64)
    loss, _ = dino_loss_and_gradient_(
        student, case.teacher, case.center, case.ncrops, *temperatures, grad_output=torch.tensor(4096.0)
    )
    assert torch.equal(student, expected_gradient)
    assert loss == run(case)[0]


def test_a_loss_scale_is_applied_before_the_rounding() -> None:
    """Gradients of this size vanish in float16 unless the scale comes first."""
    case = make_case(images=4, ncrops=3, prototypes=8000, dtype=torch.float16, scale=0.002, center_scale=0.002)
    scale = 2.0**16
    true = expected(case).gradient * scale
    assert relative_error(run(case)[2] * scale, true) > 10 * relative_error(true.half(), true)
    assert relative_error(run(case, scale)[2], true) <= 1.01 * relative_error(true.half(), true)


def test_overwritten_logits_hold_the_gradient() -> None:
    case = make_case(dtype=torch.bfloat16)
    leaf = case.student.clone().requires_grad_()
    logits = leaf * 1.0
    loss, _ = dino_loss(logits, *case.arguments()[1:], overwrite_logits=True)
    loss.backward(retain_graph=True)
    assert torch.equal(leaf.grad, run(case)[2])
    assert torch.equal(logits, leaf.grad)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_overwriting_what_another_operation_needs_is_an_error() -> None:
    case = make_case()
    leaf = case.student.clone().requires_grad_()
    logits = leaf * 1.0
    other = logits.square().sum()
    loss, _ = dino_loss(logits, *case.arguments()[1:], overwrite_logits=True)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.backward()


def test_a_leaf_is_not_overwritten() -> None:
    with pytest.raises(ValueError, match="leaf"):
        dino_loss(*make_case().with_gradient().arguments(), overwrite_logits=True)


def test_a_center_that_moved_before_the_backward_pass_is_an_error() -> None:
    case = make_case().with_gradient()
    loss, _ = dino_loss(*case.arguments())
    case.center.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_loss_may_be_changed_in_place_and_entropy_has_no_gradient() -> None:
    case = make_case().with_gradient()
    loss, entropy = dino_loss(*case.arguments())
    assert not entropy.requires_grad
    loss *= 2
    loss.backward()
    assert torch.equal(case.student.grad, run(case, 2.0)[2])


def test_without_gradient_nothing_is_kept() -> None:
    case = make_case()
    with torch.no_grad():
        loss, _ = dino_loss(*case.with_gradient().arguments())
    assert loss.grad_fn is None
    assert loss == run(case)[0]


class NoWaiting(TorchDispatchMode):
    """Raises where the host would read a value from the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_host_waits_for_nothing() -> None:
    case = make_case().with_gradient()
    with NoWaiting():
        loss, _ = dino_loss(*case.arguments())
        loss.backward()
        dino_loss_and_gradient_(case.student.detach(), *case.arguments()[1:])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: replace(c, ncrops=1), "ncrops is 1; the kernels take 2 global and up to 16 local crops"),
        (lambda c: replace(c, ncrops=19), "ncrops is 19"),
        (lambda c: replace(c, ncrops=3), "20 student rows are not 3 crops each"),
        (lambda c: replace(c, teacher=c.teacher[:2]), r"shape \(2, 1000\).* it must be \(4, 1000\)"),
        (lambda c: replace(c, teacher=c.teacher[:, :9]), r"it must be \(4, 1000\)"),
        (lambda c: replace(c, student=c.student.int()), r"student's logits are torch.int32"),
        (lambda c: replace(c, teacher=c.teacher.T.contiguous().T), "teacher's logits must lie side by side"),
        (lambda c: replace(c, center=c.center.half()), "center must be contiguous float32, not torch.float16"),
        (lambda c: replace(c, center=torch.zeros(1001)), "center has 1001 values, the logits 1000 columns"),
        (lambda c: replace(c, center=torch.zeros(0)), "center has 0 values"),
        (lambda c: replace(c, student_temp=torch.ones(2)), "a scalar must be one element on cpu, not 2"),
        (lambda c: replace(c, teacher=c.teacher.to("meta")), "on cpu, meta and cpu: use one"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: Callable[[Case], Case], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dino_loss(*change(make_case()).arguments())


def test_tensors_on_the_cpu_need_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    with pytest.raises(ValueError, match="run on GPUs"):
        dino_loss(*make_case().arguments())


def test_rows_that_cannot_be_moved_in_vectors_are_explained() -> None:
    assert why_narrow(torch.zeros(2, 1000), torch.zeros(2, 1000)) is None
    assert why_narrow(torch.zeros(2, 1008)[:, :1000]) is None
    reason = why_narrow(torch.zeros(2, 1001))
    assert reason is not None and "make out_dim a multiple of 8" in reason
    assert why_narrow(torch.zeros(2, 1008)[:, 1:1001]) is not None
