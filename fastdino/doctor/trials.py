"""The kernels' trials: each runs a kernel, PyTorch in the same types, and the same in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdino.data.normalize import normalize
from fastdino.implementation import LOSS, NORMALISATION, TEACHER, UPDATE, kernels
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


CHECKED = Sizes(images=4, prototypes=8192, ncrops=10, parameters=300_000, pixels=96)
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


def trials(operation: str, sizes: Sizes, device: torch.device) -> Iterator[Trial]:
    """All trials of an operation, one after the other, their inputs drawn from a fixed seed."""
    torch.manual_seed(0)
    makers = {
        LOSS: (_loss, _loss_of_odd_width, _cut_loss),
        TEACHER: (_average_of_lists, _average_of_arena),
        UPDATE: (_update,),
        NORMALISATION: (_normalisation,),
    }
    return (make(sizes, device) for make in makers[operation])


def _loss(sizes: Sizes, device: torch.device) -> Trial:
    return _of_logits("dino_loss", sizes.prototypes, sizes, device)


def _loss_of_odd_width(sizes: Sizes, device: torch.device) -> Trial:
    return _of_logits("dino_loss, odd width", sizes.prototypes - 5, sizes, device)


def _of_logits(name: str, prototypes: int, sizes: Sizes, device: torch.device) -> Trial:
    launch = kernels("dino_loss").dino_loss_and_gradient_
    student = torch.randn(sizes.ncrops * sizes.images, prototypes, device=device).bfloat16()
    teacher = torch.randn(2 * sizes.images, prototypes, device=device).bfloat16()
    rest = torch.randn(prototypes, device=device) * 0.1, sizes.ncrops, STUDENT_TEMP, TEACHER_TEMP

    def run() -> Outputs:
        gradient = student.clone()
        loss, entropy = launch(gradient, teacher, *rest)
        return [_with_largest(loss, entropy, teacher), gradient]

    def by_torch(dtype: torch.dtype) -> Outputs:
        logits = student.to(dtype).requires_grad_()
        return _differentiated(logits, teacher.to(dtype), rest, [logits])

    def plain() -> Outputs:
        values, gradient = by_torch(torch.float32)
        return [values, gradient.bfloat16()]

    moved = 2 * (2 * student.numel() + teacher.numel()) + 4 * prototypes
    scratch = student.clone()
    return Trial(name, run, plain, lambda: by_torch(torch.float64), moved, lambda: launch(scratch, teacher, *rest))


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


def _update(sizes: Sizes, device: torch.device) -> Trial:
    module, arena_of = kernels("adamw_ema"), kernels("arena").Arena
    student, teacher = _networks(sizes, device)
    gradients = [torch.randn_like(p).bfloat16() for p in student.parameters()]
    inputs, center = (
        torch.randn(2 * sizes.images, 256, device=device),
        torch.randn(len(student.weight_v), device=device),
    )
    scalars = module.StepScalars(LR, DECAY, MOMENTUM, CLIP).on(device)

    def in_arena() -> tuple[_Network, _Network, Tensor, Callable[[], Tensor]]:
        ours, theirs, its_center = copy.deepcopy((student, teacher, center))
        arena = arena_of(ours, theirs, shadows=True, normalised_rows="weight_v")
        arena.attach(_adamw(ours))
        arena.gather_gradients(gradients)
        return ours, theirs, its_center, lambda: module.adamw_ema_(arena, scalars, its_center, inputs)

    def run() -> Outputs:
        ours, theirs, its_center, step = in_arena()
        for _ in range(2):
            step()
        return _moved(ours, theirs, its_center)

    def by_torch(dtype: torch.dtype) -> Outputs:
        ours, theirs = (copy.deepcopy(network).to(dtype) for network in (student, teacher))
        its_center, optimizer = center.to(dtype), _adamw(ours)
        for _ in range(2):
            for p, gradient in zip(ours.parameters(), gradients, strict=True):
                p.grad = gradient.to(dtype)
            clip_gradients(ours, CLIP, "torch")
            optimizer.step()
            with torch.no_grad():
                its_center.lerp_(F.normalize(theirs.weight_v, dim=1) @ inputs.to(dtype).mean(dim=0), 0.1)
                for t, average in zip(theirs.parameters(), _averaged(ours, theirs, dtype), strict=True):
                    t.copy_(average)
        return _moved(ours, theirs, its_center)

    *_, launch = in_arena()
    return Trial(
        "adamw_ema, with center and copies",
        run,
        lambda: by_torch(torch.float32),
        lambda: by_torch(torch.float64),
        38 * _count(student),
        launch,
    )


def _adamw(network: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=DECAY)


def _moved(student: _Network, teacher: _Network, center: Tensor) -> Outputs:
    return [*(p.detach() for p in (*student.parameters(), *teacher.parameters())), center]


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
