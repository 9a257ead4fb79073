from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from fastdino.train.sample import (
    COMPARED_WITH,
    HELD_OUT_MEASURED,
    MEASURED_PER_CLASS,
    PICTURES_MEASURED,
    measured_indices,
    sample_of,
)


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


@pytest.mark.parametrize(("train", "held_out"), [((16, 120), (16, 40)), ((300, 20), (300, 10)), ((3, 5), (3, 2000))])
def test_held_out_pictures_find_others_of_their_class(train: tuple[int, int], held_out: tuple[int, int]) -> None:
    sample = sample_of(Labels(*train), Labels(*held_out))
    assert sample.queries is not None
    assert len(sample.gallery) <= COMPARED_WITH
    assert len(sample.queries) <= HELD_OUT_MEASURED
    labels = [{source.label(index) for index in range(len(source))} for source in sample.sources]
    assert labels[0] == labels[1]


def test_small_sets_are_measured_whole() -> None:
    sample = sample_of(Labels(16, 120), Labels(16, 40))
    assert [len(source) for source in sample.sources] == [16 * 120, 16 * 40]


def test_held_out_classes_that_did_not_train_are_compared_with_what_did() -> None:
    held_out = Labels(2, 4)
    held_out.labels = [1] * 4
    train = Labels(2, 4)
    train.labels = [0] * 4
    assert len(sample_of(train, held_out).gallery) == 4
