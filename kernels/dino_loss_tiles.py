# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of kernels their types.
"""The DINO loss on the device: what dino_loss_statistics and dino_loss_gradient share, and how they divide the work.

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
def global_rows(s_ptr, s_crop_stride, t_ptr, t_crop_stride, center_ptrs, inside, valid, ACC: tl.constexpr):
    """The centered teacher's and the student's logits of the two global crops, (BLOCK,) each."""
    center = tl.load(center_ptrs, mask=valid, other=0).to(ACC)
    t0 = tl.load(t_ptr, mask=inside, other=0).to(ACC) - center
    t1 = tl.load(t_ptr + t_crop_stride, mask=inside, other=0).to(ACC) - center
    s0 = tl.load(s_ptr, mask=inside, other=0).to(ACC)
    s1 = tl.load(s_ptr + s_crop_stride, mask=inside, other=0).to(ACC)
    return t0, t1, s0, s1
