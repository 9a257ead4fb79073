from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from fastdino.train.report import MEASURED_PER_CLASS, PICTURES_MEASURED, measured_indices


class Labels:
    """A source of which only the labels matter."""

    def __init__(self, classes: int, pictures_per_class: int) -> None:
        self.classes = [str(label) for label in range(classes)]
        self.labels = [label for label in range(max(classes, 1)) for _ in range(pictures_per_class)]

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, index: int) -> int:
        return self.labels[index]


@pytest.mark.parametrize(("classes", "each"), [(1000, 10), (1000, 100), (3, 1000), (20, 25), (2, 4)])
def test_every_measured_class_has_neighbours(classes: int, each: int) -> None:
    source = Labels(classes, each)
    indices = measured_indices(source)
    assert len(set(indices)) == len(indices) <= PICTURES_MEASURED
    counts = Counter(source.label(index) for index in indices)
    assert len(counts) == min(classes, PICTURES_MEASURED // MEASURED_PER_CLASS)
    assert min(counts.values()) >= min(each, MEASURED_PER_CLASS)


def test_without_classes_pictures_are_spread_evenly() -> None:
    indices = measured_indices(Labels(0, 2000))
    assert len(indices) == PICTURES_MEASURED
    assert {later - earlier for earlier, later in pairwise(indices)} == {4}
