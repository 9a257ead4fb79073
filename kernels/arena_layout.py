"""Where the parameters of a network lie within flat buffers, and the tables that tell kernels so.

A buffer is cut into blocks of `rows` rows of `width` values, a power of two of rows and about 1,024 values. Each
parameter starts at a block, so that a block belongs to one parameter and starts at a multiple of 16 bytes in every
buffer, of bfloat16 too. Where `width` is that of a matrix, its rows lie whole in a block, which can then normalise
them; the other parameters do not mind. Behind a parameter there is padding up to the next block, of which kernels
touch at most the three values that complete a group of QUAD. The matrix with normalised rows has room for a multiple of
EIGHT rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Values of a 16-byte access to float32.
QUAD = 4
# bfloat16 of a 16-byte access.
EIGHT = 8
BLOCK = 1024
# More warps than this takes would have too few registers for AdamW.
LARGEST_TILE = 4096
WIDTH = 256

# A sum over a parameter is a sum of at most MOST_CHUNKS sums over chunks of whole blocks, no shorter than CHUNK.
MOST_CHUNKS = 256
CHUNK = 16384


class Blocks(NamedTuple):
    """The shape of all blocks: `rows` x `width` values in a tile of `rows` x `padded_width`, a power of two."""

    rows: int
    width: int
    padded_width: int

    @property
    def size(self) -> int:
        """Values of a block."""
        return self.rows * self.width

    @property
    def aligned(self) -> bool:
        """Whether rows consist of whole QUADs, as a thread can move them at once."""
        return self.width % QUAD == 0

    @property
    def tile(self) -> int:
        """Lanes of a block."""
        return self.rows * self.padded_width


def blocks_of_rows(width: int = WIDTH) -> Blocks:
    """Blocks for matrices of `width` columns. Raises ValueError if a row is too wide for a block."""
    padded_width = 1 << (width - 1).bit_length()
    rows = max(EIGHT // math.gcd(EIGHT, width), BLOCK // padded_width)
    if rows * padded_width > LARGEST_TILE:
        raise ValueError(
            f"rows of {width} values are too wide to be normalised while parameters move: the most are {LARGEST_TILE}, "
            f"or {LARGEST_TILE // 8} where they are no multiple of 8"
        )
    return Blocks(rows, width, padded_width)


def padded(rows: int) -> int:
    """`rows` rounded up to a multiple of EIGHT."""
    return -(-rows // EIGHT) * EIGHT


@dataclass(frozen=True)
class Layout:
    """Offsets of parameters in a flat buffer of `size` values.

    Attributes:
        blocks: (number of blocks, 2) int32: which parameter, and how many QUADs of it.
        tensors: (number of parameters, 4) int32: first block, first chunk, number of chunks, whether its rows are
            normalised in its shadow.
        chunks: (number of chunks, 3) int32: which parameter, first QUAD within it, and how many.
    """

    shape: Blocks
    offsets: tuple[int, ...]
    size: int
    blocks: Tensor
    tensors: Tensor
    chunks: Tensor


def lay_out(counts: Sequence[int], normalised: int | None, shape: Blocks, device: torch.device) -> Layout:
    """Parameters of `counts` values one after the other, of which the one with the index `normalised` has rows."""
    blocks: list[tuple[int, int]] = []
    first_blocks = []
    for tensor, count in enumerate(counts):
        first_blocks.append(len(blocks))
        room = padded(math.ceil(count / shape.width)) * shape.width if tensor == normalised else count
        for start in range(0, room, shape.size):
            blocks.append((tensor, math.ceil(max(0, min(shape.size, count - start)) / QUAD)))
    chunks: list[tuple[int, int, int]] = []
    spans = [(0, 0)] * len(counts)
    # The largest first: none of their long chunks should run alone at the end.
    for tensor in sorted(range(len(counts)), key=lambda i: -counts[i]):
        quads = math.ceil(counts[tensor] / QUAD)
        its_blocks = math.ceil(counts[tensor] / shape.size)
        of_chunk = max(math.ceil(CHUNK / shape.size), math.ceil(its_blocks / MOST_CHUNKS))
        length = of_chunk * shape.size // QUAD
        of_tensor = [(tensor, start, min(length, quads - start)) for start in range(0, quads, length)]
        spans[tensor] = (len(chunks), len(of_tensor))
        chunks += of_tensor

    def table(rows: list[tuple[int, ...]], columns: int) -> Tensor:
        return torch.tensor(rows, dtype=torch.int32).view(-1, columns).to(device)

    tensors = [(first, *span, i == normalised) for i, (first, span) in enumerate(zip(first_blocks, spans, strict=True))]
    return Layout(
        shape,
        tuple(first * shape.size for first in first_blocks),
        len(blocks) * shape.size,
        table([*blocks], 2),
        table([*tensors], 4),
        table([*chunks], 3),
    )
