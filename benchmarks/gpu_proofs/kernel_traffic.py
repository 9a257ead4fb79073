"""Bytes and launches of our kernels, counted while Triton's interpreter runs their launchers on small cases.

As for PyTorch's operations, a launch reads each address once and writes each address once: a second load within a
launch (of the center, by every image) is the cache's affair. What launchers do with PyTorch's own operations counts
with it. Two small copies to the GPU do not: a step's ten scalars, and the gradients' addresses when they have moved.

From small cases to the concrete one each count is a linear form of a few features of the case (logits, columns,
parameters, rows of a table, ...), which `extrapolate` solves exactly and checks on cases that are left over.

Needs TRITON_INTERPRET=1 before it is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from triton.runtime.interpreter import GridExecutor

from benchmarks.gpu_proofs.concrete_case import LAST_LAYER, Case, Weight
from benchmarks.gpu_proofs.dispatch_counter import Count, DispatchCounter, total
from benchmarks.gpu_proofs.extrapolation import extrapolate
from benchmarks.gpu_proofs.interpreter import correct_bfloat16
from benchmarks.gpu_proofs.probe import Probe
from benchmarks.gpu_proofs.pytorch_traffic import numbers
from fastdino.kernels.adamw_ema import StepScalars, adamw_ema_
from fastdino.kernels.arena import Arena
from fastdino.kernels.arena_layout import BLOCK, Layout, blocks_of_rows, lay_out
from fastdino.kernels.cut_dino_loss import cut_dino_loss
from fastdino.kernels.dino_loss import dino_loss_and_gradient_
from fastdino.kernels.dino_loss_launch import Logits, block_columns, cache_bytes, groups
from fastdino.kernels.ema import ema_
from fastdino.kernels.normalize import normalize

correct_bfloat16()

CPU = torch.device("cpu")
BFLOAT16 = torch.bfloat16


class Seen(NamedTuple):
    """What a launcher did; `from_cache` are bytes of `count` that the launch before has brought into the cache."""

    counted: Count
    from_cache: int = 0


@contextmanager
def without_kernels() -> Iterator[None]:
    """Launchers run, their kernels do not."""
    with mock.patch.object(GridExecutor, "__call__", lambda *_, **__: None):
        yield


def watch(launch: Callable[[], object], pointees: Sequence[Tensor] = ()) -> tuple[Probe, Count]:
    """Runs `launch` twice: for its kernels, which may follow addresses to `pointees`, and for its operations."""
    with Probe() as probe:
        for i, tensor in enumerate(pointees):
            probe.watch(f"pointee {i}", tensor)
        launch()
    with without_kernels(), DispatchCounter("cpu") as operations:
        launch()
    kernels = Count(
        sum(t.unique_loaded for t in probe.traffic.values()),
        sum(t.unique_stored for t in probe.traffic.values()),
        probe.launches.total(),
    )
    return probe, total([kernels, operations.count])


def extrapolated(features: Sequence[Sequence[int]], seen: Sequence[Seen], at: Sequence[int]) -> Seen:
    """Number by number."""
    counts = (extrapolate(features, column, at) for column in zip(*(s.counted for s in seen), strict=True))
    return Seen(Count(*counts), extrapolate(features, [s.from_cache for s in seen], at))


# The loss with its center.


def loss(case: Case) -> Seen:
    """Loss and gradient in the order of a training step, with as many groups of images as the case has on an H100."""
    meta = (numbers(n * case.images, case.prototypes, dtype=BFLOAT16) for n in (case.crops, 2))
    pieces = len(list(groups(Logits(*meta, *[torch.empty(0)] * 3), case.images, None)))
    small = [(pieces * group, prototypes) for group in (1, 2) for prototypes in (1024, 2048)] + [(pieces * 3, 1024)]
    seen = [_small_loss(case, images, images // pieces, prototypes) for images, prototypes in small]
    return extrapolated(
        [_logit_features(*sizes) for sizes in small], seen, _logit_features(case.images, case.prototypes)
    )


def _logit_features(images: int, prototypes: int) -> list[int]:
    return [images * prototypes, images, prototypes, 1]


def _small_loss(case: Case, images: int, group: int, prototypes: int) -> Seen:
    student, teacher = (torch.zeros(n * images, prototypes, dtype=BFLOAT16) for n in (case.crops, 2))
    center = torch.zeros(prototypes)
    probe, count = watch(lambda: dino_loss_and_gradient_(student, teacher, center, case.crops, 0.1, 0.04, group=group))
    # The gradient's launch finds what the statistics' has read: these are the logits, but for the center all it loads.
    again = [
        traffic.unique_loaded
        for (kernel, argument), traffic in probe.traffic.items()
        if kernel == "dino_loss_gradient" and {"student_ptr", "teacher_ptr"} & set(argument.split("="))
    ]
    if len(again) != 2:
        raise RuntimeError("the gradient's kernel has other names than this count knows")
    return Seen(count, sum(again))


def cut_loss(case: Case) -> Seen:
    """From features and prototypes, without logits in memory; products included."""
    rows = (case.crops + 2) * case.images
    slices = math.ceil(case.prototypes / slice_columns(numbers(rows, 1, dtype=BFLOAT16)))
    small = [
        (1, 1024, 1),
        (2, 1024, 1),
        (1, 2048, 1),
        (2, 2048, 1),
        (1, 2048, 2),
        (2, 2048, 2),
        (1, 3072, 3),
        (2, 3072, 3),
    ]
    seen = [Seen(_small_cut_loss(case, *sizes)) for sizes in small]
    count = extrapolated(
        [_slice_features(*sizes) for sizes in small], seen, _slice_features(case.images, case.prototypes, slices)
    ).counted
    # Logits are written twice by products and read by a kernel each time; the gradient is written and read by two.
    return Seen(count, 4 * (case.student_bytes + case.teacher_bytes) + 3 * case.student_bytes)


def slice_columns(rows: Tensor) -> int:
    """Prototypes at a time for so many rows of logits: what cut_dino_loss takes by default on an H100."""
    columns = cache_bytes(CPU) // 2 // (len(rows) * rows.element_size())
    return math.ceil(columns / block_columns(32)) * block_columns(32)


def _slice_features(images: int, prototypes: int, slices: int) -> list[int]:
    logits = images * prototypes
    return [logits, logits * slices, prototypes, images * slices, slices, images, 1]


def _small_cut_loss(case: Case, images: int, prototypes: int, slices: int) -> Count:
    features = torch.zeros(case.crops * images, case.width, dtype=BFLOAT16, requires_grad=True)
    of_teacher = torch.zeros(2 * images, case.width, dtype=BFLOAT16)
    both = [torch.zeros(prototypes, case.width, dtype=BFLOAT16) for _ in range(2)]
    both[0].requires_grad_()
    center = torch.zeros(prototypes)

    def step() -> None:
        loss, _ = cut_dino_loss(
            features, of_teacher, *both, center, case.crops, 0.1, 0.04, columns=prototypes // slices
        )
        torch.autograd.grad(loss, (features, both[0]))

    return watch(step)[1]


def center(case: Case) -> Count:
    """What the center adds to the optimiser's tail, which moves it by the mean of the prototypes' inputs."""
    small, at = [(8, 2), (16, 2), (24, 2), (8, 6)], [case.prototypes, 2 * case.images, 1]
    counts = [
        extrapolated(
            [[*sizes, 1] for sizes in small],
            [_small_tail((rows,), inputs=inputs * moves) for rows, inputs in small],
            at,
        ).counted
        for moves in (True, False)
    ]
    return Count(*(with_center - without for with_center, without in zip(*counts, strict=True)))


# The teacher's average.


def average(case: Case) -> Count:
    """Of lists of tensors."""
    small = [(1024,), (4,), (2048, 8), (20, 5000), (4, 4, 3000)]
    seen = [Seen(_small_average(sizes)) for sizes in small]
    at = _table_features([weight.count for weight in case.weights])
    return extrapolated([_table_features(sizes) for sizes in small], seen, at).counted


def _table_features(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes), sum(math.ceil(size / BLOCK) for size in sizes), 1]


def _small_average(sizes: Sequence[int]) -> Count:
    teacher, student = ([torch.zeros(size) for size in sizes] for _ in range(2))
    return watch(lambda: ema_(teacher, student, 0.996), [*teacher, *student])[1]


# The optimiser's tail.


class SmallNetwork(nn.Module):
    """Normalised rows, parameters of which products take copies, others that train, and some that do not."""

    def __init__(
        self, rows: int, narrow: Sequence[int] = (), wide: Sequence[int] = (), frozen: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.ones(rows, 256))
        self.narrow, self.wide = (nn.ParameterList([torch.zeros(n) for n in sizes]) for sizes in (narrow, wide))
        self.frozen = nn.ParameterList([nn.Parameter(torch.zeros(n), requires_grad=False) for n in frozen])


# Small, for the interpreter takes a hundredth of a second a block. The last two are for the check.
SMALL_NETWORKS: tuple[tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...] = (
    (8, (), (), ()),
    (16, (), (), ()),
    (72, (), (), ()),
    (8, (8,), (), ()),
    (8, (40,), (), ()),
    (8, (), (8,), ()),
    (8, (), (), (8,)),
    (8, (), (), (40,)),
    (8, (2000,), (), ()),
    (8, (), (), (1400,)),
    (8, (16400,), (), ()),
    (8, (), (), (16400,)),
    (24, (1500, 300), (12,), (1032,)),
    (8, (8, 16, 4), (2052,), (20, 4)),
)


def tail(case: Case) -> Count:
    """With bfloat16 gradients where products take copies, as they give them, and float32 gradients of the others."""
    features = []
    for sizes in SMALL_NETWORKS:
        parameters = dict(SmallNetwork(*sizes).named_parameters())
        counts = [p.numel() for p in parameters.values()]
        features.append(_tail_features(counts, [_kind(name) for name in parameters], case.width))
    at = _tail_features([w.count for w in case.weights], [_kind_of(w) for w in case.weights], case.width)
    return extrapolated(features, [_small_tail(sizes) for sizes in SMALL_NETWORKS], at).counted


def _kind(name: str) -> str:
    """Of a SmallNetwork's parameter."""
    return name.split(".")[0]


def _kind_of(weight: Weight) -> str:
    """What a SmallNetwork calls it."""
    if weight.name == LAST_LAYER:
        return "rows"
    return "frozen" if not weight.trains else "narrow" if weight.narrow else "wide"


def _tail_features(counts: list[int], kinds: list[str], width: int) -> list[int]:
    """Values by kind, and lengths of the tables that the kernels go by."""
    layout = lay_out(counts, kinds.index("rows"), blocks_of_rows(width), CPU)

    def those(*names: str) -> list[int]:
        return [i for i, kind in enumerate(kinds) if kind in names]

    values = [sum(counts[i] for i in those(kind)) for kind in ("narrow", "wide", "frozen", "rows")]
    _, chunks_of_rows, _ = _lengths(layout, those("rows"))
    return [*values, *_lengths(layout, those("narrow", "wide")), *_lengths(layout, those("frozen")), chunks_of_rows, 1]


def _lengths(layout: Layout, tensors: list[int]) -> list[int]:
    """Blocks, chunks and rows of the tables that are of these tensors."""
    chosen = torch.tensor(tensors, dtype=torch.int32)
    return [int(torch.isin(table[:, 0], chosen).sum()) for table in (layout.blocks, layout.chunks)] + [len(tensors)]


def _small_tail(sizes: tuple[Any, ...], inputs: int = 0) -> Seen:
    """With a center that moves by so many of the prototypes' inputs, if there are any."""
    student, teacher = SmallNetwork(*sizes), SmallNetwork(*sizes)
    arena = Arena(student, teacher, shadows=True, normalised_rows="rows")
    arena.attach(torch.optim.AdamW(p for p in student.parameters() if p.requires_grad))
    gradients = [
        torch.zeros_like(p, dtype=torch.float32 if _kind(name) == "wide" else BFLOAT16) if p.requires_grad else None
        for name, p in student.named_parameters()
    ]
    center = (torch.zeros(1, len(student.rows)), torch.zeros(inputs, student.rows.shape[1])) if inputs else ()
    scalars = StepScalars(lr=1e-3, weight_decay=0.04, momentum=0.996, clip=3.0).on(CPU)

    def step() -> None:
        arena.gather_gradients(gradients, of_shadows=True)
        adamw_ema_(arena, scalars, *center)

    return Seen(watch(step, [g for g in gradients if g is not None])[1])


# Crops from bytes to bfloat16.


def normalisation(case: Case) -> Count:
    """One launch a crop."""
    small = [(1, 3, 32, 32), (2, 3, 32, 32), (1, 3, 48, 64)]
    seen = [Seen(watch(partial(normalize, torch.zeros(shape, dtype=torch.uint8)))[1]) for shape in small]
    features = [[math.prod(shape), 1] for shape in small]
    return total(extrapolated(features, seen, [math.prod(shape), 1]).counted for shape in case.pixel_shapes)
