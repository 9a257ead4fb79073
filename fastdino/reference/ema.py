"""The teacher's update, parameter by parameter."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, for every parameter in order; buffers stay."""
    for teacher_parameter, student_parameter in zip(teacher.parameters(), student.parameters(), strict=True):
        teacher_parameter.mul_(momentum).add_((1 - momentum) * student_parameter)
