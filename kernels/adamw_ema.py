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

The center of the loss moves in the second launch too, where it costs its own bytes only: every program that holds rows
of the teacher's prototypes W multiplies them, before they move, with the mean x of what they were multiplied with, for
the mean of the logits is W mean(x).

A parameter without gradient (frozen, or dropped for this step) keeps its value, moments and step count, as in torch; if
a loss scaler has found infinities all parameters do. The teacher's average goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from fastdino.kernels import launch
from fastdino.kernels.adamw_ema_tiles import CONSTANTS, adamw_and_ema, squares_and_constants
from fastdino.kernels.arena import Arena
from fastdino.kernels.arena_layout import MOST_CHUNKS, Blocks, blocks_of_rows
from fastdino.kernels.arena_tiles import EXTREME_WIDTHS, WIDTHS, accumulator, block_constants, block_options
from fastdino.kernels.configuration import Configuration

SPAN = 2048
SQUARES_WARPS = 4


class StepScalars(NamedTuple):
    """What a step reads from the device, in this order: a float64 tensor `scalars` of so many elements.

    Attributes:
        lr, weight_decay: of AdamW; the decay applies to parameters that `Arena.decays` marks.
        momentum: of the teacher.
        clip: largest norm of a parameter's gradient; 0 for none.
        grad_scale: what the gradients were multiplied with by a loss scaler, if they still are.
        found_inf: not 0 if a loss scaler found gradients that are no finite numbers.
        beta1, beta2, eps: of AdamW.
        center_momentum: of the center, where it is given.
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
    center_momentum: float = 0.9

    def on(self, device: torch.device) -> Tensor:
        """On the device, brought there without waiting; `scalars[i].copy_(tensor)` puts in what lives there already."""
        values = torch.tensor(self, dtype=torch.float64, pin_memory=device.type == "cuda")
        return values.to(device, non_blocking=True)


@torch.no_grad()
def adamw_ema_(arena: Arena, scalars: Tensor, center: Tensor | None = None, inputs: Tensor | None = None) -> Tensor:
    """One step of both networks of `arena`, on the gradients that `arena.gather_gradients()` has found.

    Args:
        arena: with an optimiser attached, whose state moves on.
        scalars: `StepScalars` as a float64 tensor on the arena's device.
        center: the loss's, K float32 values for the K normalised rows, moved too if it is given.
        inputs: (R, D), contiguous float32: what the teacher multiplied with its normalised rows, or means of equally
            many of these.

    Returns:
        `arena.norms`: the gradients' L2 norms, unscaled and before clipping, one a parameter, 0 without gradient;
        float32, on the device, overwritten by the next step.

    Raises:
        ValueError: no optimiser is attached, or `scalars`, `center` or `inputs` is of another kind.
    """
    if arena.exp_avg is None or arena.exp_avg_sq is None:
        raise ValueError("the arena has no optimiser's state yet: call arena.attach(optimizer) first")
    expected = (len(StepScalars._fields),)
    if scalars.shape != expected or scalars.dtype != torch.float64 or scalars.device != arena.device:
        raise ValueError(
            f"scalars must be float64 of shape {expected} on {arena.device}, not {scalars.dtype} of shape "
            f"{tuple(scalars.shape)} on {scalars.device}"
        )
    _check_center(arena, center, inputs)
    launch.check_device(arena.device)
    layout = arena.layout
    squares = arena.student.new_empty(len(layout.chunks))
    constants = arena.student.new_empty(len(layout.tensors), CONSTANTS)
    mean = arena.student.new_empty(layout.shape.width)
    constexprs = {
        **block_constants(layout.shape),
        "CENTER": center is not None,
        "OF_ROWS": arena.gradients_of_rows,
        "ACC": accumulator(arena),
    }
    shadows = arena.student_shadow, arena.teacher_shadow
    with launch.device_of(arena.student):
        squares_and_constants[len(layout.chunks) + (center is not None),](
            layout.chunks,
            layout.tensors,
            arena.gradient_addresses,
            arena.decays,
            scalars,
            arena.student,
            arena.steps,
            squares,
            constants,
            mean if inputs is None else inputs,
            mean,
            0 if inputs is None else len(inputs),
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
            mean,
            arena.norms if center is None else center,
            0 if center is None else center.numel(),
            CHUNKS=MOST_CHUNKS,
            SHADOWS=arena.student_shadow is not None,
            **constexprs,
            **block_options(layout.shape.tile, launch.warp_size()),
        )
    return arena.norms


def _check_center(arena: Arena, center: Tensor | None, inputs: Tensor | None) -> None:
    if center is None and inputs is None:
        return
    if arena.normalised is None:
        raise ValueError("the center moves with normalised rows only, and the arena has none")
    prototypes, width = arena.student_parameters()[arena.normalised].shape
    if center is None or center.numel() != prototypes or not _readable(center, arena):
        raise ValueError(f"the center must have {prototypes} values, contiguous float32 on {arena.device}")
    if (
        inputs is None
        or inputs.dim() != 2
        or inputs.shape[1] != width
        or not len(inputs)
        or not _readable(inputs, arena)
    ):
        raise ValueError(f"inputs must be (R, {width}), contiguous float32 on {arena.device}")


def _readable(x: Tensor, arena: Arena) -> bool:
    return x.is_contiguous() and x.dtype == torch.float32 and x.device == arena.device


def squares_options(shape: Blocks, of_rows: bool, warp_size: int) -> dict[str, Any]:
    """Four warps, or as many as blocks of rows need."""
    options = block_options(shape.tile, warp_size)
    return options | {"num_warps": max(SQUARES_WARPS, options["num_warps"] if of_rows else 0)}


def configurations(warp_size: int) -> Iterator[Configuration]:
    """What the launcher can choose but for float64, which is for checks."""
    for of_rows, width in itertools.product((False, True), WIDTHS):
        shape = blocks_of_rows(width)
        for center in (False, True):
            yield _of_squares(shape, center, of_rows, warp_size)
        for shadows, center in itertools.product((False, True), repeat=2):
            yield _of_step(shape, shadows, center, of_rows, warp_size)


def _of_squares(shape: Blocks, center: bool, of_rows: bool, warp_size: int) -> Configuration:
    options = squares_options(shape, of_rows, warp_size)
    constexprs = {
        **block_constants(shape),
        "SPAN": SPAN,
        "CENTER": center,
        "OF_ROWS": of_rows,
        "ACC": tl.float32,
    }
    return Configuration(
        f"gradients{' of normalised rows' * of_rows}, rows of {shape.width}{', center' * center}",
        squares_and_constants,
        {
            **dict.fromkeys(("chunks_ptr", "tensors_ptr", "decays_ptr"), "*i32:16"),
            "addresses_ptr": "*i64:16",
            "scalars_ptr": "*fp64:16",
            **dict.fromkeys(("student_ptr", "steps_ptr", "squares_ptr", "constants_ptr"), "*fp32:16"),
            **dict.fromkeys(("inputs_ptr", "mean_ptr"), "*fp32:16"),
            "inputs": "i32",
            **dict.fromkeys(constexprs, "constexpr"),
        },
        constexprs,
        options,
        # Of float32 gradients; a thread takes a QUAD at a time, which bfloat16 has in 64 bits.
        wide_loads=SPAN // (options["num_warps"] * warp_size * 4),
        extreme=center and shape.width in EXTREME_WIDTHS,
    )


def _of_step(shape: Blocks, shadows: bool, center: bool, of_rows: bool, warp_size: int) -> Configuration:
    shadow = "*bf16:16" if shadows else "*fp32:16"
    constexprs = {
        **block_constants(shape),
        "CHUNKS": MOST_CHUNKS,
        "SHADOWS": shadows,
        "CENTER": center,
        "OF_ROWS": of_rows,
        "ACC": tl.float32,
    }
    return Configuration(
        f"gradients{' of normalised rows' * of_rows}, rows of {shape.width}{', shadows' * shadows}"
        f"{', center' * center}",
        adamw_and_ema,
        {
            **dict.fromkeys(("blocks_ptr", "tensors_ptr"), "*i32:16"),
            "addresses_ptr": "*i64:16",
            **dict.fromkeys(("squares_ptr", "constants_ptr", "norms_ptr", "mean_ptr", "center_ptr"), "*fp32:16"),
            **dict.fromkeys(("student_ptr", "exp_avg_ptr", "exp_avg_sq_ptr", "teacher_ptr"), "*fp32:16"),
            **dict.fromkeys(("student_shadow_ptr", "teacher_shadow_ptr"), shadow),
            "prototypes": "i32",
            **dict.fromkeys(constexprs, "constexpr"),
        },
        constexprs,
        block_options(shape.tile, warp_size),
        # Student, teacher, two moments and a float32 gradient, two accesses each; all but the gradient are written.
        wide_loads=10 * shape.aligned,
        wide_stores=8 * shape.aligned,
        extreme=shadows and shape.width in EXTREME_WIDTHS and (of_rows or center),
    )
