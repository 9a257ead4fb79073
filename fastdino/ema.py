"""The teacher is a moving average of the student (paper, section 3.1)."""

from __future__ import annotations

import torch
from torch import nn

from fastdino.reference import ema as reference_ema


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float, implementation: str = "auto") -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, for every parameter; buffers stay.

    `auto` is one multi-tensor call, exact at momentum 1; `reference` goes parameter by parameter.
    """
    if implementation == "reference":
        reference_ema.update_teacher(teacher, student, momentum)
        return
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
