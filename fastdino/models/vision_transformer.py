"""Vision transformer with timm's parameter names (Dosovitskiy et al. 2021; DINO, section 3.2).

Shapes use B = images, N = patches + 1 (the CLS token comes first), C = embedding width, h = heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdino.attention import Packing
from fastdino.models.block import Block, Layer, NormLayer, again

default_norm: NormLayer = partial(nn.LayerNorm, eps=1e-6)


class PatchEmbed(nn.Module):
    """Cuts pictures (B, in_chans, H, W) into patches and embeds each: (B, H/p * W/p, C)."""

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.img_size = img_size
        self.patch_size = patch_size
        self.num_patches = (img_size // patch_size) ** 2
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Vision transformer whose feature is the CLS token after the last norm.

    Args:
        img_size: side in pixels for which the position embedding is stored; other sizes interpolate it. The original
            passes a list, of which the first entry counts.
        patch_size: side of a patch in pixels.
        num_classes: 0 gives features; above it adds a linear classifier.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first.

    Attributes:
        checkpointing: what `set_checkpointing` was given.
    """

    checkpointing = "none"

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 0,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: NormLayer = default_norm,
    ) -> None:
        super().__init__()
        side = img_size if isinstance(img_size, int) else img_size[0]
        self.num_features = self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.patch_embed = PatchEmbed(side, patch_size, in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + 1, embed_dim))
        rates = [drop_path_rate * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, qkv_bias, rate, norm_layer) for rate in rates
        )
        self.norm = norm_layer(embed_dim)
        self.head: nn.Module = nn.Linear(embed_dim, num_classes) if num_classes > 0 else nn.Identity()

        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.apply(init_linear)

    def set_checkpointing(self, what: str) -> None:
        """What keeps nothing but its input while it trains, and runs again in the backward pass, with the same bits.

        `none`, the `attention` branch of every block, or every `block` as a whole: the less memory the more time.
        """
        self.checkpointing = what
        for block in self.blocks:
            cast(Block, block).attention_again = what == "attention"

    def set_implementation(self, implementation: str) -> None:
        """Who computes the norms of the blocks, as in implementation.choose."""
        for block in self.blocks:
            cast(Block, block).implementation = implementation

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.patch_embed.patch_size

    def interpolate_pos_encoding(self, height: int, width: int) -> Tensor:
        """Position embedding (1, N, C) for pictures of height x width pixels.

        The scale factor carries the original's +0.1, which moves the bicubic sampling grid: released weights expect it.
        """
        stored = self.pos_embed.shape[1] - 1
        rows, columns = height // self.patch_size, width // self.patch_size
        if rows * columns == stored and height == width:
            return self.pos_embed
        side = math.isqrt(stored)
        grid = self.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / side, (columns + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat((self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)

    def prepare_tokens(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> tokens with positions (B, N, C)."""
        tokens = torch.cat((self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)), dim=1)
        return tokens + self.interpolate_pos_encoding(*x.shape[-2:])

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> CLS features (B, C), or logits (B, num_classes) with a classifier."""
        return self.forward_packed([x])

    def forward_packed(self, crops: Sequence[Tensor]) -> Tensor:
        """Crops of any sizes, each (B, in_chans, H, W), in one pass -> what `forward` gives, one crop after the other.

        All tokens stand in one sequence (tokens, C), so that each layer is one product, whatever the resolutions.
        Only attention knows which of them belong together.
        """
        groups = [self.prepare_tokens(torch.cat(list(group))) for _, group in groupby(crops, lambda x: x.shape[1:])]
        packing = Packing(tuple((len(tokens), tokens.shape[1]) for tokens in groups))
        x = torch.cat([tokens.flatten(0, 1) for tokens in groups])
        for block in self.blocks[:-1]:
            x = self._run(block, x, packing)
        # Nothing but the CLS token leaves the last block, so most of it need not be computed.
        return self.head(self.norm(self._run(cast(Block, self.blocks[-1]).of_first_tokens, x, packing)))

    def compile_blocks(self) -> None:
        """Have torch.compile fuse what is between the products of each block.

        Blocks share what is compiled: one graph for the first ones, one for the last, two more for stochastic depth.
        """
        for block in self.blocks:
            block.compile(fullgraph=True)
        last = cast(Block, self.blocks[-1])
        last.of_first_tokens = torch.compile(last.of_first_tokens, fullgraph=True)  # type: ignore[method-assign]

    def _run(self, block: Layer, x: Tensor, packing: Packing) -> Tensor:
        if self.checkpointing == "block" and self.training and torch.is_grad_enabled():
            return again(block, x, packing)
        return block(x, packing)

    def get_last_selfattention(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> attention weights of the last block (B, h, N, N)."""
        return self.last_attention_rows(x, slice(None))

    def last_attention_rows(self, x: Tensor, rows: slice = slice(1)) -> Tensor:
        """(B, in_chans, H, W) -> (B, h, R, N): what some tokens look at in the last block, by default the CLS token.

        Without a matrix of N x N numbers, for large pictures and small patches.
        """
        *others, last = self.blocks
        tokens = self.prepare_tokens(x)
        *_, tokens = [tokens, *self._through_blocks(tokens, others)]
        return cast(Block, last).attention_rows(tokens, rows)

    def get_intermediate_layers(self, x: Tensor, n: int = 1) -> list[Tensor]:
        """(B, in_chans, H, W) -> normalised tokens (B, N, C) of each of the last `n` blocks, in order."""
        outputs = list(self._through_blocks(self.prepare_tokens(x), self.blocks))
        return [self.norm(tokens) for tokens in outputs[max(0, len(outputs) - n) :]]

    def _through_blocks(self, tokens: Tensor, blocks: Iterable[nn.Module]) -> Iterator[Tensor]:
        """Tokens (B, N, C) after each block."""
        size = len(tokens), tokens.shape[1]
        x = tokens.flatten(0, 1)
        for block in blocks:
            x = block(x, Packing((size,)))
            yield x.unflatten(0, size)


def init_linear(module: nn.Module) -> None:
    """DINO's initialisation: truncated normal (std 0.02) weights and zero biases on every Linear, nothing else."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def vit_tiny(patch_size: int = 16, **kwargs: Any) -> VisionTransformer:
    """ViT-Ti: width 192, 12 blocks, 3 heads, 5.5 M parameters."""
    return VisionTransformer(patch_size=patch_size, embed_dim=192, depth=12, num_heads=3, **kwargs)


def vit_small(patch_size: int = 16, **kwargs: Any) -> VisionTransformer:
    """ViT-S: width 384, 12 blocks, 6 heads, 21.7 M parameters."""
    return VisionTransformer(patch_size=patch_size, embed_dim=384, depth=12, num_heads=6, **kwargs)


def vit_base(patch_size: int = 16, **kwargs: Any) -> VisionTransformer:
    """ViT-B: width 768, 12 blocks, 12 heads, 85.8 M parameters."""
    return VisionTransformer(patch_size=patch_size, embed_dim=768, depth=12, num_heads=12, **kwargs)


def vit_large(patch_size: int = 16, **kwargs: Any) -> VisionTransformer:
    """ViT-L: width 1024, 24 blocks, 16 heads, 303 M parameters."""
    return VisionTransformer(patch_size=patch_size, embed_dim=1024, depth=24, num_heads=16, **kwargs)
