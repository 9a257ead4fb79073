"""The teacher is a moving average of the student (paper, section 3.1)."""

from __future__ import annotations

import torch
from torch import nn

from fastdino import implementation as implementations
from fastdino.distributed.parts import local
from fastdino.reference import ema as reference_ema


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float, implementation: str = "auto") -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, for every parameter; buffers stay.

    Exact at momentum 1. `triton` is one launch, `torch` one multi-tensor call, `reference` goes parameter by parameter;
    `auto` is what implementation.choose takes. Parameters that are not contiguous float32 go through `torch`.

    Raises ValueError for an unknown implementation, and for `triton` where it cannot run.
    """
    ours, theirs = ([local(p) for p in network.parameters()] for network in (teacher, student))
    if not ours:
        return
    chosen = implementations.choose(implementations.TEACHER, implementation, ours[0].device).name
    if chosen == "reference":
        reference_ema.update_teacher(teacher, student, momentum)
    elif chosen == "triton" and all(p.dtype == torch.float32 and p.is_contiguous() for p in (*ours, *theirs)):
        implementations.kernels("ema").ema_(ours, theirs, momentum)
    else:
        torch._foreach_lerp_(ours, theirs, 1 - momentum)
