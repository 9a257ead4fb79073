# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of kernels their types.
"""Statistics of column slices of the logits, and what they add up to: the loss and the teacher's entropy."""

from __future__ import annotations

import triton
import triton.language as tl

from fastdino.kernels.dino_loss_tiles import (
    COUNTS,
    FAR_BELOW,
    LN_2,
    LOG2_E,
    STRIDES,
    global_rows,
    tile_count,
    tile_rows,
    tile_start,
)


@triton.jit
def below_maximum(x, scale, valid):
    """The maximum of scale * x over the valid columns, and the distances of all from it."""
    x = tl.where(valid, x, FAR_BELOW)
    maximum = tl.max(x, axis=0) * scale
    return maximum, tl.fma(x, scale, -maximum)


@triton.jit
def local_statistics(
    column_ptr,
    crop_stride,
    inside,
    valid,
    scale,
    maximum_ptr,
    sum_ptr,
    slices,
    FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Stores maxima and sums of ROWS local crops; returns the sum of their distances from the maxima, (BLOCK,)."""
    crop = FIRST + tl.arange(0, ROWS)
    x = tl.load((crop * crop_stride)[:, None] + column_ptr[None, :], mask=inside[None, :], other=0).to(ACC)
    x = tl.where(valid[None, :], x, FAR_BELOW)
    maximum = tl.max(x, axis=1) * scale
    x = tl.fma(x, scale, -maximum[:, None])
    tl.store(maximum_ptr + crop * slices, maximum)
    tl.store(sum_ptr + crop * slices, tl.sum(tl.exp2(x), axis=1))
    return tl.sum(x, axis=0)


@triton.jit(do_not_specialize=COUNTS + STRIDES)
def dino_loss_statistics(
    student_ptr,  # (V * images, width)
    teacher_ptr,  # (2 * images, width)
    center_ptr,  # (columns,)
    student_temp_ptr,  # ()
    teacher_temp_ptr,  # ()
    partial_ptr,  # (images, 2 (V+2) + 4, slices), written
    images,
    first_image,
    columns,
    width,
    first_slice,
    slices,
    student_stride,
    teacher_stride,
    LOCALS: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    PADDED: tl.constexpr,
    ACC: tl.constexpr,
):
    """The grid is (slices of these columns, images of this launch)."""
    student_stride = student_stride.to(tl.int64) * VECTOR
    teacher_stride = teacher_stride.to(tl.int64) * VECTOR
    image = (first_image + tl.program_id(1)).to(tl.int64)
    col = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = col < width * VECTOR
    valid = col < columns if PADDED else inside
    student_scale = LOG2_E / tl.load(student_temp_ptr).to(ACC)
    teacher_scale = LOG2_E / tl.load(teacher_temp_ptr).to(ACC)

    s_ptr = student_ptr + image * student_stride + col
    crop_stride = images * student_stride
    t_ptr = teacher_ptr + image * teacher_stride + col
    t0, t1, s0, s1 = global_rows(
        s_ptr, crop_stride, t_ptr, images * teacher_stride, center_ptr + col, inside, valid, ACC
    )

    ROWS: tl.constexpr = LOCALS + 4
    maximum_ptr = partial_ptr + image * (2 * ROWS + 4) * slices + first_slice + tl.program_id(0)
    sum_ptr = maximum_ptr + ROWS * slices
    mixed_ptr = sum_ptr + ROWS * slices
    local_sum = tl.zeros([BLOCK], ACC)
    for tile in tl.static_range(tile_count(LOCALS)):
        local_sum += local_statistics(
            s_ptr,
            crop_stride,
            inside,
            valid,
            student_scale,
            maximum_ptr + 2 * slices,
            sum_ptr + 2 * slices,
            slices,
            2 + tile_start(LOCALS, tile),
            tile_rows(LOCALS, tile),
            ACC,
        )

    t0_maximum, t0 = below_maximum(t0, teacher_scale, valid)
    t1_maximum, t1 = below_maximum(t1, teacher_scale, valid)
    s0_maximum, s0 = below_maximum(s0, student_scale, valid)
    s1_maximum, s1 = below_maximum(s1, student_scale, valid)
    tl.store(maximum_ptr, t0_maximum)
    tl.store(maximum_ptr + slices, t1_maximum)
    tl.store(maximum_ptr + 2 * slices, s0_maximum)
    tl.store(maximum_ptr + 3 * slices, s1_maximum)

    e0 = tl.exp2(t0)
    e1 = tl.exp2(t1)
    tl.store(sum_ptr, tl.sum(e0, axis=0))
    tl.store(sum_ptr + slices, tl.sum(e1, axis=0))
    tl.store(sum_ptr + 2 * slices, tl.sum(tl.exp2(s0), axis=0))
    tl.store(sum_ptr + 3 * slices, tl.sum(tl.exp2(s1), axis=0))
    tl.store(mixed_ptr, tl.sum(e0 * (local_sum + s1), axis=0))
    tl.store(mixed_ptr + slices, tl.sum(e1 * (local_sum + s0), axis=0))
    tl.store(mixed_ptr + 2 * slices, tl.sum(e0 * t0, axis=0))
    tl.store(mixed_ptr + 3 * slices, tl.sum(e1 * t1, axis=0))


@triton.jit(do_not_specialize=COUNTS)
def dino_loss_totals(
    partial_ptr,  # (images, 2 (V+2) + 4, slices)
    result_ptr,  # (2, images), written: what each image adds to the mean loss and to the mean teacher entropy, in nats
    images,
    slices,
    LOCALS: tl.constexpr,
    CROPS: tl.constexpr,
    SLICES: tl.constexpr,
    ACC: tl.constexpr,
):
    """The grid is (images,). CROPS and SLICES are powers of two that hold all crops and slices."""
    image = tl.program_id(0).to(tl.int64)
    ROWS: tl.constexpr = LOCALS + 4
    maximum_ptr = partial_ptr + image * (2 * ROWS + 4) * slices
    sum_ptr = maximum_ptr + ROWS * slices
    mixed_ptr = sum_ptr + ROWS * slices
    crop = tl.arange(0, CROPS)
    j = tl.arange(0, SLICES)
    exists = (crop < LOCALS + 2)[:, None] & (j < slices)[None, :]
    place = (2 + crop)[:, None] * slices + j[None, :]

    maxima = tl.load(maximum_ptr + place, mask=exists, other=FAR_BELOW)
    sums = tl.load(sum_ptr + place, mask=exists, other=0)
    # Student rows move from the maxima of their slices to the maxima of the rows: x_v changes by this much.
    shift = tl.where(exists, maxima - tl.max(maxima, axis=1)[:, None], 0)
    totals = tl.sum(sums * tl.exp2(shift), axis=1)
    compared = tl.where(crop < 2, 1, 2)
    loss = tl.sum(compared * tl.log2(tl.where(crop < LOCALS + 2, totals, 1)), axis=0)
    entropy = tl.zeros([], ACC)
    for i in tl.static_range(2):
        t_maxima = tl.load(maximum_ptr + i * slices + j, mask=j < slices, other=FAR_BELOW)
        t_sums = tl.load(sum_ptr + i * slices + j, mask=j < slices, other=0)
        cross = tl.load(mixed_ptr + i * slices + j, mask=j < slices, other=0)
        spread = tl.load(mixed_ptr + (2 + i) * slices + j, mask=j < slices, other=0)
        t_shift = t_maxima - tl.max(t_maxima, axis=0)
        weight = tl.exp2(t_shift)
        total = tl.sum(weight * t_sums, axis=0)
        others = tl.sum(tl.where((crop != i)[:, None], shift, 0), axis=0)
        loss -= tl.sum(weight * (cross + t_sums * others), axis=0) / total
        entropy += tl.log2(total) - tl.sum(weight * (spread + t_sums * t_shift), axis=0) / total
    tl.store(result_ptr + image, loss * (LN_2 / (2 * (LOCALS + 1))) / images)
    tl.store(result_ptr + images + image, entropy * (LN_2 / 2) / images)


@triton.jit(do_not_specialize=COUNTS)
def dino_loss_means(result_ptr, loss_ptr, entropy_ptr, images, BLOCK: tl.constexpr):
    """Adds up what the images contribute; one program, so that the order is always the same."""
    loss = tl.zeros([BLOCK], result_ptr.dtype.element_ty)
    entropy = tl.zeros([BLOCK], result_ptr.dtype.element_ty)
    for first in range(0, images, BLOCK):
        image = first + tl.arange(0, BLOCK)
        loss += tl.load(result_ptr + image, mask=image < images, other=0)
        entropy += tl.load(result_ptr + images + image, mask=image < images, other=0)
    tl.store(loss_ptr, tl.sum(loss, axis=0))
    tl.store(entropy_ptr, tl.sum(entropy, axis=0))
