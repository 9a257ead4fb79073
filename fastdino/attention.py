"""Self-attention of many sequences of several lengths, packed into one: no padding, no N x N matrix.

Tokens of all sequences stand one after the other, and each attends to its own sequence. Which code does it:

    xformers    one call for all sequences, with a block-diagonal mask; GPUs, 16-bit types
    varlen      the same by torch.nn.attention.varlen; GPUs, 16-bit types
    sdpa        torch's scaled_dot_product_attention, once a length; everywhere
    reference   the formula, with its matrix

All give the same numbers but for rounding.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BACKENDS = ("xformers", "varlen", "sdpa", "reference")
HALF_PRECISION = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Packing:
    """Which tokens of a packed sequence belong together: for each group its number of sequences and their length."""

    groups: tuple[tuple[int, int], ...]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence."""
        return [length for count, length in self.groups for _ in range(count)]

    @property
    def sequences(self) -> int:
        """Sequences in all."""
        return sum(count for count, _ in self.groups)

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return sum(count * length for count, length in self.groups)

    def spread(self, values: Tensor) -> Tensor:
        """One value a sequence (sequences,) -> one a token (tokens,)."""
        if self.tokens == self.sequences:
            return values
        parts = zip(values.split([count for count, _ in self.groups]), self.groups, strict=True)
        return torch.cat([part.unsqueeze(1).expand(group).flatten() for part, group in parts])

    @property
    def of_first_tokens(self) -> Packing:
        """The packing of what `first_tokens` gives."""
        return Packing(tuple((count, 1) for count, _ in self.groups))

    def chosen(self, sequences: Tensor) -> tuple[Packing, Tensor]:
        """Some of the sequences (bool) -> their own packing, and the indices of their tokens in this one."""
        groups: list[tuple[int, int]] = []
        tokens: list[Tensor] = []
        start = 0
        for (count, length), mine in zip(self.groups, sequences.split([n for n, _ in self.groups]), strict=True):
            index = mine.nonzero() * length + start + torch.arange(length)
            groups.append((len(index), length))
            tokens.append(index.flatten())
            start += count * length
        return Packing(tuple(group for group in groups if group[0])), torch.cat(tokens)

    def split(self, packed: Tensor) -> list[Tensor]:
        """(tokens, ...) -> a view (count, length, ...) of each group."""
        parts = packed.split([count * length for count, length in self.groups])
        return [part.unflatten(0, group) for part, group in zip(parts, self.groups, strict=True)]

    def first_tokens(self, packed: Tensor) -> Tensor:
        """(tokens, C) -> the first token of each sequence (sequences, C)."""
        return torch.cat([group[:, 0] for group in self.split(packed)])


def attention(
    q: Tensor, k: Tensor, v: Tensor, queries: Packing, keys: Packing | None = None, backend: str = "auto"
) -> Tensor:
    """softmax(q k^T / sqrt(d)) v within each sequence.

    Args:
        q: (query tokens, heads, d).
        k, v: (tokens, heads, d).
        queries: how q is packed: as many sequences as `keys`, in the same order.
        keys: how k and v are packed, where that is not how q is.
        backend: one of BACKENDS; `auto` is what `choose` takes.

    Returns:
        (query tokens, heads, d).

    Raises:
        ValueError: there is no such backend.
    """
    if backend == "auto":
        backend, _ = choose(q.device.type, q.dtype)
        if torch.compiler.is_compiling() and backend == "xformers":
            # Its masks are objects that a compiler cannot see through.
            backend = "varlen"
    if backend not in _FUNCTIONS:
        raise ValueError(f"attention must be by one of {', '.join(BACKENDS)}, not {backend!r}")
    return _FUNCTIONS[backend](q, k, v, queries, keys or queries)


def attention_rows(q: Tensor, k: Tensor) -> Tensor:
    """Some rows of the attention's weights: (B, R, heads, d) and (B, N, heads, d) -> (B, heads, R, N), float32.

    Exact whichever backend has trained the network, and R x N numbers instead of N x N.
    """
    scores = torch.einsum("brhd,bnhd->bhrn", q.float(), k.float()) * q.shape[-1] ** -0.5
    return scores.softmax(dim=-1)


@torch.compiler.assume_constant_result
def choose(device_type: str, dtype: torch.dtype) -> tuple[str, str]:
    """The backend for tensors of this kind and the reason, for the log."""
    return _chosen(device_type, dtype)


@functools.cache
def _chosen(device_type: str, dtype: torch.dtype) -> tuple[str, str]:
    if device_type != "cuda":
        return "sdpa", f"the device is {'a CPU' if device_type == 'cpu' else device_type}"
    if dtype not in HALF_PRECISION:
        return "sdpa", "the packed kernels compute in 16 bits only"
    obstacles: list[str] = []
    for backend in ("xformers", "varlen"):
        obstacle = why_not(backend, dtype)
        if not obstacle:
            return backend, "; ".join(obstacles) or "all crops in one call"
        obstacles.append(obstacle)
    return "sdpa", "; ".join(obstacles)


def why_not(backend: str, dtype: torch.dtype) -> str:
    """What keeps a backend from running forward and backward on the current GPU, tried out; empty if nothing does."""
    packing = Packing(((1, 8), (2, 2)))
    qkv = torch.zeros(12, 3, 1, 64, dtype=dtype, device="cuda", requires_grad=True)
    q, k, v = qkv.unbind(1)
    function = _FUNCTIONS[backend]
    try:
        function(q, k, v, packing, packing).sum().backward()
        function(packing.first_tokens(q), k, v, packing.of_first_tokens, packing).sum().backward()
    except Exception as error:  # whatever a library that was built for other versions raises
        return f"{backend} cannot be used ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
    return ""


def _xformers(q: Tensor, k: Tensor, v: Tensor, queries: Packing, keys: Packing) -> Tensor:
    from xformers.ops import memory_efficient_attention

    q, k, v = (x.unsqueeze(0) for x in (q, k, v))
    return memory_efficient_attention(q, k, v, attn_bias=_block_diagonal(queries, keys)).squeeze(0)


@functools.lru_cache(maxsize=16)
def _block_diagonal(queries: Packing, keys: Packing) -> Any:
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    return BlockDiagonalMask.from_seqlens(queries.lengths, keys.lengths)


def _varlen(q: Tensor, k: Tensor, v: Tensor, queries: Packing, keys: Packing) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    of_q, of_k = (_starts(packing, q.device) for packing in (queries, keys))
    longest_q, longest_k = (max(length for _, length in packing.groups) for packing in (queries, keys))
    output = varlen_attn(q, k, v, of_q, of_k, longest_q, longest_k)
    assert isinstance(output, Tensor)  # a pair only for those who ask
    return output


@torch.compiler.assume_constant_result
def _starts(packing: Packing, device: torch.device) -> Tensor:
    return _kept_starts(packing, device)


@functools.lru_cache(maxsize=16)
def _kept_starts(packing: Packing, device: torch.device) -> Tensor:
    """Kept, because copying them to a GPU makes the host wait for it."""
    return torch.tensor([0, *accumulate(packing.lengths)], dtype=torch.int32, device=device)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, queries: Packing, keys: Packing) -> Tensor:
    outputs = []
    for of_one_length in _by_length(q, k, v, queries, keys):
        q, k, v = (x.transpose(1, 2) for x in of_one_length)
        outputs.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)


def _reference(q: Tensor, k: Tensor, v: Tensor, queries: Packing, keys: Packing) -> Tensor:
    outputs = []
    for of_one_length in _by_length(q, k, v, queries, keys):
        q, k, v = (x.transpose(1, 2) for x in of_one_length)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
        outputs.append((weights @ v).transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)


def _by_length(q: Tensor, k: Tensor, v: Tensor, queries: Packing, keys: Packing) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Each (sequences, tokens, heads, d), those of one length after those of another."""
    return list(zip(queries.split(q), keys.split(k), keys.split(v), strict=True))


_FUNCTIONS = {"xformers": _xformers, "varlen": _varlen, "sdpa": _sdpa, "reference": _reference}
