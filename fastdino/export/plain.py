"""Backbones as one graph of common operations, for exporters that follow tensors and not Python."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdino.errors import UserError
from fastdino.models.backbones import embedding_width
from fastdino.models.block import Block
from fastdino.models.pretrained import Backbone
from fastdino.models.vision_transformer import VisionTransformer


def plain(backbone: Backbone, *, fixed_size: bool) -> nn.Module:
    """What exporters can follow and gives the backbone's features (B, D), its weights shared.

    With `fixed_size` pictures have the backbone's `image_size`; without, vision transformers take any whole number
    of patches.
    """
    model = backbone.model
    return PlainVisionTransformer(model, fixed_size).eval() if isinstance(model, VisionTransformer) else model


def example(backbone: Backbone, fixed_size: bool) -> Tensor:
    """Pictures to follow the computation with: two, and not square if sizes are to stay open."""
    side = backbone.image_size
    if fixed_size or backbone.patch_size is None:
        return torch.zeros(2, 3, side, side)
    # Equal numbers of anything are taken for one number, and a number 1 for one that is always 1.
    return torch.zeros(2, 3, side + 2 * backbone.patch_size, side + 3 * backbone.patch_size)


def dynamic_shapes(backbone: Backbone, fixed_size: bool) -> tuple[dict[int, Any]]:
    """What torch.export leaves open: the batch, and a vision transformer's height and width from two patches on."""
    shapes: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=2**16)}
    if not fixed_size and backbone.patch_size is not None:
        shapes[2] = backbone.patch_size * torch.export.Dim("rows", min=2, max=2**12)
        shapes[3] = backbone.patch_size * torch.export.Dim("columns", min=2, max=2**12)
    return (shapes,)


def at_size(backbone: Backbone, image_size: int) -> Backbone:
    """The backbone for square pictures of another side: a vision transformer's position embedding resized for good.

    Raises UserError for a size that the architecture cannot take.
    """
    model = backbone.model
    if not isinstance(model, VisionTransformer):
        embedding_width(model, [image_size], backbone.arch)
        return dataclasses.replace(backbone, image_size=image_size)
    patch_size = model.patch_size
    if image_size < 1 or image_size % patch_size:
        raise UserError(f"--image_size is {image_size}, and patches have {patch_size} pixels: give a multiple of that")
    resized = copy.deepcopy(model)
    resized.pos_embed = nn.Parameter(model.interpolate_pos_encoding(image_size, image_size), requires_grad=False)
    resized.patch_embed.num_patches = (image_size // patch_size) ** 2
    resized.patch_embed.img_size = image_size
    return dataclasses.replace(backbone, model=resized, image_size=image_size)


class PlainVisionTransformer(nn.Module):
    """A vision transformer without packed sequences: pictures (B, in_chans, H, W) -> CLS features (B, C)."""

    def __init__(self, model: VisionTransformer, fixed_size: bool) -> None:
        super().__init__()
        self.model = model
        self.fixed_size = fixed_size

    def forward(self, pictures: Tensor) -> Tensor:
        model = self.model
        cls_tokens = model.cls_token.expand(pictures.shape[0], -1, -1)
        x = torch.cat((cls_tokens, model.patch_embed(pictures)), dim=1) + self._positions(pictures)
        for child in model.blocks:
            block = cast(Block, child)
            q, k, v = block.attn.queries_keys_values(block.norm1(x)).permute(2, 0, 3, 1, 4).unbind(0)
            x = x + block.attn.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
        return model.norm(x[:, 0])

    def _positions(self, pictures: Tensor) -> Tensor:
        """Position embedding (1, N, C): `VisionTransformer.interpolate_pos_encoding` as two products of matrices.

        Exporters have no bicubic resizing by the original's scale, (rows + 0.1) / side, and cannot choose by size.
        """
        embedding = self.model.pos_embed
        if self.fixed_size:
            return embedding
        side = math.isqrt(embedding.shape[1] - 1)
        rows = torch.arange(pictures.shape[2] // self.model.patch_size, device=pictures.device)
        columns = torch.arange(pictures.shape[3] // self.model.patch_size, device=pictures.device)
        # The size that the embedding is stored for takes it as it is: a scale of 1.
        stored = (rows[-1:] + 1 == side) & (columns[-1:] + 1 == side)
        surplus = 0.1 - 0.1 * stored.to(embedding.dtype)
        grid = embedding[0, 1:].unflatten(0, (side, side))
        grid = torch.einsum("rs,stc->rtc", bicubic_weights(rows, side, surplus), grid)
        grid = torch.einsum("ut,rtc->ruc", bicubic_weights(columns, side, surplus), grid)
        return torch.cat((embedding[:, :1], grid.flatten(0, 1).unsqueeze(0)), dim=1)


def bicubic_weights(targets: Tensor, side: int, surplus: Tensor) -> Tensor:
    """Weights (targets, side) of bicubic resizing along one dimension, as F.interpolate resizes by a scale factor.

    Args:
        targets: 0, 1, ... to the new length, exclusive.
        side: the old length.
        surplus: (1,), what the scale factor (new length + surplus) / side has above the lengths' ratio.
    """
    scale = (targets[-1:] + 1 + surplus) / side
    positions = (targets + 0.5) / scale - 0.5
    # Beyond the border its last value is repeated. Two pixels suffice: positions lie less than one outside.
    sources = torch.arange(-2, side + 2, device=targets.device)
    weights = _cubic(positions[:, None] - sources)
    inside = weights[:, 2:-2]
    first = inside[:, :1] + weights[:, :2].sum(dim=1, keepdim=True)
    if side == 1:
        return first + weights[:, -2:].sum(dim=1, keepdim=True)
    last = inside[:, -1:] + weights[:, -2:].sum(dim=1, keepdim=True)
    return torch.cat((first, inside[:, 1:-1], last), dim=1)


def _cubic(distance: Tensor) -> Tensor:
    """The kernel of Keys (1981) with a = -0.75, PyTorch's choice."""
    a = -0.75
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
