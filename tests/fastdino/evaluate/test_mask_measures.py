from __future__ import annotations

import numpy as np
import pytest

from fastdino.evaluate.mask_measures import (
    Mask,
    ObjectScores,
    Summary,
    boundary,
    boundary_accuracy,
    davis_scores,
    region_similarity,
    summarize,
)


def square(left: int) -> Mask:
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:20, left : left + 10] = True
    return mask


def test_the_same_mask_is_perfect_and_an_empty_one_matches_nothing() -> None:
    empty = np.zeros((40, 40), dtype=bool)
    assert region_similarity(square(10), square(10)) == boundary_accuracy(square(10), square(10)) == 1.0
    assert region_similarity(square(10), empty) == boundary_accuracy(square(10), empty) == 0.0
    assert region_similarity(empty, empty) == boundary_accuracy(empty, empty) == 1.0


def test_a_shifted_square_loses_what_the_shift_uncovers() -> None:
    # 5 of 10 columns are common: 50 / 150.
    assert region_similarity(square(15), square(10)) == pytest.approx(1 / 3)


def test_boundaries_match_within_the_tolerance() -> None:
    # The diagonal is 56.6 pixels: a reach of one.
    assert boundary_accuracy(square(11), square(10)) == 1.0
    # The ring has 11 x 11 - 9 x 9 = 40 pixels. Shifted by 5, the two rows keep columns 14 .. 19 and, one pixel
    # further, 13 (11 wide: 14 .. 24 against 9 .. 19): 7 of each row. The side at 24 is beyond reach, that at 14
    # touches a row at its two ends and one pixel inside each: 2 rows x 7 + 2 = 16 of 40, alike both ways.
    assert np.count_nonzero(boundary(square(10))) == 40
    assert boundary_accuracy(square(15), square(10)) == pytest.approx(16 / 40)


def test_boundaries_of_blobs_match_pixel_by_pixel() -> None:
    rows, columns = np.mgrid[:130, :220]
    blobs = [((rows - y) / 30) ** 2 + ((columns - x) / 50) ** 2 < 1 for y, x in ((60, 90), (63, 95))]
    ours, theirs = (np.argwhere(boundary(blob)) for blob in blobs)
    distances = np.linalg.norm(ours[:, None] - theirs, axis=-1)
    # 0.008 of the diagonal of 255.5 pixels is 2.04: three pixels.
    precision, recall = (distances.min(axis=axis) <= 3 for axis in (1, 0))
    expected = 2 * precision.mean() * recall.mean() / (precision.mean() + recall.mean())
    assert 0.2 < expected < 0.95
    assert boundary_accuracy(*blobs) == pytest.approx(expected)


def test_decay_compares_the_first_quarter_with_the_last() -> None:
    summary = summarize([1.0, 1.0, 0.8, 0.6, 0.4])
    # Quarters share their ends: (1 + 1) / 2 - (0.6 + 0.4) / 2.
    assert summary.mean == pytest.approx(0.76)
    assert summary.recall == pytest.approx(0.8)
    assert summary.decay == pytest.approx(0.5)
    assert summarize([0.7]) == Summary(0.7, 1.0, 0.0)


def test_objects_count_alike() -> None:
    scores = ObjectScores([1, 7])
    truth = np.where(square(10), 1, 0).astype(np.uint8)
    truth[30:35, 5:15] = 7
    for shift in (0, 5):
        scores.add(np.roll(truth, shift, axis=1), truth)
    summaries = scores.summaries()
    assert summaries[1][0].mean == pytest.approx((1 + 1 / 3) / 2)
    assert summaries[1][0] == summaries[7][0]
    both = davis_scores([summaries[1], (Summary(0.0, 0.0, 0.1), Summary(1.0, 1.0, 0.3))])
    assert both["j"]["mean"] == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert both["j"]["recall"] == pytest.approx(25)
    assert both["j_and_f"] == pytest.approx((both["j"]["mean"] + both["f"]["mean"]) / 2)
    assert ObjectScores([3]).summaries() == {}
