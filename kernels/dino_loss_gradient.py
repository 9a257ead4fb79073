# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of kernels their types.
"""The gradient of the loss, once the statistics of all column slices stand."""

from __future__ import annotations

import triton
import triton.language as tl

from fastdino.kernels.dino_loss_tiles import (
    COUNTS,
    FAR_BELOW,
    LOG2_E,
    STRIDES,
    global_rows,
    tile_count,
    tile_rows,
    tile_start,
)


@triton.jit
def row_totals(maximum_ptr, sum_ptr, slices, SLICES: tl.constexpr):
    """Maximum and sum of one row over all slices, in an order that depends on their number alone."""
    j = tl.arange(0, SLICES)
    maxima = tl.load(maximum_ptr + j, mask=j < slices, other=FAR_BELOW)
    sums = tl.load(sum_ptr + j, mask=j < slices, other=0)
    maximum = tl.max(maxima, axis=0)
    return maximum, tl.sum(sums * tl.exp2(maxima - maximum), axis=0)


@triton.jit
def local_gradient(
    column_ptr,
    crop_stride,
    gradient_ptr,
    gradient_crop_stride,
    inside,
    valid,
    scale,
    factor,
    targets,
    maximum_ptr,
    sum_ptr,
    slices,
    FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    SLICES: tl.constexpr,
    PADDED: tl.constexpr,
    ACC: tl.constexpr,
):
    """Gradient of ROWS local crops; `targets` is the factor times both teachers' q, (BLOCK,)."""
    crop = FIRST + tl.arange(0, ROWS)
    x = tl.load((crop * crop_stride)[:, None] + column_ptr[None, :], mask=inside[None, :], other=0).to(ACC)
    j = tl.arange(0, SLICES)
    place = crop[:, None] * slices + j[None, :]
    maxima = tl.load(maximum_ptr + place, mask=(j < slices)[None, :], other=FAR_BELOW)
    sums = tl.load(sum_ptr + place, mask=(j < slices)[None, :], other=0)
    maximum = tl.max(maxima, axis=1)
    total = tl.sum(sums * tl.exp2(maxima - maximum[:, None]), axis=1)
    p = tl.exp2(tl.fma(x, scale, -maximum[:, None])) * (2 * factor / total)[:, None]
    gradient = p - targets[None, :]
    if PADDED:
        gradient = tl.where(valid[None, :], gradient, 0)
    gradient = gradient.to(gradient_ptr.dtype.element_ty)
    tl.store((crop * gradient_crop_stride)[:, None] + gradient_ptr[None, :], gradient, mask=inside[None, :])


@triton.jit(do_not_specialize=COUNTS + STRIDES)
def dino_loss_gradient(
    student_ptr,  # (V * images, width)
    teacher_ptr,  # (2 * images, width)
    center_ptr,  # (columns,)
    student_temp_ptr,  # ()
    teacher_temp_ptr,  # ()
    grad_output_ptr,  # ()
    partial_ptr,  # (images, 2 (V+2) + 4, slices)
    gradient_ptr,  # (V * images, width), written; may be the student's logits
    images,
    first_image,
    columns,
    width,
    slices,
    student_stride,
    teacher_stride,
    gradient_stride,
    LOCALS: tl.constexpr,
    BLOCK: tl.constexpr,
    SLICES: tl.constexpr,
    VECTOR: tl.constexpr,
    PADDED: tl.constexpr,
    ACC: tl.constexpr,
):
    """The grid is (slices of these columns, images of this launch); padding beyond `columns` gets the gradient 0.

    Programs go through the logits from the end, where the statistics kernel has stopped: what it read last may still
    be in the cache.
    """
    student_stride = student_stride.to(tl.int64) * VECTOR
    teacher_stride = teacher_stride.to(tl.int64) * VECTOR
    gradient_stride = gradient_stride.to(tl.int64) * VECTOR
    image = (first_image + tl.num_programs(1) - 1 - tl.program_id(1)).to(tl.int64)
    col = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK + tl.arange(0, BLOCK)
    inside = col < width * VECTOR
    valid = col < columns if PADDED else inside
    student_temp = tl.load(student_temp_ptr).to(ACC)
    student_scale = LOG2_E / student_temp
    teacher_scale = LOG2_E / tl.load(teacher_temp_ptr).to(ACC)
    # The gradient that arrives is applied before the only rounding to the logits' type.
    factor = tl.load(grad_output_ptr).to(ACC) / (student_temp * (2 * (LOCALS + 1)) * images)

    s_ptr = student_ptr + image * student_stride + col
    crop_stride = images * student_stride
    t_ptr = teacher_ptr + image * teacher_stride + col
    t0, t1, s0, s1 = global_rows(
        s_ptr, crop_stride, t_ptr, images * teacher_stride, center_ptr + col, inside, valid, ACC
    )

    ROWS: tl.constexpr = LOCALS + 4
    maximum_ptr = partial_ptr + image * (2 * ROWS + 4) * slices
    sum_ptr = maximum_ptr + ROWS * slices
    t0_maximum, t0_total = row_totals(maximum_ptr, sum_ptr, slices, SLICES)
    t1_maximum, t1_total = row_totals(maximum_ptr + slices, sum_ptr + slices, slices, SLICES)
    s0_maximum, s0_total = row_totals(maximum_ptr + 2 * slices, sum_ptr + 2 * slices, slices, SLICES)
    s1_maximum, s1_total = row_totals(maximum_ptr + 3 * slices, sum_ptr + 3 * slices, slices, SLICES)
    q0 = tl.exp2(tl.fma(t0, teacher_scale, -t0_maximum)) * (factor / t0_total)
    q1 = tl.exp2(tl.fma(t1, teacher_scale, -t1_maximum)) * (factor / t1_total)
    p0 = tl.exp2(tl.fma(s0, student_scale, -s0_maximum)) * (factor / s0_total)
    p1 = tl.exp2(tl.fma(s1, student_scale, -s1_maximum)) * (factor / s1_total)

    g_ptr = gradient_ptr + image * gradient_stride + col
    gradient_crop_stride = images * gradient_stride
    g0 = p0 - q1
    g1 = p1 - q0
    if PADDED:
        g0 = tl.where(valid, g0, 0)
        g1 = tl.where(valid, g1, 0)
    tl.store(g_ptr, g0.to(gradient_ptr.dtype.element_ty), mask=inside)
    tl.store(g_ptr + gradient_crop_stride, g1.to(gradient_ptr.dtype.element_ty), mask=inside)
    targets = q0 + q1
    for tile in tl.static_range(tile_count(LOCALS)):
        local_gradient(
            s_ptr,
            crop_stride,
            g_ptr,
            gradient_crop_stride,
            inside,
            valid,
            student_scale,
            factor,
            targets,
            maximum_ptr + 2 * slices,
            sum_ptr + 2 * slices,
            slices,
            2 + tile_start(LOCALS, tile),
            tile_rows(LOCALS, tile),
            SLICES,
            PADDED,
            ACC,
        )
