# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of kernels their types.
"""The two kernels of the optimiser's tail; adamw_ema says what they compute."""

from __future__ import annotations

import triton
import triton.language as tl

from fastdino.kernels.arena_tiles import QUAD, block_lanes, square_root, store_shadow, through_rows, unit_rows
from fastdino.kernels.ema import toward

# Elements of the tensor of scalars, in the order of StepScalars.
LR, WEIGHT_DECAY, MOMENTUM, CLIP, GRAD_SCALE, FOUND_INF, BETA1, BETA2, EPS, CENTER_MOMENTUM = map(
    tl.constexpr, range(10)
)

# Columns of `constants`, one row a parameter.
CONSTANTS = 16
MOVES, DECAY, STEP_SIZE, ROOT_BIAS, WEIGHT1, KEEP2, WEIGHT2, EPSILON, AVERAGE, LARGEST, UNSCALE, RECENTER = map(
    tl.constexpr, range(12)
)
ROW = tl.constexpr(CONSTANTS)


@triton.jit(do_not_specialize=["inputs"])
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
    inputs_ptr,  # (inputs, WIDTH), read if there is a center
    mean_ptr,  # (WIDTH,), written if there is one
    inputs,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    SPAN: tl.constexpr,
    CENTER: tl.constexpr,
    OF_ROWS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Each program owns a chunk; if there is a center, the last one owns the mean of what the prototypes were given."""
    chunk = tl.program_id(0)
    if chunk < tl.num_programs(0) - CENTER:
        _of_chunk(
            chunk,
            chunks_ptr,
            tensors_ptr,
            addresses_ptr,
            decays_ptr,
            scalars_ptr,
            student_ptr,
            steps_ptr,
            squares_ptr,
            constants_ptr,
            ROWS,
            WIDTH,
            PADDED_WIDTH,
            SPAN,
            OF_ROWS,
            ACC,
        )
    elif CENTER:
        _mean_of_rows(inputs_ptr, mean_ptr, inputs, WIDTH, PADDED_WIDTH, ACC)


@triton.jit
def _mean_of_rows(inputs_ptr, mean_ptr, inputs, WIDTH: tl.constexpr, PADDED_WIDTH: tl.constexpr, ACC: tl.constexpr):
    AT_ONCE: tl.constexpr = 1024 // PADDED_WIDTH if PADDED_WIDTH < 1024 else 1
    row, column = tl.arange(0, AT_ONCE)[:, None], tl.arange(0, PADDED_WIDTH)
    sums = tl.zeros((AT_ONCE, PADDED_WIDTH), ACC)
    for start in range(0, inputs, AT_ONCE):
        inside = (start + row < inputs) & (column < WIDTH)[None, :]
        sums += tl.load(inputs_ptr + (start + row) * WIDTH + column[None, :], mask=inside, other=0).to(ACC)
    tl.store(mean_ptr + column, tl.sum(sums, axis=0) / inputs, mask=column < WIDTH)


@triton.jit
def _of_chunk(
    chunk,
    chunks_ptr,
    tensors_ptr,
    addresses_ptr,
    decays_ptr,
    scalars_ptr,
    student_ptr,
    steps_ptr,
    squares_ptr,
    constants_ptr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    SPAN: tl.constexpr,
    OF_ROWS: tl.constexpr,
    ACC: tl.constexpr,
):
    """The program of a parameter's first chunk also prepares the parameter's constants."""
    tensor = tl.load(chunks_ptr + 3 * chunk)
    first = tl.load(chunks_ptr + 3 * chunk + 1).to(tl.int64)
    quads = tl.load(chunks_ptr + 3 * chunk + 2)
    address = tl.load(addresses_ptr + tensor)
    unscale = (1.0 / tl.load(scalars_ptr + GRAD_SCALE)).to(ACC)
    quads = tl.where(address != 0, quads, 0)
    normalised = tl.load(tensors_ptr + 4 * tensor + 3)
    student_ptr += tl.load(tensors_ptr + 4 * tensor).to(tl.int64) * (ROWS * WIDTH) + first * QUAD
    if address % 2 == 0:
        total = _squares(
            wide_gradient(address, ACC) + first * QUAD,
            student_ptr,
            quads,
            unscale,
            normalised,
            ROWS,
            WIDTH,
            PADDED_WIDTH,
            SPAN,
            OF_ROWS,
            ACC,
        )
    else:
        total = _squares(
            narrow_gradient(address) + first * QUAD,
            student_ptr,
            quads,
            unscale,
            normalised,
            ROWS,
            WIDTH,
            PADDED_WIDTH,
            SPAN,
            OF_ROWS,
            ACC,
        )
    tl.store(squares_ptr + chunk, total)
    if chunk == tl.load(tensors_ptr + 4 * tensor + 1):
        moves = (address != 0) & (tl.load(scalars_ptr + FOUND_INF) == 0)
        step = tl.load(steps_ptr + tensor) + moves.to(tl.float32)
        tl.store(steps_ptr + tensor, step)
        _prepare(constants_ptr + ROW * tensor, scalars_ptr, moves, tl.load(decays_ptr + tensor), step, unscale, ACC)


@triton.jit
def wide_gradient(address, ACC: tl.constexpr):
    """Where gradients in the parameters' own type are: their address is even."""
    return tl.multiple_of(address.to(tl.pointer_type(ACC)), 16)


@triton.jit
def narrow_gradient(address):
    """Where bfloat16 gradients are: one below their odd address."""
    return tl.multiple_of((address - 1).to(tl.pointer_type(tl.bfloat16)), 16)


@triton.jit
def _squares(
    gradient_ptr,
    student_ptr,
    quads,
    unscale,
    normalised,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    SPAN: tl.constexpr,
    OF_ROWS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Of a chunk that starts at both pointers."""
    if OF_ROWS:
        if normalised != 0:
            total = _squares_of_rows(gradient_ptr, student_ptr, quads, unscale, ROWS, WIDTH, PADDED_WIDTH, ACC)
        else:
            total = _squares_of_values(gradient_ptr, quads, unscale, SPAN, ACC)
    else:
        total = _squares_of_values(gradient_ptr, quads, unscale, SPAN, ACC)
    return total


@triton.jit
def _squares_of_values(gradient_ptr, quads, unscale, SPAN: tl.constexpr, ACC: tl.constexpr):
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
    tl.store(row_ptr + RECENTER, (1.0 - tl.load(scalars_ptr + CENTER_MOMENTUM)).to(ACC))


@triton.jit(do_not_specialize=["prototypes"])
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
    mean_ptr,  # (WIDTH,), read if there is a center
    center_ptr,  # (prototypes,), changed if there is one
    prototypes,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    CHUNKS: tl.constexpr,
    SHADOWS: tl.constexpr,
    CENTER: tl.constexpr,
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
        its_lanes = (block - first_block) * (ROWS * WIDTH) + lanes
        if address % 2 == 0:
            gradient = tl.load(wide_gradient(address, ACC) + its_lanes, mask=inside, other=0)
        else:
            gradient = tl.load(narrow_gradient(address) + its_lanes, mask=inside, other=0).to(ACC)
        gradient *= tl.load(row_ptr + UNSCALE)
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
    normalised = tl.load(tensors_ptr + 4 * tensor + 3)
    teacher = tl.load(teacher_ptr + offsets, mask=inside, other=0)
    if CENTER:
        row = (block - first_block) * ROWS + tl.arange(0, ROWS)
        center_ptrs, known = center_ptr + row, row < prototypes
        _move_center(
            center_ptrs, known, teacher, mean_ptr, tl.load(row_ptr + RECENTER), normalised, WIDTH, PADDED_WIDTH
        )
    teacher = toward(teacher, student, tl.load(row_ptr + AVERAGE))
    tl.store(teacher_ptr + offsets, teacher, mask=inside)
    if SHADOWS:
        store_shadow(student_shadow_ptr + offsets, student, inside, normalised)
        store_shadow(teacher_shadow_ptr + offsets, teacher, inside, normalised)


@triton.jit
def _move_center(
    center_ptrs, known, teacher, mean_ptr, weight, normalised, WIDTH: tl.constexpr, PADDED_WIDTH: tl.constexpr
):
    """The mean logits of a block's rows, those that gave this step's logits, are their products with the mean."""
    if normalised != 0:
        column = tl.arange(0, PADDED_WIDTH)
        mean = tl.load(mean_ptr + column, mask=column < WIDTH, other=0).to(teacher.dtype)
        logits = tl.sum(unit_rows(teacher) * mean[None, :], axis=1)
        center = tl.load(center_ptrs, mask=known, other=0).to(teacher.dtype)
        tl.store(center_ptrs, toward(center, logits, weight).to(center_ptrs.dtype.element_ty), mask=known)


@triton.jit
def _quotient(x, y):
    """Correctly rounded, where `/` is not in float32."""
    if x.dtype == tl.float64:
        return x / y
    else:
        return tl.div_rn(x, y)
