"""The kernels' trials: each runs a kernel, PyTorch in the same types, and the same in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fastdino.data.normalize import normalize
from fastdino.doctor.trial import Outputs, Sizes, Trial
from fastdino.doctor.weight_trials import (
    average_of_arena,
    average_of_lists,
    skipped_update,
    update_in_bfloat16,
    update_in_float32,
)
from fastdino.implementation import LOSS, NORMALISATION, NORMS, TEACHER, UPDATE, kernels
from fastdino.reference import loss as reference

STUDENT_TEMP, TEACHER_TEMP = 0.1, 0.04


def makers(operation: str) -> tuple[Callable[[Sizes, torch.device], Trial], ...]:
    """What makes the trials of an operation."""
    return {
        LOSS: (_loss, _loss_of_odd_width, _loss_by_autograd, _cut_loss),
        TEACHER: (average_of_lists, average_of_arena),
        UPDATE: (update_in_bfloat16, update_in_float32, skipped_update),
        NORMALISATION: (_normalisation,),
        NORMS: (_norms,),
    }[operation]


def _loss(sizes: Sizes, device: torch.device) -> Trial:
    return _of_logits("dino_loss", sizes.prototypes, sizes, device)


def _loss_of_odd_width(sizes: Sizes, device: torch.device) -> Trial:
    return _of_logits("dino_loss, odd width", sizes.prototypes - 5, sizes, device)


def _loss_by_autograd(sizes: Sizes, device: torch.device) -> Trial:
    return _of_logits("dino_loss, by autograd", sizes.prototypes, sizes, device, by_autograd=True)


def _of_logits(name: str, prototypes: int, sizes: Sizes, device: torch.device, by_autograd: bool = False) -> Trial:
    module = kernels("dino_loss")
    student = torch.randn(sizes.ncrops * sizes.images, prototypes, device=device).bfloat16()
    teacher = torch.randn(2 * sizes.images, prototypes, device=device).bfloat16()
    rest = torch.randn(prototypes, device=device) * 0.1, sizes.ncrops, STUDENT_TEMP, TEACHER_TEMP

    def launch(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, entropy and gradient."""
        if not by_autograd:
            return *module.dino_loss_and_gradient_(logits, teacher, *rest), logits
        leaf = logits.requires_grad_()
        loss, entropy = module.dino_loss(leaf, teacher, *rest)
        return loss, entropy, *torch.autograd.grad(loss, [leaf])

    def run() -> Outputs:
        loss, entropy, gradient = launch(student.clone())
        return [_with_largest(loss, entropy, teacher), gradient]

    def by_torch(dtype: torch.dtype) -> Outputs:
        logits = student.to(dtype).requires_grad_()
        return _differentiated(logits, teacher.to(dtype), rest, [logits])

    def plain() -> Outputs:
        values, gradient = by_torch(torch.float32)
        return [values, gradient.bfloat16()]

    # Between forward and backward the logits leave the cache: they are read once more.
    reads = 2 if by_autograd else 1
    moved = 2 * (student.numel() + reads * (student.numel() + teacher.numel())) + reads * 4 * prototypes
    scratch = student.clone()
    return Trial(name, run, plain, lambda: by_torch(torch.float64), moved, lambda: launch(scratch))


def _cut_loss(sizes: Sizes, device: torch.device) -> Trial:
    launch = kernels("cut_dino_loss").cut_dino_loss
    width = 64
    rows = sizes.ncrops * sizes.images, 2 * sizes.images
    student, teacher = (F.normalize(torch.randn(n, width, device=device), dim=1).bfloat16() for n in rows)
    prototypes = [F.normalize(torch.randn(sizes.prototypes, width, device=device), dim=1).bfloat16() for _ in "st"]
    rest = torch.randn(sizes.prototypes, device=device) * 0.1, sizes.ncrops, STUDENT_TEMP, TEACHER_TEMP

    def run() -> Outputs:
        leaves = [student.clone().requires_grad_(), prototypes[0].clone().requires_grad_()]
        loss, entropy = launch(leaves[0], teacher, leaves[1], prototypes[1], *rest)
        return [_with_largest(loss, entropy, teacher @ prototypes[1].T), *torch.autograd.grad(loss, leaves)]

    def by_torch(dtype: torch.dtype) -> Outputs:
        leaves = [student.to(dtype).requires_grad_(), prototypes[0].to(dtype).requires_grad_()]
        teacher_logits = teacher.to(dtype) @ prototypes[1].to(dtype).T
        return _differentiated(leaves[0] @ leaves[1].T, teacher_logits, rest, leaves)

    logits = 2 * sizes.prototypes * sum(rows)
    return Trial("cut_dino_loss", run, lambda: by_torch(torch.bfloat16), lambda: by_torch(torch.float64), logits, run)


def _differentiated(
    student_logits: Tensor, teacher_logits: Tensor, rest: tuple[Tensor, int, float, float], leaves: list[Tensor]
) -> Outputs:
    """Loss, entropy and the gradients of `leaves`, computed in the logits' type but never in less than float32."""
    wide = torch.promote_types(student_logits.dtype, torch.float32)
    center = rest[0].to(wide)
    student_logits, teacher_logits = student_logits.to(wide), teacher_logits.to(wide)
    loss = reference.dino_loss(student_logits, teacher_logits, center, *rest[1:])
    entropy = reference.teacher_entropy(teacher_logits, center, rest[-1])
    return [_with_largest(loss, entropy, teacher_logits), *torch.autograd.grad(loss, leaves)]


def _with_largest(loss: Tensor, entropy: Tensor, teacher_logits: Tensor) -> Tensor:
    """Loss and entropy, and the size of what they are differences of, which says how exact they can be."""
    largest = teacher_logits.abs().max().to(loss.dtype) / TEACHER_TEMP
    return torch.stack((loss.detach(), entropy, largest))


def _normalisation(sizes: Sizes, device: torch.device) -> Trial:
    launch = kernels("normalize").normalize
    shape = sizes.images * 2, 3, sizes.pixels, sizes.pixels
    crops = torch.randint(256, shape, dtype=torch.uint8, device=device)

    def rounded_once(dtype: torch.dtype) -> Outputs:
        # On a CPU, whose quotients are the correctly rounded ones.
        return [normalize(crops.cpu(), torch.float32, "torch").to(dtype).to(device)]

    return Trial(
        "normalize to bfloat16",
        lambda: [launch(crops, torch.bfloat16)],
        lambda: rounded_once(torch.bfloat16),
        lambda: rounded_once(torch.float64),
        3 * crops.numel(),
        lambda: launch(crops, torch.bfloat16),
    )


def _norms(sizes: Sizes, device: torch.device) -> Trial:
    """As many tokens as two crops have in patches of 16 pixels."""
    launch, width, eps = kernels("layer_norm").normalized, 384, 1e-6
    rows = 2 * sizes.images * ((sizes.pixels // 16) ** 2 + 1)
    x, of_x, of_out = (torch.randn(rows, width, device=device) for _ in range(3))
    weight, bias = torch.randn(2, width, device=device)
    of_out = of_out.bfloat16()

    def differentiated(
        norm: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], dtype: torch.dtype = torch.float32
    ) -> Outputs:
        leaves = [tensor.to(dtype).requires_grad_() for tensor in (x, weight, bias)]
        same, out = norm(*leaves)
        return [out.detach(), *torch.autograd.grad((same, out), leaves, (of_x.to(same.dtype), of_out.to(out.dtype)))]

    def run() -> Outputs:
        return differentiated(lambda *tensors: launch(*tensors, eps, torch.bfloat16))

    def by_torch(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return 1 * x, F.layer_norm(x, (width,), weight, bias, eps)

    def plain() -> Outputs:
        out, *gradients = differentiated(by_torch)
        return [out.bfloat16(), *gradients]

    return Trial(
        "layer_norm to bfloat16, and back",
        run,
        plain,
        lambda: differentiated(by_torch, torch.float64),
        20 * x.numel(),
        run,
    )
