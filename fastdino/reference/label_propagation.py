"""Label propagation by a matrix of all patches by all patches (DINO paper, section 4.2.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def propagate(target: Tensor, frames: Sequence[tuple[Tensor, Tensor]], *, radius: int, topk: int) -> Tensor:
    """Labels (h, w, L) of the patches `target` (h, w, C) from `frames`, pairs of tokens (h, w, C) and labels (h, w, L).

    Tokens have unit length; the other arguments are as in `evaluate.label_propagation`.
    """
    height, width, _ = target.shape
    places = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=-1).flatten(0, 1)
    near = ((places[:, None] - places).abs() <= (radius or height * width)).all(dim=-1).to(target.device)
    sources = torch.cat([tokens.flatten(0, 1) for tokens, _ in frames])
    affinity = (target.flatten(0, 1) @ sources.T / 0.1).exp() * near.repeat(1, len(frames))
    least = affinity.topk(min(topk, affinity.shape[1]), dim=1).values[:, -1:]
    affinity[affinity < least] = 0
    labels = torch.cat([labels.flatten(0, 1) for _, labels in frames])
    return (affinity / affinity.sum(dim=1, keepdim=True) @ labels).view(height, width, -1)
