# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of kernels their types.
"""What follows the backward pass, in two launches: norms, clipping, AdamW, the teacher's average, bfloat16 shadows.

    g = gradient / grad_scale * min(1, clip / (|gradient of this parameter / grad_scale| + 1e-6))
    m += (1 - beta1) (g - m)        v = beta2 v + (1 - beta2) g^2
    p = (1 - lr * weight_decay) p - lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
    teacher += (1 - momentum) (p - teacher)

The first launch adds up the squares of each parameter's gradient, in chunks, and turns the step's scalars into the
constants of each parameter, in float64 where float32 would lose digits of 1 - beta2^step. In the second every program
adds up its parameter's few chunks again, in the same order as all others, and moves one block. So no sum depends on the
order of programs, and nothing waits for the host: learning rate and the rest are read from one tensor on the device.

Bytes a parameter, with float32 gradients and both shadows: 4 for the norms, and 40 for gradient (4), parameter, both
moments and teacher (8 each) and shadows (2 each); 40 in all with bfloat16 gradients. PyTorch's own operations move 144.

Where the gradient of a matrix is that of its normalised rows v / |v|, both launches turn it into that of v, and the
first one reads v beside it, 4 bytes for each value of that matrix.

A parameter without gradient (frozen, or dropped for this step) keeps its value, moments and step count, as in torch; if
a loss scaler has found infinities all parameters do. The teacher's average goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdino.kernels import launch
from fastdino.kernels.arena import Arena
from fastdino.kernels.arena_layout import MOST_CHUNKS, Blocks, blocks_of_rows
from fastdino.kernels.arena_tiles import (
    EXTREME_WIDTHS,
    QUAD,
    WIDTHS,
    accumulator,
    block_constants,
    block_lanes,
    block_options,
    square_root,
    store_shadow,
    through_rows,
)
from fastdino.kernels.configuration import Configuration
from fastdino.kernels.ema import toward


class StepScalars(NamedTuple):
    """What a step reads from the device, in this order: a float64 tensor `scalars` of so many elements.

    Attributes:
        lr, weight_decay: of AdamW; the decay applies to parameters that `Arena.decays` marks.
        momentum: of the teacher.
        clip: largest norm of a parameter's gradient; 0 for none.
        grad_scale: what the gradients were multiplied with by a loss scaler, if they still are.
        found_inf: not 0 if a loss scaler found gradients that are no finite numbers.
        beta1, beta2, eps: of AdamW.
    """

    lr: float
    weight_decay: float
    momentum: float
    clip: float = 0.0
    grad_scale: float = 1.0
    found_inf: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def on(self, device: torch.device) -> Tensor:
        """On the device, brought there without waiting; `scalars[i].copy_(tensor)` puts in what lives there already."""
        values = torch.tensor(self, dtype=torch.float64, pin_memory=device.type == "cuda")
        return values.to(device, non_blocking=True)


LR, WEIGHT_DECAY, MOMENTUM, CLIP, GRAD_SCALE, FOUND_INF, BETA1, BETA2, EPS = map(
    tl.constexpr, range(len(StepScalars._fields))
)

# Columns of `constants`, one row a parameter.
CONSTANTS = 16
MOVES, DECAY, STEP_SIZE, ROOT_BIAS, WEIGHT1, KEEP2, WEIGHT2, EPSILON, AVERAGE, LARGEST, UNSCALE = map(
    tl.constexpr, range(11)
)
ROW = tl.constexpr(CONSTANTS)

SPAN = 2048
SQUARES_WARPS = 4


@triton.jit
def squares_and_constants(
    chunks_ptr,  # (chunks, 3)
    tensors_ptr,  # (tensors, 4)
    addresses_ptr,  # (tensors,)
    decays_ptr,  # (tensors,)
    scalars_ptr,  # StepScalars
    student_ptr,  # (size,)
    steps_ptr,  # (tensors,), changed
    squares_ptr,  # (chunks,), written
    constants_ptr,  # (tensors, CONSTANTS), written
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    SPAN: tl.constexpr,
    GRADIENT: tl.constexpr,
    OF_ROWS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Each program owns a chunk; that of a parameter's first chunk prepares the parameter's constants."""
    chunk = tl.program_id(0)
    tensor = tl.load(chunks_ptr + 3 * chunk)
    first = tl.load(chunks_ptr + 3 * chunk + 1).to(tl.int64)
    quads = tl.load(chunks_ptr + 3 * chunk + 2)
    address = tl.load(addresses_ptr + tensor)
    unscale = (1.0 / tl.load(scalars_ptr + GRAD_SCALE)).to(ACC)
    gradient_ptr = tl.multiple_of(address.to(tl.pointer_type(GRADIENT)), 16) + first * QUAD
    quads = tl.where(address != 0, quads, 0)
    if OF_ROWS:
        if tl.load(tensors_ptr + 4 * tensor + 3) != 0:
            student_ptr += tl.load(tensors_ptr + 4 * tensor).to(tl.int64) * (ROWS * WIDTH) + first * QUAD
            total = _squares_of_rows(gradient_ptr, student_ptr, quads, unscale, ROWS, WIDTH, PADDED_WIDTH, ACC)
        else:
            total = _squares(gradient_ptr, quads, unscale, SPAN, ACC)
    else:
        total = _squares(gradient_ptr, quads, unscale, SPAN, ACC)
    tl.store(squares_ptr + chunk, total)
    if chunk == tl.load(tensors_ptr + 4 * tensor + 1):
        moves = (address != 0) & (tl.load(scalars_ptr + FOUND_INF) == 0)
        step = tl.load(steps_ptr + tensor) + moves.to(tl.float32)
        tl.store(steps_ptr + tensor, step)
        _prepare(constants_ptr + ROW * tensor, scalars_ptr, moves, tl.load(decays_ptr + tensor), step, unscale, ACC)


@triton.jit
def _squares(gradient_ptr, quads, unscale, SPAN: tl.constexpr, ACC: tl.constexpr):
    lanes = tl.arange(0, SPAN)
    sums = tl.zeros((SPAN,), ACC)
    for start in range(0, quads * QUAD, SPAN):
        inside = lanes < quads * QUAD - start
        gradient = tl.load(gradient_ptr + start + lanes, mask=inside, other=0).to(ACC) * unscale
        sums += gradient * gradient
    return tl.sum(sums, axis=0)


@triton.jit
def _squares_of_rows(
    gradient_ptr,
    student_ptr,
    quads,
    unscale,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    ACC: tl.constexpr,
):
    """The same where the gradient is that of normalised rows."""
    sums = tl.zeros((ROWS, PADDED_WIDTH), ACC)
    for start in range(0, quads * QUAD, ROWS * WIDTH):
        lanes, inside = block_lanes(quads - start // QUAD, ROWS, WIDTH, PADDED_WIDTH)
        gradient = tl.load(gradient_ptr + start + lanes, mask=inside, other=0).to(ACC) * unscale
        gradient = through_rows(gradient, tl.load(student_ptr + start + lanes, mask=inside, other=0), 1)
        sums += gradient * gradient
    return tl.sum(tl.sum(sums, axis=1), axis=0)


@triton.jit
def _prepare(row_ptr, scalars_ptr, moves, decays, step, unscale, ACC: tl.constexpr):
    """One parameter's constants, from float64."""
    beta1, beta2 = tl.load(scalars_ptr + BETA1), tl.load(scalars_ptr + BETA2)
    lr = tl.load(scalars_ptr + LR)
    # Where nothing has moved yet, the step is 0 and nobody reads these.
    exponent = tl.maximum(step, 1.0).to(tl.float64)
    bias1 = 1.0 - tl.exp2(exponent * tl.log2(beta1))
    bias2 = 1.0 - tl.exp2(exponent * tl.log2(beta2))
    tl.store(row_ptr + MOVES, moves.to(ACC))
    tl.store(row_ptr + DECAY, (1.0 - lr * tl.load(scalars_ptr + WEIGHT_DECAY) * decays).to(ACC))
    tl.store(row_ptr + STEP_SIZE, (lr / bias1).to(ACC))
    tl.store(row_ptr + ROOT_BIAS, tl.sqrt(bias2).to(ACC))
    tl.store(row_ptr + WEIGHT1, (1.0 - beta1).to(ACC))
    tl.store(row_ptr + KEEP2, beta2.to(ACC))
    tl.store(row_ptr + WEIGHT2, (1.0 - beta2).to(ACC))
    tl.store(row_ptr + EPSILON, tl.load(scalars_ptr + EPS).to(ACC))
    tl.store(row_ptr + AVERAGE, (1.0 - tl.load(scalars_ptr + MOMENTUM)).to(ACC))
    tl.store(row_ptr + LARGEST, tl.load(scalars_ptr + CLIP).to(ACC))
    tl.store(row_ptr + UNSCALE, unscale)


@triton.jit
def adamw_and_ema(
    blocks_ptr,  # (blocks, 2)
    tensors_ptr,  # (tensors, 4)
    addresses_ptr,  # (tensors,)
    squares_ptr,  # (chunks,)
    constants_ptr,  # (tensors, CONSTANTS)
    student_ptr,  # (size,), changed, as are the next three
    exp_avg_ptr,
    exp_avg_sq_ptr,
    teacher_ptr,
    student_shadow_ptr,  # (size,), written if there are shadows
    teacher_shadow_ptr,
    norms_ptr,  # (tensors,), written
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    CHUNKS: tl.constexpr,
    SHADOWS: tl.constexpr,
    GRADIENT: tl.constexpr,
    OF_ROWS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Each program owns a block of the arena."""
    block = tl.program_id(0).to(tl.int64)
    tensor = tl.load(blocks_ptr + 2 * block)
    lanes, inside = block_lanes(tl.load(blocks_ptr + 2 * block + 1), ROWS, WIDTH, PADDED_WIDTH)
    offsets = block * (ROWS * WIDTH) + lanes
    row_ptr = constants_ptr + ROW * tensor
    first_block = tl.load(tensors_ptr + 4 * tensor)
    squares_ptr += tl.load(tensors_ptr + 4 * tensor + 1)
    chunk = tl.arange(0, CHUNKS)
    squares = tl.load(squares_ptr + chunk, mask=chunk < tl.load(tensors_ptr + 4 * tensor + 2), other=0)
    norm = square_root(tl.sum(squares, axis=0))
    if block == first_block:
        tl.store(norms_ptr + tensor, norm.to(tl.float32))

    student = tl.load(student_ptr + offsets, mask=inside, other=0)
    if tl.load(row_ptr + MOVES) != 0:
        address = tl.load(addresses_ptr + tensor)
        gradient_ptr = tl.multiple_of(address.to(tl.pointer_type(GRADIENT)), 16)
        gradient_ptr += (block - first_block) * (ROWS * WIDTH)
        gradient = tl.load(gradient_ptr + lanes, mask=inside, other=0).to(ACC) * tl.load(row_ptr + UNSCALE)
        if OF_ROWS:
            gradient = through_rows(gradient, student, tl.load(tensors_ptr + 4 * tensor + 3))
        clip = tl.load(row_ptr + LARGEST)
        coefficient = clip / (norm + 1e-6)
        gradient *= tl.where((clip > 0) & (coefficient < 1), coefficient, 1.0)
        exp_avg = toward(tl.load(exp_avg_ptr + offsets, mask=inside, other=0), gradient, tl.load(row_ptr + WEIGHT1))
        exp_avg_sq = tl.load(exp_avg_sq_ptr + offsets, mask=inside, other=0) * tl.load(row_ptr + KEEP2)
        exp_avg_sq = tl.fma(gradient * gradient, tl.load(row_ptr + WEIGHT2), exp_avg_sq)
        deviation = _quotient(square_root(exp_avg_sq), tl.load(row_ptr + ROOT_BIAS)) + tl.load(row_ptr + EPSILON)
        student *= tl.load(row_ptr + DECAY)
        student = tl.fma(_quotient(exp_avg, deviation), -tl.load(row_ptr + STEP_SIZE), student)
        tl.store(exp_avg_ptr + offsets, exp_avg, mask=inside)
        tl.store(exp_avg_sq_ptr + offsets, exp_avg_sq, mask=inside)
        tl.store(student_ptr + offsets, student, mask=inside)
    teacher = tl.load(teacher_ptr + offsets, mask=inside, other=0)
    teacher = toward(teacher, student, tl.load(row_ptr + AVERAGE))
    tl.store(teacher_ptr + offsets, teacher, mask=inside)
    if SHADOWS:
        normalised = tl.load(tensors_ptr + 4 * tensor + 3)
        store_shadow(student_shadow_ptr + offsets, student, inside, normalised)
        store_shadow(teacher_shadow_ptr + offsets, teacher, inside, normalised)


@triton.jit
def _quotient(x, y):
    """Correctly rounded, where `/` is not in float32."""
    if x.dtype == tl.float64:
        return x / y
    else:
        return tl.div_rn(x, y)


@torch.no_grad()
def adamw_ema_(arena: Arena, scalars: Tensor) -> Tensor:
    """One step of both networks of `arena`, on the gradients that `arena.gather_gradients()` has found.

    Args:
        arena: with an optimiser attached, whose state moves on.
        scalars: `StepScalars` as a float64 tensor on the arena's device.

    Returns:
        `arena.norms`: the gradients' L2 norms, unscaled and before clipping, one a parameter, 0 without gradient;
        float32, on the device, overwritten by the next step.

    Raises:
        ValueError: no optimiser is attached, or `scalars` is of another kind.
    """
    if arena.exp_avg is None or arena.exp_avg_sq is None:
        raise ValueError("the arena has no optimiser's state yet: call arena.attach(optimizer) first")
    expected = (len(StepScalars._fields),)
    if scalars.shape != expected or scalars.dtype != torch.float64 or scalars.device != arena.device:
        raise ValueError(
            f"scalars must be float64 of shape {expected} on {arena.device}, not {scalars.dtype} of shape "
            f"{tuple(scalars.shape)} on {scalars.device}"
        )
    launch.check_device(arena.device)
    layout = arena.layout
    squares = arena.student.new_empty(len(layout.chunks))
    constants = arena.student.new_empty(len(layout.tensors), CONSTANTS)
    constexprs = {
        **block_constants(layout.shape),
        "GRADIENT": GRADIENTS[arena.gradient_dtype],
        "OF_ROWS": arena.gradients_of_rows,
        "ACC": accumulator(arena),
    }
    shadows = arena.student_shadow, arena.teacher_shadow
    with launch.device_of(arena.student):
        squares_and_constants[len(layout.chunks),](
            layout.chunks,
            layout.tensors,
            arena.gradient_addresses,
            arena.decays,
            scalars,
            arena.student,
            arena.steps,
            squares,
            constants,
            SPAN=SPAN,
            **constexprs,
            **squares_options(layout.shape, arena.gradients_of_rows, launch.warp_size()),
        )
        adamw_and_ema[len(layout.blocks),](
            layout.blocks,
            layout.tensors,
            arena.gradient_addresses,
            squares,
            constants,
            arena.student,
            arena.exp_avg,
            arena.exp_avg_sq,
            arena.teacher,
            *(arena.student if shadow is None else shadow for shadow in shadows),
            arena.norms,
            CHUNKS=MOST_CHUNKS,
            SHADOWS=arena.student_shadow is not None,
            **constexprs,
            **block_options(layout.shape.tile, launch.warp_size()),
        )
    return arena.norms


GRADIENTS = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float64: tl.float64}


def squares_options(shape: Blocks, of_rows: bool, warp_size: int) -> dict[str, Any]:
    """Four warps, or as many as blocks of rows need."""
    options = block_options(shape.tile, warp_size)
    return options | {"num_warps": max(SQUARES_WARPS, options["num_warps"] if of_rows else 0)}


def configurations(warp_size: int) -> Iterator[Configuration]:
    """What the launcher can choose but for float64, which is for checks."""
    for gradient, of_rows, width in itertools.product((tl.float32, tl.bfloat16), (False, True), WIDTHS):
        shape = blocks_of_rows(width)
        if of_rows or width == WIDTHS[0]:
            yield _of_squares(shape, gradient, of_rows, warp_size)
        for shadows in (False, True):
            yield _of_step(shape, shadows, gradient, of_rows, warp_size)


def _of_squares(shape: Blocks, gradient: tl.dtype, of_rows: bool, warp_size: int) -> Configuration:
    options = squares_options(shape, of_rows, warp_size)
    # A thread takes a QUAD at a time, which bfloat16 has in 64 bits.
    loads = SPAN // (options["num_warps"] * warp_size * 4) * (gradient == tl.float32)
    return Configuration(
        f"{gradient} gradients{f' of rows of {shape.width}' * of_rows}",
        squares_and_constants,
        {
            **dict.fromkeys(("chunks_ptr", "tensors_ptr", "decays_ptr"), "*i32:16"),
            "addresses_ptr": "*i64:16",
            "scalars_ptr": "*fp64:16",
            **dict.fromkeys(("student_ptr", "steps_ptr", "squares_ptr", "constants_ptr"), "*fp32:16"),
            **dict.fromkeys((*block_constants(shape), "SPAN", "GRADIENT", "OF_ROWS", "ACC"), "constexpr"),
        },
        {**block_constants(shape), "SPAN": SPAN, "GRADIENT": gradient, "OF_ROWS": of_rows, "ACC": tl.float32},
        options,
        wide_loads=loads,
        extreme=shape.width in EXTREME_WIDTHS,
    )


def _of_step(shape: Blocks, shadows: bool, gradient: tl.dtype, of_rows: bool, warp_size: int) -> Configuration:
    shadow = "*bf16:16" if shadows else "*fp32:16"
    constexprs = {
        **block_constants(shape),
        "CHUNKS": MOST_CHUNKS,
        "SHADOWS": shadows,
        "GRADIENT": gradient,
        "OF_ROWS": of_rows,
        "ACC": tl.float32,
    }
    return Configuration(
        f"{gradient} gradients{' of normalised' * of_rows}, rows of {shape.width}{', shadows' * shadows}",
        adamw_and_ema,
        {
            **dict.fromkeys(("blocks_ptr", "tensors_ptr"), "*i32:16"),
            "addresses_ptr": "*i64:16",
            **dict.fromkeys(("squares_ptr", "constants_ptr", "norms_ptr"), "*fp32:16"),
            **dict.fromkeys(("student_ptr", "exp_avg_ptr", "exp_avg_sq_ptr", "teacher_ptr"), "*fp32:16"),
            **dict.fromkeys(("student_shadow_ptr", "teacher_shadow_ptr"), shadow),
            **dict.fromkeys(constexprs, "constexpr"),
        },
        constexprs,
        block_options(shape.tile, warp_size),
        # Student, teacher and two moments, two accesses each.
        wide_loads=8 * shape.aligned,
        wide_stores=8 * shape.aligned,
        extreme=shadows and shape.width in EXTREME_WIDTHS and (of_rows or gradient == tl.float32),
    )
