"""fastdino.kernels.layer_norm for tensors on the device `meta`: its two kernels as operations, with what they move.

That they move what these schemas say is tested while the interpreter runs them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import custom_op

from fastdino.kernels.layer_norm import programs_of_gradient

FORWARD, GRADIENT = "fastdino_counted::layer_norm", "fastdino_counted::layer_norm_gradient"


@custom_op(FORWARD, mutates_args=())
def _forward(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    raise NotImplementedError("there is nothing to compute with on meta")


@_forward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    rows = x.numel() // x.shape[-1]
    return torch.empty_like(x, dtype=dtype), x.new_empty(rows), x.new_empty(rows)


@custom_op(GRADIENT, mutates_args=())
def _gradient(
    gradient: Tensor, residual: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    raise NotImplementedError


@_gradient.register_fake
def _(
    gradient: Tensor, residual: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    width = x.shape[-1]
    return torch.empty_like(x), x.new_empty(programs_of_gradient(len(mean), width), 2, width)


def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """As fastdino.kernels.layer_norm.forward."""
    result: tuple[Tensor, Tensor, Tensor] = _forward(x, weight, bias, dtype)
    return result


def gradients(
    gradient: Tensor, residual: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    """As fastdino.kernels.layer_norm.gradients."""
    result: tuple[Tensor, Tensor] = _gradient(gradient, residual, x, weight, mean, inverse)
    return result
