from __future__ import annotations

import numpy as np
import pytest

from fastdino.evaluate.ranking import average_precision, positive_ranks, precision_at


def test_junk_moves_the_positives_behind_it_forward() -> None:
    assert positive_ranks(np.array([7, 3, 9, 1, 4]), positives={3, 4}, junk={7, 1}).tolist() == [0, 2]


def test_average_precision_is_the_area_under_trapezoids() -> None:
    # Ranks 0 and 2 of 2: ((1 + 1/1) / 2 + (1/2 + 2/3) / 2) / 2 = (1 + 7/12) / 2 = 19/24.
    assert average_precision(np.array([0, 2]), 2) == pytest.approx(19 / 24)
    # The third positive is never found and adds nothing.
    assert average_precision(np.array([0, 2]), 3) == pytest.approx(19 / 36)
    # Rank 1 of 1: (0/1 + 1/2) / 2.
    assert average_precision(np.array([1]), 1) == pytest.approx(1 / 4)


def test_precision_counts_no_further_than_the_last_positive() -> None:
    assert precision_at(np.array([0, 2]), 1) == 1.0
    assert precision_at(np.array([1, 2]), 10) == pytest.approx(2 / 3)
    assert precision_at(np.array([], dtype=np.int64), 5) == 0.0
