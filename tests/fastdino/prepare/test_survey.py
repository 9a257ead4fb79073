from __future__ import annotations

from collections import defaultdict
from hashlib import blake2b

import numpy as np
import pytest

from fastdino.prepare.inspect import SAMPLE_SIDE, Picture
from fastdino.prepare.survey import Survey


def picture(content: bytes = b"", width: int = 100, height: int = 100, value: int = 0) -> Picture:
    points = SAMPLE_SIDE**2
    return Picture(
        width=width,
        height=height,
        file_bytes=len(content),
        digest=blake2b(content, digest_size=16).digest(),
        format="JPEG",
        mode="RGB",
        misnamed=False,
        progressive=False,
        rotated=False,
        animated=False,
        sums=np.full(3, points * value, dtype=np.int64),
        squares=np.full(3, points * value**2, dtype=np.int64),
    )


def test_duplicates_are_those_of_a_dictionary() -> None:
    draw = np.random.default_rng(0)
    contents = [bytes([number]) for number in draw.integers(0, 200, 300)]
    survey = Survey(len(contents))
    expected: dict[bytes, list[int]] = defaultdict(list)
    for index, content in enumerate(contents):
        if index % 7 == 3:  # the unreadable are no copies of each other
            survey.add(index, "the file is empty")
            continue
        survey.add(index, picture(content))
        expected[content].append(index)
    groups = [group.tolist() for group in survey.duplicates()]
    assert groups == sorted(group for group in expected.values() if len(group) > 1)
    assert len(groups) > 10


def test_sizes_and_small_pictures() -> None:
    survey = Survey(5)
    for index, (width, height) in enumerate([(100, 50), (96, 96), (300, 95), (400, 200)]):
        survey.add(index, picture(bytes([index]), width, height))
    survey.add(4, "damaged")
    assert survey.usable.tolist() == [0, 1, 2, 3]
    assert survey.smaller_than(96).tolist() == [0, 2]
    sizes = survey.sizes()
    assert (sizes["width"].min, sizes["width"].median, sizes["width"].max) == (96, 200, 400)
    assert (sizes["height"].min, sizes["height"].median, sizes["height"].max) == (50, 95.5, 200)
    assert sizes["megapixels"].max == pytest.approx(0.08)
    assert sizes["aspect"].max == pytest.approx(300 / 95)


def test_channels_weigh_every_picture_alike() -> None:
    survey = Survey(3)
    for index, value in enumerate((0, 51, 255)):
        survey.add(index, picture(value=value))
    mean, deviation = survey.channels()
    values = np.array([0, 0.2, 1.0])
    # Sums of integers are exact; what is left is the rounding of a handful of float64 operations.
    assert mean == pytest.approx([values.mean()] * 3, rel=1e-12)
    assert deviation == pytest.approx([values.std()] * 3, rel=1e-12)


def test_reasons_are_counted_without_their_numbers() -> None:
    survey = Survey(3)
    for index, reason in enumerate(["truncated (5 bytes)", "truncated (17 bytes)", "empty"]):
        survey.add(index, reason)
    assert survey.reasons() == {"truncated (N bytes)": 2, "empty": 1}
    assert survey.duplicates() == []
    assert survey.sizes()["width"].max == 0
