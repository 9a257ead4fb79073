"""DINO's last layer: logits are products with prototypes of given lengths (weight normalisation)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Prototypes that are worked on at once: with 256 numbers each two megabytes in float32, which caches hold.
BLOCK = 2048
SMALLEST_LENGTH = 1e-12


class Prototypes(nn.Module):
    """Linear layer without bias whose rows are `weight_g * weight_v / |weight_v|` (Salimans and Kingma 2016).

    Parameters keep the names and the order that `torch.nn.utils.weight_norm` gives, on which checkpoints and the
    optimiser's numbering rely: `weight_g` (out_dim, 1), `weight_v` (out_dim, in_dim).
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_dim, 1))
        self.weight_v = nn.Parameter(torch.empty(out_dim, in_dim))
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(R, in_dim) -> logits (R, out_dim)."""
        if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            logits: Tensor = _BlockedProducts.apply(x, self.weight_v, self.weight_g)
            return logits
        return F.linear(x, self.weight_g * F.normalize(self.weight_v, dim=1))


class _BlockedProducts(torch.autograd.Function):
    """Some prototypes after the others, so that no normalised copy of all of them is ever in memory.

    With n = v / |v| and d = dL/dlogits, the weights' gradient w = d^T x gives dL/dg = w . n and
    dL/dv = g / |v| (w - (w . n) n).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, g: Tensor) -> Tensor:
        logits = x.new_empty(len(x), len(v))
        for rows in _blocks(v):
            torch.mm(x, (g[rows] * F.normalize(v[rows], dim=1)).T, out=logits[:, rows])
        ctx.save_for_backward(x, v, g)
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, v, g = ctx.saved_tensors
        of_x, of_v, of_g = ctx.needs_input_grad
        x_gradient = torch.zeros_like(x) if of_x else None
        v_gradient = torch.empty_like(v) if of_v else None
        g_gradient = torch.empty_like(g) if of_g else None
        for rows in _blocks(v):
            lengths = v[rows].norm(dim=1, keepdim=True).clamp_min_(SMALLEST_LENGTH)
            units = v[rows] / lengths
            if x_gradient is not None:
                x_gradient.addmm_(gradient[:, rows], g[rows] * units)
            if v_gradient is None and g_gradient is None:
                continue
            weights = gradient[:, rows].T @ x
            along = (weights * units).sum(dim=1, keepdim=True)
            if g_gradient is not None:
                g_gradient[rows] = along
            if v_gradient is not None:
                torch.mul(weights.addcmul_(along, units, value=-1), g[rows] / lengths, out=v_gradient[rows])
        return x_gradient, v_gradient, g_gradient


def _blocks(v: Tensor) -> Iterator[slice]:
    return (slice(first, first + BLOCK) for first in range(0, len(v), BLOCK))
