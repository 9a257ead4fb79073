"""The loss without stored logits against the reference in float64, and against the loss with stored logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu_proofs.interpreter import shuffled_programs
from benchmarks.gpu_proofs.probe import Probe
from fastdino.kernels.cut_dino_loss import cut_dino_loss
from fastdino.kernels.dino_loss import dino_loss
from fastdino.reference.loss import dino_loss as reference_loss
from tests.kernels.dino_loss_cases import relative_error


@dataclass(frozen=True)
class Head:
    """Arguments of the loss; features and prototypes have rows of length 1, as in DINO's head."""

    student: Tensor
    teacher: Tensor
    student_prototypes: Tensor
    teacher_prototypes: Tensor
    center: Tensor
    ncrops: int
    student_temp: float = 0.1
    teacher_temp: float = 0.04

    def arguments(self) -> tuple[Any, ...]:
        return tuple(vars(self).values())


def make_head(
    images: int = 2, ncrops: int = 4, prototypes: int = 2500, channels: int = 32, dtype: torch.dtype = torch.float32
) -> Head:
    generator = torch.Generator().manual_seed(0)

    def rows(count: int) -> Tensor:
        return normalize(torch.randn(count, channels, generator=generator, dtype=torch.float64)).to(dtype)

    center = torch.randn(1, prototypes, generator=generator, dtype=torch.float64) * 0.05
    return Head(
        rows(ncrops * images),
        rows(2 * images),
        rows(prototypes),
        rows(prototypes),
        center.to(torch.float64 if dtype == torch.float64 else torch.float32),
        ncrops,
    )


Result = tuple[Tensor, Tensor, Tensor, Tensor]


def run(head: Head, loss_function: Callable[..., tuple[Tensor, Tensor]], grad_output: float = 1.0) -> Result:
    """Loss, entropy, and the gradients of features and prototypes."""
    features, prototypes = (x.clone().requires_grad_() for x in (head.student, head.student_prototypes))
    loss, entropy = loss_function(replace(head, student=features, student_prototypes=prototypes))
    (grad_output * loss).backward()
    assert features.grad is not None and prototypes.grad is not None
    return loss.detach(), entropy, features.grad, prototypes.grad


def cut(columns: int | None = 1024) -> Callable[[Head], tuple[Tensor, Tensor]]:
    return lambda head: cut_dino_loss(*head.arguments(), columns=columns)


def stored(head: Head) -> tuple[Tensor, Tensor]:
    logits = head.student @ head.student_prototypes.T, head.teacher @ head.teacher_prototypes.T
    return dino_loss(*logits, head.center, head.ncrops, head.student_temp, head.teacher_temp)


def exact(head: Head) -> tuple[Tensor, Tensor]:
    logits = head.student @ head.student_prototypes.T, head.teacher @ head.teacher_prototypes.T
    loss = reference_loss(*logits, head.center, head.ncrops, head.student_temp, head.teacher_temp)
    log_q = ((logits[1] - head.center) / head.teacher_temp).log_softmax(dim=-1)
    return loss, -(log_q.exp() * log_q).sum(dim=-1).mean()


def in_float64(head: Head) -> Head:
    return Head(*(x.double() if isinstance(x, Tensor) else x for x in head.arguments()))


@pytest.mark.parametrize("prototypes", [7, 1024, 2500, 3001])
@pytest.mark.parametrize("ncrops", [2, 5])
def test_float64_equals_the_reference(prototypes: int, ncrops: int) -> None:
    head = make_head(prototypes=prototypes, ncrops=ncrops, dtype=torch.float64)
    for actual, true in zip(run(head, cut()), run(head, exact), strict=True):
        # Sums of up to 3,001 terms, some of which cancel.
        assert relative_error(actual, true) < 3001 * 2**-53


def test_float32_is_as_exact_as_with_stored_logits() -> None:
    head = make_head()
    true = run(in_float64(head), exact)
    for actual, other, wanted in zip(run(head, cut()), run(head, stored), true, strict=True):
        # Both round logits of a product of 32 terms; the factor is for luck, the rest for errors near zero.
        assert relative_error(actual, wanted) <= 2 * relative_error(other, wanted) + 4 * 2**-24


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_with_stored_logits(dtype: torch.dtype) -> None:
    head = make_head(dtype=dtype)
    scale = 2.0**12
    true = run(in_float64(head), exact, scale)
    for actual, other, wanted in zip(run(head, cut(), scale), run(head, stored, scale), true, strict=True):
        assert actual.dtype == other.dtype
        # The features' gradient is rounded once per slice of columns instead of once.
        assert relative_error(actual, wanted) <= 1.1 * relative_error(other, wanted)


def test_gradcheck() -> None:
    head = make_head(images=1, ncrops=3, prototypes=5, channels=3, dtype=torch.float64)

    def loss(features: Tensor, prototypes: Tensor) -> Tensor:
        return 2.5 * cut()(replace(head, student=features, student_prototypes=prototypes, student_temp=0.5))[0]

    inputs = (head.student.requires_grad_(), head.student_prototypes.requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-6, fast_mode=True)


def test_twice_and_in_any_order_the_same_bits() -> None:
    head = make_head(dtype=torch.bfloat16)
    first = run(head, cut())
    with shuffled_programs(1):
        again = run(head, cut())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_size_of_slices_changes_the_loss_by_no_bit() -> None:
    """Each logit is the same product, and the kernels' own slices are the same."""
    head = make_head(prototypes=3001)
    losses = [run(head, cut(columns))[:2] for columns in (1024, 2048, None)]
    assert losses[0] == losses[1] == losses[2]


def test_kernels_pass_the_probe() -> None:
    head = make_head(prototypes=2001, dtype=torch.bfloat16)
    with Probe() as probe:
        run(head, cut())
    assert probe.launches == {
        "dino_loss_statistics": 2,
        "dino_loss_totals": 1,
        "dino_loss_means": 1,
        "dino_loss_gradient": 2,
    }
    # Two slices, the second of 977 columns in rows of 984.
    assert probe.loaded("dino_loss_statistics", "student_ptr") == 8 * (1024 + 984) * 2


class Largest(TorchDispatchMode):
    """Remembers how many bytes the largest tensor had that any operation returned."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.bytes = max(self.bytes, result.numel() * result.element_size())
        return result


def test_no_tensor_is_as_large_as_the_logits() -> None:
    head = make_head(images=8, ncrops=5, prototypes=4096, channels=4)
    with Largest() as largest:
        run(head, cut(columns=1024))
    assert largest.bytes == 8 * 5 * 1024 * 4


def test_only_wanted_gradients_are_computed() -> None:
    head = make_head()
    both = run(head, cut())
    for name, gradient in (("student", both[2]), ("student_prototypes", both[3])):
        leaf = getattr(head, name).clone().requires_grad_()
        cut()(replace(head, **{name: leaf}))[0].backward()
        assert torch.equal(leaf.grad, gradient)


def test_autocast_changes_nothing() -> None:
    head = make_head()
    with torch.autocast("cpu", torch.bfloat16):
        inside = run(head, cut())
    assert all(torch.equal(a, b) for a, b in zip(inside, run(head, cut()), strict=True))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda h: replace(h, teacher=h.teacher[:, :9]), r"equally many columns, not \(8, 32\), \(4, 9\)"),
        (lambda h: replace(h, student=h.student[0]), "must be matrices"),
        (lambda h: replace(h, student=h.student.half()), "must have one type"),
        (lambda h: replace(h, center=h.center[:, :9]), "have 2500, 2500 and 9 prototypes"),
        (lambda h: replace(h, center=h.center.to("meta")), "one device"),
        (lambda h: replace(h, ncrops=3), "8 student rows are not 3 crops each"),
        (lambda h: replace(h, teacher=h.teacher[:2]), r"it must be \(4, 1024\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: Callable[[Head], Head], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        cut()(change(make_head()))
