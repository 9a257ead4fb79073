"""Gradient clipping tensor by tensor."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def clip_gradients(model: nn.Module, clip: float) -> list[float]:
    """Scale each gradient whose L2 norm exceeds `clip` down to it; returns the norms before clipping, in order."""
    norms = []
    for parameter in model.parameters():
        if parameter.grad is None:
            continue
        norm = parameter.grad.norm(2)
        norms.append(norm.item())
        coefficient = clip / (norm + 1e-6)
        if coefficient < 1:
            parameter.grad.mul_(coefficient)
    return norms
