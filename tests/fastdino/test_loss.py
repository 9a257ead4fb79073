from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdino import DINOLoss

WARMUP_EPOCHS, EPOCHS = 5, 10


@pytest.mark.parametrize("implementation", ["triton", "torch", "reference"])
@pytest.mark.parametrize("case", ["c0", "c1", "c2"])
def test_three_steps_equal_the_originals(
    golden: Callable[[str], dict[str, Tensor]], golden_meta: dict[str, Any], case: str, implementation: str
) -> None:
    arrays = golden("loss")
    settings = golden_meta[f"{case}.s0."]
    loss_module = DINOLoss(
        settings["out_dim"],
        settings["local_crops"] + 2,
        0.03,
        0.07,
        WARMUP_EPOCHS,
        EPOCHS,
        implementation=implementation,
    )
    for step in range(3):
        prefix = f"{case}.s{step}."
        settings = golden_meta[prefix]
        epoch = settings["epoch"]
        assert loss_module.teacher_temp_schedule[epoch] == pytest.approx(settings["teacher_temp"], rel=1e-12)
        student = arrays[f"{prefix}student"].float().requires_grad_()
        loss = loss_module(student, arrays[f"{prefix}teacher"].float(), epoch)
        loss.backward()
        # Softmax over up to 2048 float32 terms; gradients are compared at the scale of their largest entry.
        torch.testing.assert_close(loss, arrays[f"{prefix}loss"].reshape(()), rtol=1e-5, atol=0)
        expected = arrays[f"{prefix}grad"]
        torch.testing.assert_close(student.grad, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
        expected = arrays[f"{prefix}center_after"]
        torch.testing.assert_close(loss_module.center, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def make_loss(out_dim: int = 11, ncrops: int = 4) -> DINOLoss:
    return DINOLoss(out_dim, ncrops, 0.04, 0.04, 0, 2)


def test_uniform_outputs_cost_ln_out_dim() -> None:
    loss = make_loss()(torch.zeros(8, 11), torch.zeros(4, 11), 0)
    assert loss.item() == pytest.approx(math.log(11), rel=1e-6)


def test_gradient_is_the_derivative_and_stops_at_the_teacher() -> None:
    module = make_loss().double()
    teacher = torch.randn(4, 11, dtype=torch.float64, requires_grad=True)
    student = torch.randn(8, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: module.cross_entropy(s, teacher, 0)[0], (student,))
    module.cross_entropy(student, teacher, 0)[0].backward()
    assert teacher.grad is None
    # Every row's gradient is a difference of two probability vectors.
    torch.testing.assert_close(student.grad.sum(dim=1), torch.zeros(8, dtype=torch.float64))


def test_entropy_splits_the_loss_into_target_and_divergence() -> None:
    module = make_loss()
    teacher = torch.randn(4, 11)
    # A student that answers exactly what both teacher views say has no divergence left.
    same = torch.cat([teacher[:2], teacher[:2]])
    student = torch.cat([same, same]) * (0.1 / 0.04)
    loss, entropy = module.cross_entropy(student, same, 0)
    torch.testing.assert_close(loss, entropy)
    assert 0 < entropy < math.log(11)


def test_half_precision_logits_are_computed_in_float32() -> None:
    student, teacher = torch.randn(8, 11).bfloat16(), torch.randn(4, 11).bfloat16()
    expected = make_loss()(student.float(), teacher.float(), 0)
    assert torch.equal(make_loss()(student, teacher, 0), expected)


def test_center_moves_after_the_loss_and_only_in_forward() -> None:
    module, student, teacher = make_loss(), torch.randn(8, 11), torch.randn(4, 11)
    first, _ = module.cross_entropy(student, teacher, 0)
    assert torch.equal(module.center, torch.zeros(1, 11))
    assert torch.equal(module(student, teacher, 0), first)
    torch.testing.assert_close(module.center, 0.1 * teacher.mean(dim=0, keepdim=True))


def test_unknown_implementation_is_named() -> None:
    with pytest.raises(ValueError, match="auto, triton, torch, reference"):
        DINOLoss(11, 4, 0.04, 0.04, 0, 2, implementation="cuda")
