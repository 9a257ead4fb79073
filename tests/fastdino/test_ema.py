from __future__ import annotations

import pytest
import torch
from torch import nn

from fastdino import update_teacher


@pytest.mark.parametrize("implementation", ["triton", "torch", "reference"])
def test_parameters_move_and_buffers_stay(implementation: str) -> None:
    teacher, student = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    nn.init.normal_(student.weight)
    student.running_mean.fill_(3.0)
    expected = 0.9 * teacher.weight + 0.1 * student.weight
    update_teacher(teacher, student, 0.9, implementation)
    torch.testing.assert_close(teacher.weight, expected)
    assert torch.equal(teacher.running_mean, torch.zeros(4))


@pytest.mark.parametrize("implementation", ["triton", "torch", "reference"])
def test_momentum_one_is_exact(implementation: str) -> None:
    teacher, student = nn.Linear(5, 5), nn.Linear(5, 5)
    before = teacher.weight.clone()
    update_teacher(teacher, student, 1.0, implementation)
    assert torch.equal(teacher.weight, before)
