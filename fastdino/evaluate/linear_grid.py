"""Many linear classifiers trained at once on the same features, one for each pair of settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MOMENTUM = 0.9


@dataclass(frozen=True)
class LinearGrid:
    """G classifiers: `weight` (G, D, classes), `bias` (G, classes), float32, and the settings of each."""

    weight: Tensor
    bias: Tensor
    settings: list[tuple[float, float]]

    def logits(self, features: Tensor) -> Tensor:
        """Features (n, D) -> (n, G, classes)."""
        return torch.einsum("nd,gdc->ngc", features, self.weight) + self.bias


def train_grid(
    features: Tensor,
    labels: Tensor,
    classes: int,
    learning_rates: Sequence[float],
    weight_decays: Sequence[float] = (0.0,),
    *,
    epochs: int = 100,
    batch_size: int = 128,
    seed: int = 0,
) -> LinearGrid:
    """Train a classifier for every pair of learning rate and weight decay, on features (n, D), labels (n,) int64.

    Protocol of the original's eval_linear.py: SGD with momentum 0.9, cosine to 0 by epoch, the learning rates
    multiplied by batch_size / 256, weights drawn with a standard deviation of 0.01. All classifiers start alike and
    see the same batches, so that each step is one product for all.
    """
    settings = [(rate, decay) for rate in learning_rates for decay in weight_decays]
    generator = torch.Generator().manual_seed(seed)
    start = torch.empty(features.shape[1], classes).normal_(std=0.01, generator=generator).to(features.device)
    # (D + 1, G, classes): the bias is the weight of a feature that is always 1.
    weight = torch.cat((start, start.new_zeros(1, classes)))[:, None].repeat(1, len(settings), 1)
    rates, decays = start.new_tensor(settings).T[:, None, :, None]
    inputs = torch.cat((features, features.new_ones(len(features), 1)), dim=1)
    velocity = torch.zeros_like(weight)
    for epoch in range(epochs):
        scale = batch_size / 256 * (1 + math.cos(math.pi * epoch / epochs)) / 2
        for rows in torch.randperm(len(labels), generator=generator).to(labels.device).split(batch_size):
            batch = inputs[rows]
            scores = (batch @ weight.flatten(1)).unflatten(1, weight.shape[1:])
            error = scores.softmax(dim=-1) - F.one_hot(labels[rows], classes)[:, None]
            gradient = (batch.T @ error.flatten(1)).view_as(weight) / len(rows)
            velocity.mul_(MOMENTUM).add_(gradient).add_(decays * weight)
            weight.sub_(scale * rates * velocity)
    return LinearGrid(weight[:-1].transpose(0, 1).contiguous(), weight[-1], settings)
