# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of kernels their types.
"""What the kernels that go over an arena share: a block as a tile, and the shadows."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fastdino.kernels.arena import Arena
from fastdino.kernels.arena_layout import QUAD as _QUAD
from fastdino.kernels.arena_layout import Blocks

# Rows of arenas that are compiled for the report: the usual ones, and what needs most of something.
WIDTHS = (256, 192, 1024, 4096, 6)
EXTREME_WIDTHS = (256, 4096)

QUAD = tl.constexpr(_QUAD)


@triton.jit
def square_root(x):
    """Correctly rounded."""
    if x.dtype == tl.float64:
        return tl.sqrt(x)
    else:
        return tl.sqrt_rn(x)


@triton.jit
def block_lanes(quads, ROWS: tl.constexpr, WIDTH: tl.constexpr, PADDED_WIDTH: tl.constexpr):
    """Offsets (ROWS, PADDED_WIDTH) within a block, and which of them have one of its `quads` * QUAD values."""
    columns = tl.arange(0, PADDED_WIDTH)[None, :]
    lanes = tl.arange(0, ROWS)[:, None] * WIDTH + columns
    inside = lanes < quads * QUAD
    if WIDTH < PADDED_WIDTH:
        inside &= columns < WIDTH
    return lanes, inside


@triton.jit
def through_rows(gradient, v, normalised):
    """The gradient of v from that of w = v / |v| if rows are normalised: (gradient - (gradient . w) w) / |v|."""
    if normalised != 0:
        reciprocal = (1.0 / tl.maximum(square_root(tl.sum(v * v, axis=1)), 1e-12))[:, None]
        w = v * reciprocal
        gradient = (gradient - tl.sum(gradient * w, axis=1)[:, None] * w) * reciprocal
    return gradient


@triton.jit
def unit_rows(x):
    """x with its rows divided by their lengths."""
    return x * (1.0 / tl.maximum(square_root(tl.sum(x * x, axis=1)), 1e-12))[:, None]


@triton.jit
def store_shadow(shadow_ptrs, x, inside, normalised):
    """x in the shadow's type, or its rows divided by their lengths; where `inside` is false x has to be 0."""
    if normalised != 0:
        x = unit_rows(x)
    tl.store(shadow_ptrs, x.to(shadow_ptrs.dtype.element_ty), mask=inside)


def accumulator(arena: Arena) -> tl.dtype:
    """Type in which kernels compute on an arena."""
    return tl.float64 if arena.student.element_size() == 8 else tl.float32


def block_options(lanes: int, warp_size: int) -> dict[str, Any]:
    """As many warps as give each thread eight of a block's lanes, two 16-byte accesses to each float32 buffer."""
    return {"num_warps": max(1, lanes // (8 * warp_size)), "enable_fp_fusion": True}


def block_constants(shape: Blocks) -> dict[str, int]:
    """The arguments of `block_lanes`."""
    return {"ROWS": shape.rows, "WIDTH": shape.width, "PADDED_WIDTH": shape.padded_width}
