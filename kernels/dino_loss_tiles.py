# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of kernels their types.
"""The DINO loss on the device: statistics of column slices, their totals, the gradient.

A program owns all rows of one image on one slice of BLOCK columns: two of the teacher (t), V = 2 + LOCALS of the
student (s). So each kernel reads every logit once, the teacher's exponentials are computed once for all students,
programs share nothing and their order does not matter. With

    z_i = (t_i - center) log2(e) / teacher_temp    q_i = 2^z_i / sum 2^z_i        (i = 0, 1)
    x_v = s_v log2(e) / student_temp               p_v = 2^x_v / sum 2^x_v        (v = 0 .. V-1)
    n_v = teachers that v is compared with: 1 for the global crops, 2 for the local ones

the loss of one image is ln 2 (sum_v n_v log2 sum_k 2^x_v - sum_i sum_k q_i sum_(v != i) x_v) and its gradient
(n_v p_v - sum_(i != v) q_i) / student_temp, both over the number of pairs 2 (V-1) and of images.

Every row is kept relative to its maximum, and in the loss the maxima cancel. What is left is a sum of terms that but
for rounding have one sign: it keeps its digits where logits are large and temperatures small.

Global rows are one-dimensional tiles and local rows exact tiles of 8, 4, 2 and 1 rows: no exponential is spent on
padding. `partial` is (images, 2 (V+2) + 4, slices): the maxima of all rows (the teacher's first), their sums of
exponentials, and for both teachers sum 2^z_i sum_(v != i) x_v and sum 2^z_i z_i.

Widths and strides come in units of VECTOR columns, from which the compiler learns how many columns a thread can move at
once. PADDED says that there are more columns than prototypes.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
# Stands for minus infinity where there is no column or slice, but 0 times this is 0.
FAR_BELOW = tl.constexpr(-1e30)
# No value of these recompiles anything, nor makes a constant of what is 1.
COUNTS = ("images", "first_image", "columns", "width", "first_slice", "slices")
STRIDES = ("student_stride", "teacher_stride", "gradient_stride")


@triton.constexpr_function
def tile_sizes(local_crops):
    """Rows of the tiles that hold the local crops: as many 8 as fit, then 4, 2 and 1 where needed."""
    return (8,) * (local_crops // 8) + tuple(size for size in (4, 2, 1) if local_crops & size)


@triton.constexpr_function
def tile_count(local_crops):
    """How many tiles there are."""
    return len(tile_sizes(local_crops))


@triton.constexpr_function
def tile_start(local_crops, tile):
    """Local crops in front of a tile."""
    return sum(tile_sizes(local_crops)[:tile])


@triton.constexpr_function
def tile_rows(local_crops, tile):
    """Local crops in a tile."""
    return tile_sizes(local_crops)[tile]


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

    center = tl.load(center_ptr + col, mask=valid, other=0).to(ACC)
    t_ptr = teacher_ptr + image * teacher_stride + col
    t0 = tl.load(t_ptr, mask=inside, other=0).to(ACC) - center
    t1 = tl.load(t_ptr + images * teacher_stride, mask=inside, other=0).to(ACC) - center
    crop_stride = images * student_stride
    s_ptr = student_ptr + image * student_stride + col
    s0 = tl.load(s_ptr, mask=inside, other=0).to(ACC)
    s1 = tl.load(s_ptr + crop_stride, mask=inside, other=0).to(ACC)

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


@triton.jit
def row_totals(maximum_ptr, sum_ptr, slices, SLICES: tl.constexpr):
    """Maximum and sum of one row over all slices, in an order that depends on their number alone."""
    j = tl.arange(0, SLICES)
    maxima = tl.load(maximum_ptr + j, mask=j < slices, other=FAR_BELOW)
    sums = tl.load(sum_ptr + j, mask=j < slices, other=0)
    maximum = tl.max(maxima, axis=0)
    return maximum, tl.sum(sums * tl.exp2(maxima - maximum), axis=0)


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

    center = tl.load(center_ptr + col, mask=valid, other=0).to(ACC)
    t_ptr = teacher_ptr + image * teacher_stride + col
    t0 = tl.load(t_ptr, mask=inside, other=0).to(ACC) - center
    t1 = tl.load(t_ptr + images * teacher_stride, mask=inside, other=0).to(ACC) - center
    crop_stride = images * student_stride
    s_ptr = student_ptr + image * student_stride + col
    s0 = tl.load(s_ptr, mask=inside, other=0).to(ACC)
    s1 = tl.load(s_ptr + crop_stride, mask=inside, other=0).to(ACC)

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
