"""A vision transformer's forward pass operation by operation as the original's, over the parameters of ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastdino.models.block import Attention, Block, Mlp
from fastdino.models.vision_transformer import VisionTransformer


class OriginalBackbone(nn.Module):
    """One resolution at a time, attention with its matrices, stochastic depth by masks, a norm over all tokens."""

    def __init__(self, backbone: VisionTransformer) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> CLS features (B, C)."""
        x = self.backbone.prepare_tokens(pictures)
        for block in self.backbone.blocks:
            assert isinstance(block, Block)
            x = x + self._dropped(attended(block.attn, block.norm1(x)), block.drop_path.rate)
            x = x + self._dropped(transformed(block.mlp, block.norm2(x)), block.drop_path.rate)
        return self.backbone.norm(x)[:, 0]

    def _dropped(self, x: Tensor, rate: float) -> Tensor:
        if rate == 0 or not self.training:
            return x
        kept = (1 - rate + torch.rand(len(x), 1, 1, dtype=x.dtype, device=x.device)).floor_()
        return x.div(1 - rate) * kept


def attended(layer: Attention, x: Tensor) -> Tensor:
    """(B, N, C) -> (B, N, C)."""
    qkv = layer.queries_keys_values(x).permute(2, 0, 3, 1, 4)
    q, k, v = qkv[0], qkv[1], qkv[2]
    weights = (q @ k.transpose(-2, -1) * layer.scale).softmax(dim=-1)
    return layer.proj((weights @ v).transpose(1, 2).flatten(2))


def transformed(layer: Mlp, x: Tensor) -> Tensor:
    """(B, N, C) -> (B, N, C)."""
    return layer.fc2(nn.functional.gelu(layer.fc1(x)))
