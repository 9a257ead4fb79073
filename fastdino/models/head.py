"""DINO's projection head (paper, appendix C): an MLP, an L2 bottleneck and weight-normalised prototypes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fastdino.models.prototypes import Prototypes
from fastdino.models.vision_transformer import init_linear


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
