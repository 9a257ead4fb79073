"""Average precision as in the Holidays, revisited Oxford and revisited Paris protocols."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def positive_ranks(order: Indices, positives: Collection[int], junk: Collection[int] = ()) -> Indices:
    """Ranks from 0 of `positives` in `order`, the nearest picture first, as if `junk` were not in it."""
    kept = order[~np.isin(order, list(junk))]
    return np.flatnonzero(np.isin(kept, list(positives)))


def average_precision(ranks: Indices, positives: int) -> float:
    """Area under the precision-recall curve by trapezoids, 0 .. 1.

    `ranks` are those of the positives found, ascending from 0; `positives` is how many there are, found or not.
    """
    found = np.arange(len(ranks))
    # Before anything is shown, precision is 1.
    before = np.where(ranks > 0, found / np.maximum(ranks, 1), 1.0)
    return float((before + (found + 1) / (ranks + 1)).sum() / (2 * positives))


def precision_at(ranks: Indices, k: int) -> float:
    """Share of positives among the first k, or up to the last positive where that comes earlier (Radenovic 2018)."""
    if len(ranks) == 0:
        return 0.0
    shown = min(int(ranks.max()) + 1, k)
    return int((ranks < shown).sum()) / shown
