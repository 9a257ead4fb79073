"""A block of a vision transformer over packed sequences, in timm's form and with its parameters' names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fastdino.attention import Packing, attention, attention_rows
from fastdino.models.drop_path import DropPath
from fastdino.models.norms import dtype_of_products, normalized
from fastdino.models.recompute import forgotten, nothing_forgotten

NormLayer: TypeAlias = Callable[[int], nn.Module]
Layer: TypeAlias = Callable[[Tensor, Packing], Tensor]
Result = TypeVar("Result")


class Attention(nn.Module):
    """Multi-head self-attention within the sequences of a packing."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """(tokens, C) -> (tokens, C)."""
        q, k, v = self.queries_keys_values(x).unbind(1)
        return self.proj(attention(q, k, v, packing).flatten(1))

    def of_first_tokens(self, x: Tensor, packing: Packing) -> Tensor:
        """(tokens, C) -> (sequences, C): what `forward` gives for the first token of each sequence."""
        weight, bias = self.qkv.weight, self.qkv.bias
        width = weight.shape[1]
        q_bias, kv_bias = (None, None) if bias is None else (bias[:width], bias[width:])
        q = F.linear(packing.first_tokens(x), weight[:width], q_bias).unflatten(-1, (self.num_heads, -1))
        k, v = F.linear(x, weight[width:], kv_bias).unflatten(-1, (2, self.num_heads, -1)).unbind(1)
        return self.proj(attention(q, k, v, packing.of_first_tokens, packing).flatten(1))

    def queries_keys_values(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., 3, heads, C / heads)."""
        return self.qkv(x).unflatten(-1, (3, self.num_heads, -1))


class Mlp(nn.Module):
    """Linear - GELU (exact) - Linear."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        activated = F.gelu(hidden)
        with forgotten(activated, lambda: F.gelu(hidden)):
            return self.fc2(activated)


class Block(nn.Module):
    """Pre-norm transformer block; the two residual branches draw their stochastic depth independently.

    Attributes:
        attention_again: while it trains, its attention branch keeps nothing but its input; see
            VisionTransformer.set_checkpointing.
        implementation: of its norms, as in implementation.choose.
    """

    attention_again = False
    implementation = "auto"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
        norm_layer: NormLayer,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """(tokens, C) -> (tokens, C)."""
        x = self.drop_path(x, packing, partial(self._attend, self.attn))
        return self.drop_path(x, packing, self._transform)

    def of_first_tokens(self, x: Tensor, packing: Packing) -> Tensor:
        """(tokens, C) -> (sequences, C): what `forward` gives for the first token of each sequence."""
        x = self.drop_path(x, packing, partial(self._attend, self.attn.of_first_tokens), only_first=True)
        return self.drop_path(x, packing.of_first_tokens, self._transform)

    def _attend(self, attend: Layer, x: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        branch = partial(self._after_norm, self.norm1, attend)
        if self.attention_again and self.training and torch.is_grad_enabled():
            return again(branch, x, packing)
        return branch(x, packing)

    def _transform(self, x: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        return self._after_norm(self.norm2, lambda tokens, _: self.mlp(tokens), x, packing)

    def _after_norm(self, norm: nn.Module, layer: Layer, x: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        """Tokens (tokens, C) -> the same and layer(norm(x)); see drop_path.Branch."""
        # In the backward pass, which may need it again, there is no autocast to ask.
        normalise = partial(normalized, norm, x, dtype_of_products(x.device), self.implementation)
        same, tokens = normalise()
        with forgotten(tokens, lambda: normalise()[1]):
            return same, layer(tokens, packing)

    def attention_rows(self, x: Tensor, rows: slice) -> Tensor:
        """Tokens (B, N, C) -> (B, h, R, N): what the tokens `rows` look at in this block."""
        q, k, _ = self.attn.queries_keys_values(self.norm1(x)).unbind(2)
        return attention_rows(q[:, rows], k)


def again(layer: Callable[[Tensor, Packing], Result], x: Tensor, packing: Packing) -> Result:
    """layer(x, packing), of which nothing but `x` is kept: it runs again in the backward pass, with the same bits."""
    output: Result = checkpoint(layer, x, packing, use_reentrant=False, context_fn=_run_as_a_whole)
    return output


def _run_as_a_whole() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nothing_forgotten(), nothing_forgotten()
