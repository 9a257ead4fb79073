"""Bytes and launches of the same work by PyTorch's operations: the original's way, and the best that PyTorch has.

`eager` goes about it as facebookresearch/dino does: two loops over views with a log-softmax for every pair, clipping
tensor by tensor with numbers on the host, `AdamW` in its multi-tensor form, two operations a parameter for the teacher,
casts and weight normalisation at every forward pass as autocast inserts them. `best` uses the operations that move
least without a compiler: one log-softmax a crop and a product over all pairs as in DINOv3, multi-tensor norms and
casts, fused AdamW, `_foreach_lerp_`. Both are in bfloat16 with float32 where autocast has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu_proofs.concrete_case import LAST_LAYER, LENGTHS, Case, Weight
from benchmarks.gpu_proofs.dispatch_counter import Count, DispatchCounter, total

STUDENT_TEMP, TEACHER_TEMP, CENTER_MOMENTUM, CLIP, MOMENTUM = 0.1, 0.04, 0.9, 3.0, 0.996


def count(work: Callable[[], object]) -> Count:
    """What happens on `meta` while `work` runs."""
    with DispatchCounter("meta") as counter:
        work()
    return counter.count


def numbers(*shape: int, dtype: torch.dtype = torch.float32, requires_grad: bool = False) -> Tensor:
    """Shape without memory."""
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=requires_grad)


# The loss with its center.


def eager_loss(case: Case) -> Count:
    """Forward, the look whether the loss is finite, backward, center."""
    student, teacher, center = _logits(case)
    return count(lambda: torch.autograd.grad(original_loss(case.crops, student, teacher, center), student))


def original_loss(ncrops: int, student: Tensor, teacher: Tensor, center: Tensor) -> Tensor:
    """The original's, with the casts that autocast inserts, and its look whether it is finite."""
    crops = (student / STUDENT_TEMP).chunk(ncrops)
    targets = F.softmax((teacher - center) / TEACHER_TEMP, dim=-1).detach().chunk(2)
    loss: Tensor | int = 0
    pairs = 0
    for i, target in enumerate(targets):
        for v, crop in enumerate(crops):
            if v != i:
                loss = loss + torch.sum(-target * F.log_softmax(crop.float(), dim=-1), dim=-1).mean()
                pairs += 1
    assert isinstance(loss, Tensor)
    loss = loss / pairs
    mean = torch.sum(teacher, dim=0, keepdim=True, dtype=torch.float32) / len(teacher)
    _ = center * CENTER_MOMENTUM + mean * (1 - CENTER_MOMENTUM)
    loss.item()
    return loss


def best_loss(case: Case) -> Count:
    """The same; the sum over pairs is a product of matrices, whose diagonal is left out."""
    student, teacher, center = _logits(case)

    def step() -> None:
        views = student.view(case.crops, case.images, -1)
        log_p = F.log_softmax(views / STUDENT_TEMP, dim=-1, dtype=torch.float32)
        q = F.softmax((teacher - center).div_(TEACHER_TEMP), dim=-1).view(2, case.images, -1)
        crosses = torch.einsum("sbk,tbk->st", log_p, q)
        pairs = 2 * (case.crops - 1)
        loss = (crosses.sum() - crosses.diagonal().sum()) / (-pairs * case.images)
        torch.autograd.grad(loss, student)
        center.lerp_(teacher.mean(dim=0, keepdim=True, dtype=torch.float32), 1 - CENTER_MOMENTUM)

    return count(step)


def _logits(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    rows = case.images * case.crops
    return (
        numbers(rows, case.prototypes, dtype=torch.bfloat16, requires_grad=True),
        numbers(2 * case.images, case.prototypes, dtype=torch.bfloat16),
        numbers(1, case.prototypes),
    )


def last_layer_products(case: Case) -> Count:
    """Logits of both networks from features and prototypes, and the gradients of the student's."""
    rows = case.images * case.crops
    features = numbers(rows, case.width, dtype=torch.bfloat16, requires_grad=True)
    prototypes = numbers(case.prototypes, case.width, dtype=torch.bfloat16, requires_grad=True)
    of_teacher = numbers(2 * case.images, case.width, dtype=torch.bfloat16)
    gradient = numbers(rows, case.prototypes, dtype=torch.bfloat16)

    def step() -> None:
        F.linear(of_teacher, prototypes.detach())
        torch.autograd.grad(F.linear(features, prototypes), (features, prototypes), gradient)

    return count(step)


# The teacher's average.


def eager_average(case: Case) -> Count:
    """Parameter by parameter."""
    teacher, student = (_values(case.weights) for _ in range(2))
    return count(lambda: original_average(teacher, student))


def original_average(teacher: Iterable[Tensor], student: Iterable[Tensor]) -> None:
    """The original's."""
    for t, s in zip(teacher, student, strict=True):
        t.mul_(MOMENTUM).add_((1 - MOMENTUM) * s)


def best_average(case: Case) -> Count:
    """One multi-tensor operation."""
    teacher, student = (_values(case.weights) for _ in range(2))
    return count(lambda: torch._foreach_lerp_(teacher, student, 1 - MOMENTUM))


# The optimiser's tail: from the gradients that products give to the weights that the next ones take.


def eager_tail(case: Case) -> dict[str, Count]:
    """By parts."""
    return _weight_parts(case, multi_tensor=False) | {
        "clip": _eager_clip(case),
        "AdamW": _eager_adamw(case),
        "average": eager_average(case),
    }


def best_tail(case: Case) -> dict[str, Count]:
    """By parts; there is no better normalisation of weights."""
    return _weight_parts(case, multi_tensor=True) | {
        "clip": _best_clip(case),
        "AdamW": _best_adamw(case),
        "average": best_average(case),
    }


def _values(weights: list[Weight], dtype: torch.dtype = torch.float32, requires_grad: bool = False) -> list[Tensor]:
    return [numbers(*weight.shape, dtype=dtype, requires_grad=requires_grad) for weight in weights]


def _trained(case: Case) -> list[Weight]:
    return [weight for weight in case.weights if weight.trains]


def _weight_parts(case: Case, multi_tensor: bool) -> dict[str, Count]:
    """Casts of weights and gradients; weight normalisation of the last layer, forward for both networks."""
    narrow = [weight for weight in case.weights if weight.narrow and weight.name != LAST_LAYER]
    wide, gradients = _values(narrow), _values(narrow, torch.bfloat16)
    rows, lengths = ([w for w in case.weights if w.name == name] for name in (LAST_LAYER, LENGTHS))
    (v,), (g,) = _values(rows, requires_grad=True), _values(lengths)

    def cast(tensors: list[Tensor], dtype: torch.dtype) -> None:
        if multi_tensor:
            torch._foreach_copy_([x.new_empty(x.shape, dtype=dtype) for x in tensors], tensors)
        else:
            for x in tensors:
                x.to(dtype)

    def normalise(v: Tensor) -> Tensor:
        return torch._weight_norm_interface(v, g, 0)[0].bfloat16()

    def normalise_both() -> None:
        normalise(v.detach())
        normalised = normalise(v)
        torch.autograd.grad(normalised, v, torch.empty_like(normalised))

    return {
        "weights to bfloat16": total([count(lambda: cast(wide, torch.bfloat16))] * 2),
        "gradients to float32": count(lambda: cast(gradients, torch.float32)),
        "weight normalisation": count(normalise_both),
    }


def _eager_clip(case: Case) -> Count:
    gradients = _values(_trained(case))
    return count(lambda: original_clip(gradients))


def original_clip(gradients: Iterable[Tensor]) -> None:
    """Every norm is above the limit, as most are early in training; the host asks for it, and for whether it is."""
    for gradient in gradients:
        norm = gradient.norm(2)
        norm.item()
        coefficient = CLIP / (norm + 1e-6)
        if coefficient < 1:
            gradient.mul_(coefficient)


def _best_clip(case: Case) -> Count:
    gradients = _values(_trained(case))

    def step() -> None:
        norms = torch.stack(torch._foreach_norm(gradients))
        coefficients = (CLIP / (norms + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, list(coefficients.unbind()))

    return count(step)


def _eager_adamw(case: Case) -> Count:
    parameters = _values(_trained(case), requires_grad=True)
    for p in parameters:
        p.grad = torch.empty_like(p)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.04, foreach=True)
    # The first step makes the state, which is no part of the others.
    optimizer.step()
    return count(optimizer.step)


def _best_adamw(case: Case) -> Count:
    """The operation behind `AdamW(fused=True)`, which refuses tensors without memory; once for each group."""

    def step() -> None:
        for of_group in (True, False):
            weights = [weight for weight in _trained(case) if (len(weight.shape) > 1) == of_group]
            parameters, gradients, exp_avgs, exp_avg_sqs = (_values(weights) for _ in range(4))
            steps = [numbers() for _ in weights]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                parameters,
                gradients,
                exp_avgs,
                exp_avg_sqs,
                [],
                steps,
                lr=1e-3,
                beta1=0.9,
                beta2=0.999,
                weight_decay=0.04,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )

    return count(step)


# Crops from bytes to bfloat16.


def eager_normalisation(case: Case) -> Count:
    """As torchvision's ToTensor and Normalize, which the original has on the CPU, and autocast."""
    mean, std = numbers(3, 1, 1), numbers(3, 1, 1)

    def step() -> None:
        for crop in _pixels(case):
            crop.to(torch.float32).div(255).clone().sub_(mean).div_(std).to(torch.bfloat16)

    return count(step)


def best_normalisation(case: Case) -> Count:
    """Bytes times one constant plus another, in float32 and stored as bfloat16: near to, but not, the same bits."""
    scale, shift = numbers(3, 1, 1), numbers(3, 1, 1)

    def step() -> None:
        for crop in _pixels(case):
            torch.addcmul(shift, crop, scale, out=torch.empty_like(crop, dtype=torch.bfloat16))

    return count(step)


def _pixels(case: Case) -> list[Tensor]:
    return [numbers(*shape, dtype=torch.uint8) for shape in case.pixel_shapes]
