"""The trials of the kernels that move weights: the teacher's average, and AdamW's step with it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdino.doctor.trial import Outputs, Sizes, Trial
from fastdino.implementation import kernels
from fastdino.optim import clip_gradients

LR, DECAY, MOMENTUM, CLIP = 1e-3, 0.1, 0.99, 0.3


class _Network(nn.Module):
    """Parameters like a network's: first prototypes, whose rows have length 1, a third of all; some of odd sizes."""

    def __init__(self, parameters: int, device: torch.device) -> None:
        super().__init__()
        rows = max(1, parameters // 3 // 256)
        self.weight_v = nn.Parameter(torch.randn(rows, 256, device=device))
        self.body = nn.ParameterList(
            nn.Parameter(torch.randn(n, device=device)) for n in (parameters // 3, parameters // 3 - 1, 7)
        )


def _networks(sizes: Sizes, device: torch.device) -> tuple[_Network, _Network]:
    student, teacher = (_Network(sizes.parameters, device) for _ in range(2))
    return student, teacher


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _averaged(student: nn.Module, teacher: nn.Module, dtype: torch.dtype) -> Outputs:
    pairs = zip(teacher.parameters(), student.parameters(), strict=True)
    return [t.detach().to(dtype).lerp(s.detach().to(dtype), 1 - MOMENTUM) for t, s in pairs]


def average_of_lists(sizes: Sizes, device: torch.device) -> Trial:
    launch = kernels("ema").ema_
    student, teacher = _networks(sizes, device)

    def run() -> Outputs:
        moved = [p.detach().clone() for p in teacher.parameters()]
        launch(moved, list(student.parameters()), MOMENTUM)
        return moved

    return Trial(
        "ema, lists of tensors",
        run,
        lambda: _averaged(student, teacher, torch.float32),
        lambda: _averaged(student, teacher, torch.float64),
        12 * _count(student),
        lambda: launch(list(teacher.parameters()), list(student.parameters()), MOMENTUM),
    )


def average_of_arena(sizes: Sizes, device: torch.device) -> Trial:
    launch, arena_of = kernels("ema").ema_arena_, kernels("arena").Arena
    student, teacher = _networks(sizes, device)
    scratch = arena_of(*copy.deepcopy((student, teacher)), shadows=True, normalised_rows="weight_v")

    def run() -> Outputs:
        moved = copy.deepcopy(teacher)
        arena = arena_of(copy.deepcopy(student), moved, shadows=True, normalised_rows="weight_v")
        launch(arena, MOMENTUM)
        return [*(p.detach() for p in moved.parameters()), *arena.views(arena.teacher_shadow)]

    def by_torch(dtype: torch.dtype, shadow: torch.dtype) -> Outputs:
        averages = _averaged(student, teacher, dtype)
        return [*averages, *(x.to(shadow) for x in (F.normalize(averages[0], dim=1), *averages[1:]))]

    return Trial(
        "ema, arena with bfloat16 copy",
        run,
        lambda: by_torch(torch.float32, torch.bfloat16),
        lambda: by_torch(torch.float64, torch.float64),
        14 * _count(student),
        lambda: launch(scratch, MOMENTUM),
    )


def update_in_bfloat16(sizes: Sizes, device: torch.device) -> Trial:
    """As training does it: the gradients are those of the copies, whose prototypes have length 1."""
    return _update("adamw_ema, bfloat16", sizes, device, torch.bfloat16, of_copies=True)


def update_in_float32(sizes: Sizes, device: torch.device) -> Trial:
    return _update("adamw_ema, float32", sizes, device, torch.float32, grad_scale=8.0)


def skipped_update(sizes: Sizes, device: torch.device) -> Trial:
    """Only the teacher and the center move."""
    return _update("adamw_ema, skipped", sizes, device, torch.float32, found_inf=1.0)


def _update(
    name: str,
    sizes: Sizes,
    device: torch.device,
    dtype: torch.dtype,
    of_copies: bool = False,
    grad_scale: float = 1.0,
    found_inf: float = 0.0,
) -> Trial:
    module, arena_of = kernels("adamw_ema"), kernels("arena").Arena
    student, teacher = _networks(sizes, device)
    gradients = [torch.randn_like(p).to(dtype) for p in student.parameters()]
    inputs, center = (
        torch.randn(2 * sizes.images, 256, device=device),
        torch.randn(len(student.weight_v), device=device),
    )
    scalars = module.StepScalars(LR, DECAY, MOMENTUM, CLIP, grad_scale, found_inf).on(device)

    def in_arena() -> tuple[Any, Tensor, Callable[[], Tensor]]:
        ours, theirs, its_center = copy.deepcopy((student, teacher, center))
        arena = arena_of(ours, theirs, shadows=True, normalised_rows="weight_v")
        arena.attach(_adamw(ours))
        arena.gather_gradients(gradients, of_shadows=of_copies)
        return arena, its_center, lambda: module.adamw_ema_(arena, scalars, its_center, inputs)

    def run() -> Outputs:
        arena, its_center, step = in_arena()
        for _ in range(2):
            norms = step()
        # AdamW divides by the gradients' size: whether they were clipped shows in the moments only.
        flat = arena.student, arena.teacher, arena.exp_avg, arena.exp_avg_sq, arena.student_shadow, arena.teacher_shadow
        return [*(view for buffer in flat for view in arena.views(buffer)), its_center, norms]

    def by_torch(dtype: torch.dtype, of_copy: torch.dtype) -> Outputs:
        ours, theirs = (copy.deepcopy(network).to(dtype) for network in (student, teacher))
        its_center, optimizer = center.to(dtype), _adamw(ours)
        moments = {p: [torch.zeros_like(p), torch.zeros_like(p)] for p in ours.parameters()}
        for _ in range(2):
            for p, gradient in zip(ours.parameters(), gradients, strict=True):
                p.grad = gradient.to(dtype) / grad_scale
            if of_copies:
                (ours.weight_v.grad,) = torch.autograd.grad(
                    F.normalize(ours.weight_v, dim=1), ours.weight_v, ours.weight_v.grad
                )
            norms = clip_gradients(ours, CLIP, "torch")
            if not found_inf:
                optimizer.step()
                moments = {p: [optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"]] for p in moments}
            with torch.no_grad():
                its_center.lerp_(F.normalize(theirs.weight_v, dim=1) @ inputs.to(dtype).mean(dim=0), 0.1)
                for t, average in zip(theirs.parameters(), _averaged(ours, theirs, dtype), strict=True):
                    t.copy_(average)
        networks = [[p.detach() for p in network.parameters()] for network in (ours, theirs)]
        copies = [x.to(of_copy) for first, *rest in networks for x in (F.normalize(first, dim=1), *rest)]
        return [
            *networks[0],
            *networks[1],
            *(m[i] for i in range(2) for m in moments.values()),
            *copies,
            its_center,
            norms,
        ]

    *_, launch = in_arena()
    # Copies are written, gradients and the student read, all else is read and written if it moves.
    each = 4 + gradients[0].element_size() + (12 if found_inf else 32)
    return Trial(
        name,
        run,
        lambda: by_torch(torch.float32, torch.bfloat16),
        lambda: by_torch(torch.float64, torch.float64),
        each * _count(student),
        launch,
    )


def _adamw(network: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=DECAY)
