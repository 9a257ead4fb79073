from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fastdino.visualize.pictures import (
    colour_map,
    data_uri,
    enlarge,
    fit,
    outline,
    overlay,
    picture_grid,
    stretch,
)


def test_stretch_survives_constants() -> None:
    assert stretch([[2.0, 4.0], [3.0, 2.0]]).tolist() == [[0, 1], [0.5, 0]]
    assert stretch([[7.0, 7.0]]).tolist() == [[0, 0]]


def test_colour_map_ends_and_brightens() -> None:
    colours = np.asarray(colour_map(np.linspace(0, 1, 100)[None]).convert("L"), dtype=int)[0]
    assert np.asarray(colour_map([[0.0, 1.0]])).tolist() == [[[68, 1, 84], [253, 231, 37]]]
    assert (np.diff(colours) >= 0).all()


def test_enlarge_makes_rectangles() -> None:
    assert enlarge(np.array([[1, 2]]), (4, 2)).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]
    # Of five pixels the third one's middle lies on the border, and belongs to what is behind it.
    assert enlarge(np.array([[1, 2]]), (5, 1)).tolist() == [[1, 1, 2, 2, 2]]


def test_overlay_lifts_what_is_attended() -> None:
    picture = Image.new("RGB", (32, 16), (120, 120, 120))
    result = np.asarray(overlay(picture, np.array([[0.0, 1.0]])), dtype=int)
    assert result.shape == (16, 32, 3)
    assert result[8, 0].sum() < 3 * 120 / 2 < result[8, 31].sum()


def test_outline_tints_inside_and_leaves_outside() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:30, 10:30] = True
    result = np.asarray(outline(Image.new("RGB", (40, 40), "white"), mask))
    assert (result[~mask] == 255).all()
    assert result[20, 20].tolist() == [255, 162, 158]
    assert result[10, 20].tolist() == result[20, 29].tolist() == [255, 70, 60]


@pytest.mark.parametrize(("size", "expected"), [((100, 50), (40, 20)), ((20, 30), (20, 30)), ((1000, 1), (40, 1))])
def test_fit_only_shrinks(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fit(Image.new("RGB", size), 40).size == expected


def test_grid_takes_rows_of_unequal_length() -> None:
    red, blue = Image.new("RGB", (50, 50), "red"), Image.new("L", (80, 20))
    sheet = picture_grid([[red], [red, blue, red]], 50, [["one"], ["two", "three", "four"]], gap=4)
    assert sheet.width == 4 + 3 * 54
    assert sheet.getpixel((10, 10)) == (255, 0, 0)
    assert sheet.getpixel((4 + 54 + 10, 10)) == (255, 255, 255)


def test_data_uri_holds_the_picture() -> None:
    head, data = data_uri(Image.new("RGBA", (8, 6), "green")).split(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(BytesIO(base64.b64decode(data))).size == (8, 6)
