# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of kernels their types.
"""The teacher as a moving average of the student, in one launch: teacher += (1 - momentum) (student - teacher).

`ema_` takes lists of tensors, wherever they are. It reads teacher and student once and writes the teacher once,
12 bytes a parameter, beside a table with 24 bytes for every 1,024 parameters. `ema_arena_` goes over an arena and
writes the teacher's bfloat16 shadow in the same pass, 14 bytes a parameter, normalised where it has normalised rows.

The average is one subtraction and one fused multiply-add. So it rounds the teacher once, leaves it alone bit for bit at
momentum 1 and where teacher and student are equal, and keeps updates of any size that float32 can hold beside the
teacher.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdino.kernels import launch
from fastdino.kernels.arena import Arena
from fastdino.kernels.arena_layout import BLOCK, Blocks, blocks_of_rows
from fastdino.kernels.arena_tiles import (
    EXTREME_WIDTHS,
    QUAD,
    WIDTHS,
    accumulator,
    block_constants,
    block_lanes,
    block_options,
    store_shadow,
)
from fastdino.kernels.configuration import Configuration


@triton.jit
def toward(teacher, student, weight):
    """The average, with weight = 1 - momentum."""
    return tl.fma(weight, student - teacher, teacher)


@triton.jit
def ema_of_lists(table_ptr, momentum_ptr, BLOCK: tl.constexpr, ACC: tl.constexpr):
    """Each program owns one row of the table: where values of a teacher and a student are, and how many, at most BLOCK.

    Only where both addresses and the number allow it, the compiler is told that a thread can move 16 bytes at a time.
    """
    row_ptr = table_ptr + 3 * tl.program_id(0)
    teacher = tl.load(row_ptr)
    student = tl.load(row_ptr + 1)
    count = tl.load(row_ptr + 2)
    weight = (1.0 - tl.load(momentum_ptr).to(tl.float64)).to(ACC)
    teacher_ptr = teacher.to(tl.pointer_type(ACC))
    student_ptr = student.to(tl.pointer_type(ACC))
    if ((teacher | student) % 16 == 0) & (count % QUAD == 0):
        teacher_ptr = tl.multiple_of(teacher_ptr, 16)
        student_ptr = tl.multiple_of(student_ptr, 16)
        _average(teacher_ptr, student_ptr, count // QUAD * QUAD, weight, BLOCK)
    else:
        _average(teacher_ptr, student_ptr, count, weight, BLOCK)


@triton.jit
def _average(teacher_ptr, student_ptr, count, weight, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    inside = lanes < count
    teacher = tl.load(teacher_ptr + lanes, mask=inside)
    student = tl.load(student_ptr + lanes, mask=inside)
    tl.store(teacher_ptr + lanes, toward(teacher, student, weight), mask=inside)


@triton.jit
def ema_of_arena(
    blocks_ptr,  # (blocks, 2)
    tensors_ptr,  # (tensors, 4)
    momentum_ptr,  # ()
    teacher_ptr,  # (size,), changed
    student_ptr,  # (size,)
    shadow_ptr,  # (size,), written if there is one
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    SHADOW: tl.constexpr,
    ACC: tl.constexpr,
):
    """Each program owns a block of the arena."""
    block = tl.program_id(0).to(tl.int64)
    tensor = tl.load(blocks_ptr + 2 * block)
    lanes, inside = block_lanes(tl.load(blocks_ptr + 2 * block + 1), ROWS, WIDTH, PADDED_WIDTH)
    offsets = block * (ROWS * WIDTH) + lanes
    weight = (1.0 - tl.load(momentum_ptr).to(tl.float64)).to(ACC)
    teacher = tl.load(teacher_ptr + offsets, mask=inside, other=0)
    student = tl.load(student_ptr + offsets, mask=inside, other=0)
    teacher = toward(teacher, student, weight)
    tl.store(teacher_ptr + offsets, teacher, mask=inside)
    if SHADOW:
        store_shadow(shadow_ptr + offsets, teacher, inside, tl.load(tensors_ptr + 4 * tensor + 3))


@torch.no_grad()
def ema_(teacher: Sequence[Tensor], student: Sequence[Tensor], momentum: float | Tensor) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student for all pairs of tensors, in place.

    Args:
        teacher, student: equally many contiguous tensors of equal shapes, all float32 or all float64, on one device.
        momentum: number, or tensor of one element on the tensors' device (for CUDA graphs).

    The addresses go to the device once for each set of tensors and stay there. The host waits for nothing.

    Raises:
        ValueError: the lists do not fit together or to the kernel.
    """
    teacher, student = list(teacher), list(student)
    _check(teacher, student)
    if not any(t.numel() for t in teacher):
        return
    device = teacher[0].device
    momentum = launch.on_device(momentum, device)
    spans = tuple((t.data_ptr(), s.data_ptr(), t.numel()) for t, s in zip(teacher, student, strict=True))
    table = _table(spans, teacher[0].element_size(), device)
    with launch.device_of(teacher[0]):
        ema_of_lists[len(table),](
            table,
            momentum,
            BLOCK=BLOCK,
            ACC=tl.float64 if teacher[0].dtype == torch.float64 else tl.float32,
            **block_options(BLOCK, launch.warp_size()),
        )


@torch.no_grad()
def ema_arena_(arena: Arena, momentum: float | Tensor) -> None:
    """The same for the networks of an arena, with the teacher's shadow if it has one.

    Raises:
        ValueError: the parameters have left the arena, or `momentum` is elsewhere.
    """
    arena.check()
    launch.check_device(arena.device)
    momentum = launch.on_device(momentum, arena.device)
    layout, shadow = arena.layout, arena.teacher_shadow
    with launch.device_of(arena.teacher):
        ema_of_arena[len(layout.blocks),](
            layout.blocks,
            layout.tensors,
            momentum,
            arena.teacher,
            arena.student,
            arena.teacher if shadow is None else shadow,
            **block_constants(layout.shape),
            SHADOW=shadow is not None,
            ACC=accumulator(arena),
            **block_options(layout.shape.tile, launch.warp_size()),
        )


def _check(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> None:
    if [t.shape for t in teacher] != [s.shape for s in student]:
        raise ValueError("teacher and student must be equally many tensors of equal shapes")
    tensors = (*teacher, *student)
    if len({(x.device, x.dtype) for x in tensors}) > 1 or any(
        x.dtype not in (torch.float32, torch.float64) for x in tensors
    ):
        raise ValueError("teacher and student must be on one device, and all float32 or all float64")
    if not all(x.is_contiguous() for x in tensors):
        raise ValueError("teacher and student must be contiguous: call .contiguous() on their tensors")
    if tensors:
        launch.check_device(tensors[0].device)


@functools.lru_cache(maxsize=8)
def _table(spans: tuple[tuple[int, int, int], ...], size: int, device: torch.device) -> Tensor:
    """(blocks, 3) int64: addresses and number of values; kept, for parameters seldom move."""
    return torch.tensor(
        [
            (teacher + start * size, student + start * size, min(BLOCK, count - start))
            for teacher, student, count in spans
            for start in range(0, count, BLOCK)
        ],
        dtype=torch.int64,
    ).to(device)


def configurations(warp_size: int) -> Iterator[Configuration]:
    """What the launchers can choose but for float64, which is for checks."""
    yield Configuration(
        "lists of tensors",
        ema_of_lists,
        {"table_ptr": "*i64:16", "momentum_ptr": "*fp64:16", "BLOCK": "constexpr", "ACC": "constexpr"},
        {"BLOCK": BLOCK, "ACC": tl.float32},
        block_options(BLOCK, warp_size),
        wide_loads=4,
        wide_stores=2,
    )
    for width in WIDTHS:
        for shadow in (False, True):
            yield _of_arena(blocks_of_rows(width), shadow, warp_size)


def _of_arena(shape: Blocks, shadow: bool, warp_size: int) -> Configuration:
    return Configuration(
        f"arena of rows of {shape.width}{', shadow' * shadow}",
        ema_of_arena,
        {
            **dict.fromkeys(("blocks_ptr", "tensors_ptr"), "*i32:16"),
            "momentum_ptr": "*fp64:16",
            **dict.fromkeys(("teacher_ptr", "student_ptr"), "*fp32:16"),
            "shadow_ptr": "*bf16:16" if shadow else "*fp32:16",
            **dict.fromkeys(("ROWS", "WIDTH", "PADDED_WIDTH", "SHADOW", "ACC"), "constexpr"),
        },
        {**block_constants(shape), "SHADOW": shadow, "ACC": tl.float32},
        block_options(shape.tile, warp_size),
        wide_loads=4 * shape.aligned,
        wide_stores=2 * shape.aligned,
        extreme=shadow and shape.width in EXTREME_WIDTHS,
    )
