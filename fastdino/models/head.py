"""DINO's projection head (paper, appendix C): an MLP, an L2 bottleneck and weight-normalised prototypes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdino.models.vision_transformer import init_linear


class Prototypes(nn.Module):
    """Linear layer without bias whose rows are `weight_g * weight_v / |weight_v|` (weight normalisation).

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
        return F.linear(x, self.weight_g * F.normalize(self.weight_v, dim=1))


class DINOHead(nn.Module):
    """Features (R, in_dim) -> prototype logits (R, out_dim).

    Args:
        use_bn: BatchNorm after each hidden Linear.
        norm_last_layer: keep the prototypes' length (`weight_g`) at 1 instead of training it.
        nlayers: Linear layers in the MLP, at least 1.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        use_bn: bool = False,
        norm_last_layer: bool = True,
        nlayers: int = 3,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
    ) -> None:
        super().__init__()
        widths = [in_dim] + [hidden_dim] * (max(nlayers, 1) - 1)
        layers: list[nn.Module] = []
        for width in widths[:-1]:
            layers.append(nn.Linear(width, hidden_dim))
            if use_bn:
                layers.append(nn.BatchNorm1d(hidden_dim))
            layers.append(nn.GELU())
        output = nn.Linear(widths[-1], bottleneck_dim)
        # A single layer is stored without a Sequential around it, as in the original's checkpoints.
        self.mlp = nn.Sequential(*layers, output) if layers else output
        self.apply(init_linear)
        self.last_layer = Prototypes(bottleneck_dim, out_dim)
        self.last_layer.weight_g.requires_grad = not norm_last_layer

    def bottleneck(self, x: Tensor) -> Tensor:
        """Features (R, in_dim) -> what the prototypes are compared with (R, bottleneck_dim), rows of length 1."""
        return F.normalize(self.mlp(x), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last_layer(self.bottleneck(x))
