"""The kernels' trials: each runs a kernel, PyTorch in the same types, and the same in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdino.data.normalize import normalize
from fastdino.implementation import LOSS, NORMALISATION, NORMS, TEACHER, UPDATE, kernels
from fastdino.optim import clip_gradients
from fastdino.reference import loss as reference

Outputs = list[Tensor]


class Sizes(NamedTuple):
    """How large a trial is."""

    images: int
    prototypes: int
    ncrops: int
    parameters: int
    pixels: int


# As many prototypes as are timed, for which the kernels are compiled apart from those for fewer.
CHECKED = Sizes(images=4, prototypes=65536, ncrops=10, parameters=300_000, pixels=96)
# ViT-S/16 with its head, 64 pictures a step.
TIMED = Sizes(images=64, prototypes=65536, ncrops=10, parameters=44_000_000, pixels=224)
INTERPRETED = Sizes(images=2, prototypes=700, ncrops=4, parameters=3000, pixels=10)

STUDENT_TEMP, TEACHER_TEMP = 0.1, 0.04
LR, DECAY, MOMENTUM, CLIP = 1e-3, 0.1, 0.99, 0.3


@dataclass(frozen=True)
class Trial:
    """One kernel on given inputs.

    Attributes:
        run: by the kernel; every call starts from the same inputs, as the next two do.
        plain: by PyTorch in the same types.
        exact: in float64.
        bytes: what any implementation has to move at least; None where products take the time.
        launch: the kernel alone, on inputs that it may overwrite.
    """

    kernel: str
    run: Callable[[], Outputs]
    plain: Callable[[], Outputs]
    exact: Callable[[], Outputs]
    bytes: int | None
    launch: Callable[[], object]


def makers(operation: str) -> tuple[Callable[[Sizes, torch.device], Trial], ...]:
    """What makes the trials of an operation."""
    return {
        LOSS: (_loss, _loss_of_odd_width, _loss_by_autograd, _cut_loss),
        TEACHER: (_average_of_lists, _average_of_arena),
        UPDATE: (_update_in_bfloat16, _update_in_float32, _skipped_update),
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


def _average_of_lists(sizes: Sizes, device: torch.device) -> Trial:
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


def _average_of_arena(sizes: Sizes, device: torch.device) -> Trial:
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


def _update_in_bfloat16(sizes: Sizes, device: torch.device) -> Trial:
    """As training does it: the gradients are those of the copies, whose prototypes have length 1."""
    return _update("adamw_ema, bfloat16", sizes, device, torch.bfloat16, of_copies=True)


def _update_in_float32(sizes: Sizes, device: torch.device) -> Trial:
    return _update("adamw_ema, float32", sizes, device, torch.float32, grad_scale=8.0)


def _skipped_update(sizes: Sizes, device: torch.device) -> Trial:
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
