"""Triton's interpreter with bfloat16 arithmetic that is right, and with programs in any order.

The interpreter keeps bfloat16 as uint16 and computes on those bit patterns: casts truncate, sums add integers. Here
every operation widens to float32 and rounds its result to nearest, ties to even, as the hardware's conversions do.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import triton
import triton.language as tl
from numpy.typing import NDArray
from triton._C.libtriton import ir
from triton.runtime.interpreter import InterpreterBuilder, ReduceOps, TensorHandle

# The interpreter is private to Triton: a minor enters this list when tests/kernels has passed on it.
KNOWN_TRITON = ("3.8", "3.9")

BFLOAT16_NAN = np.uint16(0x7FC0)


def widen(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Bit patterns of bfloat16 as the float32 of the same value."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow(values: NDArray[Any], toward_zero: bool = False) -> NDArray[np.uint16]:
    """Floats of any width as bit patterns of bfloat16, rounded to nearest even, or toward zero when asked."""
    values = np.asarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    if not toward_zero:
        # uint64: the largest patterns carry out of 32 bits. Ties go down when the last bit kept is 0.
        bits = bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)
    return np.where(np.isnan(values), BFLOAT16_NAN, (bits >> 16).astype(np.uint16))


def correct_bfloat16() -> None:
    """Make every interpreted kernel of this process compute bfloat16 rightly. A second call changes nothing.

    Raises RuntimeError for a Triton whose interpreter has not been looked at.
    """
    if ".".join(triton.__version__.split(".")[:2]) not in KNOWN_TRITON:
        raise RuntimeError(
            f"the interpreter of Triton {triton.__version__} is unknown to this correction, which holds for "
            f"{' and '.join(KNOWN_TRITON)}: install one of them, or check the correction and add the version"
        )
    if getattr(InterpreterBuilder, "computes_bfloat16", False):
        return
    _correct_casts()
    for name in ("binary_op", "unary_op", "ternary_op"):
        setattr(InterpreterBuilder, name, _widening(getattr(InterpreterBuilder, name)))
    _correct_products()
    _correct_sum()
    InterpreterBuilder.computes_bfloat16 = True


@contextmanager
def shuffled_programs(seed: int) -> Iterator[None]:
    """Run the programs of every launch inside the block in a random order, a new one per launch."""
    original = InterpreterBuilder.set_grid_idx, InterpreterBuilder.set_grid_dim
    generator = random.Random(seed)
    order: dict[tuple[int, int, int], tuple[int, int, int]] = {}

    def set_grid_dim(self: Any, nx: int, ny: int, nz: int) -> None:
        original[1](self, nx, ny, nz)
        programs = list(itertools.product(range(nx), range(ny), range(nz)))
        order.clear()
        order.update(zip(programs, generator.sample(programs, len(programs)), strict=True))

    def set_grid_idx(self: Any, x: int, y: int, z: int) -> None:
        original[0](self, *order[x, y, z])

    InterpreterBuilder.set_grid_idx, InterpreterBuilder.set_grid_dim = set_grid_idx, set_grid_dim
    try:
        yield
    finally:
        InterpreterBuilder.set_grid_idx, InterpreterBuilder.set_grid_dim = original


def _is_bfloat16(handle: Any) -> bool:
    return isinstance(handle, TensorHandle) and handle.dtype.scalar == tl.bfloat16


def _widened(handle: TensorHandle) -> TensorHandle:
    return TensorHandle(widen(handle.data), tl.float32) if _is_bfloat16(handle) else handle


def _rounded(handle: TensorHandle) -> TensorHandle:
    """Arithmetic results become bfloat16 again; comparisons are booleans and stay so."""
    if handle.data.dtype == np.bool_:
        return handle
    return TensorHandle(narrow(handle.data), tl.bfloat16)


def _widening(operation: Callable[..., TensorHandle]) -> Callable[..., TensorHandle]:
    def widened(self: Any, *operands: Any) -> TensorHandle:
        if not any(map(_is_bfloat16, operands)):
            return operation(self, *operands)
        return _rounded(operation(self, *map(_widened, operands)))

    return widened


def _correct_casts() -> None:
    cast, convert = InterpreterBuilder.cast_impl, InterpreterBuilder.create_fp_to_fp

    def cast_impl(self: Any, src: TensorHandle, dst_type: Any) -> TensorHandle:
        if dst_type.scalar == tl.bfloat16:
            return src if _is_bfloat16(src) else TensorHandle(narrow(src.data), tl.bfloat16)
        return cast(self, _widened(src), dst_type)

    def create_fp_to_fp(self: Any, src: TensorHandle, dst_type: Any, rounding_mode: Any) -> TensorHandle:
        if dst_type.scalar == tl.bfloat16:
            return TensorHandle(narrow(src.data, rounding_mode == ir.ROUNDING_MODE.RTZ), tl.bfloat16)
        if _is_bfloat16(src):
            return cast_impl(self, src, dst_type)
        return convert(self, src, dst_type, rounding_mode)

    InterpreterBuilder.cast_impl, InterpreterBuilder.create_fp_to_fp = cast_impl, create_fp_to_fp


def _correct_products() -> None:
    dot = InterpreterBuilder.create_dot

    def create_dot(self: Any, a: TensorHandle, b: TensorHandle, d: TensorHandle, *options: Any) -> TensorHandle:
        return dot(self, _widened(a), _widened(b), d, *options)

    def create_fma(self: Any, x: TensorHandle, y: TensorHandle, z: TensorHandle) -> TensorHandle:
        x, y, wide_z = _widened(x), _widened(y), _widened(z)
        # In float64 the product of two float32 is exact, so that one rounding is left, as in hardware.
        exact = x.data.astype(np.float64) * y.data + wide_z.data
        dtype = z.dtype.scalar
        return TensorHandle(narrow(exact) if dtype == tl.bfloat16 else exact.astype(wide_z.data.dtype), dtype)

    InterpreterBuilder.create_dot, InterpreterBuilder.create_fma = create_dot, create_fma


def _correct_sum() -> None:
    add_up = ReduceOps.sum

    def sum_bfloat16(self: Any, input: tl.tensor) -> tl.tensor:
        if not _is_bfloat16(input.handle):
            return add_up(self, input)
        total = np.sum(widen(input.handle.data), axis=self.axis, keepdims=self.keep_dims)
        return self.to_tensor(narrow(total), tl.bfloat16)

    ReduceOps.sum = sum_bfloat16
