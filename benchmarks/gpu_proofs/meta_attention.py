"""xformers' memory_efficient_attention for tensors on the device `meta`: the operations of its flash kernels.

Forward one kernel: queries, keys, values -> output, and a logarithm for each row. Backward three, as flash-attention
launches them (flash_bwd_launch_template.h, the same for Hopper): the rows' sums of output times its gradient, with the
clearing of a float32 buffer for the queries' gradient; the gradients, that of the queries added up in the buffer; the
buffer in 16 bits. The three gradients lie apart: xformers 0.0.35 puts them together only where queries, keys and values
of one head lie side by side, which they do not in timm's order of weights.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

FORWARD = "fastdino_counted::attention"
ROWS, GRADIENTS, NARROWING = (f"fastdino_counted::attention_backward_{name}" for name in ("rows", "main", "narrow"))


@custom_op(FORWARD, mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    raise NotImplementedError("there is nothing to compute with on meta")


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty((q.shape[2], q.shape[1]), dtype=torch.float32)


@custom_op(ROWS, mutates_args=())
def _rows(gradient: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    raise NotImplementedError


@_rows.register_fake
def _(gradient: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    wide = output.new_empty(output.shape, dtype=torch.float32)
    return wide.new_empty((output.shape[2], output.shape[1])), wide


@custom_op(GRADIENTS, mutates_args=("dq", "dk", "dv"))
def _gradients(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    logarithms: Tensor,
    sums: Tensor,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    pairs: int,
) -> None:
    raise NotImplementedError


@_gradients.register_fake
def _(*_: Any) -> None:
    return None


@custom_op(NARROWING, mutates_args=("dq",))
def _narrow(wide: Tensor, dq: Tensor) -> None:
    raise NotImplementedError


@_narrow.register_fake
def _(*_: Any) -> None:
    return None


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, pairs: int) -> Tensor:
        output, logarithms = _attention(q, k, v, pairs)
        ctx.save_for_backward(q, k, v, output, logarithms)
        ctx.pairs = pairs
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, output, logarithms = ctx.saved_tensors
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        sums, wide = _rows(gradient, output)
        _gradients(gradient, q, k, v, logarithms, sums, wide, dk, dv, ctx.pairs)
        _narrow(wide, dq)
        return dq, dk, dv, None


def memory_efficient_attention(q: Tensor, k: Tensor, v: Tensor, attn_bias: Any) -> Tensor:
    """(1, tokens, heads, d) each, queries fewer perhaps, and a BlockDiagonalMask -> (1, query tokens, heads, d)."""
    of_q, of_k = (pairwise(of.seqstart_py) for of in (attn_bias.q_seqinfo, attn_bias.k_seqinfo))
    pairs = [(end - start) * (last - first) for (start, end), (first, last) in zip(of_q, of_k, strict=True)]
    result: Tensor = _Attention.apply(q, k, v, sum(pairs))
    return result


def flops(name: str, q: Tensor, pairs: int) -> int:
    """Products in one of these operations: two forward; backward five, one of them the scores computed again.

    `pairs` is how many queries and keys meet in a head.
    """
    products = {FORWARD: 2, GRADIENTS: 5}.get(name, 0)
    return 2 * products * q.shape[2] * q.shape[3] * pairs
