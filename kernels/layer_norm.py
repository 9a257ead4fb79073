# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of kernels their types.
"""Layer normalisation of a residual stream: float32 tokens in, what the next product takes out, both gradients at once.

Autocast normalises float32 tokens to float32 and casts them for the product; backwards it casts the product's gradient,
normalises that, and adds the residual branch's: 14 bytes a value forward and 30 backward where the product takes
bfloat16. Here one kernel reads x and writes the normalised tokens, 6 bytes, and one reads x and both gradients and
writes their sum, 14 bytes.

With m and r the mean and 1 / sqrt(variance + eps) of a row, n = (x - m) r and g = gradient of the output times weight,

    gradient of x = residual's gradient + r (g - mean(g) - n mean(g n))

A program owns whole rows, and of its rows' terms of the weight's and the bias's gradients it writes one sum: the sums
are added up in a fixed order, so that every run has the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastdino.kernels import launch
from fastdino.kernels.configuration import Configuration

# Columns that a row can have: as many values as the threads of a program can keep.
WIDEST = 4096
# Values of a program's tile, and of a thread at most: what the gradient keeps of each are five.
TILE, VALUES_PER_THREAD = 2048, 16
# Programs of the gradient, each with one sum: a few on each multiprocessor, and few sums to add up.
PROGRAMS = 512
# Columns that threads move at once.
VECTOR = 8
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@triton.jit
def places(tile, rows, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Rows (ROWS, 1) of a tile, offsets of its values, and which of them there are."""
    row = tile * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    return row, row.to(tl.int64) * width + column, (row < rows) & (column < width)


@triton.jit(do_not_specialize=["rows", "size"])
def normalize_rows(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    mean_ptr,
    inverse_ptr,
    eps,
    rows,
    size,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """x (rows, size * VECTOR) -> out; mean and inverse deviation (rows,) are kept for the gradient."""
    width = size * VECTOR
    column = tl.arange(0, BLOCK)[None, :]
    row, place, inside = places(tl.program_id(0), rows, width, ROWS, BLOCK)
    x = tl.load(x_ptr + place, mask=inside, other=0)
    mean = tl.sum(x, axis=1, keep_dims=True) / width
    centered = tl.where(inside, x - mean, 0)
    inverse = 1 / tl.sqrt(tl.sum(centered * centered, axis=1, keep_dims=True) / width + eps)
    weight = tl.load(weight_ptr + column, mask=column < width, other=0)
    bias = tl.load(bias_ptr + column, mask=column < width, other=0)
    out = centered * inverse * weight + bias
    tl.store(out_ptr + place, out.to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(mean_ptr + row, mean, mask=row < rows)
    tl.store(inverse_ptr + row, inverse, mask=row < rows)


@triton.jit(do_not_specialize=["rows", "size"])
def normalize_rows_gradient(
    gradient_ptr,
    residual_ptr,
    x_ptr,
    weight_ptr,
    mean_ptr,
    inverse_ptr,
    out_ptr,
    sums_ptr,
    rows,
    size,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Gradients of the normalised tokens and of x itself (rows, size * VECTOR) -> that of x.

    Of the weight's and the bias's each program writes a part: sums (programs, 2, size * VECTOR).
    """
    width = size * VECTOR
    column = tl.arange(0, BLOCK)[None, :]
    weight = tl.load(weight_ptr + column, mask=column < width, other=0)
    of_weight = tl.zeros((ROWS, BLOCK), sums_ptr.dtype.element_ty)
    of_bias = tl.zeros((ROWS, BLOCK), sums_ptr.dtype.element_ty)
    for tile in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row, place, inside = places(tile, rows, width, ROWS, BLOCK)
        mean = tl.load(mean_ptr + row, mask=row < rows, other=0)
        inverse = tl.load(inverse_ptr + row, mask=row < rows, other=0)
        x = tl.load(x_ptr + place, mask=inside, other=0)
        gradient = tl.load(gradient_ptr + place, mask=inside, other=0).to(x.dtype)
        normalised = (x - mean) * inverse
        of_weight += gradient * normalised
        of_bias += gradient
        gradient *= weight
        along_mean = tl.sum(gradient, axis=1, keep_dims=True) / width
        along_deviation = tl.sum(gradient * normalised, axis=1, keep_dims=True) / width
        out = inverse * (gradient - along_mean - normalised * along_deviation)
        out += tl.load(residual_ptr + place, mask=inside, other=0)
        tl.store(out_ptr + place, out, mask=inside)
    sums = sums_ptr + tl.program_id(0).to(tl.int64) * 2 * width + column
    tl.store(sums, tl.sum(of_weight, axis=0, keep_dims=True), mask=column < width)
    tl.store(sums + width, tl.sum(of_bias, axis=0, keep_dims=True), mask=column < width)


def normalized(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x itself, and its rows normalised (Ba et al. 2016), times weight, plus bias, in `dtype`; differentiable.

    What goes on from the first of the two brings its gradient into the pass that takes the second's.

    Args:
        x: (..., C) in float32, or float64 for tests; C at most WIDEST.
        weight, bias: (C,) in the same type.
        dtype: of the second result: float32, bfloat16, float16, or x's.

    Raises:
        ValueError: the shapes, types or devices do not fit together.
    """
    _check(x, weight, bias, dtype)
    launch.check_device(x.device)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, weight, bias)):
        same, out = _Normalized.apply(x, weight, bias, eps, dtype)
        return same, out
    return x, forward(x, weight, bias, eps, dtype)[0]


def _check(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
    if x.dtype not in (torch.float32, torch.float64) or dtype not in (*DTYPES, x.dtype):
        raise ValueError(f"tokens are float32 and become float32, bfloat16 or float16, not {x.dtype} and {dtype}")
    width = x.shape[-1] if x.dim() else 0
    if not 0 < width <= WIDEST:
        raise ValueError(f"tokens must have from 1 to {WIDEST} values, not the shape {tuple(x.shape)}")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if (tensor.shape, tensor.dtype, tensor.device) != ((width,), x.dtype, x.device):
            raise ValueError(
                f"the {name} must be {width} values of {x.dtype} on {x.device}, not {tensor.dtype} of shape "
                f"{tuple(tensor.shape)} on {tensor.device}"
            )


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        out, *statistics = forward(x, weight, bias, eps, dtype)
        ctx.save_for_backward(x, weight, *statistics)
        return x, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, residual: Tensor, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_x, sums = gradients(gradient, residual, *ctx.saved_tensors)
        of_weight, of_bias = sums.sum(0)
        return of_x, of_weight, of_bias, None, None


def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised rows, and all rows' means and inverse deviations."""
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    out = torch.empty_like(x, dtype=dtype)
    mean, inverse = x.new_empty(2, x.numel() // x.shape[-1])
    if len(mean):
        shape = _Shape(x.shape[-1])
        with launch.device_of(x):
            normalize_rows[triton.cdiv(len(mean), shape.rows),](
                x, weight, bias, out, mean, inverse, eps, len(mean), *shape.arguments(), **shape.options
            )
    return out, mean, inverse


def gradients(
    gradient: Tensor, residual: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    """That of x, and parts (programs, 2, C) of the weight's and the bias's."""
    x, residual, gradient = x.contiguous(), residual.contiguous(), gradient.contiguous()
    shape, programs = _Shape(x.shape[-1]), programs_of_gradient(len(mean), x.shape[-1])
    of_x, sums = torch.empty_like(x), x.new_empty(programs, 2, x.shape[-1])
    if programs:
        with launch.device_of(x):
            normalize_rows_gradient[programs,](
                gradient,
                residual,
                x,
                weight.contiguous(),
                mean,
                inverse,
                of_x,
                sums,
                len(mean),
                *shape.arguments(),
                **shape.options,
            )
    return of_x, sums


def programs_of_gradient(rows: int, width: int) -> int:
    """How many of them share the rows."""
    return min(PROGRAMS, triton.cdiv(rows, _Shape(width).rows))


class _Shape:
    """How rows of `width` values are divided among programs and threads."""

    def __init__(self, width: int, warp_size: int | None = None) -> None:
        self.block = max(triton.next_power_of_2(width), 128)
        self.rows = max(1, TILE // self.block)
        self.vector = VECTOR if width % VECTOR == 0 else 1
        self.size = width // self.vector
        threads = max(TILE, self.block) // VALUES_PER_THREAD
        self.options = {"num_warps": max(1, threads // (warp_size or launch.warp_size()))}

    def arguments(self) -> tuple[int, int, int, int]:
        """From `size` on."""
        return self.size, self.rows, self.block, self.vector


def configurations(warp_size: int) -> Iterator[Configuration]:
    """What the launchers can choose."""
    for block in (2**power for power in range(7, WIDEST.bit_length())):
        for vector in (VECTOR, 1):
            shape = _Shape(block - (vector == 1), warp_size)
            constants = {"ROWS": shape.rows, "BLOCK": shape.block, "VECTOR": shape.vector}
            common = dict.fromkeys(("rows", "size"), "i32") | dict.fromkeys(constants, "constexpr")
            for name in ("fp32", "bf16", "fp16"):
                described = f"{name}, up to {block} values, {'aligned' if vector > 1 else 'unaligned'}"
                extreme = name == "bf16" and block in (128, WIDEST)
                narrow = {"out_ptr": f"*{name}:16"}, {"gradient_ptr": f"*{name}:16"}
                for kernel, types in zip((normalize_rows, normalize_rows_gradient), narrow, strict=True):
                    wide = (argument for argument in kernel.arg_names if argument.endswith("_ptr"))
                    signature = {argument: "*fp32:16" for argument in wide} | types | common
                    if kernel is normalize_rows:
                        signature["eps"] = "fp32"
                    yield Configuration(
                        described,
                        kernel,
                        {argument: signature[argument] for argument in kernel.arg_names},
                        constants,
                        shape.options,
                        wide_loads=2 * (vector > 1),
                        wide_stores=vector > 1,
                        extreme=extreme,
                    )
