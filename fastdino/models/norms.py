"""Norms in front of a residual branch: tokens come out twice, as they are and normalised."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastdino import implementation as implementations


def normalized(norm: nn.Module, x: Tensor, dtype: torch.dtype, implementation: str = "auto") -> tuple[Tensor, Tensor]:
    """Tokens (..., C) -> x and norm(x), the latter in `dtype` where that costs nothing.

    What goes on from the x that is returned brings its gradient into the norm's backward pass: with `triton` both are
    added up in one kernel. Other norms than LayerNorm, other tokens than float32, and wider ones than the kernel
    takes are PyTorch's affair. `implementation` is as in implementation.choose.
    """
    if torch.compiler.is_compiling() or not _is_for_kernel(norm, x):
        return x, norm(x)
    if implementations.choose(implementations.NORMS, implementation, x.device).name != "triton":
        return x, norm(x)
    kernel = implementations.kernels("layer_norm")
    if x.shape[-1] > kernel.WIDEST:
        return x, norm(x)
    result: tuple[Tensor, Tensor] = kernel.normalized(x, norm.weight, norm.bias, norm.eps, dtype)
    return result


def dtype_of_products(device: torch.device) -> torch.dtype:
    """What autocast turns the operands of a product into; float32 where there is none."""
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return torch.float32
    return torch.get_autocast_dtype(device.type)


def _is_for_kernel(norm: nn.Module, x: Tensor) -> bool:
    # Exactly this class: what is derived from it may do more.
    return (
        type(norm) is nn.LayerNorm
        and norm.weight is not None
        and norm.bias is not None
        and norm.normalized_shape == x.shape[-1:]
        and x.dtype == norm.weight.dtype == torch.float32
    )
