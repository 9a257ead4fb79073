"""Nearest pictures by cosine similarity, in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastdino.errors import UserError

# Bytes for the similarities of one piece: large enough to keep a processor busy, small beside any GPU's
# memory.
PIECE_BYTES = 256 * 2**20


class Neighbours(NamedTuple):
    """The k nearest gallery rows of query rows `rows`: cosine similarities (m, k), descending, and indices
    (m, k).
    """

    rows: slice
    similarities: Tensor
    indices: Tensor


def nearest(gallery: Tensor, queries: Tensor | None, k: int) -> Iterator[Neighbours]:
    """Nearest rows of `gallery` (n, D) for every row of `queries` (m, D), piece by piece.

    Without `queries` every row of the gallery is compared with all the others: leave-one-out. k must be at
    most n, or n - 1 for leave-one-out. Raises UserError for features that are not finite.
    """
    leave_one_out = queries is None
    gallery = unit_length(gallery)
    queries = gallery if queries is None else unit_length(queries)
    transposed = gallery.t()
    step = max(1, PIECE_BYTES // (gallery.element_size() * len(gallery)))
    for start in range(0, len(queries), step):
        piece = queries[start : start + step]
        similarities = piece @ transposed
        if leave_one_out:
            own = torch.arange(len(piece), device=piece.device)
            similarities[own, start + own] = -torch.inf
        yield Neighbours(slice(start, start + len(piece)), *similarities.topk(k))


def unit_length(features: Tensor) -> Tensor:
    """Rows (n, D) divided by their L2 norm. Raises UserError where a number is NaN or infinite."""
    # A NaN compares as smaller than nothing and would be counted as a right answer.
    check_finite(features)
    return F.normalize(features, dim=1)


def check_finite(features: Tensor) -> None:
    """Raise UserError where a number is NaN or infinite."""
    if not bool(features.isfinite().all()):
        raise UserError("the features contain NaN or infinity: the training diverged, use an earlier checkpoint")
